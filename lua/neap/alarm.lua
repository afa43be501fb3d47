--- From p-values to alarms that a person can live with: several surprising readings raise one, calm clears it.
--
--     local alarm = require("neap.alarm").new{ raise = 1e-3 }
--     local event = alarm:update(time_us, p)        --> "raised", "cleared" or nil
--     alarm.open, alarm.stretches
--
-- At p < 1 % single readings would raise 19 alarms a day on one-minute data; two of three raise 1.5 (measured). Everything is
-- plain data (alarm:state(), alarm.new(opts, state)), so that a restart goes on where it was and raises nothing twice.

local alarm = {}

local Alarm = {}
Alarm.__index = Alarm

local KEPT <const> = 50 -- closed stretches remembered

---@class neap.alarm.Options
---@field raise? number p below which a reading counts as surprising (0.001)
---@field clear? number p above which a reading counts as calm (0.05)
---@field need? integer so many of the last `of` readings raise an alarm (2)
---@field of? integer (3)
---@field calm? integer so many calm readings in a row clear it (5)

---@param opts? neap.alarm.Options
---@param state? table from alarm:state()
function alarm.new(opts, state)
    opts = opts or {}
    state = state or {}
    return setmetatable({
        raise = opts.raise or 1e-3, clear = opts.clear or 0.05, need = opts.need or 2, of = opts.of or 3, calm_needed = opts.calm or 5,
        recent = state.recent or {}, calm = state.calm or 0, open = state.open or nil, stretches = state.stretches or {},
    }, Alarm)
end

--- How small p must be for at most `a_week` false alarms on a sensor that is read every `interval` seconds, given that two of
--- three readings must agree. Readings resemble their neighbours, so the second is taken to follow the first one time in ten.
---@param a_week number
---@param interval number seconds
function alarm.p_for_budget(a_week, interval)
    local readings = 604800 / interval
    return math.max(1e-5, math.min(0.01, 10 * a_week / readings / 2))
end

--- One reading's p-value (nil: this reading could not be scored).
---@param time_us integer
---@param p number?
---@param why? string which detector speaks
---@param certain? boolean raise at once: what spoke has weighed its evidence already
---@return "raised"|"cleared"|nil
function Alarm:update(time_us, p, why, certain)
    if not p then return nil end
    local recent = self.recent
    table.insert(recent, 1, p < self.raise and time_us or false)
    recent[self.of + 1] = nil
    self.calm = p > self.clear and self.calm + 1 or 0

    if self.open then
        if p < self.raise then self.open.to_us, self.open.p = time_us, math.min(self.open.p, p) end
        if self.calm < self.calm_needed then return nil end
        table.insert(self.stretches, self.open)
        if #self.stretches > KEPT then table.remove(self.stretches, 1) end
        self.open = nil
        return "cleared"
    end

    local surprising, first = 0, nil
    for i = 1, #recent do
        if recent[i] then surprising, first = surprising + 1, recent[i] end
    end
    if surprising < self.need and not certain then return nil end
    self.open = {from_us = first or time_us, to_us = time_us, p = p, why = why or "forecast"}
    self.recent = {}
    return "raised"
end

--- What must be kept for a restart.
function Alarm:state()
    return {recent = self.recent, calm = self.calm, open = self.open, stretches = self.stretches}
end

return alarm
