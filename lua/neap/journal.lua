--- The journal: what is accepted is on disk before anybody is told so, and goes from there into Redis, in order and exactly once.
--
--     local j = journal.open{dir = "neap-data/journal"}                     -- every worker; they share one journal
--     journal.apply(j, {redis = "unix:///run/redis.sock", keys = store.journal_keys()})   -- one of them
--     local position, applied = j:append(batch, {visible = 0.2})           -- on disk now; `applied`: in Redis too
--
-- Redis may be slow, frozen, full or away: readings are taken until one of the journal's bounds, of bytes (max_bytes) or of age (max_age: for how
-- long the oldest may wait), then refused with kind "full".

local core = require "neap.journal.core"
local log = require("neap.log").module "journal"
local metric = require "neap.metric"
local task = require "neap.task"

local journal = {}

local OLD_COPY <const> = "Redis was put back to an older state: readings that it had, and that the journal has let go of since, are missing in it"
local OLD_S <const> = 60 -- readings that wait for Redis for longer are worth a word in /health

local watchers = setmetatable({}, {__mode = "k"}) -- journals that are applied here, to the timer that watches them

---@class neap.journal.open_options
---@field dir string made if missing
---@field max_bytes? integer bound on what is kept (default 1 GiB)
---@field max_age? number bound on how many seconds the oldest reading may wait for Redis (default 24 hours)
---@field loose? boolean append returns when the system has the readings, not when the disk has: they survive a kill -9, but a power cut may cost
---the last second or two of what was accepted
---@field segment_bytes? integer size of a file (default 16 MiB)

-- ---- what /metrics says: only the worker that applies counts, so that the sum over the workers is the truth ----

local count -- brings the counters up to date

--- A gauge of the journal that is applied here; 0 where none is.
local function gauge(name, help, field)
    metric.gauge(name, help, function()
        local j = next(watchers)
        local ok, now = pcall(j and j.stats or error, j)
        if not ok then return 0 end
        count(j, now)
        return now[field] or 0
    end)
end
gauge("neap_journal_retained_bytes", "Bytes that the journal keeps on disk.", "retained") -- before the counters: asked first, it brings them up to date
gauge("neap_journal_oldest_seconds", "For how long the oldest reading that Redis does not have has waited.", "age")
gauge("neap_journal_behind_bytes", "Bytes in the journal that Redis does not have yet.", "behind")

local COUNTED <const> = {
    records = metric.counter("neap_journal_records_total", "Batches written to the journal."),
    failures = metric.counter("neap_journal_write_failures_total", "Groups of batches that the disk refused; their clients were told so."),
    refused = metric.counter("neap_journal_refused_total", "Batches refused because the journal was at a bound, of bytes or of age."),
    refused_old = metric.counter("neap_journal_refused_old_total", "Of them, those refused because the oldest reading waits for Redis for too long."),
    readings = metric.counter("neap_journal_applied_readings_total", "Readings moved from the journal into Redis."),
    duplicates = metric.counter("neap_journal_duplicate_readings_total", "Readings of batches that had come before, by their idempotency key."),
    dead = metric.counter("neap_journal_dead_readings_total", "Readings that Redis does not take: in the dead-letter stream."),
    damaged_bytes = metric.counter("neap_journal_damaged_bytes_total", "Bytes of the journal that were damaged and passed over."),
    replays = metric.counter("neap_journal_replays_total", "Times that Redis had lost its data and got it again."),
}
local counted = setmetatable({}, {__mode = "k"}) -- of each journal, the numbers that are in the counters already

function count(j, now)
    local before = counted[j] or {}
    for field, counter in pairs(COUNTED) do
        if now[field] and now[field] > (before[field] or 0) then counter:inc(now[field] - (before[field] or 0)) end
    end
    counted[j] = now
end

--- Opens the directory's journal, or shares it if this process has it open. Raises kind "io" or "full" if it cannot.
---@param opts neap.journal.open_options
---@return neap.journal.Journal
function journal.open(opts)
    local known = {dir = true, max_bytes = true, segment_bytes = true, max_age = true, loose = true}
    for name in pairs(opts) do
        if not known[name] then error(("journal.open: unknown option '%s'"):format(name), 2) end
    end
    return core.open(opts)
end

--- Logs what a person should know: changes of state, damage, replays, dead letters.
local function watch(j)
    local before = {state = "starting", text = "", dead = 0, damaged_bytes = 0, replays = 0}
    return function()
        local ok, now = pcall(j.stats, j)
        if not ok then -- closed without journal.close
            if watchers[j] then watchers[j]:stop() end
            return
        end
        count(j, now)
        if now.state ~= before.state or now.text ~= before.text then
            local level = now.state == "stopped" and log.error or now.state == "away" and log.warn or log.info
            level("journal to Redis: " .. now.state, {why = now.text ~= "" and now.text or nil, behind = now.behind})
        end
        if now.dead > before.dead then
            log.error("readings that Redis does not take went to the dead letters", {readings = now.dead - before.dead})
        end
        if now.damaged_bytes > before.damaged_bytes then
            log.error("a damaged stretch of the journal was passed over", {bytes = now.damaged_bytes - before.damaged_bytes})
        end
        if now.replays > before.replays then log.warn("Redis lost its data: what the journal retains is applied again") end
        if now.old_copy and not before.old_copy then log.error(OLD_COPY) end
        before = now
    end
end

---@class neap.journal.apply_options
---@field redis string its URL
---@field keys table<string, string> key names: what store.journal_keys() gives
---@field keep? integer entries a stream keeps, about (default: all)
---@field once? integer seconds that an idempotency key is known (default 3,600)
---@field timeout? number seconds for one step (default 5)

--- Starts moving the journal into Redis on this worker's loop; journal.close ends it.
---@param j neap.journal.Journal
---@param opts neap.journal.apply_options
function journal.apply(j, opts)
    local flat = {redis = opts.redis, keep = opts.keep, once = opts.once, timeout = opts.timeout}
    for name, text in pairs(opts.keys) do flat[name] = text end
    local look, applies = watch(j), false
    local function try()
        local ok, err = pcall(j.apply, j, flat)
        if not ok and not (type(err) == "table" and err.kind == "busy") then error(err, 0) end
        applies = ok
    end
    try()
    watchers[j] = task.every(applies and 1 or 0.1, function()
        if not applies then try() else look() end -- after a reload the version before still holds it for a moment
    end)
end

--- Ends the applier and its watch, and lets go of the journal.
---@param j neap.journal.Journal
function journal.close(j)
    if watchers[j] then watchers[j]:stop() end
    watchers[j] = nil
    j:close() -- what was counted since the last look goes uncounted; the process is about to end
end

local MANY <const> = 1000 -- batches a second
local LOOK_S <const> = 0.1 -- they are counted over so long at least
local pace = setmetatable({}, {__mode = "k"}) -- of each journal: {at =, records =, many =}

--- Whether so many batches come that whoever can wait should.
local function many(j)
    local now, p = task.now(), pace[j]
    if not p then
        p = {at = 0.0, records = 0, many = false}
        pace[j] = p
    end
    if now - p.at >= LOOK_S then
        local records = j:stats().records
        p.many = p.at > 0 and (records - p.records) / (now - p.at) > MANY
        p.at, p.records = now, records
    end
    return p.many or j:hurried()
end

--- How long work that can wait has to rest after it took so many seconds: it gets a quarter of the worker's time, and a twentieth while readings
--- come in a flood.
---@param j? neap.journal.Journal
---@param took number
---@return number seconds
function journal.rest(j, took)
    local ok, flood = pcall(j and many or error, j)
    return math.min(2, took * (ok and flood and 19 or 3))
end

local GATHER_S <const> = 0.02 -- news that comes so soon after other news waits for it: whoever is told has less to do
local AT_A_STRETCH <const> = 500 -- names before others have their turn

--- A function told(position, known): the sensors that `known` (neap.decode's table) holds as touched were accepted up to that position. Calls
--- fn(names, from, to) once Redis has them: these are to be looked at. One task, however many calls, and nothing is done for each sensor of each batch.
---@param j neap.journal.Journal
---@param fn fun(names: string[], from: integer, to: integer)
---@return fun(position: integer, known: neap.decode.sensors)
function journal.news(j, fn)
    local tables, upto, running = {}, 0, false
    local function run()
        local done <close> = setmetatable({}, {__close = function() running = false end}) -- luacheck: ignore 211
        while next(tables) do
            local names, seen, at, began = {}, tables, upto, task.now()
            tables = {}
            for known in pairs(seen) do known:touched(names) end
            local took = task.now() - began
            repeat
                local ok, position, applied = pcall(j.wait, j, at, 60)
                if not ok then
                    if type(position) == "table" and position.kind == "closed" then return end
                    error(position, 0)
                end
            until applied
            for from = 1, #names, AT_A_STRETCH do
                began = task.now()
                fn(names, from, math.min(#names, from + AT_A_STRETCH - 1))
                took = took + task.now() - began
                task.yield()
            end
            task.sleep(math.max(GATHER_S, journal.rest(j, took)))
        end
    end
    return function(position, known)
        tables[known] = true
        upto = math.max(upto, position)
        if not running then
            running = true
            task.spawn(run)
        end
    end
end

--- Makes a server's session durable: its store writes through the journal in the data directory. One worker applies it.
---@param here neap.Session
---@param opts {apply?: boolean, max_bytes?: integer, max_age?: number, loose?: boolean}
function journal.join(here, opts)
    here.journal = journal.open {dir = here.data .. "/journal", max_bytes = opts.max_bytes, max_age = opts.max_age, loose = opts.loose}
    here.store:use_journal(here.journal)
    if opts.apply then
        -- The promise is the journal's now: our own Redis need not sync before each answer as well.
        if here.private then pcall(here.redis.call, here.redis, "CONFIG", "SET", "appendfsync", "everysec") end
        journal.apply(here.journal, {redis = here.url or "unix://" .. here.socket, keys = require("neap.store").journal_keys()})
    end
end

--- Whether the session's journal has ever met a Redis, in this process or an earlier one.
---@param here neap.Session
---@return boolean
function journal.has_met(here)
    local f <close> = io.open(here.data .. "/journal/store", "r")
    return f ~= nil
end

--- What a 2xx means, in a sentence; class: Redis' own durability class.
---@param class string
---@return string
---@param loose? boolean
function journal.promise(class, loose)
    if loose then
        return ("journal, written but not waited for the disk (--ack memory): a power cut may cost the last seconds; Redis takes it from there "
            .. "(its own class: %s)"):format(class)
    end
    return ("journal, synced before each answer: an acknowledged reading is on disk; Redis takes it from there (its own class: %s)"):format(class)
end

--- Ends what join began: gives Redis `seconds` to take what it has not taken yet; what remains is applied at the next start.
---@param here neap.Session
---@param seconds number
function journal.leave(here, seconds)
    local j = here.journal
    if not j then return end
    here.journal = nil
    here.store:use_journal(nil)
    pcall(function()
        local s = j:stats()
        if s.state == "running" then j:wait(s.durable, seconds) end
    end)
    journal.close(j)
end

--- Why readings are taken though not all is well: a list of sentences for /health, empty when all is well, and a list of their kinds.
---@param j neap.journal.Journal|table the journal, or its stats from the worker that applies it
---@return string[] sentences
---@return string[] kinds
function journal.degraded(j)
    local s, out, kinds = type(j) == "table" and j or j:stats(), {}, {}
    local function add(kind, text) kinds[#kinds + 1], out[#out + 1] = kind, text end
    if s.error then add("disk", "the journal's disk: " .. s.error) end
    if s.state and s.state ~= "running" then
        add("redis", ("Redis has not taken the journal's readings yet (%s)%s"):format(s.state, s.text ~= "" and ": " .. s.text or ""))
    elseif not s.live then
        add("redis", "Redis has not taken the journal's readings yet")
    end
    if s.old_copy then add("old copy", OLD_COPY) end
    if s.unsaved then add("disk", "Redis cannot write its append-only file: what it took since is kept in the journal") end
    if s.durability == "none" or s.durability == "rdb" then
        add("durability", "Redis keeps no append-only file that it syncs by itself: of what it lost, only what the journal still retains can be applied again")
    end
    if s.age > OLD_S then add("journal", ("the oldest reading that Redis does not have has waited for %.0f s"):format(s.age)) end
    if s.retained > s.max_bytes * 0.75 then add("journal", ("the journal is %.0f%% full"):format(100 * s.retained / s.max_bytes)) end
    if s.dead and s.dead > 0 then add("dead letters", ("%d readings went to the dead letters"):format(s.dead)) end
    if s.damaged_bytes and s.damaged_bytes > 0 then add("damage", ("%d bytes of the journal were damaged"):format(s.damaged_bytes)) end
    return out, kinds
end

return journal
