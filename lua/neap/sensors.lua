--- Sensor specs: what a sensor measures and what is normal for it, as scripts/sensors.lua says.
--
--   local specs = require("neap.sensors").load("scripts/sensors.lua")
--   specs:get("temperature").maximum     --> 70
--   specs:get("never heard of").known    --> false (defaults for a sensor that nobody described)
--
-- The file is Lua: `sensor "name" { unit = "°C", minimum = 60, ... }`. Every mistake in it is collected and reported with
-- its file and line and the nearest valid key; a file with a mistake is refused whole, so that a running server keeps its
-- old specs. (A plain returned table was the alternative; a call tells us the line on which a sensor stands.)

local nearest = neap.nearest
local when = require "neap.when"

local sensors = {}

-- ---- the keys of a spec ----

local function text(value)
    if type(value) ~= "string" then return nil, "must be a text in quotes" end
    return value
end

local function number(value)
    if type(value) ~= "number" or value ~= value or value == math.huge or value == -math.huge then return nil, "must be a number" end
    return value
end

local function positive(value)
    if not number(value) or value <= 0 then return nil, "must be a number above 0" end
    return value
end

local function not_zero(value)
    if not number(value) or value == 0 then return nil, "must be a number other than 0" end
    return value
end

local function duration(value)
    local seconds, why = when.duration(value)
    if not seconds then return nil, why end
    if seconds <= 0 then return nil, "must be longer than 0" end
    return seconds
end

local function duration_or_false(value)
    if value == false then return false end
    return duration(value)
end

local function whole(low, high)
    return function(value)
        local n = math.tointeger(value)
        if not n or n < low or n > high then return nil, ("must be a whole number from %d to %d"):format(low, high) end
        return n
    end
end

local function one_of(...)
    local words = { ... }
    return function(value)
        for _, word in ipairs(words) do if value == word then return value end end
        local near = type(value) == "string" and nearest(value, words)
        local hint = near and (", did you mean \"%s\"?"):format(near) or ""
        return nil, ("must be one of \"%s\"%s"):format(table.concat(words, "\", \""), hint)
    end
end

---@class neap.SensorSpec
---@field name string
---@field known boolean false for a sensor that no spec describes
---@field unit string
---@field label string
---@field minimum? number
---@field maximum? number
---@field max_rate? number
---@field scale number
---@field offset number
---@field interval? number seconds
---@field window integer
---@field mean? number
---@field deviation? number
---@field period number seconds
---@field kind "cycle"|"white"
---@field keep integer
---@field keep_for number|false seconds; false: for ever
---@field keep_minutes number|false
---@field keep_hours number|false
---@field keep_days number|false
---@field clock "clamp"|"quarantine"|"reject"|"trust"
---@field flatline? number|false seconds; nil: learnt from the data, false: off
---@field silence? number|false seconds; nil: learnt from the data, false: off
---@field false_alarms number a week

--- What may stand in a spec: how it is checked, its default, and one line for `neap sensors --help` and the README.
sensors.keys = {
    { name = "unit", check = text, default = "", about = "unit of the readings, for people" },
    { name = "label", check = text, default = "", about = "a few words for people" },
    { name = "minimum", check = number, about = "lowest reading that makes sense; below it the reading is kept and flagged" },
    { name = "maximum", check = number, about = "highest reading that makes sense" },
    { name = "max_rate", check = positive, about = "fastest believable change, in units per second" },
    { name = "scale", check = not_zero, default = 1, about = "raw value times this ..." },
    { name = "offset", check = number, default = 0, about = "... plus this is what is stored" },
    { name = "interval", check = duration, about = "time between readings; learnt from the data if not given" },
    { name = "window", check = whole(2, 1024), default = 16, about = "how many readings the model looks back on" },
    { name = "mean", check = number, about = "typical value, for synthetic readings" },
    { name = "deviation", check = positive, about = "typical deviation from the mean, for synthetic readings" },
    { name = "period", check = duration, default = 86400.0, about = "length of the cycle the sensor follows, usually a day" },
    { name = "kind", check = one_of("cycle", "white"), default = "cycle", about = "synthetic readings: a daily cycle, or white noise" },
    { name = "keep", check = whole(100, 1000000000), default = 1000000, about = "about how many entries of history to keep in Redis" },
    { name = "keep_for", check = duration_or_false, default = 365 * 86400.0, about = "how long readings are kept after they arrived; false: for ever" },
    { name = "keep_minutes", check = duration_or_false, default = 365 * 86400.0, about = "how long the rollup by the minute is kept; false: for ever" },
    { name = "keep_hours", check = duration_or_false, default = 5 * 365 * 86400.0, about = "the same of the rollup by the hour" },
    { name = "keep_days", check = duration_or_false, default = false, about = "the same of the rollup by the day" },
    { name = "clock", check = one_of("clamp", "quarantine", "reject", "trust"), default = "clamp",
        about = "a time before 2001, ahead of ours or unreadable: use the arrival time, keep the reading apart, refuse it, or trust it" },
    { name = "flatline", check = duration_or_false, about = "alarm when the value has not moved for this long; learnt if not given" },
    { name = "silence", check = duration_or_false, about = "alarm when nothing has arrived for this long; learnt if not given" },
    { name = "false_alarms", check = positive, default = 1, about = "how many false alarms a week are acceptable; `fleet` bounds all sensors together" },
}

local key_by_name, key_names = {}, {}
for i, key in ipairs(sensors.keys) do
    key_by_name[key.name] = key
    key_names[i] = key.name
end

--- Adds a key that a spec may have, in the form of those above; extensions bring theirs.
function sensors.add_key(key)
    if type(key) ~= "table" or type(key.name) ~= "string" or type(key.check) ~= "function" then
        error("sensors.add_key: a key is {name = .., check = function(value) return value or nil, why end, about = ..}", 2)
    end
    if key_by_name[key.name] then return end
    key_by_name[key.name] = key
    key_names[#key_names + 1] = key.name
    sensors.keys[#sensors.keys + 1] = key
end

--- A name is data from the network: any text that Redis, JSON and a terminal can show safely.
---@param name any
---@return string? name
---@return string? why
function sensors.check_name(name)
    if type(name) ~= "string" then return nil, "a sensor's name must be a text, not " .. type(name) end
    if name == "" then return nil, "a sensor's name must not be empty" end
    if #name > 500 then return nil, "a sensor's name must not be longer than 500 bytes" end
    if name:find("[%c\127]") then return nil, "a sensor's name must not hold control characters" end
    if not utf8.len(name) then return nil, "a sensor's name must be valid UTF-8" end
    return name
end

--- Check one raw spec. `report(key_or_nil, message)` is called for each mistake.
local function check(name, raw, report)
    local spec = { name = name, known = true }
    for key in pairs(raw) do
        if not key_by_name[key] then
            local near = type(key) == "string" and nearest(key, key_names)
            report(key, ("unknown key '%s'%s"):format(tostring(key), near and (", did you mean '%s'?"):format(near) or ""))
        end
    end
    for _, key in ipairs(sensors.keys) do
        local value = raw[key.name]
        if value == nil then
            spec[key.name] = key.default
        else
            local checked, why = key.check(value)
            if checked == nil then report(key.name, ("'%s' %s"):format(key.name, why)) end
            spec[key.name] = checked
        end
    end
    if spec.minimum and spec.maximum and spec.minimum >= spec.maximum then
        report("minimum", ("'minimum' (%g) must be below 'maximum' (%g)"):format(spec.minimum, spec.maximum))
    elseif spec.mean and ((spec.minimum and spec.mean < spec.minimum) or (spec.maximum and spec.mean > spec.maximum)) then
        report("mean", ("'mean' (%g) lies outside minimum and maximum"):format(spec.mean))
    end
    return spec
end

-- ---- the collection ----

---@class neap.Specs
---@field list neap.SensorSpec[] in the file's order
local Specs = {}
Specs.__index = Specs

--- The spec of a sensor; a sensor that no spec describes gets the defaults, with known = false.
---@param name string
---@return neap.SensorSpec
function Specs:get(name)
    local spec = self.by_name[name]
    if spec then return spec end
    self.stranger = self.stranger or {__index = check("", {}, error)} -- made anew each time, as there may be many thousands
    return setmetatable({name = name, known = false}, self.stranger)
end

---@param name string
function Specs:has(name) return self.by_name[name] ~= nil end

--- False alarms a week that all sensors together may bring, where no `fleet` says otherwise: one a day.
sensors.FLEET_FALSE_ALARMS = 7

--- The part of their own budgets that sensors get, so that together they keep the fleet's.
---@param asked number what the sensors' own budgets add up to
---@param workers? integer that share the fleet's budget
---@return number share 1 or less
function Specs:share(asked, workers)
    local most = self.fleet.false_alarms / (workers or 1)
    return asked > most and most / asked or 1
end

local function new_specs()
    local fleet = { false_alarms = sensors.FLEET_FALSE_ALARMS }
    return setmetatable({ list = {}, by_name = {}, fleet = fleet }, Specs)
end

--- The line of `key = ` at or after the sensor's own line; the sensor's line if it cannot be found.
local function line_of_key(lines, from, key)
    if type(key) ~= "string" then return from end
    for n = from, #lines do
        local bare, quoted = "%f[%w_]" .. key:gsub("%W", "%%%0") .. "%f[^%w_]%s*=", ("[\"%s\"]"):format(key)
        if lines[n]:match(bare) or lines[n]:find(quoted, 1, true) then return n end
        if n > from and lines[n]:match("^%s*sensor%f[^%w_]") then break end
    end
    return from
end

--- Read specs from Lua source. Mistakes raise one error that lists them all, each as "file:line: message".
---@param source string
---@param file string the name for messages
---@return neap.Specs
function sensors.parse(source, file)
    local specs, mistakes, lines = new_specs(), {}, {}
    for line in (source .. "\n"):gmatch("(.-)\n") do lines[#lines + 1] = line end
    local function mistake(line, message) mistakes[#mistakes + 1] = { line = line, text = ("%s:%d: %s"):format(file, line, message) } end
    local open = {} -- sensors whose { ... } has not come yet

    local function sensor(name)
        local line = debug.getinfo(2, "l").currentline
        local checked, why = sensors.check_name(name)
        if not checked then mistake(line, why) end
        open[line] = true
        return function(raw)
            open[line] = nil
            if type(raw) ~= "table" then
                return mistake(line, ("sensor '%s' must be followed by a table in braces"):format(tostring(name)))
            end
            local function report(key, message)
                mistake(line_of_key(lines, line, key), ("sensor '%s': %s"):format(tostring(name), message))
            end
            local spec = check(name, raw, report)
            if not checked then return end
            if specs.by_name[name] then return mistake(line, ("sensor '%s' is described twice"):format(name)) end
            specs.by_name[name] = spec
            specs.list[#specs.list + 1] = spec
        end
    end

    local function fleet(raw)
        local line = debug.getinfo(2, "l").currentline
        if type(raw) ~= "table" then return mistake(line, "fleet must be followed by a table in braces: fleet {false_alarms = 7}") end
        for key, value in pairs(raw) do
            local n, why = positive(value)
            if key ~= "false_alarms" then mistake(line, ("fleet: unknown key '%s'; false_alarms is all it takes"):format(tostring(key)))
            elseif not n then mistake(line, "fleet: 'false_alarms' " .. why)
            else specs.fleet.false_alarms = n end
        end
    end

    local env = setmetatable({ sensor = sensor, fleet = fleet }, { __index = _G })
    local chunk, syntax = load(source, "@" .. file, "t", env)
    if not chunk then error(syntax, 0) end
    local ok, failure = pcall(chunk)
    if not ok then error(failure, 0) end
    for line in pairs(open) do mistake(line, "sensor \"name\" must be followed by a table in braces") end

    if #mistakes > 0 then
        table.sort(mistakes, function(a, b) return a.line < b.line or (a.line == b.line and a.text < b.text) end)
        local all = {}
        for i, m in ipairs(mistakes) do all[i] = m.text end
        error(table.concat(all, "\n"), 0)
    end
    return specs
end

--- Read the spec file at `path`.
---@param path string
---@return neap.Specs
function sensors.load(path)
    local f, why = io.open(path, "r")
    if not f then error(("%s: cannot read the sensor specs; create it or name another file with --sensors"):format(why), 0) end
    local source = f:read("a")
    f:close()
    return sensors.parse(source, path)
end

--- No specs at all: every sensor has the defaults.
function sensors.none() return new_specs() end

return sensors
