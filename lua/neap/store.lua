--- Readings in Redis. The only module that knows keys; everything else asks it.
--
--     local store = require("neap.store").new(redis_client)
--     store:append{order = {"oven"}, pairs = {oven = {time_us, 212.5}}}
--     local times, values = store:history("oven", {last = 1000})
--
-- Keys (the braces keep all keys of a sensor on one node of a Redis Cluster):
--     neap:{SENSOR}:readings    stream in order of ARRIVAL; an entry's fields are event times (us), each with its
--                               value, or with the values of several readings: 21.5 21.75@1000000 22, where 1000000 us lie between the
--                               first two, and as many before the third (host/chunk.h)
--     neap:{SENSOR}:synthetic   the same for made-up readings, so that they never mix with real ones
--     neap:{SENSOR}:quarantine  the same for readings whose device's clock is not believed, where the spec wants them kept apart (neap.ingest)
--     neap:clocks               hash: what the last unbelievable time of a sensor was, JSON
--     neap:{SENSOR}:status      what the scorer last said, JSON        neap:{SENSOR}:model   the live model's file, JSON
--     neap:{SENSOR}:watch       the scorer's position and state, for a restart
--     neap:{SENSOR}:rollup      how far minutes, hours and days are computed (hash); behind it :dirty (set of buckets to be computed
--                               again), :1m :1h :1d (sorted sets of chunks) and :1m:CHUNK ... (hashes of packed buckets; rollup_record.lua)
--     neap:sensors              set of all sensors
--     neap:journal neap:dead neap:once:KEY    the journal's position, what Redis did not take, idempotency keys; on a Cluster of each
--                               sensor: neap:{SENSOR}:journal :dead :once:KEY
--
-- A device's clock never becomes a stream ID: one ID from the year 2100 would refuse every honest reading after it. So a
-- history is sorted when it is read; of readings with equal event times the one that arrived last counts.

local decode = require "neap.decode"
local json = require "neap.json"
local task = require "neap.task"

local store = {}

local Store = {}
Store.__index = Store

local READINGS_PER_ENTRY <const> = 128
local AT_A_STRETCH <const> = 500 -- readings taken out of their entries before others have their turn
local SENSORS_KEY <const>, CLOCKS_KEY <const> = "neap:sensors", "neap:clocks"
local VISIBLE_S <const> = 0.2 -- so long an accepted batch may wait for Redis after it is on disk
local USUAL <const> = {visible = VISIBLE_S}

local function key(sensor, what) return "neap:{" .. sensor .. "}:" .. what end

--- The stream's name for a source of readings: "real" (or nil), "synthetic", "quarantine".
local STREAMS <const> = {real = "readings", synthetic = "synthetic", quarantine = "quarantine"}
local function stream_key(sensor, source) return key(sensor, STREAMS[source or "real"]) end

--- Names for neap.rollup_store: of the readings, and of the keys of a sensor's rollups.
function store.readings_key(sensor) return stream_key(sensor) end
function store.rollup_key(sensor, ...) return key(sensor, table.concat({"rollup", ...}, ":")) end

---@param redis any a client of neap.redis
---@param opts? {specs?: neap.Specs, most_sensors?: integer}
function store.new(redis, opts)
    opts = opts or {}
    return setmetatable({redis = redis, specs = opts.specs, most_sensors = opts.most_sensors or 10000, known = {}, known_count = 0,
        let_in = {}, let_in_count = 0, floors = {}, newest = {}},
        Store)
end

-- ---- the journal ----

--- The names that the journal's applier needs: the same streams as above, and its own keys.
---@return table<string, string>
function store.journal_keys()
    return {
        stream_prefix = "neap:{", stream_suffix = "}:readings", synthetic_suffix = "}:synthetic", quarantine_suffix = "}:quarantine", sensors_key = SENSORS_KEY,
        state_key = "neap:journal", dead_key = "neap:dead", once_prefix = "neap:once:",
        position_suffix = "}:journal", dead_suffix = "}:dead", once_suffix = "}:once:", -- the same on a Cluster, of each sensor
    }
end

-- ---- sensors ----

--- Learn which sensors Redis has; needed once before admit().
function Store:load_sensors()
    local names = self.redis:smembers(SENSORS_KEY)
    self.known, self.known_count = {}, 0
    for _, name in ipairs(names) do
        self.known[name], self.known_count = true, self.known_count + 1
        self:arrived(name)
    end
    return names
end

--- A sensor that was let in is known now, or will not be.
function Store:arrived(name)
    if self.let_in[name] then self.let_in[name], self.let_in_count = nil, self.let_in_count - 1 end
end

--- May this sensor be stored? Sensors register themselves, up to a cap, and count from when they are let in; those of the spec file always may.
---@param name string
---@return boolean may
---@return string? why
function Store:admit(name)
    if self.known[name] or self.let_in[name] or (self.specs and self.specs:has(name)) then return true end
    local count = self.known_count + self.let_in_count
    if count >= self.most_sensors then return false, ("there are %d sensors already, which is the cap (--most-sensors)"):format(count) end
    self.let_in[name], self.let_in_count = true, self.let_in_count + 1
    return true
end

--- All sensors, sorted by name.
---@return string[]
function Store:sensors()
    local names = self:load_sensors()
    table.sort(names)
    return names
end

--- Those of a batch that could not be stored are not there after all.
---@param taken neap.ingest.Taken
function Store:let_go(taken)
    for _, set in ipairs {taken, taken.aside} do
        for _, name in ipairs(set.order) do self:arrived(name) end
    end
end

-- ---- writing ----

--- The commands that store a batch, as lists of arguments.
local function commands_of(self, taken, source)
    local commands = {}
    for _, sensor in ipairs(taken.order) do
        if not self.known[sensor] then commands[#commands + 1] = {"SADD", SENSORS_KEY, sensor} end
        local spec = self.specs and self.specs:get(sensor)
        local pairs, stream = taken.pairs[sensor], stream_key(sensor, source)
        for from = 1, #pairs, 2 * READINGS_PER_ENTRY do
            commands[#commands + 1] = {"XADD", stream, "MAXLEN", "~", spec and spec.keep or 1000000, "*",
                decode.pack(pairs, from, math.min(#pairs, from + 2 * READINGS_PER_ENTRY - 1))}
        end
    end
    return commands
end

--- Write through a journal (nil: straight to Redis).
---@param journal? neap.journal.Journal
function Store:use_journal(journal) self.journal = journal end

--- These sensors have readings now.
local function register(self, order)
    for _, sensor in ipairs(order) do
        if not self.known[sensor] then
            self.known[sensor], self.known_count = true, self.known_count + 1
            self:arrived(sensor)
        end
    end
end

--- Store a judged batch; returns when it is safe, so that 2xx can mean so: with a journal when it is on disk there, and normally
--- in Redis too; without one when Redis has answered every command.
---@param taken neap.ingest.Taken
---@param source? "real"|"synthetic"|"quarantine"
---@param once? string idempotency key (with a journal)
---@return boolean applied can be read now
---@return integer? position in the journal
function Store:append(taken, source, once)
    if taken.aside then -- first: a batch whose rest then fails is sent again, and those here would only replace themselves
        self:append(taken.aside, "quarantine", once and once .. " quarantine")
        if #taken.order == 0 then return true end
    end
    if self.journal then
        local position, applied
        local opts = (source or once) and {source = source, key = once, visible = VISIBLE_S} or USUAL
        if taken.batch then
            position, applied = self.journal:append(taken.batch, opts) -- its sensors were registered when each came first
        else
            position, applied = self.journal:append_pairs(taken.order, taken.pairs, opts)
            register(self, taken.order)
        end
        return applied or not position, position
    end
    local commands = commands_of(self, taken, source)
    if #commands == 1 then
        self.redis:call(table.unpack(commands[1]))
    elseif #commands > 0 then
        self.redis:pipeline(function(p)
            for _, command in ipairs(commands) do p:call(table.unpack(command)) end
        end)
    end
    register(self, taken.order)
    return true
end

--- Append many readings {sensor, time_us, value} from an iterator, a few thousand at a time. Returns how many.
---@param each fun(): table?
---@param source? "real"|"synthetic"
---@param progress? fun(count: integer)
function Store:append_all(each, source, progress)
    local count, taken, held = 0, {order = {}, pairs = {}}, 0
    local function flush()
        if held == 0 then return end
        self:append(taken, source)
        taken, held = {order = {}, pairs = {}}, 0
        if progress then progress(count) end
    end
    for reading in each do
        if reading then
            local pairs = taken.pairs[reading.sensor]
            if not pairs then
                pairs = {}
                taken.pairs[reading.sensor], taken.order[#taken.order + 1] = pairs, reading.sensor
            end
            pairs[#pairs + 1], pairs[#pairs + 2] = reading.time_us, reading.value
            count, held = count + 1, held + 1
            if held >= 4096 then flush() end
        end
    end
    flush()
    return count
end

--- Put a made-up history in the place of the one before.
---@param sensor string
---@param series neap.synth.Series
function Store:replace_synthetic(sensor, series)
    self.redis:call("DEL", stream_key(sensor, "synthetic"))
    local i = 0
    self:append_all(function()
        i = i + 1
        return series.times[i] and {sensor = sensor, time_us = series.times[i], value = series.values[i]} or nil
    end, "synthetic")
end

-- ---- reading ----

--- Sort by event time; of equal times the last arrival counts. Both lists are changed in place.
local function sort_and_merge(times, values)
    local n, sorted = #times, true
    for i = 2, n do
        if times[i] <= times[i - 1] then sorted = false; break end
    end
    if sorted then return times, values end
    local place = {}
    for i = 1, n do place[i] = i end
    table.sort(place, function(a, b)
        if times[a] ~= times[b] then return times[a] < times[b] end
        return a < b
    end)
    local out_times, out_values, m = {}, {}, 0
    for _, i in ipairs(place) do
        if m == 0 or out_times[m] ~= times[i] then m = m + 1 end
        out_times[m], out_values[m] = times[i], values[i]
    end
    return out_times, out_values
end

--- Entries of a stream as two flat lists in order of arrival. A field that somebody else put there is not a reading.
local function flatten(entries, times, values)
    times, values = times or {}, values or {}
    for _, entry in ipairs(entries) do
        local fields = entry[2]
        for i = 1, #fields, 2 do decode.unpack(fields[i], fields[i + 1], times, values) end
    end
    return times, values
end

--- Readings in order of event time; of those with equal times the one that stands last in the lists.
store.sort_and_merge = sort_and_merge

local function reversed(list)
    for i = 1, #list // 2 do list[i], list[#list + 1 - i] = list[#list + 1 - i], list[i] end
    return list
end

--- What arrived after the entry `id` ("0" for everything), in order of arrival, at most `count` entries; and the last ID seen.
---@param sensor string
---@param id string
---@param count integer
---@return integer[] times
---@return number[] values
---@return string id
---@return boolean more there may be more behind them
function Store:after(sensor, id, count)
    local entries = self.redis:raw("XRANGE", stream_key(sensor), "(" .. id, "+", "COUNT", count)
    local times, values = flatten(entries)
    return times, values, #entries > 0 and entries[#entries][1] or id, #entries == count
end

--- The readings of at most `count` entries from the entry `from` ("(ID": behind it) to `to`, in order of arrival. Others have their turn every
--- AT_A_STRETCH readings: 2,000 at once held requests up for 2 ms.
---@return integer[] times
---@return number[] values
---@return string[] ids of each reading's entry
---@return string? last ID of the last entry, nil if there is none
---@return boolean more there may be more behind it
function Store:arrivals(sensor, from, to, count)
    local entries = self.redis:raw("XRANGE", stream_key(sensor), from, to, "COUNT", count)
    local times, values, ids, rested = {}, {}, {}, 0
    for _, entry in ipairs(entries) do
        if #times - rested >= AT_A_STRETCH then
            rested = #times
            task.yield()
        end
        local fields = entry[2]
        for i = 1, #fields, 2 do decode.unpack(fields[i], fields[i + 1], times, values) end
        for i = #ids + 1, #times do ids[i] = entry[1] end
    end
    return times, values, ids, #entries > 0 and entries[#entries][1] or nil, #entries == count
end

--- The ID of the first entry that is still there, or nil.
function Store:first_id(sensor)
    local entry = self.redis:raw("XRANGE", stream_key(sensor), "-", "+", "COUNT", 1)[1]
    return entry and entry[1]
end

--- At least `count` readings (if there are so many) that arrived last up to and with the entry `id`, in order of event time.
function Store:before(sensor, id, count)
    local all, most, times, values = {}, 64, {}, {}
    repeat
        local page = self.redis:raw("XREVRANGE", stream_key(sensor), #all > 0 and "(" .. all[#all][1] or id, "-", "COUNT", most)
        table.move(page, 1, #page, #all + 1, all)
        times = flatten(page, times, values)
        local more = #page == most and #times < count
        most = 2 * most
    until not more
    return sort_and_merge(flatten(reversed(all)))
end

--- The ID of the last entry but one, "0-0" if there is none.
function Store:id_before_last(sensor)
    local entries = self.redis:raw("XREVRANGE", stream_key(sensor), "+", "-", "COUNT", 2)
    return entries[2] and entries[2][1] or "0-0"
end

--- How many entries a sensor's stream has (readings that arrived together share one).
function Store:entries(sensor, source) return self.redis:xlen(stream_key(sensor, source)) end

--- Whether there is anything at all.
function Store:has(sensor, source) return self:entries(sensor, source) > 0 end

require("neap.newest")(Store, stream_key, key) -- history, latest, pulse

-- ---- devices' clocks ----

--- Remember a time that was not believed: its verdict and, if there was one, how far it was from ours.
---@param name string
---@param of {skew_us?: integer, verdict: string}
---@param now number seconds since 1970
function Store:note_clock(name, of, now)
    self.redis:call("HSET", CLOCKS_KEY, name, json.encode {skew = of.skew_us and of.skew_us / 1e6, verdict = of.verdict, at = now})
end

--- What note_clock() has of every sensor: {skew = seconds, ahead of ours above 0, verdict, at}.
---@return table<string, table>
function Store:clocks()
    local out, flat = {}, self.redis:raw("HGETALL", CLOCKS_KEY)
    for i = 1, #flat, 2 do out[flat[i]] = json.decode(flat[i + 1]) end
    return out
end

--- The same of one sensor, and how long before (below 0) or after its arrival the newest reading of the last entry was.
---@return table? unbelieved
---@return number? skew seconds
function Store:clock(name)
    local text = self.redis:call("HGET", CLOCKS_KEY, name)
    local entry = self.redis:raw("XREVRANGE", stream_key(name), "+", "-", "COUNT", 1)[1]
    local times = entry and flatten {entry} or {}
    local skew = #times > 0 and math.max(table.unpack(times)) / 1e6 - tonumber(entry[1]:match "^%d+") / 1e3 or nil
    return text and json.decode(text), skew
end

-- ---- small things kept beside a sensor's readings ----

--- Save or read a sensor's `status`, `model` or `watch` (strings).
function Store:put(sensor, what, text) self.redis:call("SET", key(sensor, what), text) end
function Store:get(sensor, what) return self.redis:call("GET", key(sensor, what)) end

--- Everything about a sensor is gone after this, but for its place in the journal on a Cluster: without it, what the journal still keeps of the
--- sensor would be applied again.
function Store:forget(sensor)
    self.redis:call("DEL", key(sensor, "readings"), key(sensor, "synthetic"), key(sensor, "quarantine"), key(sensor, "status"),
        key(sensor, "model"), key(sensor, "watch"))
    self.redis:call("HDEL", CLOCKS_KEY, sensor)
    self.newest[sensor] = nil
    for source in pairs(STREAMS) do self.floors[stream_key(sensor, source)] = nil end
    for _, name in ipairs(require("neap.rollup_store").keys(self, sensor)) do self.redis:call("DEL", name) end
    self.redis:call("SREM", SENSORS_KEY, sensor)
    if self.known[sensor] then self.known[sensor], self.known_count = nil, self.known_count - 1 end
end

-- ---- the starter kit's lists ----

--- The sensors that a starter kit has left in this Redis, by its lists `NAMESPACE:<name>`.
---@param namespace? string
---@return string[]
function Store:kit_sensors(namespace)
    namespace = namespace or "sensor_logs"
    local names, cursor = {}, "0"
    repeat
        local reply = self.redis:raw("SCAN", cursor, "MATCH", namespace:gsub("[%*%?%[%]\\]", "\\%0") .. ":*", "COUNT", 1000)
        cursor = tostring(reply[1])
        for _, name in ipairs(reply[2]) do names[#names + 1] = name:sub(#namespace + 2) end
    until cursor == "0"
    table.sort(names)
    return names
end

--- What a key that looks like one of the kit's lists really is: "list", "string", ...
function Store:kit_type(name, namespace) return self.redis:call("TYPE", (namespace or "sensor_logs") .. ":" .. name) end

--- One list, oldest first: texts of JSON as the starter kit pushed them (newest at the head).
---@return fun(): string?
function Store:kit_list(name, namespace)
    local list = (namespace or "sensor_logs") .. ":" .. name
    local left = self.redis:call("LLEN", list)
    local page, at = {}, 0
    return function()
        if at == 0 then
            if left == 0 then return nil end
            local from = math.max(0, left - 1000)
            page = self.redis:raw("LRANGE", list, from, left - 1)
            left, at = from, #page
            if at == 0 then return nil end
        end
        at = at - 1
        return page[at + 1]
    end
end

return store
