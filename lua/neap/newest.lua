--- neap.newest: the newest readings by event time, which need not be the last to arrive: methods of neap.store.
--
-- A stream is in order of arrival. Its tail has the newest readings unless what came last is late: a device that sends what it kept while it was
-- offline, an import. Then more of the stream is read, until nothing newer can be before what was read: what arrived before a moment is of before that
-- moment. (Not so where a clock is ahead, by ten minutes at most unless it is to be trusted: what such a one sent may be missed once it is right.)

local decode = require "neap.decode"

local MOST_ENTRIES <const>, MOST_READINGS <const> = 100000, 400000 -- read for one answer; then it is what was found
local LATE_US <const> = 1000000 -- an entry whose newest reading is older than that when it arrives

--- When the entry with this ID arrived, in microseconds.
local function arrival(id) return (math.tointeger(tonumber(id:match "^%d+")) or 0) * 1000 end

--- So many entries usually have the `last` newest readings: arrival is not quite the order of events.
local function usually(last) return last + math.min(1000, last // 4) + 16 end

--- The oldest of the `last` newest times, nil if there are not so many.
local function oldest_of(times, last) return times[#times - last + 1] end

--- Floors are for so many readings or fewer: a power of two.
local function class_of(last)
    local class = 1
    while class < last do class = class * 2 end
    return class
end

return function(Store, stream_key, key)
    --- A stream's readings from an entry on, or of its `most` last entries, in order of event time.
    local function read(self, stream, from, most)
        local columns = self.redis:columns(stream, from, "+", {max = most, unique = true})
        return columns.time:totable(), columns
    end

    --- A stream's readings in order of event time, from so far back that the `last` newest are among them. Where the tail is late Store.floors remembers
    --- how far that was: nothing before the floor is newer than the oldest of the `last` newest. So all of an imported history, or a day of a device
    --- whose clock is in another time zone, is read once only.
    local function tail(self, stream, last)
        last = class_of(last)
        local floors = self.floors[stream] or {}
        local floor = floors[last]
        if floor then
            local times, columns = read(self, stream, floor, MOST_ENTRIES)
            local oldest = oldest_of(times, last)
            if oldest and columns.entries > 4 * usually(last) then -- it may have moved up by now
                local few, newer = read(self, stream, "-", usually(last))
                if oldest_of(few, last) == oldest then floors[last] = newer.first_id end
            end
            return times, columns.value:totable()
        end
        local most, tried = usually(last), {}
        while true do
            local times, columns = read(self, stream, "-", most)
            local oldest = oldest_of(times, last)
            local certain = columns.entries < most or oldest and oldest >= arrival(columns.first_id)
            tried[#tried + 1] = {id = columns.first_id, oldest = oldest}
            if certain or most == MOST_ENTRIES or #times >= MOST_READINGS then
                for i = 1, oldest and #tried > 1 and #tried or 0 do
                    if tried[i].oldest == oldest then
                        floors[last], self.floors[stream] = tried[i].id, floors
                        break
                    end
                end
                return times, columns.value:totable()
            end
            most = math.min(most * 4, MOST_ENTRIES)
        end
    end

    ---@class neap.store.Query
    ---@field last? integer only the newest so many
    ---@field from_us? integer
    ---@field to_us? integer
    ---@field source? "real"|"synthetic"|"quarantine"

    --- A sensor's readings in order of event time, without duplicates.
    ---@param sensor string
    ---@param query? neap.store.Query
    ---@return integer[] times microseconds
    ---@return number[] values
    function Store:history(sensor, query)
        query = query or {}
        local stream, last, times, values = stream_key(sensor, query.source), query.last
        if last and not query.from_us and not query.to_us then
            times, values = tail(self, stream, last)
        else
            local columns = self.redis:columns(stream, "-", "+", {unique = true})
            times, values = columns.time:totable(), columns.value:totable()
        end
        local first, final = 1, #times
        while query.from_us and first <= final and times[first] < query.from_us do first = first + 1 end
        while query.to_us and final >= first and times[final] > query.to_us do final = final - 1 end
        if last and final - first + 1 > last then first = final - last + 1 end
        if first > 1 or final < #times then
            times, values = table.move(times, first, final, 1, {}), table.move(values, first, final, 1, {})
        end
        return times, values
    end

    --- The newest reading by event time, or nil.
    ---@return integer? time_us
    ---@return number? value
    function Store:latest(sensor, source)
        local times, values = self:history(sensor, {last = 1, source = source})
        return times[1], values[1]
    end

    --- What a sensor shows after its stream's last entry: that one's newest reading, unless a newer one was there before.
    local function shown_after(self, sensor, entry)
        local time_us, value
        for i = 1, #entry[2], 2 do
            local times, values = {}, {}
            decode.unpack(entry[2][i], entry[2][i + 1], times, values)
            for k, t in ipairs(times) do
                if not time_us or t >= time_us then time_us, value = t, values[k] end
            end
        end
        local before = self.newest[sensor]
        if before and (not time_us or time_us < before.time_us) then return before end
        if not time_us then return nil end
        if not before and arrival(entry[1]) - time_us > LATE_US then time_us, value = self:latest(sensor) end
        return {time_us = time_us, value = value}
    end

    --- The newest reading and the verdict of many sensors in one round trip: {mark, time_us, value} each; another mark means that something has
    --- changed. Where a key is no stream: {mark, why}.
    ---@param names string[]
    ---@param most integer
    ---@return table[]
    function Store:pulse(names, most)
        local n, pulses = math.min(#names, most), {}
        if n == 0 then return pulses end
        local replies = self.redis:pipeline(function(p)
            for i = 1, n do
                p:raw("XREVRANGE", stream_key(names[i]), "+", "-", "COUNT", 1)
                p:call("GET", key(names[i], "status"))
            end
        end, {keep_errors = true})
        for i = 1, n do
            local name, entries, status = names[i], replies[2 * i - 1] or {}, replies[2 * i] or ""
            if entries.code and entries.code ~= "WRONGTYPE" then error(entries, 0) end
            local entry = entries[1]
            local shown = entry and shown_after(self, name, entry) or nil
            self.newest[name] = shown
            pulses[i] = {mark = (entry and entry[1] or "") .. tostring(status), time_us = shown and shown.time_us, value = shown and shown.value,
                why = entries.code and ("the key %s: %s"):format(stream_key(name), entries)}
        end
        return pulses
    end
end
