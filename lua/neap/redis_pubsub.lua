--- Publish and subscribe. These become methods of every client of neap.redis; all subscriptions of a client share one connection.
---
---   local sub <close> = r:subscribe("live:*", "alerts")
---   for m in sub:messages() do print(m.channel, m.data) end
local core = require "neap.redis.core"

local pubsub = {}

--- Subscribes to channels and patterns (names with * ? or [ are patterns; a trailing {pattern = false} says they are not). Returns once the server has
--- confirmed. A connection that was lost comes back by itself; what was published meanwhile is lost (sub:info() counts).
function pubsub.subscribe(client, ...)
    local names, n = {...}, select("#", ...)
    local opts = type(names[n]) == "table" and table.remove(names) or {}
    local channels, patterns = {}, {}
    for _, name in ipairs(names) do
        if type(name) ~= "string" then error("redis.subscribe: channel names are strings", 2) end
        local is_pattern = opts.pattern
        if is_pattern == nil then is_pattern = name:find "[%*%?%[]" ~= nil end
        local list = is_pattern and patterns or channels
        list[#list + 1] = name
    end
    return core.subscribe(client, channels, patterns)
end

--- for m in sub:messages([timeout]) do m.channel, m.data, m.pattern; ends when the subscription is closed, or when nothing came for `timeout` seconds.
function core.subscription_meta.__index:messages(timeout)
    return function() return self:next(timeout) end
end

return pubsub
