local tensor = require "neap.tensor"

local function raises(pattern, fn, ...)
    local ok, err = pcall(fn, ...)
    assert.is_false(ok)
    assert.is_truthy(tostring(err):find(pattern), "'" .. tostring(err) .. "' lacks '" .. pattern .. "'")
end

describe("neap.tensor", function()
    it("makes tensors from numbers, lists, ranges and bytes", function()
        assert.are.same({{1, 2, 3}, {4, 5, 6}}, tensor({{1, 2, 3}, {4, 5, 6}}):totable())
        assert.are.same({2, 3}, tensor.zeros(2, 3).shape)
        assert.are.same({0, 0}, tensor.zeros({2}):totable())
        assert.are.same({7, 7}, tensor.full({2}, 7, {dtype = "i64"}):totable())
        assert.are.same({1, 2, 3, 4}, tensor.arange(1, 4):totable())
        assert.equal("i64", tensor.arange(1, 4).dtype)
        assert.are.same({0, 0.25, 0.5, 0.75, 1}, tensor.linspace(0, 1, 5):totable())
        assert.are.same({1.5, -2}, tensor.from_string(string.pack("<ff", 1.5, -2)):totable())
        assert.equal(string.pack("<ff", 1.5, -2), tensor({1.5, -2}):to_string())
        assert.equal((1 << 53) + 1, tensor({(1 << 53) + 1}, {dtype = "i64"})[1])
    end)

    it("gives the same random numbers for the same seed", function()
        assert.are.same(tensor.randn(5, {seed = 3}):totable(), tensor.randn(5, {seed = 3}):totable())
        local x = tensor.randn(20000, {seed = 1})
        assert.is_true(math.abs(x:mean()) < 0.03 and math.abs(x:std() - 1) < 0.03)
        local u = tensor.rand(20000, {seed = 1})
        assert.is_true(u:min() >= 0 and u:max() < 1 and math.abs(u:mean() - 0.5) < 0.02)
    end)

    it("counts dimensions and indices from 1, from the end when negative", function()
        local x = tensor {{1, 2, 3}, {4, 5, 6}}
        assert.equal(6, x[2][3])
        assert.equal(6, x:at(-1, -1))
        assert.are.same({2, 5}, x:select(2, 2):totable())
        assert.are.same({3, 6}, x:select(-1, -1):totable())
        assert.are.same({{2, 3}, {5, 6}}, x:narrow(2, 2, 2):totable())
        assert.are.same({{1, 3}, {4, 6}}, x:slice(2, 1, -1, 2):totable())
        raises("index 3 is out of range 1..2 of dimension 1", function() return x[3] end)
        raises("index 0 is out of range", function() return x[0] end)
        raises("dimension 3 does not exist, the tensor has 2", x.sum, x, 3)
        raises("dimension 0 does not exist", x.sum, x, 0)
        raises("3 elements from 2 on leave dimension 2", x.narrow, x, 2, 2, 3)
    end)

    it("shares memory between views", function()
        local x = tensor.arange(1, 10):to "f32"
        local windows = x:unfold(1, 4, 3)
        assert.are.same({{1, 2, 3, 4}, {4, 5, 6, 7}, {7, 8, 9, 10}}, windows:totable())
        x[4] = -1
        assert.equal(-1, windows[1][4])
        assert.equal(-1, windows:t()[1][2])
        windows[1] = {0, 0, 0, 0}
        assert.are.same({0, 0, 0, 0, 5}, x:narrow(1, 1, 5):totable())
        raises("not contiguous", function() return windows:t():view(12) end)
        assert.are.same({12}, windows:t():reshape(-1).shape)
        raises("%[10%] does not fit into %[3 x 4%]", x.reshape, x, 3, 4)
    end)

    it("broadcasts arithmetic, and works in place behind an underscore", function()
        local x = tensor {{1, 2}, {3, 4}}
        assert.are.same({{11, 22}, {13, 24}}, (x + tensor {10, 20}):totable())
        assert.are.same({{11, 12}, {23, 24}}, (x + tensor {{10}, {20}}):totable())
        assert.are.same({{-9, -8}, {-7, -6}}, (x - 10):totable())
        assert.are.same({{10, 5}, {10 / 3, 2.5}}, tensor({{10, 5}, {10 / 3, 2.5}}):totable() and (10 / x:to "f64"):totable())
        assert.are.same({{1, 4}, {9, 16}}, (x ^ 2):totable())
        local same = x:add_(1)
        assert.equal(x, same)
        assert.are.same({{2, 3}, {4, 5}}, x:totable())
        assert.equal("f32", (tensor.arange(1, 3) / 2).dtype)
        assert.equal("i64", (tensor.arange(1, 3) + 2).dtype)
        raises("add: shapes %[2 x 2%] and %[3%] do not fit together", function() return x + tensor {1, 2, 3} end)
        raises("expected a tensor, a number or a list", function() return x + "a" end)
    end)

    it("reduces over everything or over one dimension", function()
        local x = tensor {{1, 2, 6}, {4, 5, 3}}
        assert.equal(21, x:sum())
        assert.are.same({5, 7, 9}, x:sum(1):totable())
        assert.are.same({{3}, {4}}, x:mean(2, true):totable())
        assert.equal(3, x:argmax())
        assert.are.same({3, 2}, x:argmax(2):totable())
        assert.are.same({1, 6}, {x:min(), x:max()})
        assert.equal(3.5, x:median())
        assert.are.same({1, 3.5, 6}, x:quantile {0, 0.5, 1})
        assert.is_true(math.abs(x:std() - 1.8708286933869707) < 1e-12)
        local sorted, order = tensor({3, 1, 2}):sort(true)
        assert.are.same({3, 2, 1}, sorted:totable())
        assert.are.same({1, 3, 2}, order:totable())
        assert.are.same({1, 3, 9}, x:select(1, 1):cumsum():totable())
        assert.are.same({{4, 5, 3}, {1, 2, 6}}, x:take({2, 1}):totable())
        raises("an index is outside 1..2", x.take, x, {3})
        local nan = tensor {1, 0 / 0, 3}
        assert.is_true(nan:max() ~= nan:max())
        assert.are.same({0, 1, 0}, nan:isnan():totable())
        raises("the tensor is empty", function() return tensor.zeros(0):argmax() end)
    end)

    it("compares, chooses, joins and clamps", function()
        local x = tensor {1, 5, 3}
        assert.are.same({0, 1, 1}, x:gt(2):totable())
        assert.are.same({0, 5, 3}, tensor.where(x:gt(2), x, 0):totable())
        assert.are.same({2, 4, 3}, x:clamp(2, 4):totable())
        assert.are.same({1, 5, 3, 9}, tensor.cat({x, tensor {9}}):totable())
        assert.are.same({{1, 5, 3}, {1, 5, 3}}, tensor.stack({x, x}):totable())
        assert.is_true(x:eq(x):all())
        raises("cat", tensor.cat, {})
    end)

    it("multiplies matrices, also transposed views", function()
        local a, b = tensor {{1, 2}, {3, 4}, {5, 6}}, tensor {{1, 0, 2}, {0, 1, 3}}
        assert.are.same({{1, 2, 8}, {3, 4, 18}, {5, 6, 28}}, a:matmul(b):totable())
        assert.are.same({{35, 44}, {44, 56}}, a:t():matmul(a):totable())
        assert.are.same({5, 11, 17}, a:matmul(tensor {1, 2}):totable())
        raises("matmul: shapes %[3 x 2%] and %[3 x 2%] do not match %(2 vs 3%)", a.matmul, a, a)
        local big = tensor.randn(150, 200, {seed = 1, dtype = "f64"})
        local worst = (big:matmul(big:t()) - big:to("f32"):matmul(big:to("f32"):t()):to "f64"):abs():max()
        assert.is_true(worst < 1e-3, worst)
    end)

    it("names unknown options with the nearest valid one", function()
        raises("unknown option 'dtpye', did you mean 'dtype'", tensor.zeros, 2, {dtpye = "f64"})
        raises("unknown dtype 'f23', did you mean f32", tensor.zeros, 2, {dtype = "f23"})
        raises("rows differ", tensor, {{1, 2}, {3}})
        raises("element 2 is a string", tensor, {1, "2"})
    end)

    it("saves and loads safetensors, and refuses damaged files", function()
        local path = os.tmpname()
        tensor.save(path, {a = tensor.arange(1, 6):reshape(2, 3), b = tensor {0.1}}, {note = "x", n = 3})
        local back, meta = tensor.load(path)
        assert.are.same({{1, 2, 3}, {4, 5, 6}}, back.a:totable())
        assert.equal("i64", back.a.dtype)
        assert.are.same({note = "x", n = "3"}, meta)
        local f = assert(io.open(path, "rb"))
        local bytes = f:read "a"
        f:close()
        f = assert(io.open(path, "wb"))
        f:write(bytes:sub(1, -2))
        f:close()
        local ok, err = pcall(tensor.load, path)
        assert.is_false(ok)
        assert.equal("corrupt", err.kind)
        os.remove(path)
        ok, err = pcall(tensor.load, path)
        assert.equal("io", not ok and err.kind)
        raises("metadata 'neap.x'", tensor.save, path, {}, {["neap.x"] = 1})
    end)

    it("shows shape, statistics and a few rows, never a flood", function()
        local text = tostring(tensor.zeros(1000, 1000))
        assert.is_truthy(text:find("tensor f32 %[1000 x 1000%] cpu"))
        local _, lines = text:gsub("\n", "")
        assert.is_true(lines <= 60)
        assert.are.equal("      1 -22.5\n    333     4", (tostring(tensor {{1, -22.5}, {333, 4}}):match("\n(.*)$")))
    end)

    it("lets the collector see its memory", function()
        collectgarbage()
        local before, most = tensor.live_bytes(), 0
        for _ = 1, 600 do
            local _ = tensor.zeros(1 << 18) -- 1 MiB each
            most = math.max(most, tensor.live_bytes())
        end
        assert.is_true(most - before < 200 << 20, most)
        local x = tensor.zeros(1 << 18)
        local held = tensor.live_bytes()
        x:free()
        assert.equal(held - (1 << 20), tensor.live_bytes())
        raises("this tensor was freed", x.sum, x)
        collectgarbage()
        assert.is_true(tensor.live_bytes() <= before)
    end)

    it("lets other tasks run while a long product, reduction or sort is under way, and does it at once where Lua cannot wait", function()
        local task = require "neap.task"
        local ticks, going = 0, true
        local ticker = task.spawn(function() while going do ticks = ticks + 1 task.sleep(0) end end)
        local a, long = tensor.randn(700, 700, {seed = 1}), tensor.randn(300000, {seed = 2})
        for name, work in pairs {
            product = function() return a:matmul(a)[1][1] end, median = function() return long:median() end, sort = function() return long:sort()[1] end,
            quantile = function() return long:quantile {0.1, 0.9}[2] end, rows = function() return long:view(1000, 300):std(2)[1] end,
        } do
            ticks = 0
            local value = work()
            assert.is_true(ticks > 0, name .. " held the loop")
            local inside
            table.sort({2, 1}, function(x, y) inside = inside or work() return x < y end)
            assert.equal(value, inside, name)
        end
        going = false
        ticker:wait()
        assert.equal("f32", a:matmul(a[1]).dtype) -- short ones do not wait
    end)
end)
