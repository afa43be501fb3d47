--- Times and durations as people and devices write them.
--
--   when.parse("2026-11-23T18:40:00Z")   --> 1795459200000000 (microseconds since 1970, UTC)
--   when.iso(1795459200000000)           --> "2026-11-23T18:40:00Z"
--   when.duration("10 min")              --> 600.0
--
-- Event times are integers in microseconds, as they stand in Redis: a float of seconds would lose the last digits of a
-- nanosecond clock and make equal times unequal. Everything else in neap keeps float seconds.

local when = {}

local DAY_US <const> = 86400 * 1000000

--- Days since 1970-01-01 in the proleptic Gregorian calendar.
local function days_from_civil(year, month, day)
    if month <= 2 then year = year - 1 end
    local era = year // 400
    local year_of_era = year - era * 400
    local day_of_year = (153 * (month + (month > 2 and -3 or 9)) + 2) // 5 + day - 1
    return era * 146097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719468
end

--- The inverse: year, month, day.
local function civil_from_days(days)
    days = days + 719468
    local era = days // 146097
    local day_of_era = days - era * 146097
    local year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096) // 365
    local day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    local shifted = (5 * day_of_year + 2) // 153
    local month = shifted < 10 and shifted + 3 or shifted - 9
    return year_of_era + era * 400 + (month <= 2 and 1 or 0), month, day_of_year - (153 * shifted + 2) // 5 + 1
end

local MONTH_DAYS <const> = { 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }

--- Microseconds from a text date: "2026-11-23", "2026-11-23 18:40", "2026-11-23T18:40:00.25+01:00". No zone means UTC.
---@param text string
---@return integer? time_us
---@return string? why
function when.parse_iso(text)
    local y, mo, d, rest = text:match("^%s*(%d%d%d%d)-(%d%d?)-(%d%d?)(.-)%s*$")
    if not y then return nil, ("'%s' is not a date such as 2026-11-23T18:40:00Z"):format(text:sub(1, 40)) end
    local year, month, day = math.tointeger(y), math.tointeger(mo), math.tointeger(d)
    if month < 1 or month > 12 or day < 1 or day > MONTH_DAYS[month] then return nil, ("'%s': there is no such day"):format(text) end
    local us = days_from_civil(year, month, day) * DAY_US
    if rest == "" then return us end

    local h, mi, tail = rest:match("^[Tt ](%d%d?):(%d%d)(.*)$")
    if not h then return nil, ("'%s': expected hours and minutes after the date"):format(text:sub(1, 40)) end
    local s, fraction = "0", ""
    if tail:match("^:%d%d") then s, fraction, tail = tail:match("^:(%d%d)%.?(%d*)(.*)$") end
    local hour, minute, second = math.tointeger(h), math.tointeger(mi), math.tointeger(s)
    if hour > 23 or minute > 59 or second > 60 then return nil, ("'%s': there is no such time of day"):format(text) end
    us = us + ((hour * 60 + minute) * 60 + second) * 1000000 + math.tointeger((fraction .. "000000"):sub(1, 6))

    if tail == "" or tail == "Z" or tail == "z" then return us end
    local sign, zone_h, zone_m = tail:match("^%s?([+-])(%d%d):?(%d%d)$")
    if not sign then return nil, ("'%s': expected Z or a zone such as +01:00 at the end"):format(text:sub(1, 40)) end
    local offset = (math.tointeger(zone_h) * 60 + math.tointeger(zone_m)) * 60000000
    return sign == "+" and us - offset or us + offset
end

--- Microseconds from a number whose unit nobody stated: seconds, milli-, micro- or nanoseconds, told apart by magnitude
--- (each range covers the years 1973 to 5138 in one unit, so the four never overlap for a clock that is set).
---@param n number
---@return integer? time_us
---@return string unit "s", "ms", "us" or "ns"
function when.from_number(n)
    if n ~= n or n == math.huge or n == -math.huge then return nil, "s" end
    local size = math.abs(n)
    local unit, us
    if size < 1e11 then unit, us = "s", n * 1000000
    elseif size < 1e14 then unit, us = "ms", n * 1000
    elseif size < 1e17 then unit, us = "us", n
    else unit, us = "ns", math.type(n) == "integer" and n // 1000 or n / 1000 end
    if math.type(us) == "integer" then return us, unit end
    return math.tointeger(math.floor(us + 0.5)), unit
end

--- A time in any form that clients send: number, numeric text, ISO 8601 text.
---@param value any
---@return integer? time_us
---@return string? why
function when.parse(value)
    if type(value) == "string" then
        local digits = value:match("^%s*(%-?%d+%.?%d*)%s*$")
        if not digits then return when.parse_iso(value) end
        value = math.tointeger(digits) or tonumber(digits)
    end
    if type(value) ~= "number" then return nil, "a time must be a number or an ISO 8601 text, not " .. type(value) end
    local us = when.from_number(value)
    if not us then return nil, "the time is not a finite number" end
    return us
end

--- ISO 8601 in UTC; as many decimals as the time has, at most six.
---@param time_us integer
---@return string
function when.iso(time_us)
    local days = time_us // DAY_US
    local rest = time_us - days * DAY_US
    local year, month, day = civil_from_days(days)
    local seconds, fraction = rest // 1000000, rest % 1000000
    local text = ("%04d-%02d-%02dT%02d:%02d:%02d"):format(year, month, day, seconds // 3600, seconds // 60 % 60, seconds % 60)
    if fraction > 0 then text = text .. (".%06d"):format(fraction):gsub("0+$", "") end
    return text .. "Z"
end

--- The short form for tables and plots: "11-23 18:40".
---@param time_us integer
---@return string
function when.short(time_us)
    local days = time_us // DAY_US
    local _, month, day = civil_from_days(days)
    local minutes = (time_us - days * DAY_US) // 60000000
    return ("%02d-%02d %02d:%02d"):format(month, day, minutes // 60, minutes % 60)
end

local UNITS <const> = {
    s = 1, sec = 1, second = 1, m = 60, min = 60, minute = 60, h = 3600, hour = 3600, d = 86400, day = 86400, w = 604800, week = 604800,
    ms = 0.001, us = 1e-6,
}

--- Seconds from a number of seconds or a text such as "90", "10 min", "1.5h", "2 days".
---@param value number|string
---@return number? seconds
---@return string? why
function when.duration(value)
    if type(value) == "number" then return value + 0.0 end
    if type(value) ~= "string" then return nil, "a duration is a number of seconds or a text such as \"10 min\", not a " .. type(value) end
    local n, unit = value:match("^%s*(%d*%.?%d+)%s*(%a*)%s*$")
    if not n then return nil, ("'%s' is not a duration such as \"10 min\""):format(value) end
    if unit == "" then return tonumber(n) + 0.0 end
    local factor = UNITS[unit] or UNITS[(unit:gsub("s$", ""))]
    if not factor then return nil, ("'%s': unknown unit '%s' (s, min, h, day, week)"):format(value, unit) end
    return tonumber(n) * factor
end

--- "45 s", "12 min", "3.5 h", "2.1 days": two significant steps are enough for a sentence.
---@param seconds number
---@return string
function when.human(seconds)
    local function say(n, unit)
        local text = n >= 10 and ("%.0f"):format(n) or (("%.1f"):format(n):gsub("%.0$", ""))
        return text .. " " .. unit
    end
    if seconds < 1 then return say(seconds * 1000, "ms") end
    if seconds < 100 then return say(seconds, "s") end
    if seconds < 5400 then return say(seconds / 60, "min") end
    if seconds < 2 * 86400 then return say(seconds / 3600, "h") end
    return say(seconds / 86400, "days")
end

return when
