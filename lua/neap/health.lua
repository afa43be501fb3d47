--- neap.health: what GET /health says, and to whom.
--
--     app:get("/health", health.route(here, {"neap_readings_total", ..}))
--
-- 200 while readings are accepted, whatever else is wrong (`degraded` names it); 503 when they are refused. Strangers learn that and the kinds of
-- trouble ("redis", "journal", "reload", ..). Sentences, paths and numbers are for this machine and for tokens that may read: they tell of files,
-- sockets and the code of handlers. A request that a proxy on this machine passes on counts as a stranger's when the proxy says so
-- (X-Forwarded-For, Forwarded, Via); behind one that does not, use --auth and keep /health from it.

local ext = require "neap.ext"
local http = require "neap.http"
local journal = require "neap.journal"
local json = require "neap.json"
local tokens = require "neap.tokens"
local worker = require "neap.worker"

local health = {}

--- May this request see how the server is made?
---@param req neap.http.request
---@return boolean
function health.near(req)
    local token = req.token
    if token then return not token.match and tokens.allows(token, "read") end
    return http.near(req)
end

--- Readings are refused only when the journal is full or its disk fails; all else is a reason to be `degraded`.
local function check_journal(here, answer, degraded)
    local kept = here.journal_stats and here.journal_stats() or here.journal:stats()
    answer.redis.up = kept.live
    answer.journal = {retained = kept.retained, max_bytes = kept.max_bytes, behind = kept.behind, oldest = kept.age}
    local sentences, kinds = journal.degraded(kept)
    for i, text in ipairs(sentences) do degraded(kinds[i], text) end
    local full = kept.retained > kept.max_bytes * 0.98 and "the journal is full: Redis is behind, and its bound is reached"
    local old = kept.age > kept.max_age and ("the oldest reading has waited for Redis for %.0f s: the bound is %.0f s"):format(kept.age, kept.max_age)
    return kept.error or full or old or nil
end

--- Requests that were refused before their readings were looked at, by reason (too_slow, malformed, rate, wrong token, ..);
--- neap_http_answers_total has the others.
local REFUSED <const> = {"neap_http_refused_total", "neap_requests_refused_total"}

--- Everything there is to say, and the kinds of what is degraded.
local function look(here, counters)
    local kinds = json.array {}
    local answer = {
        name = "influxdb", message = "ready for queries and writes", -- what InfluxDB's clients look for
        status = "pass", version = neap.version, workers = here.workers, uptime = neap.clock() - here.started_at, sensors = here.specs_path,
        redis = {private = here.private, socket = here.socket, durability = here.durability.class}, degraded = json.array {},
    }
    local function degraded(kind, text)
        answer.degraded[#answer.degraded + 1] = text
        for _, known in ipairs(kinds) do
            if known == kind then return end
        end
        kinds[#kinds + 1] = kind
    end
    answer.error = check_journal(here, answer, degraded)
    if not here.reload.last.ok then degraded("reload", "reload failed: " .. tostring(here.reload.last.error)) end
    local lost = worker.lost()
    if lost > 0 then
        degraded("blocked", ("%d thread%s blocked in a C call that cannot be stopped; another has taken the place%s"):format(lost,
            lost == 1 and " is" or "s are", lost == 1 and "" or "s"))
    end
    ext.health(answer)
    if answer.extensions_left_out then kinds[#kinds + 1] = "extensions" end
    if here.totals then answer.readings, answer.refused_requests = here.totals(counters, REFUSED) end
    if answer.error then answer.status, answer.message = "fail", answer.error end
    return answer, kinds
end

--- The handler. `counters`: names for what became of the readings, to the names of their metrics; shown as `readings`, over all workers.
---@param here table
---@param counters table<string, string>
function health.route(here, counters)
    return function(req)
        local answer, kinds = look(here, counters)
        local failed = answer.status == "fail"
        if not health.near(req) then
            answer = {name = answer.name, status = answer.status, version = answer.version, degraded = kinds,
                message = failed and "readings are refused at present" or answer.message}
        end
        if not failed then return answer end
        return 503, answer, {["Retry-After"] = "1"}
    end
end

return health
