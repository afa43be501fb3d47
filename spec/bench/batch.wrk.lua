-- luacheck: globals wrk init request delay
-- wrk's script for `neap bench batch`: many readings a POST. Arguments: dialect (line, json), readings, sensors, pause in milliseconds.
-- Times differ from reading to reading and from request to request, so that a server that keeps one value for each time keeps them all.
local dialect, readings, sensors, step

function init(args)
    dialect, readings, sensors = args[1], tonumber(args[2]), tonumber(args[3])
    step = os.time() * 1000000
    local pause = tonumber(args[4])
    if pause > 0 then function delay() return pause end end
    wrk.method = "POST"
    wrk.headers["Content-Type"] = dialect == "json" and "application/json" or "text/plain"
end

local line = {}

function request()
    for i = 1, readings do
        local sensor, time_us = (i - 1) % sensors + 1, step + i
        if dialect == "json" then
            line[i] = ('{"sensor_name":"s%03d","sensor_output":%.2f,"time":%d}'):format(sensor, 20 + i % 10 / 4, time_us)
        else
            line[i] = ("s%03d value=%.2f %d000"):format(sensor, 20 + i % 10 / 4, time_us)
        end
    end
    step = step + readings
    return wrk.format(nil, nil, nil, dialect == "json" and "[" .. table.concat(line, ",") .. "]" or table.concat(line, "\n"))
end
