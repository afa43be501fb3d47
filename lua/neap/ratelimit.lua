--- neap.ratelimit: so many a second for each key (a device, an address), with a burst.
--
--     local limit = ratelimit.new {rate = 5, burst = 50}
--     local ok, wait = limit:take("kitchen")        -- false and the seconds until it would be allowed
--
-- Limits with the same `shared` name are one, in all workers: a client cannot have each of them in turn. At most `keys` keys are remembered;
-- newcomers beyond share one allowance, so that addresses cannot fill the memory (host/ratelimit.c).
local core = require "neap.ratelimit.core"
local task = require "neap.task"

local ratelimit = {}

local Limit = {}
Limit.__index = Limit

--- ARGS: rate (a second), burst (default: ten seconds' worth, at least 1), keys (10,000), shared (a name; nil: for this one alone), clock.
--- RETURN: a limit.
---@param opt {rate: number, burst?: number, keys?: integer, shared?: string, clock?: fun(): number}
function ratelimit.new(opt)
    local burst = opt.burst or math.max(1, opt.rate * 10)
    return setmetatable({interval = 1 / opt.rate, slack = (burst - 1) / opt.rate, table = core.open(opt.shared, opt.keys or 10000),
        clock = opt.clock or task.now}, Limit)
end

--- Takes one for the key if there is one: true, or false and the seconds to wait.
---@param key string
---@return boolean allowed
---@return number? wait
function Limit:take(key) return self.table:take(key, self.clock(), self.interval, self.slack) end

--- Whether take would be allowed now; takes nothing.
---@param key string
---@return boolean
function Limit:open(key) return (self.table:take(key, self.clock(), 0, self.slack)) end

return ratelimit
