--- Matrix products of tensors on one core, against the FMA peak and numpy's BLAS where it is installed.
local compute = require "neap.bench_compute"
local core = require "neap.mlp.core"
local tensor = require "neap.tensor"

local bench = {summary = "tensor.matmul, float32: GFLOP/s by size, share of the FMA peak, and numpy's BLAS beside it"}

local NUMPY <const> = [[
import os, sys, time
os.environ["OPENBLAS_NUM_THREADS"] = "1"
import numpy as np
n = int(sys.argv[1]); a = np.random.rand(n, n).astype("f"); b = np.random.rand(n, n).astype("f"); a @ b; rates = []
for r in range(5):
    t = time.process_time(); k = 0
    while time.process_time() - t < 0.1: a @ b; k += 1
    rates.append(2e-9 * n ** 3 * k / (time.process_time() - t))
print(sorted(rates)[2])
]]

local function numpy(n)
    local path = os.tmpname()
    local f = assert(io.open(path, "w"))
    f:write(NUMPY)
    f:close()
    local p = io.popen("/usr/bin/python3 " .. path .. " " .. n .. " 2>/dev/null")
    local rate = tonumber(p:read "a")
    p:close()
    os.remove(path)
    return rate
end

function bench.run(opts, say)
    local result = {sizes = {}, vs = {}}
    for _, n in ipairs {32, 64, 128, 256, 512, 1024} do
        local a, b = tensor.rand(n, n, {seed = 1}), tensor.rand(n, n, {seed = 2})
        local gflops = compute.rate(2e-9 * n ^ 3, opts.rounds or 5, 0.1, function() core.matmul(a, b, 1) end)
        local other = numpy(n)
        result.sizes[tostring(n)] = gflops
        result.gflops = gflops
        if other then result.vs[tostring(n)] = gflops / other end
        say(("%4d x %-4d  %6.1f GFLOP/s%s"):format(n, n, gflops, other and ("   numpy %.1f: %.2fx"):format(other, gflops / other) or ""))
    end
    result.peak_gflops = compute.peak()
    result.share_of_peak = result.peak_gflops > 0 and result.gflops / result.peak_gflops or 0
    result.isa, result.threads, result.samples_per_s = core.isa(), 1, 0
    say(("peak %.1f GFLOP/s, %s"):format(result.peak_gflops, result.isa))
    return result
end

return bench
