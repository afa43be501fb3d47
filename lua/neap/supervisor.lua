--- The main thread of `neap serve`: starts the workers, and keeps what must outlive any of them: the listening sockets, the private Redis, the
--- applier of the journal, signals, and the word on when all workers put a new version in force. It runs no user code, so nothing can block it.
---
--- A worker that sits in a C call which nobody can stop is replaced: a new thread takes its listening socket over (connections that wait in it are
--- served, none is lost) and its share of the sensors; the old one ends when its call returns. See serve.lua for the worker.

local attach = require "neap.attach"
local http = require "neap.http"
local json = require "neap.json"
local log = require("neap.log").module "serve"
local metric = require "neap.metric"
local Reload = require "neap.reload"
local secret = require "neap.secret"
local session = require "neap.session"
local task = require "neap.task"
local tokens = require "neap.tokens"
local worker = require "neap.worker"

local supervisor = {}

local MAIN <const> = 1 -- this thread's number; serving worker n is n + 1

--- host and port of "127.0.0.1:5000", "[::1]:5000", ":5000" or "5000".
---@param text string
---@return string? host
---@return integer|string port or why
function supervisor.address(text)
    local host, port = text:match("^%[(.+)%]:(%d+)$")
    if not host then host, port = text:match("^([^:]*):(%d+)$") end
    if not host then host, port = "", text:match("^(%d+)$") end
    local number = math.tointeger(tonumber(port or ""))
    if not number or number > 65535 then return nil, ("--listen wants HOST:PORT, such as 127.0.0.1:5000, not '%s'"):format(text) end
    return host == "" and "127.0.0.1" or host, number
end

--- Whether tokens are asked for: where other machines can reach neap, unless told otherwise. Raises when there are none yet.
---@param opt table with host
---@return boolean
local function guarded(opt)
    local near = opt.host == "localhost" or opt.host == "::1" or opt.host:find "^127%.%d+%.%d+%.%d+$" ~= nil
    if opt.no_auth or near and not opt.auth then return false end
    local data = session.directory(opt)
    if #tokens.open(data).list > 0 then return true end
    error(("%s, and there is no token yet that a device could show. Make one:\n    neap token add NAME --data %s\n"
        .. "Or, where everybody who can reach it may send and read, say --no-auth."):format(
        near and "--auth asks for tokens" or ("--listen %s opens neap to other machines"):format(opt.listen), data), 0)
end

local function banner(here, opt, said)
    local host = opt.host:find(":", 1, true) and "[" .. opt.host .. "]" or opt.host
    local url = ("%s://%s:%d"):format(opt.tls_cert and "https" or "http", host, opt.port)
    io.write(("neap %s listens on %s (%d worker%s)\n"):format(neap.version, url, opt.workers, opt.workers == 1 and "" or "s"))
    io.write("  Redis    ", here.private and "private, socket " .. here.socket or "external, " .. here.url:gsub("//.*@", "//"), "\n")
    if said.away then io.write("           away at present, readings are kept in the journal: ", said.away, "\n") end
    io.write("  safety   ", said.safety, "\n")
    io.write(("  sensors  %s, %d described; others are accepted too\n"):format(said.specs, said.described))
    if opt.guarded then
        io.write(("  tokens   asked for: `neap token list --data %s` names them\n"):format(here.data))
    elseif opt.no_auth then
        io.write("  tokens   not asked for: whoever reaches this address may send and read\n")
    else
        io.write("  tokens   not asked for: only this machine can reach neap. To open it to others:\n")
        io.write(("           neap token add NAME --data %s; neap serve --listen 0.0.0.0:%d --data %s\n"):format(here.data, opt.port, here.data))
    end
    local token = opt.guarded and '-H "Authorization: Token $TOKEN" ' or ""
    io.write(("  try      curl %s-d '[{\"sensor_name\":\"temperature\",\"sensor_output\":65}]' %s/receive\n"):format(token, url))
    io.stdout:flush()
end

-- ---- the life of the workers ----

--- Answers what the workers ask of this thread.
local function answer_workers(here, reload)
    worker.on("metrics?", function(_, from) worker.send(from, "metrics", json.encode(metric.snapshot(), {nan = "null"})) end)
    worker.answer("journal?", function() return here.journal and json.encode(here.journal:stats(), {nan = "null"}) or "" end)
    worker.answer("reload?", function()
        local ok, message = reload:now()
        return json.encode({ok = ok, message = message}, {utf8 = "replace"})
    end)
end

--- Puts a new thread in the place of a worker that is blocked in C.
local function replace(id, text)
    local n, seconds, at = id - MAIN, text:match "^(%S+) ?(.*)$"
    log.error("a worker is blocked in a C function that cannot be stopped; another thread takes its place",
        {worker = n, blocked_s = tonumber(seconds), where = at ~= "" and at or nil})
    os.remove(attach.path(attach.pid(), n)) -- the control socket's name is the new one's
    local ok, why = worker.replace(id)
    if not ok then log.error("the worker cannot be replaced", {worker = n, why = why}) end
end

--- What a worker must be told, as text.
local function for_workers(opt, here, sockets)
    local said = {fds = {}, started_at = neap.clock(), data = here.data, redis = here.private and "unix://" .. here.socket or here.url, socket = here.socket}
    for i = 1, #sockets do said.fds[i] = sockets[i] end
    for _, name in ipairs {"app", "sensors", "host", "port", "drain", "most_sensors", "name", "use", "guarded", "allow_host", "rate_limit", "allow_get",
        "tls_cert", "tls_key", "time_limit", "memory_limit"} do said[name] = opt[name] end
    return json.encode(said)
end

--- Starts them, and waits until each serves. Returns what they said of themselves; raises the error of one that cannot start.
local function start_workers(opt, here, sockets)
    local ready, begun = task.channel(opt.workers), false
    local failed = {}
    worker.on("failed", function(why, from)
        if not begun then
            ready:send {why = why}
            return
        end
        if failed[from] ~= why then -- a broken edit, perhaps: it is tried again until somebody mends it; its clients wait in the socket meanwhile
            log.error("a worker cannot start; tried again every second", {worker = from - MAIN, why = why})
        end
        failed[from] = why
        task.sleep(1)
        os.remove(attach.path(attach.pid(), from - MAIN))
        worker.replace(from)
    end)
    worker.on("ready", function(text, from)
        failed[from] = nil
        if begun then log.info("a new thread serves", {worker = from - MAIN}) else ready:send(json.decode(text)) end
    end)
    worker.on("returned", function(_, from) log.info("the thread that was blocked has returned, and ends", {worker = from - MAIN}) end)
    worker.start {count = opt.workers + MAIN, module = "neap.serve", fn = "worker", args = {for_workers(opt, here, sockets)}}
    local said
    for _ = 1, opt.workers do
        said = ready:recv(60) or {why = "a worker does not start: it has been at it for a minute"}
        if said.why then error(said.why, 0) end
    end
    begun = true
    worker.on("stuck", function(text, from) replace(from, text) end)
    return said
end

--- Serve until SIGTERM or Ctrl-C.
---@param opt table the parsed command line
function supervisor.start(opt)
    local host, port = supervisor.address(opt.listen)
    opt.host, opt.drain = assert(host, port), 4 -- seconds; all of it in 5
    opt.guarded = guarded(opt)

    local sockets = http.sockets {host = host, port = port, count = opt.workers} -- first: where the port is taken nothing is left behind
    local here <close> = session.open(opt, {serve = true})
    local path, deadline = here.data .. "/serve.lock", task.now() + opt.drain + 2 -- one that is ending may take so long
    local held = secret.lock(path)
    while not held and task.now() < deadline do
        task.sleep(0.1)
        held = secret.lock(path)
    end
    local lock <close> = held
    if not lock then
        error(("another `neap serve` uses the data directory %s: stop that one first, or give this one a directory of its own with --data")
            :format(here.data), 0)
    end
    opt.port = sockets.port -- with port 0 the system chose one
    local stop = task.event()
    neap.on_signal("TERM", function() stop:set "SIGTERM" end)
    neap.on_signal("INT", function() stop:set "Ctrl-C" end)

    local files = {}
    local reload
    reload = Reload.new {
        workers = opt.workers + MAIN, build = function() return true end, commit = function() end,
        files = function() return reload.reported or files end,
        blocked = function()
            for n = 1, opt.workers do
                local seconds, at = worker.blocked(n + MAIN)
                if seconds > 1 then
                    return ("worker %d does not answer, blocked for %.1f s%s; the old version goes on. Try again when it is free"):format(n, seconds,
                        at ~= "" and " at " .. at or "")
                end
            end
        end,
    }
    neap.on_signal("HUP", function() reload:now() end)
    answer_workers(here, reload)
    local said = start_workers(opt, here, sockets)
    files = said.files
    local control = attach.serve {name = opt.name or "neap", worker = 0, workers = opt.workers, on_reload = function() return reload:now() end,
        where = ("%s://%s:%d"):format(opt.tls_cert and "https" or "http", opt.host, opt.port), blocked = function(n) return worker.blocked(n + MAIN) end}
    local watch = reload:watch() -- an edit of the specs or of app.lua is in force half a second later
    banner(here, opt, said)

    local _, why = stop:wait()
    log.info("stopping", {why = why})
    watch:cancel "the server stops"
    control.close()
    sockets:close() -- the workers' copies are left: what still waits in them is served, nothing new comes
    local gone = task.channel(opt.workers) -- the workers still need the Redis that this thread closes last
    worker.on("gone", function() gone:send(true) end)
    local waited = 0
    for n = 1, opt.workers do
        if worker.blocked(n + MAIN) < 1 then waited = waited + 1 end -- one that is blocked cannot drain: it is stopped when this thread closes
    end
    worker.send("all", "stop", "")
    for _ = 1, waited do gone:recv(opt.drain) end
end

return supervisor
