local dataset = require "neap.dataset"
local baseline = require "neap.baseline"
local conformal = require "neap.conformal"

local START = 1700000000000000

local function even(n, step, f)
    local times, values = {}, {}
    for i = 1, n do times[i], values[i] = START + (i - 1) * step * 1000000, f(i) end
    return times, values
end

local function wave(i) return 20 + 3 * math.sin(i / 10) + (i * 7919 % 13) / 20 end

describe("the data set", function()
    it("learns the interval and makes one window per reading after the first ones", function()
        local times, values = even(500, 60, wave)
        local data = assert(dataset.build(times, values, {window = 16}))
        assert.equal(60, data.interval)
        assert.equal(500, #data.series)
        assert.equal(1, data.parts.train[1])
        assert.equal(500 - 16, data.parts.test[#data.parts.test])
    end)

    it("believes the readings rather than the spec about the interval", function()
        local times, values = even(500, 60, wave)
        times[7] = times[7] + 3000000
        assert.equal(61, assert(dataset.build(times, values, {window = 16, interval = 61})).interval)
        assert.equal(60, assert(dataset.build(times, values, {window = 16, interval = 600})).interval)
    end)

    it("splits in order of time, with a window's distance between the parts", function()
        local times, values = even(1000, 60, wave)
        local parts = assert(dataset.build(times, values, {window = 16})).parts
        local last = 0
        for _, name in ipairs {"train", "val", "cal", "test"} do
            assert.is_true(parts[name][1] > last + (last > 0 and 16 or 0), name)
            last = parts[name][#parts[name]]
        end
        assert.is_true(math.abs(#parts.train / 1000 - 0.57) < 0.03)
        assert.is_true(#parts.test > 80)
    end)

    it("fills two missing steps by a line and lets no window cross a longer gap", function()
        local times, values = even(300, 10, function(i) return i + (i % 2) end)
        for _ = 1, 2 do table.remove(times, 51); table.remove(values, 51) end -- a short hole
        for i = 200, #times do times[i] = times[i] + 3600 * 1000000 end -- a long one
        local data = assert(dataset.build(times, values, {window = 8}))
        assert.equal(2, data.health.filled)
        assert.equal(1, data.health.gaps)
        assert.is_true(math.abs(data.series[51] - (data.series[50] + (data.series[53] - data.series[50]) / 3)) < 1e-9)
        for _, part in pairs(data.parts) do
            for _, start in ipairs(part) do assert.equal(data.run_of[start], data.run_of[start + 8]) end
        end
    end)

    it("needs no more memory for a history with a gap of ten years", function()
        local times, values = even(200, 5, wave)
        for i = 101, 200 do times[i] = times[i] + 10 * 365 * 86400 * 1000000 end
        assert.equal(200, #assert(dataset.build(times, values, {window = 5})).series)
    end)

    it("scales by median and quartiles of the training part, so that one outlier does not set the scale", function()
        local times, values = even(500, 60, wave)
        local plain = assert(dataset.build(times, values, {window = 16})).scaler
        values[100] = 1000
        local hit = assert(dataset.build(times, values, {window = 16})).scaler
        assert.is_true(math.abs(plain.loc - hit.loc) < 0.1)
        values[100] = wave(100)
        for i = 400, 500 do values[i] = 1e6 end -- the test part must not leak into the scaler
        assert.same(plain, assert(dataset.build(times, values, {window = 16})).scaler)
    end)

    it("uses the time of day only where two days are covered", function()
        local times, values = even(500, 60, wave)
        assert.same({}, assert(dataset.build(times, values, {window = 16})).seasons)
        times, values = even(2000, 600, wave)
        assert.same({86400}, assert(dataset.build(times, values, {window = 16})).seasons)
        local x = dataset.season_inputs(6 * 3600, {86400})
        assert.is_true(math.abs(x[1] - 1) < 1e-9 and math.abs(x[2]) < 1e-9)
    end)

    it("leaves windows with impossible readings out of training, and counts them", function()
        local times, values = even(500, 60, wave)
        values[60] = 99
        local data = assert(dataset.build(times, values, {window = 16, maximum = 50}))
        assert.equal(1, data.health.out_of_range)
        for _, start in ipairs(data.parts.train) do assert.is_true(start > 60 or start + 16 < 60) end
    end)

    it("says plainly why it cannot be built", function()
        local times, values = even(5, 60, wave)
        local data, why = dataset.build(times, values, {window = 5})
        assert.is_nil(data)
        assert.matches("^Not enough readings to build a dataset%. Generate more synthetic data or reduce `window_size`%.", why)
        data, why = dataset.build({}, {}, {window = 5})
        assert.is_nil(data)
        assert.matches("0 readings", why)
        times, values = even(200, 60, function() return 7 end)
        data, why = dataset.build(times, values, {window = 5})
        assert.is_nil(data)
        assert.matches("constant at 7", why)
    end)
end)

describe("the naive forecasts", function()
    it("are measured on the same targets, and the best one is named", function()
        local times, values = even(600, 60, function(i) return i end)
        local data = assert(dataset.build(times, values, {window = 8}))
        local naive = baseline.measure(data, data.parts.test)
        assert.equal("repeat the last value", naive.best.name)
        assert.is_true(math.abs(naive.best.rmse - 1) < 1e-9)
        assert.equal("mean of the last 5", naive[2].name)
        assert.is_true(math.abs(naive[2].rmse - 3) < 1e-9)
    end)

    it("include yesterday's value where the history reaches back", function()
        local times, values = even(3000, 600, function(i) return 100 * math.sin(2 * math.pi * (i % 144) / 144) end)
        local data = assert(dataset.build(times, values, {window = 8}))
        local naive = baseline.measure(data, data.parts.test)
        assert.equal("same time one period ago", naive.best.name)
        assert.is_true(naive.best.rmse < 1e-6)
    end)
end)

describe("calibration", function()
    -- Normal errors by quantiles of a fixed sequence: no chance in the test.
    local state = 1
    local function uniform() state = state * 6364136223846793005 + 1442695040888963407; return (state >> 11) * 0x1p-53 end
    local function normal() return math.sqrt(-2 * math.log(1 - uniform())) * math.cos(2 * math.pi * uniform()) end

    it("gives the false-alarm rate that it promises, down into the tail", function()
        local errors = {}
        for i = 1, 4000 do errors[i] = normal() end
        local calibration = assert(conformal.fit(errors))
        for _, target in ipairs {0.05, 0.01, 0.001} do
            local alarms, n = 0, 40000
            for _ = 1, n do if calibration:p(math.abs(normal())) < target then alarms = alarms + 1 end end
            assert.is_true(alarms / n > target * 0.5 and alarms / n < target * 1.6, ("target %g: %g"):format(target, alarms / n))
        end
    end)

    it("falls as errors grow, never to zero, and turns back from p to size", function()
        local errors = {}
        for i = 1, 500 do errors[i] = normal() end
        local calibration = assert(conformal.fit(errors))
        local last = 1.1
        for size = 0, 8, 0.01 do
            local p = calibration:p(size)
            assert.is_true(p <= last + 1e-12 and p > 0)
            last = p
        end
        assert.equal(calibration.floor, calibration:p(1e9))
        for _, p in ipairs {0.5, 0.1, 0.01, 0.001} do
            assert.is_true(math.abs(math.log(calibration:p(calibration:size_at(p)) / p)) < 0.2, tostring(p))
        end
        assert.equal(1, calibration:p(0 / 0))
    end)

    it("works with few errors, without a tail, and refuses too few", function()
        local calibration = assert(conformal.fit {1, -2, 3, -4, 5, 6, 7, 8, 9, 10})
        assert.is_nil(calibration.scale)
        assert.equal(2 / 11, calibration:p(10))
        assert.equal(1 / 11, calibration:p(100))
        assert.is_nil((conformal.fit {1, 2, 3}))
        local resting = {}
        for i = 1, 40 do resting[i] = 0 end
        assert.equal(1, assert(conformal.fit(resting)):p(0))
    end)
end)
