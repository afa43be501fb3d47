-- A prompt inside a running program.
local pty = require "spec.pty"
local attach = require "neap.attach"
local control = require "neap.control"
local task = require "neap.task"
local NEAP = pty.neap()

-- Runs fn with a server in this process; its socket is passed.
local function with_server(opts, fn)
    local before = #task.list()
    local server = attach.serve(opts)
    local ok, e = pcall(fn, server.path)
    server:close()
    if not ok then error(e, 0) end
    for _ = 1, 2000 do -- every task of it ends
        if #task.list() <= before then return end
        task.sleep(0.005)
    end
    error("tasks are left behind")
end

local function client_of(path)
    local out = {}
    local client = attach.open(path)
    client.out = function(text) out[#out + 1] = text end
    return client, function() return table.concat(out) end
end

describe("attach", function()
    it("evaluates in the server, with its names, locals and `_`", function()
        with_server({name = "plant", env = {app = {title = "plant"}}}, function(path)
            local client <close>, out = client_of(path)
            assert.are.equal("plant", client.info.name)
            assert.is_true(client:run("app.title"))
            assert.is_true(client:run("local x = 20"))
            assert.is_true(client:run("print('seen', x) x = x + 1"))
            assert.is_true(client:run("x * 2"))
            assert.is_true(client:run("_ + 0"))
            assert.are.equal('"plant"\nseen\t20\n42\n42\n', out())
        end)
    end)

    it("tells success from failure", function()
        with_server({}, function(path)
            local client <close>, out = client_of(path)
            assert.is_false(client:run("error('broken')"))
            assert.is_truthy(out():find("broken", 1, true))
            assert.is_false(client:run("for for"))
            assert.is_true(client:run("task.sleep(0.001)"))
        end)
    end)

    it("gives each connection a session of its own", function()
        with_server({}, function(path)
            local one <close> = client_of(path)
            local two <close>, out = client_of(path)
            one:run("local mine = 1")
            two:run("mine")
            assert.are.equal("", out())
        end)
    end)

    it("completes what the server knows", function()
        with_server({env = {app = {routes = {}, route = {}}}, names = function() return {"oven", "outside", "pump"} end}, function(path)
            local client <close> = client_of(path)
            assert.are.same({4, {"route", "routes"}}, {client:complete("app.rou", 7)})
            assert.are.same({3, {"outside", "oven"}}, {client:complete("f('o", 4)})
        end)
    end)

    it("cancels a line that waits, and one whose client has gone", function()
        with_server({}, function(path)
            local client = client_of(path)
            local line = task.spawn(function() return client:run("task.sleep(600)") end):quiet()
            local function sleepers()
                local n = 0
                for _, h in ipairs(task.list()) do
                    if h:info().waits_for == "task.sleep" and h:info().traceback:find("line 1", 1, true) then n = n + 1 end
                end
                return n
            end
            local function becomes(want)
                for _ = 1, 2000 do
                    if sleepers() == want then return true end
                    task.sleep(0.005)
                end
            end
            assert.is_true(becomes(1))
            line:cancel("interrupted")
            assert.is_true(becomes(0))
            pcall(line.wait, line)
            task.spawn(function() client:run("task.sleep(600)") end):quiet()
            task.yield()
            client:close()
            assert.is_true(becomes(0))
        end)
    end)

    it("reports statistics and reloads", function()
        local times = 0
        with_server({on_reload = function()
            times = times + 1
            if times == 2 then error("sensors.lua:3: unknown key", 0) end
            return true, "reloaded in 3 ms"
        end, stats = function() return {redis_ms = 0.25} end}, function(path)
            local client <close> = client_of(path)
            local stats = client:ask{op = "stats"}
            assert.is_true(stats.memory > 0 and stats.tasks >= 1 and stats.lag >= 0)
            assert.are.equal(0.25, stats.redis_ms)
            assert.are.same({ok = true, message = "reloaded in 3 ms"}, client:ask{op = "reload"})
            assert.are.same({ok = false, message = "sensors.lua:3: unknown key"}, client:ask{op = "reload"})
        end)
    end)

    it("has a socket that only we can open, and removes it", function()
        local path
        with_server({}, function(p)
            path = p
            local f = io.popen("stat -c '%a %U' " .. p .. "; id -un")
            local mode, owner, me = f:read("a"):match("^(%d+) (%S+)\n(%S+)")
            f:close()
            assert.are.equal("600", mode)
            assert.are.equal(me, owner)
        end)
        assert.is_nil(io.open(path))
        local ok, e = pcall(control.connect, path)
        assert.is_false(ok)
        assert.are.equal("connection", e.kind)
    end)
end)

describe("neap attach", function()
    -- A server in another process; it ends when the pipe to it is closed.
    local function start(name)
        local script = os.tmpname()
        local f = assert(io.open(script, "w"))
        f:write(("require('neap.attach').serve{name = '%s', env = {answer = 42}}\n"):format(name),
            "print('ready') io.stdout:flush()\nrequire('neap.task').sleep(30)")
        f:close()
        local p = io.popen(("exec timeout 30 %s %s"):format(NEAP, script), "r")
        assert.are.equal("ready", p:read("l"))
        return function()
            os.execute(("%s attach %s -e 'os.exit(0)' > /dev/null 2>&1"):format(NEAP, name))
            p:close()
            os.remove(script)
        end
    end

    it("runs code with -e, finds the server by name, and says what is wrong", function()
        local stop = start("spec-one")
        local function run(arguments)
            local p = io.popen(("NO_COLOR=1 %s attach %s 2>&1; echo rc=$?"):format(NEAP, arguments))
            local out = p:read("a")
            p:close()
            return out
        end
        assert.are.equal("42\nrc=0\n", run("spec-one -e answer"))
        assert.is_truthy(run("spec-one -e 'error(\"no\")'"):find("no\n.*rc=1\n$"))
        assert.is_truthy(run("spec-two -e answer"):find("there is no server 'spec%-two'.*spec%-one.*rc=1\n$"))
        assert.is_truthy(run("--list"):find("spec-one", 1, true))
        stop()
    end)

    it("is a prompt like the other one: completion, Ctrl-C, many lines", function()
        local stop = start("spec-three")
        local t = pty.start(("env NEAP_HISTORY= NO_COLOR=1 %s attach spec-three"):format(NEAP))
        t:wait("spec-three> ")
        t:type("answ\t"):wait("answer")
        t:type(" + 1\r"):wait("\n43")
        t:wait("spec-three> ")
        t:type("print('waiting') task.sleep(600)\r"):wait("\nwaiting")
        t:type("\3"):wait("interrupted")
        t:wait("spec-three> ")
        t:type("for i = 1, 2 do\r"):wait("... ")
        t:type("print('n', i) end\r"):wait("n\t2")
        t:type("\4")
        assert.are.equal(0, t:finish())
        stop()
    end)
end)
