--- neap.ext.mqtt: readings from an MQTT broker.
---
---   return function(app, here)                                                     -- in app.lua: a task that reads for ever
---       neap.use("mqtt", {host = "127.0.0.1", topics = {"sensors/#"}, deliver = function(readings) here.receive(readings) end})
---   end
---   neap mqtt 127.0.0.1 --topic 'sensors/#'                                        -- or a bridge of its own to a running server
---
--- A payload that is a number is a reading of the sensor named like the topic; of a JSON object each number is one, named topic.key. The broker gets its
--- acknowledgement (QoS 1) when the message is here, which is before it is on disk: what is on its way when the power goes is lost.
local core = require "neap.ext.mqtt.core"

local mqtt = {name = "mqtt", version = "1.0", api = 1, help = "readings from an MQTT broker: numbers, and JSON objects of them"}

--- The readings {sensor =, value =} in a message, sorted by name, or nil and what is wrong with it.
---@param topic string
---@param payload string
function mqtt.readings(topic, payload)
    if topic == "" or #topic > 200 or topic:find("%c") or not utf8.len(topic) then return nil, "the topic is no sensor's name" end
    local function finite(v) return v and v - v == 0 end
    local number = not payload:find("[xX]") and tonumber(payload)
    if number then
        if not finite(number) then return nil, "the value is no number" end
        return {{sensor = topic, value = number}}
    end
    local ok, object = pcall(require("neap.json").decode, payload)
    if not ok or type(object) ~= "table" then return nil, "neither a number nor a JSON object" end
    local out = {}
    for key, value in pairs(object) do
        if type(key) == "string" and type(value) == "number" and finite(value) then
            out[#out + 1] = {sensor = key == "value" and topic or topic .. "." .. key, value = value}
        end
    end
    if #out == 0 then return nil, "no number in it" end
    table.sort(out, function(a, b) return a.sensor < b.sensor end)
    return out
end

--- A connection that the broker has accepted. opts: host, port (1883), id, user, password, keepalive (30 s). Waits.
function mqtt.connect(opts)
    local task = require "neap.task"
    local conn = core.connect(opts.host or "127.0.0.1", opts.port, opts.id, opts.user, opts.password, opts.keepalive)
    local deadline = task.now() + 15
    while not conn:pump() do
        conn:wait(math.max(0.001, deadline - task.now()))
    end
    return conn
end

--- for topic, payload, retained in mqtt.messages(conn) do ... end; raises kind "connection" when the broker has gone.
function mqtt.messages(conn)
    return function()
        while true do
            local topic, payload, retained = conn:take()
            if topic then return topic, payload, retained end
            local ok, e = pcall(conn.wait, conn, 2) -- the keepalive wants a turn now and then
            if not ok and not (type(e) == "table" and e.kind == "timeout") then error(e, 0) end
            conn:pump()
        end
    end
end

--- Reads for ever and hands the readings of each message to deliver(readings, topic); connects again when the broker went away. Until cancelled.
---@param opts {host: string?, port: integer?, topics: string[], deliver: fun(readings: table, topic: string), user: string?, password: string?, retry: number?}
function mqtt.run(opts)
    local task = require "neap.task"
    local log = require("neap.log").module "mqtt"
    local bad = 0
    while true do
        local ok, e = pcall(function()
            local conn <close> = mqtt.connect(opts)
            for _, topic in ipairs(opts.topics) do conn:subscribe(topic) end
            conn:pump()
            log.info("subscribed", {host = opts.host, topics = table.concat(opts.topics, " ")})
            for topic, payload in mqtt.messages(conn) do
                local readings, why = mqtt.readings(topic, payload)
                if readings then
                    opts.deliver(readings, topic)
                else
                    bad = bad + 1
                    if bad <= 3 then log.warn("skipped a message", {topic = topic:sub(1, 60), why = why}) end
                end
            end
        end)
        if not ok and type(e) == "table" and e.kind == "cancelled" then error(e, 0) end
        log.warn("waiting for the broker", {host = opts.host, why = tostring(e)})
        task.sleep(opts.retry or 2)
    end
end

local function setup(_, opts)
    if not opts.topics then return end
    if type(opts.deliver) ~= "function" then
        error("neap.use('mqtt', {topics = .., deliver = function(readings) .. end}): deliver is missing", 0) end
    mqtt.reader = require("neap.task").spawn(mqtt.run, opts)
end

local function stop()
    if mqtt.reader then mqtt.reader:cancel("the extension was reloaded") end
end

local public = {setup = setup, stop = stop}
for _, field in ipairs {"name", "version", "api", "help"} do public[field] = mqtt[field] end
return setmetatable(public, {__index = mqtt})
