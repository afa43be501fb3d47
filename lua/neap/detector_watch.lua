--- Everything that watches one sensor: six named detectors, each blind where another sees.
--
--     local watch = require("neap.detector_watch").new(spec)          -- spec as sensors.lua gives it
--     local verdict, events = watch:update(time_s, value)             -- for every reading
--     local events = watch:tick(now_s)                                -- now and then: silence has no reading to hang on
--     for _, e in ipairs(events) do print(e.event, e.detector, e.text) end
--
--   range     outside what the spec calls sensible                 (at once)
--   rate      faster than the spec's max_rate                      (at once)
--   flatline  has not moved for far longer than ever before: a frozen sensor is the easiest of all to forecast, so only this sees it
--   silence   nothing arrives
--   forecast  far from the forecast, by its p-value and the sensor's budget of false alarms
--   shift     a level, a daily course or a noise unlike the past: what a forecaster forgives, because it follows
--
-- The state is one plain table and the learned detector's string: watch:save() and detector_watch.load go on where they were.

local alert = require "neap.detector_alert"
local detector = require "neap.detector"
local json = require "neap.json"

local watch = {}

watch.names = {"range", "rate", "flatline", "silence", "forecast", "shift"}

--- Raise and clear, for each detector (see neap.detector_alert), and the few constants of the detectors themselves.
watch.policies = {
    range = {raise = 1, of = 1, lasting = 0, clear = 3, cooldown = 0},
    rate = {raise = 1, of = 1, lasting = 0, clear = 3, cooldown = 0},
    flatline = {raise = 1, of = 1, lasting = 0, clear = 2, cooldown = 0},
    silence = {raise = 1, of = 1, lasting = 0, clear = 2, cooldown = 0},
    forecast = {raise = 1, of = 1, lasting = 0, clear = 5, cooldown = 0},
    shift = {raise = 1, of = 1, lasting = 0, clear = 10, cooldown = 0},
}
watch.constants = {
    warm_up = 300,          -- readings before forecast, shift and learnt limits speak
    flatline_rows = 30,     -- learnt flatline: at least so many equal readings ...
    flatline_times = 3,     -- ... and so many times the longest run seen before
    silence_intervals = 10, -- learnt silence: so many intervals, or ...
    silence_times = 2,      -- ... so many times the longest step, whichever is longer
    forget_step = 0.999,    -- how fast a long step is forgotten
    calm_p = 0.05,          -- a reading above this p is calm
    -- The budget's shares; together about 0.5, the rest is for what runs and a fitted tail get wrong.
    odd_share = 0.35,       -- all statistics together, times the usual length of a run: a run of odd readings is one alert
    single_share = 0.05,    -- forecast error alone, for a single wild reading
    shift_share = 0.1,      -- these together, for what grows slowly, times the usual length of their runs:
    shift_parts = {"error_12", "level_48", "day_48", "rough_48"},
    beyond = 0.6,           -- of a limit rarer than one in all readings so far
    run_p = 0.02,           -- how long runs are is learnt from readings below this p ...
    run_most = 10,          -- ... longer ones are incidents and count as so many readings ...
    run_prior = 5,         -- ... and to begin with ten runs of one
    shift_days = 2,         -- shift speaks after so many days (at most 3,000 readings): unlike what, before?
}

local Watch = {}
Watch.__index = Watch

---@param spec neap.SensorSpec
---@param constants? table for detector.new
function watch.new(spec, constants)
    local alerts = {}
    for _, name in ipairs(watch.names) do alerts[name] = alert.new() end
    return setmetatable({
        spec = spec, learned = detector.new(constants), budget = spec.false_alarms,
        state = {alerts = alerts, equal_rows = 0, longest_equal = 0, longest_step = 0, seen = 0,
            odd_runs = {rows = 0, runs = 0, now = 0, calm = 0}, slow_runs = {rows = 0, runs = 0, now = 0, calm = 0}},
    }, Watch)
end

local function unit(spec) return spec.unit ~= "" and " " .. spec.unit or "" end

local function span(seconds)
    if seconds < 120 then return ("%.3g s"):format(seconds) end
    if seconds < 7200 then return ("%.3g min"):format(seconds / 60) end
    if seconds < 172800 then return ("%.3g h"):format(seconds / 3600) end
    return ("%.3g days"):format(seconds / 86400)
end

local function odds(p)
    return ("1 in %s"):format(("%.0f"):format(1 / p):reverse():gsub("(%d%d%d)(%d)", "%1,%2"):gsub("(%d%d%d)(%d)", "%1,%2"):reverse())
end

-- ---- the detectors: each returns "bad", "calm" or "neither", and a text for people when bad ----

local detect = {}

function detect.range(self, now)
    local spec, v = self.spec, now.value
    if spec.minimum and v < spec.minimum then
        return "bad", ("%.6g%s is below the minimum of %.6g%s"):format(v, unit(spec), spec.minimum, unit(spec))
    elseif spec.maximum and v > spec.maximum then
        return "bad", ("%.6g%s is above the maximum of %.6g%s"):format(v, unit(spec), spec.maximum, unit(spec))
    end
    return "calm"
end

function detect.rate(self, now)
    local spec, dt = self.spec, now.dt
    if not spec.max_rate or not dt or dt <= 0 then return "neither" end
    local change = now.value - self.state.value
    if math.abs(change) <= spec.max_rate * dt then return "calm" end
    return "bad", ("%s by %.4g%s in %s; at most %.4g%s a second is believable"):format(change > 0 and "rose" or "fell",
        math.abs(change), unit(spec), span(dt), spec.max_rate, unit(spec))
end

function detect.flatline(self, now)
    local spec, state, c = self.spec, self.state, watch.constants
    if spec.flatline == false then return "neither" end
    if now.value ~= state.value then return "calm" end
    local lasted = now.time and state.equal_since and now.time - state.equal_since
    local rows = state.equal_rows + 1
    if spec.flatline then
        if not lasted or lasted < spec.flatline then return "neither" end
        return "bad", ("has not moved from %.6g%s for %s"):format(now.value, unit(spec), span(lasted))
    end
    if state.seen < c.warm_up or rows < math.max(c.flatline_rows, c.flatline_times * state.longest_equal) then return "neither" end
    return "bad", ("has not moved from %.6g%s for %d readings; never before more than %d"):format(now.value, unit(spec), rows,
        math.max(1, state.longest_equal))
end

-- Seconds of silence that are too long, nil while that is not known.
local function silence_limit(self)
    local spec, state, c = self.spec, self.state, watch.constants
    if spec.silence == false then return nil end
    if spec.silence then return spec.silence end
    local _, interval = self.learned:learned()
    interval = spec.interval or interval
    if not interval or state.seen < 10 then return nil end
    return math.max(c.silence_intervals * interval, c.silence_times * state.longest_step)
end

function detect.silence(self, now)
    local limit = silence_limit(self)
    if not limit or not now.dt then return "neither" end
    return now.dt <= limit and "calm" or "neither" -- the reading that ends a silence is no finding: tick() raised it
end

-- Seconds between readings, for the budget.
local function interval_of(self)
    local _, interval = self.learned:learned()
    return self.spec.interval or interval or 60
end

-- The budget's probability for one reading, times a share. One that is rarer than the past is long rests on a tail fitted past its data, whose
-- error is one-sided: half of it is asked for there.
local function limit_of(self, share)
    local limit = math.min(0.01, alert.limit_of(self.budget, interval_of(self)) * share)
    return limit * math.max(watch.constants.beyond, math.min(1, limit * self.state.seen))
end

-- Independent noise has runs of one odd reading, a slow sensor runs of several, so their length is measured. A run ends as an alert does.
local function learn_run(self, run, p, clear)
    local c = watch.constants
    if self.state.seen < c.warm_up then return end
    if p <= c.run_p then
        if run.now == 0 then run.runs = run.runs + 1 end
        run.now, run.calm = run.now + 1, 0
        if run.now <= c.run_most then run.rows = run.rows + 1 end
    elseif run.now > 0 then
        run.calm = p > c.calm_p and run.calm + 1 or 0
        if run.calm >= clear then run.now = 0 end
    end
end

-- Readings in a run, as a mean.
local function length(run)
    local prior = watch.constants.run_prior
    return (run.rows + prior) / (run.runs + prior)
end

-- The statistic of slow changes that stands out most.
local function slowest(now)
    local most, worst = nil, 0
    for _, name in ipairs(watch.constants.shift_parts) do
        if now.parts[name] > worst then most, worst = name, now.parts[name] end
    end
    return most, 10.0 ^ -worst
end

-- All statistics together are odd, and the one that stands out most belongs to this detector (or its alert is raised already, and the
-- other's is not: one trouble, one alert).
local function is_odd(self, now, name, other)
    if now.p > limit_of(self, watch.constants.odd_share * length(self.state.odd_runs)) then return false end
    local alerts = self.state.alerts
    if alerts[name].status == "raised" then return true end
    return alerts[other].status ~= "raised" and detector.named[now.why] == name
end

local function oddness(now) return ("%s; %s readings is as odd"):format(detector.reasons[now.why], odds(now.p)) end

function detect.forecast(self, now)
    local c, spec = watch.constants, self.spec
    if self.state.seen < c.warm_up or not now.forecast then return "neither" end
    local p = 10.0 ^ -now.parts.error_1
    if p <= limit_of(self, c.single_share) and not now.gap then
        local band = now.lower and now.upper and (" (%.5g to %.5g)"):format(now.lower, now.upper) or ""
        return "bad", ("expected %.5g%s, got %.5g%s; %s is that far off"):format(now.forecast, band, now.value, unit(spec), odds(p)), p
    end
    if is_odd(self, now, "forecast", "shift") then return "bad", oddness(now), now.p end
    return p > c.calm_p and now.p > c.calm_p and "calm" or "neither"
end

function detect.shift(self, now)
    local c = watch.constants
    if self.state.seen < math.max(c.warm_up, math.min(3000, c.shift_days * 86400 / interval_of(self))) then return "neither" end
    local most, p = slowest(now)
    if most and p <= limit_of(self, c.shift_share / #c.shift_parts * length(self.state.slow_runs)) then
        return "bad", ("%s; %s readings is as far off"):format(detector.reasons[most], odds(p)), p
    end
    if is_odd(self, now, "shift", "forecast") then return "bad", oddness(now), now.p end
    return p > c.calm_p and now.p > c.calm_p and "calm" or "neither"
end

-- ---- putting them together ----

local function step(self, events, name, time, finding, text, value, p)
    local state = self.state.alerts[name]
    local event = alert.step(state, watch.policies[name], time, finding, text, value)
    if event then
        events[#events + 1] = {
            event = event, detector = name, time = time, value = value, p = p,
            text = event == "raised" and text or ("back to normal after %s"):format(span(time - state.raised)),
        }
    end
end

-- What the next reading will be compared with.
local function remember(self, now)
    local state = self.state
    if now.value == state.value then
        state.equal_rows = state.equal_rows + 1
    else
        if state.alerts.flatline.status == "ok" then state.longest_equal = math.max(state.longest_equal, state.equal_rows) end
        state.equal_rows, state.equal_since = 1, now.time
    end
    if now.dt and now.dt > 0 then state.longest_step = math.max(now.dt, state.longest_step * watch.constants.forget_step) end
    state.value, state.seen = now.value, state.seen + 1
    if now.time then state.time = math.max(now.time, state.time or now.time) end
end

--- The next reading. Returns the learned detector's verdict (see neap.detector), with `open`, the names of the detectors whose
--- alert is raised, and the events of this reading: {event = "raised"|"cleared", detector, text, time, value, p}.
---@param time? number seconds
---@param value? number nil or NaN: a missing reading
---@param forecast? number a trained model's forecast of this reading
---@return neap.Verdict verdict
---@return table[] events
function Watch:update(time, value, forecast)
    local state, events = self.state, {}
    local verdict = self.learned:update(time, value, forecast)
    if verdict.absurd then
        step(self, events, "forecast", time or state.time or 0, "bad", ("%.6g%s is no measurement"):format(value, unit(self.spec)), value, verdict.p)
    elseif verdict.p then
        local clock = time or (state.time or 0) + interval_of(self)
        local why, parts = self.learned:reason()
        local now = {
            time = clock, value = value, dt = state.time and clock - state.time, why = why, parts = parts, p = verdict.p, gap = verdict.gap,
            forecast = verdict.forecast, lower = verdict.lower, upper = verdict.upper,
        }
        for _, name in ipairs(watch.names) do
            local finding, text, p = detect[name](self, now)
            step(self, events, name, clock, finding, text, value, p)
        end
        local _, slow_p = slowest(now)
        learn_run(self, state.odd_runs, now.p, watch.policies.forecast.clear)
        learn_run(self, state.slow_runs, slow_p, watch.policies.shift.clear)
        remember(self, now)
    end
    verdict.open = self:open()
    return verdict, events
end

--- Time passes without a reading: raises `silence` when it is too long. Call it every few seconds; returns events.
---@param now number seconds
---@return table[] events
function Watch:tick(now)
    local state, events, limit = self.state, {}, silence_limit(self)
    if limit and state.time and now - state.time > limit then
        step(self, events, "silence", now, "bad", ("no reading for %s; one is expected every %s"):format(span(now - state.time),
            span(interval_of(self))))
    end
    return events
end

--- Names of the detectors whose alert is raised now, in fixed order.
---@return string[]
function Watch:open()
    local open = {}
    for _, name in ipairs(watch.names) do
        if self.state.alerts[name].status == "raised" then open[#open + 1] = name end
    end
    return open
end

local FORMAT <const> = "<s4s4"

--- The complete state as a string of bytes.
function Watch:save() return FORMAT:pack(json.encode(self.state), self.learned:save()) end

--- A watch from a saved state; nil and why when the state is damaged or of another version.
---@param state string
---@param spec neap.SensorSpec
---@param constants? table
function watch.load(state, spec, constants)
    local ok, plain, inner = pcall(FORMAT.unpack, FORMAT, state)
    if not ok then return nil, "this is not the state of a watch" end
    local learned, why = detector.load(inner, constants)
    if not learned then return nil, why end
    local decoded
    ok, decoded = pcall(json.decode, plain)
    if not ok or type(decoded) ~= "table" or type(decoded.alerts) ~= "table" then return nil, "the alerts' state is damaged" end
    local self = watch.new(spec, constants)
    self.learned:close()
    self.learned, self.state = learned, decoded
    return self
end

--- Frees the memory at once.
function Watch:close() self.learned:close() end
Watch.__close = Watch.close

return watch
