-- Extensions: rules for any, and the two of rockspec/ installed by the real luarocks into a fresh project.
local ext = require "neap.ext"
local log = require "neap.log"
local pty = require "spec.pty"

local function sh(command)
    local p = io.popen(command .. " 2>&1; echo rc=$?")
    local out = p:read("a")
    p:close()
    return out
end

local function absolute(path) return path:find("^/") and path or os.getenv("PWD") .. "/" .. path end
local NEAP = absolute(pty.neap())

describe("an extension", function()
    local lines
    before_each(function()
        ext.reset()
        lines = {}
        log.sink(function(line) lines[#lines + 1] = line end)
    end)
    after_each(function()
        log.flush()
        log.sink(nil)
        ext.reset()
        for name in pairs(package.preload) do
            if name:find("^neap%.ext%.spec_") then package.preload[name], package.loaded[name] = nil, nil end
        end
    end)

    local function given(name, module) package.preload["neap.ext." .. name] = type(module) == "function" and module
        or function() return module end end

    it("is set up once, with its options, and only when it is used", function()
        local calls = {}
        given("spec_one", {name = "spec_one", api = 1, setup = function(host, opts) calls[#calls + 1] = {host, opts} end})
        assert.are.equal(0, #calls)
        assert.is_table(neap.use("spec_one", {port = 5}))
        assert.is_table(neap.use "spec_one")
        assert.are.equal(1, #calls)
        assert.are.equal(neap, calls[1][1])
        assert.are.same({port = 5}, calls[1][2])
    end)

    it("that is faulty is named and left out, and the next one still works", function()
        given("spec_bad", function() error("it is broken") end)
        given("spec_old", {name = "spec_old", api = 99})
        given("spec_typo", {name = "spec_typo", api = 1, roots = function() end})
        given("spec_setup", {name = "spec_setup", api = 1, setup = function() error("no device") end})
        given("spec_good", {name = "spec_good", api = 1})
        for name, want in pairs{spec_bad = "it is broken", spec_old = "interface 99", spec_typo = "did you mean 'routes'?",
            spec_setup = "no device",
            spec_none = "not installed"} do
            local module, why = neap.use(name)
            assert.is_nil(module)
            assert.is_truthy(why:find(want, 1, true), why)
            assert.is_truthy(why:find(name, 1, true), why)
        end
        assert.is_table(neap.use "spec_good")
        assert.are.equal(1, #ext.active())
        local health = {}
        ext.health(health)
        assert.is_truthy(health.extensions_left_out.spec_setup)
    end)

    it("adds routes, decoders, commands, spec keys, checks and health", function()
        given("spec_all", {
            name = "spec_all", api = 1, routes = function(app, here) app.route = here.answer end,
                decoders = {["text/x-spec"] = function() return {} end},
            repl = {speccy = {help = "h", run = function(session) session:write("spoken") end}},
            keys = {{name = "spec_unit", check = function(v) return v end, about = "for this spec"}},
            checks = {here = function(_, say) say("ok", "looked") end}, health = function(h) h.spec = "fine" end,
        })
        assert.is_table(neap.use "spec_all")
        local app, health, out = {}, {}, {}
        ext.add_routes(app, {answer = 42})
        assert.are.equal(42, app.route)
        assert.is_function(ext.decoder "Text/X-Spec; charset=utf-8")
        assert.is_nil(ext.decoder "application/json")
        ext.health(health)
        assert.are.same({spec = "fine"}, health)
        require("neap.repl_eval").new{write = function(t) out[#out + 1] = t end}:run("/speccy")
        assert.are.same({"spoken"}, out)
        local specs = require("neap.sensors").parse('sensor "oven" { spec_unit = 7 }', "mine.lua")
        assert.are.equal(7, specs:get("oven").spec_unit)
        local report = require("neap.check").run{files = {}, only = {"spec_all.here"}}
        assert.are.equal("looked", report.checks[1].text)
    end)

    it("watches readings with detectors of its own: raised once, cleared once, left out when it fails", function()
        given("spec_watch", {name = "spec_watch", api = 1, detectors = {
            thirteen = function(spec) return spec.name == "oven" and function(_, value) return value == 13 and "bad luck" or nil end or nil end,
            broken = function() return function(_, value) if value == 2 then error("oops") end end end,
        }})
        neap.use "spec_watch"
        local specs = require("neap.sensors").parse('sensor "oven" {} sensor "door" {}', "mine.lua")
        assert.is_nil(ext.detectors(specs:get "door")["spec_watch.thirteen"])
        local one = require("neap.live").new {spec = specs:get "oven", detectors = ext.detectors(specs:get "oven")}
        local heard = {}
        for i, value in ipairs {1, 13, 13, 2, 13} do
            local _, events = one:push(i * 60000000, value)
            for _, e in ipairs(events) do
                if e.detector:find "^spec_watch" then heard[#heard + 1] = i .. " " .. e.event .. " " .. e.text end
            end
        end
        assert.are.same({"2 raised bad luck", "4 cleared back to normal", "5 raised bad luck"}, heard)
        assert.are.equal("spec_watch.thirteen", one.stretches[1].why)
        assert.are.equal(1, #lines)
        assert.is_truthy(lines[1]:find("spec_watch.broken", 1, true))
    end)

    it("whose routes fail does not stop the others", function()
        local reached = false
        given("spec_a", {name = "spec_a", api = 1, routes = function() error("no") end})
        given("spec_b", {name = "spec_b", api = 1, routes = function() reached = true end})
        neap.use "spec_a"
        neap.use "spec_b"
        ext.add_routes({}, {})
        assert.is_true(reached)
    end)
end)

describe("the rocks of rockspec/, installed by luarocks into a fresh project", function()
    local dir = os.tmpname()
    os.remove(dir)
    local env = ("cd %s/project && HOME=%s NO_COLOR=1 "):format(dir, dir)

    setup(function()
        assert.is_truthy(sh(("mkdir -p %s && cp -r rockspec %s/rockspec && %s init %s/project"):format(dir, dir, NEAP, dir)):find("rc=0"))
        for _, name in ipairs{"neap-ext-serial", "neap-ext-tasmota"} do
            local out = sh(("cd %s/rockspec/%s && HOME=%s %s rocks make --tree %s/project/lua_modules"):format(dir, name, dir, NEAP, dir))
            assert.is_truthy(out:find("is now installed", 1, true), out)
        end
    end)
    teardown(function() os.execute("rm -rf " .. dir) end)

    it("are found without any setting and listed", function()
        local out = sh(env .. NEAP .. " ext")
        assert.is_truthy(out:find("serial +1.0 +boards on a serial port"), out)
        assert.is_truthy(out:find("tasmota +1.0 +readings from Tasmota"), out)
        assert.is_truthy(out:find("rc=0\n$"))
        assert.is_truthy(sh(env .. NEAP .. " check --only rocks"):find("1 C module of rocks fits this Lua", 1, true))
    end)

    it("bring a command: `neap serial` turns name:value lines into readings", function()
        os.execute("mkfifo " .. dir .. "/port")
        local p = io.popen(("%s echo $$; exec timeout -s KILL 20 %s serial %s/port --print 2>%s/err"):format(env, NEAP, dir, dir), "r")
        local pid = p:read("l")
        local port = assert(io.open(dir .. "/port", "w"))
        port:setvbuf("no")
        port:write("temperature: 21.5\r\nnonsense\n\nhum", "idity:40\na:b:7\nx:nan\nlast:1\n")
        assert.are.equal('[{"sensor_name":"temperature","sensor_output":21.5}]', p:read("l"))
        assert.are.equal('[{"sensor_name":"humidity","sensor_output":40}]', p:read("l"))
        assert.are.equal('[{"sensor_name":"a:b","sensor_output":7}]', p:read("l"))
        assert.is_truthy(p:read("l"):find("last", 1, true)) -- what stands before it has been worked off
        os.execute("kill " .. pid)
        port:close()
        p:close()
        local err = io.open(dir .. "/err"):read("a")
        assert.is_truthy(err:find("nonsense", 1, true))
        assert.is_truthy(err:find("the value is no number", 1, true))
    end)

    it("wait in C while other tasks run, and can be cancelled", function()
        local script = dir .. "/project/wait.lua"
        local f = assert(io.open(script, "w"))
        f:write(([[
            local core, task = require "neap.ext.serial.core", require "neap.task"
            os.execute "mkfifo %s/quiet"
            local port = core.open "%s/quiet"
            local ticks, reader = 0, task.spawn(function() return port:read() end):quiet()
            while reader:info().status ~= "waiting" do task.yield() end
            for _ = 1, 3 do task.sleep(0.001) ticks = ticks + 1 end
            print(ticks, reader:info().waits_for)
            port:write "hello"
            print(reader:join())
            local ok, e = pcall(port.read, port, 0.01)
            print(ok, e.kind)
            reader = task.spawn(function() return port:read() end):quiet()
            while reader:info().status ~= "waiting" do task.yield() end
            reader:cancel "enough"
            ok, e = reader:wait()
            print(ok, e.kind)
            port:write "again"
            print(port:read(1))
            port:close()
            print(pcall(port.read, port))
            print(pcall(core.open, "/nowhere/at/all"))
            print(pcall(core.open, "%s", 12345))]]):format(dir, dir, script))
        f:close()
        assert.are.equal(table.concat({
            "3\tserial:read", "hello", "false\ttimeout", "false\tcancelled", "again", "false\tthe serial port is closed",
            "false\t/nowhere/at/all: No such file or directory (is the device plugged in? ls /dev/ttyACM* /dev/ttyUSB*)",
            "false\tbad argument #2 to 'neap.ext.serial.core.open' (a usual baud rate: 9600, 19200, 38400, 57600, 115200, ...)",
                "rc=0\n"}, "\n"),
            (sh(env .. NEAP .. " wait.lua"):gsub("%(wait.lua:%d+%) ", ""):gsub("wait.lua:%d+: ", "")))
        assert.is_truthy(sh(("LUA_CPATH='%s/project/lua_modules/lib/lua/5.4/?.so' lua5.4 -e 'require \"neap.ext.serial.core\"'"):format(dir))
            :find("needs neap", 1, true))
    end)

    it("decode what Tasmota devices send", function()
        local out = sh(env .. NEAP .. [[ -e '
            local t = assert(neap.use "tasmota")
            local text = "{\"Time\":\"2024-05-01T12:00:00\",\"Topic\":\"kitchen\",\"AM2301\":{\"Temperature\":21.5,\"Humidity\":44},\"POWER\":\"ON\"}"
            for _, r in ipairs(require("neap.ext").decoder "application/x-tasmota" (text)) do print(r.sensor, r.value, r.time) end
            print(t.time "1970-01-01T00:00:00", t.time "2000-03-01T00:00:00+01:00", t.time "2024-02-29T23:59:59", t.time "yesterday")']])
        assert.are.equal("kitchen.AM2301.Humidity\t44\t1714564800\nkitchen.AM2301.Temperature\t21.5\t1714564800\nkitchen.POWER\t1\t1714564800\n"
            .. "0\t951865200\t1709251199\tnil\nrc=0\n", out)
    end)

    it("read a real terminal line: the bridge posts what a board prints to a running server", function()
        local helper, process, task = require "spec.helper", require "neap.process", require "neap.task"
        local app = require("neap.http").app()
        local got, seen = {}, task.event()
        app:post("/receive", function(req)
            got[#got + 1] = req:json()[1]
            if #got == 2 then seen:set() end
            return 200, {}
        end)
        local server = app:listen{port = 0}
        local closing <close> = setmetatable({}, {__close = function() server:close() end}) -- luacheck: ignore 211
        helper.write(dir .. "/board.py", [[
import os, pty, sys, time
board, line = pty.openpty()
print(os.ttyname(line), flush=True)
sys.stdin.readline()
os.write(board, b"temperature:21.5\r\nhumidity: 40\r\n")
sys.stdin.readline()
]])
        local board <close> = process.spawn{"python3", dir .. "/board.py", stdin = "pipe", stdout = "pipe"}
        local path = assert(board:line(20))
        local command = ("%s exec %s serial %s --url http://127.0.0.1:%d/receive"):format(env, NEAP, path, server:port())
        local bridge <close> = process.spawn{"sh", "-c", command} -- luacheck: ignore 211
        helper.eventually(function() -- the bridge has made the line raw: what is written now is not echoed back
            return process.run{"stty", "-F", path, "-a"}:find("-echo ", 1, true)
        end)
        board:write "now\n"
        seen:wait(10)
        assert.are.same({{sensor_name = "temperature", sensor_output = 21.5}, {sensor_name = "humidity", sensor_output = 40}}, got)
    end)

    it("keep lua/ in git, unlike `luarocks init`", function()
        local out = sh(("cd %s/project && cat .gitignore && mkdir -p lua && touch lua/mine.lua && git init -q . && git status --short -uall"):format(dir))
        assert.is_truthy(out:find("lua/mine.lua", 1, true))
        assert.is_falsy(out:find("lua_modules/", 1, true))
        assert.is_truthy(out:find("/lua_modules", 1, true))
    end)

    it("live in a project that passes its own check and test from the start", function()
        local out = sh(env .. NEAP .. " check")
        assert.is_truthy(out:find("all is well", 1, true) and out:find("rc=0\n$"), out)
        out = sh(env .. "PATH=/usr/bin:/bin " .. NEAP .. " test") -- also where no `neap` is in PATH
        assert.is_truthy(out:find("specs: 1 passed, 0 failed", 1, true) and out:find("rc=0\n$"), out)
    end)

    it("and `neap init` never overwrites", function()
        os.execute(("echo mine > %s/project/app.lua"):format(dir))
        assert.is_truthy(sh(("%s init %s/project"):format(NEAP, dir)):find("kept   app.lua", 1, true))
        assert.are.equal("mine\n", io.open(dir .. "/project/app.lua"):read("a"))
    end)
end)

describe("neap's own rockspec", function()
    it("builds and installs with luarocks make, offline", function()
        local helper = require "spec.helper"
        local build = helper.program():match("^(.*)/[^/]*$") or "."
        if build ~= "build" then return end -- another build folder: luarocks would make build/ anew
        local dir = helper.dir()
        local guard <close> = setmetatable({}, {__close = function() helper.remove(dir) end}) -- luacheck: ignore 211
        local out = sh(([[unset MAKEFLAGS MAKELEVEL
            HOME=%s luarocks --lua-version=5.4 --only-server=file://%s make --tree %s/tree rockspec/neap-scm-1.rockspec]]):format(dir, dir, dir))
        assert.is_truthy(out:find("neap scm-1 is now installed", 1, true), out)
        assert.are.equal("6\nrc=0\n", sh(dir .. "/tree/bin/neap -e 'print(require(\"neap.tensor\"){1, 2, 3}:sum() // 1 | 0)'"))
    end)
end)
