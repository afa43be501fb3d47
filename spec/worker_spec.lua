local NEAP = require("spec.where").neap

-- Workers cannot be started twice in one process, so each case is a script of its own.
local function run(script)
    local name = os.tmpname()
    local f = assert(io.open(name, "w"))
    f:write(script)
    f:close()
    local p = io.popen(NEAP .. " " .. name .. " 2>&1; echo rc=$?")
    local text = p:read "a"
    p:close()
    os.remove(name)
    return text
end

describe("workers", function()
    it("that fail say why, and tell worker 1", function()
        local out = run [[
            local worker, task = require "neap.worker", require "neap.task"
            local failed = task.event()
            worker.on("failed", function(text, from) failed:set(from .. " " .. text:match "[^\n]*") end)
            worker.start {count = 2, module = "neap.no_such_module", fn = "go"}
            print(select(2, failed:wait(20)))
        ]]
        assert.matches("worker 2 failed: .*neap.no_such_module' not found", out)
        assert.matches("\n2 module 'neap.no_such_module' not found:\nrc=0", out)
    end)

    it("answer messages until worker 1 ends, which joins them", function()
        local out = run [[
            local worker, task = require "neap.worker", require "neap.task"
            local got = task.channel(10)
            worker.on("pong", function(text, from) got:send(from .. ":" .. text) end)
            worker.start {count = 3, module = "neap.worker", fn = "echo"}
            task.sleep(0)
            worker.send("all", "ping", "hello")
            local list = {got:recv(20), got:recv(20)}
            table.sort(list)
            print(table.concat(list, " "), select(2, worker.self()))
        ]]
        assert.equal("2:hello 3:hello\t3\nrc=0\n", out)
    end)
end)
