--- neap mqtt: the bridge from an MQTT broker to a running server.
local args = require "neap.args"
local json = require "neap.json"
local mqtt = require "neap.ext.mqtt"

local opt = args.parse {
    name = "neap mqtt", summary = "Subscribes at an MQTT broker and posts each reading to a running neap.",
    positional = {{"host", default = "127.0.0.1", help = "the broker"}},
    options = {
        {"--port", type = "integer", default = 1883, help = "its port"},
        {"--topic", "-t", default = "sensors/#", help = "what to subscribe to"},
        {"--user", help = "name at the broker; its password is read from MQTT_PASSWORD"},
        {"--url", "-u", default = "http://127.0.0.1:5000/receive", help = "where to post"},
        {"--print", "-p", type = "flag", help = "print the readings as JSON lines instead of posting them"},
    },
}

local failures = 0
local function deliver(readings)
    local list = {}
    for i, r in ipairs(readings) do list[i] = {sensor_name = r.sensor, sensor_output = r.value} end
    local text = json.encode(list, {sort = true})
    if opt.print then
        print(text)
        io.stdout:flush()
        return
    end
    local ok, answer = pcall(require("neap.http").request, {method = "POST", url = opt.url, body = text, timeout = 5,
        headers = {["Content-Type"] = "application/json"}})
    local why = not ok and tostring(answer) or answer.status >= 300 and ("status %d: %s"):format(answer.status, (answer.body or ""):sub(1, 200))
    if why then
        failures = failures + 1
        if failures <= 3 then io.stderr:write("neap mqtt: not delivered: ", why, "\n") end
    end
end

mqtt.run {host = opt.host, port = opt.port, topics = {opt.topic}, user = opt.user, password = os.getenv "MQTT_PASSWORD", deliver = deliver}
