--- What the compute benches share: the usual job (windows of 32, 32 -> 64 -> 64 -> 1, ReLU, Adam), its arithmetic, medians, and PyTorch beside it where
--- python3-torch is installed. Rates of one thread are per second of CPU time, so that a busy machine does not blur them.
local core = require "neap.mlp.core"
local mlp = require "neap.mlp"
local tensor = require "neap.tensor"

local compute = {}

compute.FORWARD = 12416 -- floating-point operations per sample: 2 per weight
compute.TRAIN = 33152   -- forward, weight gradients, input gradients of layers 2 and 3

function compute.median(list)
    table.sort(list)
    return list[(#list + 1) // 2]
end

--- A noisy wave: it can be learnt, but never to the end.
function compute.series(n)
    local x = tensor.arange(1, n):to "f32"
    return (x * 0.05):sin() + tensor.randn(n, {seed = 7}):mul_(0.1)
end

function compute.windows(series, count)
    return mlp.windows(series, {window = 32, starts = tensor.arange(1, count), norm = "delta"})
end

function compute.model(seed) return mlp {input = 32, hidden = {64, 64}, seed = seed or 1} end

--- Samples per second of fn(), which handles `samples`: the median of `rounds` of CPU time, each at least `seconds` long.
function compute.rate(samples, rounds, seconds, fn, clock)
    clock = clock or os.clock
    local rates = {}
    for r = 1, rounds do
        local start, n = clock(), 0
        repeat
            fn()
            n = n + 1
        until clock() - start >= seconds
        rates[r] = n * samples / (clock() - start)
    end
    return compute.median(rates)
end

function compute.peak() return core.peak(0.2) end

--- The head that every compute bench reports, one thread unless told otherwise.
function compute.report(samples_per_s, flop, threads)
    local peak = compute.peak()
    local gflops = samples_per_s * flop * 1e-9
    return {
        samples_per_s = samples_per_s, gflops = gflops, peak_gflops = peak, share_of_peak = peak > 0 and gflops / (peak * (threads or 1)) or 0,
        isa = mlp.isa(), threads = threads or 1,
    }
end

-- ---- PyTorch ----

local CHILD <const> = [[
local dir, batch, epochs = arg[1], tonumber(arg[2]), tonumber(arg[3])
local mlp, tensor = require "neap.mlp", require "neap.tensor"
local series = tensor.load(dir .. "/job.safetensors").series
local data = mlp.windows(series, {window = 32, starts = tensor.arange(1, #series - 32), norm = "delta"})
local model, rates, loss = nil, {}, nil
for round = 1, 5 do
    model = mlp.load(dir .. "/init.safetensors")
    local start = os.clock()
    for epoch = 1, epochs do loss = model:epoch(data, {batch = batch, threads = 1}) end
    rates[round] = #data * epochs / (os.clock() - start)
end
table.sort(rates)
print(rates[3], ("%.9g"):format(loss))
]]

local function write(path, text)
    local f = assert(io.open(path, "w"))
    f:write(text)
    f:close()
end

--- The same job in PyTorch's forms and in neap, interleaved: what spec/bench/torch_peer.py prints, or nil and why not.
function compute.torch(samples, batch, epochs, rounds)
    local peer = "spec/bench/torch_peer.py"
    local f = io.open(peer)
    if not f then return nil, "run it in a checkout: " .. peer .. " is not here" end
    f:close()
    if not os.execute "/usr/bin/python3 -c 'import torch, numpy' >/dev/null 2>&1" then return nil, "python3-torch is not installed" end
    local dir = os.tmpname()
    os.remove(dir)
    assert(os.execute("mkdir -m 700 '" .. dir .. "'"))
    local series, model = compute.series(samples + 32), compute.model(1)
    local data = compute.windows(series, samples)
    local x, y = data:rows()
    local numbers = mlp.rows(tensor.arange(1, samples):to("f32"):view(samples, 1)) -- batches of these are the order itself
    local order = {}
    for epoch = 1, epochs do
        local parts = {}
        for at in numbers:batches {batch = batch, seed = 1, epoch = epoch - 1} do parts[#parts + 1] = at:reshape(-1):clone() end
        order[epoch] = (tensor.cat(parts) - 1):to "i64"
    end
    tensor.save(dir .. "/job.safetensors", {series = series, x = x, y = y, order = tensor.stack(order)})
    model:save(dir .. "/init.safetensors")
    write(dir .. "/child.lua", CHILD)
    local lowest = 0
    while arg[lowest - 1] do lowest = lowest - 1 end
    local p = io.popen(("/usr/bin/python3 %s '%s' %d %d %d '%s' '%s/child.lua'"):format(peer, dir, batch, epochs, rounds, arg[lowest], dir))
    local text = p:read "a"
    p:close()
    os.execute("rm -rf '" .. dir .. "'")
    local ok, result = pcall(require("neap.json").decode, text)
    if not ok then return nil, "the PyTorch peer failed" end
    result.rates.preindexed = math.max(result.rates.preindexed, result.rates.preindexed_foreach) -- its best form
    result.rates.preindexed_foreach = nil
    result.vs = {}
    for form, rate in pairs(result.rates) do result.vs[form] = result.neap / rate end
    return result
end

return compute
