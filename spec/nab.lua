-- Measures the learned detector on labelled series in the Numenta Anomaly Benchmark's layout: a folder of category/file.csv and
-- windows.json. The data is not in the tree. Usage: build/neap spec/nab.lua FOLDER [SEED...]   (a few seconds a seed)
--
-- Prints, for the fixed threshold 0.5: what each series brought, the forecaster beside "the last value", and the score of the benchmark's standard
-- profile: a window's first alarm earns up to 1 (the earlier the better), a missed window costs 1, an alarm outside costs
-- up to 0.11; the first 15% (at most 750 rows) are not scored; 0 = silence, 100 = every window at its first row and nothing else.

local csv = require "neap.csv"
local detector = require "neap.detector"
local json = require "neap.json"
local when = require "neap.when"

local folder = assert(arg[1], "usage: build/neap spec/nab.lua FOLDER [SEED...]")
local seeds = {table.unpack(arg, 2)}
if #seeds == 0 then seeds = {1, 2, 3} end

local function worth(y) return y > 3 and -1.0 or 2 / (1 + math.exp(5 * y)) - 1 end

local function read(path)
    local rows = {}
    local file <close> = assert(io.open(path))
    local line = file:read("l") and file:read("l")
    while line do
        local cells = csv.split(line)
        rows[#rows + 1] = {text = cells[1], time = when.parse(cells[1]) / 1e6, value = tonumber(cells[2])}
        line = file:read("l")
    end
    return rows
end

-- Which window each row lies in, and the windows as first and last row.
local function mark(rows, windows)
    local first, spans = {}, {}
    for i, row in ipairs(rows) do first[row.text] = first[row.text] or i end
    for i, w in ipairs(windows) do spans[i] = {first[w[1]:sub(1, 19)], first[w[2]:sub(1, 19)]} end
    table.sort(spans, function(a, b) return a[1] < b[1] end)
    return spans
end

local function run(rows, spans, seed)
    local d <close> = detector.new {seed = tonumber(seed)}
    local probation = math.floor(math.min(0.15 * #rows, 750))
    local r = {windows = 0, found = 0, false_alarms = 0, raw = 0}
    local err, naive, err12, naive12, means = 0, 0, 0, 0, {}
    local best = {}
    for i, row in ipairs(rows) do
        local v = d:update(row.time, row.value)
        local ahead, mean = d:ahead_12()
        means[i] = mean
        if v.forecast then err, naive = err + math.abs(row.value - v.forecast), naive + math.abs(row.value - rows[i - 1].value) end
        if ahead then err12, naive12 = err12 + math.abs(mean - ahead), naive12 + math.abs(mean - means[i - 12]) end
        if v.flagged and i > probation then
            local inside, last
            for k, span in ipairs(spans) do
                if i >= span[1] and i <= span[2] then inside = k end
                if span[2] < i then last = span end
            end
            if inside then
                local l, e = spans[inside][1], spans[inside][2]
                best[inside] = math.max(best[inside] or -2, worth(-(e - i + 1) / (e - l + 1)) / worth(-1))
            else
                r.false_alarms = r.false_alarms + 1
                r.raw = r.raw + 0.11 * (last and worth((i - last[2]) / (last[2] - last[1])) or -1)
            end
        end
    end
    for k, span in ipairs(spans) do
        if span[2] > probation then
            r.windows = r.windows + 1
            if best[k] then r.found, r.raw = r.found + 1, r.raw + best[k] else r.raw = r.raw - 1 end
        end
    end
    r.ratio = naive > 0 and err / naive or 1
    r.ratio12 = naive12 > 0 and err12 / naive12 or 1
    return r
end

local function median(list)
    table.sort(list)
    local n = #list
    return n % 2 == 1 and list[n // 2 + 1] or (list[n // 2] + list[n // 2 + 1]) / 2
end

local windows = json.decode(assert(io.open(folder .. "/windows.json")):read("a"))
local names = {}
for name in pairs(windows) do names[#names + 1] = name end
table.sort(names)

local total, raws, ratios, ratios12, rows_in_all, began = {windows = 0, found = 0, false_alarms = 0}, {}, {}, {}, 0, os.clock()
print(("%-62s %7s %7s %7s %7s %8s %8s"):format("series (means over seeds " .. table.concat(seeds, ", ") .. ")", "windows", "found", "false",
    "raw", "MAE k=1", "MAE k=12"))
for _, name in ipairs(names) do
    local rows = read(folder .. "/" .. name)
    local spans = mark(rows, windows[name])
    local mean = {windows = 0, found = 0, false_alarms = 0, raw = 0, ratio = 0, ratio12 = 0}
    for i, seed in ipairs(seeds) do
        local r = run(rows, spans, seed)
        raws[i] = (raws[i] or 0) + r.raw
        rows_in_all = rows_in_all + #rows
        for k, v in pairs(r) do mean[k] = mean[k] + v / #seeds end
    end
    for k in pairs(total) do total[k] = total[k] + mean[k] end
    ratios[#ratios + 1], ratios12[#ratios12 + 1] = mean.ratio, mean.ratio12
    print(("%-62s %7.0f %7.1f %7.1f %7.2f %8.3f %8.3f"):format(name, mean.windows, mean.found, mean.false_alarms, mean.raw, mean.ratio,
        mean.ratio12))
end
local scores, sum = {}, 0
for i, raw in ipairs(raws) do
    local score = 100 * (raw + total.windows) / (2 * total.windows)
    scores[i], sum = ("%.2f"):format(score), sum + score
end
local better, better12 = 0, 0
for i = 1, #ratios do
    better, better12 = better + (ratios[i] < 1 and 1 or 0), better12 + (ratios12[i] < 1 and 1 or 0)
end
print(("\n%d series, %.0f windows: %.1f found, %.1f false alarms at the fixed threshold 0.5"):format(#names, total.windows, total.found,
    total.false_alarms))
print(("standard profile: %.2f (seeds: %s)"):format(sum / #seeds, table.concat(scores, ", ")))
print(("forecaster, MAE / MAE(last value): median %.3f at k = 1 (better on %d of %d), %.3f at k = 12 (better on %d), each forecast made k rows before")
    :format(median(ratios), better, #ratios, median(ratios12), better12))
print(("%.1f us a row"):format((os.clock() - began) / rows_in_all * 1e6))
