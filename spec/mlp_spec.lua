local mlp = require "neap.mlp"
local tensor = require "neap.tensor"
local task = require "neap.task"
local helper = require "spec.helper"

local function raises(pattern, fn, ...)
    local ok, err = pcall(fn, ...)
    assert.is_false(ok)
    assert.is_truthy(tostring(err):find(pattern), "'" .. tostring(err) .. "' lacks '" .. pattern .. "'")
end

local function wave(n) return tensor.arange(1, n):to("f32"):mul_(0.05):sin_() end

-- ---- the same numbers as spec/oracles/torch_trajectory.py ----

local function pseudo(seed, n)
    local out, x = {}, seed * 2654435761 % 4294967296
    for i = 1, n do
        x = (x * 1664525 + 1013904223) % 4294967296
        out[i] = (x >> 16) / 32768 - 1
    end
    return out
end

local function torch_model(case, seed)
    local options = {input = case.sizes[1], output = case.sizes[#case.sizes], hidden = {table.unpack(case.sizes, 2, #case.sizes - 1)},
        act = case.act, loss = case.loss}
    for k, v in pairs(case.options) do options[k] = v end
    local model = mlp(options)
    for i = 1, #case.sizes - 1 do
        local inputs, outputs = case.sizes[i], case.sizes[i + 1]
        local bound = 1 / inputs ^ 0.5
        local weight = tensor(pseudo(seed * 100 + 2 * (i - 1), inputs * outputs), {dtype = "f64"}):mul_(bound):view(outputs, inputs)
        local bias = tensor(pseudo(seed * 100 + 2 * (i - 1) + 1, outputs), {dtype = "f64"}):mul_(bound)
        model:layer(i, weight, bias)
    end
    return model
end

local function torch_data(seed, n)
    local x = tensor(pseudo(seed * 1000 + 7, n * 32), {dtype = "f64"}):view(n, 32)
    local function column(i) return x:select(2, i) end
    local y = column(1) * column(2) * 0.5 + x:narrow(2, 3, 4):sum(2) * 0.25 + column(32) * 0.1
    return x:to "f32", y:to("f32"):view(n, 1)
end

describe("neap.mlp beside PyTorch", function()
    local recorded = assert(loadfile "spec/oracles/torch_trajectory.lua")()
    for _, case in ipairs(recorded.cases) do
        it("follows " .. case.name .. " within 1e-6 for 300 steps (median of 5 seeds)", function()
            local worst = {}
            for seed, losses in ipairs(case.seeds) do
                local model, x, y = torch_model(case, seed), torch_data(seed, 4 * recorded.batch)
                local y0 = select(2, torch_data(seed, 4 * recorded.batch))
                y = y or y0
                local at, most = 1, 0
                for step = 1, recorded.steps do
                    local first = (step - 1) % 4 * recorded.batch + 1
                    local loss = model:step(x:narrow(1, first, recorded.batch), y:narrow(1, first, recorded.batch))
                    if step == recorded.at[at] then
                        most = math.max(most, math.abs(loss - losses[at]))
                        at = at + 1
                    end
                end
                worst[seed] = most
            end
            table.sort(worst)
            assert.is_true(worst[3] <= 1e-6, table.concat(worst, " "))
        end)
    end
end)

describe("neap.mlp", function()
    it("trains the same bits by epoch, by fit and by a loop of steps, on any number of threads", function()
        local data = mlp.windows(wave(1000), {window = 16, inv = 5, level_inv = 1})
        local function model() return mlp {input = data:inputs(), hidden = {24, 24}, seed = 3} end
        local by_epoch, by_step, by_fit, by_threads = model(), model(), model(), model()
        for _ = 1, 3 do by_epoch:epoch(data, {batch = 50}) end
        for epoch = 0, 2 do
            for x, y in data:batches {batch = 50, seed = 3, epoch = epoch} do by_step:step(x, y) end
        end
        by_fit:fit(data, {batch = 50, epochs = 3})
        by_threads:fit(data, {batch = 50, epochs = 3, threads = 2, on_epoch = function() end})
        assert.equal(by_epoch:hash(), by_step:hash())
        assert.equal(by_epoch:hash(), by_fit:hash())
        assert.equal(by_epoch:hash(), by_threads:hash())
        assert.are_not.equal(by_epoch:hash(), model():hash())
    end)

    it("has the golden weights on every backend", function()
        -- One hash for scalar, AVX2 and AVX-512; a GPU is checked against the CPU when its backend opens.
        local script = [[local mlp, tensor = require "neap.mlp", require "neap.tensor"
            local list, x = {}, 12345
            for i = 1, 400 do x = (x * 1664525 + 1013904223) % 4294967296 list[i] = (x >> 16) / 32768 - 1 end
            local model = mlp {input = 32, hidden = {64, 64}, seed = 1, loss = "huber", act = arg[1]}
            model:fit(mlp.windows(tensor(list), {window = 32}), {epochs = 2})
            print(mlp.isa(), model:hash())]]
        local dir = helper.dir()
        local f = assert(io.open(dir .. "/golden.lua", "w"))
        f:write(script)
        f:close()
        local golden = {
            relu = "83ae782f77c8618f8a47b11d7d6782bb4fbb17256d725fd285bf15155483d24c",
            gelu = "d2d4c69a42ff25bc02eeb46bbaba162274df6fbc2802f6f2d630b8ceaaee87ca",
            tanh = "88f6503279ed9a60845904dda85ea7a398108e6ac299a84102ee4e50f0054d79",
        }
        local seen = {}
        for act, hash in pairs(golden) do
            for _, isa in ipairs {"scalar", "avx2", "avx512"} do
                local p = assert(io.popen(("NEAP_ISA=%s '%s' '%s/golden.lua' %s"):format(isa, helper.program(), dir, act)))
                local used, got = p:read("a"):match "(%S+)%s+(%S+)"
                p:close()
                seen[used] = true
                assert.equal(hash, got, act .. " on " .. used)
            end
        end
        assert.is_true(seen.scalar)
        helper.remove(dir)
    end)

    it("stops early on validation loss and keeps the best weights", function()
        local series = wave(900)
        local train = mlp.windows(series, {window = 12, starts = tensor.arange(1, 500)})
        local val = mlp.windows(series, {window = 12, starts = tensor.arange(600, 800)})
        local options = {epochs = 60, patience = 3, val = val, lr = 0.02}
        local a, b = mlp {input = 12, hidden = {16}}, mlp {input = 12, hidden = {16}}
        local one = a:fit(train, options)
        options.on_epoch = function() end
        local two = b:fit(train, options)
        assert.are.same(one, two)
        assert.equal(a:hash(), b:hash())
        local least = math.huge
        for _, v in ipairs(one.val) do least = math.min(least, v) end
        assert.equal(least, one.val[one.best])
        assert.equal(least, a:loss(val))
        if one.stopped == "patience" then assert.equal(one.best + 3, one.epochs) end
        local stopped = mlp({input = 12}):fit(train, {epochs = 9, on_epoch = function(epoch) return epoch < 2 end})
        assert.are.same({2, "on_epoch"}, {stopped.epochs, stopped.stopped})
    end)

    it("trains a fleet to the bits of models trained alone, each with its own options", function()
        local sets, alone = {}, {}
        local rates = {1e-3, 3e-3, 1e-2}
        for i = 1, 3 do sets[i] = mlp.windows(wave(300 + 50 * i), {window = 8 + 0 * i}) end
        for i = 1, 3 do
            alone[i] = mlp {input = 8, hidden = {16, 8}, seed = 10 + i}
            alone[i]:fit(sets[i], {epochs = 4, lr = rates[i]})
        end
        local fleet = mlp.fleet {count = 3, input = 8, hidden = {16, 8}, seed = 11}
        local results = fleet:fit(sets, {epochs = 4, lr = rates, threads = 2})
        for i = 1, 3 do
            assert.equal(alone[i]:hash(), fleet[i]:hash())
            assert.equal(4, results[i].epochs)
        end
        local outs = fleet:predict(sets)
        assert.are.same(alone[2]:predict(sets[2]):totable(), outs[2]:totable())
        local empty = mlp.windows(wave(5), {window = 8})
        assert.equal(0, #empty)
        local some = fleet:fit({sets[1], empty, sets[3]}, {epochs = 1})
        assert.equal("failed", some[2].stopped)
        assert.is_truthy(some[2].failed:find "empty")
        assert.equal(1, some[3].epochs)
        raises("3 models, 1 data sets", fleet.fit, fleet, {sets[1]})
        local twice = mlp.fleet {models = {alone[1], alone[1]}}
        raises("in use by another task, or twice", twice.fit, twice, {sets[1], sets[1]})
    end)

    it("forms windows as the same arithmetic in Lua", function()
        local series, extra = {}, {}
        for i = 1, 40 do series[i], extra[i] = (i * i) % 17 + i / 8, {i, -i} end
        local data = mlp.windows(tensor(series), {window = 3, dilation = 2, horizon = 4, starts = {1, 5, 30}, norm = "delta", inv = 0.5, loc = 2, level_inv = 4,
            extra = tensor(extra)})
        local x, y = data:rows()
        for r, start in ipairs {1, 5, 30} do
            local last = series[start + 4]
            local want = {(series[start] - last) / 2, (series[start + 2] - last) / 2, 0, (last - 2) * 4, start + 4, -start - 4}
            assert.are.same(want, x[r]:totable())
            assert.equal((series[start + 8] - last) / 2, y[r][1])
        end
        raises("start 33 %(number 2%) leaves the series", mlp.windows, tensor(series), {window = 3, dilation = 2, horizon = 4, starts = {1, 33}})
        raises("unknown norm 'dleta', did you mean 'delta'", mlp.windows, tensor(series), {norm = "dleta"})
        raises("unknown option 'widnow', did you mean 'window'", mlp.windows, tensor(series), {widnow = 3})
        assert.equal(0, #mlp.windows(tensor(series), {window = 40}))
    end)

    it("predicts one row, many rows and whole data sets alike", function()
        local data = mlp.windows(wave(700), {window = 32})
        local model = mlp {input = 32, hidden = {16}, output = 1}
        local all, x = model:predict(data), data:rows()
        assert.are.same(all:totable(), model:predict(x):totable())
        assert.equal(all[5][1], model:predict(x[5])[1])
        assert.equal(all[5][1], model:predict(x[5]:totable())[1])
        assert.are.same({695 - 27, 1}, all.shape)
    end)

    it("saves checkpoints that Python reads, and loads them with their metadata", function()
        local path = os.tmpname()
        local model = mlp {input = 5, hidden = {9}, act = "gelu", seed = 4}
        model:save(path, {sensor = "temp", n = 3})
        local back, meta = mlp.load(path)
        assert.equal(model:hash(), back:hash())
        assert.are.same({sensor = "temp", n = "3"}, meta)
        assert.equal("gelu", back:info().act)
        local p = assert(io.popen("python3 spec/oracles/read_safetensors.py " .. path))
        local python = assert(load(p:read "a"))()
        p:close()
        assert.equal("temp", python["meta.sensor"])
        assert.are.same({9, 5}, python["layer1.weight"].shape)
        assert.is_true(math.abs(python["layer1.weight"].sum - model:layer(1):to("f64"):sum()) < 1e-12)
        for _, damage in ipairs {function(b) return b:sub(1, 100) end, function(b) return b:sub(1, -9) .. "xxxxxxxx" end, function() return "hello" end,
            function() return "" end} do
            local f = assert(io.open(path, "rb"))
            local bytes = f:read "a"
            f:close()
            f = assert(io.open(path, "wb"))
            f:write(damage(bytes))
            f:close()
            local ok, err = pcall(mlp.load, path)
            assert.is_false(ok)
            assert.equal("corrupt", err.kind)
            model:save(path)
        end
        os.remove(path)
    end)

    it("names operation, shapes and layer when sizes do not fit", function()
        local model = mlp {input = 4, hidden = {8}}
        raises("step: x %[2 x 5%] does not fit layer 1, which has 4 inputs %(5 vs 4%)", model.step, model, tensor.zeros(2, 5), tensor.zeros(2, 1))
        raises("step: y %[2 x 3%] does not fit layer 2, which has 1 outputs", model.step, model, tensor.zeros(2, 4), tensor.zeros(2, 3))
        raises("step: x has 2 rows, y 3", model.step, model, tensor.zeros(2, 4), tensor.zeros(3, 1))
        raises("the batch is empty", model.step, model, tensor.zeros(0, 4), tensor.zeros(0, 1))
        raises("has 3 inputs per sample, layer 1 of the model takes 4", model.epoch, model, mlp.rows(tensor.zeros(2, 3), tensor.zeros(2)))
        raises("has no targets", model.epoch, model, mlp.rows(tensor.zeros(2, 4)))
        raises("unknown option 'activation'", mlp, {input = 4, activation = "relu"})
        raises("unknown activation 'rulu', did you mean 'relu'", mlp, {input = 4, act = "rulu"})
        raises("did you mean 'hidden'", mlp, {input = 4, hiden = {3}})
        raises("the training set is empty", model.epoch, model, mlp.rows(tensor.zeros(0, 4), tensor.zeros(0, 1)))
        raises("batch is 0", model.epoch, model, mlp.rows(tensor.zeros(2, 4), tensor.zeros(2)), {batch = 0})
    end)

    it("reports misuse at the line that made it, and which model of a fleet", function()
        local model, set = mlp {input = 4}, mlp.windows(wave(50), {window = 4})
        local other = mlp.windows(wave(50), {window = 5})
        local fleet = mlp.fleet {count = 2, input = 4}
        local here = debug.getinfo(1, "l").currentline
        local wrong = {
            {"training: the data set has 5 inputs per sample, layer 1 of the model takes 4", function() local _ = model:epoch(other) end},
            {"epoch: expected a data set, made by mlp.windows or mlp.rows, got a tensor", function() local _ = model:epoch(tensor.zeros(2, 4)) end},
            {"fit: val: expected a data set", function() local _ = model:fit(set, {val = 3}) end},
            {"batch must be a whole number, got 1.5", function() local _ = model:epoch(set, {batch = 1.5}) end},
            {"predict: x %[2 x 5%] does not fit layer 1", function() local _ = model:predict(tensor.zeros(2, 5)) end},
            {"windows: inv must be a finite number, got inf", function() local _ = mlp.windows(wave(9), {window = 4, inv = 1 / 0}) end},
            {"windows: horizon is %-1", function() local _ = mlp.windows(wave(9), {window = 4, horizon = -1}) end},
            {"fleet: model 2: expected a data set, made by mlp.windows or mlp.rows, got number", function() local _ = fleet:fit {set, 5} end},
            {"training model 2: the data set has 5 inputs", function() local _ = fleet:fit {set, other} end},
            {"step: x %[2 x 5%] does not fit layer 1", function() local _ = model:step(tensor.zeros(2, 5), tensor.zeros(2, 1)) end},
        }
        for i, case in ipairs(wrong) do raises("mlp_spec.lua:" .. here + 1 + i .. ": " .. case[1], case[2]) end
    end)

    it("documents NaN: it stays in its sample when scoring and shows in the loss when training", function()
        local model = mlp {input = 2, hidden = {4}}
        local out = model:predict(tensor {{1, 2}, {0 / 0, 1}, {3, 4}})
        assert.are.same({0, 1, 0}, out:view(3):isnan():totable())
        local loss = model:step(tensor {{0 / 0, 1}}, tensor {{1}})
        assert.is_true(loss ~= loss)
        assert.equal(0, mlp({input = 2}):fit(mlp.rows(tensor.zeros(3, 2), tensor.zeros(3)), {epochs = 0}).epochs)
    end)

    it("keeps other tasks running while it trains, and ends when its task is cancelled", function()
        local data = mlp.windows(wave(20000), {window = 32})
        local model, ticks, trained = mlp {input = 32}, 0, false
        local training = task.spawn(function()
            pcall(function() model:fit(data, {epochs = 100000}) end)
            trained = true
        end)
        while ticks < 5 do
            task.sleep(0.01)
            ticks = ticks + 1
        end
        assert.is_false(trained)
        raises("being trained or scored by another task", model.step, model, tensor.zeros(1, 32), tensor.zeros(1, 1))
        training:cancel()
        repeat task.sleep(0.005) until trained
        repeat
            task.sleep(0.005)
            local free = pcall(model.step, model, tensor.zeros(1, 32), tensor.zeros(1, 1))
        until free
    end)

    it("says why there is no GPU", function()
        local usable, why = mlp.cuda()
        if usable then return end
        assert.equal("string", type(why))
        raises("device 'cuda': ", function() mlp({input = 2}):epoch(mlp.rows(tensor.zeros(3, 2), tensor.zeros(3)), {device = "cuda"}) end)
        mlp({input = 2}):epoch(mlp.rows(tensor.zeros(3, 2), tensor.zeros(3)), {device = "auto"})
        raises("unknown device 'gpu'", function() mlp({input = 2}):epoch(mlp.rows(tensor.zeros(3, 2), tensor.zeros(3)), {device = "gpu"}) end)
    end)

    it("counts a model's bytes with the tensors', so that the collector runs for models", function()
        collectgarbage() collectgarbage()
        local before = tensor.live_bytes()
        do
            local one, most = mlp {input = 100, hidden = {1000}}, 0
            assert.is_true(tensor.live_bytes() - before >= 3 * 4 * 101 * 1000)
            for _ = 1, 400 do -- half a gigabyte, had nothing been collected
                one = one:clone()
                most = math.max(most, tensor.live_bytes())
            end
            assert.is_true(most < before + (160 << 20), most .. " bytes were held")
        end
        collectgarbage() collectgarbage()
        assert.equal(before, tensor.live_bytes())
    end)
end)
