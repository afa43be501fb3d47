-- neap seed: make up readings from the sensor specs, for days when the hardware is not there yet.
local args = require "neap.args"
local session = require "neap.session"
local synth = require "neap.synth"
local when = require "neap.when"

local opt = args.parse {
    name = "neap seed",
    summary = "Make up a history for sensors, from scripts/sensors.lua: a daily cycle with weather and noise, or white noise.\n"
        .. "Made-up readings are kept apart from real ones; seeding again replaces them.",
    positional = {{"sensor", help = "which sensors; all of the spec file if none is named", many = true, optional = true}},
    options = session.options {
        {"--samples", type = "integer", min = 2, default = 256, help = "readings per sensor"},
        {"--seed", type = "integer", default = 1, help = "another number makes another history"},
        {"--white", type = "flag", help = "independent noise, as the starter kit made it; no model can forecast it"},
        {"--faults", type = "integer", min = 0, default = 0, help = "put so many labelled faults into the second half"},
        {"--csv", value = "FILE", help = "write them to a file and leave Redis alone"},
    },
    example = "neap seed temperature --samples 2000 --faults 3",
}

local function wanted(specs)
    local list = {}
    for _, name in ipairs(opt.sensor or {}) do list[#list + 1] = specs:get(name) end
    if #list == 0 then list = specs.list end
    return list
end

local function series_of(spec)
    local now_us = math.floor(neap.clock()) * 1000000
    return synth.series(spec, {count = opt.samples, end_us = now_us, seed = opt.seed, faults = opt.faults,
        kind = opt.white and "white" or nil})
end

local function tell(spec, series)
    local n = #series.values
    print(("%s: %d made-up readings, %s to %s"):format(spec.name, n, when.iso(series.times[1]), when.iso(series.times[n])))
    for _, label in ipairs(series.labels) do
        print(("  fault: %s, %s to %s"):format(label[3], when.iso(label[1]), when.iso(label[2])))
    end
    if opt.white or spec.kind == "white" then print "  white noise: no model can forecast it; the best forecast is its mean" end
end

if opt.csv then
    local file = assert(io.open(opt.csv, "w"))
    file:write "timestamp,sensor,value\n"
    for _, spec in ipairs(wanted((session.specs(opt.sensors)))) do
        local series = series_of(spec)
        for i, value in ipairs(series.values) do
            file:write(when.iso(series.times[i]), ",", require("neap.csv").cell(spec.name), ",", ("%.14g"):format(value), "\n")
        end
        tell(spec, series)
    end
    file:close()
    return
end

session.run("neap seed", opt, function(here)
    for _, spec in ipairs(wanted(here.specs)) do
        local series = series_of(spec)
        here.store:replace_synthetic(spec.name, series)
        tell(spec, series)
    end
end)
