-- What `neap serve` said yes to is kept: kill -9 of the host, of its Redis, and of both, under load. A short form; `make soak` repeats it.
local decode = require "neap.decode"
local helper = require "spec.helper"
local http = require "neap.http"
local json = require "neap.json"
local process = require "neap.process"
local redis = require "neap.redis"
local redis_server = require "spec.redis_server"
local task = require "neap.task"

--- The values of an entry's fields, in order.
local function values_of(fields)
    local values = {}
    for i = 1, #fields, 2 do decode.unpack(fields[i], fields[i + 1], {}, values) end
    return values
end

local ROUNDS <const> = tonumber(os.getenv "NEAP_KILLS" or 5)

describe("a reading that was answered with 2xx", function()
    local dir, server, url

    local function start() server, url = helper.serve(dir) end

    --- The private redis-server's process id, from its own INFO.
    local function redis_pid()
        local text = process.run {"redis-cli", "-s", dir .. "/data/redis/redis.sock", "info", "server"}
        return math.tointeger(tonumber((text or ""):match "process_id:(%d+)"))
    end

    local function kill(pid) process.run {"kill", "-9", tostring(pid)} end

    before_each(function()
        dir = helper.dir()
        start()
    end)
    after_each(function()
        server:stop()
        helper.remove(dir)
    end)

    --- Four posters send what `post(number)` makes of each number, while the host, its Redis and both are killed in turn, each once `quota` more posts were
    --- acknowledged. Returns the numbers that were, when Redis has all of them, and for how long nothing was acknowledged, at most.
    local function under_kills(quota, post)
        local number, acked, stop, away = 0, {}, false, 0
        local function poster()
            while not stop do
                number = number + 1
                local mine = number
                local ok, answer = pcall(http.request, post(mine))
                if ok and answer.status // 100 == 2 then
                    acked[#acked + 1] = mine
                elseif ok then
                    assert.equal(503, answer.status)
                else
                    task.sleep(0.01) -- nobody listens just now
                end
            end
        end
        task.group(function(g)
            for _ = 1, 4 do g:spawn(poster) end
            for round = 1, ROUNDS do
                local before = #acked
                helper.eventually(function() return #acked >= before + quota end, 20)
                local host, killed = round % 3 ~= 2, task.now()
                if round % 3 ~= 1 then kill(helper.eventually(redis_pid, 20)) end
                if host then
                    server:kill "KILL"
                    server:wait()
                    start()
                end
                local again = #acked
                helper.eventually(function() return #acked > again end, 20)
                away = math.max(away, task.now() - killed)
            end
            local before = #acked
            helper.eventually(function() return #acked >= before + quota end, 20)
            stop = true
        end)
        helper.eventually(function()
            local answer = http.request {url = url .. "/health"}
            return answer.status == 200 and answer:json().journal.behind == 0 and answer:json().redis.up
        end, 20)
        return acked, away
    end

    --- For the report of `make soak`.
    local function report(...)
        if os.getenv "NEAP_KILLS" then print((...):format(select(2, ...))) end
    end

    it("is there once and in order after kill -9 of the host, of Redis and of both", function()
        local acked, away = under_kills(50, function(number)
            return {
                method = "POST", url = url .. "/receive", timeout = 5, headers = {["Idempotency-Key"] = "n" .. number},
                body = ('[{"sensor_name":"t","sensor_output":%d,"ts":%d}]'):format(number, 1700000000 + number),
            }
        end)
        local text = process.run {"redis-cli", "--json", "-s", dir .. "/data/redis/redis.sock", "xrange", "neap:{t}:readings", "-", "+"}
        local seen, twice = {}, 0
        for _, entry in ipairs(json.decode(text)) do
            for _, n in ipairs(values_of(entry[2])) do
                if seen[n] then twice = twice + 1 end
                seen[n] = true
            end
        end
        local lost = 0
        for _, n in ipairs(acked) do
            if not seen[n] then lost = lost + 1 end
        end
        assert.equal(0, lost, ("of %d acknowledged"):format(#acked))
        assert.equal(0, twice)
        assert.is_true(#acked >= 50 * ROUNDS)
        report("%d kills, %d readings acknowledged, 0 lost, 0 twice; away for %.2f s at most", ROUNDS, #acked, away)
    end)

    --- Kills in a flood, where readings are gathered by sensor before Redis gets them.
    local function in_a_flood(sensors)
        local READINGS <const> = 2000
        local acked, away = under_kills(20, function(number)
            local lines = {}
            for i = 1, READINGS do lines[i] = ("f%d value=%di %d"):format((number * READINGS + i) % sensors, number, number * READINGS + i) end
            return {method = "POST", url = url .. "/write?precision=us", timeout = 5, body = table.concat(lines, "\n")}
        end)
        local times, twice, entries = {}, 0, 0 -- of each number, how many of its readings are there
        local client <close> = redis.connect("unix://" .. dir .. "/data/redis/redis.sock")
        for sensor = 0, sensors - 1 do
            local seen = {}
            for _, entry in ipairs(client:raw("XRANGE", ("neap:{f%d}:readings"):format(sensor), "-", "+")) do
                local at, values = {}, {}
                entries = entries + 1
                for i = 1, #entry[2], 2 do decode.unpack(entry[2][i], entry[2][i + 1], at, values) end
                for i = 1, #at do
                    if seen[at[i]] then twice = twice + 1 end
                    seen[at[i]] = true
                    times[values[i]] = (times[values[i]] or 0) + 1
                end
            end
        end
        local lost, readings = 0, 0
        for _, number in ipairs(acked) do lost = lost + READINGS - (times[number] or 0) end
        for _, n in pairs(times) do readings = readings + n end
        assert.equal(0, lost, ("readings of %d batches acknowledged"):format(#acked))
        assert.equal(0, twice)
        report("in a flood of %d sensors: %d kills, %d readings acknowledged, 0 lost, 0 twice, %.1f to an entry (a batch alone: %.1f); away for %.2f s at most",
            sensors, ROUNDS, #acked * READINGS, readings / entries, math.max(1, READINGS / sensors), away)
    end

    it("is there once after the same kills in a flood, where readings are gathered by sensor before Redis gets them", function() in_a_flood(100) end)

    it("is there once after the same kills in a flood of so many sensors that they take turns", function() in_a_flood(6000) end)

    it("is acknowledged from the journal while Redis is frozen or full, and there afterwards", function()
        local number, sent = 0, {}
        local function post()
            number = number + 1
            sent[number] = neap.clock() * 1000
            local before = task.now()
            local answer = http.request {method = "POST", url = url .. "/receive", body = ('[{"sensor_name":"t","sensor_output":%d}]'):format(number)}
            assert.equal(200, answer.status)
            assert.is_true(task.now() - before < 2)
        end
        local function health()
            local answer = http.request {url = url .. "/health"}
            assert.equal(200, answer.status, "readings are accepted, so it is healthy")
            return answer:json()
        end
        local function caught_up()
            helper.eventually(function() return health().journal.behind == 0 and health().redis.up end, 20)
            local text = process.run {"redis-cli", "--json", "-s", dir .. "/data/redis/redis.sock", "xrange", "neap:{t}:readings", "-", "+"}
            local n = 0
            for _, entry in ipairs(json.decode(text)) do
                local after = tonumber(entry[1]:match "^%d+") - sent[n + 1]
                assert.is_true(after > -1100 and after < 4100, ("an entry's ID is when it came, to three seconds: not %.0f ms after"):format(after))
                for _, value in ipairs(values_of(entry[2])) do
                    n = n + 1
                    assert.equal(n, value, "in order, each once")
                end
            end
            assert.equal(number, n)
        end
        local function redis_cli(...) return process.run {"redis-cli", "-s", dir .. "/data/redis/redis.sock", ...} end
        post()
        local pid = redis_pid()
        process.run {"kill", "-STOP", tostring(pid)}
        for _ = 1, 3 do post() end
        helper.eventually(function() return #health().degraded > 0 end, 20)
        for _ = 1, 20 do post() end
        process.run {"kill", "-CONT", tostring(pid)}
        caught_up()
        redis_cli("config", "set", "maxmemory", "1")
        for _ = 1, 20 do post() end
        helper.eventually(function() return #health().degraded > 0 and health().degraded[1]:find "OOM" end, 20)
        redis_cli("config", "set", "maxmemory", "0")
        caught_up()
    end)

    it("is taken by a server that starts while its Redis is away or frozen, and is there afterwards", function()
        local mine = helper.dir()
        server:stop()
        local s = redis_server.start {args = {"--appendonly", "yes"}}
        local dead = ("redis://127.0.0.1:%d"):format(s.port)
        local function post(value)
            local answer = http.request {method = "POST", url = url .. "/receive", body = ('[{"sensor_name":"t","sensor_output":%d}]'):format(value)}
            assert.equal(200, answer.status)
        end
        local function health() return http.request({url = url .. "/health"}):json() end
        local r <close> = redis.connect(s.url)
        local function there()
            local seen = {}
            for _, entry in ipairs(r:raw("XRANGE", "neap:{t}:readings", "-", "+")) do table.move(values_of(entry[2]), 1, 100, #seen + 1, seen) end
            return seen
        end
        s:kill()
        local ok, err = pcall(helper.serve, mine, {"--redis", dead}) -- never met: its address may be wrong
        assert.is_false(ok)
        assert.matches("cannot connect to Redis at 127.0.0.1", err, 1, true)
        s:start_again()
        for round, away in ipairs {"KILL", "STOP"} do
            server, url = helper.serve(mine, {"--redis", dead})
            post(2 * round - 1)
            helper.eventually(function() return health().journal.behind == 0 end)
            server:stop()
            s:kill(away)
            local said
            server, url, said = helper.serve(mine, {"--redis", dead})
            assert.matches("away at present, readings are kept in the journal", said, 1, true)
            post(2 * round)
            assert.same({"pass", false}, {health().status, health().redis.up})
            if away == "KILL" then assert.equal(503, http.request({url = url .. "/api/sensors"}).status) end
            if away == "STOP" then s:kill "CONT" else s:start_again() end
            helper.eventually(function() return health().redis.up and health().journal.behind == 0 end, 20)
            helper.eventually(function() return health().redis.durability == "everysec" end, 20)
            server:stop()
        end
        assert.same({1, 2, 3, 4}, there())
        s:stop()
        helper.remove(mine)
        start()
    end)

    it("is refused with 503 once the oldest has waited for Redis for --journal-age, and taken again when Redis is back", function()
        server:stop()
        server, url = helper.serve(dir, {"--journal-age", "1"})
        local function post(value)
            return http.request {method = "POST", url = url .. "/receive", body = ('[{"sensor_name":"t","sensor_output":%d}]'):format(value)}
        end
        local taken = 0
        local function take()
            local answer = post(taken + 1)
            if answer.status == 200 then taken = taken + 1 end
            return answer
        end
        assert.equal(200, take().status)
        local pid = helper.eventually(redis_pid, 20)
        process.run {"kill", "-STOP", tostring(pid)}
        local ok, err = pcall(function()
            local answer = helper.eventually(function()
                local a = take()
                return a.status ~= 200 and a
            end, 30)
            assert.equal(503, answer.status)
            assert.is_true(tonumber(answer.headers["Retry-After"]) >= 1)
            assert.matches("Send them again", answer.body, 1, true)
            local health = helper.eventually(function()
                local a = http.request {url = url .. "/health"}
                return a.status == 503 and a
            end, 20)
            assert.equal("fail", health:json().status)
            assert.matches("the oldest reading has waited for Redis", health:json().message, 1, true)
            assert.is_true(tonumber(http.request({url = url .. "/metrics"}).body:match "\nneap_journal_refused_old_total ([%d.]+)") >= 1)
        end)
        process.run {"kill", "-CONT", tostring(pid)}
        assert(ok, err)
        helper.eventually(function() return http.request({url = url .. "/health"}).status == 200 end, 20)
        helper.eventually(function() return take().status == 200 end, 20)
        helper.eventually(function()
            local text = process.run {"redis-cli", "--json", "-s", dir .. "/data/redis/redis.sock", "xrange", "neap:{t}:readings", "-", "+"}
            local seen = {}
            for _, entry in ipairs(json.decode(text)) do table.move(values_of(entry[2]), 1, #values_of(entry[2]), #seen + 1, seen) end
            if #seen < taken then return false end
            for i = 1, #seen do assert.equal(i, seen[i], "each that was acknowledged, once") end
            return #seen == taken
        end, 20)
    end)
end)
