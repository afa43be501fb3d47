--- When findings become an alert and when it is over. One function over one plain table, so that the state can be printed,
-- saved as JSON and carried on after a restart.
--
--     local alert = require "neap.detector_alert"
--     local state = alert.new()
--     local event = alert.step(state, policy, time, "bad")     --> "raised", "cleared" or nil
--
-- A policy says how many bad readings of how many raise (`raise`, `of`), how long the trouble must have lasted (`lasting`,
-- seconds), how many calm readings in a row clear (`clear`) and how long after clearing nothing is raised again (`cooldown`,
-- seconds). With a reading a minute, independent, at p < 0.01: one-of-one gives some 15 alerts a day, two-of-three less than one.

local alert = {}

---@class neap.AlertPolicy
---@field raise integer
---@field of integer at most 60
---@field lasting number seconds
---@field clear integer
---@field cooldown number seconds

---@type neap.AlertPolicy
alert.defaults = {raise = 1, of = 1, lasting = 0, clear = 5, cooldown = 0}

---@class neap.AlertState
---@field status "ok"|"raised"
---@field recent integer the last readings, one bit each, 1 = bad, the newest lowest
---@field calm integer calm readings in a row
---@field since? number time of the first bad reading of the present trouble
---@field raised? number time of the last raise
---@field cleared? number time of the last clear
---@field count integer alerts raised so far
---@field text? string what is wrong, as the newest bad reading says
---@field value? number that reading

---@return neap.AlertState
function alert.new() return {status = "ok", recent = 0, calm = 0, count = 0} end

local function bits(n)
    local sum = 0
    while n ~= 0 do sum, n = sum + (n & 1), n >> 1 end
    return sum
end

--- One reading's finding: "bad", "calm", or "neither" (not bad, yet not calm enough to clear). Changes `state`.
---@param state neap.AlertState
---@param policy neap.AlertPolicy
---@param time number seconds
---@param finding "bad"|"calm"|"neither"
---@param text? string
---@param value? number
---@return "raised"|"cleared"|nil
function alert.step(state, policy, time, finding, text, value)
    local bad = finding == "bad"
    state.recent = (state.recent << 1 | (bad and 1 or 0)) & ((1 << policy.of) - 1)
    state.calm = finding == "calm" and state.calm + 1 or 0
    if bad then
        state.since = state.since or time
        state.text, state.value = text, value
    elseif state.recent == 0 and state.status == "ok" then
        state.since = nil
    end
    if state.status == "ok" then
        local rested = not state.cleared or time - state.cleared >= policy.cooldown
        if bad and rested and bits(state.recent) >= policy.raise and time - state.since >= policy.lasting then
            state.status, state.raised, state.count = "raised", time, state.count + 1
            return "raised"
        end
    elseif state.calm >= policy.clear then
        state.status, state.cleared, state.since, state.recent = "ok", time, nil, 0
        return "cleared"
    end
end

--- The probability below which a reading is suspicious, from a budget: at most so many false alarms a week.
--- 1 a week with a reading a minute is 1 in 10,080; it never gets laxer than 1 in 100.
---@param false_alarms number a week
---@param interval number seconds between readings
---@return number p
function alert.limit_of(false_alarms, interval)
    return math.min(0.01, false_alarms * interval / 604800)
end

--- The promise beside the facts: what the budget allowed since `began`, and how many alerts there were.
---@param states table<string, neap.AlertState>
---@param false_alarms number a week
---@param began number seconds
---@param now number seconds
function alert.budget(states, false_alarms, began, now)
    local raised = 0
    for _, state in pairs(states) do raised = raised + state.count end
    return {promised = false_alarms * (now - began) / 604800, raised = raised, weeks = (now - began) / 604800}
end

return alert
