--- Readings made up from a sensor spec, for days when the hardware is not there yet. Faults are put in on purpose, with labels.
--
--   local made = require("neap.synth").series(spec, { count = 512, end_us = now, seed = 1 })
--   made.times[i], made.values[i]      made.labels --> { { from_us, to_us, "spike" }, ... }
--
-- kind = "cycle": a daily cycle, slow weather (AR(1)), noise, clipped to the range: something a model can learn.
-- kind = "white": independent Gaussians, as the starter kit made them: the best possible forecast of them is their mean, and
-- neap says so after training. One seed gives one series (own generator: math.random is shared by everybody).

local synth = {}

--- A small generator of our own (xoshiro would do as well; this is splitmix64): uniform() in [0, 1), normal(). One seed gives one series.
---@param seed integer
---@return fun(): number uniform, fun(): number normal
function synth.generator(seed)
    local state = seed
    local function next64()
        state = state + 0x9E3779B97F4A7C15
        local z = state
        z = (z ~ (z >> 30)) * 0xBF58476D1CE4E5B9
        z = (z ~ (z >> 27)) * 0x94D049BB133111EB
        return z ~ (z >> 31)
    end
    local function uniform() return (next64() >> 11) * 0x1p-53 end
    local function normal()
        local radius = math.sqrt(-2 * math.log(1 - uniform()))
        return radius * math.cos(2 * math.pi * uniform())
    end
    return uniform, normal
end

--- What a spec leaves open, chosen so that any sensor can be made up.
local function shape_of(spec)
    local low, high = spec.minimum, spec.maximum
    local mean = spec.mean or (low and high and (low + high) / 2) or low or high or 0
    local deviation = spec.deviation or (low and high and (high - low) / 8) or math.max(1, math.abs(mean) * 0.05)
    return mean, deviation, low or -math.huge, high or math.huge
end

local function seed_of(name, seed)
    for i = 1, #name do seed = (seed * 1099511628211) ~ name:byte(i) end
    return seed
end

-- ---- faults: each changes values from index a to b and may leave readings out ----

local faults = {
    spike = function(values, a, _, size) values[a] = values[a] + 6 * size; return a end,
    stuck = function(values, a, b) for i = a, b do values[i] = values[a] end; return b end,
    drift = function(values, a, b, size) for i = a, b do values[i] = values[i] + 5 * size * (i - a) / (b - a) end; return b end,
}
local FAULT_ORDER <const> = { "spike", "stuck", "drift" }

--- Put `count` faults into the second half, evenly spread, so that a model can first learn what is normal.
local function add_faults(times, values, labels, count, deviation)
    local n = #values
    for k = 1, count do
        local kind = FAULT_ORDER[(k - 1) % #FAULT_ORDER + 1]
        local a = n // 2 + (n // 2) * k // (count + 1)
        local b = faults[kind](values, a, math.min(n, a + math.max(3, n // 40)), deviation)
        labels[#labels + 1] = { times[a], times[b], kind }
    end
end

---@class neap.synth.Options
---@field count? integer readings, 256 by default
---@field end_us integer time of the last reading
---@field seed? integer
---@field kind? "cycle"|"white" instead of the spec's
---@field faults? integer how many faults to put in; 0 by default

---@class neap.synth.Series
---@field times integer[] microseconds, increasing
---@field values number[]
---@field labels table[] { from_us, to_us, kind }

---@param spec neap.SensorSpec
---@param opts neap.synth.Options
---@return neap.synth.Series
function synth.series(spec, opts)
    local count = opts.count or 256
    local uniform, normal = synth.generator(seed_of(spec.name, opts.seed or 1))
    local mean, deviation, low, high = shape_of(spec)
    local interval = spec.interval or 60
    local step_us = math.floor(interval * 1000000 + 0.5)
    local kind = opts.kind or spec.kind

    local times, values = {}, {}
    -- The three parts share the deviation: variances of cycle, weather and noise add up to the spec's.
    local cycle, weather, noise = deviation * 0.8 * math.sqrt(2), deviation * 0.55, deviation * 0.24
    local memory = math.exp(-interval / (spec.period / 24))
    local phase, slow = uniform() * 2 * math.pi, normal() * weather
    for i = 1, count do
        local time_us = opts.end_us - (count - i) * step_us
        local value
        if kind == "white" then
            value = mean + deviation * normal()
        else
            slow = memory * slow + math.sqrt(1 - memory * memory) * weather * normal()
            value = mean + cycle * math.sin(2 * math.pi * (time_us / 1e6 / spec.period) + phase) + slow + noise * normal()
        end
        times[i], values[i] = time_us, math.min(high, math.max(low, value))
    end

    local labels = {}
    if (opts.faults or 0) > 0 then add_faults(times, values, labels, opts.faults, deviation) end
    for i = 1, count do values[i] = tonumber(("%.6g"):format(values[i])) end -- a sensor does not know sixteen digits
    return { times = times, values = values, labels = labels }
end

return synth
