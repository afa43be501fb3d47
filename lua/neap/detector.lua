--- The learned detector: one sensor's readings in, for each one a forecast made before it, a probability and a verdict.
--
--     local detector = require "neap.detector"
--     local d = detector.new()
--     local verdict = d:update(time_s, value)
--     verdict.score, verdict.flagged, verdict.p     --> 0.71, true, 0.0003
--     local state = d:save()                        -- a string; detector.load(state) goes on where it was, bit for bit
--
-- How it works. It is strictly online: a verdict rests on this reading and earlier ones, never on later ones, and one set of
-- constants serves every sensor. In C (host/detect.h): five forecasters (a small network and a linear model that learn as
-- they go, "as now", "as lately", "as at this hour on the days before") are blended by their recent errors; ten statistics
-- measure how odd the reading is; each is turned into a surprise, -log10 of how often the sensor was that odd before; their mean
-- is `s`. Here: which statistics count, and the alarm stage, which turns `s` into flags.
--
-- The alarm stage. A flag is news, not a state: after one the detector holds its peace for a while that grows with the
-- sensor's age, unless things get clearly worse; and the longer the past, the rarer a reading must be. Without the hold
-- the same 50 incidents came with 330 false alarms instead of 89. Raising, clearing and budgets are neap.detector_alert's.
--
-- Measured (spec/results, spec/nab.lua): on 29 labelled series of the Numenta Anomaly Benchmark. What was tried and did not help:
-- two-of-three confirmation before the flag, smoothing s, its distance from a running mean, steps between short and long means.
-- What helped most: the hold, the same hour on the days before, and statistics in the series' own unit (not in spreads).

local core = require "neap.detector.core"

local detector = {}

--- Every number there is to turn, for every sensor the same. They were chosen on plateaus: doubling or halving one changes little.
detector.constants = {
    seed = 1,

    -- the forecasters, 1 and 12 rows ahead
    learn_rate_1 = 1e-3, learn_rate_12 = 1e-4, -- of the networks; overlapping means repeat themselves, so k = 12 must learn slowly
    decay = 1e-4,                              -- weight decay
    steps = 1, early_steps = 6, early_rows = 300, -- Adam steps a row; more in the first rows
    replay = 2800,                             -- rows that training samples are drawn from
    forget = 0.999,                            -- the linear model's memory: about 1,000 rows
    sharp_1 = 15, sharp_12 = 2, discount = 0.02, -- how strongly, and over how many rows (1/discount), the better forecaster is preferred
    over = 0.05,                               -- a forecast stays within the past range and this part of it

    -- the statistics
    spread_floor = 0.02, -- a sensor's spread is at least 2% of its range
    slack = 0.05,        -- a forecast error below 5% of the spread is none: on a smooth series the smallest would be news
    range_margin = 0.05, -- out of the past range by more than 5% of it
    gap = 3.5,           -- a step longer than 3.5 intervals is a gap: nothing is forecast or learnt across it
    band = 0.02,         -- 2% of the readings lie outside lower..upper
    power = 1, cap = 5,  -- surprises are averaged; none counts above 5
    mix = 0.3,           -- s = 70% the average, 30% how rare such an average was: evens out the sensors
    weight = {
        error_1 = 1, error_12 = 1, -- forecast error, 1 and 12 rows ahead
        down_1 = 1,                -- ... downwards: things that fail mostly fall
        level_1 = 0.67, level_12 = 0.67, level_48 = 0.67, -- distance of the mean of the last 1, 12, 48 rows from the
                                   -- median; the three overlap, so they share two votes
        range = 1,                 -- out of the past range
        day_1 = 1, day_48 = 1,     -- distance from the same hour on the days before: slow drift, missing peaks
        rough_48 = 1,              -- noisier or smoother than usual
    },

    -- the alarm stage
    limit = 1.75,         -- s at which a reading is flagged after 4,000 rows ...
    limit_growth = 0.3,    -- ... and this much more for every tenfold of rows
    warm_up = 100,         -- rows without a flag
    hold_rows = 5, hold_age = 0.03, -- rows of silence after a flag: 5 and 3% of the age
    usual_rate = 0.005, usual = 1.2, -- where the mean of s over some 200 rows is above 1.2, what is above is usual and no news
    hold_break = 1.5,      -- but s this much above the flagged one is news again
}

--- What a statistic means, for people.
detector.reasons = {
    error_1 = "not what was forecast one reading before",
    error_12 = "not what was forecast twelve readings before",
    down_1 = "below what was forecast",
    level_1 = "an unusual value",
    level_12 = "an unusual level of the last 12 readings",
    level_48 = "an unusual level of the last 48 readings",
    range = "outside everything seen before",
    day_1 = "unlike this hour on the days before",
    day_48 = "unlike these hours on the days before",
    rough_48 = "noisier or smoother than usual",
}

--- Which of the six named detectors (neap.detector_watch) a statistic belongs to.
detector.named = {
    error_1 = "forecast", down_1 = "forecast", level_1 = "forecast", range = "forecast", day_1 = "forecast",
    error_12 = "shift", level_12 = "shift", level_48 = "shift", day_48 = "shift", rough_48 = "shift",
}

---@class neap.Verdict
---@field time? number seconds
---@field value? number
---@field forecast? number made before the reading
---@field lower? number
---@field upper? number the band: 98 of 100 readings lie in it
---@field p? number how often the sensor was at least this odd before (false-alarm probability); nil for a missing value
---@field score number 0..1; 0.5 and above means flagged
---@field flagged boolean
---@field gap boolean time was lost before this reading
---@field detector? "forecast"|"shift" for a flagged reading: which of the named detectors `why` belongs to
---@field why? string for a flagged reading: the statistic that stood out most, see detector.reasons

---@class neap.Detector
local Detector = {}
Detector.__index = Detector

local log, max, abs = math.log, math.max, math.abs
local MOST <const> = 1e30 -- what is beyond is no measurement

local function with_defaults(constants)
    if not constants then return detector.constants end
    local all, weight = {}, {}
    for k, v in pairs(detector.constants) do all[k] = v end
    for k, v in pairs(constants) do
        if all[k] == nil then error(("neap.detector: there is no constant '%s'"):format(k), 3) end
        if k ~= "weight" then all[k] = v end
    end
    for k, v in pairs(detector.constants.weight) do weight[k] = v end
    for k, v in pairs(constants.weight or {}) do
        if weight[k] == nil then error(("neap.detector: there is no statistic '%s'"):format(k), 3) end
        weight[k] = v
    end
    all.weight = weight
    return all
end

--- A new detector. `constants` may change some of detector.constants, for experiments.
---@param constants? table
---@return neap.Detector
function detector.new(constants)
    local c = with_defaults(constants)
    return setmetatable({
        constants = c, core = core.new(c),
        rows = 0,       -- readings scored
        quiet_until = 0, -- hold: no flag before this row ...
        loud = 0,       -- ... unless s rises clearly above this
        usual = 0.0,    -- recent mean of s
    }, Detector)
end

-- The alarm stage: s of row n becomes a score, where 0.5 is the limit.
local function alarm(self, s)
    local c, n = self.constants, self.rows
    local usual = self.usual
    self.usual = usual + c.usual_rate * (s - usual)
    s = s - c.limit_growth * (log(n, 10) - log(4000, 10)) - max(0, usual - c.usual)
    local score = s > 0 and 1 / (1 + (c.limit / s) ^ 4) or 0.0 -- rises with s; the 4th power only spreads it for the eye
    if score < 0.5 then return score, false end
    if n <= c.warm_up or n < self.quiet_until and s <= self.loud * c.hold_break then return score / 2, false end
    self.quiet_until = n + c.hold_rows + c.hold_age * n
    self.loud = s
    return score, true
end

--- A finite number that no sensor measures: flagged for what it is, and nothing is learnt from it, or nothing else would look large again.
function Detector:absurd(time, value)
    local _, _, expected = self.core:update(time, nil)
    return {time = time, value = value, forecast = expected, p = 1 / (self.rows + 1), score = 1.0, flagged = true, gap = false, why = "range",
        detector = "forecast", absurd = true}
end

--- The next reading. time in seconds (nil: unknown), value (nil or NaN: missing); forecast: what another model, a trained
--- network for example, said of this value before it came (nil: the detector's own forecast is used).
---@param time? number
---@param value? number
---@param forecast? number
---@return neap.Verdict
function Detector:update(time, value, forecast)
    local s, p, expected, lower, upper, gap
    if value and abs(value) > MOST and value - value == 0 then return self:absurd(time, value) end
    s, p, expected, lower, upper, gap, self.ahead, self.mean = self.core:update(time, value, forecast)
    local score, flagged, why = 0.0, false, nil
    if s then
        self.rows = self.rows + 1
        score, flagged = alarm(self, s)
        if flagged then why = self:reason() end
    end
    return {
        time = time, value = value, forecast = expected, lower = lower, upper = upper, p = p, score = score, flagged = flagged,
        gap = gap, why = why, detector = why and detector.named[why] or nil,
    }
end

--- The statistic that stands out most in the newest reading.
---@return string name, table<string, number> surprises
function Detector:reason()
    local parts = self.core:parts()
    local name
    for k, surprise in pairs(parts) do
        if self.constants.weight[k] > 0 and (not name or surprise > parts[name] or surprise == parts[name] and k < name) then name = k end
    end
    return name, parts
end

--- The forecast of the next reading, nil before the first.
function Detector:next() return (self.core:next()) end

--- For measurements: the forecast of the mean of the last 12 readings, made 12 readings ago (nil at first), and that mean.
function Detector:ahead_12() return self.ahead, self.mean end

--- How many readings were scored, and the sensor's interval in seconds (nil until it is learnt).
function Detector:learned() return self.core:learned() end

local HEAD <const> = "<c8 j d d d s4"
local MAGIC <const> = "neapLua2"

--- The complete state as a string of bytes (up to 260 KB).
function Detector:save()
    return HEAD:pack(MAGIC, self.rows, self.quiet_until, self.loud, self.usual, self.core:save())
end

--- A detector from a saved state. A damaged state, or one of another version, returns nil and why: begin with detector.new().
---@param state string
---@param constants? table the same changes that detector.new was given
---@return neap.Detector?
---@return string? why
function detector.load(state, constants)
    if #state < 8 or state:sub(1, 8) ~= MAGIC then return nil, "this is not a detector's state, or one of another version" end
    local self = detector.new(constants)
    local ok, why = pcall(function()
        local _, rows, quiet_until, loud, usual, inner = HEAD:unpack(state)
        self.core:load(inner)
        self.rows, self.quiet_until, self.loud, self.usual = rows, quiet_until, loud, usual
    end)
    if not ok then return nil, tostring(why) end
    return self
end

--- Frees the memory at once rather than at the next garbage collection.
function Detector:close() self.core:close() end
Detector.__close = Detector.close

--- Bytes of memory of one detector.
detector.size = core.size

return detector
