--- One sensor, watched reading by reading: what was forecast, how odd the reading is, which alerts are raised. No Redis and no
--- clock in here; neap.scorer brings both.
--
--     local one = live.new{spec = spec, model = model, calibration = calibration}
--     local verdict, events = one:push(time_us, value)     --> {forecast =, p =, score =, ...}, {{event = "raised", detector =, text =}, ...}
--     one.stretches                                         --> {{from_us =, to_us =, why =, text =}, ...}, the last one may be open
--
-- neap.detector_watch does the watching. Where a trained model exists its forecast replaces the detector's own, and its calibration
-- gives p. The forecast for a reading is made from readings before it. A late reading (not newer than the last one) is history,
-- not news: it is stored but not scored. After a gap the model needs a whole window of readings before it speaks again.

local conformal = require "neap.conformal"
local detector_watch = require "neap.detector_watch"
local log = require("neap.log").module "score"
local task = require "neap.task"

local live = {}

local One = {}
One.__index = One

local MOST_FILLED <const> = 2 -- missing steps that a window bridges, as in neap.dataset
local KEPT <const> = 50 -- closed stretches remembered

---@class neap.live.Options
---@field spec neap.SensorSpec
---@field model? neap.Forecaster
---@field calibration? any from neap.conformal
---@field saved? string from one:save()
---@field detectors? table<string, fun(time: number, value: number): string?> those of extensions: a text while something is wrong

--- RETURN: the watch, and why a saved state could not be used.
---@param opts neap.live.Options
function live.new(opts)
    local watch, why
    if opts.saved then watch, why = detector_watch.load(opts.saved, opts.spec) end
    local self = setmetatable({
        spec = opts.spec, model = opts.model, calibration = opts.calibration, watch = watch or detector_watch.new(opts.spec),
        window = {}, stretches = {}, open = {}, more = opts.detectors or {}, scored = 0, surprises = 0, errors = {}, since_fit = 0,
    }, One)
    if opts.calibration then table.move(opts.calibration.sorted, 1, #opts.calibration.sorted, 1, self.errors) end
    return self, why
end

-- ---- the model's window ----

--- Steps of the model's grid since the last reading.
local function steps_since(self, time_us)
    if not self.last_us then return math.maxinteger end
    return math.floor((time_us - self.last_us) / 1e6 / self.model.interval + 0.5)
end

--- The window as it stood when the next reading was still unknown: missing steps hold the last value. nil when there is none.
local function window_before(self, steps)
    local w, n = self.window, self.model.window
    if #w < n or steps > MOST_FILLED + 1 then return nil end
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
    elseif steps < 1 then -- a second reading for the same step
        w[#w] = value
    else
        local before = w[#w]
        for k = 1, steps do w[#w + 1] = before + (value - before) * k / steps end
        while #w > n do table.remove(w, 1) end
    end
end

-- ---- what is remembered of alerts ----

local function remember(self, events, time_us)
    for _, e in ipairs(events) do
        if e.event == "raised" then
            local stretch = {from_us = time_us, to_us = time_us, why = e.detector, text = e.text}
            self.open[e.detector] = stretch
            self.stretches[#self.stretches + 1] = stretch
            if #self.stretches > KEPT then table.remove(self.stretches, 1) end
        else
            self.open[e.detector] = nil
        end
    end
    for _, stretch in pairs(self.open) do stretch.to_us = time_us end
end

--- What the detectors of extensions say, as events behind those of neap's own. One that fails is named and asked no more.
local function ask_more(self, events, time_us, value)
    for name, look in pairs(self.more) do
        local ok, text = pcall(look, time_us / 1e6, value)
        if not ok then
            log.error("a detector failed and is left out", {detector = name, error = tostring(text)})
            self.more[name], text = nil, nil
        end
        if text and not self.open[name] then
            events[#events + 1] = {event = "raised", detector = name, text = tostring(text), value = value}
        elseif not text and self.open[name] then
            events[#events + 1] = {event = "cleared", detector = name, text = "back to normal", value = value}
        end
    end
end

--- Errors of readings without an alert replace the oldest of the calibration; while one is raised nothing is learnt, or it would
--- learn the fault.
local function recalibrate(self, error)
    if next(self.open) or #self.errors == 0 then return end
    self.next_error = (self.next_error or 0) % #self.errors + 1
    self.errors[self.next_error] = error
    self.since_fit = self.since_fit + 1
    if self.since_fit >= math.max(100, #self.errors // 10) then
        self.since_fit = 0
        self.calibration = conformal.fit(self.errors) or self.calibration
    end
end

-- ---- readings ----

--- The next reading: the verdict of neap.detector_watch with the model's forecast and p, and the events. nil for one that comes late.
---@param time_us integer
---@param value number
---@return neap.Verdict? verdict
---@return table[]? events
function One:push(time_us, value)
    if self.last_us and time_us <= self.last_us then return nil end
    local expected
    if self.model then
        local steps = steps_since(self, time_us)
        local window = window_before(self, steps)
        if window then expected = self.model:forecast(window, time_us / 1e6) end
        extend(self, steps, value)
    end
    local verdict, events = self.watch:update(time_us / 1e6, value, expected)
    if next(self.more) then ask_more(self, events, time_us, value) end
    remember(self, events, time_us)
    if expected then
        verdict.forecast, verdict.model = expected, true
        if self.calibration then
            verdict.p = self.calibration:p(math.abs(value - expected))
            self.scored = self.scored + 1
            if verdict.p < 0.01 then self.surprises = self.surprises + 1 end
            recalibrate(self, value - expected)
        end
    end
    self.last_us, self.last = time_us, verdict
    return verdict, events
end

--- False alarms a week that this sensor may bring, where that is not its spec's number.
---@param false_alarms number
function One:allow(false_alarms) self.watch.budget = false_alarms end

--- Time passes without a reading: the events (`silence` is raised here).
---@param now_us integer
function One:tick(now_us)
    local events = self.watch:tick(now_us / 1e6)
    remember(self, events, now_us)
    return events
end

--- Readings that are known already: they are learnt from and fill the window, and raise nothing.
---@param times integer[]
---@param values number[]
---@param only_window? boolean the detectors have seen them
function One:warm(times, values, only_window)
    for i, time_us in ipairs(times) do
        if not self.last_us or time_us > self.last_us then
            if self.model then extend(self, steps_since(self, time_us), values[i]) end
            if not only_window then self.watch:update(time_us / 1e6, values[i]) end
            self.last_us = time_us
        end
        if i % 200 == 0 then task.yield() end
    end
end

--- What must be kept for a restart: the detectors and alerts. The window is filled again from the history.
---@return string bytes
function One:save() return self.watch:save() end

--- Frees the memory at once.
function One:close() self.watch:close() end

return live
