local process = require "neap.process"
local task = require "neap.task"

describe("a child process", function()
    it("gives its output, its exit code and the signal that ended it", function()
        local text, code = process.run {"sh", "-c", "echo out; echo err >&2; exit 3"}
        assert.same({"err\nout\n", 3}, {table.concat({text:match "(err\n)", text:match "(out\n)"}), code})
        local p = process.spawn {"sleep", "60"}
        assert.is_nil(p:wait(0.001))
        assert.is_true(p:kill "KILL")
        assert.same({0, 9}, {p:wait()})
        assert.is_false(p:kill "TERM")
    end)

    it("is talked to line by line while other tasks run", function()
        local p <close> = process.spawn {"cat", stdin = "pipe", stdout = "pipe"}
        local ticks = 0
        local timer = task.every(0.001, function() ticks = ticks + 1 end, {immediate = true})
        p:write "one\ntwo\nhalf"
        assert.equal("one", p:line())
        assert.equal("two", p:line())
        assert.same({nil, "timeout"}, {p:line(0.01)})
        p:close_stdin()
        assert.equal("half", p:line())
        assert.is_nil(p:line())
        assert.equal(0, (p:wait()))
        assert.is_true(ticks > 0)
        timer:stop()
        timer.handle:wait()
    end)

    it("ends with its <close> variable, also one that ignores TERM", function()
        local pid
        do
            local p <close> = process.spawn {"sh", "-c", "echo ready; exec sleep 60", stdout = "pipe"}
            p:line()
            pid = p.pid
        end
        assert.is_nil(io.open("/proc/" .. pid .. "/stat"))
        local p = process.spawn {"sh", "-c", "trap '' TERM; echo ready; while :; do :; done", stdout = "pipe", detached = true}
        p:line()
        local _, signal = p:stop(0.05)
        assert.equal(9, signal)
    end)

    it("that cannot start raises, and names the program", function()
        local ok, e = pcall(process.spawn, {"/no/such/program"})
        assert.is_false(ok)
        assert.equal("spawn", e.kind)
        assert.matches("/no/such/program.*no such file", e.message)
        assert.has_error(function() process.spawn {"true", stdot = "pipe"} end, "process.spawn: unknown option 'stdot'")
    end)

    it("with more output than a pipe holds is read whole", function()
        local text = process.run {"sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x"}
        assert.equal(3000000, #text)
    end)
end)
