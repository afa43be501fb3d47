-- The alerts of the named detectors (flatline and silence off) on labelled series in spec/nab.lua's layout: windows found, false alarms.
-- Usage: build/neap spec/nab_alerts.lua FOLDER [BUDGET [SEED...]]      V=1 shows each series; BUDGET: false alarms a week (1)

local csv, json, when = require "neap.csv", require "neap.json", require "neap.when"
local watch, sensors = require "neap.detector_watch", require "neap.sensors"
local folder, budget = assert(arg[1], "usage: build/neap spec/nab_alerts.lua FOLDER [BUDGET [SEED...]]"), tonumber(arg[2] or 1)
local seeds = {table.unpack(arg, 3)}
if #seeds == 0 then seeds = {1} end
local windows = json.decode(assert(io.open(folder .. "/windows.json")):read("a"))
local names = {}
for name in pairs(windows) do names[#names + 1] = name end
table.sort(names)
local found_all, fa_all, weeks_all, total = 0, 0, 0, 0
local byd = {}

local function read(path)
    local rows = {}
    for line in io.lines(path) do
        local cells = csv.split(line)
        local time = when.parse(cells[1])
        if time then rows[#rows + 1] = {text = cells[1], time = time / 1e6, value = tonumber(cells[2])} end
    end
    return rows
end

-- Windows found and false alarms after the benchmark's probation.
local function run(rows, spans, probation, seed)
    local text = ([[sensor "x" {false_alarms = %g, flatline = false, silence = false}]]):format(budget)
    local w <close> = watch.new(sensors.parse(text, "budget"):get "x", {seed = tonumber(seed)})
    local hit, found, false_alarms = {}, 0, 0
    for i, row in ipairs(rows) do
        local _, events = w:update(row.time, row.value)
        for _, e in ipairs(events) do
            if e.event == "raised" and i > probation then
                local inside
                for k, s in ipairs(spans) do if i >= s[1] and i <= s[2] then inside = k end end
                if inside and not hit[inside] then hit[inside], found = true, found + 1 end
                if not inside then false_alarms, byd[e.detector] = false_alarms + 1, (byd[e.detector] or 0) + 1 end
            end
        end
    end
    return found, false_alarms
end

for _, name in ipairs(names) do
    local rows, first, spans, found, false_alarms = read(folder .. "/" .. name), {}, {}, 0, 0
    local probation = math.floor(math.min(0.15 * #rows, 750))
    for i, row in ipairs(rows) do first[row.text] = first[row.text] or i end
    for _, w in ipairs(windows[name]) do
        local from, to = first[w[1]:sub(1, 19)], first[w[2]:sub(1, 19)]
        if to > probation then spans[#spans + 1] = {from, to} end
    end
    for _, seed in ipairs(seeds) do
        local f, a = run(rows, spans, probation, seed)
        found, false_alarms = found + f / #seeds, false_alarms + a / #seeds
    end
    found_all, fa_all, total = found_all + found, fa_all + false_alarms, total + #spans
    weeks_all = weeks_all + (rows[#rows].time - rows[probation].time) / 604800
    if os.getenv "V" then print(("%-60s %.1f of %d, %.1f false alarms"):format(name, found, #spans, false_alarms)) end
end
print(("budget %g a week, seeds %s: %.1f of %d windows found, %.1f false alarms in %.0f weeks (%.2f a week); precision %.2f, recall %.2f"):format(
    budget, table.concat(seeds, ","), found_all, total, fa_all, weeks_all, fa_all / weeks_all, found_all / (found_all + fa_all), found_all / total))
for k, v in pairs(byd) do io.write("  ", k, " ", v / #seeds) end
print()
