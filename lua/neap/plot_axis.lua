--- neap.plot_axis: where the ticks of an axis go and what they say. Numbers at steps of 1, 2 or 5; times at steps that a clock
-- or a calendar has, in UTC. Shared by the terminal and the SVG renderer, so both show the same axes.
local axis = {}

local TIME_STEPS = {1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 2 * 86400, 7 * 86400,
                    14 * 86400, 30 * 86400, 91 * 86400, 182 * 86400, 365 * 86400}

-- The step of 1, 2 or 5 times a power of ten that cuts `span` into at most `n` pieces.
local function nice_step(span, n)
    local raw = span / math.max(1, n)
    local power = 10.0 ^ math.floor(math.log(raw, 10))
    for _, m in ipairs{1, 2, 5, 10} do
        if raw <= m * power * 1.000001 then return m * power end
    end
    return 10 * power
end

--- One number as an axis says it: no trailing zeros, thousands as k and M.
---@param v number
---@param step? number distance of the ticks: decides how many decimals are shown
function axis.label(v, step)
    local size = math.abs(v)
    if size >= 1e5 and size < 1e15 then
        for _, unit in ipairs{{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}} do
            if size >= unit[1] then
                local decimals = step and math.max(0, math.ceil(-math.log(step / unit[1], 10) - 1e-9)) or 1
                return (("%%.%df%s"):format(math.min(decimals, 3), unit[2])):format(v / unit[1])
            end
        end
    end
    if size ~= 0 and (size < 1e-4 or size >= 1e15) then return ("%.2g"):format(v) end
    if not step then return ("%.4g"):format(v) end
    local decimals = math.max(0, math.ceil(-math.log(step, 10) - 1e-9))
    local s = ("%." .. math.min(decimals, 6) .. "f"):format(v)
    return s:find("^%-0%.?0*$") and s:sub(2) or s
end

--- Ticks inside [lo, hi], at most about n: a list of {at=, label=}.
function axis.numbers(lo, hi, n)
    local step = nice_step(hi - lo, n)
    local ticks, first = {}, math.ceil(lo / step - 1e-9)
    for i = first, math.floor(hi / step + 1e-9) do ticks[#ticks + 1] = {at = i * step, label = axis.label(i * step, step)} end
    return ticks
end

--- Ticks of a logarithmic axis; lo and hi are log10 of the values.
function axis.logs(lo, hi, n)
    local ticks = {}
    local from, to = math.ceil(lo - 1e-9), math.floor(hi + 1e-9)
    if to - from >= 1 then
        local step = math.max(1, math.ceil((to - from) / n))
        for i = from, to, step do ticks[#ticks + 1] = {at = i, label = axis.label(10.0 ^ i)} end
        return ticks
    end
    for _, m in ipairs{1, 2, 5} do -- less than a decade or so: 1, 2, 5 within it
        for power = math.floor(lo), math.ceil(hi) do
            local at = math.log(m, 10) + power
            if at >= lo - 1e-9 and at <= hi + 1e-9 then ticks[#ticks + 1] = {at = at, label = axis.label(m * 10.0 ^ power)} end
        end
    end
    table.sort(ticks, function(a, b) return a.at < b.at end)
    return ticks
end

local function time_format(step, span)
    if step < 60 then return "!%H:%M:%S" end
    if step < 86400 then return span > 86400 and "!%d %b %H:%M" or "!%H:%M" end
    if step < 86400 * 30 then return "!%d %b" end
    return span > 86400 * 900 and "!%Y" or "!%b %Y"
end

--- Ticks of a time axis in epoch seconds (UTC).
function axis.times(lo, hi, n)
    local span, step = hi - lo, TIME_STEPS[#TIME_STEPS]
    for _, s in ipairs(TIME_STEPS) do
        if span / s <= n then step = s break end
    end
    local ticks, format = {}, time_format(step, span)
    for i = math.ceil(lo / step), math.floor(hi / step) do
        ticks[#ticks + 1] = {at = i * step, label = os.date(format, math.floor(i * step))}
    end
    if #ticks == 0 then ticks[1] = {at = lo, label = os.date("!%d %b %H:%M:%S", math.floor(lo))} end
    return ticks
end

--- The first and last instant as people write them: "3 Feb 2014 07:00 to 19 Feb 2014 15:25 UTC".
function axis.span(lo, hi)
    local function show(t, with_day)
        local day = os.date("!%d %b %Y", math.floor(t)):gsub("^0", "")
        local clock = os.date("!%H:%M", math.floor(t))
        return with_day and day .. " " .. clock or clock
    end
    local same_day = math.floor(lo / 86400) == math.floor(hi / 86400)
    return show(lo, true) .. " to " .. show(hi, not same_day) .. " UTC"
end

--- The limits of a list of lists of numbers, NaN left out, widened a little; {0, 1} when there is nothing.
function axis.limits(lists, pad)
    local lo, hi = math.huge, -math.huge
    for _, list in ipairs(lists) do
        for i = 1, #list do
            local v = list[i]
            if v < lo and v > -math.huge then lo = v end
            if v > hi and v < math.huge then hi = v end
        end
    end
    if lo > hi then return 0.0, 1.0 end
    if lo == hi then
        local d = lo == 0 and 1 or math.abs(lo) * 0.1
        return lo - d, hi + d
    end
    local d = (hi - lo) * (pad or 0)
    return lo - d, hi + d
end

return axis
