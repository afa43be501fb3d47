local conformal = require "neap.conformal"
local forecaster = require "neap.forecaster"
local helper = require "spec.helper"
local process = require "neap.process"
local sensors = require "neap.sensors"
local synth = require "neap.synth"
local train = require "neap.train"

local specs = sensors.parse([[
    sensor "day" { mean = 20, deviation = 2, interval = 600 }
    sensor "noise" { mean = 65, deviation = 1.5, interval = 600, kind = "white" }]], "s.lua")
local END <const> = 1795459200000000

local function made(name, count) return synth.series(specs:get(name), {count = count, end_us = END}) end

describe("training", function()
    it("beats every naive forecast on a sensor that can be forecast, and keeps the best epoch", function()
        local s = made("day", 3000)
        local seen = {}
        local r = assert(train.run(s.times, s.values, specs:get "day", {epochs = 30, on_epoch = function(e) seen[#seen + 1] = e end}))
        assert.is_true(r.report.skill > 0.03, tostring(r.report.skill))
        assert.is_true(r.report.promote)
        assert.equal(#seen, r.report.epochs)
        local least = math.huge
        for _, e in ipairs(seen) do least = math.min(least, e.validation) end
        assert.equal(least, seen[r.report.best_epoch].validation)
        assert.is_true(math.abs(r.model:loss(r.data.parts.val) - least) < 1e-6 * least)
        assert.is_true(seen[#seen].loss < seen[1].loss)
        assert.same({86400}, r.data.seasons)
    end)

    it("says plainly that no model can forecast white noise, and does not promote one", function()
        local s = made("noise", 2000)
        local r = assert(train.run(s.times, s.values, specs:get "noise"))
        assert.is_false(r.report.promote)
        assert.matches("pure noise: no model can forecast it", r.report.verdict)
        assert.equal("mean of the training data", r.report.naive.best.name)
        assert.is_true(r.report.rmse < 1.1 * 1.5, "it comes close to the noise itself")
    end)

    it("gives the same model for the same seed", function()
        local s = made("day", 600)
        local function hash(seed) return train.run(s.times, s.values, specs:get "day", {epochs = 3, seed = seed}).model.mlp:hash() end
        assert.equal(hash(1), hash(1))
        assert.not_equal(hash(1), hash(2))
    end)

    it("makes a fleet in one call: the same models as alone, each stopped in its own time", function()
        local jobs, alone = {}, {}
        for i, count in ipairs {600, 900, 5, 3000} do
            local s = synth.series(specs:get "day", {count = count, end_us = END, seed = i})
            jobs[i] = {times = s.times, values = s.values, spec = specs:get "day"}
            alone[i] = train.run(s.times, s.values, specs:get "day", {epochs = 12, patience = 2})
        end
        local fleet = train.fleet(jobs, {epochs = 12, patience = 2})
        assert.matches("Not enough readings", fleet[3].why)
        for _, i in ipairs {1, 2, 4} do
            assert.equal(alone[i].model.mlp:hash(), fleet[i].model.mlp:hash())
            assert.equal(alone[i].report.best_epoch, fleet[i].report.best_epoch)
            assert.equal(alone[i].report.rmse, fleet[i].report.rmse)
            assert.equal(#alone[i].history, #fleet[i].history)
        end
    end)

    it("returns the reason when there is nothing to learn", function()
        local result, why = train.run({1, 2}, {1, 2}, specs:get "day")
        assert.is_nil(result)
        assert.matches("^Not enough readings to build a dataset", why)
    end)
end)

describe("a model's file", function()
    local dir
    before_each(function() dir = helper.dir() end)
    after_each(function() helper.remove(dir) end)

    it("holds all that scoring needs: the loaded model forecasts as the trained one", function()
        local s = made("day", 800)
        local r = assert(train.run(s.times, s.values, specs:get "day", {epochs = 3}))
        r.model:save(dir .. "/m.safetensors", r.card)
        local model, card = forecaster.load(dir .. "/m.safetensors")
        local start = r.data.parts.test[5]
        local window = table.move(r.data.series, start, start + r.data.window - 1, 1, {})
        local seconds = r.data.seconds[start + r.data.window]
        local one = model:forecast(window, seconds)
        assert.is_true(math.abs(one - r.model:forecasts({start})[1]) < 1e-4)
        assert.equal(one, r.model:forecast(window, seconds))
        assert.equal("day", card.sensor)
        local calibration = conformal.fit(card.calibration)
        assert.is_true(math.abs(calibration:p(1) - r.calibration:p(1)) < 0.01)
    end)

    it("is read by Python's standard library, weight for weight", function()
        if not os.execute "command -v python3 >/dev/null" then return pending "python3 is not installed" end
        local s = made("day", 400)
        local r = assert(train.run(s.times, s.values, specs:get "day", {epochs = 1}))
        r.model:save(dir .. "/m.safetensors", r.card)
        local root = neap.root ~= "" and neap.root or "."
        local said, code = process.run {"python3", root .. "/spec/safetensors_reader.py", dir .. "/m.safetensors"}
        assert.equal(0, code, said)
        local weight = r.model.mlp:layer(1)
        local rows, columns, sum = said:match "layer1%.weight F32 %[(%d+), (%d+)%] (%S+)"
        assert.same({weight:size(1), weight:size(2)}, {tonumber(rows), tonumber(columns)})
        assert.is_true(math.abs(weight:sum() - tonumber(sum)) < 1e-3)
        assert.matches("\nsensor day\nwindow 16\n", said)
    end)

    it("is refused with a reason when it is damaged or somebody else's", function()
        local s = made("day", 400)
        local r = assert(train.run(s.times, s.values, specs:get "day", {epochs = 1}))
        local path = dir .. "/m.safetensors"
        r.model:save(path, r.card)
        local bytes = helper.read(path)
        helper.write(path, bytes:sub(1, #bytes // 2))
        assert.is_false((pcall(forecaster.load, path)))
        local flipped = bytes:sub(1, -100) .. string.char(bytes:byte(-99) ~ 1) .. bytes:sub(-98)
        helper.write(path, flipped)
        assert.is_false((pcall(forecaster.load, path)))
        helper.write(path, "not a model")
        assert.is_false((pcall(forecaster.load, path)))
        assert.is_false((pcall(forecaster.load, dir .. "/none")))
    end)
end)

describe("neap train", function()
    local dir
    before_each(function() dir = helper.dir() end)
    after_each(function() helper.remove(dir) end)

    local function neap(...) return process.run {helper.program(), ...} end

    it("runs both recipes of the starter kit's README as typed", function()
        local said, code = neap("train", "--bootstrap", "--samples", "512", "--data", dir .. "/d")
        assert.equal(0, code, said)
        assert.matches("[bootstrap] Generating 512 readings per sensor…", said, 1, true)
        assert.matches("Using device: cpu", said, 1, true)
        assert.matches("Epoch 1/40 %- loss: %d%.%d%d%d%d%d%d", said)
        local path = dir .. "/checkpoints/temp.pt"
        said, code = neap("train", "--sensor", "temperature", "--epochs", "20", "--checkpoint", path, "--data", dir .. "/d")
        assert.equal(0, code, said)
        assert.matches("Saved checkpoint to " .. path, said, 1, true)
        local _, card = forecaster.load(path)
        assert.equal("temperature", card.sensor)
        assert.is_true(card.synthetic)
    end)

    it("takes the sensor with and without --sensor, but not two different ones", function()
        local said, code = neap("train", "nobody", "--data", dir .. "/d")
        assert.equal(1, code)
        assert.matches("Not enough readings", said)
        said, code = neap("train", "a", "--sensor", "b", "--data", dir .. "/d")
        assert.equal(2, code)
        assert.matches("two sensors are named", said)
        said, code = neap("train", "--epoch", "3")
        assert.equal(2, code)
        assert.matches("did you mean '%-%-epochs'", said)
    end)

    it("makes a model that neap score uses, on a CSV file and on the history", function()
        local file = helper.write(dir .. "/t.csv", "timestamp,value\n")
        local s = made("day", 600)
        local rows = {"timestamp,value"}
        for i, value in ipairs(s.values) do rows[i + 1] = ("%d,%g"):format(s.times[i] // 1000000, value) end
        helper.write(file, table.concat(rows, "\n") .. "\n")
        neap("import", file, "--sensor", "day", "--data", dir .. "/d")
        local said, code = neap("train", "day", "--epochs", "4", "--checkpoint", dir .. "/day.st", "--data", dir .. "/d", "--no-plot")
        assert.equal(0, code, said)
        said, code = neap("score", "--csv", file, "--out", dir .. "/out.csv", "--checkpoint", dir .. "/day.st")
        assert.equal(0, code, said)
        local model = forecaster.load(dir .. "/day.st")
        local scored = helper.read(dir .. "/out.csv")
        local n, forecast = 0, nil
        for line in scored:gmatch "[^\n]+" do
            n = n + 1
            if n == 101 then forecast = tonumber(line:match "^[^,]*,[^,]*,([^,]*)") end
        end
        assert.equal(601, n)
        local window = {}
        for i = 84, 99 do window[#window + 1] = tonumber(("%g"):format(s.values[i])) end
        assert.is_true(math.abs(model:forecast(window, s.times[100] / 1e6) - forecast) < 1e-4)
        said, code = neap("score", "day", "--data", dir .. "/d", "--out", dir .. "/history.csv")
        assert.equal(0, code, said)
        assert.matches("600 readings of 'day' scored with", said)
        assert.equal(601, select(2, helper.read(dir .. "/history.csv"):gsub("\n", "")))
        said, code = neap("score", "nobody", "--data", dir .. "/d")
        assert.equal(1, code)
        assert.matches("has no readings", said)
    end)

    it("trains every sensor side by side with --all, and says of each what came of it", function()
        local said, code = neap("seed", "--samples", "1000", "--data", dir .. "/d")
        assert.equal(0, code, said)
        said, code = neap("train", "--all", "--epochs", "10", "--data", dir .. "/d")
        assert.equal(0, code, said)
        for _, name in ipairs {"humidity", "pressure", "temperature"} do assert.matches("\n" .. name .. " +%S", said) end
        assert.matches("%d of 3 sensors have a model in use now", said)
        said, code = neap("train", "--all", "--data", dir .. "/empty")
        assert.equal(1, code)
        assert.matches("there are no sensors yet", said)
    end)

    it("does not put a model to use that knows made-up readings when there are real ones", function()
        local file = helper.write(dir .. "/t.csv", "timestamp,value\n2026-01-01T00:00:00Z,1\n")
        neap("import", file, "--sensor", "temperature", "--data", dir .. "/d")
        local said = neap("train", "--bootstrap", "--samples", "600", "--epochs", "2", "--data", dir .. "/d")
        assert.matches("leave --bootstrap out to train on those", said, 1, true)
        assert.matches("Not put to use", said, 1, true)
    end)
end)
