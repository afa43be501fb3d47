--- From readings to training windows: an even grid, gaps that no window crosses, four parts in order of time, a robust scaler.
--
--     local data = require("neap.dataset").build(times_us, values, { window = 16, period = 86400 })
--     data.series       the values on the grid, runs joined one after the other
--     data.parts.train  { 1, 2, 3, ... }   where each training window starts in the series; also .val, .cal, .test
--     data.scaler       { loc, inv, level_inv }
--
-- The model never sees raw values. Of a window it gets the differences to its last value (scaled by the usual change), how
-- high that last value stands (scaled by the usual spread), and sine and cosine of the time of day where the history covers
-- at least two days; it forecasts the next change. On raw inputs networks lose to "repeat the last value" (measured).

local dataset = {}

-- Order of time; shuffling happens inside `train` only. Calibration is apart from what chooses the model.
dataset.SHARES = {train = 0.60, val = 0.15, cal = 0.15, test = 0.10}
local ORDER = {"train", "val", "cal", "test"}

-- ---- small statistics ----

--- The q-quantile of a sorted list, with linear interpolation.
---@param sorted number[]
---@param q number 0..1
function dataset.quantile(sorted, q)
    local position = 1 + q * (#sorted - 1)
    local below = math.floor(position)
    local low, high = sorted[below], sorted[math.min(#sorted, below + 1)]
    return low + (position - below) * (high - low)
end

--- Median and robust spread (interquartile range as a standard deviation), with the plain deviation beside it.
local function spread_of(list)
    local sorted, sum, squares = table.move(list, 1, #list, 1, {}), 0, 0
    table.sort(sorted)
    for _, v in ipairs(list) do sum = sum + v end
    local mean = sum / #list
    for _, v in ipairs(list) do squares = squares + (v - mean) ^ 2 end
    local iqr = dataset.quantile(sorted, 0.75) - dataset.quantile(sorted, 0.25)
    return dataset.quantile(sorted, 0.5), iqr / 1.349, math.sqrt(squares / #list)
end

--- The usual distance between two readings, in seconds: the median, which a few gaps do not move.
---@param times integer[] microseconds, increasing
function dataset.interval_of(times)
    local steps = {}
    for i = 2, #times do steps[#steps + 1] = (times[i] - times[i - 1]) / 1e6 end
    if #steps == 0 then return nil end
    table.sort(steps)
    return dataset.quantile(steps, 0.5)
end

-- ---- the grid ----

local MOST_FILLED <const> = 2 -- missing steps that may be filled by a straight line

--- Runs of readings on an even grid. A step takes the last reading within half an interval; up to two missing steps are
--- filled by a line; anything longer starts a new run.
---@return number[] series values of all runs, one run after the other
---@return number[] seconds time of each value
---@return integer[] run_of number of the run that a value belongs to
---@return integer gaps
---@return integer filled
local function grid(times, values, interval)
    local series, seconds, run_of = {}, {}, {}
    local run, filled, last_step = 1, 0, nil
    local start_us = times[1]
    for i = 1, #times do
        local step = math.floor((times[i] - start_us) / 1e6 / interval + 0.5)
        local missing = last_step and step - last_step - 1 or 0
        if missing < 0 then -- a second reading for the same step: the last one counts
            series[#series] = values[i]
        else
            if missing > MOST_FILLED then
                run, start_us, step = run + 1, times[i], 0
            else
                local before = series[#series]
                for k = 1, missing do
                    series[#series + 1] = before + (values[i] - before) * k / (missing + 1)
                    seconds[#series] = start_us / 1e6 + (last_step + k) * interval
                    run_of[#series] = run
                    filled = filled + 1
                end
            end
            series[#series + 1] = values[i]
            seconds[#series], run_of[#series] = start_us / 1e6 + step * interval, run
        end
        last_step = step
    end
    return series, seconds, run_of, run - 1, filled
end

-- ---- parts ----

--- Where each window starts, in four parts in order of time with a distance of one window between them, so that no reading
--- of one part is an input of the next.
local function split(starts, window)
    local n = #starts
    local distance = math.min(window, n // 20)
    local usable, parts, from = n - 3 * distance, {}, 1
    local share = 0
    for k, name in ipairs(ORDER) do
        share = share + dataset.SHARES[name]
        local to = k == #ORDER and n or math.floor(usable * share + 0.5) + (k - 1) * distance
        parts[name] = table.move(starts, from, to, 1, {})
        from = to + 1 + distance
    end
    return parts
end

-- ---- seasonal inputs ----

--- Periods of which the training part covers at least two: the sensor's own (usually a day) and the week.
local function seasons_of(period, covered)
    local seasons = {}
    for _, one in ipairs {period, 604800} do
        if one and covered >= 2 * one and one ~= seasons[1] then seasons[#seasons + 1] = one end
    end
    return seasons
end

--- Sine and cosine of a time's place in each season.
---@param seconds number
---@param seasons number[]
---@return number[] 2 * #seasons numbers
function dataset.season_inputs(seconds, seasons)
    local out = {}
    for k, season in ipairs(seasons) do
        local angle = 2 * math.pi * (seconds % season) / season
        out[2 * k - 1], out[2 * k] = math.sin(angle), math.cos(angle)
    end
    return out
end

-- ---- the scaler ----

--- nil and why when the sensor does not move.
local function scaler_of(series, run_of, last)
    local head, changes = {}, {}
    for i = 1, last do
        head[i] = series[i]
        if i > 1 and run_of[i] == run_of[i - 1] then changes[#changes + 1] = series[i] - series[i - 1] end
    end
    local loc, spread, deviation = spread_of(head)
    if deviation == 0 then
        return nil, ("this sensor is constant at %g: there is nothing to forecast (a flatline alarm is what watches it)"):format(loc)
    end
    local _, usual, change_deviation = spread_of(changes)
    -- A sensor that mostly rests has an interquartile range near 0; a quarter of the deviation keeps the inputs sane.
    local change = math.max(usual, 0.25 * change_deviation)
    return {loc = loc, inv = 1 / change, level_inv = 1 / math.max(spread, 0.25 * deviation)}
end

---@class neap.Dataset
---@field series number[]
---@field seconds number[]
---@field run_of integer[]
---@field interval number
---@field window integer
---@field seasons number[]
---@field scaler {loc: number, inv: number, level_inv: number}
---@field parts table<string, integer[]>
---@field health {readings: integer, from_us: integer, to_us: integer, gaps: integer, filled: integer, out_of_range: integer}

---@class neap.dataset.Options
---@field window integer
---@field interval? number seconds; only used if the readings really come about that often
---@field period? number seconds; 86400 if not given
---@field minimum? number training leaves out windows that hold a reading below it
---@field maximum? number

--- ARGS: times (microseconds, sorted, without duplicates), values, options. RETURN: the data set, or nil and the reason.
---@param times integer[]
---@param values number[]
---@param opts neap.dataset.Options
---@return neap.Dataset?
---@return string? why
function dataset.build(times, values, opts)
    local window = opts.window
    local interval = dataset.interval_of(times)
    if opts.interval and interval and opts.interval / interval < 1.5 and interval / opts.interval < 1.5 then interval = opts.interval end
    local short = "Not enough readings to build a dataset. Generate more synthetic data or reduce `window_size`."
    if #times <= window or not interval or interval <= 0 then
        return nil, ("%s (%d readings, a window of %d)"):format(short, #times, window)
    end

    -- 1. an even grid
    local series, seconds, run_of, gaps, filled = grid(times, values, interval)

    -- 2. windows that lie in one run, target included
    local starts, bad, out_of_range = {}, {}, 0
    for i = 1, #series do
        local v = series[i]
        if (opts.minimum and v < opts.minimum) or (opts.maximum and v > opts.maximum) then bad[i], out_of_range = true, out_of_range + 1 end
    end
    for i = 1, #series - window do
        if run_of[i] == run_of[i + window] then starts[#starts + 1] = i end
    end
    if #starts < 20 then
        return nil, ("%s (%d windows of %d readings without a gap, 20 are needed)"):format(short, #starts, window)
    end

    -- 3. parts; training leaves out what the spec calls impossible
    local parts = split(starts, window)
    local last_of_train = parts.train[#parts.train] + window
    if out_of_range > 0 then
        local good = {}
        for _, start in ipairs(parts.train) do
            local ok = true
            for i = start, start + window do ok = ok and not bad[i] end
            if ok then good[#good + 1] = start end
        end
        if #good >= 20 then parts.train = good end
    end

    -- 4. scaler and seasons, from the training part only
    local scaler, constant = scaler_of(series, run_of, last_of_train)
    if not scaler then return nil, constant end
    local seasons = seasons_of(opts.period or 86400, seconds[last_of_train] - seconds[1])

    return {
        series = series, seconds = seconds, run_of = run_of, interval = interval, window = window, seasons = seasons,
        scaler = scaler, parts = parts,
        health = {readings = #times, from_us = times[1], to_us = times[#times], gaps = gaps, filled = filled, out_of_range = out_of_range},
    }
end

return dataset
