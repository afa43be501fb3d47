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

local api = require "neap.api"
local http = require "neap.http"
local ingest = require "neap.ingest"
local json = require "neap.json"
local log = require("neap.log").module "serve"
local metric = require "neap.metric"
local scorer = require "neap.scorer"
local session = require "neap.session"
local task = require "neap.task"
local worker = require "neap.worker"

local serve = {}

-- ---- metrics of all workers ----

--- A function that asks every other worker for its numbers and adds them up.
local function metrics_of(me, count)
    if count == 1 then return metric.text end
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
            local text = metric.text(table.unpack(waiting.list))
            waiting = nil
            return text
        end)
    end
end

-- ---- one worker ----

--- The routes and their surroundings for this thread.
---@param here neap.Session
---@param opt table
---@param me integer this worker's number
---@param count integer how many there are
local function build_app(here, opt, me, count)
    here.workers, here.started_at = count, neap.clock()
    here.durability = here.redis:durability()
    here.scorer = scorer.new(here, {me = me, workers = count, send = function(to, sensor) worker.send(to, "stored", sensor) end})
    worker.on("stored", function(sensor) here.scorer:mine(sensor) end)
    here.metrics = metrics_of(me, count)
    here.store:load_sensors()
    here.context = {
        specs = here.specs, limits = ingest.limits(here.specs), stamp = ingest.stamper(neap.clock, me, count),
        admit = function(name) return here.store:admit(name) end,
    }
    local app = http.app {name = "neap"}
    api.routes(app, here)
    if opt.app then
        local chunk, why = loadfile(opt.app, "t")
        if not chunk then error(why, 0) end
        local mine = chunk()
        if type(mine) == "function" then
            mine(app, here)
        elseif (type(mine) == "table" or type(mine) == "userdata") and mine.listen then
            app = mine
        else
            error(opt.app .. " must return function(app, here) ... end, or an app of its own", 0)
        end
    end
    return app
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

--- Runs in every thread but the first.
---@param text string the options as JSON
function serve.worker(text)
    local opt = json.decode(text)
    local here = session.open(opt)
    local app = build_app(here, opt, worker.self())
    local server = app:listen {host = opt.host, port = opt.port}
    worker.on("stop", function()
        server:close(opt.drain)
        here:close()
    end)
end

-- ---- the main thread ----

local function banner(here, opt, port)
    local host = opt.host:find(":", 1, true) and "[" .. opt.host .. "]" or opt.host
    io.write(("neap %s listens on http://%s:%d (%d worker%s)\n"):format(neap.version, host, port, here.workers,
        here.workers == 1 and "" or "s"))
    if here.private then
        io.write(("  Redis    private, socket %s\n"):format(here.socket))
    else
        io.write "  Redis    external\n"
    end
    io.write(("  safety   %s\n"):format(here.durability.text))
    io.write(("  sensors  %s, %d described; others are accepted too\n"):format(here.specs_path, #here.specs.list))
    io.write(("  try      curl -d '[{\"sensor_name\":\"temperature\",\"sensor_output\":65}]' http://%s:%d/receive\n"):format(host, port))
    io.stdout:flush()
end

--- Serve until SIGTERM or Ctrl-C.
---@param opt table the parsed command line
function serve.start(opt)
    local host, port = serve.address(opt.listen)
    if not host then error(port, 0) end
    opt.host, opt.port, opt.drain = host, port, 5

    local here <close> = session.open(opt, {serve = true})
    local stop = task.event()
    neap.on_signal("TERM", function() stop:set "SIGTERM" end)
    neap.on_signal("INT", function() stop:set "Ctrl-C" end)

    local app = build_app(here, opt, 1, opt.workers)
    local server = app:listen {host = host, port = port}
    port = server.port or port -- with port 0 the system chooses one; the others must have the same
    if opt.workers > 1 then
        worker.on("failed", function(why) stop:set("a worker failed: " .. why) end)
        local for_others = {app = opt.app, sensors = opt.sensors, data = opt.data, host = host, port = port, drain = opt.drain,
            redis = here.private and "unix://" .. here.socket or opt.redis, most_sensors = opt.most_sensors}
        worker.start {count = opt.workers, module = "neap.serve", fn = "worker", args = {json.encode(for_others)}}
    end
    banner(here, opt, port)

    local _, why = stop:wait()
    log.info("stopping", {why = why})
    server:close(opt.drain)
end

return serve
