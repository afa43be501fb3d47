--- Live scoring inside `neap serve`: as soon as a reading is stored it is judged, and what was found stands in Redis.
--
--     local scorer = require("neap.scorer").new(here, {me = 1, workers = 2, send = function(worker, sensor) ... end})
--     scorer:stored{"temperature"}                 -- after store:append
--     scorer:status("temperature")                 --> plain data for /api/sensors/:name/status
--
-- A sensor is scored in one place: sensors are split over the workers by a hash of their name, and a worker that stores a
-- reading of somebody else's sensor tells its owner. The owner reads the sensor's stream from where it stopped, so nothing is
-- judged twice or missed, however readings arrive. Watched are sensors that have a model or stand in the spec file.

local conformal = require "neap.conformal"
local detector = require "neap.detector"
local json = require "neap.json"
local live = require "neap.live"
local log = require("neap.log").module "score"
local models = require "neap.models"
local task = require "neap.task"
local when = require "neap.when"

local scorer = {}

local Scorer = {}
Scorer.__index = Scorer

local AT_ONCE <const> = 500 -- entries judged before others get their turn
local WARM <const> = 2000 -- readings of the past that a detector starts with
local MODEL_LOOK_S <const> = 1 -- how often a new model may be looked for

---@param here neap.Session
---@param opts? {me?: integer, workers?: integer, send?: fun(worker: integer, sensor: string), most?: integer}
function scorer.new(here, opts)
    opts = opts or {}
    return setmetatable({here = here, store = here.store, me = opts.me or 1, workers = opts.workers or 1, send = opts.send,
        most = opts.most or 256, watched = {}, count = 0, unwatched = {}, dirty = {}, queue = {}, running = false}, Scorer)
end

--- Which worker judges a sensor.
---@param sensor string
---@param workers integer
---@return integer
function scorer.owner(sensor, workers)
    local hash = 2166136261
    for i = 1, #sensor do hash = ((hash ~ sensor:byte(i)) * 16777619) & 0xffffffff end
    return hash % workers + 1
end

-- ---- which sensors ----

--- The sensor's model in use, if there is one and it can be read: model, calibration, the text that named it.
local function load_model(self, sensor)
    local ok, model, card, named = pcall(models.live, self.here, sensor)
    if not ok then
        log.warn("the model cannot be read", {sensor = sensor, error = tostring(model)})
        return nil, nil, self.store:get(sensor, "model")
    end
    return model, card and conformal.fit(card.calibration), named
end

--- Start watching: the model, the saved alarm state, and enough history to fill the window without raising anything.
local function watch(self, sensor)
    local model, calibration, named = load_model(self, sensor)
    if not model and not self.here.specs:has(sensor) then return nil end
    local saved = json.decode(self.store:get(sensor, "status") or "{}")
    local spec = self.here.specs:get(sensor)
    local one = {sensor = sensor, spec = spec, named = named, looked = task.now(), id = saved.id}
    one.watch = live.new {spec = spec, model = model, calibration = calibration, detector = detector.new(), state = saved.restart}
    one.id = one.id or self.store:id_before_last(sensor) -- what came before the newest entry is history, not news
    one.watch:warm(self.store:before(sensor, one.id, WARM))
    return one
end

--- The sensor's entry, or nil when it is not to be watched.
local function entry_of(self, sensor)
    local one = self.watched[sensor]
    local now = task.now()
    if one and now - one.looked >= MODEL_LOOK_S then
        one.looked = now
        if self.store:get(sensor, "model") ~= one.named then one = nil end -- a newer model: start again with it
    end
    if one then return one end
    local looked = self.unwatched[sensor]
    if looked and now - looked < MODEL_LOOK_S then return nil end
    if not self.watched[sensor] and self.count >= self.most then return nil end
    one = watch(self, sensor)
    if one then
        if not self.watched[sensor] then self.count = self.count + 1 end
        self.unwatched[sensor] = nil
    else
        self.unwatched[sensor] = now
    end
    self.watched[sensor] = one
    return one
end

-- ---- judging ----

--- What is kept in Redis about a sensor: for people and devices, but for `restart` and `id`, which are for the next start.
local function status_of(one)
    local w, last = one.watch, one.watch.last
    local open = w.alarm.open
    local function stretch(s) return {from = when.iso(s.from_us), to = when.iso(s.to_us), why = s.why, p = s.p} end
    local stretches = json.array {}
    for i, s in ipairs(w.alarm.stretches) do stretches[i] = stretch(s) end
    if open then stretches[#stretches + 1] = stretch(open) end
    return {
        state = open and "anomaly" or last.p and "ok" or "warming up", model = w.model ~= nil, anomaly_detected = open and 1 or 0,
        why = open and open.why or nil, since = open and when.iso(open.from_us) or nil,
        time = when.iso(last.time_us), value = last.value, forecast = last.forecast, p = last.p, score = last.score,
        surprise = last.p and 0.0 - math.log(last.p, 10) or nil,
        flagged_stretches = stretches, scored = w.scored,
        surprises_at_1_percent = w.scored > 0 and w.surprises / w.scored or nil,
        restart = w:state(), id = one.id,
    }
end

local function judge(self, sensor)
    local one = entry_of(self, sensor)
    if not one then return false end
    local times, values, id, more = self.store:after(sensor, one.id, AT_ONCE)
    one.id = id
    for i = 1, #times do
        local verdict = one.watch:push(times[i], values[i])
        if verdict and verdict.event then
            local fields = {sensor = sensor, time = when.iso(verdict.time_us), value = verdict.value, forecast = verdict.forecast,
                why = verdict.why, p = verdict.p}
            if verdict.event == "raised" then log.warn("anomaly", fields) else log.info("back to normal", fields) end
        end
    end
    if one.watch.last and #times > 0 then
        self.store:put(sensor, "status", json.encode(status_of(one)))
    end
    return more
end

--- Works through the sensors that have news, each in turn. When readings come faster than they can be judged, it takes at
--- most a quarter of the worker's time, and catches up later: storing readings comes first.
local function run(self)
    while true do
        local sensor = table.remove(self.queue, 1)
        if not sensor then break end
        self.dirty[sensor] = nil
        local started = task.now()
        local ok, more = pcall(judge, self, sensor)
        if not ok then
            if type(more) == "table" and more.kind == "cancelled" then error(more, 0) end
            log.error("scoring failed", {sensor = sensor, error = tostring(more)})
        elseif more then
            self:mine(sensor)
        end
        if #self.queue > 0 then task.sleep(3 * (task.now() - started)) end
    end
end

--- This worker's own sensor has news.
---@param sensor string
function Scorer:mine(sensor)
    if self.dirty[sensor] then return end
    self.dirty[sensor] = true
    self.queue[#self.queue + 1] = sensor
    if self.running then return end
    self.running = true
    task.spawn(function()
        local done <close> = setmetatable({}, {__close = function() self.running = false end}) -- luacheck: ignore 211
        run(self)
    end)
end

--- Start anew with every sensor at its next reading: the specs have changed. Alarms go on, their state is in Redis.
function Scorer:forget() self.watched, self.count, self.unwatched = {}, 0, {} end

--- Readings of these sensors have just been stored.
---@param sensors string[]
function Scorer:stored(sensors)
    for _, sensor in ipairs(sensors) do
        local owner = self.workers > 1 and scorer.owner(sensor, self.workers) or self.me
        if owner ~= self.me then
            self.send(owner, sensor)
        elseif not self.unwatched[sensor] or task.now() - self.unwatched[sensor] >= MODEL_LOOK_S then
            self:mine(sensor)
        end
    end
end

return scorer
