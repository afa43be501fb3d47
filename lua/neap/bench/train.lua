--- Training of the usual small network on one core, beside PyTorch's forms on the same job: same weights, same batch order, interleaved.
local compute = require "neap.bench_compute"

local bench = {summary = "training 32 -> 64 -> 64 -> 1: samples/s, share of the FMA peak, and PyTorch beside it"}

-- The loop that a user writes in Lua, against the fused epoch: its cost on top.
local function own_loop(data)
    local model = compute.model()
    local fused = compute.rate(#data, 5, 0.1, function() model:epoch(data, {batch = 64, threads = 1}) end)
    local own = compute.rate(#data, 5, 0.1, function()
        for x, y in data:batches {batch = 64} do model:step(x, y) end
    end)
    return fused, fused / own - 1
end

local function beside_torch(say, name, samples, batch, epochs, rounds)
    local t, why = compute.torch(samples, batch, epochs, rounds)
    if not t then
        say(("  %-22s %s"):format(name, why))
        return nil
    end
    say(("  %-22s neap %.3f M samples/s; PyTorch %s: DataLoader %.1fx, pre-indexed %.1fx, flat by hand %.1fx"):format(
        name, t.neap / 1e6, t.torch, t.vs.dataloader, t.vs.preindexed, t.vs.flat))
    say(("  %-22s losses: neap %.7f, DataLoader %.7f, pre-indexed %.7f, flat %.7f"):format(
        "", t.neap_loss, t.losses.dataloader, t.losses.preindexed, t.losses.flat))
    return t
end

function bench.run(opts, say)
    local rounds = opts.rounds or 5
    local data = compute.windows(compute.series(20480 + 32), 20480)
    local fused, cost = own_loop(data)
    local result = compute.report(fused, compute.TRAIN)
    say(("training, batch 64, one core: %.3f M samples/s, %.1f of %.1f GFLOP/s peak (%.0f%%), %s; a loop of model:step costs %.1f%% more"):format(
        fused / 1e6, result.gflops, result.peak_gflops, result.share_of_peak * 100, result.isa, cost * 100))
    result.batch, result.own_loop_cost = 64, cost
    result.batches = {}
    for _, batch in ipairs {16, 256, 1024, 4096} do
        local model = compute.model()
        local rate = compute.rate(#data, 3, 0.1, function() model:epoch(data, {batch = batch, threads = 1}) end)
        result.batches[tostring(batch)] = rate
        say(("  batch %-5d %.3f M samples/s"):format(batch, rate / 1e6))
    end
    local small = beside_torch(say, "batch 64:", 20480, 64, 1, rounds)
    local large = beside_torch(say, "batch 4096:", 20480, 4096, 1, rounds)
    local kit = beside_torch(say, "512 samples, 20 epochs:", 512, 64, 20, rounds)
    result.vs = small and small.vs or {}
    if small then
        result.losses, result.torch = {neap = small.neap_loss, dataloader = small.losses.dataloader, preindexed = small.losses.preindexed,
            flat = small.losses.flat}, small.torch
        result.batch_4096 = large and {samples_per_s = large.neap, vs = large.vs}
        result.kit = kit and {seconds = 512 * 20 / kit.neap, vs = kit.vs}
    end
    return result
end

return bench
