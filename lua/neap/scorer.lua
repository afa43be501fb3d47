--- Live scoring inside `neap serve`: as soon as a reading is stored it is judged, and what was found stands in Redis.
--
--     local scorer = require("neap.scorer").new(here, {me = 1, workers = 2, send = function(worker, sensor) ... end})
--     scorer:stored{"temperature"}                 -- after store:append
--
-- A sensor is judged in one place: sensors are split over the workers by a hash of their name, and a worker that stores a
-- reading of somebody else's sensor tells its owner. The owner reads the sensor's stream from where it stopped, so nothing is
-- judged twice or missed, however readings arrive. Position and state are saved together, in one key: a restart goes on where
-- the last one was. Watched are sensors that have a model or stand in the spec file.

local conformal = require "neap.conformal"
local ext = require "neap.ext"
local journal = require "neap.journal"
local json = require "neap.json"
local live = require "neap.live"
local log = require("neap.log").module "score"
local models = require "neap.models"
local task = require "neap.task"
local when = require "neap.when"
local worker = require "neap.worker"

local scorer = {}

local Scorer = {}
Scorer.__index = Scorer

local AT_ONCE <const> = 100 -- entries judged before others get their turn
local WARM <const> = 2000 -- readings of the past that a new watch starts with
local MODEL_LOOK_S <const> = 1 -- how often a new model may be looked for
local SAVE_S <const> = 30 -- how often states are saved when nothing happens
local FRESH_S <const> = 3600 -- silence is watched for sensors that send the present, not for histories that are being loaded

---@param here neap.Session
---@param opts? {me?: integer, workers?: integer, send?: fun(worker: integer, sensor: string), most?: integer, rollup?: table}
function scorer.new(here, opts)
    opts = opts or {}
    return setmetatable({here = here, store = here.store, me = opts.me or 1, workers = opts.workers or 1, send = opts.send,
        rollup = opts.rollup, most = opts.most or 256, watched = {}, count = 0, unwatched = {}, dirty = {},
        queue = {}, first = 1, last = 0, running = false}, Scorer)
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
        log.warn("the model cannot be read; the online detector goes on without it", {sensor = sensor, error = tostring(model)})
        return nil, nil, self.store:get(sensor, "model"), tostring(model)
    end
    return model, card and conformal.fit(card.calibration), named
end

local STATE <const> = "<s4s4s4" -- stream ID, stretches and counters as JSON, the watch

--- Position and state, in one key, so that they can never disagree.
local function save(self, one)
    local w = one.live
    local memory = json.encode {stretches = json.array(w.stretches), scored = w.scored, surprises = w.surprises}
    self.store:put(one.sensor, "watch", STATE:pack(one.id, memory, w:save()))
    one.saved_at = task.now()
end

--- Start watching: the model, the saved state, and the history that fills the window.
local function watch(self, sensor)
    local model, calibration, named, broken = load_model(self, sensor)
    if not model and not broken and not self.here.specs:has(sensor) then return nil end
    local one = {sensor = sensor, named = named, looked = task.now(), saved_at = task.now(), fresh = false, broken = broken}
    local saved, memory = self.store:get(sensor, "watch"), nil
    if saved then
        local ok, id, text, state = pcall(STATE.unpack, STATE, saved)
        if ok then one.id, memory, saved = id, json.decode(text), state end -- if not, live.new says what is wrong with it
    end
    local why
    local spec = self.here.specs:get(sensor)
    one.live, why = live.new {spec = spec, model = model, calibration = calibration, saved = saved, detectors = ext.detectors(spec)}
    if why then log.warn("a saved state cannot be used; the sensor is learnt anew", {sensor = sensor, why = why}) end
    if memory then
        one.live.scored, one.live.surprises, one.live.stretches = memory.scored, memory.surprises, memory.stretches
        for _, s in ipairs(memory.stretches) do
            local alert = one.live.watch.state.alerts[s.why]
            if alert and alert.status == "raised" then one.live.open[s.why] = s end
        end
    end
    one.id = one.id or self.store:id_before_last(sensor) -- what came before the newest entry is history, not news
    local times, values = self.store:before(sensor, one.id, WARM)
    one.live:warm(times, values, saved ~= nil and why == nil)
    return one
end

--- Sensors keep the fleet's budget of false alarms together: each worker a part of it, each sensor in proportion to its own. (Benjamini and
--- Hochberg's rule was not taken: it bounds the share of false ones among the alarms, not how many a week people are called.)
local function share_budget(self)
    local specs, asked = self.here.specs, 0
    for _, one in pairs(self.watched) do asked = asked + one.live.spec.false_alarms end
    local share = specs:share(asked, self.workers)
    for _, one in pairs(self.watched) do one.live:allow(one.live.spec.false_alarms * share) end
end

--- The sensor's entry, or nil when it is not to be watched.
local function entry_of(self, sensor)
    local one, now = self.watched[sensor], task.now()
    if one and now - one.looked >= MODEL_LOOK_S then
        one.looked = now
        if self.store:get(sensor, "model") ~= one.named then -- a newer model: go on with it
            save(self, one)
            one.live:close()
            one = nil
        end
    end
    if one then return one end
    if not self.watched[sensor] and self.count >= self.most then return nil end
    one = watch(self, sensor)
    if one and not self.watched[sensor] then self.count = self.count + 1 end
    self.unwatched[sensor] = not one and now or nil
    self.watched[sensor] = one
    share_budget(self)
    return one
end

-- ---- judging ----

--- What people and devices see of a sensor.
local function status_of(one)
    local w, last = one.live, one.live.last
    local stretches, open = json.array {}, nil
    for i, s in ipairs(w.stretches) do
        stretches[i] = {from = when.iso(s.from_us), to = when.iso(s.to_us), why = s.why, text = s.text}
        if w.open[s.why] == s then open = open or s end
    end
    return {
        state = open and "anomaly" or last.p and "ok" or "warming up", anomaly_detected = open and 1 or 0, model = w.model ~= nil, model_error = one.broken,
        why = open and open.why or nil, text = open and open.text or nil, since = open and when.iso(open.from_us) or nil,
        time = when.iso(w.last_us), value = last.value, forecast = last.forecast, p = last.p, score = last.score,
        surprise = last.p and 0.0 - math.log(last.p, 10) or nil, flagged_stretches = stretches, scored = w.scored,
        false_alarms = w.watch.budget, surprises_at_1_percent = w.scored > 0 and w.surprises / w.scored or nil,
    }
end

local function announce(sensor, events)
    for _, e in ipairs(events) do
        local fields = {sensor = sensor, detector = e.detector, value = e.value, text = e.text}
        if e.event == "raised" then log.warn("anomaly", fields) else log.info("back to normal", fields) end
    end
end

--- Show what was found, and save what must survive.
local function publish(self, one, happened)
    if one.live.last then self.store:put(one.sensor, "status", json.encode(status_of(one))) end
    if happened or task.now() - one.saved_at >= SAVE_S then save(self, one) end
end

--- Judge what is new of one sensor. True if there is more.
local function judge(self, sensor)
    local one = entry_of(self, sensor)
    if not one then return false end
    local times, values, id, more = self.store:after(sensor, one.id, AT_ONCE)
    local happened = false
    for i = 1, #times do
        local _, events = one.live:push(times[i], values[i])
        if events and #events > 0 then
            announce(sensor, events)
            happened = true
        end
        if i % 100 == 0 then task.yield() end
    end
    one.id = id
    if #times > 0 then
        one.fresh = neap.clock() - times[#times] / 1e6 < FRESH_S
        publish(self, one, happened)
    end
    return more
end

--- Works through the sensors that have news, each in turn. When readings come faster than they can be judged, it gets what
--- storing leaves it (journal.rest) and catches up later. The pause after the last sensor counts too: what
--- arrives in it is judged together, with one look at Redis and one status.
local function run(self)
    while true do
        local sensor = self.queue[self.first]
        if not sensor or self.is_replaced() then break end
        self.queue[self.first], self.first = nil, self.first + 1
        self.dirty[sensor] = nil
        local started = task.now()
        local ok, more = pcall(judge, self, sensor)
        if not ok then
            if type(more) == "table" and more.kind == "cancelled" then error(more, 0) end
            log.error("scoring failed", {sensor = sensor, error = tostring(more)})
        elseif more then
            self:mine(sensor)
        end
        task.sleep(journal.rest(self.here.journal, task.now() - started))
    end
end

--- Whether another thread has this worker's sensors now (it was blocked, and replaced): what is in memory here must not be saved any more.
function Scorer.is_replaced() return select(2, worker.lost()) end

--- Another worker has stored readings of this worker's sensor.
---@param sensor string
function Scorer:told(sensor)
    if self.rollup then self.rollup:touch(sensor) end
    self:mine(sensor)
end

--- This worker's own sensor has news.
---@param sensor string
function Scorer:mine(sensor)
    if self.dirty[sensor] then return end
    self.dirty[sensor] = true
    self.last = self.last + 1
    self.queue[self.last] = sensor
    if self.running then return end
    self.running = true
    task.spawn(function()
        local done <close> = setmetatable({}, {__close = function() self.running = false end}) -- luacheck: ignore 211
        run(self)
    end)
end

--- Readings of the sensors from one place in this list to another have just been stored.
---@param sensors string[]
---@param from integer
---@param to integer
function Scorer:stored(sensors, from, to)
    local me, workers, rollup, unwatched, dirty, now = self.me, self.workers, self.rollup, self.unwatched, self.dirty, task.now()
    for i = from, to do
        local sensor = sensors[i]
        local owner = workers > 1 and scorer.owner(sensor, workers) or me
        if owner == me then
            if rollup then rollup:touch(sensor) end
            local looked = unwatched[sensor]
            if not (dirty[sensor] or looked and now - looked < MODEL_LOOK_S) then self:mine(sensor) end
        else
            self.send(owner, sensor)
        end
    end
end

--- Looks at the clock for every watched sensor: silence has no reading to hang on. Call it every few seconds.
function Scorer:tick()
    if self.is_replaced() then return end
    for sensor, one in pairs(self.watched) do
        if one.fresh and not self.dirty[sensor] then
            local events = one.live:tick(math.tointeger(neap.clock() * 1000000 // 1))
            announce(sensor, events)
            if #events > 0 then publish(self, one, true) end
        end
    end
end

--- Save every state: before the server stops.
function Scorer:save()
    if self.is_replaced() then return end
    for _, one in pairs(self.watched) do save(self, one) end
end

--- Begin anew with every sensor at its next reading, because specs have changed; states are kept.
function Scorer:forget()
    self:save()
    self.watched, self.count, self.unwatched = {}, 0, {}
end

return scorer
