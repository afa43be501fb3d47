--- A worker of the server: its own loop, connection to Redis, HTTP listener and share of the scoring.
--
-- `neap serve` calls supervisor.start(opt) on the main thread, which serves nobody itself; each worker runs serve.worker(opt as JSON) in a thread of
-- its own. They share nothing but Redis, the journal and short messages (worker.send; serving worker n has the number n + 1 there, the main thread
-- is 1). A user's app.lua adds routes, or returns an app of its own to be served instead:
--
--     -- app.lua
--     return function(app, here)
--         app:get("/hello", function(req) return {hello = here.specs.list[1].name} end)
--     end

local attach = require "neap.attach"
local clocks = require "neap.clocks"
local feed = require "neap.feed"
local guard = require "neap.guard"
local ingest = require "neap.ingest"
local journal = require "neap.journal"
local json = require "neap.json"
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

local MAIN <const> = 1 -- the main thread's number

-- ---- metrics of all workers ----

--- A function that asks every other thread for its numbers: one snapshot for each.
local function snapshots_of()
    local waiting
    worker.on("metrics?", function(_, from) worker.send(from, "metrics", json.encode(metric.snapshot(), {nan = "null"})) end)
    worker.on("metrics", function(text)
        if not waiting then return end
        waiting.list[#waiting.list + 1] = json.decode(text)
        if #waiting.list == select(2, worker.self()) then waiting.event:set() end
    end)
    local one_at_a_time = task.mutex()
    return function()
        return one_at_a_time:with(function()
            waiting = {list = {metric.snapshot()}, event = task.event()}
            worker.send("all", "metrics?", "")
            waiting.event:wait(1) -- a worker that is busy for longer is left out this time
            local list = waiting.list
            waiting = nil
            return list
        end)
    end
end

--- here.metrics() is the text for Prometheus, here.totals({accepted = "neap_readings_total"}, {"neap_requests_refused_total"}) the sums of a few, and
--- of others that have one label the sums above 0 by its values; all over all workers.
local function count_together(here)
    local snapshots = snapshots_of()
    function here.metrics() return metric.text(table.unpack(snapshots())) end
    function here.totals(names, labelled)
        local out, parts, by_name = {}, {}, {}
        for _, one in ipairs(metric.merge(table.unpack(snapshots()))) do by_name[one.name] = one.series end
        for name, of in pairs(names) do out[name] = by_name[of] and by_name[of][""] or 0 end
        for _, of in ipairs(labelled) do
            for key, n in pairs(by_name[of] or {}) do
                if n > 0 then parts[key:match '"(.*)"' or key] = n end
            end
        end
        return out, parts
    end
end

-- ---- Redis, which may be away ----

local MEET_S <const> = 2 -- a start waits so long for a Redis that does not answer

--- Learns what only Redis can tell: how safe it is, and which sensors there are.
local function meet(here)
    here.durability = here.redis:durability()
    here.durability.text = journal.promise(here.durability.class, here.journal:stats().loose)
    here.store:load_sensors()
end

--- The same at a start. A Redis that is away or still loads its data keeps nobody from sending readings, as the journal takes them: then it is met
--- when it is back. Only one that was never met is an error: its address may be wrong.
local function meet_first(here)
    local ok, err = pcall(task.timeout, MEET_S, meet, here)
    if ok then return end
    local passing = type(err) == "table" and err.retryable
    if not (passing and (here.private or journal.has_met(here))) then error(err, 0) end
    here.away = tostring(err)
    here.durability = {class = "unknown", text = journal.promise("unknown, Redis is away", here.journal:stats().loose)}
    task.spawn(function()
        repeat task.sleep(1) until pcall(meet, here)
        here.away = nil
    end)
end

-- ---- one worker ----

--- The surroundings of the routes in this thread: scoring, times for untimed readings, counters.
---@param me integer this worker's number
---@param count integer how many there are
local function furnish(here, opt, me, count)
    here.workers, here.started_at, here.query_ingest = count, opt.started_at, opt.allow_get
    if opt.guarded or opt.rate_limit then
        here.guard = guard.new {tokens = opt.guarded and tokens.open(here.data) or nil, rate = opt.rate_limit, shared = here.data}
    end
    meet_first(here)
    here.rollup = rollup.new(here.store, {
        spec = function(name) return here.specs:get(name) end, mine = function(name) return scorer.owner(name, count) == me end,
        rest = function(took) return journal.rest(here.journal, took) end,
    })
    local function send(to, sensor) worker.send(to + MAIN, "stored", sensor) end
    here.scorer = scorer.new(here, {me = me, workers = count, send = send, rollup = here.rollup})
    worker.on("stored", function(sensor) here.scorer:told(sensor) end)
    here.clock = task.every(2, function() here.scorer:tick() end)
    here.news = journal.news(here.journal, function(sensors, from, to) here.scorer:stored(sensors, from, to) end)
    here.clocks = clocks.new(here.store)
    count_together(here)
    here.journal_stats = function() -- the main thread applies the journal and knows more of it
        local text = worker.ask(MAIN, "journal?", "", 0.5)
        return text and text ~= "" and json.decode(text) or here.journal:stats()
    end
    here.context = {
        specs = here.specs, limits = ingest.limits(here.specs), whole = true,
        stamp = function() return here.journal:stamp() end,
        admit = function(name) return here.store:admit(name) end,
    }
    here.reload = reload.new {
        workers = count + MAIN,
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
        files = function(new) return version.files(here, opt, new) end,
    }
    here.reload_all = function() -- all workers; returns ok and a sentence
        local text = worker.ask(MAIN, "reload?", "", 60)
        local answer = text and json.decode(text) or {ok = false, message = "the main thread does not answer"}
        return answer.ok, answer.message
    end
end

--- Listens, and opens the control socket for `neap attach`, `neap top` and `neap reload`.
local function open_doors(here, opt, me)
    local first = version.build(here, opt)
    version.commit(here, first)
    local tls = opt.tls_cert and {cert = opt.tls_cert, key = opt.tls_key} or nil
    here.server = first.app:listen {fd = opt.fds[me], tls = tls}
    local where = ("%s://%s:%d"):format(tls and "https" or "http", opt.host, here.server:port())
    local env = setmetatable({here = here, store = here.store, redis = here.redis}, {__index = function(_, name)
        if name == "app" or name == "specs" then return here.version[name] end -- those in force now
    end})
    here.control = attach.serve {
        name = opt.name or "neap", env = env, where = where, worker = me, workers = here.workers, commands = serve_commands(here),
        note = function() return here.reload.last.error and "The last reload failed, the old version goes on: " .. here.reload.last.error end,
        names = function() return here.store:sensors() end, on_reload = here.reload_all,
        stats = function()
            local before = task.now()
            local ok = pcall(here.redis.ping, here.redis)
            return {redis_ms = ok and (task.now() - before) * 1e3 or nil, version = here.reload.last.count + 1, reload_error = here.reload.last.error}
        end,
    }
    serve_metrics(here)
    if here.workers > 1 then require("neap.log").context = function() return {worker = me} end end
    task.limits {warn = 0.2, stop = opt.time_limit, memory = opt.memory_limit} -- a handler or a prompt in an endless loop is stopped; the others go on
end

local function close_doors(here, opt)
    here.control.close()
    here.clock:stop()
    feed.close()
    here.server:drain(opt.drain)
    here.rollup:stop()
    here.scorer:save()
end

local function run(opt, me, count)
    local here = session.open(opt, {worker = true})
    here.socket, here.private = opt.socket, opt.socket ~= nil
    furnish(here, opt, me, count)
    open_doors(here, opt, me)
    local function close()
        close_doors(here, opt)
        here:close()
    end
    worker.on("stop", function()
        close()
        worker.send(MAIN, "gone", "")
    end)
    worker.on("replaced", function() -- this thread was blocked, and another one serves by now: ends what it still has
        close()
        worker.send(MAIN, "returned", "")
        neap.stop()
    end)
    worker.send(MAIN, "ready", json.encode {files = version.files(here, opt), safety = here.durability.text, away = here.away, specs = here.specs_path,
        described = #here.specs.list})
end

--- What the thread of a worker runs.
---@param text string the options as JSON
function serve.worker(text)
    local me, total = worker.self()
    local ok, err = pcall(run, json.decode(text), me - MAIN, total - MAIN)
    if ok then return end
    worker.send(MAIN, "failed", tostring(err))
    neap.stop()
end

return serve
