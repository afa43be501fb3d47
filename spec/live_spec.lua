local conformal = require "neap.conformal"
local live = require "neap.live"
local sensors = require "neap.sensors"

local MINUTE <const> = 60 * 1000000
local START <const> = 1700000000000000

-- A model that forecasts the mean of its window: what it is given can be seen from what it says.
local function model(window)
    return {window = window, interval = 60, forecast = function(_, w)
        assert.equal(window, #w)
        local sum = 0
        for _, v in ipairs(w) do sum = sum + v end
        return sum / #w
    end}
end

local function calibration()
    local errors = {}
    for i = 1, 200 do errors[i] = (i % 20) / 10 end
    return conformal.fit(errors)
end

local function watch(spec_text, more)
    local spec = sensors.parse(('sensor "s" { interval = 60, %s }'):format(spec_text or ""), "s.lua"):get "s"
    local opts = {spec = spec, model = model(4), calibration = calibration()}
    for k, v in pairs(more or {}) do opts[k] = v or nil end
    return live.new(opts)
end

local function feed(w, values, from)
    local last
    for i, v in ipairs(values) do last = w:push(START + (from + i - 1) * MINUTE, v) or last end
    return last
end

describe("watching a sensor", function()
    it("forecasts from earlier readings only, once a window is full", function()
        local w = watch()
        assert.is_nil(feed(w, {1, 2, 3, 4}, 0).forecast)
        local verdict = feed(w, {100}, 4)
        assert.equal(2.5, verdict.forecast)
        assert.is_true(verdict.p < 0.01)
        assert.equal((2 + 3 + 4 + 100) / 4, feed(w, {5}, 5).forecast)
    end)

    it("bridges two missing readings and starts again after a longer gap", function()
        local w = watch()
        feed(w, {1, 2, 3, 4}, 0)
        assert.equal((3 + 4 + 4 + 4) / 4, feed(w, {7}, 6).forecast)
        assert.equal((4 + 5 + 6 + 7) / 4, feed(w, {9}, 7).forecast)
        assert.is_nil(feed(w, {9}, 20).forecast)
        feed(w, {9, 9, 9}, 21)
        assert.equal(9, feed(w, {9}, 24).forecast)
    end)

    it("stays silent about late readings", function()
        local w = watch()
        feed(w, {1, 2, 3, 4, 5}, 0)
        assert.is_nil(w:push(START + 2 * MINUTE, 99))
        assert.is_nil(w:push(START + 4 * MINUTE, 99))
        assert.equal(3.5, feed(w, {6}, 5).forecast)
    end)

    it("raises on the second surprising reading and clears when it is calm", function()
        local w = watch()
        feed(w, {5, 5, 5, 5, 5, 5}, 0)
        assert.is_nil(feed(w, {80}, 6).event)
        local verdict = feed(w, {300}, 7)
        assert.equal("raised", verdict.event)
        assert.equal("forecast", verdict.why)
        local cleared
        for i = 8, 30 do cleared = cleared or feed(w, {5}, i).event == "cleared" end
        assert.is_true(cleared)
        assert.equal(1, #w.alarm.stretches)
    end)

    it("names the rule of the spec that was broken", function()
        local w = watch("maximum = 50")
        feed(w, {60}, 0)
        assert.equal("range", feed(w, {60}, 1).why)
        assert.equal("range", w.alarm.open.why)
        w = watch("max_rate = 0.5")
        feed(w, {0}, 0)
        assert.equal("rate", feed(w, {60}, 1).why)
        w = watch('flatline = "5 min"')
        assert.is_nil(feed(w, {3, 3, 3, 3, 3}, 0).why)
        assert.equal("flatline", feed(w, {3}, 5).why)
        assert.equal("raised", feed(w, {3}, 6).event)
    end)

    it("learns new noise while all is well, and nothing while an alarm is open", function()
        local w = watch()
        local before = w.calibration
        for i = 0, 150 do feed(w, {5 + (i % 2)}, i) end
        assert.is_not.equal(before, w.calibration)
        local learnt = w.calibration
        feed(w, {500, 1}, 151)
        assert.is_truthy(w.alarm.open)
        for i = 153, 400 do feed(w, {i % 2 == 0 and 500 or 1}, i) end
        assert.is_truthy(w.alarm.open)
        assert.equal(learnt, w.calibration)
    end)

    it("watches without a model, by the spec's rules alone", function()
        local w = watch("minimum = 0", {model = false, calibration = false})
        assert.is_nil(feed(w, {1, 2}, 0).p)
        feed(w, {-1}, 2)
        assert.equal("raised", feed(w, {-1}, 3).event)
    end)
end)
