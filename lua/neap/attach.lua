--- neap.attach: a prompt inside a running server, and what `neap top` and `neap reload` ask it.
---
---   attach.serve{name = "plant", env = {app = app}, on_reload = fn}     -- in each worker of the server
---   local server = attach.open("plant")                                 -- in another process of the same user
---   server:run("1 + 1", io.write)
---
--- Messages over neap.control are JSON objects. From the client: {op = "hello" | "run" | "cancel" | "complete" | "stats" | "reload", ...}.
--- From the server: {out = text} at any time while a line runs, and one {done = ...} for each request. A connection has one session
-- (locals,
--- `_`), a line is a task, and the client's leaving cancels it.
local control = require "neap.control"
local json = require "neap.json"
local task = require "neap.task"
local term = require "neap.term"

local attach = {}

-- ---- the server's side --------------------------------------------------------------------------------------------------
local lag = {worst = 0, last = 0}

-- How late the loop is: a task sleeps a quarter of a second and looks how much longer it was. The worst of the last seconds is kept.
local function watch_lag()
    local worst, since = 0, task.now()
    while true do
        local due = task.now() + 0.25
        task.sleep(0.25)
        local late = math.max(0, task.now() - due)
        lag.last, worst = late, math.max(worst, late)
        if task.now() - since > 5 then lag.worst, worst, since = worst, 0, task.now() end
        lag.worst = math.max(lag.worst, worst)
    end
end

local started_at = os.time()

--- What `neap top` shows of this worker, as plain data.
function attach.stats(opts)
    local counters, gauges, latency = {}, {}, {}
    local metric = require "neap.metric"
    for _, m in ipairs(metric.snapshot()) do
        local sum, n = 0, 0
        for _, s in pairs(m.series) do
            if type(s) == "number" then sum = sum + s else sum, n = sum + s.sum, n + s.n end
        end
        if m.kind == "counter" then counters[m.name] = sum
        elseif m.kind == "gauge" then gauges[m.name] = sum
        else latency[m.name] = {sum = sum, n = n} end
    end
    local stats = {
        uptime = os.time() - started_at, memory = collectgarbage("count") * 1024, tasks = #task.list(), lag = lag.last,
            lag_worst = lag.worst,
        counters = counters, gauges = gauges, histograms = latency,
    }
    for k, v in pairs(opts and opts.stats and opts.stats() or {}) do stats[k] = v end
    return stats
end

local conversations = {} -- conn -> true

--- Writes a text above the prompt of everybody who is attached to this worker.
function attach.tell(text)
    for conn in pairs(conversations) do conn:send(json.encode({out = text .. "\n"}, {utf8 = "replace"})) end
end

-- Answers one connection until the other end leaves.
local function converse(conn, opts)
    conversations[conn] = true
    local Session = require "neap.repl_eval"
    local running
    local function say(message) conn:send(json.encode(message, {nan = "null", utf8 = "replace"})) end
    local session = Session.new{write = function(text) say{out = text} end, extra = opts.env, width = 80}
    function session.here.print(...)
        local parts = table.pack(...)
        for i = 1, parts.n do parts[i] = tostring(parts[i]) end
        say{out = table.concat(parts, "\t", 1, parts.n) .. "\n"}
    end
    session.here.help = function(what) require("neap.help").show(what, session) end
    session.here.plot = setmetatable({}, {__index = require "neap.plot", __call = function(_, v, o)
        o = o or {}
        o.colour, o.unicode = session.colour, session.unicode
        session:write(require("neap.plot")(v, o), "\n")
    end})
    session.names = opts.names
    for name, command in pairs(opts.commands or {}) do session.commands[name] = command end
    local answers = {}
    function answers.hello(m)
        session.width, session.colour, session.unicode = m.width or 80, m.colour == true, m.unicode == true
        local info = {name = opts.name, pid = opts.pid, worker = opts.worker, workers = opts.workers, version = neap.version,
            where = opts.where, note = opts.note and opts.note()}
        return info
    end
    function answers.run(m)
        running = task.spawn(function()
            local ok = session:run(m.text)
            say{done = ok == true}
        end):quiet()
        task.spawn(function() -- a line that is cancelled while it waits never reaches its own `done`
            local ended, e = running:wait()
            if ended then return end
            if type(e) == "table" and e.kind == "overrun" then say{out = tostring(e) .. "\n"} end -- its own time was over: it could not say so itself
            say{done = false}
        end)
    end
    function answers.cancel() if running then running:cancel("interrupted") end end
    function answers.complete(m)
        local ok, from, words = pcall(session.complete, session, m.text, m.cursor)
        return {from = ok and from or 0, words = json.array(ok and words or {})}
    end
    function answers.stats() return attach.stats(opts) end
    function answers.blocked(m)
        local seconds, at = 0, ""
        if opts.blocked then seconds, at = opts.blocked(m.worker) end
        return {seconds = seconds, at = at}
    end
    function answers.reload()
        if not opts.on_reload then return {ok = false, message = "this program has nothing to reload"} end
        local ok, result, message = pcall(opts.on_reload)
        if not ok then return {ok = false, message = tostring(result)} end
        return {ok = result ~= false, message = message}
    end
    local guard <close> = setmetatable({}, {__close = function() -- luacheck: ignore 211
        conversations[conn] = nil
        answers.cancel()
        conn:close()
    end})
    for text in function() return conn:recv() end do
        local message = json.decode(text)
        local answer = answers[message.op]
        if not answer then
            say{done = {error = "unknown request"}}
        else
            local reply = answer(message)
            if reply then say{done = reply} end
        end
    end
end

--- This process' number.
function attach.pid()
    local f = io.open("/proc/self/stat", "r")
    local pid = f and f:read("n")
    if f then f:close() end
    return math.tointeger(pid) or 0
end

--- Where the control socket of a worker of a process is. Worker 0 is the main thread of a server, which serves no requests.
function attach.path(pid, worker)
    local file = worker == 1 and "/%d.sock" or "/%d.%d.sock"
    return control.dir(true) .. file:format(pid, worker)
end

--- Opens the control socket of this worker. opts: name (shown and asked for), env (names for the prompt: app, store, ...), on_reload() ->
--- ok, message; stats() -> more fields for `neap top`; commands (more /commands), names(prefix) -> words for completion inside strings,
--- blocked(worker) -> seconds, "file:line" (of a sibling whose loop is blocked); note() -> a sentence that whoever attaches should read, or nil,
--- where (a text such as "http://127.0.0.1:5000"), worker and workers (numbers). Returns the server; its :close() removes the socket.
---@param opts? table
function attach.serve(opts)
    opts = opts or {}
    opts.pid = attach.pid()
    opts.worker, opts.workers = opts.worker or 1, opts.workers or 1
    local path = attach.path(opts.pid, opts.worker)
    local server = control.listen(path, function(conn)
        local ok, e = pcall(converse, conn, opts)
        if not ok and not (type(e) == "table" and e.kind == "cancelled") then
            require("neap.log").module "attach".warn("a conversation ended with an error", {error = tostring(e)})
        end
    end)
    require("neap.metric").gauge("neap_loop_lag_seconds", "How late the loop was at worst in the last seconds.", function() return lag.worst end)
    local watcher = task.spawn(watch_lag):quiet()
    return {path = path, close = function()
        watcher:cancel("the control socket is closed")
        server:close()
    end}
end

-- ---- the client's side --------------------------------------------------------------------------------------------------
local Client = {}
Client.__index = Client

local function connect(path)
    local conn = control.connect(path)
    local self = setmetatable({conn = conn, path = path, replies = task.channel(64)}, Client)
    self.out = io.write
    self.reader = task.spawn(function()
        for text in function() return conn:recv() end do
            local message = json.decode(text)
            if message.out then self.out(message.out) else self.replies:send(message) end
        end
        self.gone = true
        self.replies:close()
    end):quiet()
    return self
end

--- Sends a request and waits for its answer; raises {kind = "connection"} when the server has left.
function Client:ask(message)
    if self.gone or not self.conn:send(json.encode(message)) then error(task.error("connection", "the server has left"), 0) end
    local reply = self.replies:recv()
    if not reply then error(task.error("connection", "the server has left"), 0) end
    return reply.done
end

--- Introduces the client: what its terminal can do. Returns what the server is: {name, pid, worker, workers, version, where}.
function Client:hello()
    self.info = self:ask{op = "hello", width = term.width(), colour = term.colour(io.stdout), unicode = term.unicode()}
    return self.info
end

--- Runs a line there; its output goes to self.out meanwhile. A cancellation (Ctrl-C) is passed on. Returns true if all went well.
function Client:run(text)
    local ok, result = pcall(self.ask, self, {op = "run", text = text})
    if ok then return result == true end
    if type(result) == "table" and result.kind == "cancelled" then
        self.conn:send(json.encode{op = "cancel"})
        pcall(self.replies.recv, self.replies, 2) -- its `done`
    end
    error(result, 0)
end

function Client.status(_, text) return require("neap.repl_eval").status(nil, text) end

function Client:complete(text, cursor)
    local reply = self:ask{op = "complete", text = text, cursor = cursor}
    return reply.from, reply.words
end

function Client:prompt()
    local name = self.info.workers > 1 and ("%s/%d"):format(self.info.name or self.info.pid, self.info.worker)
        or tostring(self.info.name or self.info.pid)
    return term.paint(name .. "> ", "bold", term.colour(io.stdout))
end

function Client:close()
    self.gone = true
    self.reader:cancel("closed")
    self.replies:close()
    self.conn:close()
end
Client.__close = Client.close

local PATIENCE_S <const> = 1 -- a worker that has not introduced itself by then is busy with something else

-- What is known of the socket at `path`: what the worker says of itself, or {silent = true} if it does not answer, or nil if nobody is there.
local function introduce(path)
    local pid, worker = path:match "/(%d+)%.?(%d*)%.sock$"
    local ok, client = pcall(connect, path)
    if not ok then
        if type(client) == "table" and client.kind == "connection" then
            local alive = io.open("/proc/" .. (pid or "self") .. "/stat")
            if alive then alive:close() else os.remove(path) end
        end
        return nil
    end
    local said, info = pcall(task.timeout, PATIENCE_S, function() return client:hello() end)
    client:close()
    if not said then
        if not pid then return nil end
        info = {pid = math.tointeger(tonumber(pid)), worker = math.tointeger(tonumber(worker)) or 1, workers = 1, silent = true}
    end
    info.path = path
    return info
end

--- The running servers of this user: a list of {path, name, pid, worker, workers, version, where}, one for each worker, or {path, pid, worker,
--- silent = true} for one that does not answer. Worker 0 is a server's main thread, which has no requests and no prompt. Sockets that dead processes
--- left are removed. With a process id only its own are asked: another server that is busy costs nothing.
---@param pid? string
function attach.list(pid)
    local paths, found, by_path = {}, {}, {}
    for _, path in ipairs(control.list()) do
        if not pid or path:match "/(%d+)%.?%d*%.sock$" == pid then paths[#paths + 1] = path end
    end
    task.each(paths, function(path) by_path[path] = introduce(path) end)
    for _, path in ipairs(paths) do found[#found + 1] = by_path[path] end
    for _, info in ipairs(found) do -- a silent one is called what its siblings are called
        for _, other in ipairs(info.silent and found or {}) do
            if other.pid == info.pid and other.name then info.name, info.workers, info.where = other.name, other.workers, other.where end
        end
    end
    return found
end

-- One line for each server in a list of workers.
local function describe(list)
    local lines, of = {}, {}
    for _, info in ipairs(list) do
        local known = of[info.pid]
        if not known and info.worker > 0 then
            known = {info = info}
            of[info.pid], lines[#lines + 1] = known, known
        end
        if known and info.silent and info.worker > 0 then known.silent = true end
    end
    for i, one in ipairs(lines) do
        local info = one.info
        lines[i] = ("  %-8d %-16s %s%s%s"):format(info.pid, info.name or "", info.workers > 1 and info.workers .. " workers  " or "", info.where or "",
            one.silent and (info.workers > 1 and "  not all answer" or "  does not answer") or "")
    end
    return lines
end

--- Why a worker is silent, as far as its main thread knows, and what to do.
---@param info table as in attach.list
---@return string
function attach.silence(info)
    local where = ""
    local ok, client = pcall(connect, attach.path(info.pid, 0))
    if ok then
        local said, blocked = pcall(task.timeout, PATIENCE_S, function() return client:ask {op = "blocked", worker = info.worker} end)
        client:close()
        if said and blocked.seconds and blocked.seconds > 0 then
            where = (", blocked for %.1f s%s"):format(blocked.seconds, blocked.at ~= "" and " at " .. blocked.at or "")
        end
    end
    return ("%s does not answer (pid %d%s%s). A loop is stopped after --time-limit, and a worker that is stuck in C is replaced: try again; its log has "
        .. "the line. To end it: kill %d"):format(info.name or "neap", info.pid, info.workers > 1 and ", worker " .. info.worker or "", where, info.pid)
end

--- Connects to a running server: by process id, name or socket path; without a target to the only one there is.
---@param target? string
---@param worker? integer default 1; 0: the main thread, or worker 1 where a program has none of its own
function attach.open(target, worker)
    worker = worker or 1
    if target and target:find("/", 1, true) then
        local client = connect(target)
        local said = pcall(task.timeout, PATIENCE_S * 2, function() return client:hello() end)
        if said then return client end
        client:close()
        error(task.error("connection", ("nobody answers at %s: its loop is blocked. Try again, or end the process"):format(target)), 0)
    end
    local list, matches = attach.list(target and target:match "^%d+$"), {}
    if #list == 0 then list = attach.list() end -- a name of digits; or for the message
    local function look(wanted)
        for _, info in ipairs(list) do
            if info.worker == wanted and (not target or tostring(info.pid) == target or info.name == target) then matches[#matches + 1] = info end
        end
    end
    look(worker)
    if worker == 0 and #matches == 0 then look(1) end
    if #matches == 1 and not matches[1].silent then
        local client = connect(matches[1].path)
        client:hello()
        return client
    end
    local lines = describe(list)
    local why = #matches == 1 and attach.silence(matches[1])
        or #lines == 0 and "no neap server of this user is running; `neap serve` starts one"
        or #matches == 0 and ("there is no server '%s'%s; running are:\n%s"):format(target or "?", worker > 1 and " with a worker " .. worker or "",
            table.concat(lines, "\n"))
        or ("several servers are running; say which (process id or name):\n%s"):format(table.concat(lines, "\n"))
    error(task.error("connection", why), 0)
end

return attach
