--- Streams: iterators over entries, consumer groups, and columns for the mathematics. These become methods of every client of neap.redis.
local core = require "neap.redis.core"
local commands = require "neap.redis_commands"
local args = require "neap.args"

local streams = {}

--- Entries in order: for e in r:stream(key [, {from="0", batch=1000, block=seconds}]) do e.id, e.ms, e.seq, e.fields. Without `block` the loop ends with
--- the stream; with it, when no new entry came for so long (math.huge: never).
---@param key string
---@param opts? {from?: string, batch?: integer, block?: number}
function streams.stream(client, key, opts)
    opts = args.check(opts, {"from", "batch", "block"}, "redis.stream")
    local last, page, i = opts.from or "0", {}, 0
    local block = opts.block
    return function()
        i = i + 1
        if not page[i] then
            repeat
                local got = commands.find "xread"(client, {[key] = last}, {count = opts.batch or 1000, block = block and math.min(block, 30)})
                page, i = got and got[key] or {}, 1
            until page[1] or not block or block <= 30
        end
        if page[i] then last = page[i].id end
        return page[i]
    end
end

--- Work shared by consumers: for e, ack in r:group(key, "workers", {consumer="w1"}) do work(e.fields) ack() end. The group is made if missing, from the
--- stream's beginning. First come this consumer's own unfinished entries, then new ones; with claim_idle also those that others left unacknowledged for
--- so many seconds. `block` as in r:stream.
---@param key string
---@param group string
---@param opts? {consumer?: string, batch?: integer, block?: number, claim_idle?: number}
function streams.group(client, key, group, opts)
    opts = args.check(opts, {"consumer", "batch", "block", "claim_idle"}, "redis.group")
    local consumer, batch, block = opts.consumer or "neap", opts.batch or 100, opts.block or math.huge
    local made, e = pcall(commands.find "xgroup_create", client, key, group, "0", "MKSTREAM")
    if not made and (type(e) ~= "table" or e.code ~= "BUSYGROUP") then error(e, 0) end
    local page, i, own, cursor = {}, 0, "0", "0-0"

    local function read(from, wait)
        local got = commands.find "xreadgroup"(client, group, consumer, {[key] = from}, {count = batch, block = wait})
        return got and got[key] or {}
    end
    local function claim()
        local got = commands.find "xautoclaim"(client, key, group, consumer, math.floor(opts.claim_idle * 1000), cursor, {count = batch})
        cursor = got[1]
        return got[2]
    end
    local function next_page()
        if own then -- entries of an earlier run of this consumer
            local old = read(own)
            own = old[1] and old[#old].id or nil
            if old[1] then return old end
        end
        local waited = 0
        while true do
            local slice = math.min(block - waited, opts.claim_idle and math.max(opts.claim_idle, .1) or 30)
            local new = opts.claim_idle and claim() or {}
            if not new[1] then new = read(">", slice > 0 and slice or nil) end
            if new[1] then return new end
            waited = waited + slice
            if waited >= block then return {} end
        end
    end
    return function()
        i = i + 1
        if not page[i] then page, i = next_page(), 1 end
        local entry = page[i]
        if not entry then return nil end
        return entry, function() return commands.find "xack"(client, key, group, entry.id) end
    end
end

--- A stream's readings as two tensors, decoded in C: event times (i64, microseconds) and values, sorted by time. `from` and `to` are stream IDs ("-", "+").
--- opts: max = only the newest so many entries; unique = of readings with the same time only the last accepted; dtype = "f64" (default) or "f32".
--- RETURN: {time=, value=, n=, entries=, skipped = pairs that are no numbers, last_id = of the newest entry ("" if none), to go on from,
--- first_id = of the oldest}.
---@param key string
---@param from? string
---@param to? string
---@param opts? {max?: integer, unique?: boolean, dtype?: "f64"|"f32"}
function streams.columns(client, key, from, to, opts)
    opts = args.check(opts, {"max", "unique", "dtype"}, "redis.columns")
    local f32 = opts.dtype == "f32"
    if opts.dtype and not f32 and opts.dtype ~= "f64" then error("redis.columns: dtype is \"f32\" or \"f64\"", 2) end
    require "neap.tensor" -- makes the results' metatable
    from, to = from or "-", to or "+"
    local first, last = from, to
    if opts.max then first, last = to, from end
    local time, value, n, id, first_id, entries, skipped = core.columns(client, key, first, last, opts.max or 0, opts.max ~= nil, opts.unique, f32)
    return {time = time, value = value, n = n, last_id = id, first_id = first_id, entries = entries, skipped = skipped}
end

return streams
