-- How many false alarms a week a fleet of clean, made-up sensors brings, beside its budget. No incident is in these series: every alarm is false.
-- Usage: build/neap spec/fleet_alarms.lua SENSORS [MINUTES [WEEKS [WARM [SEED]]]]    a reading every MINUTES (10), WEEKS (6) measured after
-- WARM (2) weeks of learning; about 0.3 s a sensor. With false_alarms = 1 each and 7 for the fleet, as a new installation has.
--
-- Five kinds in turn: a room (daily cycle, weather, noise), independent noise, a slow wanderer, heavy tails (Student's t, 4 degrees of freedom),
-- and noise that depends on the time of day.

local helper = require "spec.helper"
local sensors = require "neap.sensors"
local watch = require "neap.detector_watch"

local fleet = {}

local WEEK <const>, START <const> = 604800, 1700000000

-- Each: (normal, phase of the day, slow AR(1)) -> value.
local kinds = {
    {"room", function(g, phase, slow) return 20 + 1.5 * math.sin(phase) + slow + 0.1 * g() end},
    {"independent", function(g) return 40 + 3 * g() end},
    {"wanderer", function(_, _, slow) return 20 + 10 * slow end},
    {"heavy tails", function(g)
        local sum = 0
        for _ = 1, 4 do sum = sum + g() ^ 2 end
        return 5 + g() / math.sqrt(sum / 4)
    end},
    {"daily noise", function(g, phase) return 100 + 20 * math.sin(phase) + (1 + 0.8 * math.sin(phase)) * g() end},
}

--- ARGS: {sensors, minutes, weeks, warm, seed}. RETURN: false alarms in all, by kind, and the fleet's budget a week.
function fleet.run(opts)
    local specs = sensors.none()
    local budget = specs:share(opts.sensors)
    local step = opts.minutes * 60
    local first, last = WEEK * opts.warm // step, WEEK * (opts.warm + opts.weeks) // step
    local total, by_kind = 0, {}
    for i = 1, opts.sensors do
        local kind = kinds[(i - 1) % #kinds + 1]
        local w <close> = watch.new(specs:get("sensor " .. i))
        w.budget = budget
        local g, slow = helper.normals((i + 1000 * (opts.seed or 0)) * 7919 + 12345), 0
        for row = 1, last do
            slow = 0.98 * slow + 0.03 * g()
            local _, events = w:update(START + step * row, kind[2](g, 2 * math.pi * row * step / 86400, slow))
            for _, e in ipairs(events) do
                if row > first and e.event == "raised" then total, by_kind[kind[1]] = total + 1, (by_kind[kind[1]] or 0) + 1 end
            end
        end
    end
    return total, by_kind, budget * opts.sensors
end

if arg and tonumber(arg[1]) then
    local opts = {sensors = tonumber(arg[1]), minutes = tonumber(arg[2] or 10), weeks = tonumber(arg[3] or 6), warm = tonumber(arg[4] or 2),
        seed = tonumber(arg[5] or 0)}
    local total, by_kind, budget = fleet.run(opts)
    print(("%d sensors, a reading every %g min, %g weeks after %g: %d false alarms, %.2f a week; budget %.2f a week"):format(opts.sensors,
        opts.minutes, opts.weeks, opts.warm, total, total / opts.weeks, budget))
    for _, kind in ipairs(kinds) do io.write(("  %s %d"):format(kind[1], by_kind[kind[1]] or 0)) end
    print()
end

return fleet
