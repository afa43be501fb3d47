--- Where rollups lie in Redis. neap.rollup decides what is written; the names of the keys are store.lua's.
--
--     local view = rollup_store.open(store, "oven", from)     -- the sensor's state, read now
--     view:fetch{{1, start_us}}; view:get(1, start_us); view:set(1, start_us, record)
--     view:commit{position = id}                              -- all of it or, when somebody else was faster, nothing: false
--
-- The buckets of a level lie in chunks: hashes of at most 128 short values, which Redis stores in one block (some 55 bytes a bucket of
-- many readings). A sorted set names the chunks. Records and the position in the stream up to which they hold are written by one script, which
-- runs only if nobody has written since they were read: nothing is counted twice, whoever dies when, however many hosts are at work.

local record = require "neap.rollup_record"
local store_of = require "neap.store"

local rollup_store = {}

local SECOND <const> = 1000000
local FOR_EVER <const> = -(1 << 62)

--- The levels, finest first. `span`: of a bucket, in microseconds; `per`: buckets in a chunk. A chunk is whole buckets of the next level.
rollup_store.levels = {
    {name = "1m", span = 60 * SECOND, per = 60}, {name = "1h", span = 3600 * SECOND, per = 120}, {name = "1d", span = 86400 * SECOND, per = 120},
}
local LEVELS <const> = rollup_store.levels

-- All keys have the sensor's hash tag, so that on a Cluster they lie where KEYS[1] does.
local COMMIT <const> = [[
if (redis.call('HGET', KEYS[1], 'version') or '0') ~= ARGV[1] then return 0 end
local i = 2
while i < #ARGV do
    local n = tonumber(ARGV[i])
    redis.call(unpack(ARGV, i + 1, i + n))
    i = i + n + 1
end
redis.call('HINCRBY', KEYS[1], 'version', 1)
return 1]]

-- Readings that are not rolled up yet are never trimmed: a hundred entries behind is the most for a trim by count.
local TRIM <const> = [[
if #redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', 100) >= 100 then return -1 end
local gone = redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', ARGV[2])
if ARGV[3] ~= '' then gone = gone + redis.call('XTRIM', KEYS[1], 'MINID', '~', ARGV[3]) end
return gone]]

local scripts = setmetatable({}, {__mode = "k"})
local function script(redis, source)
    local of = scripts[redis] or {}
    scripts[redis] = of
    of[source] = of[source] or redis:script(source)
    return of[source]
end

--- ms and seq of a stream ID.
function rollup_store.id(text)
    local ms, seq = text:match "^(%d+)%-(%d+)$"
    return math.tointeger(tonumber(ms)), math.min(math.tointeger(tonumber(seq)) or 0xffffffff, 0xffffffff)
end

---@class neap.rollup.View
---@field position string the records hold for the stream up to and with this entry
---@field from integer[] a level's records begin here: before, they are trimmed
---@field dirty integer how many buckets must be computed again
local View = {}
View.__index = View

local function key(self, ...) return store_of.rollup_key(self.sensor, ...) end

--- The beginnings of the levels when each is kept for so many seconds (false: for ever). A coarser level is kept at least as long.
---@param keep (number|false)[]
---@param now number
---@return integer[]
function rollup_store.horizon(keep, now)
    local from, at_most = {}, math.maxinteger
    for i, level in ipairs(LEVELS) do
        local chunk = level.span * level.per
        local cut = keep[i] and math.tointeger((now - keep[i]) * SECOND // chunk) or FOR_EVER
        from[i] = math.min(at_most, keep[i] and cut * chunk or FOR_EVER)
        at_most = from[i]
    end
    return from
end

--- `from`: where levels begin if the sensor has no rollups yet.
---@return neap.rollup.View
function rollup_store.open(store, sensor, from)
    local self = setmetatable({store = store, redis = store.redis, sensor = sensor, chunks = {}, changed = {}}, View)
    local state = self.redis:pipeline(function(p)
        p:raw("HMGET", key(self), "version", "position", "from1", "from2", "from3")
        p:raw("SCARD", key(self, "dirty"))
    end)
    local s = state[1]
    self.version, self.position, self.dirty = s[1] or "0", s[2] or "0-0", state[2]
    self.from = s[3] and {math.tointeger(tonumber(s[3])), math.tointeger(tonumber(s[4])), math.tointeger(tonumber(s[5]))} or from
    return self
end

--- The finest level that still has a bucket for this time, and where the bucket begins; nil when the time lies before them all.
function View:place(time_us)
    for level = 1, #LEVELS do
        if time_us >= self.from[level] then
            local span = LEVELS[level].span
            return level, time_us // span * span
        end
    end
end

local function chunk_of(level, start) return start // (LEVELS[level].span * LEVELS[level].per) end
local function chunk_name(level, chunk) return LEVELS[level].name .. ":" .. chunk end

--- Reads the chunks in which these buckets lie, in one go: a list of {level, start}.
function View:fetch(places)
    local names, seen = {}, {}
    for _, place in ipairs(places) do
        local name = chunk_name(place[1], chunk_of(place[1], place[2]))
        if not self.chunks[name] and not seen[name] then
            seen[name], names[#names + 1] = true, name
        end
    end
    if #names == 0 then return end
    local replies = self.redis:pipeline(function(p)
        for _, name in ipairs(names) do p:raw("HGETALL", key(self, name)) end
    end)
    for i, name in ipairs(names) do
        local chunk, flat = {}, replies[i]
        for k = 1, #flat, 2 do chunk[math.tointeger(tonumber(flat[k]))] = flat[k + 1] end
        self.chunks[name] = chunk
    end
end

---@return neap.rollup.Record?
function View:get(level, start)
    local name = chunk_name(level, chunk_of(level, start))
    if not self.chunks[name] then self:fetch {{level, start}} end
    local index = start // LEVELS[level].span % LEVELS[level].per
    local one = self.chunks[name][index]
    if type(one) == "string" then
        one = record.unpack(one, start)
        self.chunks[name][index] = one
    end
    return one
end

---@param r neap.rollup.Record
function View:set(level, start, r)
    local chunk = chunk_of(level, start)
    local name, index = chunk_name(level, chunk), start // LEVELS[level].span % LEVELS[level].per
    if not self.chunks[name] then self:fetch {{level, start}} end
    self.chunks[name][index] = r
    local changed = self.changed[name] or {level = level, chunk = chunk, fields = {}}
    self.changed[name], changed.fields[index] = changed, record.pack(r, start)
end

-- ---- writing ----

--- Appends a command to the script's arguments, in pieces that its unpack can bear.
local function command(args, head, list)
    for at = 1, #list, 1000 do
        local upto = math.min(#list, at + 999)
        args[#args + 1] = #head + upto - at + 1
        table.move(head, 1, #head, #args + 1, args)
        table.move(list, at, upto, #args + 1, args)
    end
end

--- Writes what was set. `mark` and `unmark`: buckets ("level:start") that must, and need no longer, be computed again; `drop`: chunks to delete.
---@param opts {position?: string, mark?: string[], unmark?: string[], drop?: table[]}
---@return boolean written false: somebody else wrote meanwhile, and nothing was done
function View:commit(opts)
    local args = {self.version}
    command(args, {"HSET", key(self)}, {"position", opts.position or self.position, "from1", self.from[1], "from2", self.from[2], "from3",
        self.from[3]})
    for name, change in pairs(self.changed) do
        local list = {}
        for index, bytes in pairs(change.fields) do list[#list + 1], list[#list + 2] = index, bytes end
        command(args, {"HSET", key(self, name)}, list)
        command(args, {"ZADD", key(self, LEVELS[change.level].name)}, {change.chunk, change.chunk})
    end
    command(args, {"SADD", key(self, "dirty")}, opts.mark or {})
    command(args, {"SREM", key(self, "dirty")}, opts.unmark or {})
    for _, old in ipairs(opts.drop or {}) do
        command(args, {"DEL"}, {key(self, chunk_name(old[1], old[2]))})
        command(args, {"ZREM", key(self, LEVELS[old[1]].name)}, {old[2]})
    end
    return script(self.redis, COMMIT)(key(self), table.unpack(args)) == 1
end

--- Which of these buckets ("level:start") wait to be computed again.
---@return table<string, boolean>
function View:marked(names)
    local found = {}
    if self.dirty == 0 or #names == 0 then return found end
    for i, yes in ipairs(self.redis:raw("SMISMEMBER", key(self, "dirty"), table.unpack(names))) do found[names[i]] = yes == 1 or nil end
    return found
end

--- Some of the buckets that wait, as "level:start".
function View:marks(most) return self.redis:raw("SRANDMEMBER", key(self, "dirty"), most) end

--- Chunks that end before their level begins: {level, chunk}, at most `most`.
function View:outdated(most)
    local list = {}
    for level, l in ipairs(LEVELS) do
        local before = self.from[level] // (l.span * l.per)
        for _, chunk in ipairs(self.redis:raw("ZRANGEBYSCORE", key(self, l.name), "-inf", "(" .. before, "LIMIT", 0, most - #list)) do
            list[#list + 1] = {level, chunk}
        end
    end
    return list
end

--- Trims the readings themselves to about `keep` entries, and to those that arrived after `since` seconds, but never what is not rolled up.
---@return integer entries removed; -1 when the rollup is too far behind
function View:trim_readings(keep, since)
    local position = rollup_store.id(self.position)
    local minimum = since and math.min(position, math.tointeger(since * 1000 // 1)) or 0
    return script(self.redis, TRIM)(store_of.readings_key(self.sensor), self.position, keep, minimum > 0 and minimum or "")
end

-- ---- reading ----

--- Buckets that touch the span from..to, in order of time: the newest `most` of them.
---@param level integer
---@param query {from_us?: integer, to_us?: integer, last?: integer}
---@return integer[] starts microseconds
---@return neap.rollup.Record[] records
function rollup_store.range(store, sensor, level, query)
    local self = setmetatable({store = store, redis = store.redis, sensor = sensor, chunks = {}}, View)
    local span, most = LEVELS[level].span, query.last or math.maxinteger
    local low = query.from_us and query.from_us // span * span or math.mininteger
    local high = query.to_us or math.maxinteger
    local top = query.to_us and chunk_of(level, high) or "+inf"
    local bottom = query.from_us and chunk_of(level, low) or "-inf"
    local starts, records, at = {}, {}, 0
    while #starts < most do
        local page = self.redis:raw("ZREVRANGEBYSCORE", key(self, LEVELS[level].name), top, bottom, "LIMIT", at, 50)
        local places, size = {}, span * LEVELS[level].per
        for i, chunk in ipairs(page) do places[i] = {level, math.tointeger(tonumber(chunk)) * size} end
        self.chunks = {}
        self:fetch(places)
        for _, place in ipairs(places) do
            for start = place[2] + size - span, place[2], -span do
                local one = start >= low and start <= high and #starts < most and self:get(level, start)
                if one then starts[#starts + 1], records[#records + 1] = start, one end
            end
        end
        if #page < 50 then break end
        at = at + 50
    end
    for i = 1, #starts // 2 do
        local k = #starts + 1 - i
        starts[i], starts[k], records[i], records[k] = starts[k], starts[i], records[k], records[i]
    end
    return starts, records
end

--- Every key of a sensor's rollups, to be deleted with it.
function rollup_store.keys(store, sensor)
    local self = {sensor = sensor}
    local list = {key(self), key(self, "dirty")}
    for level, l in ipairs(LEVELS) do
        for _, chunk in ipairs(store.redis:raw("ZRANGE", key(self, l.name), 0, -1)) do list[#list + 1] = key(self, chunk_name(level, chunk)) end
        list[#list + 1] = key(self, l.name)
    end
    return list
end

return rollup_store
