--- The HTTP routes of `neap serve`. Edit freely: each route is a few lines, and what it needs is in `here`.
--
--     api.routes(app, here)      -- app: neap.http's; here: the session, with scorer, stamp, limits and counters (see serve.lua)

local clients = require "neap.clients"
local decode = require "neap.decode"
local ext = require "neap.ext"
local feed = require "neap.feed"
local guard = require "neap.guard"
local health = require "neap.health"
local ingest = require "neap.ingest"
local json = require "neap.json"
local log = require("neap.log").module "api"
local metric = require "neap.metric"
local rollup = require "neap.rollup"
local secret = require "neap.secret"
local when = require "neap.when"

local api = {}

local JSON <const> = {["Content-Type"] = "application/json"}
local NAMED <const> = {named = true} -- an item of a list that lacks a name is skipped, as the starter kit did
local RETRY <const> = {["Content-Type"] = "application/json", ["Retry-After"] = "1"}

local accepted = metric.counter("neap_readings_total", "Readings accepted and stored.")
local refused = metric.counter("neap_readings_refused_total", "Readings refused, each named in its answer.")
local failed = metric.counter("neap_batches_failed_total", "Batches answered 503 because they could not be stored.")
local unavailable = metric.counter("neap_readings_unavailable_total", "Readings of batches answered 503: to be sent again.")
local unanswered = metric.counter("neap_readings_unanswered_total", "Readings whose client left before they were safe; they may be stored.")
local puzzling = metric.counter("neap_batches_not_understood_total", "Bodies refused as a whole because they are no readings.")

-- ---- ingest ----

local LONGEST_KEY <const> = 255 - #" quarantine" -- the journal keeps 255, and the store may put that behind it

--- The batch's name, by which it counts once however often it is sent. Each token has names of its own: nobody's key shuts out another's batch.
local function key_of(req)
    local key = req and req:header "Idempotency-Key"
    if not key then return nil end
    if req.token then key = req.token.name .. "/" .. key end
    return #key > LONGEST_KEY and secret.sha256(key) or key
end

--- The scorer and the rollups hear which sensors have news.
local function tell(here, taken, position)
    local known = here.context.limits
    if taken.batch then known:touch(taken.batch) end
    for _, name in ipairs(taken.order) do known:touch(name) end
    here.news(position, known)
end

--- A batch from any decoder, or nil for a body that none understood: judge, store, wake the scorer. 2xx is answered only when the readings are
--- safe. A token that came with the request limits the sensors.
---@param here table
---@param batch? neap.decode.batch
---@param req? neap.http.request
---@return neap.ingest.Taken? taken nil when it could not be stored now
local function take(here, batch, req)
    if not batch then puzzling:inc() return nil end
    here.context.now_us = math.tointeger(neap.clock() * 1000000 // 1)
    local taken = ingest.judge(batch, guard.admit(req and req.token, here.context))
    if taken.count > 0 then
        local key = key_of(req)
        local ok, result, position = pcall(here.store.append, here.store, taken, nil, key)
        if not ok then
            local err = result
            if type(err) ~= "table" or err.kind == "cancelled" then
                unanswered:inc(batch.refused + taken.count)
                error(err, 0)
            end
            here.store:let_go(taken)
            failed:inc()
            unavailable:inc(batch.refused + taken.count)
            here.store_error = tostring(err)
            log.error("a batch could not be stored", {error = here.store_error})
            return nil
        end
        here.store_error = nil
        accepted:inc(taken.count)
        if position then tell(here, taken, position) end
    end
    if taken.clocks then here.clocks:note(taken.clocks) end
    if taken.refused > 0 then refused:inc(taken.refused) end
    return taken
end

-- What the client is told about a decoded batch, or about why it could not be decoded.
local function answer_to(here, batch, err, req)
    local taken = take(here, batch, req)
    if not batch then return 400, ingest.not_understood(err), JSON end
    if not taken then return 503, '{"status":"error","error":"The readings could not be stored now. Send them again."}', RETRY end
    local status, text = ingest.answer(batch, taken)
    return status, text, JSON
end

--- Stores a list of {sensor =, value =, time = seconds or nil}, as POST /receive would, and gives the same answer: for routes of
--- extensions. With the request its token and idempotency key count too.
function api.store(here, list, req)
    local items = json.array {}
    for i, r in ipairs(list) do items[i] = {sensor_name = r.sensor, sensor_output = r.value, time = r.time} end
    return answer_to(here, decode.try.json(json.encode(items, {nan = "null"})), nil, req)
end

local function receive(here)
    return function(req)
        local decoder = ext.decoding() and ext.decoder(req:header "Content-Type")
        if not decoder then
            local kind = req:header "Content-Type" or ""
            local lines = kind:find "^application/x?%-?ndjson" or kind:find "^application/jsonl"
            local opts = clients.options(req, NAMED)
            local batch <close>, err = decode.try[lines and "ndjson" or "json"](req, opts)
            return answer_to(here, batch, err, req)
        end
        local ok, list = pcall(decoder, req:text(), req.headers)
        if not ok then return 400, {status = "error", error = tostring(list)} end
        return api.store(here, list, req)
    end
end

-- ---- sensors ----

local function not_found(name)
    return 404, {error = ("there is no sensor '%s'; /api/sensors lists them"):format(name)}
end

--- Readings are made up only where there are no real ones, and the answer says so.
local function source_of(here, req, name)
    local asked = req.query.source
    if asked == "real" or asked == "synthetic" or asked == "quarantine" then return asked end
    if not here.store:has(name, "real") and here.store:has(name, "synthetic") then return "synthetic" end
    return "real"
end

--- clocks: what Store:clocks() gives
local function describe(here, name, clocks)
    local spec = here.specs:get(name)
    local source = here.store:has(name, "synthetic") and not here.store:has(name, "real") and "synthetic" or "real"
    local time_us, value = here.store:latest(name, source)
    return {
        clock = clocks[name], name = name, unit = spec.unit, label = spec.label, described = spec.known, minimum = spec.minimum, maximum = spec.maximum,
        synthetic = source == "synthetic", entries = here.store:entries(name, source),
        quarantined = clocks[name] and here.store:entries(name, "quarantine") or 0,
        latest = time_us and {time = when.iso(time_us), value = value} or json.null,
    }
end

local function known(here, name)
    return here.store:has(name, "real") or here.store:has(name, "synthetic") or here.specs:has(name) or here.store:has(name, "quarantine")
end

local COLUMNS <const> = {"n", "min", "max", "mean", "last"}

--- ...&step=1m|1h|1d[&agg=mean,max]: the rollup, in columns; `times` are where the buckets begin, in seconds.
local function rolled(here, req, name, query)
    local level, why = rollup.level(req.query.step)
    if not level then return 400, {error = "step: " .. why} end
    if query.source ~= "real" then return 400, {error = "step: only real readings have rollups; ask without it, or with source=real"} end
    local columns = rollup.columns(here.store, name, level, query)
    local answer = {sensor = name, unit = here.specs:get(name).unit, step = req.query.step, count = #columns.times, times = json.array {}}
    for i, time_us in ipairs(columns.times) do answer.times[i] = time_us // 1000000 end
    local wanted = req.query.agg and "," .. req.query.agg .. "," or nil
    for _, column in ipairs(COLUMNS) do
        if not wanted or wanted:find("," .. column .. ",", 1, true) then answer[column] = json.array(columns[column]) end
    end
    for word in (req.query.agg or ""):gmatch "[^,]+" do
        if not answer[word] or not columns[word] or word == "times" then
            return 400, {error = ("agg: '%s' is none of %s"):format(word, table.concat(COLUMNS, ", "))}
        end
    end
    return answer
end

--- GET /api/sensors/:name/readings?last=100&from=..&to=..&source=real|synthetic|quarantine
local function readings(here)
    return function(req)
        local name = req.params.name
        if not known(here, name) then return not_found(name) end
        local usual = req.query.step and 10000 or 256
        local query = {source = source_of(here, req, name), last = math.tointeger(tonumber(req.query.last or req.query.limit or usual))}
        for _, edge in ipairs {"from", "to"} do
            local text = req.query[edge]
            if text then
                local time_us, why = when.parse(text)
                if not time_us then return 400, {error = ("%s: %s"):format(edge, why)} end
                query[edge .. "_us"] = time_us
            end
        end
        if not query.last or query.last < 1 or query.last > 100000 then return 400, {error = "last must be from 1 to 100000"} end
        if req.query.step then return rolled(here, req, name, query) end
        local times, values = here.store:history(name, query)
        local list = json.array {}
        for i = 1, #times do list[i] = {time = when.iso(times[i]), value = values[i]} end
        return {sensor = name, unit = here.specs:get(name).unit, synthetic = query.source == "synthetic", count = #list, readings = list}
    end
end

local function latest(here)
    return function(req)
        local name = req.params.name
        local source = source_of(here, req, name)
        local time_us, value = here.store:latest(name, source)
        if not time_us then return not_found(name) end
        return {sensor = name, unit = here.specs:get(name).unit, time = when.iso(time_us), value = value, synthetic = source == "synthetic"}
    end
end

--- A name as a word of a shell's command line: names come from the network.
local function for_shell(name) return name:find "^[%w_./:@%+,=][%w_./:@%+,=-]*$" and name or "'" .. name:gsub("'", "'\\''") .. "'" end

--- The verdict, as a device polls it: anomaly_detected is 1 or 0 whatever else is known.
local function status_of(here, name)
    local text = here.store:get(name, "status")
    local status = text and json.decode(text) or {state = "not watched", model = false, anomaly_detected = 0, flagged_stretches = json.array {}}
    status.sensor = name
    if status.model_error then
        status.hint = ("its model cannot be read: %s; `neap train %s` makes a new one and keeps this file as .bad"):format(status.model_error, for_shell(name))
    elseif not status.model then
        status.hint = ("no trained model forecasts this sensor yet: run `neap train %s`"):format(for_shell(name))
    end
    return status
end

local function status(here)
    return function(req)
        local name = req.params.name
        if not known(here, name) then return not_found(name) end
        return status_of(here, name)
    end
end

--- What `fn` says of a sensor. What Redis holds in its place may be something else: that is said then, and the others are shown all the same.
local function or_why(fn, here, name, ...)
    local ok, result = pcall(fn, here, name, ...)
    if ok then return result end
    if type(result) ~= "table" or result.code ~= "WRONGTYPE" then error(result, 0) end
    return {name = name, sensor = name, state = "unreadable", anomaly_detected = 0, hint = tostring(result), recent = json.array {}}
end

local MOST_SHOWN <const> = 200

--- A sensor's verdict with its newest readings.
local function glance(here, name)
    local source = here.store:has(name, "real") and "real" or "synthetic"
    local times, values = here.store:history(name, {last = 60, source = source})
    local n, one, recent = #times, status_of(here, name), json.array {}
    for k = 1, n do recent[k] = {time = when.iso(times[k]), value = values[k]} end
    one.recent, one.unit, one.synthetic = recent, here.specs:get(name).unit, source == "synthetic"
    if n > 0 then one.time, one.value = when.iso(times[n]), values[n] end
    return one
end

--- Every sensor's verdict with its newest readings: what the page shows.
local function overview(here)
    return function()
        local list = json.array {}
        for i, name in ipairs(here.store:sensors()) do
            if i > MOST_SHOWN then break end
            list[i] = or_why(glance, here, name)
        end
        return {count = #list, sensors = list, fleet = here.specs.fleet}
    end
end

-- ---- the server itself ----

--- What became of every reading that was sent, for /health and for adding up.
local COUNTED <const> = {
    accepted = "neap_readings_total", refused = "neap_readings_refused_total", unavailable = "neap_readings_unavailable_total",
    unanswered = "neap_readings_unanswered_total",
}

--- Put every route on the app.
---@param app any
---@param here table
function api.routes(app, here)
    app:get("/", function() return 200, "<h1>hello world</h1>", {["Content-Type"] = "text/html; charset=utf-8"} end)
    app:post("/receive", receive(here))
    clients.routes(app, here, take)
    app:get("/health", health.route(here, COUNTED))
    app:get("/metrics", function()
        return 200, here.metrics(), {["Content-Type"] = "text/plain; version=0.0.4; charset=utf-8"}
    end)
    app:get("/api/sensors", function()
        local list, clocks = json.array {}, here.store:clocks()
        for i, name in ipairs(here.store:sensors()) do list[i] = or_why(describe, here, name, clocks) end
        return {count = #list, sensors = list}
    end)
    app:get("/api/sensors/:name", function(req)
        local name = req.params.name
        if not known(here, name) then return not_found(name) end
        local unbelieved, skew = here.store:clock(name)
        local answer = describe(here, name, {[name] = unbelieved})
        answer.status, answer.skew = status_of(here, name), skew
        return answer
    end)
    app:get("/api/status", overview(here))
    feed.routes(app, here, function(name) return status_of(here, name) end)
    app:use("/page", function(req, next)
        req:set_header("Content-Security-Policy", "default-src 'self'")
        return next(req)
    end)
    app:static("/page", "asset:scripts/page", {index = "index.html"})
    app:get("/api/sensors/:name/readings", readings(here))
    app:get("/api/sensors/:name/latest", latest(here))
    app:get("/api/sensors/:name/status", status(here))
end

return api
