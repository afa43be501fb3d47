--- One sensor, watched reading by reading: forecast, p-value, alarm. No Redis and no clock in here; neap.scorer brings both.
--
--     local watch = live.new{spec = spec, model = model, calibration = calibration, state = saved}
--     local verdict = watch:push(time_us, value)      --> {forecast =, p =, event = "raised"|"cleared"|nil, why =}
--
-- Three voices raise an alarm: a broken rule of the spec and the trained model's p-value (two of three readings), and the online
-- detector, which weighs its evidence itself. The forecast for a reading is made from readings before it. A late reading (not
-- newer than the last one) is history, not news: it is stored but not scored. After a gap the model needs a whole window first.

local alarm = require "neap.alarm"
local conformal = require "neap.conformal"
local task = require "neap.task"

local live = {}

local Watch = {}
Watch.__index = Watch

local CERTAIN <const> = 1e-9 -- p of a reading that breaks a rule of the spec
local MOST_FILLED <const> = 2 -- as in neap.dataset

---@class neap.live.Options
---@field spec neap.SensorSpec
---@field model? any from neap.forecaster
---@field calibration? any from neap.conformal
---@field detector? any from neap.detector
---@field state? table from watch:state()

---@param opts neap.live.Options
function live.new(opts)
    local state = opts.state or {}
    local interval = opts.model and opts.model.interval or opts.spec.interval or 60
    local self = setmetatable({
        spec = opts.spec, model = opts.model, calibration = opts.calibration, detector = opts.detector, interval = interval,
        window = {}, last_us = nil, last_value = nil, same_since_us = nil,
        alarm = alarm.new({raise = alarm.p_for_budget(opts.spec.false_alarms * 0.6, interval)}, state.alarm),
        scored = state.scored or 0, surprises = state.surprises or 0, errors = {}, since_fit = 0,
    }, Watch)
    if opts.calibration then table.move(opts.calibration.sorted, 1, #opts.calibration.sorted, 1, self.errors) end
    return self
end

--- The window as it stood when the next reading was still unknown: missing steps hold the last value. nil when there is none.
local function window_before(self, steps)
    local w, n = self.window, self.model.window
    if #w < n then return nil end
    if steps <= 1 then return w end
    local moved = table.move(w, steps, n, 1, {})
    for i = #moved + 1, n do moved[i] = w[n] end
    return moved
end

--- Put a reading on the grid, with a line over at most two missing steps; a longer gap empties the window.
local function extend(self, steps, value)
    local w, n = self.window, self.model.window
    if steps > MOST_FILLED + 1 then
        self.window = {value}
        return
    end
    if steps < 1 then -- a second reading for the same step
        w[#w] = value
        return
    end
    local before = w[#w]
    for k = 1, steps do w[#w + 1] = before and before + (value - before) * k / steps or value end
    while #w > n do table.remove(w, 1) end
end

--- Steps of the grid since the last reading.
local function steps_since(self, time_us)
    if not self.last_us then return math.maxinteger end
    return math.floor((time_us - self.last_us) / 1e6 / self.interval + 0.5)
end

--- Readings that are known already: they fill the window and raise nothing.
---@param times integer[]
---@param values number[]
function Watch:warm(times, values)
    for i, time_us in ipairs(times) do
        if not self.last_us or time_us > self.last_us then
            if self.model then extend(self, steps_since(self, time_us), values[i]) end
            if self.detector then self.detector:update(time_us / 1e6, values[i]) end
            if i % 200 == 0 then task.yield() end
            if values[i] ~= self.last_value then self.same_since_us = time_us end
            self.last_us, self.last_value = time_us, values[i]
        end
    end
end

--- The spec's own rules: which one a reading breaks, if any.
local function broken_rule(self, time_us, value)
    local spec = self.spec
    if spec.minimum and value < spec.minimum or spec.maximum and value > spec.maximum then return "range" end
    if spec.max_rate and self.last_us then
        local seconds = (time_us - self.last_us) / 1e6
        if math.abs(value - self.last_value) / seconds > spec.max_rate then return "rate" end
    end
    if value ~= self.last_value then self.same_since_us = time_us end
    if spec.flatline and self.same_since_us and (time_us - self.same_since_us) / 1e6 >= spec.flatline then return "flatline" end
end

--- Errors of calm readings replace the oldest of the calibration; while an alarm is open nothing is learnt, or it would learn
--- the fault.
local function recalibrate(self, error)
    if self.alarm.open or #self.errors == 0 then return end
    self.next_error = (self.next_error or 0) % #self.errors + 1
    self.errors[self.next_error] = error
    self.since_fit = self.since_fit + 1
    if self.since_fit >= math.max(100, #self.errors // 10) then
        self.since_fit = 0
        self.calibration = conformal.fit(self.errors) or self.calibration
    end
end

---@class neap.live.Verdict
---@field time_us integer
---@field value number
---@field forecast? number
---@field p? number
---@field score? number the online detector's, 0..1
---@field why? string the rule, or the detector's statistic, that speaks
---@field event? "raised"|"cleared"

--- The next reading. nil for one that comes late.
---@param time_us integer
---@param value number
---@return neap.live.Verdict?
function Watch:push(time_us, value)
    if self.last_us and time_us <= self.last_us then return nil end
    local steps = steps_since(self, time_us)
    local verdict = {time_us = time_us, value = value}

    if self.model then
        local window = steps <= MOST_FILLED + 1 and window_before(self, steps)
        if window then
            verdict.forecast = self.model:forecast(window, time_us / 1e6)
            if self.calibration then verdict.p = self.calibration:p(math.abs(value - verdict.forecast)) end
        end
        extend(self, steps, value)
    end
    local flagged
    if self.detector then
        local row = self.detector:update(time_us / 1e6, value, verdict.forecast)
        verdict.score, verdict.forecast, verdict.p = row.score, verdict.forecast or row.forecast, verdict.p or row.p
        flagged, verdict.why = row.flagged, row.why
    end

    local rule = broken_rule(self, time_us, value)
    verdict.why = rule or verdict.why or (verdict.p and verdict.p < self.alarm.raise) and "forecast" or nil
    local p = rule and CERTAIN or verdict.p
    verdict.event = self.alarm:update(time_us, p, verdict.why, flagged)
    if verdict.p then
        self.scored = self.scored + 1
        if verdict.p < 0.01 then self.surprises = self.surprises + 1 end
        if verdict.forecast and self.calibration then recalibrate(self, value - verdict.forecast) end
    end
    self.last_us, self.last_value, self.last = time_us, value, verdict
    return verdict
end

--- What must be kept for a restart (plain data); the window is filled again from the history.
function Watch:state() return {alarm = self.alarm:state(), scored = self.scored, surprises = self.surprises} end

return live
