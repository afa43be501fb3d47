-- Models and fleets on device = "cuda": the cpu's bits, on a GPU or on the shim (see tensor_cases.lua).
local mlp, tensor = require "neap.mlp", require "neap.tensor"
local core = require "neap.mlp.core"

local function series(n, seed) return tensor.arange(1, n):to("f32"):mul_(0.1):sin() + tensor.randn(n, {seed = seed}) * 0.1 end

local function windows(n, seed) return mlp.windows(series(n, seed), {window = 12}) end

describe("a model on cuda", function()
    it("learns the cpu's weights to the last bit", function()
        for _, options in ipairs {
            {}, {hidden = {16, 16}, act = "gelu", optimizer = "adamw", weight_decay = 0.1, clip = 0.5},
            {hidden = {9}, act = "tanh", optimizer = "sgd", momentum = 0.9},
        } do
            local a, b = {input = 12, hidden = {20, 16}, seed = 4}, {input = 12, hidden = {20, 16}, seed = 4}
            for k, v in pairs(options) do a[k], b[k] = v, v end
            a, b = mlp(a), mlp(b)
            local set, val = windows(150, 1), windows(60, 2)
            local one = a:fit(set, {val = val, epochs = 3, batch = 40, patience = 1})
            local two = b:fit(set, {val = val, epochs = 3, batch = 40, patience = 1, device = "cuda"})
            assert.are.same(one.train, two.train)
            assert.are.same(one.val, two.val)
            assert.equal(a:hash(), b:hash())
            assert.equal("cuda", two.device)
            assert.equal("cpu", one.device)
            assert.are.same(a:predict(val):totable(), b:predict(val, {device = "cuda"}):totable())
            assert.equal(a:loss(val), b:loss(val, {device = "cuda"}))
            for _ = 1, 2 do -- going on from moments that are not zero, here and there in turn
                assert.equal(a:epoch(set, {batch = 33}), b:epoch(set, {batch = 33, device = "cuda"}))
            end
            assert.equal(a:epoch(set, {batch = 33, device = "cuda"}), b:epoch(set, {batch = 33}))
            assert.equal(a:hash(), b:hash())
        end
    end)

    it("learns from rows as from windows", function()
        local x, y = windows(100, 3):rows()
        local a, b = mlp {input = 12, hidden = {8}}, mlp {input = 12, hidden = {8}}
        assert.equal(a:epoch(mlp.rows(x, y), {batch = 16}), b:epoch(mlp.rows(x, y), {batch = 16, device = "cuda"}))
        assert.equal(a:hash(), b:hash())
    end)

    it("that does not fit says so and stays as it was", function()
        local wide = mlp {input = 12, hidden = {30000}}
        local hash = wide:hash()
        local ok, err = pcall(wide.epoch, wide, windows(40, 1), {device = "cuda"})
        assert.is_false(ok)
        assert.is_truthy(tostring(err):find("does not fit the GPU's shared memory", 1, true))
        assert.equal(hash, wide:hash())
    end)
end)

describe("a fleet on cuda", function()
    local function fleet_of(n) return mlp.fleet {count = n, input = 12, hidden = {8}, seed = 3} end

    it("is one launch with the bits of models trained alone: ragged, empty, stopping early", function()
        local here, there, sets, vals = fleet_of(5), fleet_of(5), {}, {}
        for i = 1, 5 do
            sets[i] = i == 3 and mlp.windows(series(8, 1), {window = 12}) or windows(30 + 17 * i, i)
            vals[i] = windows(40, 20 + i)
        end
        local options = {val = vals, epochs = 4, batch = 16, patience = 1, lr = {0.001, 0.01, 0.01, 0.3, 0.002}}
        local one = here:fit(sets, options)
        options.device = "cuda"
        local two = there:fit(sets, options)
        for i = 1, 5 do
            assert.equal(here[i]:hash(), there[i]:hash())
            assert.are.same(one[i].train, two[i].train)
            assert.are.same(one[i].val, two[i].val)
            assert.equal(one[i].epochs, two[i].epochs)
            assert.equal(one[i].failed, two[i].failed)
        end
        sets[3] = windows(60, 9)
        local p, q = here:predict(sets), there:predict(sets, {device = "cuda"})
        for i = 1, 5 do assert.are.same(p[i]:totable(), q[i]:totable()) end
        local memory = tensor.cuda()
        assert.is_true(memory.cached > 0)
    end)

    it("of two kinds of network is trained kind by kind", function()
        local models = {mlp {input = 12, hidden = {8}}, mlp {input = 12, hidden = {20, 4}, act = "tanh"}, mlp {input = 12, hidden = {8}, seed = 2}}
        local copies, sets = {}, {}
        for i, m in ipairs(models) do copies[i], sets[i] = m:clone(), windows(50 + i, i) end
        local a, b = mlp.fleet({models = models}):epoch(sets), mlp.fleet({models = copies, device = "cuda"}):epoch(sets)
        assert.are.same(a, b)
        for i, m in ipairs(models) do assert.equal(m:hash(), copies[i]:hash()) end
    end)

    it("gives back all device memory", function()
        collectgarbage() collectgarbage()
        local before = tensor.cuda().used
        fleet_of(3):epoch({windows(40, 1), windows(50, 2), windows(60, 3)}, {device = "cuda"})
        assert.equal(before, tensor.cuda().used)
    end)

    it("can be cancelled, and serves others meanwhile", function()
        local task = require "neap.task"
        local fleet, sets = fleet_of(2), {windows(400, 1), windows(400, 2)}
        local training = task.spawn(function() fleet:fit(sets, {epochs = 50000, device = "cuda"}) end)
        for _ = 1, 3 do task.sleep(0.01) end -- the loop turns while it runs
        training:cancel()
        local ok, err = training:wait()
        assert.is_false(ok)
        assert.equal("cancelled", err.kind)
        assert.is_true(fleet[1]:info().steps < 50000)
    end)
end)

describe("device = 'auto'", function()
    it("takes the GPU for large jobs only, and sooner once it is up", function()
        assert.is_false(core.worth(1e8, 1000))
        assert.is_false(core.worth(1e9, 1000))
        assert.is_false(core.worth(3e9, 1)) -- one model leaves most of the chip idle
        assert.is_true(core.worth(2e9, 1000))
        assert.is_true(core.worth(4e10, 1))
        local m = mlp {input = 12, hidden = {8}}
        assert.equal("cpu", m:fit(windows(50, 1), {epochs = 1, device = "auto"}).device)
    end)
end)
