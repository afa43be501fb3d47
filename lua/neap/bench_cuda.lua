--- The compute benches on a GPU, beside what PyTorch offers there: eager, CUDA graphs, torch.compile, batched ensembles. The peers' scripts lie in
--- spec/bench; they run neap's part as a child between their own rounds, so that both meet the same machine. All losses are printed.
local compute = require "neap.bench_compute"
local json = require "neap.json"
local mlp = require "neap.mlp"
local tensor = require "neap.tensor"

local bench = {}

-- neap's part, a script that gets the job's folder last. `device` is filled in.
local FLEET <const> = [[
local dir, mlp, tensor, task = arg[#arg], require "neap.mlp", require "neap.tensor", require "neap.task"
local models, windows, batch, epochs
for line in io.lines(dir .. "/job.txt") do models, windows, batch, epochs = line:match "(%d+) (%d+) (%d+) (%d+)" end
models, windows, batch, epochs = tonumber(models), tonumber(windows), tonumber(batch), tonumber(epochs)
local f = io.open(dir .. "/base.f32", "rb")
local base, sets = tensor.from_string(f:read "a"), {}
f:close()
for i = 1, models do sets[i] = mlp.windows(base:narrow(1, i, windows + 32):clone(), {window = 32}) end
local function run(n)
    local fleet = mlp.fleet {count = models, input = 32, hidden = {64, 64}}
    local start = task.now()
    local results = fleet:fit(sets, {epochs = n, batch = batch, seed = 1, device = "@device@"})
    return task.now() - start, results
end
run(1)
local one = run(1)
local more, results = run(epochs + 1)
local loss = 0
for i = 1, models do loss = loss + results[i].train[epochs] / models end
print(("{\"samples_per_s\": %.6g, \"call_samples_per_s\": %.6g, \"loss\": %.9g}"):format(models * windows * epochs / math.max(more - one, 1e-9),
    models * windows * (epochs + 1) / more, loss))
]]

local SCORE <const> = [[
local dir, mlp, tensor, task = arg[#arg], require "neap.mlp", require "neap.tensor", require "neap.task"
local f = io.open(dir .. "/base.f32", "rb")
local base = tensor.from_string(f:read "a")
f:close()
local set, model = mlp.windows(base, {window = 32}), mlp {input = 32, hidden = {64, 64}}
local out = model:predict(set, {device = "@device@"})
local start, n = task.now(), 0
repeat
    out = model:predict(set, {device = "@device@"})
    n = n + 1
until n >= 3 and task.now() - start >= 0.3
local rate = n * #set / (task.now() - start)
print(("{\"rates\": {\"windows\": %.6g}, \"sample\": %.9g}"):format(rate, out:at(#set // 2 + 1, 1)))
]]

local MATMUL <const> = [[
local dir, tensor, task = arg[#arg], require "neap.tensor", require "neap.task"
local out = {}
for line in io.lines(dir .. "/job.txt") do
    for n in line:gmatch "%d+" do
        n = tonumber(n)
        local a, b = tensor.rand(n, n, {seed = 1, device = "@device@"}), tensor.rand(n, n, {seed = 2, device = "@device@"})
        local function wait(c) return c:at(1, 1) end -- an element is there when the product is
        wait(a:matmul(b))
        local start, count = task.now(), 0
        repeat
            wait(a:matmul(b))
            count = count + 1
        until count >= 3 and task.now() - start >= 0.3
        out[#out + 1] = ("\"%d\": %.6g"):format(n, 2e-9 * n ^ 3 * count / (task.now() - start))
    end
end
print("{\"rates\": {" .. table.concat(out, ", ") .. "}}")
]]

local function write(path, text)
    local f = assert(io.open(path, "wb"))
    f:write(text)
    f:close()
end

-- The folder of a job: see spec/bench/fleet_peer.py.
local function prepare(models, windows, batch, epochs)
    local dir = os.tmpname()
    os.remove(dir)
    assert(os.execute("mkdir -m 700 '" .. dir .. "'"))
    write(dir .. "/job.txt", ("%d %d %d %d\n"):format(models, windows, batch, epochs))
    write(dir .. "/base.f32", compute.series(models + windows + 32):to_string())
    local init, order = {}, {}
    for i = 1, models do
        local m = compute.model(i)
        for k = 1, 3 do
            local weight, bias = m:layer(k)
            init[#init + 1], init[#init + 2] = weight:to_string(), bias:to_string()
        end
    end
    write(dir .. "/init.f32", table.concat(init))
    local numbers = mlp.rows(tensor.arange(1, windows):to("f32"):view(windows, 1)) -- batches of these are the order itself
    for epoch = 1, epochs do
        for at in numbers:batches {batch = batch, seed = 1, epoch = epoch - 1} do
            for _, k in ipairs(at:reshape(-1):totable()) do order[#order + 1] = string.pack("<i4", math.tointeger(k) - 1) end
        end
    end
    write(dir .. "/order.i32", table.concat(order))
    return dir
end

local function program()
    local lowest = 0
    while arg[lowest - 1] do lowest = lowest - 1 end
    return arg[lowest]
end

-- Runs the peer; its result, or neap's part alone and why.
local function beside(opts, peer, dir, child)
    write(dir .. "/child.lua", (child:gsub("@device@", opts.device)))
    local python, script = opts.python or "python3", "spec/bench/" .. peer:match "^%S+"
    local other = tensor.cuda().model:find "^shim" and "cpu" or "cuda" -- the specs' stand-in has no GPU to share
    local torch_sees = other == "cpu" and "True" or "torch.cuda.is_available()"
    local why
    local f = io.open(script)
    if not f then why = "run it in a checkout: " .. script .. " is not here"
    elseif not os.execute(("'%s' -c 'import torch, sys; sys.exit(not %s)' >/dev/null 2>&1"):format(python, torch_sees)) then
        why = python .. " has no PyTorch that sees the GPU (--python PATH names another)"
    end
    if f then f:close() end
    local command = why and ("'%s' '%s/child.lua' '%s'"):format(program(), dir, dir)
        or ("'%s' %s%s '%s' %s %d '%s' '%s/child.lua'"):format(python, script, peer:match " .*" or "", dir, other, opts.rounds or 3, program(), dir)
    local p = io.popen(command)
    local text = p:read "a"
    p:close()
    os.execute("rm -rf '" .. dir .. "'")
    local ok, result = pcall(json.decode, text)
    if not ok then error("neap bench: " .. (why and "neap's part failed" or "the PyTorch peer failed"), 0) end
    if why then result = {neap = result.samples_per_s or result.rates, neap_loss = result.loss, rates = {}, losses = {}, failed = {}, alone = why} end
    return result
end

local function start(opts)
    local usable, why = mlp.cuda()
    if not usable then error("neap bench --device cuda: " .. why, 0) end
    opts.device = opts.device or "cuda"
    return tensor.cuda()
end

-- The largest exact float32 product stands for the peak: what this chip's FMA units reach in practice.
local function peak()
    local task = require "neap.task"
    local n = tensor.cuda().total > 4 << 30 and 4096 or 64
    local a = tensor.ones(n, n, {device = "cuda"})
    local best = math.huge
    for _ = 1, 4 do
        local at = task.now()
        a:matmul(a):at(1, 1)
        best = math.min(best, task.now() - at)
    end
    return 2e-9 * n ^ 3 / best
end

local function report(opts, say, title, t, flop, device)
    local result = {
        samples_per_s = t.neap, gflops = t.neap * flop * 1e-9, peak_gflops = peak(), isa = "cuda", threads = 0, device = device.model, vs = {},
        torch = t.torch, losses = t.losses, failed = t.failed,
    }
    result.share_of_peak = result.gflops / result.peak_gflops
    result.losses.neap = t.neap_loss
    say(("%s on %s: %.3f M samples/s, %.0f GFLOP/s, %.0f%% of the best product measured (%.0f)"):format(
        title, device.model, t.neap / 1e6, result.gflops, result.share_of_peak * 100, result.peak_gflops))
    if t.alone then say("  " .. t.alone) end
    local forms = {}
    for form in pairs(t.rates) do forms[#forms + 1] = form end
    table.sort(forms, function(a, b) return t.rates[a] > t.rates[b] end)
    for _, form in ipairs(forms) do
        result.vs[form] = t.neap / t.rates[form]
        local loss = t.losses[form]
        say(("  PyTorch %s %-24s %10.3f M samples/s: %.1fx%s"):format(t.torch, form, t.rates[form] / 1e6, result.vs[form],
            type(loss) == "number" and (", loss %.7f"):format(loss) or ""))
    end
    if t.neap_loss then say(("  neap's loss %.7f"):format(t.neap_loss)) end
    for form, why in pairs(t.failed) do say(("  PyTorch %s: left out: %s"):format(form, why)) end
    opts.result = result
    return result
end

function bench.fleet(opts, say)
    local device = start(opts)
    local models, windows = opts.models or 10000, opts.windows or 10000
    local t = beside(opts, "fleet_peer.py", prepare(models, windows, 64, 3), FLEET)
    return report(opts, say, ("fleet of %d models x %d windows, batch 64"):format(models, windows), t, compute.TRAIN, device)
end

function bench.train(opts, say)
    local device = start(opts)
    local t = beside(opts, "fleet_peer.py", prepare(1, opts.windows or 20480, 64, 3), FLEET)
    return report(opts, say, "training one model, batch 64", t, compute.TRAIN, device)
end

function bench.score(opts, say)
    local device = start(opts)
    local t = beside(opts, "gpu_peer.py score", prepare(1, opts.windows or 1 << 22, 1 << 16, 0), SCORE)
    t.neap, t.losses = t.neap.windows, {}
    return report(opts, say, "scoring in bulk, copies included", t, compute.FORWARD, device)
end

function bench.matmul(opts, say)
    local device = start(opts)
    local dir = prepare(1, 64, 64, 0)
    write(dir .. "/job.txt", device.total > 4 << 30 and "256 1024 4096 8192\n" or "32 64\n")
    local t = beside(opts, "gpu_peer.py matmul", dir, MATMUL)
    local result = {sizes = t.neap, vs = {}, isa = "cuda", threads = 0, device = device.model, samples_per_s = 0, torch = t.torch, matmul = device.matmul}
    if t.alone then say(t.alone) end
    local sizes = {}
    for size in pairs(t.neap) do sizes[#sizes + 1] = size end
    table.sort(sizes, function(a, b) return tonumber(a) < tonumber(b) end)
    for _, size in ipairs(sizes) do
        local rate = t.neap[size]
        result.gflops = math.max(result.gflops or 0, rate)
        if t.rates[size] then result.vs[size] = rate / t.rates[size] end
        say(("%s x %s on %s (%s): %.1f GFLOP/s%s"):format(size, size, device.model, device.matmul, rate,
            t.rates[size] and ("   PyTorch %.1f: %.2fx"):format(t.rates[size], result.vs[size]) or ""))
    end
    result.peak_gflops, result.share_of_peak = result.gflops, 1
    return result
end

return bench
