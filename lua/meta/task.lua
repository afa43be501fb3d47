---@meta neap.task
-- The part of neap.task that is C; the rest is documented in lua/neap/task.lua itself. Usage: local task = require "neap.task"

local task = {}

---Waits for so many seconds; other tasks run meanwhile. Waits.
---@param seconds number
function task.sleep(seconds) end

---The handle of the running task; nil in the main chunk.
---@return neap.task.handle?
function task.current() end

---The handles of all live tasks.
---@return neap.task.handle[]
function task.list() end

---How long the running task may run between two waits before it is stopped; 0: as long as it likes, nil: what task.limits says.
---@param seconds? number
function task.limit(seconds) end

---Seconds on a clock that never jumps; only differences mean something.
---@return number
function task.now() end

---@class neap.task.handle
local handle = {}

---Waits until the task is over: true and its results, false and its error, or nil when `timeout` seconds have passed. Waits.
---@param timeout? number
---@return boolean? ok
function handle:wait(timeout) end

---Asks the task to end: its present or next wait raises {kind = "cancelled", message = why}.
---@param why? string
function handle:cancel(why) end

---What is known about the task: id, status, name, waits_for, spawned_at, traceback.
---@return table info
function handle:info() end

---Gives the task a name for people; returns the handle.
---@param name string
function handle:named(name) end

---Says that somebody will look at the task's error, so that it is not printed; returns the handle.
function handle:quiet() end
