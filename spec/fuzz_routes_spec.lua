-- Fuzzed bodies through the ingest routes, in short: the same inputs each time. `make soak` has a million of them under sanitizers.
local helper = require "spec.helper"

describe("the ingest routes", function()
    -- TSan loses count of its call stack at every error that Lua throws, and keeps each ever longer stack: gigabytes. No threads meet here.
    local count = helper.read("/proc/self/maps"):find("libtsan", 1, true) and 2000 or 20000

    it("answer 20,000 mutated bodies without a fault of their own, and count every reading", function()
        local statuses = dofile "spec/fuzz/routes.lua"(count, 20261123)
        local answered = 0
        for status, n in pairs(statuses) do
            if tonumber(status) then answered = answered + n end
        end
        assert.equal(count, answered)
        for _, status in ipairs {"200", "204", "400"} do assert.is_true((statuses[status] or 0) > count // 40, status .. ": " .. tostring(statuses[status])) end
        assert.is_true(statuses.accepted > count // 4)
        assert.is_true(statuses.refused > count // 40)
    end)
end)
