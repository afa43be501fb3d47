-- Tokens, guesses and rate limits: first alone, then as a device meets them at the server's door.
local clients = require "neap.clients"
local decode = require "neap.decode"
local guard = require "neap.guard"
local helper = require "spec.helper"
local http = require "neap.http"
local ingest = require "neap.ingest"
local log = require "neap.log"
local metric = require "neap.metric"
local process = require "neap.process"
local ratelimit = require "neap.ratelimit"
local secret = require "neap.secret"
local tokens = require "neap.tokens"

describe("a rate limit", function()
    local now, clock
    before_each(function()
        now = 100
        clock = function() return now end
    end)

    it("lets a burst through, then the rate, for each key alone", function()
        local limit = ratelimit.new {rate = 2, burst = 3, clock = clock}
        for _ = 1, 3 do assert.is_true((limit:take "a")) end
        local ok, wait = limit:take "a"
        assert.is_false(ok)
        assert.near(0.5, wait, 1e-6)
        assert.is_true((limit:take "b"))
        now = now + 0.5
        assert.is_true((limit:take "a"))
        assert.is_false((limit:take "a"))
        now = now + 100 -- no more than the burst is saved up
        for _ = 1, 3 do assert.is_true((limit:take "a")) end
        assert.is_false((limit:take "a"))
    end)

    it("lets newcomers share one allowance when its table is full, and forgets those that are whole again", function()
        local limit = ratelimit.new {rate = 1, burst = 2, keys = 3, clock = clock}
        for _, key in ipairs {"a", "b", "c", "d", "e"} do assert.is_true((limit:take(key))) end
        assert.is_false((limit:take "f"), "d and e have used the shared allowance up")
        assert.is_true((limit:take "a"), "the old ones keep theirs")
        now = now + 10
        for _, key in ipairs {"f", "g", "h"} do assert.is_true((limit:take(key)), key) end
        assert.is_true((limit:take "i"))
        assert.is_true((limit:take "j"))
        assert.is_false((limit:take "k"))
    end)

    it("is one for all that have its name", function()
        local function limit(name) return ratelimit.new {rate = 1, burst = 2, shared = name, clock = clock} end
        local one, two, other = limit "spec", limit "spec", limit "other"
        assert.is_true((one:take "a"))
        assert.is_true((two:take "a"))
        assert.is_false((one:take "a"))
        assert.is_false((two:take "a"))
        assert.is_true((other:take "a"))
        assert.is_true((two:take "b"))
    end)
end)

describe("tokens", function()
    local dir
    before_each(function() dir = helper.dir() end)
    after_each(function() helper.remove(dir) end)

    it("are all kept when many are made at the same time", function()
        local makers = {}
        for i = 1, 10 do
            makers[i] = process.spawn {helper.program(), "token", "add", "t" .. i, "--data", dir, stdout = "null", stderr = "null"}
        end
        for i, maker in ipairs(makers) do assert.equal(0, (maker:wait(30)), "t" .. i) end
        local names = {}
        for _, one in ipairs(tokens.open(dir).list) do names[#names + 1] = one.name end
        table.sort(names)
        assert.same({"t1", "t10", "t2", "t3", "t4", "t5", "t6", "t7", "t8", "t9"}, names)
    end)

    it("are shown once, kept as sums, in a file for the owner only", function()
        local list = tokens.open(dir)
        assert.same({}, list.list)
        local text = list:add {name = "kitchen", sensor = "kitchen/*"}
        assert.matches("^%x+$", text)
        assert.equal(40, #text)
        local kept = helper.read(dir .. "/tokens")
        assert.is_nil(kept:find(text, 1, true))
        assert.is_truthy(kept:find(secret.sha256(text), 1, true))
        assert.matches("^%-rw%-%-%-%-%-%-%-", process.run {"ls", "-l", dir .. "/tokens"})
        assert.equal("kitchen", list:find(text).name)
        assert.is_nil(list:find(text .. "0"))
        assert.is_nil(list:find "")
        assert.is_nil(list:find(secret.sha256(text)), "the sum itself opens nothing")
    end)

    it("are known to and revoked for a list that is open elsewhere", function()
        local server, command = tokens.open(dir), tokens.open(dir)
        local text = command:add {name = "a"}
        server:refresh()
        assert.equal("a", server:find(text).name)
        assert.is_false(command:revoke "b")
        assert.is_true(command:revoke "a")
        helper.eventually(function() return not server:find(text) end) -- by itself
    end)

    it("stay as they were while their file makes no sense", function()
        local list = tokens.open(dir)
        local text = list:add {name = "a"}
        helper.write(dir .. "/tokens", "{nonsense\n")
        local said = ""
        local before = log.sink(function(line) said = said .. line end)
        list:refresh()
        log.sink(before)
        assert.matches("the tokens stay as they were", said)
        assert.equal("a", list:find(text).name)
        local ok, why = pcall(tokens.open, dir)
        assert.is_false(ok)
        assert.matches("tokens:1: this is no token", why)
    end)

    it("have names that differ, and texts that devices have already", function()
        local list = tokens.open(dir)
        list:add {name = "a"}
        assert.has_error(function() list:add {name = "a"} end)
        assert.has_error(function() list:add {name = "a b"} end)
        assert.has_error(function() list:add {name = "b", text = "short"} end)
        assert.has_error(function() list:add {name = "b", text = "sixteen:characters"} end)
        assert.equal("A1_TEST_TOKEN_0123", list:add {name = "b", text = "A1_TEST_TOKEN_0123"})
        assert.equal("b", list:find("A1_TEST_TOKEN_0123").name)
    end)

    it("are for some sensors and for some actions", function()
        local list = tokens.open(dir)
        local one = list:find(list:add {name = "a", sensor = "kit.chen/*", only = "write"})
        assert.is_true(tokens.allows(one, "write", "kit.chen/oven"))
        assert.is_false(tokens.allows(one, "write", "kitXchen/oven"))
        assert.is_false(tokens.allows(one, "write", "attic/kit.chen/oven"))
        assert.is_false(tokens.allows(one, "read", "kit.chen/oven"))
        local any = list:find(list:add {name = "b"})
        assert.is_true(tokens.allows(any, "read", "x"))
    end)
end)

describe("the door", function()
    local dir, list, all, some, reader, app, taken, now

    before_each(function()
        dir = helper.dir()
        list = tokens.open(dir)
        all, some, reader = list:add {name = "all"}, list:add {name = "some", sensor = "oven*"}, list:add {name = "reader", only = "read"}
        taken, now = {}, 1000
        app = http.app {}
        local here = {started_at = neap.clock(), journal = {stats = function() return {live = true} end}}
        clients.routes(app, here, function(_, batch, req)
            local context = guard.admit(req.token, {})
            local count = 0
            for i, name in batch:each() do
                local may, why = true, nil
                if context.admit then may, why = context.admit(name) end
                if may then
                    taken[#taken + 1], count = name, count + 1
                else
                    batch:refuse(i, why)
                end
            end
            return {count = count, notes = {}}
        end)
        app:get("/health", function(req) return {status = "pass", known = req.token ~= nil} end)
        app:get("/metrics", function() return "numbers" end)
        app:get("/api/sensors/:name/status", function(req) return {sensor = req.params.name} end)
        here.guard = guard.new {tokens = list}
        here.guard.guesses.clock = function() return now end
        here.guard:protect(app)
    end)
    after_each(function() helper.remove(dir) end)

    local function call(method, path, authorization, body)
        return app:test(method, path, {body = body, headers = authorization and {Authorization = authorization} or nil})
    end
    local function write(authorization, query) return call("POST", "/api/v2/write" .. (query or ""), authorization, "oven v=1") end
    -- base64 by another program, so that ours has something to agree with
    local function base64(text) return (process.run({"sh", "-c", "printf %s '" .. text .. "' | base64 -w0"}):gsub("%s", "")) end

    it("takes a token in each form that clients have", function()
        assert.equal(204, write("Token " .. all).status)
        assert.equal(204, write("Bearer " .. all).status)
        assert.equal(204, write("bearer  " .. all).status)
        assert.equal(204, write("Token someone:" .. all).status)
        assert.equal(204, write("Basic " .. base64("edge:" .. all)).status)
        assert.equal(204, write("Basic " .. base64(all .. ":")).status)
        assert.equal(204, write(nil, "?u=x&p=" .. all).status)
        assert.equal(200, call("POST", "/api/v1/" .. all .. "/telemetry", nil, '{"t":1}').status)
        assert.equal(8, #taken)
    end)

    it("answers the others in their own words, and stores nothing of theirs", function()
        local answer = write()
        assert.equal(401, answer.status)
        assert.equal("unauthorized", answer.json.code)
        assert.equal('Basic realm="neap"', answer.headers["WWW-Authenticate"])
        answer = call("POST", "/write", "Token wrong", "oven v=1")
        assert.equal(401, answer.status)
        assert.equal(answer.json.error, answer.headers["X-Influxdb-Error"])
        answer = call("POST", "/api/v1/wrong/telemetry", nil, '{"t":1}')
        assert.equal(401, answer.status)
        assert.equal(10, answer.json.errorCode)
        assert.equal(401, call("GET", "/metrics").status)
        assert.equal(401, call("GET", "/no/such/path").status)
        for _, bad in ipairs {"Token", "Token ", "Basic", "Basic !!!", "Basic " .. base64 "x:", "Digest " .. all, "Token " .. all:upper(), all} do
            assert.equal(401, write(bad).status, bad)
        end
        assert.same({}, taken)
    end)

    it("stays open for what tells nothing", function()
        for _, path in ipairs {"/health", "/ready", "/ping?verbose=true"} do assert.equal(200, call("GET", path).status, path) end
    end)

    it("recognises a token on an open path, and nobody who guesses", function()
        local function known(authorization) return call("GET", "/health", authorization).json.known end
        assert.is_false(known())
        assert.is_true(known("Token " .. all))
        for i = 1, 20 do assert.is_false(known("Token guess" .. i)) end
        assert.is_false(known("Token " .. all), "after twenty wrong ones the right one tells no more")
        assert.equal(429, write("Token guess21").status)
        now = now + 60
        assert.is_true(known("Token " .. all))
    end)

    it("keeps a token to its action and its sensors", function()
        assert.equal(403, write("Token " .. reader).status)
        assert.equal(200, call("GET", "/metrics", "Token " .. reader).status)
        local answer = call("POST", "/api/v2/write", "Token " .. some, "oven1 v=1\nattic v=1\noven2 v=1")
        assert.equal(400, answer.status)
        assert.equal(2, answer.json.line)
        assert.matches("'some' is not for this sensor", answer.json.message)
        assert.same({"oven1.v", "oven2.v"}, taken)
        assert.equal(200, call("GET", "/api/sensors/oven/status", "Token " .. some).status)
        assert.equal(403, call("GET", "/api/sensors/attic/status", "Token " .. some).status)
        assert.equal(403, call("GET", "/metrics", "Token " .. some).status)
    end)

    it("keeps a token to its sensors in a batch that nothing else has to be decided for", function()
        local context = {limits = decode.sensors {{name = "oven"}, {name = "attic"}}, whole = true, now_us = 2e15 // 1 | 0, stamp = function() return 1 end,
            specs = {get = function() return {clock = "trust", scale = 1, offset = 0} end}}
        local token = {name = "some", match = "^oven"}
        local body = '[{"sensor_name":"oven","sensor_output":1},{"sensor_name":"attic","sensor_output":2}]'
        assert.same({"oven"}, ingest.judge(decode.json(body), guard.admit(token, context)).order)
        assert.is_truthy(ingest.judge(decode.json(body), guard.admit(nil, context)).batch)
    end)

    it("keeps a token in the path out of the log when a handler fails", function()
        app:get("/api/v1/:token/broken", function() error "broken" end)
        local said = ""
        local before = log.sink(function(line) said = said .. line end)
        local answer = call("GET", "/api/v1/" .. all .. "/broken")
        log.sink(before)
        assert.equal(500, answer.status)
        assert.matches("/api/v1/***/broken", said, 1, true)
        assert.is_nil(said:find(all, 1, true))
    end)

    it("slows guesses down, and lets the right token through all the same", function()
        for i = 1, 20 do assert.equal(401, write("Token guess" .. i).status) end
        local answer = write "Token guess21"
        assert.equal(429, answer.status)
        assert.equal("3", answer.headers["Retry-After"])
        assert.equal("too many requests", answer.json.code)
        assert.equal(204, write("Token " .. all).status)
        assert.equal(401, write().status, "a request without a token is no guess: collectd begins so")
        now = now + 60
        assert.equal(401, write "Token guess22".status)
    end)

    it("keeps each device to its rate, and counts whom it refused", function()
        local limited = http.app {}
        limited:post("/receive", function() return 200 end)
        local door = guard.new {tokens = list, rate = 0.5}
        door.limit.clock = function() return now end
        door:protect(limited)
        local function send(token) return limited:test("POST", "/receive", {body = "[]", headers = {Authorization = "Token " .. token}}) end
        local function refusals() return tonumber(metric.text():match 'neap_requests_refused_total{reason="rate"} (%d+)' or 0) end
        local before = refusals()
        for _ = 1, 5 do assert.equal(200, send(all).status) end
        local answer = send(all)
        assert.equal(429, answer.status)
        assert.equal("2", answer.headers["Retry-After"])
        assert.equal("error", answer.json.status)
        assert.equal(200, send(some).status)
        assert.equal(before + 1, refusals())
        now = now + 2
        assert.equal(200, send(all).status)
    end)
end)
