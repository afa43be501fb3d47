-- A server is changed a hundred times while clients keep it busy: no request fails, and nothing of the old versions stays.
local attach = require "neap.attach"
local helper = require "spec.helper"
local http = require "neap.http"
local task = require "neap.task"

local PART <const> = "local part = {} function part.version() return %d end return part"
local APP <const> = [[
local part, task = require "part", require "neap.task"
state = {} -- a global
for i = 1, 2000 do state[i] = {i, tostring(i)} end
function string.shout(s) return s:upper() end
return function(app, here)
    local ticks = neap.keep("ticks", function() return {} end)
    task.every(0.01, function() ticks[part.version()] = (ticks[part.version()] or 0) + 1 end)
    app:get("/version", function() task.sleep(0.002) return {version = part.version(), shout = ("a"):shout()} end)
    app:get("/helped", function()
        local helper = task.spawn(function() task.sleep(0.02) return part.version() end) -- outlives a reload with its request
        return {version = helper:join()}
    end)
    app:get("/old", function() return {old = true} end)
end
]]

describe("a running server", function()
    local dir, server, url, control

    local function write(name, text, ...)
        local path = dir .. "/" .. name -- as editors do: never half a file under its name
        local f = assert(io.open(path .. "~", "w"))
        f:write(select("#", ...) > 0 and text:format(...) or text)
        f:close()
        assert(os.rename(path .. "~", path))
    end
    local function get(path) return http.request({url = url .. path, timeout = 20}) end
    local function reload() return control:ask {op = "reload"} end
    local function rss_kib()
        return tonumber(helper.read("/proc/" .. server.pid .. "/status"):match "VmRSS:%s+(%d+)")
    end

    setup(function()
        dir = helper.dir()
        os.execute("mkdir -p " .. dir .. "/lua")
        write("lua/part.lua", PART, 0)
        write("app.lua", APP)
        server, url = helper.serve(dir, {dir .. "/app.lua", "--workers", "2"})
        control = attach.open(tostring(server.pid), 0)
    end)
    teardown(function()
        control:close()
        server:stop()
        helper.remove(dir)
    end)

    it("is reloaded a hundred times under load: no failed request, no growth", function()
        local over, requests, failures, seen = false, 0, {}, {}
        local function client(path, n)
            return task.spawn(function()
                while not over do
                    local ok, answer = pcall(get, path)
                    requests = requests + 1
                    if not ok then failures[#failures + 1] = tostring(answer)
                    elseif answer.status ~= 200 then failures[#failures + 1] = answer.status .. " " .. tostring(answer.body)
                    else seen[n] = answer:json().version end
                end
            end)
        end
        local clients = {client("/version", 1), client("/version", 2), client("/helped", 3), client("/health", 4)}
        local function change(from, to) -- returns the memory: the median, for a look may fall into a collection
            local sizes = {}
            for n = from, to do
                write("lua/part.lua", PART, n)
                local answer = reload()
                assert.is_true(answer.ok, answer.message)
                sizes[#sizes + 1] = rss_kib()
            end
            table.sort(sizes)
            return sizes[#sizes // 2]
        end
        change(1, 60) -- the allocator has seen it all by then
        local before = change(61, 100)
        change(101, 160)
        local after = change(161, 200)
        helper.eventually(function() return seen[1] == 200 and seen[2] == 200 end, 20)
        over = true
        for _, c in ipairs(clients) do c:join(30) end
        assert.same({}, failures)
        assert.is_true(requests > 100)
        local sanitized = helper.read("/proc/" .. server.pid .. "/maps"):find "lib[atu]%a*san" -- such a program keeps what is freed
        assert.is_true(sanitized ~= nil or after <= before * 1.05, ("%d KiB became %d KiB"):format(before, after))
        assert.equal(200, get("/version"):json().version)
    end)

    it("has nothing of the old version once that is out of force", function()
        local client, other = attach.open(tostring(server.pid)), attach.open(tostring(server.pid), 2)
        other.out = function() end
        local said = {}
        client.out = function(text) said[#said + 1] = text end
        local function ask(code)
            said = {}
            client:run(code)
            return table.concat(said)
        end
        local TICKS <const> = "local n = 0 for _, v in pairs(neap.keep 'ticks') do n = n + v end return n"
        local first = ask(TICKS)
        helper.eventually(function() return ask(TICKS) ~= first end, 20)
        assert.matches("true", ask "return here.version.gen.env.state ~= nil")
        write("app.lua", [[return function(app)
            app:get("/new", function() return {new = true} end)
            app:get("/shout", function() return {shout = ("").shout ~= nil, state = state ~= nil} end)
        end]])
        assert.is_true(reload().ok)
        assert.equal(404, get("/old").status)
        assert.is_true(get("/new"):json().new)
        helper.eventually(function()
            ask "collectgarbage() collectgarbage()"
            other:run "collectgarbage() collectgarbage()"
            local seen = get("/shout"):json()
            return not seen.shout and not seen.state
        end, 20)
        local now = ask(TICKS)
        assert.matches("^%d+%s", now)
        task.sleep(0.05)
        assert.equal(now, ask(TICKS)) -- the timers of all versions are over
        client:close()
        other:close()
    end)

    it("keeps the old version when an edit is broken, and says where in the log, in /health and at the prompt", function()
        write("app.lua", "return function(app)\n  app:get('/x', functio() end)\nend")
        local answer = reload()
        assert.is_false(answer.ok)
        assert.matches("app.lua:2:", answer.message)
        assert.is_true(get("/new"):json().new)
        assert.matches("app.lua:2:", get("/health"):json().degraded[1])
        assert.matches("app.lua:2:", helper.read(dir .. "/log"))
        local client = attach.open(tostring(server.pid))
        assert.matches("app.lua:2:", client.info.note)
        client:close()
        write("app.lua", "return function(app) app:get('/x', function() return {mended = true} end) end")
        helper.eventually(function() return get("/x").status == 200 end, 20) -- seen without being told
        assert.same({}, get("/health"):json().degraded)
    end)
end)
