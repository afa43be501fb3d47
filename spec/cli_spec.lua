local task = require "neap.task"

local where = require "spec.where"
local NEAP = where.neap
local LOOP = where.tsan and "while true do io.stdout:flush() end" or "while true do end"

local function sh(command)
    local p = io.popen("{ " .. command:gsub("NEAP%f[^%w_]", NEAP) .. "\n} 2>&1; echo \"rc=$?\"")
    local text = p:read "a"
    p:close()
    local out, rc = text:match "^(.*)rc=(%d+)\n$"
    return out, tonumber(rc)
end

local function with_file(text, fn)
    local name = os.tmpname()
    local f = assert(io.open(name, "w"))
    f:write(text)
    f:close()
    local ok, e = pcall(fn, name)
    os.remove(name)
    if not ok then error(e, 0) end
end

describe("the command line", function()
    it("runs strings, files, stdin and shebang scripts as lua does", function()
        assert.same({"3\n", 0}, {sh "NEAP -e 'print(1+2)'"})
        assert.same({"stdin\n", 0}, {sh "echo 'print \"stdin\"' | NEAP -"})
        assert.same({"piped\n", 0}, {sh "echo 'print \"piped\"' | NEAP"})
        with_file("#!/usr/bin/env neap\nprint(arg[0] ~= nil, #arg, arg[1], ...)", function(name)
            assert.same({"true\t2\ta\ta\tb\n", 0}, {sh("NEAP " .. name .. " a b")})
        end)
        assert.same({"1\n", 0}, {sh "NEAP -l m=math -e 'print(m.type(1) == \"integer\" and 1)'"})
        assert.same({"init\n", 0}, {sh "LUA_INIT='print \"init\"' NEAP -e ''"})
        assert.same({"", 0}, {sh "LUA_INIT='print \"init\"' NEAP -E -e ''"})
    end)

    it("reports errors with a traceback and exit code 1", function()
        local out, rc = sh "NEAP -e 'local function f() error \"boom\" end f()'"
        assert.equal(1, rc)
        assert.matches("boom.*stack traceback", out)
        out, rc = sh "NEAP -e 'error(setmetatable({}, {__tostring = function() return \"mine\" end}))'"
        assert.equal(1, rc)
        assert.matches("mine", out)
        assert.equal(7, (select(2, sh "NEAP -e 'os.exit(7)'")))
        assert.equal(1, (select(2, sh "NEAP -e 'os.exit(false, true)'")))
    end)

    it("names the nearest command or option", function()
        local out, rc = sh "NEAP tset"
        assert.equal(1, rc)
        assert.matches("did you mean 'neap test'", out)
        out = sh "NEAP foo"
        assert.matches("neap: 'foo' is neither a file nor a command", out) -- 'top' is not near
        out, rc = sh "NEAP --hepl"
        assert.equal(1, rc)
        assert.matches("did you mean '%-%-help'", out)
        out, rc = sh "NEAP sensors" -- a file of settings beside the commands
        assert.equal(1, rc)
        assert.matches("cannot open sensors", out)
        out, rc = sh "NEAP --help"
        assert.equal(0, rc)
        assert.matches("neap test", out)
    end)

    it("exits with 2, and says what is wrong, where a command's words cannot be right together", function()
        for command, said in pairs {
            ["serve --listen foo"] = "wants HOST:PORT", ["serve --listen 1.2.3.4:99999"] = "wants HOST:PORT",
            ["serve --auth --no-auth"] = "contradict each other", ["serve --tls-cert a"] = "both %-%-tls%-cert and %-%-tls%-key",
            ["token foo"] = "'foo' is none of add, list, revoke", ["token add"] = "neap token add NAME", ["token revoke"] = "neap token revoke NAME",
            ["record --interval 0"] = "below the minimum", ["import"] = "name a CSV file", ["export a --from soon"] = "%-%-from: 'soon' is not a date",
            ["train a --sensor b"] = "two sensors are named", ["score"] = "say which readings",
        } do
            local out, rc = sh("NEAP " .. command)
            assert.equal(2, rc, command .. ": " .. out)
            assert.matches("^neap " .. command:match "^%w+" .. ": .*" .. said, out)
            assert.is_nil(out:find("traceback", 1, true))
        end
    end)

    it("keeps running until the tasks of a script have ended, and fails if one failed", function()
        local out, rc = sh [[NEAP -e 'require("neap.task").spawn(function() require("neap.task").sleep(0.01) print "late" end) print "early"']]
        assert.same({"early\nlate\n", 0}, {out, rc})
        out, rc = sh [[NEAP -e 'require("neap.task").spawn(function() error "unseen" end)']]
        assert.equal(1, rc)
        assert.matches("unseen.*stack traceback", out)
    end)

    it("ends cleanly on Ctrl-C: an error that a script can catch", function()
        local t0 = task.now()
        for name, code in pairs {
            loop = LOOP, sleep = "require('neap.task').sleep(60)", pending = "require('neap.task').spawn(require('neap.task').sleep, 60)",
        } do
            local out, rc = sh([[NEAP -e "io.stdout:write('x') io.stdout:flush() ]] .. code .. [[" & p=$!
                while ! kill -INT $p 2>/dev/null; do :; done; sleep 0.1; kill -INT $p 2>/dev/null; wait $p]])
            assert.is_true(rc ~= 0, name)
            assert.is_truthy(out, name)
        end
        local out = sh([[NEAP -e "local ok, e = pcall(function() io.stdout:write 'up' io.stdout:flush() ]] .. LOOP .. [[ end) print(ok, e)" > /tmp/neap_int.$$ &
            p=$!
            until grep -q up /tmp/neap_int.$$ 2>/dev/null; do sleep 0.01; done; kill -INT $p; wait $p; cat /tmp/neap_int.$$; rm -f /tmp/neap_int.$$]])
        assert.matches("false.*interrupted!", out)
        assert.is_true(task.now() - t0 < 50)
    end)
end)

describe("require", function()
    it("may wait while a module loads, and other tasks wait for the same load", function()
        package.preload["slow.module"] = function()
            task.sleep(0.005)
            return {loaded_at = task.now()}
        end
        local a, b = task.all(function() return require "slow.module" end, function() return require "slow.module" end)
        assert.equal(a, b)
        assert.is_number(a.loaded_at)
        package.preload["slow.module"], package.loaded["slow.module"] = nil, nil
    end)

    it("raises on a module that requires itself, and can try again after an error", function()
        package.preload["loop.a"] = function() return require "loop.a" end
        local ok, e = pcall(require, "loop.a")
        assert.is_false(ok)
        assert.matches("requires itself", e)
        local tries = 0
        package.preload["flaky.b"] = function()
            tries = tries + 1
            if tries == 1 then error "first" end
            return tries
        end
        assert.is_false((pcall(require, "flaky.b")))
        assert.equal(2, (require "flaky.b"))
        package.preload["loop.a"], package.preload["flaky.b"], package.loaded["flaky.b"] = nil, nil, nil
    end)

    it("finds the modules inside the binary from any directory, and leaves package.path stock", function()
        local bin = io.popen("realpath " .. NEAP):read "l"
        assert.same({"table\n", 0}, {sh("cd / && env -i " .. bin .. " -e 'print(type(require \"neap.task\"))'")})
        local stock = io.popen("env -i lua5.4 -e 'print(package.path, package.cpath)'"):read "l"
        assert.same({stock .. "\n", 0}, {sh("env -i " .. bin .. " -e 'print(package.path, package.cpath)'")})
    end)

    it("loads C modules of Debian and a module from NEAP_PATH", function()
        assert.equal("table", type(require "cjson"))
        with_file("return {from = 'neap_path'}", function(name)
            local dir, base = name:match "^(.*)/(.*)$"
            os.rename(name, name .. ".lua")
            assert.same({"neap_path\n", 0}, {sh(("NEAP_PATH=%s NEAP -e 'print(require(\"%s\").from)'"):format(dir, base))})
            os.remove(name .. ".lua")
        end)
    end)
end)
