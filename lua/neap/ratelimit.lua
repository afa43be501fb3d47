--- neap.ratelimit: so many a second for each key (a device, an address), with a burst.
--
--     local limit = ratelimit.new {rate = 5, burst = 50}
--     local ok, wait = limit:take("kitchen")        -- false and the seconds until it would be allowed
--
-- One number a key: the time at which its burst would be whole again (the "generic cell rate algorithm"); a bucket of tokens would need two and
-- a refill. Keys that are whole again are forgotten; past `keys` of them newcomers share one, so that addresses cannot fill the memory.
-- Each worker counts for itself.
local task = require "neap.task"

local ratelimit = {}

local Limit = {}
Limit.__index = Limit

local SHARED <const> = "" -- the key of those that came when the table was full

--- ARGS: rate (a second), burst (default: ten seconds' worth, at least 1), keys (10,000), clock. RETURN: a limit.
---@param opt {rate: number, burst?: number, keys?: integer, clock?: fun(): number}
function ratelimit.new(opt)
    local burst = opt.burst or math.max(1, opt.rate * 10)
    return setmetatable({interval = 1 / opt.rate, slack = (burst - 1) / opt.rate, whole = {}, count = 0, keys = opt.keys or 10000,
        clock = opt.clock or task.now, swept = -math.huge}, Limit)
end

local function sweep(self, now)
    if now - self.swept < 1 then return end -- a full table is not walked for every request
    self.swept = now
    for key, at in pairs(self.whole) do
        if at <= now then
            self.whole[key] = nil
            self.count = self.count - 1
        end
    end
end

--- Takes one for the key if there is one: true, or false and the seconds to wait.
---@param key string
---@return boolean allowed
---@return number? wait
function Limit:take(key)
    local now, whole = self.clock(), self.whole
    if not whole[key] and self.count >= self.keys then
        sweep(self, now)
        if self.count >= self.keys then key = SHARED end
    end
    local old = whole[key]
    local at = math.max(old or now, now)
    if at - now > self.slack + 1e-9 then return false, at - now - self.slack end
    whole[key] = at + self.interval
    if not old then self.count = self.count + 1 end
    return true
end

return ratelimit
