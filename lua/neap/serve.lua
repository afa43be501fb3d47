--- The server: workers, each with its own loop, connection to Redis, HTTP listener and share of the scoring.
--
-- `neap serve` calls serve.start(opt) on the main thread, which is worker 1; the others run serve.worker(opt as JSON) in
-- threads of their own. They share nothing but Redis and short messages (worker.send). A user's app.lua adds routes, or
-- returns an app of its own to be served instead:
--
--     -- app.lua
--     return function(app, here)
--         app:get("/hello", function(req) return {hello = here.specs.list[1].name} end)
--     end

local attach = require "neap.attach"
local guard = require "neap.guard"
local ingest = require "neap.ingest"
local journal = require "neap.journal"
local json = require "neap.json"
local log = require("neap.log").module "serve"
local metric = require "neap.metric"
local reload = require "neap.reload"
local rollup = require "neap.rollup"
local scorer = require "neap.scorer"
local serve_commands = require "neap.serve_commands"
local serve_metrics = require "neap.serve_metrics"
local session = require "neap.session"
local task = require "neap.task"
local tokens = require "neap.tokens"
local version = require "neap.version"
local worker = require "neap.worker"

local serve = {}

-- ---- metrics of all workers ----

--- A function that asks every other worker for its numbers: one snapshot for each.
local function snapshots_of(me, count)
    if count == 1 then return function() return {metric.snapshot()} end end
    local waiting
    worker.on("metrics?", function(_, from) worker.send(from, "metrics", json.encode(metric.snapshot(), {nan = "null"})) end)
    worker.on("metrics", function(text)
        if not waiting then return end
        waiting.list[#waiting.list + 1] = json.decode(text)
        if #waiting.list == count then waiting.event:set() end
    end)
    local one_at_a_time = task.mutex()
    return function()
        return one_at_a_time:with(function()
            waiting = {list = {metric.snapshot()}, event = task.event()}
            worker.send("all", "metrics?", tostring(me))
            waiting.event:wait(1) -- a worker that is busy for longer is left out this time
            local list = waiting.list
            waiting = nil
            return list
        end)
    end
end

--- here.metrics() is the text for Prometheus, here.totals({accepted = "neap_readings_total"}) the sums of a few, both over all workers.
local function count_together(here, me, count)
    local snapshots = snapshots_of(me, count)
    function here.metrics() return metric.text(table.unpack(snapshots())) end
    function here.totals(names)
        local out, by_name = {}, {}
        for _, one in ipairs(metric.merge(table.unpack(snapshots()))) do by_name[one.name] = one.series[""] end
        for name, of in pairs(names) do out[name] = by_name[of] or 0 end
        return out
    end
end

-- ---- one worker ----

--- The surroundings of the routes in this thread: scoring, times for untimed readings, counters.
---@param me integer this worker's number
---@param count integer how many there are
local function furnish(here, opt, me, count)
    here.workers, here.started_at, here.query_ingest = count, neap.clock(), opt.allow_get
    if opt.guarded or opt.rate_limit then
        here.guard = guard.new {tokens = opt.guarded and tokens.open(here.data) or nil, rate = opt.rate_limit, shared = here.data}
    end
    here.durability = here.redis:durability()
    if here.journal then here.durability.text = journal.promise(here.durability.class) end
    here.rollup = rollup.new(here.store, {
        spec = function(name) return here.specs:get(name) end, mine = function(name) return scorer.owner(name, count) == me end,
    })
    local function send(to, sensor) worker.send(to, "stored", sensor) end
    here.scorer = scorer.new(here, {me = me, workers = count, send = send, rollup = here.rollup})
    worker.on("stored", function(sensor) here.scorer:told(sensor) end)
    here.clock = task.every(2, function() here.scorer:tick() end)
    here.news = here.journal and journal.news(here.journal, function(sensors) here.scorer:stored(sensors) end)
    count_together(here, me, count)
    here.store:load_sensors()
    here.context = {
        specs = here.specs, limits = ingest.limits(here.specs), whole = here.journal ~= nil,
        stamp = here.journal and function() return here.journal:stamp() end or ingest.stamper(neap.clock, me, count),
        admit = function(name) return here.store:admit(name) end,
    }
    here.reload = reload.new {
        workers = count,
        build = function() return version.build(here, opt) end, -- aside; a mistake leaves what serves as it is
        commit = function(new)
            version.commit(here, new)
            new.app:take_over(here.server)
            task.spawn(function()
                here.scorer:forget()
                collectgarbage() -- the version before is a lot of garbage at once
            end)
        end,
        drop = version.drop,
        told = function(ok, message) attach.tell(ok and message or "reload failed, the old version goes on: " .. message) end,
        files = function() return version.files(here, opt) end,
    }
end

--- Listens, and opens the control socket for `neap attach`, `neap top` and `neap reload`.
local function open_doors(here, opt, share, me)
    local first = version.build(here, opt)
    version.commit(here, first)
    local tls = opt.tls_cert and {cert = opt.tls_cert, key = opt.tls_key} or nil
    here.server = first.app:listen {host = opt.host, port = opt.port, share = share, tls = tls}
    local where = ("%s://%s:%d"):format(tls and "https" or "http", opt.host, here.server:port())
    local env = setmetatable({here = here, store = here.store, redis = here.redis}, {__index = function(_, name)
        if name == "app" or name == "specs" then return here.version[name] end -- those in force now
    end})
    here.control = attach.serve {
        name = opt.name or "neap", env = env, where = where, worker = me, workers = here.workers, commands = serve_commands(here),
        note = function() return here.reload.last.error and "The last reload failed, the old version goes on: " .. here.reload.last.error end,
        names = function() return here.store:sensors() end, on_reload = me == 1 and function() return here.reload:now() end or nil,
        stats = function()
            local before = task.now()
            local ok = pcall(here.redis.ping, here.redis)
            return {redis_ms = ok and (task.now() - before) * 1e3 or nil, version = here.reload.last.count + 1, reload_error = here.reload.last.error}
        end,
    }
    serve_metrics(here)
    if here.workers > 1 then require("neap.log").context = function() return {worker = me} end end
    task.limits {warn = 0.2, stop = 2} -- a handler or an attached prompt in an endless loop is stopped; the others go on
end

local function close_doors(here, opt)
    here.control.close()
    here.clock:stop()
    here.server:drain(opt.drain)
    here.rollup:stop()
    here.scorer:save()
end

--- host and port of "127.0.0.1:5000", "[::1]:5000", ":5000" or "5000".
---@param text string
---@return string? host
---@return integer|string port or why
function serve.address(text)
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
    if opt.no_auth and opt.auth then error("--auth and --no-auth contradict each other", 0) end
    local near = opt.host == "localhost" or opt.host == "::1" or opt.host:find "^127%.%d+%.%d+%.%d+$" ~= nil
    if opt.no_auth or near and not opt.auth then return false end
    local data = session.directory(opt)
    if #tokens.open(data).list > 0 then return true end
    error(("%s, and there is no token yet that a device could show. Make one:\n    neap token add NAME --data %s\n"
        .. "Or, where everybody who can reach it may send and read, say --no-auth."):format(
        near and "--auth asks for tokens" or ("--listen %s opens neap to other machines"):format(opt.listen), data), 0)
end

--- Runs in every thread but the first.
---@param text string the options as JSON
function serve.worker(text)
    local opt = json.decode(text)
    local here = session.open(opt, {worker = true})
    local me, count = worker.self()
    here.socket, here.private = opt.socket, opt.socket ~= nil
    furnish(here, opt, me, count)
    open_doors(here, opt, "join", me)
    worker.send(1, "ready", "")
    worker.on("stop", function()
        close_doors(here, opt)
        here:close()
        worker.send(1, "gone", "")
    end)
end

-- ---- the main thread ----

local function banner(here, opt)
    local host = opt.host:find(":", 1, true) and "[" .. opt.host .. "]" or opt.host
    local url = ("%s://%s:%d"):format(opt.tls_cert and "https" or "http", host, opt.port)
    io.write(("neap %s listens on %s (%d worker%s)\n"):format(neap.version, url, here.workers, here.workers == 1 and "" or "s"))
    io.write("  Redis    ", here.private and "private, socket " .. here.socket or "external, " .. here.url:gsub("//.*@", "//"), "\n")
    io.write("  safety   ", here.durability.text, "\n")
    io.write(("  sensors  %s, %d described; others are accepted too\n"):format(here.specs_path, #here.specs.list))
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

--- Serve until SIGTERM or Ctrl-C.
---@param opt table the parsed command line
function serve.start(opt)
    local host, port = serve.address(opt.listen)
    if not host then error(port, 0) end
    opt.host, opt.port, opt.drain = host, port, 5
    if (opt.tls_cert == nil) ~= (opt.tls_key == nil) then error("TLS needs both --tls-cert and --tls-key", 0) end
    opt.guarded = guarded(opt)

    local here <close> = session.open(opt, {serve = true})
    local stop = task.event()
    neap.on_signal("TERM", function() stop:set "SIGTERM" end)
    neap.on_signal("INT", function() stop:set "Ctrl-C" end)
    neap.on_signal("HUP", function() here.reload:now() end)

    furnish(here, opt, 1, opt.workers)
    open_doors(here, opt, opt.workers > 1 and "first" or nil, 1)
    opt.port = here.server:port() -- with port 0 the system chooses one; the others must have the same
    if opt.workers > 1 then
        local ready = task.channel(opt.workers)
        worker.on("failed", function(why)
            stop:set("a worker failed: " .. why)
            ready:close()
        end)
        worker.on("ready", function() ready:send(true) end)
        local for_others = {app = opt.app, sensors = opt.sensors, data = here.data, host = host, port = opt.port, drain = opt.drain,
            redis = here.private and "unix://" .. here.socket or here.url, socket = here.socket, most_sensors = opt.most_sensors,
            name = opt.name, use = opt.use, guarded = opt.guarded, rate_limit = opt.rate_limit, allow_get = opt.allow_get,
            tls_cert = opt.tls_cert, tls_key = opt.tls_key}
        worker.start {count = opt.workers, module = "neap.serve", fn = "worker", args = {json.encode(for_others)}}
        for _ = 2, opt.workers do ready:recv(30) end -- what is printed below is true for all of them
    end
    local watch = here.reload:watch() -- an edit of the specs or of app.lua is in force half a second later
    banner(here, opt)

    local _, why = stop:wait()
    log.info("stopping", {why = why})
    watch:cancel "the server stops"
    if opt.workers > 1 then -- the others still need the Redis that this thread closes last
        local gone = task.channel(opt.workers)
        worker.on("gone", function() gone:send(true) end)
        worker.send("all", "stop", "")
        close_doors(here, opt)
        for _ = 2, opt.workers do gone:recv(opt.drain) end
    else
        close_doors(here, opt)
    end
end

return serve
