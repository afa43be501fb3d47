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
    local last, all = nil, {}
    for i, v in ipairs(values) do
        local verdict, events = w:push(START + (from + i - 1) * MINUTE, v)
        last = verdict or last
        for _, e in ipairs(events or {}) do all[#all + 1] = e.event .. " " .. e.detector end
    end
    return last, all
end

describe("watching a sensor", function()
    it("forecasts from earlier readings only, once a window is full", function()
        local w = watch()
        assert.is_nil(feed(w, {1, 2, 3, 4}, 0).model)
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
        assert.is_nil(feed(w, {9}, 20).model)
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

    it("remembers what was flagged, from its raising to its clearing", function()
        local w = watch "maximum = 50"
        local _, events = feed(w, {5, 60, 61, 5, 5, 5, 5}, 0)
        assert.same({"raised range", "cleared range"}, events)
        assert.equal(1, #w.stretches)
        local s = w.stretches[1]
        assert.equal("range", s.why)
        assert.equal(START + MINUTE, s.from_us)
        assert.is_true(s.to_us >= START + 2 * MINUTE and s.to_us < START + 6 * MINUTE)
        assert.matches("60 is above the maximum of 50", s.text)
    end)

    it("raises silence when time passes and nothing comes", function()
        local w = watch "silence = 300"
        feed(w, {1, 2, 3}, 0)
        assert.same({}, w:tick(START + 3 * MINUTE))
        local events = w:tick(START + 60 * MINUTE)
        assert.equal("silence", events[1].detector)
        assert.equal("silence", w.stretches[1].why)
    end)

    it("learns new noise while all is well, and nothing while an alert is raised", function()
        local w = watch "maximum = 50"
        local before = w.calibration
        for i = 0, 150 do feed(w, {5 + (i % 2)}, i) end
        assert.is_not.equal(before, w.calibration)
        local learnt = w.calibration
        for i = 151, 400 do feed(w, {500 + i % 2}, i) end
        assert.is_truthy(w.open.range)
        assert.equal(learnt, w.calibration)
    end)

    it("warms up on history without raising anything", function()
        local w = watch "maximum = 50"
        w:warm({START, START + MINUTE, START + 2 * MINUTE, START + 3 * MINUTE}, {1, 2, 3, 99})
        assert.same({}, w.stretches)
        assert.equal((1 + 2 + 3 + 99) / 4, feed(w, {4}, 4).forecast)
    end)

    it("goes on after a restart: a raised alert stays raised", function()
        local w = watch "maximum = 50"
        feed(w, {5, 60}, 0)
        local again = watch("maximum = 50", {saved = w:save()})
        local _, events = feed(again, {61}, 2)
        assert.same({}, events)
        _, events = feed(again, {5, 5, 5, 5}, 3)
        assert.same({"cleared range"}, events)
    end)

    it("begins anew with a reason when a saved state is damaged", function()
        local spec = sensors.none():get "s"
        local w, why = live.new {spec = spec, saved = "rubbish"}
        assert.is_string(why)
        assert.is_truthy(w:push(START, 1))
    end)
end)
