-- Streams, subscriptions and columns of neap.redis.
local redis = require "neap.redis"
local server = require "spec.redis_server"
local task = require "neap.task"

local function error_of(fn, ...)
    local ok, e = pcall(fn, ...)
    assert.is_false(ok, "no error was raised")
    return e
end

describe("neap.redis", function()
    local s, r
    setup(function()
        s = server.start()
        r = redis.connect(s.url)
    end)
    teardown(function()
        r:close()
        s:stop()
    end)
    before_each(function() r:flushall() end)

    describe("streams", function()
        it("are iterated in batches, and waited on", function()
            for i = 1, 25 do r:xadd("s", {i = i}, {id = i .. "-0"}) end
            local seen = {}
            for e in r:stream("s", {batch = 10}) do seen[#seen + 1] = tonumber(e.fields.i) end
            assert.equal(25, #seen)
            assert.equal(25, seen[25])
            local got
            task.group(function(g)
                g:spawn(function()
                    got = r:stream("s", {from = "$", block = math.huge})().fields.i
                end)
                g:spawn(function()
                    server.eventually(function() return r:info("clients").blocked_clients == 1 end)
                    r:xadd("s", {i = "new"})
                end)
            end)
            assert.equal("new", got)
            for _ in r:stream("s", {from = "$", block = .01}) do error "nothing new" end
        end)

        it("are shared by groups: own unfinished work first, others' after claim_idle", function()
            for i = 1, 6 do r:xadd("s", {i = i}, {id = i .. "-0"}) end
            local first = {}
            for e, ack in r:group("s", "g", {consumer = "a", batch = 4, block = .01}) do
                first[#first + 1] = e.id
                if e.ms % 2 == 0 then ack() end
                if e.ms == 4 then break end
            end
            assert.same({"1-0", "2-0", "3-0", "4-0"}, first)
            local again = {}
            for e, ack in r:group("s", "g", {consumer = "a", block = .01}) do
                again[#again + 1] = e.id
                ack()
            end
            assert.same({"1-0", "3-0", "5-0", "6-0"}, again)
            r:xadd("s", {i = 7}, {id = "7-0"})
            for e in r:group("s", "g", {consumer = "dead", block = .01}) do assert.equal("7-0", e.id) end -- never acknowledged
            local claimed = {}
            for e, ack in r:group("s", "g", {consumer = "b", block = .2, claim_idle = .02}) do
                claimed[#claimed + 1] = e.id
                ack()
            end
            assert.same({"7-0"}, claimed)
            assert.equal(0, r:xpending("s", "g")[1])
        end)
    end)

    describe("subscriptions", function()
        it("get what is published, by channel and by pattern, over one connection", function()
            local a <close> = r:subscribe("news", "live:*")
            local b <close> = r:subscribe "news"
            assert.equal(1, r:publish("news", "hello\0there"))
            assert.equal(1, r:publish("live:1", "x"))
            assert.same({channel = "news", data = "hello\0there"}, a:next(5))
            assert.same({channel = "live:1", pattern = "live:*", data = "x"}, a:next(5))
            assert.same({channel = "news", data = "hello\0there"}, b:next(5))
            assert.is_nil(b:next(.01))
            assert.equal(1, r:pubsub_numsub("news").news)
            a:close()
            assert.equal(1, r:publish("news", "again"))
            assert.equal("again", b:next(5).data)
        end)

        it("end when closed, also for a task that waits", function()
            local a = r:subscribe "x"
            local t = task.spawn(function()
                local n = 0
                for _ in a:messages() do n = n + 1 end
                return n
            end)
            r:publish("x", 1)
            server.eventually(function() return a:info() == 0 end)
            task.sleep(0)
            a:close()
            assert.equal(1, t:join())
            server.eventually(function() return next(r:pubsub_channels()) == nil end)
        end)

        it("come back after the connection was lost", function()
            local a <close> = r:subscribe "x"
            r:client_kill("TYPE", "pubsub")
            server.eventually(function() return r:publish("x", "back") == 1 end)
            assert.equal("back", a:next(5).data)
            assert.equal(1, select(3, a:info()))
        end)
    end)

    it("decodes a stream into tensors, sorted by event time", function()
        r:xadd("c", {1000, 1.5}, {id = "1-0"})
        r:xadd("c", {3000, 3.5, 2000, 2.25}, {id = "2-0"})
        r:xadd("c", {4000, "not a number", 5000, -7, 2000, 9}, {id = "3-0"})
        local cols = r:columns("c")
        assert.same({5, 3, 1, "3-0"}, {cols.n, cols.entries, cols.skipped, cols.last_id})
        assert.same({1000, 2000, 2000, 3000, 5000}, cols.time:totable())
        assert.same({1.5, 2.25, 9, 3.5, -7}, cols.value:totable())
        assert.same({"i64", "f64"}, {cols.time.dtype, cols.value.dtype})
        cols = r:columns("c", "-", "+", {unique = true, dtype = "f32"})
        assert.same({1.5, 9, 3.5, -7}, cols.value:totable())
        assert.equal("f32", cols.value.dtype)
        -- the newest two entries; of equal times still the one that came last
        cols = r:columns("c", nil, nil, {max = 2, unique = true})
        assert.same({2000, 3000, 5000}, cols.time:totable())
        assert.same({9, 3.5, -7}, cols.value:totable())
        assert.equal("3-0", cols.last_id)
        assert.equal(1, r:columns("c", "(2-0", "+", {max = 10}).entries)
        assert.same({0, 0, ""}, {r:columns("none").n, r:columns("none").time.shape[1], r:columns("none").last_id})
        r:set("text", 1)
        assert.equal("WRONGTYPE", error_of(r.columns, r, "text").code)
    end)

    it("agrees with plain Lua on columns of many late and equal times", function()
        local rows = {}
        math.randomseed(7)
        for page = 1, 20 do
            r:pipeline(function(p)
                for i = 1, 100 do
                    local fields = {}
                    for _ = 1, math.random(4) do
                        local row = {time = math.random() < .2 and math.random(3000) or page * 100 + i, value = math.random(-1000, 1000) / 8, at = #rows}
                        rows[#rows + 1] = row
                        fields[#fields + 1], fields[#fields + 2] = row.time, row.value
                    end
                    p:xadd("many", "*", fields)
                end
            end)
        end
        table.sort(rows, function(a, b) if a.time ~= b.time then return a.time < b.time end return a.at < b.at end)
        local times, values = {}, {}
        for i, row in ipairs(rows) do times[i], values[i] = row.time, row.value end
        for _, opts in ipairs {{}, {max = 100000}} do
            local cols = r:columns("many", "-", "+", opts)
            assert.same(times, cols.time:totable())
            assert.same(values, cols.value:totable())
        end
    end)
end)
