-- Redis: replies of every shape, pipelines, transactions, scripts, streams, subscriptions.
local redis, task = require "neap.redis", require "neap.task"
local r <close> = redis.connect {url = "unix://" .. arg[1], timeout = 5}
r:set("k", "v", {ex = 60})
assert(r:get "k" == "v" and r:get "none" == nil)
r:hset("h", {a = 1, b = "x"})
assert(r:hgetall("h").b == "x")
r:pipeline(function(p) p:set("a", 1) p:incr "a" p:get "a" end)
r:multi(function(m) m:set("b", 2) m:get "b" end)
local f = r:script("return {KEYS[1], ARGV[1], {1, 2, false}}", {keys = 1})
f("key", "value")
r:del "s"
for i = 1, 20 do r:xadd("s", {value = i}) end
r:xrange("s", "-", "+", {count = 5})
pcall(r.call, r, "NONSENSE")
pcall(r.incr, r, "h")
r:columns("s", "-", "+")
local sub <close> = r:subscribe "news"
r:publish("news", "hello")
task.timeout(2, function() assert(sub:messages()().data == "hello") end)
local d <close> = r:dedicated()
pcall(task.timeout, 0.02, function() d:blpop("nothing", 5) end)
local away = redis.connect {url = "unix://" .. arg[0] .. "/nobody.sock", timeout = 0.05}
assert(not pcall(away.get, away, "k"))
away:close()
