-- Fuzzed bodies through the ingest routes, in short: the same inputs each time. `make soak` has a million of them under sanitizers.
local helper = require "spec.helper"

describe("the ingest routes", function()
    -- TSan loses count of its call stack at every error that Lua throws, and keeps each ever longer stack: gigabytes. No threads meet here.
    local run = helper.read("/proc/self/maps"):find("libtsan", 1, true) and pending or it

    run("answer 20,000 mutated bodies without a fault of their own, and count every reading", function()
        local statuses = dofile "spec/fuzz/routes.lua"(20000, 20261123)
        local answered = 0
        for status, n in pairs(statuses) do
            if tonumber(status) then answered = answered + n end
        end
        assert.equal(20000, answered)
        for _, status in ipairs {"200", "204", "400"} do assert.is_true((statuses[status] or 0) > 500, status .. ": " .. tostring(statuses[status])) end
        assert.is_true(statuses.accepted > 5000)
        assert.is_true(statuses.refused > 500)
    end)
end)
