-- `neap top` on a terminal and in a pipe.
local helper = require "spec.helper"
local json = require "neap.json"
local process = require "neap.process"
local pty = require "spec.pty"

local PROGRAM <const> = [[
local attach, task, metric = require "neap.attach", require "neap.task", require "neap.metric"
local counter = metric.counter("spec_things_total", "Things.")
metric.counter("spec_nothing_total", "Nothing.")
attach.serve {name = "spec-top", where = "nowhere"}
task.every(0.01, function() counter:inc() end)
print "ready"
io.stdout:flush()
task.sleep(60)
]]

describe("neap top", function()
    local server, pid
    setup(function()
        server = process.spawn {helper.program(), "-e", PROGRAM, stdout = "pipe", stderr = "null"}
        assert.equal("ready", server:line(20))
        pid = tostring(server.pid)
    end)
    teardown(function() server:stop() end)

    it("prints once when piped, with rates, and JSON for programs", function()
        local text, code = process.run {helper.program(), "top", pid, "-i", "0.1"}
        assert.equal(0, code, text)
        assert.matches("spec%-top  process " .. pid, text)
        assert.matches("spec_things_total +%d+ +[%d.]+", text)
        assert.matches("and %d+ that are 0", text)
        assert.is_nil(text:find("\27", 1, true))
        local look = json.decode((process.run {helper.program(), "top", pid, "--json"}))
        assert.is_true(look.total.counters.spec_things_total > 0)
    end)

    for key, name in pairs {q = "q", ["\3"] = "Ctrl-C"} do
        it("leaves at " .. name .. " and gives the terminal back", function()
            local t = pty.start(("sh -c 'before=$(stty -g); %s top %s -i 0.1; echo left $?; test \"$before\" = \"$(stty -g)\" && echo same'")
                :format(pty.neap(), pid))
            t:wait "q leaves"
            t:wait "spec_things_total"
            t:type(key)
            t:wait "left 0"
            t:wait "same"
            t:finish()
        end)
    end

    it("says how to go on when there is no such server", function()
        local text, code = process.run {helper.program(), "top", "no-such-server"}
        assert.equal(1, code)
        assert.matches("neap top: ", text)
    end)
end)
