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

--- Undoes worker.on.
function worker.off(topic, fn)
    for i, f in ipairs(listeners[topic] or {}) do
        if f == fn then
            table.remove(listeners[topic], i)
            return
        end
    end
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

-- ---- questions ----

local asked, asking = {}, 0

--- Calls fn(text, from) -> text for each question of this topic from another worker.
---@param topic string
---@param fn fun(text: string, from: integer): string
function worker.answer(topic, fn)
    worker.on(topic, function(message, from)
        local number, text = message:match "^(%d+)\n(.*)$"
        worker.send(from, "answer", number .. "\n" .. fn(text, from))
    end)
end

--- Asks another worker; nil if it is gone or does not answer within `timeout` seconds. Waits.
---@param to integer
---@param topic string
---@param text? string
---@param timeout? number default 1
---@return string? answer
function worker.ask(to, topic, text, timeout)
    asking = asking + 1
    local number, event = tostring(asking), require("neap.task").event()
    asked[number] = event
    local forget <close> = setmetatable({}, {__close = function() asked[number] = nil end}) -- luacheck: ignore 211
    if not core.send(to, topic, number .. "\n" .. (text or "")) then return nil end
    local ok, answer = event:wait(timeout or 1)
    return ok and answer or nil
end

worker.on("answer", function(message)
    local number, text = message:match "^(%d+)\n(.*)$"
    if asked[number] then asked[number]:set(text) end
end)

-- ---- threads that cannot be stopped ----

--- Puts a new thread with the same function and arguments in the place of a worker that sits in a C call which nobody can stop. The old one gets the
--- message "replaced" when it returns, should end then (neap.stop), and is not waited for. True, or false and why not. Only in worker 1.
function worker.replace(id) return core.replace(id) end

--- How many such threads there are, and whether this is one of them.
---@return integer count
---@return boolean me
function worker.lost() return core.lost() end

--- For how many seconds a worker's loop has been blocked, and where ("app.lua:12" or ""); 0 if it is not.
---@return number seconds
---@return string at
function worker.blocked(id) return core.blocked(id) end

--- A worker that answers "ping" with "pong": for trying things out.
function worker.echo()
    worker.on("ping", function(text, from) worker.send(from, "pong", text) end)
end

core.receiver(function(topic, text, from)
    local stop <close> = topic == "stop" and setmetatable({}, {__close = function() neap.stop() end}) or nil -- luacheck: ignore 211
    for _, fn in ipairs(listeners[topic] or {}) do fn(text, from) end
end)

return worker
