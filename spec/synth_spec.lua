local synth = require "neap.synth"
local sensors = require "neap.sensors"

local specs = sensors.parse([[
    sensor "day" { mean = 20, deviation = 2, interval = 600 }
    sensor "kit" { mean = 65, deviation = 1.5, minimum = 60, maximum = 70, interval = 60, kind = "white" }
    sensor "bare" { }]], "s.lua")
local END = 1795459200000000

local function mean_and_deviation(values)
    local sum, squares = 0, 0
    for _, v in ipairs(values) do sum = sum + v end
    local mean = sum / #values
    for _, v in ipairs(values) do squares = squares + (v - mean) ^ 2 end
    return mean, math.sqrt(squares / #values)
end

local function autocorrelation(values, lag)
    local mean, deviation = mean_and_deviation(values)
    local sum = 0
    for i = lag + 1, #values do sum = sum + (values[i] - mean) * (values[i - lag] - mean) end
    return sum / (#values - lag) / deviation ^ 2
end

describe("synthetic readings", function()
    it("have real, increasing times at the sensor's interval and end when asked", function()
        local s = synth.series(specs:get "day", { count = 300, end_us = END })
        assert.equal(300, #s.values)
        assert.equal(END, s.times[300])
        for i = 2, 300 do assert.equal(600 * 1000000, s.times[i] - s.times[i - 1]) end
    end)

    it("have about the mean and deviation of their spec, and its range", function()
        local s = synth.series(specs:get "day", { count = 20000, end_us = END })
        local mean, deviation = mean_and_deviation(s.values)
        assert.is_true(math.abs(mean - 20) < 0.3)
        assert.is_true(math.abs(deviation - 2) < 0.2)
        for _, v in ipairs(synth.series(specs:get "kit", { count = 5000, end_us = END }).values) do assert.is_true(v >= 60 and v <= 70) end
    end)

    it("follow the day in kind cycle, and know nothing of their past in kind white", function()
        local cycle = synth.series(specs:get "day", { count = 5000, end_us = END }).values
        assert.is_true(autocorrelation(cycle, 144) > 0.4)
        assert.is_true(autocorrelation(cycle, 1) > 0.8)
        assert.is_true(math.abs(autocorrelation(synth.series(specs:get "kit", { count = 5000, end_us = END }).values, 1)) < 0.06)
    end)

    it("are the same for the same seed, and differ between seeds and sensors", function()
        local function first(name, seed) return synth.series(specs:get(name), { count = 5, end_us = END, seed = seed }).values end
        assert.same(first("day", 3), first("day", 3))
        assert.not_same(first("day", 3), first("day", 4))
        assert.not_same(first("bare", 3), first("day", 3))
    end)

    it("carry labelled faults where asked, and only there", function()
        local clean = synth.series(specs:get "day", { count = 1000, end_us = END })
        local faulty = synth.series(specs:get "day", { count = 1000, end_us = END, faults = 3 })
        assert.same({}, clean.labels)
        assert.equal(3, #faulty.labels)
        for i = 1, 1000 do
            local inside = false
            for _, label in ipairs(faulty.labels) do inside = inside or (faulty.times[i] >= label[1] and faulty.times[i] <= label[2]) end
            if not inside then assert.equal(clean.values[i], faulty.values[i]) end
        end
        local changed = 0
        for i = 1, 1000 do if clean.values[i] ~= faulty.values[i] then changed = changed + 1 end end
        assert.is_true(changed > 20)
    end)
end)
