--- From a decoded body to readings that may be stored: whose clock is believed, what is flagged, and a verdict for every item.
--
--     local batch = decode.json(body)                      -- neap.decode: every shape that clients send, parsed in C
--     local taken = ingest.judge(batch, {specs = specs, now_us = now, stamp = stamp, admit = admit})
--     store:append(taken)                                  -- taken.order = {"oven"}, taken.pairs.oven = {time_us, value, ...}
--     local status, text = ingest.answer(batch, taken)
--
-- One bad item never sinks a batch: good ones are kept, each bad one is named with its place and reason. Nothing here waits or
-- writes; that makes the rules easy to test and to edit. The good path answers what the starter kit answered, to the letter.

local decode = require "neap.decode"
local json = require "neap.json"
local when = require "neap.when"

local ingest = {}

local YEAR_2001_US <const> = 978307200000000
local AHEAD_US <const> = 600 * 1000000 -- a clock this far ahead of ours is wrong rather than early
local BAD_TIME <const>, LOW <const>, HIGH <const>, UNKNOWN <const> = decode.BAD_TIME, decode.LOW, decode.HIGH, decode.UNKNOWN

--- What the sensor's `clock` policy makes of a device's time: the time to use, a remark if it is not believed, and what was done: "clamped" to the
--- arrival time, "quarantined", or (without a time) "rejected".
---@return integer? time_us
---@return string? remark
---@return string? verdict
local function credible(time_us, unreadable, spec, context)
    local policy, wrong = spec.clock
    if not time_us then
        if not unreadable then return context.stamp() end
        wrong = "its time could not be read"
    elseif policy == "trust" then
        return time_us
    elseif time_us < YEAR_2001_US then
        wrong = ("the device's clock is not set (%s)"):format(when.iso(time_us))
    elseif time_us > context.now_us + AHEAD_US then
        wrong = ("the device's clock is ahead of ours (%s)"):format(when.iso(time_us))
    else
        return time_us
    end
    if policy == "reject" then return nil, wrong, "rejected" end
    if policy == "quarantine" then return time_us or context.stamp(), wrong .. ": kept apart (source=quarantine)", "quarantined" end
    return context.stamp(), wrong .. ": the arrival time is used", "clamped"
end

---@class neap.ingest.Context
---@field specs neap.Specs
---@field limits any the specs' names and ranges for neap.decode (ingest.limits)
---@field now_us integer
---@field stamp fun(): integer
---@field whole? boolean the store takes a batch as it is (it has a journal), so one that needs no decision is not taken apart
---@field admit? fun(sensor: string): boolean, string? whether a sensor may be stored (the cap on unknown ones)

---@class neap.ingest.Taken
---@field order string[] sensors in the order of their first reading
---@field batch? neap.decode.batch instead of order and pairs: all of it, as it came
---@field pairs table<string, (integer|number)[]> for each sensor: event time in microseconds, value, time, value, ...
---@field aside? {order: string[], pairs: table} readings that are kept apart, as order and pairs
---@field clocks? table<string, {skew_us?: integer, verdict: string}> sensors whose device's clock was not believed, with the last one's verdict
---@field count integer readings that are to be stored, those that are kept apart too
---@field refused integer
---@field notes table[] {index, sensor_name, note}: readings that are kept but worth a remark

--- The specs' ranges as the decoder wants them, so that flags cost nothing in Lua.
---@param specs neap.Specs
function ingest.limits(specs)
    local list = {}
    local function raw(limit, spec) return limit and (limit - spec.offset) / spec.scale end -- the decoder sees what was sent
    for i, spec in ipairs(specs.list) do
        local low, high = raw(spec.minimum, spec), raw(spec.maximum, spec)
        if spec.scale < 0 then low, high = high, low end
        list[i] = {name = spec.name, min = low, max = high, special = spec.scale ~= 1 or spec.offset ~= 0}
    end
    return decode.sensors(list)
end

local NONE <const> = {}

--- The sensor's list of pairs in a set of readings {order, pairs}.
local function pairs_in(set, name)
    local pairs = set.pairs[name]
    if not pairs then
        pairs = {}
        set.pairs[name], set.order[#set.order + 1] = pairs, name
    end
    return pairs
end

local function is_finite(value) return value - value == 0 end

--- A remark about a value outside its sensor's limits.
local function out_of_range(value, spec)
    local below = spec.minimum and value < spec.minimum
    return ("%.14g is %s of %.14g: kept and flagged"):format(value, below and "below the minimum" or "above the maximum",
        below and spec.minimum or spec.maximum)
end

--- Judge every reading of a batch. Refused ones are marked in the batch, so that its echo and errors tell the whole story.
---@param batch any from neap.decode
---@param context neap.ingest.Context
---@return neap.ingest.Taken
function ingest.judge(batch, context)
    local specs = context.specs
    local plain, given, refused = batch:plain(context.limits, YEAR_2001_US, context.now_us + AHEAD_US)
    if plain and context.whole then
        -- Nothing to decide: it stays in C. Its readings without a time are stamped when it is stored.
        return {batch = batch, order = NONE, pairs = NONE, count = given, refused = refused, notes = NONE}
    end
    local taken = {order = {}, pairs = {}, count = 0, notes = {}}
    local admitted = {}
    for i, name, value, time_us, flags, _, item in batch:each() do
        if context.admit and not admitted[name] then
            local may, why = context.admit(name)
            if not may then batch:refuse(i, why); goto next end
            admitted[name] = true
        end
        local spec = specs:get(name)
        local scaled = (spec.scale ~= 1 or spec.offset ~= 0) and value * spec.scale + spec.offset or value
        if not is_finite(scaled) then
            batch:refuse(i, ("%.14g times the scale %.14g is too large for a double"):format(value, spec.scale))
            goto next
        end
        local at_us, note, verdict = credible(time_us, flags & BAD_TIME ~= 0, spec, context)
        if verdict then
            taken.clocks = taken.clocks or {}
            taken.clocks[name] = {skew_us = time_us and time_us - context.now_us, verdict = verdict}
        end
        if not at_us then batch:refuse(i, note); goto next end
        if flags & (LOW | HIGH) ~= 0 then note = (note and note .. "; " or "") .. out_of_range(scaled, spec) end

        local set = taken
        if verdict == "quarantined" then
            taken.aside = taken.aside or {order = {}, pairs = {}}
            set = taken.aside
        end
        local pairs = pairs_in(set, name)
        if #pairs == 0 and flags & UNKNOWN ~= 0 and context.whole then context.limits:add(name) end -- admitted: the next time it is known
        local n = #pairs
        pairs[n + 1], pairs[n + 2] = at_us, scaled
        taken.count = taken.count + 1
        if note then taken.notes[#taken.notes + 1] = {index = item, sensor_name = name, note = note} end
        ::next::
    end
    taken.refused = batch.refused
    return taken
end

local MOST_NAMED <const> = 50 -- items named in an answer; devices have small buffers
local SKIPPED <const> = {["sensor_name is missing"] = true, ["sensor_output is missing"] = true} -- as the starter kit did

--- The answer to a batch that has been stored. Where nothing was wrong it is the starter kit's; items without a name or a
--- value count as skipped, as there, but are listed; anything else refused makes it "partial", or an error if nothing is left.
---@param batch any
---@param taken neap.ingest.Taken
---@return integer status
---@return string body JSON
function ingest.answer(batch, taken)
    local refused = taken.refused
    if refused == 0 and #taken.notes == 0 then return 200, '{"status":"success","data":' .. batch:echo() .. "}" end

    local all, real, first, named = batch:errors(), 0, nil, json.array {}
    for _, one in ipairs(all) do
        if not SKIPPED[one.reason] then
            real = real + 1
            first = first or ("item %d: %s"):format(one.index, one.reason)
        end
        if #named < MOST_NAMED then named[#named + 1] = {index = one.index, sensor_name = one.name, error = one.reason} end
    end
    local status, word, more = 200, "success", ""
    if real > 0 and taken.count == 0 then
        status, word = 400, "error"
        more = ',"error":' .. json.encode("Couldn't process request. Error: " .. first)
    elseif real > 0 then
        word = "partial"
        more = ',"error":' .. json.encode(("%d of %d readings refused, the others are stored; %s")
            :format(refused, refused + taken.count, first))
    end
    if #named > 0 then more = more .. ',"errors":' .. json.encode(named) end
    if #taken.notes > 0 then
        more = more .. ',"notes":' .. json.encode(json.array(table.move(taken.notes, 1, math.min(#taken.notes, MOST_NAMED), 1, {})))
    end
    return status, ('{"status":"%s","data":%s%s}'):format(word, batch:echo(), more)
end

--- The answer to a body that could not be understood at all, with the starter kit's texts.
---@param err table the error from neap.decode
---@return string body JSON
function ingest.not_understood(err)
    local why = tostring(err.message):gsub("^json: ", "")
    if why:find("Expected a list of JSON objects", 1, true) then return '{"error":"Expected a list of JSON objects","status":"error"}' end
    return json.encode {error = "Couldn't process request. Error: " .. why, status = "error"}
end

return ingest
