--- Readings as text that other programs read back.
--
--     local write = exporter.writer("csv", true, io.write)
--     write("oven", time_us, 212.5)

local csv = require "neap.csv"
local decode = require "neap.decode"
local json = require "neap.json"
local when = require "neap.when"

local exporter = {}

--- The shortest text that reads back as the same number.
local function number(value)
    if math.type(value) == "integer" then return tostring(value) end
    local text = ("%.15g"):format(value)
    if tonumber(text) ~= value then text = ("%.17g"):format(value) end
    return text
end

--- A sensor's name as a measurement of line protocol.
local function measurement(name) return (name:gsub("[, ]", "\\%0")) end

--- Why a sensor cannot be written in this format, or nil if it can: what is written has to read back under the same name.
---@param format "csv"|"ndjson"|"line"
---@param name string
---@return string?
function exporter.refuses(format, name)
    if format ~= "line" then return nil end
    local back
    for _, read in decode.lines(measurement(name) .. " value=1"):each() do back = read end
    return back ~= name and ("the sensor '%s' has no name in line protocol: --format csv and ndjson have one"):format(name) or nil
end

local formats = {
    csv = function(single, put)
        put(single and "timestamp,value\n" or "timestamp,sensor,value\n")
        return function(sensor, time_us, value)
            put(when.iso(time_us) .. "," .. (single and "" or csv.cell(sensor) .. ",") .. number(value) .. "\n")
        end
    end,
    ndjson = function(_, put)
        return function(sensor, time_us, value)
            put(json.encode({sensor_name = sensor, sensor_output = value, timestamp = when.iso(time_us)}, {sort = true}) .. "\n")
        end
    end,
    line = function(_, put)
        return function(sensor, time_us, value)
            put(("%s value=%s %d000\n"):format(measurement(sensor), number(value), time_us))
        end
    end,
}

--- A function that writes one reading after the other through `put`.
---@param format "csv"|"ndjson"|"line"
---@param single boolean one sensor only: CSV needs no column of names
---@param put fun(text: string)
---@return fun(sensor: string, time_us: integer, value: number)
function exporter.writer(format, single, put) return formats[format](single, put) end

local rolled_formats = {
    csv = function(single, put)
        put(single and "timestamp,n,min,max,mean,last\n" or "timestamp,sensor,n,min,max,mean,last\n")
        return function(sensor, time_us, ...)
            local cells = {...}
            for i, v in ipairs(cells) do cells[i] = number(v) end
            put(when.iso(time_us) .. "," .. (single and "" or csv.cell(sensor) .. ",") .. table.concat(cells, ",") .. "\n")
        end
    end,
    ndjson = function(_, put)
        return function(sensor, time_us, n, min, max, mean, last)
            local one = {sensor_name = sensor, timestamp = when.iso(time_us), n = n, min = min, max = max, mean = mean, last = last}
            put(json.encode(one, {sort = true}) .. "\n")
        end
    end,
    line = function(_, put)
        return function(sensor, time_us, n, min, max, mean, last)
            put(("%s n=%di,min=%s,max=%s,mean=%s,last=%s %d000\n"):format(measurement(sensor), n, number(min), number(max), number(mean),
                number(last), time_us))
        end
    end,
}

--- The same for a rollup: the function writes one bucket after the other.
---@return fun(sensor: string, time_us: integer, n: integer, min: number, max: number, mean: number, last: number)
function exporter.rollup_writer(format, single, put) return rolled_formats[format](single, put) end

return exporter
