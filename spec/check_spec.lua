-- What `neap check` finds, and the exact list of globals behind it.
local check = require "neap.check"
local globals = require "neap.globals"
local pty = require "spec.pty"

local made = {} -- directories

-- A project directory with these files; returns its path.
local function project(files)
    local dir = os.tmpname()
    made[#made + 1] = dir
    os.remove(dir)
    os.execute("mkdir -p " .. dir .. "/lua")
    for name, text in pairs(files) do
        local f = assert(io.open(dir .. "/" .. name, "w"))
        f:write(text)
        f:close()
    end
    return dir
end

local function run(dir, only, more)
    local command = ("cd %s && NEAP_DATA= REDIS_URL= %s check %s %s 2>&1; echo rc=$?"):format(dir, pty.neap():gsub("^build",
        os.getenv("PWD") .. "/build"),
        only and "--only " .. only or "", more or "")
    local p = io.popen(command)
    local out = p:read("a")
    p:close()
    return out
end

after_each(function()
    for _, dir in ipairs(made) do os.execute("rm -rf " .. dir) end
    made = {}
end)

describe("globals", function()
    local function names(source, write)
        local out = {}
        for _, use in ipairs(globals.of(assert(load(source)))) do
            if use.write == write then out[#out + 1] = use.name .. ":" .. use.line end
        end
        return table.concat(out, " ")
    end

    it("lists reads and writes with their lines, in nested functions too", function()
        local source = "local a = x\n\nfunction f(p)\n  p.field = y\n  return function()\n    z = a\n  end\nend\n"
        assert.are.equal("x:1 y:4", names(source, false))
        assert.are.equal("f:3 z:6", names(source, true))
    end)

    it("knows locals, parameters, fields and methods from globals", function()
        assert.are.equal("",
            names("local print = 1 local t = {x = print} t.y, t.z = t.x, t:m(function(q) return q end) goto done ::done::", false))
        assert.are.equal("_G:1", names("return _G.x", false))
        assert.are.equal("", names("local _ENV = {} x = y", false))
    end)

    it("keeps the right lines in long functions", function()
        local lines = {}
        for i = 1, 600 do lines[i] = ("if a%d then\n\n\n end"):format(i % 100) end
        lines[#lines + 1] = "last()"
        assert.is_truthy(names(table.concat(lines, "\n"), false):find("last:2401$"))
    end)

    it("reads the bytecode of every Lua file of this tree", function()
        local n = 0
        for _, file in ipairs(neap.assets "lua/neap/") do
            n = n + #globals.of(assert(load(neap.asset(file), "@" .. file)))
        end
        assert.is_true(n > 500)
    end)
end)

describe("neap check", function()
    it("passes a sound project with exit code 0", function()
        local dir = project{["app.lua"] = "local log = require 'neap.log'\nlog.info(tostring(arg))\n", ["lua/mine.lua"] = "return {}\n"}
        local out = run(dir, "syntax --only globals")
        assert.is_truthy(out:find("2 files compile", 1, true))
        assert.is_truthy(out:find("all is well\nrc=0\n", 1, true))
    end)

    it("names syntax errors and unknown globals with file, line and the nearest name, and exits 3", function()
        local dir = project{["app.lua"] = "x = 1\n\nprnit(x)\n", ["lua/broken.lua"] = "local t = {\n"}
        local out = run(dir, "syntax --only globals")
        assert.is_truthy(out:find("FAIL  syntax      lua/broken.lua:2:", 1, true))
        assert.is_truthy(out:find("app.lua:3: unknown global 'prnit', did you mean 'print'?", 1, true))
        assert.is_truthy(out:find("app.lua:1: 'x' becomes a global", 1, true))
        assert.is_truthy(out:find("rc=3\n", 1, true))
        assert.is_truthy(run(dir, "globals", "--allow prnit"):find("rc=0\n", 1, true))
    end)

    it("counts the routes of app.lua without serving, and runs nothing else of the project", function()
        local dir = project{["lua/a.lua"] = "io.open('ran', 'w'):write('x'):close()\n",
            ["app.lua"] = "return function(app, here) app:get('/a', function() return {} end) app:get('/a/:b', print) end\n"}
        assert.is_truthy(run(dir, "routes"):find("2 routes of its own in app.lua", 1, true))
        assert.is_nil(io.open(dir .. "/ran"))
    end)

    it("names what is wrong with the routes", function()
        for text, want in pairs{
            ["return function(app) app:get('/x', nil) end"] = "FAIL  routes.*handler is a nil",
            ["return function(app) app:gett('/x', print) end"] = "FAIL  routes.*app.lua:1:.*gett",
            ["os.exit(0)"] = "FAIL  routes.*os.exit was called",
            ["error('early')"] = "FAIL  routes.*app.lua:1: early",
            ["return function(app, here) here.store:sensors() end"] = "warn  routes.*here.store is not there",
            ["print('x')"] = "warn  routes.*returns no function",
        } do
            assert.is_truthy(run(project{["app.lua"] = text}, "routes"):find(want), text .. "\n" .. run(project{["app.lua"] = text}, "routes"))
        end
    end)

    it("refuses broken sensor specs", function()
        local dir = project{["sensors.lua"] = "sensor \"oven\" {\n  minimun = 5,\n}\n"}
        local out = run(dir, "sensors")
        assert.is_truthy(out:find("FAIL  sensors", 1, true))
        assert.is_truthy(out:find("minimum", 1, true))
    end)

    it("tells a C module of another Lua", function()
        local dir = project{}
        os.execute(("mkdir -p %s/lua_modules/lib/lua/5.4 && printf '\\177ELF liblua5.1.so.0' > %s/lua_modules/lib/lua/5.4/old.so"):format(dir, dir))
        assert.is_truthy(run(dir, "rocks"):find("built for another Lua", 1, true))
    end)

    it("writes JSON", function()
        local text = run(project{}, "port", "--json --listen 127.0.0.1:notaport"):match("^(.*)rc=3\n$")
        local report = require("neap.json").decode(text)
        assert.are.equal(1, report.failed)
        assert.are.equal("port", report.checks[1].check)
    end)

    it("asks the system for the address, and says what is in its way", function()
        local sockets = require("neap.http").sockets {host = "127.0.0.1", port = 0, count = 1}
        local taken = "127.0.0.1:" .. sockets.port
        assert.matches("warn  port .*in use", run(project{}, "port", "--listen " .. taken))
        sockets:close()
        assert.matches("ok    port .*is free", run(project{}, "port", "--listen " .. taken))
        assert.matches("FAIL  port .*not an address of this machine", run(project{}, "port", "--listen 192.0.2.1:5000"))
    end)

    it("knows which checks there are", function()
        local out = run(project{}, "prot")
        assert.matches("FAIL  only .*there is no check 'prot', did you mean 'port'%?", out)
        assert.matches("rc=3", out)
    end)

    it("survives a check that fails itself", function()
        table.insert(check.list, {"odd", function() error("oops") end})
        local report = check.run{files = {}, only = {"odd"}}
        table.remove(check.list)
        assert.are.equal(1, report.failed)
        assert.is_truthy(check.text(report, false):find("oops", 1, true))
    end)
end)
