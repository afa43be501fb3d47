--- Scoring windows: in bulk on one core, one window alone, and through the Lua call.
local compute = require "neap.bench_compute"
local mlp = require "neap.mlp"

local bench = {summary = "scoring 32 -> 64 -> 64 -> 1: windows/s in bulk, microseconds for one window"}

function bench.run(opts, say)
    local rounds = opts.rounds or 5
    local data = compute.windows(compute.series(65536 + 32), 65536)
    local model = compute.model()
    local rate = compute.rate(#data, rounds, 0.1, function() model:predict(data, {threads = 1}) end)
    local result = compute.report(rate, compute.FORWARD)
    say(("scoring in bulk, one core: %.2f M windows/s, %.1f of %.1f GFLOP/s peak (%.0f%%), %s"):format(rate / 1e6, result.gflops, result.peak_gflops,
        result.share_of_peak * 100, result.isa))
    local one = require("neap.mlp.core").one_window
    result.one_window_us = compute.median {one(model, 0.05), one(model, 0.05), one(model, 0.05), one(model, 0.05), one(model, 0.05)} * 1e6
    local x = data:rows(1, 1)
    local call = compute.rate(1000, rounds, 0.05, function() for _ = 1, 1000 do model:forward(x) end end)
    result.one_call_us = 1e6 / call
    say(("one window: %.3f us in C, %.3f us as a Lua call with its result tensor"):format(result.one_window_us, result.one_call_us))
    result.vs, result.threads_available = {}, mlp.threads()
    return result
end

return bench
