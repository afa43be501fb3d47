--- Redis commands as functions, made at first use: commands.xadd(client_or_pipe, ...). Any name works: known ones have their reply shaped (maps, stream
--- records), their option tables understood, reads marked as repeatable, blocking ones sent over a connection of their own; unknown names go to the
--- wire as they are. Containers: r:config("get", "save") and r:config_get("save") are the same.
local core = require "neap.redis.core"
local nearest = require("neap.args").hint

local commands = {}

-- ---- what is known about commands -----------------------------------------------------------------------------------
local function set(words)
    local s = {}
    for w in words:gmatch "%S+" do s[w] = true end
    return s
end

-- May be sent again after a lost connection: they change nothing.
local READS <const> = set [[
    get mget getrange substr strlen getbit bitcount bitpos bitfield_ro lcs exists type ttl pttl expiretime pexpiretime touch dump randomkey keys scan
    dbsize hget hmget hgetall hkeys hvals hlen hstrlen hexists hscan hrandfield lrange lindex llen lpos smembers sismember smismember scard srandmember
    sscan sinter sinterstore_ro sintercard sunion sdiff zrange zrangebyscore zrevrangebyscore zrangebylex zrevrangebylex zrevrange zrank zrevrank zscore
    zmscore zcard zcount zlexcount zscan zrandmember zinter zintercard zunion zdiff xrange xrevrange xread xlen xpending geopos geodist geohash geosearch
    georadius_ro georadiusbymember_ro pfcount sort_ro eval_ro evalsha_ro fcall_ro echo ping time lastsave info
    config_get client_id client_info client_list client_getname command_count command_info command_list memory_usage memory_stats object_encoding
    object_freq object_idletime object_refcount xinfo_stream xinfo_groups xinfo_consumers slowlog_get slowlog_len latency_latest latency_history
    pubsub_channels pubsub_numsub pubsub_numpat script_exists cluster_info cluster_nodes cluster_slots cluster_shards cluster_keyslot acl_whoami acl_list
    acl_getuser module_list function_list]]

-- Change what the connection is: sensible only on one that nobody else uses.
local OWN_CONNECTION <const> = set [[select watch unwatch multi exec discard auth hello reset quit client_reply client_setname client_tracking
    asking readonly readwrite]]
-- Never as plain commands.
local INSTEAD <const> = {
    subscribe = "r:subscribe(channel, ...)", psubscribe = "r:subscribe(pattern, ...)", ssubscribe = "r:subscribe(channel, ...)",
    unsubscribe = "the subscription's close()", punsubscribe = "the subscription's close()", monitor = "`redis-cli monitor`",
    sync = "a replica", psync = "a replica",
}
-- Wait in the server; the number says where their time limit stands: 1 last argument in seconds, 2 last in milliseconds, 3 first, 4 after BLOCK.
local BLOCKING <const> = {blpop = 1, brpop = 1, blmove = 1, brpoplpush = 1, bzpopmin = 1, bzpopmax = 1, wait = 2, waitaof = 2, blmpop = 3, bzmpop = 3,
    xread = 4, xreadgroup = 4}
local SHAPES <const> = {hgetall = "map", config_get = "map", memory_stats = "map", xinfo_stream = "map", xinfo_groups = "maps", xinfo_consumers = "maps",
    pubsub_numsub = "map", acl_getuser = "map", xrange = "entries", xrevrange = "entries", xclaim = "entries", xread = "streams",
    xreadgroup = "streams", xautoclaim = "claimed"}
local CONTAINERS <const> = set "acl client cluster command config debug function latency memory module object pubsub script slowlog xgroup xinfo"

-- Option tables: the trailing argument after `at` positional ones. "flag": true puts the word there; "value": word and value; "seconds": EX for whole
-- numbers, PX otherwise; "ms": seconds that Redis wants in milliseconds.
local OPTIONS <const> = {
    set = {at = 2, ex = "seconds", px = "value", exat = "value", pxat = "value", nx = "flag", xx = "flag", get = "flag", keepttl = "flag"},
    getex = {at = 1, ex = "seconds", px = "value", exat = "value", pxat = "value", persist = "flag"},
    expire = {at = 2, nx = "flag", xx = "flag", gt = "flag", lt = "flag"},
    scan = {at = 1, match = "value", count = "value", type = "value"},
    hscan = {at = 2, match = "value", count = "value"}, sscan = {at = 2, match = "value", count = "value"}, zscan = {at = 2, match = "value", count = "value"},
    zrange = {at = 3, byscore = "flag", bylex = "flag", rev = "flag", limit = "value", withscores = "flag"},
    zrangebyscore = {at = 3, withscores = "flag", limit = "value"}, zrevrangebyscore = {at = 3, withscores = "flag", limit = "value"},
    lpos = {at = 2, rank = "value", count = "value", maxlen = "value"},
    xrange = {at = 3, count = "value"}, xrevrange = {at = 3, count = "value"},
    xautoclaim = {at = 5, count = "value", justid = "flag"},
}

local function bad_option(name, key, known)
    local names, level = {}, 2
    for k in pairs(known) do if k ~= "at" then names[#names + 1] = k end end
    repeat -- the line is the user's: above this file, redis.lua's r:call and the command in C
        level = level + 1
        local at = debug.getinfo(level, "S")
    until not at or at.what ~= "C" and not at.source:find "neap/redis[%w_]*%.lua$"
    error(("redis.%s: unknown option '%s'%s"):format(name, tostring(key), nearest(tostring(key), names)), level)
end

-- Appends an option table to args (a list with n).
local function add_options(name, args, opts, known)
    for key, value in pairs(opts) do
        local kind = key ~= "at" and known[key] or bad_option(name, key, known)
        local word = key:upper()
        if kind == "flag" then
            if value then args[#args + 1] = word end
        elseif kind == "seconds" and math.type(value) == "float" and value % 1 ~= 0 then
            args[#args + 1], args[#args + 2] = "PX", math.max(1, math.floor(value * 1000 + .5))
        elseif kind == "ms" then
            args[#args + 1], args[#args + 2] = word, math.max(0, math.floor(value * 1000 + .5))
        else
            if kind == "seconds" then value = math.tointeger(value) end
            args[#args + 1] = word
            if type(value) == "table" then table.move(value, 1, #value, #args + 1, args) else args[#args + 1] = value end
        end
    end
    return args
end

-- Forms make wire arguments of those that a user gave, the last a table.
local function options_form(name, known)
    return function(...)
        local n = select("#", ...)
        local last = n > known.at and select(n, ...)
        if type(last) ~= "table" then return ... end
        local args = {...}
        args[n] = nil
        return table.unpack(add_options(name, args, last, known))
    end
end

-- ---- commands with a form of their own --------------------------------------------------------------------------------
local special = {}

local XADD <const> = {id = "value", maxlen = "value", minid = "value", approx = "flag", limit = "value", nomkstream = "flag"}

--- xadd(key, {field = value} [, {id="*", maxlen=, minid=, approx=true, nomkstream=}]) or Redis' own form xadd(key, "*", field, value, ...).
--- A list {f1, v1, f2, v2} keeps the order.
local function xadd_form(...)
    local key, fields, opts = ...
    if type(fields) ~= "table" or opts ~= nil and type(opts) ~= "table" then return ... end
    if not opts then return key, "*", fields end
    for k in pairs(opts) do if not XADD[k] then bad_option("xadd", k, XADD) end end
    local head = {}
    if opts.nomkstream then head[1] = "NOMKSTREAM" end
    local trim = opts.maxlen and "MAXLEN" or opts.minid and "MINID"
    if trim then
        head[#head + 1], head[#head + 2] = trim, opts.approx == false and "=" or "~"
        head[#head + 1] = opts.maxlen or opts.minid
        if opts.limit then head[#head + 1], head[#head + 2] = "LIMIT", opts.limit end
    end
    head[#head + 1] = opts.id or "*"
    return key, head, fields
end

-- {stream = id, ...} with {count=, block=seconds, noack=} -> words
local function streams(name, head, from, opts)
    local args, known = head, {count = "value", block = "ms", noack = "flag"}
    add_options(name, args, opts or {}, known)
    args[#args + 1] = "STREAMS"
    local ids = {}
    for stream, id in pairs(from) do args[#args + 1], ids[#ids + 1] = stream, id end
    table.move(ids, 1, #ids, #args + 1, args)
    return table.unpack(args)
end

--- xread({stream = last_id, ...} [, {count=, block=seconds}]) -> {stream = records}, or nil; or Redis' own form.
function special.xread(send)
    return function(client, from, opts, ...)
        if type(from) ~= "table" then return send(client, from, opts, ...) end
        return send(client, streams("xread", {}, from, opts))
    end
end

--- xreadgroup(group, consumer, {stream = ">"} [, {count=, block=seconds, noack=}]), or Redis' own form.
function special.xreadgroup(send)
    return function(client, group, consumer, from, opts, ...)
        if type(from) ~= "table" then return send(client, group, consumer, from, opts, ...) end
        return send(client, streams("xreadgroup", {"GROUP", group, consumer}, from, opts))
    end
end

--- wait(replicas, seconds)
function special.wait(send)
    return function(client, replicas, seconds) return send(client, replicas, math.floor((seconds or 0) * 1000)) end
end

--- info([section]) -> {name = value}, numbers as numbers.
function special.info(send)
    return function(client, ...)
        local text = send(client, ...)
        if not text then return nil end -- in a pipeline
        local map = {}
        for k, v in text:gmatch "([%w_%-%.]+):([^\r\n]*)" do map[k] = math.tointeger(v) or tonumber(v) or v end
        return map
    end
end

-- ---- making them ----------------------------------------------------------------------------------------------------
--- Set by redis.lua: runs send(c, ...) on a connection of its own.
commands.borrow = false

local function wire(name, words, shape, form)
    local send = core.command(name, words, {retry = READS[name], refused = OWN_CONNECTION[name], blocking = BLOCKING[name], shape = shape or SHAPES[name],
        form = form})
    if not BLOCKING[name] then return send end
    local four = BLOCKING[name] == 4
    return function(client, ...)
        if core.is_dedicated(client) then return send(client, ...) end
        if four then
            local waits = false
            for i = 1, select("#", ...) do
                local word = select(i, ...)
                waits = waits or type(word) == "string" and word:lower() == "block"
            end
            if not waits then return send(client, ...) end
        end
        return commands.borrow(client, send, ...)
    end
end

local function make(name)
    local container, rest = name:match "^(%l+)_(.+)$"
    local words = CONTAINERS[container] and {container:upper(), (rest:upper():gsub("_", "-"))} or {name:upper()}
    if INSTEAD[name] then
        return function() error(("redis.%s is not for a shared connection; use %s"):format(name, INSTEAD[name]), 2) end
    end
    if CONTAINERS[name] then
        return function(client, sub, ...)
            if type(sub) ~= "string" then error(("redis.%s: which one? For instance r:%s(\"help\")"):format(name, name), 2) end
            return commands.find(name .. "_" .. sub:lower():gsub("-", "_"))(client, ...)
        end
    end
    if special[name] then return special[name](wire(name, words)) end
    return wire(name, words, nil, name == "xadd" and xadd_form or OPTIONS[name] and options_form(name, OPTIONS[name]))
end

local made, raw = {}, {}

--- The function of a command, by its name in any case.
function commands.find(name)
    local fn = made[name]
    if fn then return fn end
    local lower = name:lower()
    fn = made[lower] or make(lower)
    made[lower], made[name] = fn, fn
    return fn
end

--- The function that gives a command's reply as it came: lists stay lists.
function commands.raw(name)
    local fn = raw[name]
    if not fn then
        local lower = name:lower()
        if INSTEAD[lower] then return commands.find(lower) end
        fn = wire(lower, {name:upper()}, "wire")
        raw[name] = fn
    end
    return fn
end

return commands
