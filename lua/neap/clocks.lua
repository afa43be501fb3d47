--- neap.clocks: the times of devices that were not believed (neap.ingest says when): counted for /metrics, and the last of each sensor kept in Redis,
--- where GET /api/sensors finds it whoever took the reading.
--
--     here.clocks = clocks.new(here.store)
--     here.clocks:note {oven = {skew_us = -1700000000000000, verdict = "clamped"}}
--
-- A device whose clock is wrong sends wrong times all day: a sensor is written down anew every NOTE_S at most.

local metric = require "neap.metric"
local task = require "neap.task"

local clocks = {}

local NOTE_S <const> = 10
local MOST <const> = 10000 -- sensors remembered here as written down

local counted = metric.counter("neap_readings_clock_total", "Sensors in batches whose device's time was not believed, by what was done.", {"verdict"})

local Clocks = {}
Clocks.__index = Clocks

function clocks.new(store) return setmetatable({store = store, written = {}, count = 0}, Clocks) end

---@param list table<string, {skew_us?: integer, verdict: string}>
function Clocks:note(list)
    local now, fresh = neap.clock(), {}
    for name, of in pairs(list) do
        counted:inc(1, {verdict = of.verdict})
        if now - (self.written[name] or 0) >= NOTE_S then
            if not self.written[name] then self.count = self.count + 1 end
            if self.count > MOST then self.written, self.count = {}, 1 end
            self.written[name], fresh[#fresh + 1] = now, name
        end
    end
    if #fresh == 0 then return end
    task.spawn(function() -- nobody waits for it, and Redis may be away: then it is noted the next time
        for _, name in ipairs(fresh) do
            if not pcall(self.store.note_clock, self.store, name, list[name], now) then self.written[name] = nil end
        end
    end)
end

return clocks
