--- CSV in and out, as people and instruments write it.
--
--     for reading, problem in csv.readings("oven.csv", {sensor = "oven"}) do ... end
--
-- Three shapes are told apart by their columns: `timestamp,value` (one sensor; its name comes from the caller or the file),
-- `timestamp,sensor,value` (any number of them), and `time,temperature,humidity,...` (a column each, as `neap record` writes).
-- Cells are separated by commas, semicolons or tabs (the first line tells; see csv.separator and csv.number for the decimal comma).
-- A bad row is reported with its line and skipped; an empty cell is a missing reading, not an error.

local when = require "neap.when"

local csv = {}

local CELL <const> = {[","] = "([^,]*),", [";"] = "([^;]*);", ["\t"] = "([^\t]*)\t"}

--- What separates a file's cells, by its first line: a tab if there is one, else a semicolon, else a comma.
function csv.separator(line)
    line = line:gsub('"[^"]*"', "")
    return line:find("\t", 1, true) and "\t" or line:find(";", 1, true) and ";" or ","
end

--- A cell's number, or nil. Where cells are not separated by commas, a single comma between digits is the decimal point ("21,5"); "1.234,5" is
--- refused rather than guessed at.
---@param cell string
---@param separator? string
function csv.number(cell, separator)
    cell = cell:match "^%s*%+?(.-)%s*$"
    if separator and separator ~= "," and cell:find "^%-?%d+,%d+$" then cell = cell:gsub(",", ".") end
    return cell:find "^%-?%.?%d[%d.]*[eE]?[+-]?%d*$" and tonumber(cell) or nil
end

--- The cells of one line; cells may stand in double quotes, with "" for a quote inside.
---@param line string
---@param separator? string "," if not given; see csv.separator
---@return string[]
function csv.split(line, separator)
    local cells, at = {}, 1
    separator = separator or ","
    line = line:gsub("\r$", "")
    if not line:find('"', 1, true) then
        for cell in (line .. separator):gmatch(CELL[separator]) do cells[#cells + 1] = cell end
        return cells
    end
    while at <= #line + 1 do
        if line:sub(at, at) == '"' then
            local text, from = "", at + 1
            while true do
                local quote = line:find('"', from, true) or #line + 1
                text = text .. line:sub(from, quote - 1)
                if line:sub(quote + 1, quote + 1) ~= '"' then at = quote + 1; break end
                text, from = text .. '"', quote + 2
            end
            cells[#cells + 1] = text
            at = (line:find(separator, at, true) or #line + 1) + 1
        else
            local comma = line:find(separator, at, true) or #line + 1
            cells[#cells + 1] = line:sub(at, comma - 1)
            at = comma + 1
        end
    end
    return cells
end

--- A cell that can be read back by csv.split. A text that a spreadsheet would run as a formula (= + - @ first, and no number) gets an apostrophe before it;
--- csv.text takes that away again.
---@param text string
function csv.cell(text)
    if text:find "^'*[=+%-@]" and not tonumber(text) then text = "'" .. text end
    if text:find('[",\n\r]') then return '"' .. text:gsub('"', '""') .. '"' end
    return text
end

--- The text of a cell that csv.cell wrote.
---@param cell string
---@return string
function csv.text(cell) return cell:find "^'+[=+%-@]" and cell:sub(2) or cell end

local TIME_NAMES <const> = {timestamp = true, time = true, ts = true, date = true, datetime = true, ["_time"] = true}
local NAME_NAMES <const> = {sensor = true, sensor_name = true, name = true}
local VALUE_NAMES <const> = {value = true, sensor_output = true, ["_value"] = true}

--- Which column is what. Column names may be given; otherwise the usual names, else the first column is the time.
local function layout_of(header, opts)
    local layout = {values = {}}
    for i, raw in ipairs(header) do
        local name = raw:gsub("^\239\187\191", ""):match("^%s*(.-)%s*$")
        header[i] = name
        local low = name:lower()
        if opts.time and name == opts.time or not opts.time and not layout.time and TIME_NAMES[low] then layout.time = i
        elseif opts.value and name == opts.value or not opts.value and not layout.value and VALUE_NAMES[low] then layout.value = i
        elseif opts.name and name == opts.name or not opts.name and not layout.name and NAME_NAMES[low] then layout.name = i
        end
    end
    for _, key in ipairs {"time", "value", "name"} do
        if opts[key] and not layout[key] then return nil, ("there is no column '%s' (%s)"):format(opts[key], table.concat(header, ", ")) end
    end
    if not layout.time then return nil, ("no column of times found in '%s'; name it with --time"):format(table.concat(header, ",")) end
    if not layout.value then
        for i, name in ipairs(header) do
            if i ~= layout.time and i ~= layout.name then layout.values[#layout.values + 1] = {column = i, sensor = name} end
        end
        if layout.name or #layout.values == 0 then return nil, "no column of values found; name it with --value" end
    end
    return layout
end

---@class neap.csv.Options
---@field sensor? string name of the sensor in a file that has no column of names
---@field time? string name of the column of times
---@field value? string name of the column of values
---@field name? string name of the column of sensors' names

--- Iterate over a file's readings: {sensor, time_us, value}, or nil-less `false` and a problem "line 7: ...".
--- Raises when the file cannot be read or its columns cannot be understood.
---@param path string
---@param opts? neap.csv.Options
function csv.readings(path, opts)
    opts = opts or {}
    local file, why = io.open(path, "r")
    if not file then error(("cannot read %s"):format(why), 0) end
    local first = file:read("l")
    if not first then file:close(); error(path .. " is empty", 0) end
    local separator = csv.separator(first)
    local header = csv.split(first, separator)
    local layout
    local line_number, pending = 1, nil
    if csv.number(header[2] or "", separator) and when.parse(header[1]) then -- no header: time and value
        pending, line_number = first, 0
        layout = {time = 1, value = 2, values = {}}
    else
        layout, why = layout_of(header, opts)
        if not layout then file:close(); error(("%s: %s"):format(path, why), 0) end
    end
    local own_name = opts.sensor or path:match("([^/\\]+)$"):gsub("%.%w+$", "")

    local function next_line()
        if pending then
            local line = pending
            pending = nil
            return line
        end
        return file:read("l")
    end

    return coroutine.wrap(function()
        while true do
            local line = next_line()
            if not line then break end
            line_number = line_number + 1
            if line:find("%S") then
                local cells = csv.split(line, separator)
                local time_us, bad_time = when.parse(cells[layout.time] or "")
                local function one(sensor, cell)
                    if cell == nil or not cell:find("%S") then return end
                    local value = csv.number(cell, separator)
                    if value then
                        coroutine.yield({sensor = sensor, time_us = time_us, value = value, timed = true})
                    else
                        coroutine.yield(false, ("line %d: '%s' is not a number"):format(line_number, cell:sub(1, 40)))
                    end
                end
                if not time_us then
                    coroutine.yield(false, ("line %d: %s"):format(line_number, bad_time))
                elseif layout.value then
                    one(layout.name and csv.text(cells[layout.name] or "") or own_name, cells[layout.value])
                else
                    for _, column in ipairs(layout.values) do one(column.sensor, cells[column.column]) end
                end
            end
        end
        file:close()
    end)
end

return csv
