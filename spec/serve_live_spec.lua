-- A running server, changed while it runs: reload under load, broken edits, extensions, and a prompt inside it.
local attach = require "neap.attach"
local helper = require "spec.helper"
local http = require "neap.http"
local process = require "neap.process"
local task = require "neap.task"

local dir, servers

before_each(function() dir, servers = helper.dir(), {} end)
after_each(function()
    for _, s in ipairs(servers) do s:stop() end
    helper.remove(dir)
end)

--- A server on a free port, found by the name "live-PID" of this spec. RETURN: its process, address and name.
local function serve(...)
    local name = "live-" .. dir:match "[^/]*$"
    local p, url = helper.serve(dir, {"--name", name, ...})
    servers[#servers + 1] = p
    return p, url, name
end

local function app(text) helper.write(dir .. "/app.lua", text) end

local function rss_kb(pid)
    for line in io.lines(("/proc/%d/status"):format(pid)) do
        local kb = line:match "^VmRSS:%s+(%d+)"
        if kb then return tonumber(kb) end
    end
end

-- Under a sanitizer freed memory is kept for a while: sizes say nothing.
local function sanitized(pid)
    for line in io.lines(("/proc/%d/maps"):format(pid)) do
        if line:find "lib[atu]%a*san" then return true end
    end
end

-- `clients` tasks that ask for ever; RETURN: a function that ends them and gives the number of good answers and the list of bad ones.
local function load_with(clients, url)
    local good, bad, over = 0, {}, false
    local tasks = {}
    for i = 1, clients do
        tasks[i] = task.spawn(function()
            while not over do
                local opts = i % 2 == 0 and {url = url .. "/hello", timeout = 20}
                    or {method = "POST", url = url .. "/receive", json = {{sensor_name = "s" .. i, sensor_output = good}}, timeout = 20}
                local ok, answer = pcall(http.request, opts)
                if ok and answer.status == 200 then good = good + 1 else bad[#bad + 1] = ok and answer.status or tostring(answer) end
            end
        end)
    end
    return function()
        over = true
        for _, t in ipairs(tasks) do t:join(30) end
        return good, bad
    end
end

describe("a running server", function()
    for _, workers in ipairs {1, 2} do
        it(("is reloaded 100 times under load without a failed request (%d worker%s)"):format(workers, workers == 1 and "" or "s"), function()
            local function edit(n)
                app(("local state = {} for i = 1, 2000 do state[i] = {i} end\n"
                    .. "return function(app) app:get('/hello', function() return {version = %d, n = #state} end) end"):format(n))
            end
            edit(0)
            local p, url, name = serve(dir .. "/app.lua", "--workers", tostring(workers))
            local client <close> = attach.open(name)
            client.out = function() end
            local stop = load_with(4, url)
            local failed
            local sizes = {}
            for n = 1, 160 do
                edit(n)
                local answer = client:ask {op = "reload"}
                failed = failed or not answer.ok and answer.message or nil
                sizes[n] = rss_kb(p.pid)
            end
            local good, bad = stop()
            assert.is_nil(failed)
            assert.same({}, bad)
            assert.is_true(good > 100)
            local function median(from, to) -- a single look may fall into a collection
                local some = table.move(sizes, from, to, 1, {})
                table.sort(some)
                return some[#some // 2]
            end
            local settled, now = median(41, 60), median(141, 160) -- caches and pools are filled after sixty
            assert.is_true(sanitized(p.pid) or now <= settled * 1.1, -- a version that stayed would be 15 MiB after a hundred
                ("%d KiB after 60 reloads, %d KiB after 160"):format(settled, now))
            for _ = 1, 20 do assert.equal(160, http.request({url = url .. "/hello"}):json().version) end
        end)
    end

    it("keeps the old version in all workers when an edit is broken, and says file and line", function()
        app "return function(app) app:get('/hello', function() return {version = 1} end) end"
        local _, url, name = serve(dir .. "/app.lua", "--workers", "2")
        local watcher <close> = attach.open(name, 2)
        local heard = {}
        watcher.out = function(line) heard[#heard + 1] = line end
        app "return function(app)\n  app:gett('/hello')\nend"
        local text, code = process.run {helper.program(), "reload", name}
        assert.equal(1, code)
        assert.matches("app.lua:2:", text, 1, true)
        for _ = 1, 10 do assert.equal(1, http.request({url = url .. "/hello"}):json().version) end
        helper.eventually(function() return table.concat(heard):find("reload failed, the old version goes on: .*app.lua:2:") end) -- at each prompt
        assert.matches("app.lua:2:", watcher:hello().note, 1, true)
        local health = http.request({url = url .. "/health"}):json()
        assert.matches("app.lua:2:", health.degraded[1], 1, true)
        app "return function(app) app:get('/hello', function() return {version = 2} end) end"
        text, code = process.run {helper.program(), "reload", name}
        assert.equal(0, code, text)
        for _ = 1, 10 do assert.equal(2, http.request({url = url .. "/hello"}):json().version) end
        assert.is_nil(http.request({url = url .. "/health"}):json().degraded[1])
    end)

    it("takes what an app's module says after an edit, and ends the old app's timers", function()
        os.execute("mkdir -p " .. dir .. "/lua")
        helper.write(dir .. "/lua/part.lua", "return 'one'")
        app [[
            local task, part = require "neap.task", require "part"
            local ticks = neap.keep("ticks", function() return {} end)
            task.every(0.005, function() ticks[part] = (ticks[part] or 0) + 1 end)
            return function(app) app:get("/ticks", function() return {part = part, ticks = ticks} end) end]]
        local _, url, name = serve(dir .. "/app.lua")
        local function ticks() return http.request({url = url .. "/ticks"}):json() end
        helper.eventually(function() return (ticks().ticks.one or 0) > 2 end)
        helper.write(dir .. "/lua/part.lua", "return 'two'")
        local text, code = process.run {helper.program(), "reload", name}
        assert.equal(0, code, text)
        helper.eventually(function() return (ticks().ticks.two or 0) > 2 end)
        local before = ticks()
        assert.equal("two", before.part)
        helper.eventually(function() return ticks().ticks.two > before.ticks.two + 5 end)
        assert.equal(before.ticks.one, ticks().ticks.one)
    end)

    it("has a prompt inside: its names, sensors, routes, health, and routes added by hand", function()
        local _, url, name = serve()
        http.request {method = "POST", url = url .. "/receive", json = {{sensor_name = "oven", sensor_output = 21.5}}}
        local client <close> = attach.open(name)
        local out = {}
        client.out = function(text) out[#out + 1] = text end
        local function run(code)
            out = {}
            assert.is_true(client:run(code), table.concat(out))
            return table.concat(out)
        end
        assert.matches("21.5", run "select(2, store:latest('oven', 'real'))", 1, true)
        assert.matches("oven", run "/sensors", 1, true)
        assert.matches("POST   /receive", run "/routes", 1, true)
        assert.matches('"pass"', run "/health", 1, true)
        assert.matches("reloaded in", run "/reload", 1, true)
        assert.same({6, {"oven"}}, {client:complete("find('ov", 8)})
        run "app:get('/by-hand', function() return {hand = true} end)"
        assert.is_true(http.request({url = url .. "/by-hand"}):json().hand)
        local stats = client:ask {op = "stats"}
        assert.equal(1, stats.counters.neap_readings_total)
        assert.is_true(stats.redis_ms > 0)
        local top = process.run {helper.program(), "top", name, "-i", "0.05"}
        assert.matches("neap_readings_total", top, 1, true)
        assert.matches("Redis", top, 1, true)
    end)

    it("takes readings through an extension's route and decoder, and names a faulty extension in /health", function()
        os.execute(("mkdir -p %s/lua/neap/ext && cp rockspec/neap-ext-tasmota/lua/neap/ext/tasmota.lua %s/lua/neap/ext/"):format(dir, dir))
        helper.write(dir .. "/lua/neap/ext/faulty.lua", "error 'out of order'")
        app "neap.use 'faulty' neap.use 'tasmota' return function() end"
        local env = {"NEAP_PATH=" .. dir .. "/lua"}
        for _, name in ipairs {"PATH", "HOME", "XDG_RUNTIME_DIR", "ASAN_OPTIONS", "UBSAN_OPTIONS"} do
            if os.getenv(name) then env[#env + 1] = name .. "=" .. os.getenv(name) end
        end
        local p, url = helper.serve(dir, {dir .. "/app.lua"}, {env = env})
        servers[#servers + 1] = p
        local answer = http.request {method = "POST", url = url .. "/tasmota/kitchen",
            json = {Time = "2024-05-01T12:00:00", AM2301 = {Temperature = 21.5}}}
        assert.equal(200, answer.status, answer.body)
        answer = http.request {method = "POST", url = url .. "/receive", body = '{"Topic":"hall","Time":"2024-05-01T12:00:01","POWER":"ON"}',
            headers = {["Content-Type"] = "application/x-tasmota"}}
        assert.equal(200, answer.status, answer.body)
        local readings = http.request({url = url .. "/api/sensors/kitchen.AM2301.Temperature/readings"}):json()
        assert.equal(21.5, readings.readings[1].value)
        assert.matches("^2024%-05%-01T12:00:00", readings.readings[1].time)
        assert.equal(1, http.request({url = url .. "/api/sensors/hall.POWER/latest"}):json().value)
        assert.matches("out of order", http.request({url = url .. "/health"}):json().extensions_left_out.faulty, 1, true)
    end)
end)
