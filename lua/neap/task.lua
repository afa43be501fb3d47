--- Tasks: code that reads as if it blocked, and does not. Handlers, timers, REPL lines and specs are tasks; whatever waits (Redis, HTTP, sleep,
--- training) lets the others run meanwhile. Times are float seconds.
---
---   local t = task.spawn(function() task.sleep(1) return "done" end)
---   print(t:join())                                     -- raises the task's error if it failed
---   task.group(function(g) g:spawn(a) g:spawn(b) end)   -- ends when both ended; the first error cancels the rest
local core = require "neap.task.core"

local task = {sleep = core.sleep, current = core.current, list = core.list, now = core.now, limit = core.limit}

local function cancelled(e) return type(e) == "table" and e.kind == "cancelled" end

--- Starts fn(...) as a task and returns its handle: h:join(), h:wait(timeout), h:cancel(why), h:info(). It runs from the next turn on.
--- An error that nobody joins is printed with its traceback, and the script's exit code becomes 1.
function task.spawn(fn, ...) return core.spawn(fn, ...) end

local function outcome(ok, ...)
    if not ok then error((...), 0) end
    return ...
end

--- Waits for the task and returns its results; raises its error, or {kind="timeout"} after `timeout` seconds.
function core.handle.__index:join(timeout)
    local function result(ok, ...)
        if ok == nil then error(task.error("timeout", "task:join: not over after " .. timeout .. " s"), 0) end
        return outcome(ok, ...)
    end
    return result(self:wait(timeout))
end

local error_meta = debug.getregistry()["neap.error"]

--- An error object {kind, message}; raise it with error(e, 0).
function task.error(kind, message, fields)
    local e = fields or {}
    e.kind, e.message = kind, message
    if e.retryable == nil then e.retryable = false end
    return setmetatable(e, error_meta)
end

--- Lets every other ready task run once.
function task.yield() core.sleep(0) end

--- Runs fn(...); a cancellation of the task waits until it has returned.
function task.shield(fn, ...)
    core.shield(1)
    local guard <close> = setmetatable({}, {__close = function() core.shield(-1) end}) -- luacheck: ignore 211
    return fn(...)
end

--- Limits for this worker: warn (default 0.05) and stop (default 1) are the seconds that a task may run without waiting before it is reported and
--- before an error ends it; stuck (default 1) how long it may stay in one C call that cannot be stopped before that is reported and, in a
--- server, another thread takes the worker's place; memory is in bytes. warn = 0 switches the time limits off. Plain scripts have none.
function task.limits(opts)
    for k in pairs(opts) do
        if k ~= "warn" and k ~= "stop" and k ~= "memory" and k ~= "stuck" then
            error(("task.limits: unknown option '%s' (warn, stop, stuck, memory)"):format(k), 2)
        end
    end
    core.limits(opts.warn or 0.05, opts.stop or 1, opts.memory, opts.stuck)
end

--- Bytes that Lua holds in this worker, and how many times a task overran the warning.
function task.usage() return core.limits() end

-- ---- groups ---------------------------------------------------------------------------------------------------------
local Group = {}
Group.__index = Group

-- An error of one of its tasks ends the group: the first is kept, the others are cancelled.
local function fail(g, e)
    if g.failed or cancelled(e) then return end
    g.failed, g.error = true, e
    g:cancel("another task of its group failed")
end

--- Starts a task inside the group.
function Group:spawn(fn, ...)
    if self.closed then error("task.group: the group has ended", 2) end
    local function over(ok, ...)
        if ok then return ... end
        fail(self, (...))
        error((...), 0)
    end
    local h = core.spawn(function(...) return over(pcall(fn, ...)) end, ...):quiet()
    self.tasks[h] = true
    return h
end

--- Cancels every task of the group.
function Group:cancel(why)
    local me = core.current()
    for h in pairs(self.tasks) do
        if h ~= me then h:cancel(why or "the group was cancelled") end
    end
end

local function wait_group(g)
    while true do
        local h = next(g.tasks)
        if not h then return end
        local ok, e = h:wait()
        if not ok then fail(g, e) end
        g.tasks[h] = nil
    end
end

-- The body has returned, or raised.
local function leave(g, ok, ...)
    if not ok then g:cancel("the group's body failed") end
    local waited, e = pcall(wait_group, g)
    if not waited then
        g:cancel("the group was cancelled")
        task.shield(wait_group, g)
    end
    g.closed = true
    if g.failed then error(g.error, 0) end
    if not ok then error((...), 0) end
    if not waited then error(e, 0) end
    return ...
end

--- Runs body(g) and waits until every task started with g:spawn has ended. The first error cancels the rest and is raised here; an error or a
--- cancellation of the body cancels them all.
function task.group(body)
    local g = setmetatable({tasks = {}, failed = false, error = false, closed = false}, Group)
    return leave(g, pcall(body, g))
end

--- Runs every function at once; returns a list of their first results in the same order. The first error cancels the rest.
function task.all(...)
    local fns, results = table.pack(...), {}
    task.group(function(g)
        for i = 1, fns.n do g:spawn(function() results[i] = fns[i]() end) end
    end)
    return table.unpack(results, 1, fns.n)
end

--- Runs every function at once; returns the results of the first that ends well and cancels the others. Raises the last error if all fail.
function task.any(...)
    local fns, winner, last = table.pack(...), nil, nil
    local first = core.token()
    local left, handles = fns.n, {}
    for i = 1, fns.n do
        handles[i] = core.spawn(function()
            local r = table.pack(pcall(fns[i]))
            left = left - 1
            if r[1] and not winner then winner = r end
            if not r[1] then last = r[2] end
            if r[1] or left == 0 then first:wake() end
        end):quiet()
    end
    local ok, e = pcall(first.wait, first, "token")
    for _, h in ipairs(handles) do h:cancel("another task of task.any was first") end
    if not ok then error(e, 0) end
    if not winner then error(last, 0) end
    return table.unpack(winner, 2, winner.n)
end

--- Maps fn over a list with at most `limit` (default 8) tasks at once; returns the results in order. The first error cancels the rest.
function task.map(list, fn, opts)
    local limit, results, next_i = opts and opts.limit or 8, {}, 0
    task.group(function(g)
        for _ = 1, math.min(limit, #list) do
            g:spawn(function()
                while next_i < #list do
                    next_i = next_i + 1
                    local i = next_i
                    results[i] = fn(list[i], i)
                end
            end)
        end
    end)
    return results
end

--- As task.map, without results.
function task.each(list, fn, opts) task.map(list, fn, opts) end

--- Runs fn(...) with a time limit; raises {kind="timeout"} and cancels it when `seconds` are over.
function task.timeout(seconds, fn, ...)
    local h = core.spawn(fn, ...):quiet()
    local guard <close> = setmetatable({}, {__close = function() h:cancel("its time limit is over") end}) -- luacheck: ignore 211
    local function result(ok, ...)
        if ok == nil then error(task.error("timeout", ("not over within %g s"):format(seconds), {retryable = true}), 0) end
        return outcome(ok, ...)
    end
    return result(h:wait(seconds))
end

-- ---- timers ---------------------------------------------------------------------------------------------------------
local Timer = {}
Timer.__index = Timer

--- Stops the timer; a run in progress is cancelled.
function Timer:stop() self.handle:cancel("the timer was stopped") end
Timer.__close = Timer.stop

--- Runs fn once, `seconds` from now.
function task.after(seconds, fn)
    return setmetatable({handle = core.spawn(function() core.sleep(seconds) fn() end)}, Timer)
end

--- Runs fn every `seconds`; runs never overlap, a late one is skipped. An error is printed and the timer goes on.
--- opts: immediate = true (first run now), jitter = seconds (random extra before each run).
function task.every(seconds, fn, opts)
    opts = opts or {}
    if type(seconds) ~= "number" or seconds <= 0 then error("task.every: seconds must be more than zero", 2) end
    local function loop()
        local due = core.now() + (opts.immediate and 0 or seconds)
        while true do
            core.sleep(math.max(0, due - core.now()) + (opts.jitter and math.random() * opts.jitter or 0))
            local spawned, h = pcall(core.spawn, fn) -- without memory this run is left out
            local ok, e = pcall(spawned and h.wait or task.yield, h)
            if not ok then
                if spawned then h:cancel("the timer was stopped") end
                error(e, 0)
            end
            due = due + seconds
            if due < core.now() then due = core.now() + seconds end
        end
    end
    return setmetatable({handle = core.spawn(loop)}, Timer)
end

-- ---- channels, semaphores, mutexes, events ------------------------------------------------------------------------------
local Queue = {} -- first in, first out
Queue.__index = Queue
local function queue() return setmetatable({first = 1, last = 0}, Queue) end
function Queue:push(v) self.last = self.last + 1 self[self.last] = v end
function Queue:pop()
    if self.first > self.last then return nil end
    local v = self[self.first]
    self[self.first], self.first = nil, self.first + 1
    return v
end
function Queue:len() return self.last - self.first + 1 end

local function wake_one(waiters, value)
    while true do
        local token = waiters:pop()
        if not token then return false end
        if token:wake(value) then return true end -- those that left are skipped
    end
end

local Channel = {}
Channel.__index = Channel

--- A channel that holds up to `capacity` values (default 0: send waits for a receiver).
function task.channel(capacity)
    return setmetatable({capacity = capacity or 0, values = queue(), receivers = queue(), senders = queue(), closed = false}, Channel)
end

--- Sends a value (not nil); waits while the channel is full. False if the channel is closed or the time is over.
function Channel:send(value, timeout)
    if value == nil then error("channel:send: nil cannot be sent; use channel:close()", 2) end
    if self.closed then return false end
    if wake_one(self.receivers, value) then return true end
    if self.values:len() < self.capacity then
        self.values:push(value)
        return true
    end
    local token = core.token()
    self.senders:push(setmetatable({value = value, token = token}, {__index = {wake = function(s, v) return s.token:wake(v) end}}))
    local ok, sent = token:wait("channel:send", timeout)
    return ok and sent
end

--- Receives a value; nil when the channel is closed and empty, or when the time is over.
function Channel:recv(timeout)
    local value = self.values:pop()
    local function take_sender()
        while true do
            local s = self.senders:pop()
            if not s then return nil end
            if s:wake(true) then return s.value end
        end
    end
    if value ~= nil then
        local more = take_sender()
        if more ~= nil then self.values:push(more) end
        return value
    end
    value = take_sender()
    if value ~= nil then return value end
    if self.closed then return nil end
    local token = core.token()
    self.receivers:push(token)
    local _, v = token:wait("channel:recv", timeout)
    return v
end

--- No more values come: receivers get what is left, then nil; waiting senders get false.
function Channel:close()
    self.closed = true
    while wake_one(self.receivers, nil) do end
    while wake_one(self.senders, false) do end
end

--- for v in channel:values_iter() do ... end, until it is closed.
function Channel:each() return function() return self:recv() end end

local Semaphore = {}
Semaphore.__index = Semaphore

--- At most n tasks at once: s:with(fn, ...) or s:acquire() ... s:release().
function task.semaphore(n) return setmetatable({free = n, waiters = queue()}, Semaphore) end
function Semaphore:acquire(timeout)
    if self.free > 0 then
        self.free = self.free - 1
        return true
    end
    local token = core.token()
    self.waiters:push(token)
    return (token:wait("semaphore", timeout))
end
function Semaphore:release()
    if not wake_one(self.waiters) then self.free = self.free + 1 end
end
function Semaphore:with(fn, ...)
    self:acquire()
    local guard <close> = setmetatable({}, {__close = function() self:release() end}) -- luacheck: ignore 211
    return fn(...)
end

--- A semaphore of one.
function task.mutex() return task.semaphore(1) end

local Event = {}
Event.__index = Event

--- Something that happens once: e:set(value), e:wait(timeout) -> true, value | false.
function task.event() return setmetatable({waiters = queue(), is_set = false}, Event) end
function Event:set(value)
    if self.is_set then return end
    self.is_set, self.value = true, value
    while wake_one(self.waiters, value) do end
end
function Event:wait(timeout)
    if self.is_set then return true, self.value end
    local token = core.token()
    self.waiters:push(token)
    return token:wait("event:wait", timeout)
end

return task
