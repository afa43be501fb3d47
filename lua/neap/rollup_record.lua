--- One bucket of a rollup: how many readings, the lowest, the highest, their sum, and the last by event time.
--
--     local r = record.of({t1, t2}, {20.5, 21}, ms, seq)      -- readings in order of event time, none twice
--     record.pack(record.merge(r, later), bucket_start_us)
--
-- A record also names the stream entry (ms, seq) by which its first reading ARRIVED: as long as the stream still has that entry, the
-- bucket can be computed again from the readings. Packed it stays within 64 bytes, so that Redis keeps a chunk of records in one
-- compact block; a bucket of one reading, the rule for slow sensors, takes 23.

local decode = require "neap.decode"

local record = {}

local ONE <const> = "<dI5I6I4" -- value, offset of its time, entry
local MANY <const> = "<I4ddddI5I6I4" -- n, min, max, sum, last, offset of its time, entry

---@class neap.rollup.Record
---@field n integer
---@field min number
---@field max number
---@field sum number
---@field last number
---@field at integer event time of the last, in microseconds
---@field ms integer the entry of the first arrival
---@field seq integer

---@param times integer[] in order, none twice
---@param values number[]
---@param ms integer
---@param seq integer
---@return neap.rollup.Record
function record.of(times, values, ms, seq)
    local low, high, sum = values[1], values[1], 0.0
    for _, v in ipairs(values) do
        if v < low then low = v end
        if v > high then high = v end
        sum = sum + v
    end
    return {n = #times, min = low, max = high, sum = sum, last = values[#values], at = times[#times], ms = ms, seq = seq}
end

--- The readings from the i-th on, as long as their times ascend and are before `stop_us`.
---@param times integer[]
---@param values number[]
---@param i integer
---@param stop_us integer
---@return neap.rollup.Record
---@return integer last the last one that is in it
function record.run(times, values, i, stop_us, ms, seq)
    local last, low, high, sum = decode.run(times, values, i, stop_us)
    return {n = last - i + 1, min = low, max = high, sum = sum, last = values[last], at = times[last], ms = ms, seq = seq}, last
end

--- Two sets of readings that have none in common, as one.
---@param a neap.rollup.Record
---@param b neap.rollup.Record
---@return neap.rollup.Record
function record.merge(a, b)
    local last, first = b.at >= a.at and b or a, record.arrived_by(a, b.ms, b.seq) and a or b
    return {n = a.n + b.n, min = math.min(a.min, b.min), max = math.max(a.max, b.max), sum = a.sum + b.sum, last = last.last, at = last.at,
        ms = first.ms, seq = first.seq}
end

--- Whether its first reading arrived with the entry (ms, seq) or before it.
function record.arrived_by(r, ms, seq) return r.ms < ms or r.ms == ms and r.seq <= seq end

--- Never outside min and max, and never infinite, even where the sum is.
---@param r neap.rollup.Record
---@return number
function record.mean(r)
    local mean = r.sum / r.n
    if mean ~= mean or mean == math.huge or mean == -math.huge then mean = r.min / 2 + r.max / 2 end
    return math.max(r.min, math.min(r.max, mean))
end

---@param r neap.rollup.Record
---@param start_us integer
---@return string
function record.pack(r, start_us)
    if r.n == 1 then return ONE:pack(r.last, r.at - start_us, r.ms, r.seq) end
    return MANY:pack(r.n, r.min, r.max, r.sum, r.last, r.at - start_us, r.ms, r.seq)
end

---@param bytes string
---@param start_us integer
---@return neap.rollup.Record
function record.unpack(bytes, start_us)
    if #bytes == ONE:packsize() then
        local v, offset, ms, seq = ONE:unpack(bytes)
        return {n = 1, min = v, max = v, sum = v, last = v, at = start_us + offset, ms = ms, seq = seq}
    end
    local n, low, high, sum, last, offset, ms, seq = MANY:unpack(bytes)
    return {n = n, min = low, max = high, sum = sum, last = last, at = start_us + offset, ms = ms, seq = seq}
end

return record
