--- Redis. The module is the default client; every command is a method; what waits lets other tasks run.
---
---   local redis = require "neap.redis"
---   redis.set("greeting", "hello", {ex = 60})              -- redis:set(...) is the same
---   print(redis.get "greeting", redis.get "missing")       -- hello  nil
---   local r <close> = redis.connect "redis://:secret@db:6379/2"
---   r:xadd("sensor:t", {temp = 21.5})
---   local all = r:pipeline(function(p) p:incr "a" p:hgetall "h" end)   -- one round trip: all[1], all[2], all.n
---
--- Which server the default client uses: redis.configure, else REDIS_URL (or the starter kit's REDIS_HOST, REDIS_PORT, REDIS_DB, REDIS_PASSWORD), else a
--- private redis-server in the data directory, started when first needed and ended with its last user.
--- Replies: missing is nil, null inside a list false; hgetall is a map, xrange a list of {id, ms, seq, fields}. Errors are raised as
--- {kind = "connection"|"auth"|"timeout"|"reply"|"closed", message, code, retryable, sent}; `sent` true: the command may have run. redis.try.get(k) and
--- r.try:get(k) return nil, error instead.
local core = require "neap.redis.core"
local commands = require "neap.redis_commands"
local args = require "neap.args"
local task = require "neap.task"

local redis = {}
local methods = {} -- of clients, besides the commands
local known = setmetatable({}, {__mode = "k"}) -- client -> {url=, opts=, idle = {dedicated...}, server=}

local OPTIONS <const> = {"url", "user", "password", "db", "name", "timeout", "connect_timeout", "max_queue"}
local OWN_OPTIONS <const> = {"dir", "serve", "fsync", "redis_exe", "log", "timeout", "name"}
local IDLE_MOST <const> = 8

-- ---- connecting -----------------------------------------------------------------------------------------------------

--- A client of the server at `url`: redis://[user:password@]host[:port][/db], unix:///path or a path. Nothing is opened before the first command.
--- opts: user, password, db, name (CLIENT SETNAME), timeout (5 s, a request's), connect_timeout (5 s), max_queue (1,000 commands may wait while Redis is away).
---@param url string|table
---@param opts? table
function redis.connect(url, opts)
    if type(url) == "table" then url, opts = url.url, url end
    opts = args.check(opts, OPTIONS, "redis.connect")
    if type(url) ~= "string" then error("redis.connect: a URL is wanted, such as redis://localhost:6379 or unix:///run/redis.sock", 2) end
    local client = core.open(url, opts)
    known[client] = {url = url, opts = opts, idle = {}}
    return client
end

local function log_line(level, line)
    if level == "warn" then require("neap.log").warn("redis: " .. line) end
end

--- A client of a redis-server of our own in `opts.dir`: started, or joined if another neap process runs it already; the last user ends it.
--- opts: dir, serve = true (the one serve of a directory: a second is refused with kind "in_use"), fsync ("always"), log = function(level, line).
--- The client's `socket` is the server's unix socket. Waits.
---@param opts table
function redis.private(opts)
    args.check(opts, OWN_OPTIONS, "redis.private")
    if type(opts.dir) ~= "string" then error("redis.private: dir, the data directory, is wanted", 2) end
    local server = core.own {dir = opts.dir, serve = opts.serve, fsync = opts.fsync, redis_exe = opts.redis_exe, log = opts.log or log_line}
    local socket, joined = server:socket()
    local escaped = socket:gsub("[%%?#]", function(c) return ("%%%02X"):format(c:byte()) end)
    local client = redis.connect("unix://" .. escaped, {timeout = opts.timeout, name = opts.name})
    local k = known[client]
    k.server, k.socket, k.joined, k.handlers = server, socket, joined, {disconnect = function() server:check() end}
    core.handlers(client, k.handlers)
    return client
end

local settings, lock = {}, task.mutex()
local defaults = {} -- [1]: the default client, once there is one; the commands in C look here

--- Leaves the server; waiting commands fail with kind "closed". May be called more than once.
function methods:close()
    local k = known[self]
    if self == defaults[1] then defaults[1] = nil end
    core.close(self)
    if not k then return end
    for _, c in ipairs(k.idle) do core.close(c) end
    k.idle = {}
    if k.server then k.server:close() end
end

--- What the default client will use: {url=} or {data = directory, serve=, fsync=}; before its first use.
function redis.configure(opts)
    args.check(opts, {"url", "data", "serve", "fsync", "timeout"}, "redis.configure")
    if defaults[1] then error("redis.configure: the default client is in use already; configure it at the start", 2) end
    settings = opts
end

--- REDIS_URL, or one made of the starter kit's variables; nil when none is set.
---@return string?
function redis.environment_url()
    local url, host, port = os.getenv "REDIS_URL", os.getenv "REDIS_HOST", os.getenv "REDIS_PORT"
    if url and url ~= "" then return url end
    if not host and not port then return nil end
    local password = os.getenv "REDIS_PASSWORD" or ""
    local login = password ~= "" and ":" .. password:gsub("[^%w%-._~]", function(c) return ("%%%02X"):format(c:byte()) end) .. "@" or ""
    return ("redis://%s%s:%s/%s"):format(login, host or "localhost", port or "6379", os.getenv "REDIS_DB" or "0")
end

--- The default client; the first call may wait, for the private server's start.
function redis.default()
    if defaults[1] then return defaults[1] end
    return lock:with(function()
        if defaults[1] then return defaults[1] end
        local url = settings.url or not settings.data and redis.environment_url()
        if url then
            defaults[1] = redis.connect(url, {timeout = settings.timeout})
        else
            local dir = settings.data or os.getenv "NEAP_DATA" or "neap-data"
            defaults[1] = redis.private {dir = dir, serve = settings.serve, fsync = settings.fsync, timeout = settings.timeout}
        end
        return defaults[1]
    end)
end

-- ---- connections of one's own -----------------------------------------------------------------------------------------

local function open_own(client)
    local k = known[client] or error("redis: not a client of redis.connect", 3)
    local opts = {dedicated = true}
    for name, value in pairs(k.opts) do opts[name] = value end
    return core.open(k.url, opts)
end

--- A connection for one user: WATCH, SELECT, CLIENT and whatever else changes it. Close it after use: local c <close> = r:dedicated()
--- It does not come back by itself when it is lost, because its state would not.
function methods:dedicated() return open_own(self) end

-- Runs send(c, ...) on a connection that nobody else uses; kept for the next one if all went well.
function commands.borrow(client, send, ...)
    local k = known[client] or error("redis: a blocking command needs a client of redis.connect", 3)
    local c = table.remove(k.idle) or open_own(client)
    local function after(ok, ...)
        if ok and #k.idle < IDLE_MOST and core.state(client) ~= "closed" then
            k.idle[#k.idle + 1] = c
        else
            core.close(c)
        end
        if not ok then error((...), 0) end
        return ...
    end
    return after(pcall(send, c, ...))
end

-- ---- many commands at once ----------------------------------------------------------------------------------------------

local function raise_first(results, failed, keep)
    if not failed or keep then return results end
    local e = results[failed]
    e.message = ("%s [command %d of %d]"):format(e.message, failed, results.n)
    e.results = results
    error(e, 0)
end

--- Commands given to p inside fn leave together and their results come back in order: a list with n (missing values are nil). If one fails its error is
--- raised once all have run (e.results has the rest); with {keep_errors = true} it stands in its place instead.
---@param fn fun(p: table)
---@param opts? {keep_errors?: boolean}
function methods:pipeline(fn, opts)
    args.check(opts, {"keep_errors"}, "redis.pipeline")
    local p = core.pipe()
    fn(p)
    local results, failed = core.run(self, p, false)
    return raise_first(results, failed, opts and opts.keep_errors)
end

local function transaction(client, fn, watched)
    local p = core.pipe()
    fn(p, watched)
    return core.run(client, p, true)
end

--- A transaction: all of fn's commands run, nothing in between. With {watch = key or list} it runs only if these keys did not change since fn began; fn(p, c)
--- then reads through c, a connection of its own, and is repeated up to `retries` times (default 0). Returns the results, or nil if it lost.
---@param fn fun(p: table, c: table)
---@param opts? {watch?: string|string[], retries?: integer, keep_errors?: boolean}
function methods:multi(fn, opts)
    opts = args.check(opts, {"watch", "retries", "keep_errors"}, "redis.multi")
    if not opts.watch then
        local results, failed = transaction(self, fn)
        return raise_first(results, failed, opts.keep_errors)
    end
    return commands.borrow(self, function(c)
        for _ = 0, opts.retries or 0 do
            commands.find "watch"(c, opts.watch)
            local results, failed = transaction(c, fn, c)
            if results then return raise_first(results, failed, opts.keep_errors) end
        end
        return nil
    end)
end

-- ---- scripts ------------------------------------------------------------------------------------------------------------

--- A server-side script as a function: fn(key..., arg...) with `opts.keys` keys (default 1). Sent once, then called by its digest; a server that has
--- forgotten it gets it again.
---@param source string
---@param opts? {keys?: integer, read_only?: boolean}
function methods:script(source, opts)
    opts = args.check(opts, {"keys", "read_only"}, "redis.script")
    local keys, client, sha = opts.keys or 1, self, nil
    local by_sha = commands.find(opts.read_only and "evalsha_ro" or "evalsha")
    return function(...)
        sha = sha or commands.find "script_load"(client, source)
        local function again(ok, e, ...)
            if ok then return e, ... end
            if type(e) ~= "table" or e.code ~= "NOSCRIPT" then error(e, 0) end
            return commands.find(opts.read_only and "eval_ro" or "eval")(client, source, keys, ...)
        end
        local given = table.pack(...)
        local ok, e = pcall(by_sha, client, sha, keys, ...)
        return again(ok, e, table.unpack(given, 1, given.n))
    end
end

-- ---- plain calls, errors as values ------------------------------------------------------------------------------------------

--- Any command by name: r:call("JSON.SET", key, "$", text). The reply is shaped as the method's would be.
function methods:call(name, ...) return commands.find(name)(self, ...) end

--- The same with the reply as it came from the wire.
function methods:raw(name, ...) return commands.raw(name)(self, ...) end

local LIFE <const> = {connection = true, auth = true, timeout = true, reply = true, closed = true, io = true}

local function as_values(ok, ...)
    if ok then return ... end
    local e = ...
    if type(e) == "table" and LIFE[e.kind] then return nil, e end
    error(e, 0)
end

-- ---- state ------------------------------------------------------------------------------------------------------------------

--- Calls fn (as a task) when the connection was lost ("disconnect", with the reason) or is back ("reconnect").
---@param event "disconnect"|"reconnect"
---@param fn fun(reason: string)
function methods:on(event, fn)
    if event ~= "disconnect" and event ~= "reconnect" then error("redis.on: 'disconnect' or 'reconnect'", 2) end
    local k = known[self]
    k.handlers = k.handlers or {}
    local before = k.handlers[event]
    k.handlers[event] = before and function(reason) before(reason) fn(reason) end or fn
    core.handlers(self, k.handlers)
end

--- Counters: commands, replies, errors, retries, connects, timeouts, bytes_out, queued, in_flight.
function methods:stats() return core.stats(self) end

--- How safe an acknowledged write is, by the server's own settings: {class = "always"|"everysec"|"rdb"|"none"|"unknown", text = sentence for people}.
---@return {class: string, text: string}
function methods:durability()
    local ok, c = pcall(commands.find "config_get", self, "appendonly", "appendfsync", "save")
    if ok and not (c.appendonly and c.appendfsync) then ok, c = pcall(commands.find "config_get", self, "*") end -- before Redis 7: one name a call
    if not ok then
        if type(c) ~= "table" or c.kind ~= "reply" then error(c, 0) end
        return {class = "unknown", text = "Redis does not tell its settings (" .. c.code .. "): how safe an acknowledged write is, is not known"}
    end
    if c.appendonly == "yes" and c.appendfsync == "always" then
        return {class = "always", text = "append-only file, synced before each answer: an acknowledged write is on disk"}
    elseif c.appendonly == "yes" then
        return {class = c.appendfsync == "everysec" and "everysec" or "none", text = c.appendfsync == "everysec" and
            "append-only file, synced each second: a crash may lose the last seconds of acknowledged writes" or
            "append-only file that is never synced: a power cut may lose half a minute of acknowledged writes"}
    elseif c.save and c.save ~= "" then
        return {class = "rdb", text = "snapshots only (save " .. c.save .. "): a crash loses what was acknowledged since the last one"}
    end
    return {class = "none", text = "no persistence: everything is lost when Redis ends"}
end

-- ---- putting it together ------------------------------------------------------------------------------------------------------

local fields = {} -- r.status and the like

--- "ready", "idle" (nothing sent yet), "connecting", "waiting" (to connect again) or "closed".
function fields.status(client) return (core.state(client)) end
function fields.last_error(client) return select(2, core.state(client)) end
function fields.url(client) return (known[client] and known[client].url or ""):gsub("(://[^/@]*):[^@/]*@", "%1:***@") end
function fields.socket(client) return known[client] and known[client].socket end
function fields.joined(client) return known[client] and known[client].joined end
function fields.try(client)
    return setmetatable({}, {__index = function(_, name)
        local fn = methods[name] or commands.find(name)
        return function(_, ...) return as_values(pcall(fn, client, ...)) end
    end})
end

local function is_command(name) return type(name) == "string" and name:find "^%a[%w_.%-]*$" ~= nil end

local function find(client, name)
    if fields[name] then return fields[name](client) end
    if not is_command(name) then return nil end
    local fn = commands.find(name)
    methods[name] = fn
    return fn
end

core.client_meta.__index = core.index(methods, find)
core.client_meta.__close = methods.close
core.pipe_meta.__index = setmetatable({call = function(p, name, ...) return commands.find(name)(p, ...) end,
    raw = function(p, name, ...) return commands.raw(name)(p, ...) end}, {__index = function(t, name)
    if not is_command(name) then return nil end
    local fn = commands.find(name)
    t[name] = fn
    return fn
end})

for _, part in ipairs {"neap.redis_streams", "neap.redis_pubsub"} do
    for name, fn in pairs(require(part)) do methods[name] = fn end
end

redis.try = setmetatable({}, {__index = function(t, name)
    return function(...)
        if (...) == t then return redis.default().try[name](...) end
        return redis.default().try[name](nil, ...)
    end
end})

-- redis.get(k) and redis:get(k): the default client's method.
setmetatable(redis, {
    __index = function(t, name)
        if fields[name] then return fields[name](redis.default()) end
        if not (methods[name] or is_command(name)) then return nil end
        local fn = methods[name] or commands.find(name)
        local call = core.on_default(fn, defaults, t, function() return redis.default() end) or function(...)
            if (...) == t then return fn(redis.default(), select(2, ...)) end
            return fn(redis.default(), ...)
        end
        rawset(t, name, call)
        return call
    end,
    __tostring = function() return defaults[1] and tostring(defaults[1]) or "redis (the default client, not connected yet)" end,
})

return redis
