--- neap.ext.tasmota: readings from Tasmota plugs and sensor boards, the way they report by themselves.
---
--- On the device:  Rule1 ON Tele-* DO WebQuery http://neap:5000/tasmota/kitchen POST [Content-Type:application/json] %value% ENDON
--- In app.lua:     neap.use "tasmota"
---
--- A device sends everything it has in one nested object; each number in it becomes a sensor named after its way there:
--- {"Time":"2024-05-01T12:00:00","AM2301":{"Temperature":21.5}} from "kitchen" is the sensor kitchen.AM2301.Temperature. This is also
-- the model of a
--- pure-Lua extension: one file, one rockspec, a decoder and a route.
local tasmota = {name = "tasmota", version = "1.0", api = 1, help = "readings from Tasmota devices: POST /tasmota/:device"}

-- Numbers that are settings or bookkeeping of the device, not readings.
local SKIP = {TotalStartTime = true, Period = true, Epoch = true, UptimeSec = true, Heap = true, SleepMode = true, Sleep = true,
    MqttCount = true}

--- Seconds since 1970 of "2024-05-01T12:00:00" (taken as UTC) or with an offset "+02:00"; nil for anything else.
function tasmota.time(text)
    if type(text) ~= "string" then return nil end
    local y, mo, d, h, mi, s, rest = text:match("^(%d%d%d%d)%-(%d%d)%-(%d%d)T(%d%d):(%d%d):(%d%d)(.*)$")
    if not y then return nil end
    y, mo = math.tointeger(y), math.tointeger(mo) -- days since 1970 are counted here; os.time would use the local time zone
    local shifted_y, shifted_m = mo <= 2 and y - 1 or y, (mo + 9) % 12
    local days = 365 * shifted_y + shifted_y // 4 - shifted_y // 100 + shifted_y // 400 + (153 * shifted_m + 2) // 5 + tonumber(d) - 1 - 719468
    local sign, oh, om = rest:match("^([+-])(%d%d):(%d%d)$")
    local offset = sign and (tonumber(oh) * 3600 + tonumber(om) * 60) * (sign == "-" and -1 or 1) or 0
    return days * 86400 + tonumber(h) * 3600 + tonumber(mi) * 60 + tonumber(s) - offset
end

--- The readings in a decoded Tasmota message.
---@param message table
---@param device? string put before each sensor's name
---@return {sensor: string, value: number, time: number?}[]
function tasmota.readings(message, device)
    local out, time = {}, tasmota.time(message.Time)
    local function walk(value, name, depth)
        if type(value) == "number" then
            out[#out + 1] = {sensor = name, value = value, time = time}
        elseif type(value) == "boolean" or value == "ON" or value == "OFF" then
            out[#out + 1] = {sensor = name, value = (value == true or value == "ON") and 1 or 0, time = time}
        elseif type(value) == "table" and depth < 6 then
            local keys = {}
            for k in pairs(value) do keys[#keys + 1] = k end
            table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
            for _, k in ipairs(keys) do
                if not SKIP[k] then walk(value[k], (name ~= "" and name .. "." or "") .. tostring(k), depth + 1) end
            end
        end
    end
    walk(message, device or "", 0)
    return out
end

-- POST /receive with this content type works as well; the device's name is its Topic then.
tasmota.decoders = {
    ["application/x-tasmota"] = function(body)
        local message = require("neap.json").decode(body)
        local device = message.Topic or message.DeviceName
        message.Topic, message.DeviceName = nil, nil
        return tasmota.readings(message, device)
    end,
}

function tasmota.routes(app, here)
    app:post("/tasmota/:device", function(req) return here.receive(tasmota.readings(req:json(), req.params.device)) end)
end

-- The fields of an extension are fixed; what else is here is for its users and its spec.
local public = {}
for _, field in ipairs{"name", "version", "api", "help", "decoders", "routes"} do public[field] = tasmota[field] end
return setmetatable(public, {__index = tasmota})
