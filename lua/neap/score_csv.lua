--- A CSV of readings in, a CSV of verdicts out, strictly online: row t rests on rows up to t.
--
--     require("neap.score_csv").run("oven.csv", "oven.scored.csv")
--
-- In: `timestamp,value` (or columns named so by the caller; a file without a header is taken as time and value). Times may be
-- "2014-02-14 14:30:00", ISO 8601 with a zone, or Unix seconds, milli- or microseconds.
-- Out: `timestamp,value,forecast,p,anomaly_score`, a row for every row, time and value as they stood. An empty, "NaN" or
-- unreadable value is a missing reading: its forecast is there, its p is empty and its score 0. A time that cannot be read
-- costs nothing but that row's place in the day.

local csv = require "neap.csv"
local when = require "neap.when"
local detector = require "neap.detector"

local score_csv = {}

--- What run() raises when whoever read its standard output has had enough (`| head`).
score_csv.READER_LEFT = "nobody reads the output any more"
local EPIPE <const> = 32

local TIMES <const> = {timestamp = true, time = true, ts = true, date = true, datetime = true, ["_time"] = true}
local VALUES <const> = {value = true, sensor_output = true, reading = true, ["_value"] = true}

local function trim(cell) return (cell:gsub("^%s+", ""):gsub("%s+$", "")) end

-- Seconds, or nil and why.
local function seconds(cell)
    local us, why = when.parse(cell)
    if us then return us / 1e6 end
    return nil, why
end

--- Which columns hold time and value. RETURNS: time column, value column, whether the line is a header, and what
--- separates cells; or nil and why.
function score_csv.columns(line, opts)
    line = line:gsub("^\239\187\191", "")
    local separator = csv.separator(line)
    local cells = csv.split(line, separator)
    local time, value
    for i, cell in ipairs(cells) do
        local name = trim(cell)
        if opts.time and name == opts.time or not opts.time and not time and TIMES[name:lower()] then time = i end
        if opts.value and name == opts.value or not opts.value and not value and VALUES[name:lower()] then value = i end
    end
    for _, key in ipairs {"time", "value"} do
        if opts[key] and not (key == "time" and time or key == "value" and value) then
            return nil, ("there is no column '%s' (there are %s)"):format(opts[key], table.concat(cells, ", "))
        end
    end
    if time or value then
        time = time or (value == 1 and 2 or 1)
        value = value or (time == 1 and 2 or 1)
        if not cells[time] or not cells[value] then return nil, "one column is not enough: time and value are needed" end
        return time, value, true, separator
    end
    if #cells >= 2 and seconds(trim(cells[1])) then return 1, 2, false, separator end
    return nil, "no columns 'timestamp' and 'value' found; name them with --time and --value"
end

function score_csv.open(path, mode)
    local file, why = io.open(path, mode)
    if not file then error(("cannot %s %s"):format(mode == "r" and "read" or "write", why), 0) end
    return file
end

-- Whether two paths name one file, through links too.
local function same_file(a, b)
    local function quoted(s) return "'" .. s:gsub("'", "'\\''") .. "'" end
    return a == b or os.execute(("test %s -ef %s"):format(quoted(a), quoted(b))) == true
end

local function shown(x) return x and ("%.10g"):format(x) or "" end

---@class neap.score_csv.Summary
---@field rows integer
---@field flagged integer
---@field missing integer rows without a value
---@field problems string[] the first few cells that could not be read
---@field seconds number processor time

--- Scores a file. opts: seed, time and value (names of columns), on_row (called with every verdict), judge (instead of a new
--- detector). "-" is standard input or output.
--- Raises when a file cannot be opened or its columns cannot be understood.
---@param input string
---@param output string
---@param opts? table
---@return neap.score_csv.Summary
function score_csv.run(input, output, opts)
    opts = opts or {}
    local inp = input == "-" and io.stdin or score_csv.open(input, "r")
    local line = inp:read("l")
    if not line then error(input .. " is empty: `timestamp,value` rows are expected", 0) end
    local time_at, value_at, header, separator = score_csv.columns(line, opts)
    if not time_at then error(("%s: %s"):format(input, value_at), 0) end
    if input ~= "-" and output ~= "-" and same_file(input, output) then
        error(("%s is both the readings and the verdicts, which would destroy the readings: give --out another name"):format(output), 0)
    end
    local out = output == "-" and io.stdout or score_csv.open(output, "w")

    local began = os.clock()
    local d = opts.judge or detector.new {seed = opts.seed or 1}
    local sum = {rows = 0, flagged = 0, missing = 0, problems = {}}
    local function problem(n, text)
        if #sum.problems < 5 then sum.problems[#sum.problems + 1] = ("line %d: %s"):format(n, text) end
    end
    local function put(...)
        local ok, why, code = out:write(...)
        if not ok then error(out == io.stdout and code == EPIPE and score_csv.READER_LEFT or output .. ": " .. tostring(why), 0) end
    end
    local line_number = 1
    if header then line, line_number = inp:read("l"), 2 end
    put("timestamp,value,forecast,p,anomaly_score\n")
    while line do
        if line:find("%S") then
            local cells = csv.split(line, separator)
            local time_text, value_text = trim(cells[time_at] or ""), trim(cells[value_at] or "")
            local time, bad = seconds(time_text)
            if not time then problem(line_number, bad or "no time") end
            local value = csv.number(value_text, separator)
            if not value and value_text ~= "" and not value_text:lower():find("^[+-]?nan$") then
                problem(line_number, ("'%s' is not a number; taken as missing"):format(value_text:sub(1, 40)))
            end
            local verdict = d:update(time, value)
            sum.rows = sum.rows + 1
            if verdict.flagged then sum.flagged = sum.flagged + 1 end
            if not verdict.p then sum.missing = sum.missing + 1 end
            put(csv.cell(time_text), ",", csv.cell(value_text), ",", shown(verdict.forecast), ",",
                verdict.p and ("%.4g"):format(verdict.p) or "", ",", ("%.6f\n"):format(verdict.score))
            if opts.on_row then opts.on_row(verdict, time_text) end
        end
        line, line_number = inp:read("l"), line_number + 1
    end
    if inp ~= io.stdin then inp:close() end
    if out ~= io.stdout then assert(out:close()) else out:flush() end
    d:close()
    sum.seconds = os.clock() - began
    return sum
end

return score_csv
