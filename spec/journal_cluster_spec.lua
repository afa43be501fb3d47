-- The journal on a Redis Cluster of three real nodes: each stream has its own position there, and everything is still applied exactly once, in order.
local decode = require "neap.decode"
local helper = require "spec.helper"
local http = require "neap.http"
local journal = require "neap.journal"
local redis = require "neap.redis"
local server = require "spec.redis_server"
local store = require "neap.store"
local task = require "neap.task"

local SENSORS <const> = 30
local ROUNDS <const> = tonumber(os.getenv "NEAP_KILLS" or 4)

describe("the journal on a Redis Cluster", function()
    local dir, nodes, r, j
    local sent = {} -- sensor to how many readings it has: their values are 1, 2, ..

    setup(function()
        nodes = server.cluster {"--appendonly", "yes", "--appendfsync", "everysec"}
        r = redis.connect(nodes.url)
    end)
    teardown(function()
        r:close()
        nodes:stop()
    end)
    before_each(function()
        dir = helper.dir()
        for _, node in ipairs(nodes) do node.own:flushall() end
        sent = {}
    end)
    after_each(function()
        journal.close(j)
        helper.remove(dir)
    end)

    local function start()
        j = journal.open {dir = dir .. "/journal"}
        journal.apply(j, {redis = nodes.url, keys = store.journal_keys(), timeout = 0.5})
    end

    local function caught_up(seconds)
        helper.eventually(function() return j:stats().behind == 0 and j:stats().state == "running" end, seconds or 20)
    end

    local function name(i) return "s" .. i end

    --- The next `n` readings of each sensor of first .. last, in one batch.
    local function append(first, last, n)
        local order, pairs_of = {}, {}
        for i = first, last do
            local s, list = name(i), {}
            for _ = 1, n or 1 do
                sent[s] = (sent[s] or 0) + 1
                table.move({sent[s], sent[s]}, 1, 2, #list + 1, list)
            end
            order[#order + 1], pairs_of[s] = s, list
        end
        j:append_pairs(order, pairs_of)
    end

    --- What is in the stream, as it is: values in order of arrival.
    local function history(sensor, what)
        local times, values = {}, {}
        for _, entry in ipairs(r:raw("XRANGE", ("neap:{%s}:%s"):format(sensor, what or "readings"), "-", "+")) do
            for i = 1, #entry[2], 2 do decode.unpack(entry[2][i], entry[2][i + 1], times, values) end
        end
        return values
    end

    local function each_once()
        for s, n in pairs(sent) do
            local want = {}
            for i = 1, n do want[i] = i end
            assert.same(want, history(s), s)
        end
    end

    local function node_of(sensor)
        return nodes[r:cluster_keyslot(("neap:{%s}:readings"):format(sensor)) // 5461 + 1] or nodes[3]
    end

    it("brings everything to its node once and in order, through a restart", function()
        start()
        for _ = 1, 20 do append(1, SENSORS, 3) end
        caught_up()
        assert.equal("everysec", j:stats().durability)
        assert.equal(20 * SENSORS * 3, j:stats().readings)
        assert.equal(SENSORS, r:scard "neap:sensors")
        for _, node in ipairs(nodes) do assert.is_true(#node.own:keys "*" > 5) end
        journal.close(j)
        j = journal.open {dir = dir .. "/journal"}
        r:del "neap:sensors" -- its node has lost it, say
        append(1, SENSORS + 5) -- some that Redis does not know, and nobody applies yet
        journal.close(j)
        start()
        append(3, 3)
        caught_up()
        assert.equal(SENSORS + 5, r:scard "neap:sensors")
        append(3, SENSORS + 10)
        caught_up()
        each_once()
        assert.equal(SENSORS + 10, r:scard "neap:sensors")
    end)

    it("keeps made-up readings apart, and counts a retried batch once on each node", function()
        start()
        j:append_pairs({"s1", "s2"}, {s1 = {1, 9}, s2 = {1, 9}}, {source = "synthetic"})
        j:append_pairs({"s1"}, {s1 = {1, 8}}, {source = "quarantine"})
        local batch = {}
        for i = 1, SENSORS do batch[i] = ('{"sensor_name":"s%d","sensor_output":1}'):format(i) end
        for _ = 1, 3 do j:append(decode.json("[" .. table.concat(batch, ",") .. "]"), {key = "abc"}) end
        for i = 1, SENSORS do sent[name(i)] = 1 end
        append(1, 2)
        caught_up()
        each_once()
        assert.same({9}, history("s1", "synthetic"))
        assert.same({8}, history("s1", "quarantine"))
        assert.equal(2 * SENSORS, j:stats().duplicates)
    end)

    it("puts aside what a node does not take, and goes on with the rest", function()
        r:set("neap:{s1}:readings", "not a stream")
        start()
        append(1, SENSORS)
        caught_up()
        assert.equal(1, j:stats().dead)
        assert.equal(1, r:xlen "neap:{s1}:dead")
        sent.s1 = nil
        each_once()
    end)

    it("waits for a node that is frozen or killed, and goes on where each stream was", function()
        start()
        local function load_until(there)
            local rounds = 0
            repeat
                append(1, SENSORS, 2)
                rounds = rounds + 1
                task.sleep(0.002)
            until there() and rounds >= 50
        end
        load_until(function() return j:stats().behind == 0 end)
        local node = node_of "s1"
        node:kill "STOP"
        load_until(function() return j:stats().state == "away" end)
        node:kill "CONT"
        load_until(function() return j:stats().state == "running" end)
        node:kill()
        load_until(function() return j:stats().state == "away" end)
        node:start_again()
        load_until(function() return j:stats().state == "running" end)
        caught_up()
        each_once()
    end)

    it("applies again what is retained when a node has lost its data, and only there", function()
        start()
        append(1, SENSORS, 5)
        caught_up()
        node_of("s1").own:flushall()
        append(1, SENSORS)
        helper.eventually(function() return j:stats().replays == 1 end)
        caught_up()
        each_once()
    end)

    it("stops when a stream is ahead of the journal: one of the two is an old copy", function()
        start()
        append(1, 1)
        caught_up()
        local at = r:hgetall "neap:{s1}:journal"
        local field, value = next(at)
        r:hset("neap:{s1}:journal", field, value:match "^%S+" .. " 999999999")
        append(1, 2)
        helper.eventually(function() return j:stats().state == "stopped" end)
        assert.matches("old copy", j:stats().text)
    end)

    it("loses and doubles nothing over kill -9 of neap serve, of a node and of both, nor while a node is frozen", function()
        local serving, url
        local function serve() serving, url = helper.serve(dir, {"--redis", nodes.url, "--workers", "2"}) end
        serve()
        local number, acked, over = 0, {}, false
        local function poster()
            while not over do
                local list, mine = {}, {}
                for i = 1, 10 do
                    number = number + 1
                    mine[i] = number
                    list[i] = ('{"sensor_name":"s%d","sensor_output":%d,"ts":%d}'):format(number % SENSORS, number, 1700000000 + number)
                end
                local ok, answer = pcall(http.request, {method = "POST", url = url .. "/receive", timeout = 5,
                    headers = {["Idempotency-Key"] = "n" .. number}, body = "[" .. table.concat(list, ",") .. "]"})
                if ok and answer.status == 200 then
                    table.move(mine, 1, #mine, #acked + 1, acked)
                else
                    assert.is_true(not ok or answer.status == 503, ok and answer.body)
                    task.sleep(0.01)
                end
            end
        end
        local function more(n)
            local before = #acked
            helper.eventually(function() return #acked >= before + n end, 20)
        end
        local away = 0
        task.group(function(g)
            for _ = 1, 4 do g:spawn(poster) end
            for round = 1, ROUNDS do
                more(500)
                local node, began = nodes[round % 3 + 1], task.now()
                local what = ({"host", "node", "both", "frozen"})[(round - 1) % 4 + 1]
                if what == "host" or what == "both" then
                    serving:kill "KILL"
                    serving:wait()
                end
                if what == "node" or what == "both" then
                    node:kill()
                    node:start_again()
                elseif what == "frozen" then
                    node:kill "STOP"
                    more(500)
                    node:kill "CONT"
                end
                if what == "host" or what == "both" then serve() end
                more(1)
                away = math.max(away, task.now() - began)
            end
            over = true
        end)
        helper.eventually(function()
            local health = http.request({url = url .. "/health"}):json()
            return health.journal.behind == 0 and health.redis.up
        end, 30)
        serving:stop()
        local seen, twice, lost = {}, 0, 0
        for i = 0, SENSORS - 1 do
            for _, n in ipairs(history(name(i))) do
                if seen[n] then twice = twice + 1 end
                seen[n] = true
            end
        end
        for _, n in ipairs(acked) do
            if not seen[n] then lost = lost + 1 end
        end
        assert.same({0, 0}, {lost, twice})
        if os.getenv "NEAP_KILLS" then -- for the report of `make soak`
            print(("Redis Cluster: %d kills and freezes, %d readings acknowledged, 0 lost, 0 twice; away for %.2f s at most"):format(ROUNDS, #acked, away))
        end
    end)

    it("stands behind neap serve there as anywhere", function()
        local _ <close>, url = helper.serve(dir, {"--redis", nodes.url})
        local function post(i)
            local answer = http.request {method = "POST", url = url .. "/receive",
                body = ('[{"sensor_name":"s%d","sensor_output":%d,"ts":%d}]'):format(i % SENSORS, i // SENSORS + 1, 1700000000 + i)}
            assert.equal(200, answer.status)
        end
        for i = 0, 10 * SENSORS - 1 do
            post(i)
            sent["s" .. i % SENSORS] = i // SENSORS + 1
        end
        local health
        helper.eventually(function()
            health = http.request({url = url .. "/health"}):json()
            return health.journal and health.journal.behind == 0 and health.redis.up
        end, 20)
        assert.equal("everysec", health.redis.durability)
        each_once()
        local answer = http.request {url = url .. "/api/sensors/s1/readings?last=100"}
        assert.equal(200, answer.status)
    end)
end)
