--- Flags against known incidents: which were found, and what was a false alarm.
--
--     local labels = review.labels("windows.json", "machine.csv")     --> { {from_us, to_us, "what"}, ... }
--     local result = review.compare(stretches, labels)                 --> {found = .., missed = .., false_alarms = ..}

local json = require "neap.json"
local when = require "neap.when"

local review = {}

--- The incidents of one series from a JSON file: a list of [from, to] or [from, to, "what"], or an object of such lists whose
--- keys are sensors or files ("realKnownCause/machine.csv" is found as "machine.csv" or "machine").
---@param path string
---@param series string a sensor's name or a file's
---@return table[] incidents {from_us, to_us, what}
function review.labels(path, series)
    local f, why = io.open(path, "r")
    if not f then error("cannot read the labels: " .. why, 0) end
    local all = json.decode(f:read "a")
    f:close()
    local list = all
    if all[1] == nil then
        local function bare(name) return name:match("([^/\\]+)$"):gsub("%.csv$", "") end
        list = all[series]
        for key, value in pairs(all) do
            if not list and bare(key) == bare(series) then list = value end
        end
        if not list then error(("%s has no labels for '%s'"):format(path, series), 0) end
    end
    local incidents = {}
    for i, window in ipairs(list) do
        local from, bad = when.parse(window[1])
        local to, also_bad = when.parse(window[2])
        if not from or not to then error(("%s: window %d of '%s': %s"):format(path, i, series, bad or also_bad), 0) end
        incidents[i] = {from, to, window[3]}
    end
    return incidents
end

---@param stretches {from_us: integer, to_us: integer}[] in order of time
---@param incidents table[]
function review.compare(stretches, incidents)
    local result = {found = {}, missed = {}, false_alarms = {}, first = {}}
    local used = {}
    for i, incident in ipairs(incidents) do
        for k, s in ipairs(stretches) do
            if s.from_us <= incident[2] and s.to_us >= incident[1] then
                used[k] = true
                result.first[i] = result.first[i] or math.max(s.from_us, incident[1])
            end
        end
        local list = result.first[i] and result.found or result.missed
        list[#list + 1] = incident
    end
    for k, s in ipairs(stretches) do
        if not used[k] then result.false_alarms[#result.false_alarms + 1] = s end
    end
    return result
end

return review
