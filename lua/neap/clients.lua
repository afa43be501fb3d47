--- Routes for clients that speak somebody else's dialect: InfluxDB v1 and v2, collectd, ThingsBoard devices, and a device that can only GET.
--
--     clients.routes(app, here, take)       -- take(here, batch, req) judges and stores a decoded batch; nil: not now
--
-- Each client is answered in the words it understands, with the good readings of a batch stored whatever the bad ones are. Our own troubles
-- are 503 with Retry-After, never 4xx: on 4xx most clients throw the readings away. Sensor names: measurement[,tag=value..].field for line
-- protocol, host/plugin/type[.dsname] for collectd, the key of the value for the others.

local decode = require "neap.decode"
local http = require "neap.http"
local json = require "neap.json"
local sensors = require "neap.sensors"
local when = require "neap.when"

local clients = {}

local JSON <const> = {["Content-Type"] = "application/json"}
local VERSION <const> = "1.8.10" -- the InfluxDB whose manners these are: clients look at the first digit

local WHO <const> = {["X-Influxdb-Version"] = VERSION, ["X-Influxdb-Build"] = "neap " .. neap.version}

--- The decoder's options with ?device=D, which puts "D." before the sensors' names: several devices may call theirs the same.
---@param req neap.http.request
---@param opts? table
---@return table?
function clients.options(req, opts)
    local device = req.query.device
    if not device or device == "" then return opts end
    local name, why = sensors.check_name(device)
    if not name then http.error(400, "device: " .. why) end
    local out = {prefix = device .. "."}
    for k, v in pairs(opts or {}) do out[k] = v end
    return out
end
local options = clients.options

local MOST_NAMED <const> = 20 -- refusals named in an answer

--- The refusals as text, "line 2: missing fields; line 4: ..", and the place of the first.
local function refusals(batch, word)
    local all, texts = batch:errors(), {}
    table.sort(all, function(a, b) return a.index < b.index end)
    for i = 1, math.min(#all, MOST_NAMED) do texts[i] = ("%s %d: %s"):format(word, all[i].index, all[i].reason) end
    if batch.refused > #texts then texts[#texts + 1] = ("and %d more"):format(batch.refused - #texts) end
    return table.concat(texts, "; "), all[1].index
end

-- ---- InfluxDB ----

local V1_UNITS <const> = {n = "ns", ns = "ns", u = "us", us = "us", ["µ"] = "us", ms = "ms", s = "s", m = "m", h = "h"}
local V2_UNITS <const> = {ns = "ns", us = "us", ms = "ms", s = "s"}

--- InfluxDB 1 answers: 204, or {"error": ..} with the same text in a header.
local v1 = {units = "ns, us, ms, s, m, h"}
function v1.bad(text) return 400, {error = text}, {["X-Influxdb-Error"] = (text:sub(1, 500):gsub("[^ -~]", " "))} end
function v1.partial(refused, _, text) return v1.bad(("partial write: %s dropped=%d"):format(text, refused)) end
function v1.unavailable() return 503, {error = "the readings could not be stored now, send them again"}, {["Retry-After"] = "1"} end

--- InfluxDB 2 answers: 204, or {"code", "message", "line"}; line is a whole number or Telegraf loses the message.
local v2 = {units = "ns, us, ms, s"}
function v2.bad(text, line) return 400, {code = "invalid", message = text, line = line} end
function v2.partial(refused, kept, text, line) return v2.bad(("%s (%d refused, %d stored)"):format(text, refused, kept), line) end
function v2.unavailable()
    return 503, {code = "unavailable", message = "the readings could not be stored now, send them again"}, {["Retry-After"] = "1"}
end

--- Stores line protocol. ?partial=204 is for devices that would send a batch with one bad line for ever.
local function write(here, take, units, say)
    return function(req)
        local precision = req.query.precision
        if precision == nil or precision == "" then precision = "ns" end
        local unit = units[precision]
        if not unit then return say.bad(("precision '%s' is not one of %s"):format(precision, say.units)) end
        local batch <close> = decode.lines(req, options(req, {precision = unit}))
        local taken = take(here, batch, req)
        if not taken then return say.unavailable() end
        if batch.refused == 0 or req.query.partial == "204" then return 204, nil, WHO end
        return say.partial(batch.refused, taken.count, refusals(batch, "line"))
    end
end

--- One statement's result: there is one database, and nothing to create. Questions about readings have routes of their own.
local function result_of(statement)
    local verb, what = statement:upper():match "^%s*(%a+)%s*(%a*)"
    if verb == "SHOW" and what == "DATABASES" then
        return {series = json.array {{name = "databases", columns = {"name"}, values = {{"neap"}}}}}
    elseif verb == "SELECT" or verb == "SHOW" then
        return {error = "neap has no query language: GET /api/sensors lists the sensors, GET /api/sensors/NAME/readings their readings"}
    end
    return {}
end

--- Clients create their database before they write: one result for each statement of q.
local function query(req)
    local q = req.query.q or (req.headers["content-type"] or ""):find("form", 1, true) and req:form().q or ""
    local results = json.array {}
    for statement in q:gmatch "[^;]+" do
        if statement:find "%S" then
            local result = result_of(statement)
            result.statement_id = #results
            results[#results + 1] = result
        end
    end
    if #results == 0 then return v1.bad "missing required parameter \"q\"" end
    return 200, {results = results}, WHO
end

local function influx(app, here, take)
    app:post("/write", write(here, take, V1_UNITS, v1))
    app:post("/api/v2/write", write(here, take, V2_UNITS, v2))
    app:get("/ping", function(req)
        if req.query.verbose == "true" then return 200, {version = VERSION}, WHO end
        return 204, nil, WHO
    end)
    app:get("/ready", function()
        if not here.journal:stats().live then
            return 503, {status = "not ready", error = "Redis does not answer"}, {["Retry-After"] = "1"}
        end
        return {status = "ready", started = when.iso(here.started_at * 1000000 // 1), up = ("%.0fs"):format(neap.clock() - here.started_at)}
    end)
    app:get("/query", query)
    app:post("/query", query)
end

-- ---- collectd, ThingsBoard, GET ----

--- collectd's write_http, Format "JSON" or "Command". It never sends again, and logs everything but 200.
local function collectd(here, take)
    return function(req)
        local text = req:text()
        local command = text:find "^%s*[Pp][Uu][Tt][Vv][Aa][Ll]"
        local batch <close>, err = decode.try[command and "putval" or "collectd"](text, options(req))
        local taken = take(here, batch, req)
        if not batch then return 400, {error = tostring(err)} end
        if not taken then return 503, {error = "the readings could not be stored now"}, {["Retry-After"] = "1"} end
        if batch.refused == 0 then return 200, ('{"stored":%d}'):format(taken.count), JSON end
        return 200, {stored = taken.count, refused = batch.refused, error = (refusals(batch, command and "line" or "item"))}
    end
end

--- ThingsBoard's device API: 200, whatever keys there are, as telemetry may be texts, switches and objects. The body is empty, or names what is no reading.
local function telemetry(here, take)
    return function(req)
        local batch <close>, err = decode.try.json(req, options(req))
        local taken = take(here, batch, req)
        if not batch then return 400, {status = 400, message = tostring(err), errorCode = 31} end
        if not taken then return 503, {status = 503, message = "could not be stored now"}, {["Retry-After"] = "1"} end
        if batch.refused == 0 then return 200, "" end
        return 200, {stored = taken.count, refused = batch.refused, message = (refusals(batch, "item"))}
    end
end

--- GET /receive?sensor_name=t&sensor_output=21.5[&time=..], for devices that can do no more. Off unless app.lua sets here.query_ingest:
--- a GET that writes can be set off by any page that a browser opens.
local function by_query(here, take)
    return function(req)
        if req.method == "HEAD" or not here.query_ingest then
            local hint = "send readings with POST; --allow-get, or here.query_ingest = true in app.lua, lets devices that cannot use GET"
            return 405, {error = hint}, {Allow = "POST"}
        end
        local q = req.query
        local item = {sensor_name = q.sensor_name or q.sensor or q.name, sensor_output = q.sensor_output or q.value,
            time = q.time or q.timestamp or q.ts}
        if not item.sensor_name then return 400, {error = "sensor_name is missing: /receive?sensor_name=oven&sensor_output=21.5"} end
        if not item.sensor_output then return 400, {error = "sensor_output is missing: /receive?sensor_name=oven&sensor_output=21.5"} end
        local batch = decode.json(json.encode(json.array {item}, {utf8 = "replace"}))
        local taken = take(here, batch, req)
        if not taken then return 503, {error = "could not be stored now"}, {["Retry-After"] = "1"} end
        if taken.count == 0 then return 400, {error = batch:errors()[1].reason} end
        local note = taken.notes[1]
        return 200, note and {status = "success", note = note.note} or '{"status":"success"}', JSON
    end
end

---@param app any neap.http's
---@param here neap.Session
---@param take fun(here: neap.Session, batch?: neap.decode.batch, req: neap.http.request): neap.ingest.Taken?
function clients.routes(app, here, take)
    influx(app, here, take)
    app:post("/collectd", collectd(here, take))
    app:post("/api/v1/:token/telemetry", telemetry(here, take))
    app:post("/api/v1/:token/attributes", function() return 200, "" end)
    app:get("/api/v1/:token/attributes", function() return {} end)
    app:get("/receive", by_query(here, take))
end

return clients
