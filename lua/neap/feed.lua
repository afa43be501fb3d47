--- GET /api/live: what has changed, as server-sent events, for the page and for `curl -N`.
--
--     feed.routes(app, here, verdict)       -- verdict(name): the sensor's verdict as /api/sensors/NAME/status gives it
--
-- An event is {sensor, state, anomaly_detected, why, text, time, value, ...}; on connecting each sensor comes once, so that a client that was away
-- is right again without asking for the past. While anybody listens one task a worker looks at Redis each second, in one round trip, however many
-- listen: that also sees what other workers and hosts have stored and judged.

local json = require "neap.json"
local task = require "neap.task"
local when = require "neap.when"

local feed = {}

local streams = {} -- of this worker: [channel] = true

local LOOK_S <const> = 1
local MOST_SHOWN <const> = 200
local MOST_WAITING <const> = 400 -- events a slow client may be behind; it is then let go and connects again

--- One look: {name = {mark, time_us, value, why}}, where another mark means news.
local function look(store)
    local names, seen = store:sensors(), {}
    for i, pulse in ipairs(store:pulse(names, MOST_SHOWN)) do seen[names[i]] = pulse end
    return seen
end

--- The server stops: ends every stream, so that nothing waits for clients that would listen for ever.
function feed.close()
    for channel in pairs(streams) do channel:close() end
    streams = {}
end

---@param app any
---@param here table
---@param verdict fun(name: string): table
function feed.routes(app, here, verdict)
    local before, watching = {}, false

    local function event_of(name, pulse)
        local one = verdict(name)
        one.unit, one.flagged_stretches = here.specs:get(name).unit, json.array(one.flagged_stretches)
        if pulse.why then one.state, one.hint = "unreadable", pulse.why end
        if pulse.time_us then one.time, one.value = when.iso(pulse.time_us), pulse.value end
        return json.encode(one)
    end

    local function watch()
        while next(streams) do
            local ok, now = pcall(look, here.store)
            for name, pulse in pairs(ok and now or {}) do
                if before[name] ~= pulse.mark then
                    before[name] = pulse.mark
                    local text = event_of(name, pulse)
                    for channel in pairs(streams) do
                        if not channel:send(text, 0.01) then streams[channel] = nil; channel:close() end
                    end
                end
            end
            task.sleep(LOOK_S)
        end
        before, watching = {}, false
    end

    app:sse("/api/live", function(_, stream)
        local channel = task.channel(MOST_WAITING)
        for name, pulse in pairs(look(here.store)) do stream:send {event = "sensor", data = event_of(name, pulse)} end
        streams[channel] = true
        local leave <close> = setmetatable({}, {__close = function() streams[channel] = nil end}) -- luacheck: ignore 211
        if not watching then
            watching = true
            task.spawn(watch)
        end
        for text in function() return channel:recv() end do stream:send {event = "sensor", data = text} end
    end, {summary = "what has changed, as server-sent events"})
end

return feed
