local alarm = require "neap.alarm"
local json = require "neap.json"

local function feed(a, list, from)
    local events = {}
    for i, p in ipairs(list) do
        local event = a:update((from or 0) + i, p)
        if event then events[#events + 1] = event .. " at " .. (from or 0) + i end
    end
    return events
end

describe("an alarm", function()
    it("needs two surprising readings of three, and five calm ones to clear", function()
        local a = alarm.new()
        assert.same({}, feed(a, {0.5, 1e-4, 0.5, 0.5, 1e-4, 0.5, 0.5}))
        assert.same({"raised at 12"}, feed(a, {0.5, 1e-4, 0.5, 1e-5, 0.01}, 8))
        assert.equal(10, a.open.from_us)
        assert.same({"cleared at 24"}, feed(a, {0.3, 0.3, 1e-4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4}, 16))
        assert.equal(1, #a.stretches)
        assert.same({10, 19, 1e-5}, {a.stretches[1].from_us, a.stretches[1].to_us, a.stretches[1].p})
        assert.is_nil(a.open)
    end)

    it("ignores readings that could not be scored", function()
        local a = alarm.new()
        a:update(1, 1e-9)
        a:update(2, nil)
        assert.equal("raised", a:update(3, 1e-9))
    end)

    it("goes on after a restart without raising again", function()
        local a = alarm.new()
        feed(a, {1e-4, 1e-4})
        local b = alarm.new({}, json.decode(json.encode(a:state())))
        assert.same({}, feed(b, {1e-4, 1e-4}, 2))
        assert.equal(4, b.open.to_us)
        assert.same({"cleared at 9"}, feed(b, {0.3, 0.3, 0.3, 0.3, 0.3}, 4))
    end)

    it("asks for smaller p where readings are many, for the same number of false alarms a week", function()
        assert.is_true(alarm.p_for_budget(1, 2) < alarm.p_for_budget(1, 300))
        assert.is_true(alarm.p_for_budget(1, 60) < alarm.p_for_budget(5, 60))
        assert.is_true(alarm.p_for_budget(1, 1e9) <= 0.01)
    end)
end)
