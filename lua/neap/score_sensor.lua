--- What a trained model says of readings: those of a sensor in Redis, or of a CSV file.
--
--     local judge = score_sensor.judge("checkpoints/temp.pt", specs)      -- update(time_s, value) -> verdict, for neap.score_csv
--     score_sensor.run(here, "temperature", {checkpoint = nil, last = 5000, out = "scored.csv"})

local conformal = require "neap.conformal"
local forecaster = require "neap.forecaster"
local live = require "neap.live"
local models = require "neap.models"
local plot = require "neap.plot"
local term = require "neap.term"
local when = require "neap.when"

local score_sensor = {}

local Judge = {}
Judge.__index = Judge

--- The next reading, in the shape that neap.detector's update has.
function Judge:update(time, value)
    local one = self.one
    if not time or not value then return (one.watch:update(time, value)) end
    local verdict = one:push(math.tointeger((time * 1e6 + 0.5) // 1), value)
    return verdict or {score = 0.0, flagged = false} -- a late reading: stored, not scored
end

function Judge:close() self.one:close() end

--- A judge with the model of a checkpoint.
---@param path string
---@param specs neap.Specs
function score_sensor.judge(path, specs)
    local model, card = forecaster.load(path)
    return setmetatable({one = live.new {spec = specs:get(card.sensor), model = model, calibration = conformal.fit(card.calibration)}}, Judge)
end

local function shown(x) return x and ("%.10g"):format(x) or "" end

--- Score a sensor's stored history in order, show it and what was flagged.
---@param here neap.Session
---@param sensor string
---@param opts {checkpoint?: string, last?: integer, out?: string}
function score_sensor.run(here, sensor, opts)
    local source = here.store:has(sensor, "real") and "real" or "synthetic"
    local times, values = here.store:history(sensor, {last = opts.last, source = source})
    if #times == 0 then error(("sensor '%s' has no readings; `neap export` lists what there is"):format(sensor), 0) end
    local model, card
    if opts.checkpoint then model, card = forecaster.load(opts.checkpoint) else model, card = models.live(here, sensor) end
    local spec = here.specs:get(sensor)
    local one = live.new {spec = spec, model = model, calibration = card and conformal.fit(card.calibration)}
    local out = opts.out and assert(io.open(opts.out, "w"))
    if out then out:write "timestamp,value,forecast,p,anomaly_score\n" end

    local x, forecast = {}, {}
    for i = 1, #times do
        one:tick(times[i])
        local v = one:push(times[i], values[i])
        x[i], forecast[i] = times[i] / 1e6, v.forecast or 0 / 0
        if out then
            out:write(when.iso(times[i]), ",", shown(values[i]), ",", shown(v.forecast), ",", v.p and ("%.4g"):format(v.p) or "",
                (",%.6f\n"):format(v.score))
        end
    end
    if out then out:close() end

    local flags = {}
    for i, s in ipairs(one.stretches) do flags[i] = {s.from_us / 1e6, s.to_us / 1e6} end
    print(plot.line {x = x, y = values, forecast = forecast, flags = flags, name = sensor, unit = spec.unit ~= "" and spec.unit or nil,
        width = math.min(100, term.width())})
    print(("%d %sreadings of '%s' scored with %s"):format(#times, source == "synthetic" and "SYNTHETIC " or "", sensor,
        model and "the model trained at " .. card.trained_at or "the online detector alone: it has no model yet"))
    if one.scored > 0 then
        print(("p below 1 %% in %.2f %% of them; 1 %% is what an honest model gives when all is well"):format(one.surprises / one.scored * 100))
    end
    print(#one.stretches == 0 and "nothing was flagged" or ("%d flagged:"):format(#one.stretches))
    for _, s in ipairs(one.stretches) do
        print(("  %s to %s  %s: %s"):format(when.short(s.from_us), when.short(s.to_us), s.why, s.text or ""))
    end
    one:close()
end

return score_sensor
