--- Rollups: of every minute, hour and day of a sensor how many readings, lowest, highest, mean and last; and retention.
--
--     local r = rollup.new(store, {spec = function(name) return specs:get(name) end, mine = function(name) return true end})
--     r:touch "oven"                            -- it has new readings: rolled up within a second or two, off the request path
--     rollup.catch_up(store, "oven", spec)      -- or now
--
-- A stream is in order of arrival, so what is new is read from a stored position on. A new reading belongs to the finest level that
-- still reaches back to its time (minutes, usually); there its bucket is extended if it is newer than all of the bucket, which needs
-- nothing but the record. Otherwise (it is late within its bucket, or comes again) the bucket is marked, and computed again from the
-- readings, many marked buckets in one pass. Coarser buckets are computed from the finer ones. Each step is one write (rollup_store.lua):
-- interrupted anywhere, it happens again or not at all. Past the retention of the readings themselves a bucket cannot be computed again;
-- a reading that late is added to it, and counts twice if it had been there before. Before the oldest level it is not counted.

local log = require("neap.log").module "rollup"
local metric = require "neap.metric"
local record = require "neap.rollup_record"
local rollup_store = require "neap.rollup_store"
local sort_and_merge = require("neap.store").sort_and_merge
local task = require "neap.task"

local rollup = {}

local LEVELS <const> = rollup_store.levels
local MOST_AT_ONCE <const> = 100 -- entries of a step, each of one reading up to 128 ..
local READINGS_AT_ONCE <const> = 2000 -- .. and about how many readings: requests are not to wait for a step of milliseconds
local AT_A_STRETCH <const> = 50 -- buckets computed before requests have their turn
local MOST_MARKED <const> = 2000 -- buckets computed again in one pass
local MOST_DROPPED <const> = 200 -- chunks of old buckets deleted at once
local TICK_S <const> = 1 -- how often new readings are rolled up
local SWEEP_S <const> = 60 -- how often every sensor is looked at: for readings that nobody announced, and to trim

local computed = metric.counter("neap_rollup_recomputed_total", "Buckets computed again for late or repeated readings.")
local trimmed = metric.counter("neap_trimmed_entries_total", "Stream entries trimmed by keep and keep_for.")

-- ---- one step of one sensor ----

local at_once = MOST_AT_ONCE -- entries, by how full they are

local function horizon(spec)
    return rollup_store.horizon({spec.keep_minutes, spec.keep_hours, spec.keep_days}, neap.clock())
end

local function mark_name(level, start) return level .. ":" .. start end

--- The new readings of a bucket, in order.
local function readings_in(group, times, values)
    if group.times then return group.times, group.values end
    return table.move(times, group.first, group.last, 1, {}), table.move(values, group.first, group.last, 1, {})
end

--- New readings by bucket: a list of {level, start, new = their record, first =, last =, or times =, values = where they do not stand in order}.
local function by_bucket(view, times, values, ids)
    local list, known, i, runs = {}, {}, 1, 0
    while i <= #times do
        local level, start = view:place(times[i])
        if not level then
            i = i + 1
        else
            local ms, seq = rollup_store.id(ids[i])
            local new, last = record.run(times, values, i, start + LEVELS[level].span, ms, seq)
            local group = known[start + level]
            if not group then
                group = {level, start, new = new, first = i, last = last}
                known[start + level], list[#list + 1] = group, group
            else
                group.times, group.values = readings_in(group, times, values)
                table.move(times, i, last, #group.times + 1, group.times)
                table.move(values, i, last, #group.values + 1, group.values)
            end
            i = last + 1
        end
        runs = runs + 1
        if runs % AT_A_STRETCH == 0 then task.yield() end
    end
    for _, group in ipairs(list) do
        if group.times then
            group.times, group.values = sort_and_merge(group.times, group.values)
            group.new = record.of(group.times, group.values, group.new.ms, group.new.seq)
        end
    end
    return list
end

--- The bucket with the new readings in it, or nil when only a look at its readings can tell.
local function extended(old, group, all_times, all_values)
    local new = group.new
    if not old then return new end
    if (group.times or all_times)[group.times and 1 or group.first] > old.at then return record.merge(old, new) end
    if old.n == 1 then -- all its readings are known: the one
        local times, values = readings_in(group, all_times, all_values)
        local t, v = {old.at}, {old.last}
        table.move(times, 1, #times, 2, t)
        table.move(values, 1, #values, 2, v)
        t, v = sort_and_merge(t, v)
        return record.of(t, v, old.ms, old.seq)
    end
    if new.n == 1 and new.at == old.at and new.last == old.last then return old end -- the last one, sent again
end

--- Computes the coarser buckets above the changed ones from the finer ones.
local function lift(view, changed)
    for level = 1, #LEVELS - 1 do
        local seen, parents, span = {}, {}, LEVELS[level + 1].span
        for _, place in ipairs(changed) do
            if place[1] == level then
                local start = place[2] // span * span
                if not seen[start] then seen[start], parents[#parents + 1] = true, {level + 1, start} end
            end
        end
        for i, parent in ipairs(parents) do
            local whole
            for start = parent[2], parent[2] + span - 1, LEVELS[level].span do
                local part = view:get(level, start)
                if part then whole = whole and record.merge(whole, part) or part end
            end
            view:set(level + 1, parent[2], whole)
            if i % AT_A_STRETCH == 0 then task.yield() end
        end
        table.move(parents, 1, #parents, #changed + 1, changed)
    end
end

--- Reads the chunks of the buckets and of those above them at once.
local function fetch_with_parents(view, places)
    local all = {}
    for _, place in ipairs(places) do
        for level = place[1], #LEVELS do all[#all + 1] = {level, place[2] // LEVELS[level].span * LEVELS[level].span} end
    end
    view:fetch(all)
end

--- Whether all readings of a bucket are still in the stream, whose first entry is (ms, seq).
local function complete(r, ms, seq) return ms and not (r.ms < ms or r.ms == ms and r.seq < seq) end

local function first_of(view)
    local first = view.store:first_id(view.sensor)
    if first then return rollup_store.id(first) end
end

--- Rolls up the next entries of the stream. RETURN: whether there are more (true also when somebody else was faster).
local function step(view)
    local times, values, ids, last, more = view.store:arrivals(view.sensor, "(" .. view.position, "+", at_once)
    if not last then return false end
    if #times > READINGS_AT_ONCE then at_once = math.max(at_once // 2, 8)
    elseif #times < READINGS_AT_ONCE // 4 then at_once = math.min(2 * at_once, MOST_AT_ONCE) end
    task.yield()
    local groups = by_bucket(view, times, values, ids)
    fetch_with_parents(view, groups)
    local names, changed, mark = {}, {}, {}
    for i, group in ipairs(groups) do names[i] = mark_name(group[1], group[2]) end
    local waiting, ms, seq = view:marked(names), nil, nil
    for i, group in ipairs(groups) do
        if not waiting[names[i]] then
            local old = view:get(group[1], group[2])
            local new = extended(old, group, times, values)
            if not new then
                if not ms then ms, seq = first_of(view) end
                if complete(old, ms, seq) then
                    mark[#mark + 1] = names[i]
                else
                    new = record.merge(old, group.new)
                end
            end
            if new and new ~= old then
                view:set(group[1], group[2], new)
                changed[#changed + 1] = group
            end
        end
        if i % AT_A_STRETCH == 0 then task.yield() end
    end
    lift(view, changed)
    local written = view:commit {position = last, mark = mark}
    view.dirty = view.dirty + #mark
    return more or not written
end

--- The readings of the wanted buckets ("level:start") in the stream from an entry up to the position, by bucket.
local function readings_of(view, wanted, from)
    local found = {}
    repeat
        local times, values, _, last, more = view.store:arrivals(view.sensor, from, view.position, at_once)
        for i, time_us in ipairs(times) do
            local level, start = view:place(time_us)
            local name = level and mark_name(level, start)
            if name and wanted[name] then
                local list = found[name] or {times = {}, values = {}}
                found[name] = list
                list.times[#list.times + 1], list.values[#list.values + 1] = time_us, values[i]
            end
            if i % 500 == 0 then task.yield() end
        end
        from = last and "(" .. last
    until not more
    return found
end

--- Computes marked buckets again from their readings, up to the position. RETURN: whether there are more.
local function repair(view)
    local names = view:marks(MOST_MARKED)
    if #names == 0 then return false end
    local places, wanted = {}, {}
    for i, name in ipairs(names) do
        local level, start = name:match "^(%d+):(%-?%d+)$"
        places[i] = {math.tointeger(level), math.tointeger(start)}
    end
    fetch_with_parents(view, places)
    local ms, seq = first_of(view)
    local least, least_seq, records = math.maxinteger, 0, {}
    for i, place in ipairs(places) do
        local r = view:get(place[1], place[2])
        if r and complete(r, ms, seq) then -- if somebody trimmed the stream meanwhile, the record is the best there is
            wanted[names[i]], records[names[i]] = place, r
            if record.arrived_by(r, least, least_seq) then least, least_seq = r.ms, r.seq end
        end
    end
    local found = next(wanted) and readings_of(view, wanted, least .. "-" .. least_seq) or {}
    local changed = {}
    for name, list in pairs(found) do
        local place, old = wanted[name], records[name]
        local t, v = sort_and_merge(list.times, list.values)
        view:set(place[1], place[2], record.of(t, v, old.ms, old.seq))
        changed[#changed + 1] = place
    end
    lift(view, changed)
    if not view:commit {unmark = names} then return true end
    computed:inc(#changed)
    view.dirty = view.dirty - #names
    return view.dirty > 0
end

-- ---- retention ----

--- Forgets what the spec no longer keeps. Nothing while buckets wait to be computed again: they need the readings. RETURN: whether there is more.
local function trim(store, sensor, spec)
    local view = rollup_store.open(store, sensor, horizon(spec))
    if view.dirty > 0 then return false end
    local gone = view:trim_readings(spec.keep, spec.keep_for and neap.clock() - spec.keep_for or nil)
    if gone > 0 then trimmed:inc(gone) end
    local cut = horizon(spec)
    for i = 1, #LEVELS do view.from[i] = math.max(view.from[i], cut[i]) end
    local drop = view:outdated(MOST_DROPPED)
    if #drop > 0 then view:commit {drop = drop} end
    return #drop == MOST_DROPPED
end

--- One bounded piece of work for a sensor. RETURN: whether there is more to do.
local function advance(store, sensor, spec)
    local view = rollup_store.open(store, sensor, horizon(spec))
    if view.dirty >= MOST_MARKED then return repair(view) or true end
    if step(view) then return true end
    if view.dirty == 0 then return false end
    return repair(rollup_store.open(store, sensor, horizon(spec)))
end

--- Rolls up everything there is, and trims.
---@param store any
---@param sensor string
---@param spec neap.SensorSpec
function rollup.catch_up(store, sensor, spec)
    while advance(store, sensor, spec) do task.yield() end
    while trim(store, sensor, spec) do task.yield() end
end

-- ---- a worker's sensors ----

local Rollup = {}
Rollup.__index = Rollup

--- A bounded step for each touched sensor, with a rest behind it: storing readings comes first.
local function round(self)
    local touched = self.touched
    self.touched = {}
    for sensor, why in pairs(touched) do
        if self.stopped then break end
        local trims, started = why == "trim", task.now()
        local ok, more = pcall(advance, self.store, sensor, self.spec(sensor))
        if ok and not more and trims then ok, more = pcall(trim, self.store, sensor, self.spec(sensor)) end
        if not ok then
            if type(more) == "table" and more.kind == "cancelled" then error(more, 0) end
            if not self.stopped then log.warn("a rollup could not be brought up to date; it is tried again", {sensor = sensor, error = tostring(more)}) end
        elseif more then
            self.touched[sensor] = trims and "trim" or self.touched[sensor] or "new"
            self.behind = true
        end
        task.sleep(self.rest(task.now() - started))
    end
end

--- A sensor has new readings.
---@param sensor string
function Rollup:touch(sensor)
    local touched = self.touched
    if not touched[sensor] then touched[sensor] = "new" end
end

--- Every sensor of ours: what arrived while nobody looked, such as an import or before a crash, and what is to be trimmed.
local function sweep(self)
    local ok, names = pcall(self.store.sensors, self.store)
    if not ok then return end -- Redis is away; the next sweep finds what this one missed
    self.swept = task.now()
    for _, sensor in ipairs(names) do
        if self.mine(sensor) then self.touched[sensor] = "trim" end
    end
end

function Rollup:tick()
    if self.running or self.stopped then return end
    self.running = true
    local done <close> = setmetatable({}, {__close = function() self.running = false end}) -- luacheck: ignore 211
    if not self.swept or task.now() - self.swept >= SWEEP_S then sweep(self) end
    repeat
        self.behind = false
        round(self)
    until not self.behind or self.stopped
end

--- No more work is begun; what is under way may end or fail, it is done again at the next start.
function Rollup:stop()
    self.stopped = true
    self.timer:stop()
end

---@param store any
---@param opts {spec: (fun(name: string): neap.SensorSpec), mine: fun(name: string): boolean, rest?: fun(took: number): number}
function rollup.new(store, opts)
    local self = setmetatable({store = store, spec = opts.spec, mine = opts.mine, rest = opts.rest or function(took) return 3 * took end,
        touched = {}, running = false, stopped = false, behind = false}, Rollup)
    self.timer = task.every(TICK_S, function() self:tick() end)
    return self
end

-- ---- reading ----

local LEVEL_OF <const> = {[60.0] = 1, [3600.0] = 2, [86400.0] = 3}

--- The level of a step such as "1m", "1 h" or "1d".
---@param text string
---@return integer? level
---@return string? why
function rollup.level(text)
    local seconds = require("neap.when").duration(text)
    local level = LEVEL_OF[seconds]
    if not level then return nil, ("'%s': a step is 1m, 1h or 1d"):format(text) end
    return level
end

--- Columns of the buckets that touch the span: times (microseconds, where each begins), n, min, max, mean, last.
---@param store any
---@param sensor string
---@param level integer
---@param query {from_us?: integer, to_us?: integer, last?: integer} last: only the newest so many buckets
function rollup.columns(store, sensor, level, query)
    local starts, records = rollup_store.range(store, sensor, level, query)
    local columns = {times = starts, n = {}, min = {}, max = {}, mean = {}, last = {}}
    for i, r in ipairs(records) do
        columns.n[i], columns.min[i], columns.max[i], columns.mean[i], columns.last[i] = r.n, r.min, r.max, record.mean(r), r.last
    end
    return columns
end

return rollup
