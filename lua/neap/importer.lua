--- Histories from elsewhere: CSV files and the starter kit's lists.
--
--     local count, names = importer.run(store, importer.checked(csv.readings(path), problem))

local decode = require "neap.decode"
local sensors = require "neap.sensors"

local importer = {}

--- Readings from an iterator of (reading) or (false, problem): good ones go on, problems are told.
---@param each fun(): table|false|nil, string?
---@param problem fun(text: string)
---@return fun(): table?
function importer.checked(each, problem)
    return function()
        while true do
            local reading, why = each()
            if reading == nil then return nil end
            if reading then
                local name, bad = sensors.check_name(reading.sensor)
                if name then return reading end
                why = bad
            end
            problem(why)
        end
    end
end

--- Every reading of a starter kit's lists, oldest first. The kit gave all made-up readings one time and kept no order but the
--- list's; so a time that is not after the one before becomes one microsecond later, and nothing is merged.
---@param store any
---@param namespace string
---@param problem fun(text: string)
---@return fun(): table?
function importer.kit(store, namespace, problem)
    return coroutine.wrap(function()
        for _, name in ipairs(store:kit_sensors(namespace)) do
            local place, last_us = 0, math.mininteger
            local kind = store:kit_type(name, namespace)
            if kind ~= "list" then problem(("%s:%s is a %s, not a list: left out"):format(namespace, name, kind)) end
            for text in kind == "list" and store:kit_list(name, namespace) or function() end do
                place = place + 1
                local batch, err = decode.try.json("[" .. text .. "]")
                local sensor, value, time_us
                if batch then
                    for _, n, v, t in batch:each() do sensor, value, time_us = n, v, t end
                end
                if not sensor then
                    local why = batch and batch:errors()[1]
                    problem(("%s:%s, reading %d: %s"):format(namespace, name, place, why and why.reason or tostring(err and err.message)))
                elseif not time_us then
                    problem(("%s:%s, reading %d: it has no time"):format(namespace, name, place))
                else
                    last_us = math.max(time_us, last_us + 1)
                    coroutine.yield {sensor = sensor, time_us = last_us, value = value, timed = true}
                end
            end
        end
    end)
end

--- Store everything. Returns how many readings, and the sensors' names in order.
---@param store any
---@param each fun(): table?
---@return integer count
---@return string[] names
function importer.run(store, each)
    local seen, names = {}, {}
    local count = store:append_all(function()
        local reading = each()
        if reading and not seen[reading.sensor] then
            seen[reading.sensor], names[#names + 1] = true, reading.sensor
        end
        return reading
    end)
    return count, names
end

return importer
