--- A fleet of small models, one a sensor, trained in one call: one thread against all of them. Wall time, since threads share the work.
local compute = require "neap.bench_compute"
local mlp = require "neap.mlp"
local task = require "neap.task"

local bench = {summary = "a fleet of models in one call: samples/s on one thread and on all (device cuda where there is one)"}

local MODELS <const>, WINDOWS <const> = 64, 1000

local function clock() return task.now() end

function bench.run(opts, say)
    local rounds, sets = opts.rounds or 5, {}
    for i = 1, MODELS do sets[i] = compute.windows(compute.series(WINDOWS + 32), WINDOWS) end
    local fleet = mlp.fleet {count = MODELS, input = 32, hidden = {64, 64}}
    local threads = mlp.threads()
    local one, all, cpu_one, cpu_all = {}, {}, {}, {}
    for r = 1, rounds do -- interleaved: the machine's mood hits both
        one[r] = compute.rate(MODELS * WINDOWS, 1, 0.15, function() fleet:epoch(sets, {threads = 1}) end, clock)
        all[r] = compute.rate(MODELS * WINDOWS, 1, 0.15, function() fleet:epoch(sets, {threads = threads}) end, clock)
        cpu_one[r] = compute.rate(MODELS * WINDOWS, 1, 0.15, function() fleet:epoch(sets, {threads = 1}) end)
        cpu_all[r] = compute.rate(MODELS * WINDOWS, 1, 0.15, function() fleet:epoch(sets, {threads = threads}) end)
    end
    one, all = compute.median(one), compute.median(all)
    local efficiency = compute.median(cpu_all) / compute.median(cpu_one)
    local result = compute.report(all, compute.TRAIN, threads)
    result.one_thread, result.scaling, result.models = one, all / (one * threads), MODELS
    result.cpu_efficiency = efficiency -- work per CPU second on all threads against one: what a busy machine cannot blur
    say(("fleet of %d models x %d windows, batch 64: %.3f M samples/s on %d threads, %.3f on one: %.2f of linear by the clock, %.2f by CPU time (%s)"):format(
        MODELS, WINDOWS,
        all / 1e6, threads, one / 1e6, result.scaling, efficiency, result.isa))
    local usable, why = mlp.cuda()
    if usable then
        local rate = compute.rate(MODELS * WINDOWS, rounds, 0.3, function() fleet:epoch(sets, {device = "cuda"}) end, clock)
        result.cuda_samples_per_s = rate
        say(("  cuda: %.3f M samples/s, copies included"):format(rate / 1e6))
    else
        say("  cuda: " .. why)
    end
    result.vs = {}
    return result
end

return bench
