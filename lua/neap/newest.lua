--- neap.newest: the newest readings by event time, which need not be the last to arrive: methods of neap.store.
--
-- A stream is in order of arrival. Its tail has the newest readings unless what came last is late: a device that sends what it kept while it was
-- offline, an import. Then more of the stream is read, until nothing newer can be before what was read: an entry that arrived before a moment has
-- readings of before that moment, as clocks that are ahead are not believed (neap.ingest).

local decode = require "neap.decode"

local MOST_ENTRIES <const>, MOST_READINGS <const> = 100000, 400000 -- read for one answer; then it is what was found
local LATE_US <const> = 1000000 -- an entry whose newest reading is older than that when it arrives

--- When the entry with this ID arrived, in microseconds.
local function arrival(id) return (math.tointeger(tonumber(id:match "^%d+")) or 0) * 1000 end

--- Is entry a, or is it before, entry b?
local function not_after(a, b)
    local a_ms, a_seq = a:match "^(%d+)%-(%d+)$"
    local b_ms, b_seq = b:match "^(%d+)%-(%d+)$"
    a_ms, b_ms = tonumber(a_ms), tonumber(b_ms)
    return a_ms < b_ms or a_ms == b_ms and tonumber(a_seq) <= tonumber(b_seq)
end

--- Sets out how far back the tail has to be read for the same answer the next time.
local function floor_of(tried, oldest, first_id, last)
    for _, try in ipairs(tried) do
        if try.oldest == oldest then return {id = try.id, last = last} end
    end
    return {id = first_id, last = last}
end

return function(Store, stream_key, key)
    --- A stream's readings in order of event time, from so far back that the `last` newest are among them. Store.floors remembers how far that was
    --- where the tail is late, so that all of an imported history is read once only.
    local function tail(self, stream, last)
        local floor, most, tried = self.floors[stream], last + math.min(1000, last // 4) + 16, {}
        while true do
            local columns = self.redis:columns(stream, "-", "+", {max = most, unique = true})
            local times, first_id, all = columns.time:totable(), columns.first_id, columns.entries < most
            local oldest = times[#times - last + 1] -- of those that are asked for
            local certain = oldest and (oldest >= arrival(first_id) or floor and floor.last >= last and not_after(first_id, floor.id))
            if all or certain or most >= MOST_ENTRIES or #times >= MOST_READINGS then
                if #tried > 0 then self.floors[stream] = floor_of(tried, oldest, first_id, last) end
                return times, columns.value:totable()
            end
            tried[#tried + 1] = {id = first_id, oldest = oldest}
            most = most * 4
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
    --- changed.
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
        end)
        for i = 1, n do
            local name, entry, status = names[i], (replies[2 * i - 1] or {})[1], replies[2 * i] or ""
            local shown = entry and shown_after(self, name, entry) or nil
            self.newest[name] = shown
            pulses[i] = {mark = (entry and entry[1] or "") .. status, time_us = shown and shown.time_us, value = shown and shown.value}
        end
        return pulses
    end
end
