---@meta neap.redis
-- The commands of neap.redis that people use most; every other works the same way. What makes clients stands in lua/neap/redis.lua itself.
-- Each is a method of a client (r:get(key)) and a function of the module, which is the default client (redis.get(key)). All wait.

---@class neap.redis.Entry
---@field id string
---@field ms integer
---@field seq integer
---@field fields table<string, string>

---@class neap.redis
---@field status "idle"|"connecting"|"ready"|"waiting"|"closed"
---@field last_error string
---@field url string without its password
---@field socket? string the private server's unix socket
---@field joined? boolean true: another process had started the private server
---@field try neap.redis the same commands; they return nil, error instead of raising
local redis = {}

---@class neap.redis.Subscription
local subscription = {}

---The next message {channel, data, pattern}; nil when closed or when nothing came for `timeout` seconds. Waits.
---@param timeout? number
function subscription:next(timeout) end

---for m in sub:messages() do m.channel, m.data end
---@param timeout? number
function subscription:messages(timeout) end

---Ends the subscription; a task waiting for it gets nil.
function subscription:close() end

---How many messages wait, how many were dropped because the queue was full, how often the connection was lost.
---@return integer queued
---@return integer dropped
---@return integer lost
function subscription:info() end

---The string at a key; nil if there is none.
---@return string?
function redis.get(key) end

---Stores a string. opts: ex = seconds to live, nx = only if missing, xx = only if there, get = return the old value, keepttl. Returns "OK", or nil if a condition failed.
---@return string?
function redis.set(key, value, opts) end

---The strings at several keys; false for a missing one.
---@return (string|false)[]
function redis.mget(...) end

---Stores several: r:mset{a = 1, b = 2}.
---@return string
function redis.mset(map) end

---Deletes keys; how many there were.
---@return integer
function redis.del(...) end

---Deletes keys, freeing their memory in the background.
---@return integer
function redis.unlink(...) end

---How many of the keys exist.
---@return integer
function redis.exists(...) end

---Lets a key live so many whole seconds more. opts: nx, xx, gt, lt.
---@return integer
function redis.expire(key, seconds, opts) end

---Seconds a key has left to live; -1 for ever, -2 missing.
---@return integer
function redis.ttl(key) end

---"string", "list", "hash", "set", "zset", "stream" or "none".
---@return string
function redis.type(key) end

---Adds one; the new value.
---@return integer
function redis.incr(key) end

---Adds n; the new value.
---@return integer
function redis.incrby(key, n) end

---Adds a float; the new value as text.
---@return string
function redis.incrbyfloat(key, x) end

---Appends to a string; its new length.
---@return integer
function redis.append(key, text) end

---Sets hash fields: r:hset(key, {a = 1}) or r:hset(key, "a", 1). How many are new.
---@return integer
function redis.hset(key, fields) end

---One field of a hash.
---@return string?
function redis.hget(key, field) end

---Several fields; false for a missing one.
---@return (string|false)[]
function redis.hmget(key, ...) end

---A hash as a map; empty if there is none.
---@return table<string,string>
function redis.hgetall(key) end

---Deletes fields; how many there were.
---@return integer
function redis.hdel(key, ...) end

---Adds n to a field; the new value.
---@return integer
function redis.hincrby(key, field, n) end

---How many fields a hash has.
---@return integer
function redis.hlen(key) end

---Puts values before a list; its new length.
---@return integer
function redis.lpush(key, ...) end

---Puts values behind a list; its new length.
---@return integer
function redis.rpush(key, ...) end

---Takes the first value.
---@return string?
function redis.lpop(key) end

---Takes the last value.
---@return string?
function redis.rpop(key) end

---Part of a list, from 0, negative from the end.
---@return string[]
function redis.lrange(key, first, last) end

---Length of a list.
---@return integer
function redis.llen(key) end

---Keeps only this part of a list.
---@return string
function redis.ltrim(key, first, last) end

---Waits for the first value of a list: {key, value}, or nil when the time is over (0: for ever). On a connection of its own. Waits.
---@return string[]?
function redis.blpop(key, seconds) end

---As blpop, from the end. Waits.
---@return string[]?
function redis.brpop(key, seconds) end

---Adds members to a set; how many are new.
---@return integer
function redis.sadd(key, ...) end

---Removes members; how many there were.
---@return integer
function redis.srem(key, ...) end

---All members of a set.
---@return string[]
function redis.smembers(key) end

---1 if it is a member.
---@return integer
function redis.sismember(key, member) end

---How many members a set has.
---@return integer
function redis.scard(key) end

---Adds score, member pairs to a sorted set.
---@return integer
function redis.zadd(key, ...) end

---Part of a sorted set. opts: withscores, byscore, bylex, rev, limit = {offset, count}.
---@return string[]
function redis.zrange(key, first, last, opts) end

---A member's score.
---@return string?
function redis.zscore(key, member) end

---Removes members; how many there were.
---@return integer
function redis.zrem(key, ...) end

---How many members a sorted set has.
---@return integer
function redis.zcard(key) end

---Adds an entry to a stream: r:xadd(key, {temp = 21.5}); its ID. opts: id, maxlen, minid, approx = true, nomkstream. Also xadd(key, id, field, value, ...).
---@return string
function redis.xadd(key, fields, opts) end

---Entries between two IDs ("-" and "+" are the ends), opts: count.
---@return neap.redis.Entry[]
function redis.xrange(key, from, to, opts) end

---As xrange, newest first.
---@return neap.redis.Entry[]
function redis.xrevrange(key, from, to, opts) end

---What came after the given IDs: r:xread({s = last}, {count =, block = seconds}); nil if nothing.
---@return table<string, neap.redis.Entry[]>?
function redis.xread(from, opts) end

---As xread for a consumer group: from = {s = ">"}.
---@return table<string, neap.redis.Entry[]>?
function redis.xreadgroup(group, consumer, from, opts) end

---Marks entries of a group as done.
---@return integer
function redis.xack(key, group, ...) end

---How many entries a stream has.
---@return integer
function redis.xlen(key) end

---Shortens a stream: r:xtrim(key, "MAXLEN", "~", 1000).
---@return integer
function redis.xtrim(key, ...) end

---Deletes entries by ID.
---@return integer
function redis.xdel(key, ...) end

---One step over all keys: {next cursor, {keys}}. opts: match, count, type. Begin and end with "0".
---@return table
function redis.scan(cursor, opts) end

---All keys that match; on a large Redis use scan.
---@return string[]
function redis.keys(pattern) end

---Sends a message; how many subscribers got it.
---@return integer
function redis.publish(channel, data) end

---Runs a Lua script in the server; see redis.script.
---@return any
function redis.eval(script, nkeys, ...) end

---The server's INFO as one flat map.
---@return table<string, string|number>
function redis.info(section) end

---r:config("get", "save") -> map; r:config("set", name, value).
---@return any
function redis.config(sub, ...) end

---"PONG".
---@return string
function redis.ping() end

---The server's clock: {seconds, microseconds}.
---@return string[]
function redis.time() end

---How many keys there are.
---@return integer
function redis.dbsize() end

---Deletes every key of the database.
---@return string
function redis.flushdb() end

---Commands given to p inside fn(p) leave together; a list of their results with n. The first error is raised once all ran; {keep_errors = true} leaves errors in place. Waits.
---@return table results
function redis.pipeline(fn, opts) end

---A transaction; {watch = key or list, retries = n}: nil when a watched key changed. Waits.
---@return table? results
function redis.multi(fn, opts) end

---A server-side script as a function fn(key..., arg...); opts.keys says how many keys (1).
---@return function
function redis.script(source, opts) end

---Iterates over a stream; opts: from, batch, block = seconds to wait for more (math.huge: for ever). Waits.
---@return fun(): neap.redis.Entry?
function redis.stream(key, opts) end

---Iterates over a consumer group's work: entry, ack; opts: consumer, batch, block, claim_idle. Waits.
---@return fun(): neap.redis.Entry?, function?
function redis.group(key, group, opts) end

---A sensor's stream (fields: event time, and a value or several as neap stores them) as two tensors sorted by time, decoded in C:
---{time =, value =, n =, last_id =, first_id =, entries =, skipped =}; opts: max, unique,
---dtype. Waits.
---@return table
function redis.columns(key, from, to, opts) end

---Subscribes to channels and patterns; returns once confirmed. Waits.
---@return neap.redis.Subscription
function redis.subscribe(...) end

---A connection of one's own, for WATCH, SELECT and CLIENT; local c <close> = r:dedicated().
---@return neap.redis
function redis.dedicated() end

---Any command by name: r:call("JSON.SET", key, "$", text). Waits.
---@return any
function redis.call(name, ...) end

---As call, with the reply as it came from the wire. Waits.
---@return any
function redis.raw(name, ...) end

---fn(reason) as a task when the connection is lost ("disconnect") or back ("reconnect").
function redis.on(event, fn) end

---Counters: commands, replies, errors, retries, connects, timeouts, bytes_out, queued, in_flight.
---@return table<string, integer>
function redis.stats() end

---How safe an acknowledged write is by the server's own settings: always, everysec, rdb, none, unknown. Waits.
---@return {class: string, text: string}
function redis.durability() end

---Leaves the server; waiting commands fail with kind "closed".
function redis.close() end
