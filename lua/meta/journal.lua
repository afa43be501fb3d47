---@meta neap.journal.core
-- The C half of neap.journal.

---@class neap.journal.core
local core = {}

---@param opts neap.journal.open_options
---@return neap.journal.Journal
function core.open(opts) end

---@class neap.journal.Journal
local Journal = {}

---@class neap.journal.append_options
---@field key? string idempotency key: a batch whose key was applied within the last hour is not applied again
---@field source? "real"|"synthetic"
---@field visible? number seconds to wait, once the readings are on disk, for Redis to have them too (default: not at all)
---@field timeout? number seconds to wait for the disk (default 10)

---Appends a decoded batch; returns when it is on disk. Readings without a time get unique, increasing ones.
---Raises kind "full" (retryable) when the bound is reached or the disk is full, "io" when the disk fails.
---@param batch neap.decode.batch
---@param opts? neap.journal.append_options
---@return integer? position nil if the batch holds no reading
---@return boolean? applied true if Redis has it
function Journal:append(batch, opts) end

---The same from Lua tables: pairs[name] = {time_us, value, time_us, value, ..} for each name in order.
---@param order string[]
---@param pairs table<string, (integer|number)[]>
---@param opts? neap.journal.append_options
---@return integer? position
---@return boolean? applied
function Journal:append_pairs(order, pairs, opts) end

---Waits until Redis has everything up to the position, so many seconds at most.
---@param position integer
---@param seconds number
---@return integer position
---@return boolean applied
function Journal:wait(position, seconds) end

---The first of n microsecond times that nobody else in the process gets from this journal.
---@param n? integer default 1
---@return integer time_us
function Journal:stamp(n) end

---Whether so much comes in that readings are gathered for some tens of milliseconds before they are applied; append then waits for the disk alone.
---@return boolean
function Journal:hurried() end

---Starts the applier; see neap.journal.apply.
---@param opts table
function Journal:apply(opts) end

---records, bytes, commits, failures, refused, refused_old, age and max_age (seconds), loose, retained, max_bytes, durable, applied, behind, live (Redis takes them now), error?; where it is applied also state ("starting", "running",
---"away", "stopped"), text, durability, store, unsaved, old_copy, steps, readings, duplicates, dead, rewinds, replays, damaged_bytes
---@return table
function Journal:stats() end

---Ends the applier and lets go of the journal; the last one in the process waits for what is pending.
function Journal:close() end

return core
