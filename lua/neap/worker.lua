--- Workers: threads with a loop, a Lua state and connections of their own. They share no Lua values; what they say to each other is short text.
---
---   worker.start {count = 4, module = "neap.serve", fn = "run", args = {"app.lua"}}   -- this state becomes worker 1
---   worker.on("reload", function(text, from) ... end)                                 -- runs as a task for each message
---   worker.send("all", "reload", "")                                                  -- to every other worker
local core = require "neap.worker.core"

local worker = {}
local listeners = {}

--- This worker's number (1 is the main thread) and how many there are.
function worker.self() return core.self() end

--- Starts count - 1 threads, each of which runs require(module)[fn](args...) and then its loop. Arguments are strings. A worker that fails prints
--- why and sends "failed" to worker 1; all end when worker 1 closes.
function worker.start(opts)
    core.start(opts.count, opts.module, opts.fn, table.unpack(opts.args or {}))
end

--- Calls fn(text, from) as a task for each message of this topic. The topic "stop" comes when worker 1 closes.
function worker.on(topic, fn)
    listeners[topic] = listeners[topic] or {}
    table.insert(listeners[topic], fn)
end

--- Sends a text to worker `to`, or to "all" others; false if it is gone.
function worker.send(to, topic, text)
    if to ~= "all" then return core.send(to, topic, text) end
    local me, count = core.self()
    for id = 1, count do
        if id ~= me then core.send(id, topic, text) end
    end
    return true
end

--- A worker that answers "ping" with "pong": for trying things out.
function worker.echo()
    worker.on("ping", function(text, from) worker.send(from, "pong", text) end)
end

core.receiver(function(topic, text, from)
    local stop <close> = topic == "stop" and setmetatable({}, {__close = function() neap.stop() end}) or nil -- luacheck: ignore 211
    for _, fn in ipairs(listeners[topic] or {}) do fn(text, from) end
end)

return worker
