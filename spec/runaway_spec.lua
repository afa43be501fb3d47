-- A running server survives an endless loop typed at an attached prompt.
local helper = require "spec.helper"
local http = require "neap.http"
local process = require "neap.process"
local task = require "neap.task"

local APP <const> = [[
return function(app)
    app:get("/hello", function() return {hello = "world"} end)
    app:get("/stuck", function() os.execute "sleep 3" return {late = true} end)
    app:get("/pattern", function() return (("a"):rep(40):find(("a-"):rep(40) .. "b")) end)
    app:get("/allowed", function() local till = os.clock() + 1.3 while os.clock() < till do end return {done = true} end, {limit = 20})
    app:get("/loop", function() while true do pcall(function() while true do end end) end end)
end
]]

local function start(dir, ...)
    return helper.serve(dir, {helper.write(dir .. "/app.lua", APP), ...})
end

describe("an endless loop in a running server", function()
    it("is stopped, named in the log, and the server goes on answering", function()
        local dir = helper.dir()
        local server <close>, url = helper.serve(dir)
        process.run {helper.program(), "attach", tostring(server.pid), "-e", "while true do pcall(function() while true do end end) end"}
        assert.equal(200, http.request({url = url .. "/health", timeout = 20}).status)
        assert.matches("blocked the loop", helper.read(dir .. "/log"))
        server:stop()
        helper.remove(dir)
    end)
end)

describe("a server with a time limit", function()
    local dir = helper.dir()
    local server, url
    setup(function() server, url = start(dir, "--time-limit", "1") end)
    teardown(function()
        server:stop()
        helper.remove(dir)
    end)

    local function get(path) return http.request({url = url .. path, timeout = 30}) end

    it("answers 500 for a loop and for a pattern that would run for ever, with the line", function()
        for path, line in pairs {["/loop"] = "app.lua:6:", ["/pattern"] = "app.lua:4:"} do
            local answer = get(path)
            assert.equal(500, answer.status)
            assert.matches(line .. " ran for more than 1.0 s", answer:json().detail)
        end
        assert.equal("world", get("/hello"):json().hello)
    end)

    it("prints the error at an attached prompt, and prompts again", function()
        local out = process.run {helper.program(), "attach", tostring(server.pid), "-e", "while true do end"}
        assert.matches("line 1:1: ran for more than 1.0 s", out)
        assert.matches("^2%s", process.run({helper.program(), "attach", tostring(server.pid), "-e", "return 1 + 1"}))
    end)

    it("replaces a worker that is stuck in C: other requests go on, what it had is answered later, and it ends", function()
        local late = task.spawn(get, "/stuck")
        helper.eventually(function() return helper.read(dir .. "/log"):find("blocked in a C function", 1, true) end, 20)
        assert.equal("world", get("/hello"):json().hello)
        local posted = http.request({url = url .. "/receive", method = "POST", json = {{sensor_name = "oven", sensor_output = 1}}, timeout = 20})
        assert.equal(200, posted.status, posted.body)
        assert.matches("1 thread is blocked in a C call", get("/health"):json().degraded[1])
        assert.matches("where=\"?[^ ]*app.lua:3", helper.read(dir .. "/log"))
        assert.is_truthy(late:join(20).status)
        helper.eventually(function() return helper.read(dir .. "/log"):find("has returned, and ends", 1, true) end, 20)
        helper.eventually(function() return #get("/health"):json().degraded == 0 end, 20)
        assert.matches("^2%s", process.run({helper.program(), "attach", tostring(server.pid), "-e", "return 1 + 1"}))
    end)

    it("serves again as soon as it can when a broken edit keeps the new thread from starting", function()
        local other = helper.dir()
        local second <close>, address = start(other)
        helper.write(other .. "/app.lua", "return function(app) app:gett() end")
        helper.eventually(function() return helper.read(other .. "/log"):find("the old version goes on", 1, true) end, 20)
        local late = task.spawn(function() pcall(http.request, {url = address .. "/stuck", timeout = 30}) end)
        helper.eventually(function() return helper.read(other .. "/log"):find("cannot start; tried again", 1, true) end, 20)
        helper.write(other .. "/app.lua", "return function(app) app:get('/mended', function() return {ok = true} end) end")
        assert.is_true(http.request({url = address .. "/mended", timeout = 30}):json().ok) -- waits in the socket until then
        late:join(30)
        second:stop()
        helper.remove(other)
    end)

    it("ends when told to though a thread is stuck", function()
        local other = helper.dir()
        local second, address = start(other, "--workers", "2")
        local one = task.spawn(function() pcall(http.request, {url = address .. "/stuck", timeout = 30}) end)
        helper.eventually(function() return helper.read(other .. "/log"):find("blocked in a C function", 1, true) end, 20)
        assert.equal(0, second:stop())
        one:join(30)
        helper.remove(other)
    end)
end)

describe("a server that does not answer", function()
    it("is named by attach, top and reload with the line that blocks it, and ends when told to", function()
        local dir = helper.dir()
        local server, url = start(dir, "--time-limit", "60")
        local slow = task.spawn(function() pcall(http.request, {url = url .. "/pattern", timeout = 60}) end)
        local pid, text = tostring(server.pid), ""
        helper.eventually(function()
            text = process.run {helper.program(), "attach", pid, "-e", "return 1"}
            return text:find("app.lua:4", 1, true)
        end, 20)
        assert.matches("^neap attach: neap does not answer %(pid " .. pid .. ", blocked for [%d.]+ s at .*app.lua:4%)", text)
        assert.matches("worker 1%s+does not answer, blocked for [%d.]+ s at .*app.lua:4", (process.run {helper.program(), "top", pid, "-n", "1"}))
        assert.matches("does not answer", (process.run {helper.program(), "reload", pid}))
        assert.equal(0, server:stop(15))
        slow:join(30)
        helper.remove(dir)
    end)
end)

describe("a server whose route has a limit of its own", function()
    it("lets that one compute, and stops the others", function()
        local dir = helper.dir()
        local server <close>, url = start(dir, "--time-limit", "1")
        assert.is_true(http.request({url = url .. "/allowed", timeout = 20}):json().done)
        assert.equal(500, http.request({url = url .. "/loop", timeout = 20}).status)
        server:stop()
        helper.remove(dir)
    end)
end)
