--- neap serial: the bridge from a board on a serial port to a running server, as the starter kit's bridge.py.
local args = require "neap.args"
local json = require "neap.json"
local serial = require "neap.ext.serial"

local opt = args.parse{
    name = "neap serial", summary = "Reads name:value lines from a serial port and posts each to a running neap.",
    positional = {{"port", default = "/dev/ttyACM0", help = "the device"}},
    options = {
        {"--baud", "-b", type = "integer", default = 115200, help = "speed"},
        {"--url", "-u", default = "http://127.0.0.1:5000/receive", help = "where to post"},
        {"--print", "-p", type = "flag", help = "print the readings as JSON lines instead of posting them"},
    },
}

local failures = 0
local function post(reading)
    local text = json.encode({{sensor_name = reading.sensor, sensor_output = reading.value}}, {sort = true})
    if opt.print then
        print(text)
        io.stdout:flush()
        return
    end
    local ok, answer = pcall(require("neap.http").request, {method = "POST", url = opt.url, body = text, timeout = 5,
        headers = {["Content-Type"] = "application/json"}})
    local why = not ok and tostring(answer) or answer.status >= 300 and ("status %d: %s"):format(answer.status, (answer.body
        or ""):sub(1, 200))
    if why then
        failures = failures + 1
        if failures <= 3 then io.stderr:write("neap serial: not delivered: ", why, "\n") end
    end
end

serial.run{port = opt.port, baud = opt.baud, deliver = post}
