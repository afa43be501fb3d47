local redis = require "neap.redis"
local server = require "spec.redis_server"
local task = require "neap.task"

-- The error object that fn raises.
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

    describe("commands", function()
        it("are methods; a missing value is nil, a null inside a list false", function()
            assert.equal("OK", r:set("k", "v\0\r\n\xff"))
            assert.equal("v\0\r\n\xff", r:get "k")
            assert.is_nil(r:get "missing")
            assert.same({"v\0\r\n\xff", false}, r:mget("k", "missing"))
            assert.equal(1, r:incr "n")
            assert.equal(3, r:rpush("l", {"a", "b", "c"}))
            assert.same({"a", "b", "c"}, r:lrange("l", 0, -1))
            assert.equal("hash", (r:hset("h", {x = 1}) and r:type "h"))
        end)

        it("send numbers so that they come back the same", function()
            for _, x in ipairs {0.1, 1 / 3, 1e300, -2.5e-7, 2 ^ 53, math.maxinteger, math.mininteger, -0.0} do
                r:set("x", x)
                assert.equal(x, math.type(x) == "integer" and math.tointeger(r:get "x") or tonumber(r:get "x"))
            end
            r:set("x", 3.0)
            assert.equal("3", r:get "x")
        end)

        it("take option tables, and name the nearest option for an unknown one", function()
            r:set("k", 1, {ex = 100})
            assert.is_true(r:ttl "k" > 90)
            r:set("k", 1, {ex = .5})
            assert.is_true(r:pttl "k" <= 500 and r:ttl "k" <= 1)
            assert.is_nil(r:set("k", 2, {nx = true}))
            assert.equal("1", r:set("k", 2, {get = true, keepttl = true}))
            assert.matches("redis.set: unknown option 'keeptl', did you mean 'keepttl'?", error_of(r.set, r, "k", 1, {keeptl = 1}), 1, true)
            r:zadd("z", 1, "a", 2, "b")
            assert.same({"a", "1", "b", "2"}, r:zrange("z", 0, -1, {withscores = true}))
            assert.same({"b"}, r:zrange("z", 0, 9, {byscore = true, limit = {1, 5}}))
        end)

        it("give maps and records where those are meant", function()
            r:hset("h", {a = 1, b = 2})
            assert.same({a = "1", b = "2"}, r:hgetall "h")
            assert.same({}, r:hgetall "none")
            assert.same({maxclients = r:config_get("maxclients").maxclients}, r:config("get", "maxclients"))
            assert.equal("standalone", r:info("server").redis_mode)
            assert.is_true(r:info().connected_clients >= 1)
            local id = r:xadd("s", {temp = 21.5})
            r:xadd("s", {temp = 22}, {id = "99999999999999-7", maxlen = 10})
            r:xadd("s", "*", "temp", 23)
            local e = r:xrange("s", "-", "+")
            assert.equal(3, #e)
            assert.same({temp = "21.5"}, e[1].fields)
            assert.equal(id, e[1].id)
            assert.equal(id, e[1].ms .. "-" .. e[1].seq)
            assert.equal(99999999999999, e[2].ms)
            assert.equal(7, e[2].seq)
            assert.equal(1, #r:xrevrange("s", "+", "-", {count = 1}))
            assert.equal(3, #r:xread({s = "0"}).s)
            assert.is_nil(r:xread({s = "$"}))
            assert.equal(3, r:xinfo("stream", "s").length)
            r:xgroup("create", "s", "g", "0")
            assert.equal("g", r:xinfo_groups("s")[1].name)
            assert.same({{id, {"temp", "21.5"}}}, r:raw("XRANGE", "s", "-", "+", "COUNT", 1))
        end)

        it("of every name go to the wire", function()
            assert.equal("PONG", r:call "PING")
            assert.equal("x", r:call("echo", "x"))
            local e = error_of(r.nosuchcommand, r, 1)
            assert.equal("reply", e.kind)
            assert.equal("ERR", e.code)
            assert.matches("nosuchcommand", e.message)
        end)

        it("map every RESP type", function()
            local function debug_reply(kind) return r:debug("protocol", kind) end
            assert.equal("Hello World", debug_reply "string")
            assert.equal(12345, debug_reply "integer")
            assert.equal("3.141", debug_reply "double")
            assert.is_nil(debug_reply "null")
            assert.same({0, 1, 2}, debug_reply "array")
            assert.same({0, 1, 2}, debug_reply "set")
            assert.equal(6, #debug_reply "map")
            assert.equal(1, debug_reply "true")
            assert.equal(0, debug_reply "false")
            assert.equal("1234567999999999999999999999999999999", debug_reply "bignum")
            assert.matches("^This is a verbatim", debug_reply "verbatim")
            assert.same({1, {"a", {2, false}}}, r:eval("return {1, {'a', {2, false}}}", 0))
        end)

        it("refuse what Redis has no form for, naming the argument", function()
            assert.matches("redis.set: argument #2 is nil", error_of(r.set, r, "k", nil), 1, true)
            assert.matches("redis.set: argument #2 is a boolean", error_of(r.set, r, "k", true), 1, true)
            assert.matches("redis.set: argument #2 is function", error_of(r.set, r, "k", print), 1, true)
            assert.matches("call it with a colon", error_of(r.get, "k"), 1, true)
        end)

        it("raise errors that say what to do, or return them through try", function()
            r:set("k", "text")
            local e = error_of(r.lpush, r, "k", 1)
            assert.same({"reply", "WRONGTYPE", false}, {e.kind, e.code, e.retryable})
            assert.matches("redis.lpush: WRONGTYPE.*key 'k'.*TYPE key", tostring(e))
            local v, err = r.try:lpush("k", 1)
            assert.is_nil(v)
            assert.equal("WRONGTYPE", err.code)
            assert.equal("text", r.try:get "k")
            assert.has_error(function() r.try:set("k", nil) end) -- misuse is not life
        end)

        it("that change a shared connection are refused there", function()
            assert.matches("use `local c <close> = r:dedicated()`", error_of(r.select, r, 1), 1, true)
            assert.matches("r:subscribe", error_of(r.psubscribe, r, "x"), 1, true)
            local c <close> = r:dedicated()
            c:select(1)
            c:set("k", "other")
            assert.is_nil(r:get "k")
        end)

        it("that are big work both ways", function()
            local big = ("x"):rep(5 * 1024 * 1024)
            r:set("big", big)
            assert.equal(big, r:get "big")
            local many = {}
            for i = 1, 50000 do many[i] = i end
            assert.equal(50000, r:rpush("many", many))
            local back = r:lrange("many", 0, -1)
            assert.equal(50000, #back)
            assert.equal("50000", back[50000])
        end)
    end)

    it("leaves a turn's commands in one write", function()
        r:ping()
        local before = r:info("stats").total_reads_processed
        task.all(table.unpack((function()
            local fns = {}
            for i = 1, 500 do fns[i] = function() return r:set("k" .. i, i) end end
            return fns
        end)()))
        local reads = r:info("stats").total_reads_processed - before
        assert.is_true(reads < 20, reads .. " reads for 500 commands")
        assert.equal(500, r:dbsize())
    end)

    it("serves other tasks while one waits", function()
        local order = {}
        task.group(function(g)
            g:spawn(function()
                local item = r:blpop("queue", 10)[2]
                order[#order + 1] = item
            end)
            g:spawn(function()
                local n = r:incr "n"
                order[#order + 1] = n
                r:rpush("queue", "item")
            end)
        end)
        assert.same({1, "item"}, order)
    end)

    describe("pipelines and transactions", function()
        it("give results in order, with their shapes", function()
            local all = r:pipeline(function(p)
                p:set("a", 1)
                p:hset("h", {x = 1})
                p:hgetall "h"
                p:get "none"
                p:call("INCRBY", "a", 5)
                p:xadd("s", {t = 1}, {id = "1-1"})
                p:xrange("s", "-", "+")
            end)
            assert.same({"OK", 1, {x = "1"}, nil, 6, "1-1", {{id = "1-1", ms = 1, seq = 1, fields = {t = "1"}}}, n = 7}, all)
            assert.same({n = 0}, r:pipeline(function() end))
        end)

        it("raise the first error after all have run, or keep errors in place", function()
            local function body(p)
                p:set("a", "x")
                p:incr "a"
                p:set("b", 2)
            end
            local e = error_of(r.pipeline, r, body)
            assert.matches("redis.incr: ERR value is not an integer.*%[command 2 of 3%]", e.message)
            assert.equal("2", r:get "b")
            assert.equal("OK", e.results[3])
            local all = r:pipeline(body, {keep_errors = true})
            assert.equal("reply", all[2].kind)
        end)

        it("may be long", function()
            local all = r:pipeline(function(p) for i = 1, 30000 do p:rpush("l", i) end end)
            assert.equal(30000, all.n)
            assert.equal(30000, all[30000])
        end)

        it("run as one in multi", function()
            local all = r:multi(function(p)
                p:incr "a"
                p:hset("h", {x = 1})
                p:hgetall "h"
            end)
            assert.same({1, 1, {x = "1"}, n = 3}, all)
            local e = error_of(r.multi, r, function(p)
                p:set("never", 1)
                p:call "GET"
            end)
            assert.matches("wrong number of arguments", e.message)
            assert.is_nil(r:get "never")
        end)

        it("watch keys: nil when another was faster, again with retries", function()
            r:set("n", 1)
            local runs = 0
            local function add(p, c)
                runs = runs + 1
                local v = c:get "n"
                if runs == 1 then r:set("n", 10) end
                p:set("n", v + 1)
            end
            assert.is_nil(r:multi(add, {watch = "n"}))
            assert.equal("10", r:get "n")
            runs = 0
            assert.same({"OK", n = 1}, r:multi(add, {watch = {"n", "m"}, retries = 3}))
            assert.equal(2, runs)
            assert.equal("11", r:get "n")
        end)
    end)

    it("calls scripts by digest, and sends them again when the server forgot", function()
        local add = r:script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
        assert.equal(5, add("n", 5))
        r:script_flush()
        assert.equal(7, add("n", 2))
        assert.equal(8, add("n", 1))
        local none = r:script("return {ARGV[1], #KEYS}", {keys = 0})
        assert.same({"x", 0}, none "x")
        local bad = r:script("return redis.call('INCR', KEYS[1])")
        r:set("t", "text")
        assert.matches("not an integer", error_of(bad, "t").message)
    end)

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

    describe("connections", function()
        it("that are refused say so and what to do", function()
            local dead = redis.connect "redis://127.0.0.1:1"
            local e = error_of(dead.get, dead, "k")
            assert.same({"connection", true, false}, {e.kind, e.retryable, e.sent})
            assert.matches("127.0.0.1:1: Connection refused.*REDIS_URL", e.message)
            dead:close()
            assert.equal("closed", error_of(dead.get, dead, "k").kind)
            assert.equal("closed", dead.status)
        end)

        it("with a wrong password, name or URL say so", function()
            local p <close> = setmetatable(server.start {password = "s3cret"}, {__index = server, __close = server.stop})
            local c <close> = redis.connect("redis://127.0.0.1:" .. p.port)
            local e = error_of(c.get, c, "k")
            assert.equal("auth", e.kind)
            assert.matches("wants a password", e.message)
            local d <close> = redis.connect("redis://:guess@127.0.0.1:" .. p.port)
            e = error_of(d.get, d, "k")
            assert.equal("auth", e.kind)
            assert.not_matches("guess", e.message)
            assert.not_matches("guess", d.url)
            local good <close> = redis.connect("redis://127.0.0.1:" .. p.port, {password = "s3cret", db = 3, name = "spec"})
            assert.matches("db=3", good:client_info())
            assert.matches("name=spec", good:client_info())
            assert.matches("not a Redis address", error_of(redis.connect, "http://x").message)
            assert.matches("unknown option 'timout', did you mean 'timeout'", error_of(redis.connect, "redis://x", {timout = 1}))
        end)

        it("lost in mid-command: a write may have run, a read is repeated", function()
            local x <close> = setmetatable(server.start(), {__index = server, __close = server.stop})
            local c <close> = redis.connect(x.url, {timeout = 20})
            local events = {}
            c:on("disconnect", function(why) events[#events + 1] = "lost: " .. why end)
            c:on("reconnect", function() events[#events + 1] = "back" end)
            c:set("k", "kept")
            x:kill "STOP"
            local write = task.spawn(c.incr, c, "n"):quiet()
            local read = task.spawn(c.get, c, "k")
            server.eventually(function() return c:stats().in_flight == 2 end)
            x:kill()
            local ok, e = write:wait(5)
            assert.is_false(ok)
            assert.same({"connection", false, true}, {e.kind, e.retryable, e.sent})
            assert.matches("may have run", e.message)
            local queued = task.spawn(c.set, c, "later", 1)
            x:start_again()
            assert.is_nil(read:join(10))
            assert.equal("OK", queued:join(10))
            server.eventually(function() return #events == 2 end)
            assert.matches("^lost: ", events[1])
            assert.equal("back", events[2])
            assert.equal(1, c:stats().retries)
        end)

        it("with time limits: a frozen server costs a timeout, and late replies harm nobody", function()
            local x <close> = setmetatable(server.start(), {__index = server, __close = server.stop})
            local c <close> = redis.connect(x.url, {timeout = .05})
            c:set("k", 1)
            x:kill "STOP"
            local e = error_of(c.incr, c, "k")
            assert.same({"timeout", true}, {e.kind, e.sent})
            x:kill "CONT"
            server.eventually(function() return c.try:get "k" == "2" end)
            assert.equal("two", c:echo "two")
        end)

        it("of cancelled tasks do not swallow what they waited for", function()
            local t = task.spawn(function() return r:blpop("q", 0) end):quiet()
            server.eventually(function() return r:info("clients").blocked_clients == 1 end)
            t:cancel "no longer"
            local ok, e = t:wait(5)
            assert.is_false(ok)
            assert.equal("cancelled", e.kind)
            server.eventually(function() return r:info("clients").blocked_clients == 0 end)
            r:rpush("q", "item")
            assert.equal("item", r:lpop "q")
        end)

        it("of one's own do not come back by themselves", function()
            local c <close> = r:dedicated()
            local id = c:client_id()
            r:client_kill("ID", id)
            server.eventually(function() return c.status == "idle" end)
            local e = error_of(c.get, c, "k")
            assert.equal("connection", e.kind)
            assert.matches("its state", e.message)
        end)
    end)

    it("tells how safe an acknowledged write is", function()
        assert.equal("none", r:durability().class)
        r:config_set("appendonly", "yes")
        assert.equal("everysec", r:durability().class)
        r:config_set("appendfsync", "always")
        assert.equal("always", r:durability().class)
        r:config_set("appendonly", "no", "save", "60 1000")
        assert.equal("rdb", r:durability().class)
        r:config_set("save", "")
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

    it("as a module is the default client, with or without a colon", function()
        redis.configure {url = s.url}
        assert.equal("OK", redis.set("k", "v"))
        assert.equal("v", redis:get "k")
        assert.equal("v", redis.get "k")
        assert.is_nil(redis.try.lpush("k", 1))
        assert.equal(2, redis.pipeline(function(p) p:get "k" p:get "k" end).n)
        redis.close()
    end)
end)
