-- Tasks: every way to start, wait, join and cancel.
local task = require "neap.task"
assert(task.spawn(function(a, b) task.sleep(0) return a + b end, 1, 2):join() == 3)
local slow = task.spawn(task.sleep, 60):quiet()
task.yield()
slow:cancel "enough"
assert(not slow:wait())
assert(#task.map({1, 2, 3, 4}, function(x) task.yield() return x end, {limit = 2}) == 4)
pcall(task.group, function(g)
    g:spawn(function() task.sleep(0.005) end)
    g:spawn(function() task.yield() error {why = "on purpose"} end)
end)
local ok, e = pcall(task.timeout, 0.001, task.sleep, 60)
assert(not ok and (e.kind == "timeout" or e.message))
local c = task.channel(1)
local reader = task.spawn(function()
    local sum = 0
    for v in c:each() do sum = sum + v end
    return sum
end)
for i = 1, 5 do c:send(i, 2) end
c:close()
assert(reader:join() == 15)
local s, ev = task.semaphore(1), task.event()
task.after(0, function() ev:set(true) end)
s:with(function() ev:wait(5) end)
local ticks, limit = 0, task.now() + 2
local h = task.every(0.001, function() ticks = ticks + 1 end)
while ticks < 2 and task.now() < limit do task.sleep(0.001) end
h:stop()
local gen = coroutine.wrap(function()
    local guard <close> = setmetatable({}, {__close = function() task.yield() end}) -- luacheck: ignore 211
    for i = 1, 3 do task.sleep(0) coroutine.yield(i) end
end)
assert(gen() == 1 and gen() == 2)
