--- From what a client sent to readings that may be stored: shapes, numbers, times, and a verdict for every single item.
--
--   local result = ingest.read(json.decode(body), { specs = specs, now_us = now, stamp = ingest.stamper(clock) })
--   result.accepted   --> { { sensor = "temperature", time_us = ..., value = 21.5, timed = true }, ... }
--   result.errors     --> { { index = 3, sensor_name = "x", error = "..." }, ... }
--
-- One bad item never sinks a batch: good ones are kept, each bad one is named with its place and reason. Nothing here waits
-- or writes; that makes the rules easy to test and to edit. An item without a sensor's name or value is `skipped`, as the
-- starter kit did, but it is reported; anything else that cannot be stored is an error.

local sensors = require "neap.sensors"
local when = require "neap.when"

local ingest = {}

local YEAR_2001_US <const> = 978307200000000
local AHEAD_US <const> = 600 * 1000000 -- a clock this far ahead of ours is wrong rather than early

-- Names under which clients send an item's parts, in order of preference. The starter kit's come first.
local NAME_KEYS <const> = { "sensor_name", "sensor", "name" }
local VALUE_KEYS <const> = { "sensor_output", "value" }
local TIME_KEYS <const> = { "timestamp", "time", "ts" }

local function first(item, keys)
    for _, key in ipairs(keys) do
        if item[key] ~= nil then return item[key], key end
    end
end

--- A reading's number from what JSON gave: numbers, numeric texts ("12.5", as some devices send) and true/false count;
--- NaN, infinity and hexadecimal do not.
---@param value any
---@return number? number
---@return string? why
function ingest.number(value)
    local kind = type(value)
    if kind == "boolean" then return value and 1 or 0 end
    if kind == "string" then
        local digits = value:match("^%s*([+-]?%d+%.?%d*[eE]?[+-]?%d*)%s*$") or value:match("^%s*([+-]?%.%d+[eE]?[+-]?%d*)%s*$")
        local n = digits and tonumber((digits:gsub("^%+", "")))
        if not n then return nil, ("'%s' is not a number"):format(value:sub(1, 40)) end
        value, kind = n, "number"
    end
    if kind ~= "number" then return nil, "the value must be a number" .. (kind == "table" and ", not a list or object" or "") end
    if value ~= value or value == math.huge or value == -math.huge then return nil, "the value is not finite" end
    return value
end

--- Unique, increasing arrival times for readings that carry none. Each worker keeps to its own residue, so that two workers
--- never give one sensor the same time (equal times would count as one reading sent twice).
---@param clock fun(): number wall time in seconds
---@param worker? integer from 1
---@param workers? integer
---@return fun(): integer
function ingest.stamper(clock, worker, workers)
    worker, workers = worker or 1, workers or 1
    local last = 0
    return function()
        local now = clock() * 1000000 // 1 | 0
        now = now - now % workers + (worker - 1)
        if now <= last then now = last + workers end
        last = now
        return now
    end
end

--- The event time of an item: the device's if it is credible, else the arrival time, as the sensor's `clock` policy says.
---@return integer? time_us nil: refuse the reading
---@return boolean|string timed_or_why
---@return string? note
local function event_time(item, spec, context)
    local raw = first(item, TIME_KEYS)
    if raw == nil then return context.stamp(), false end
    local time_us, why = when.parse(raw)
    if not time_us then return context.stamp(), false, why .. ": the arrival time is used" end
    if spec.clock == "trust" then return time_us, true end
    local wrong = time_us < YEAR_2001_US and "the device's clock is not set (%s)"
        or time_us > context.now_us + AHEAD_US and "the device's clock is ahead of ours (%s)"
    if not wrong then return time_us, true end
    wrong = wrong:format(when.iso(time_us))
    if spec.clock == "reject" then return nil, wrong end
    return context.stamp(), false, wrong .. ": the arrival time is used"
end

--- One item to one reading. `skip` is true where the starter kit skipped.
local function read_item(item, context)
    if type(item) ~= "table" then return nil, "an item must be a JSON object" end
    local name, value = first(item, NAME_KEYS), first(item, VALUE_KEYS)
    if name == nil then return nil, "the item has no \"sensor_name\"", true end
    if value == nil then return nil, "the item has no \"sensor_output\"", true end
    local checked, why = sensors.check_name(name)
    if not checked then return nil, why end
    local number, not_number = ingest.number(value)
    if not number then return nil, not_number end

    local spec = context.specs:get(checked)
    local time_us, timed, note = event_time(item, spec, context)
    if not time_us then return nil, timed end
    if spec.scale ~= 1 or spec.offset ~= 0 then number = number * spec.scale + spec.offset end
    if spec.minimum and number < spec.minimum then
        note = ("%g is below the minimum of %g: kept and flagged"):format(number, spec.minimum)
    elseif spec.maximum and number > spec.maximum then
        note = ("%g is above the maximum of %g: kept and flagged"):format(number, spec.maximum)
    end
    return { sensor = checked, time_us = time_us, value = number, timed = timed, sent = value }, note
end

--- Bring the JSON shapes that clients use to one list of items. Returns nil if `value` is none of them.
---   [ {sensor_name, sensor_output}, .. ]   {sensor_name, sensor_output}   {"temperature": 21.5, ..}   {"ts": .., "values": {..}}
local function items_of(value, is_array)
    if type(value) ~= "table" then return nil end
    if value[1] ~= nil or is_array(value) then return value end
    if first(value, NAME_KEYS) ~= nil and first(value, VALUE_KEYS) ~= nil then return { value } end

    local values, time = value, first(value, TIME_KEYS)
    if type(value.values) == "table" then values = value.values end
    local items = {}
    for name, one in pairs(values) do
        local is_time = values == value and (name == "timestamp" or name == "time" or name == "ts")
        if not is_time and type(name) == "string" and ingest.number(one) then
            items[#items + 1] = { sensor_name = name, sensor_output = one, timestamp = time }
        end
    end
    table.sort(items, function(a, b) return a.sensor_name < b.sensor_name end)
    return items[1] and items or nil
end

---@class neap.ingest.Context
---@field specs neap.Specs
---@field now_us integer
---@field stamp fun(): integer
---@field is_array fun(value: table): boolean
---@field admit? fun(sensor: string): boolean, string? whether a sensor may be stored (the cap on unknown ones)

---@class neap.ingest.Result
---@field accepted table[] readings, in the order sent
---@field errors table[] { index, sensor_name, error }
---@field skipped table[] the same, for items that lack a name or a value
---@field notes table[] { index, sensor_name, note } for readings that are kept but worth a remark

--- Judge a decoded body. nil if it has no shape that we know.
---@param value any
---@param context neap.ingest.Context
---@return neap.ingest.Result?
function ingest.read(value, context)
    local items = items_of(value, context.is_array)
    if not items then return nil end
    local result = { accepted = {}, errors = {}, skipped = {}, notes = {} }
    for index = 1, #items do
        local item = items[index]
        local reading, remark, skip = read_item(item, context)
        if reading and context.admit then
            local may, why = context.admit(reading.sensor)
            if not may then reading, remark = nil, why end
        end
        local name = type(item) == "table" and first(item, NAME_KEYS)
        if type(name) ~= "string" then name = nil end
        if reading then
            result.accepted[#result.accepted + 1] = reading
            if remark then result.notes[#result.notes + 1] = { index = index, sensor_name = name, note = remark } end
        else
            local list = skip and result.skipped or result.errors
            list[#list + 1] = { index = index, sensor_name = name, error = remark }
        end
    end
    return result
end

local MOST_NAMED <const> = 50 -- errors listed in an answer; devices have small buffers

--- The answer to a batch that has been stored: status and body. The good path is the starter kit's, byte for byte in meaning.
---@param result neap.ingest.Result
---@param array fun(t: table): table marks a table as a JSON array
---@return integer status
---@return table body
function ingest.answer(result, array)
    local data = {}
    for i, reading in ipairs(result.accepted) do data[i] = { sensor_name = reading.sensor, sensor_output = reading.value } end
    local body = { status = "success", data = array(data) }
    local refused, skipped = #result.errors, #result.skipped
    if refused + skipped > 0 then
        local named = {}
        for _, list in ipairs { result.errors, result.skipped } do
            for _, one in ipairs(list) do if #named < MOST_NAMED then named[#named + 1] = one end end
        end
        body.errors = array(named)
    end
    if #result.notes > 0 then body.notes = array(table.move(result.notes, 1, math.min(#result.notes, MOST_NAMED), 1, {})) end
    if refused == 0 then return 200, body end

    local reason = ("item %d: %s"):format(result.errors[1].index, result.errors[1].error)
    if #data == 0 then
        body.status, body.error = "error", "Couldn't process request. Error: " .. reason
        return 400, body
    end
    body.status = "partial"
    body.error = ("%d of %d items refused, the others are stored; %s"):format(refused, refused + skipped + #data, reason)
    return 200, body
end

return ingest
