-- Tensors on device = "cuda", against the same operations on the cpu: on a GPU, or on the shim (NEAP_CUDA_SHIM, see spec/run.sh), which runs the same
-- sources thread by thread in three orders, with NaN in fresh memory and no access to it from outside.
local tensor = require "neap.tensor"

local function raises(pattern, fn, ...)
    local ok, err = pcall(fn, ...)
    assert.is_false(ok)
    assert.is_truthy(tostring(err):find(pattern), "'" .. tostring(err) .. "' lacks '" .. pattern .. "'")
end

-- Same shape, dtype and numbers; floats to one part in a million of the largest.
local function same(want, got, what)
    if type(want) ~= "userdata" then
        local near = want == got or (want ~= want and got ~= got) or math.abs(want - got) <= 1e-6 * (math.abs(want) + 1e-30) + 1e-12
        assert.is_true(near, ("%s: %s, expected %s"):format(what, got, want))
        return
    end
    assert.equal("cuda", got.device, what)
    assert.equal(want.dtype, got.dtype, what)
    assert.are.same(want.shape, got.shape, what)
    local a, b = want:reshape(-1):totable(), got:reshape(-1):totable()
    local most = 1e-30
    for i = 1, #a do if math.abs(a[i]) < math.huge then most = math.max(most, math.abs(a[i])) end end
    for i = 1, #a do
        local near = a[i] == b[i] or (a[i] ~= a[i] and b[i] ~= b[i]) or math.abs(a[i] - b[i]) <= 2e-6 * most
        assert.is_true(near, ("%s: element %d is %s, expected %s"):format(what, i, b[i], a[i]))
    end
end

-- fn(tensors...) on both; every tensor of `list` is moved first.
local function both(what, fn, ...)
    local list, moved = table.pack(...), {}
    for i = 1, list.n do moved[i] = list[i]:to "cuda" end
    local want, got = table.pack(fn(table.unpack(list))), table.pack(fn(table.unpack(moved)))
    for i = 1, want.n do
        if type(want[i]) == "boolean" then assert.equal(want[i], got[i], what)
        else same(want[i], got[i], what) end
    end
end

local x, y = tensor.randn(7, 33, {seed = 1}), tensor.randn(7, 33, {seed = 2})
local whole = tensor({{5, -3, 2}, {0, 9, -9}}, {dtype = "i64"})

describe("a tensor on cuda", function()
    it("is made there, moved, converted and read back", function()
        local z = tensor.zeros(3, 4, {device = "cuda"})
        assert.equal("cuda", z.device)
        assert.are.same({{0, 0}, {0, 0}}, tensor.zeros(2, 2, {device = "cuda"}):totable())
        assert.are.same({2, 2, 2}, tensor.full({3}, 2, {device = "cuda", dtype = "i64"}):totable())
        assert.are.same(tensor.randn(50, {seed = 3}):totable(), tensor.randn(50, {seed = 3, device = "cuda"}):totable())
        assert.are.same({1, 2, 3}, tensor.arange(1, 3, 1, {device = "cuda"}):totable())
        assert.equal("cpu", x:to("cuda"):to("cpu").device)
        assert.are.same(x:totable(), x:to("cuda"):totable())
        assert.equal(x:to_string(), x:to("cuda"):to_string())
        assert.equal("f64", x:to("cuda"):to("f64").dtype)
        both("to i64", function(a) return (a * 100):to "i64" end, x)
        both("to u8", function(a) return (a * 300):to "u8" end, x)
        local big = tensor({(1 << 53) + 1, -7}, {dtype = "i64"})
        assert.equal((1 << 53) + 1, big:to("cuda")[1])
    end)

    it("is indexed, assigned and shown", function()
        local a = tensor({{1, 2, 3}, {4, 5, 6}}):to "cuda"
        assert.equal(6, a[2][3])
        assert.equal(5, a:at(2, -2))
        a:set(1, 1, 42)
        a[2] = {7, 8, 9}
        a:select(2, 3):fill_(-1)
        assert.are.same({{42, 2, -1}, {7, 8, -1}}, a:totable())
        assert.is_truthy(tostring(a):find("tensor f32 [2 x 3] cuda", 1, true))
        assert.is_truthy(tostring(a):find "42%s+2%s+-1")
        assert.equal(42, a:narrow(1, 1, 1):narrow(2, 1, 1):item())
        raises("index 3 is out of range 1..2", function() return a[3] end)
    end)

    it("computes what the cpu computes, element by element", function()
        for _, op in ipairs {"add", "sub", "mul", "div", "pow", "minimum", "maximum"} do
            both(op, function(a, b) return a:abs()[op](a:abs(), b), a:abs()[op](a:abs(), 1.5), a[op](a, b:narrow(1, 1, 1)) end, x:abs() + 0.1, y)
            both(op .. " strided", function(a, b) return a:t()[op](a:t(), b:t():clone()), a:slice(2, 1, -1, 3)[op](a:slice(2, 1, -1, 3), 2) end,
                x:abs() + 0.1, y)
            both(op .. " whole", function(a) return a[op](a, a), a[op](a, 2), a[op](a, 0.5) end, whole:abs() + 1)
        end
        for _, op in ipairs {"neg", "abs", "square", "exp", "tanh", "sigmoid", "relu", "gelu", "sin", "cos", "floor", "ceil", "round", "asinh", "sign",
            "expm1"} do
            both(op, function(a) return a[op](a), a:t()[op](a:t()), a:to("f64")[op](a:to "f64") end, x * 3)
            both(op .. " whole", function(a) return a[op](a) end, whole)
        end
        for _, op in ipairs {"sqrt", "log", "log1p"} do both(op, function(a) return a[op](a), a:to("f64")[op](a:to "f64") end, x:abs() + 0.01) end
        for _, op in ipairs {"eq", "ne", "lt", "le", "gt", "ge"} do
            both(op, function(a, b) return a[op](a, b), a[op](a, 0.25), a:to("i64")[op](a:to "i64", 1) end, x, y)
        end
        both("where", function(a, b) return tensor.where(a:gt(b), a, b), tensor.where(a:gt(0), a, 0) end, x, y)
        both("clamp", function(a) return a:clamp(-0.5, 0.5), a:isnan() end, x)
    end)

    it("keeps infinities and NaN", function()
        local odd = tensor {0 / 0, 1 / 0, -1 / 0, 0, -2, 3}
        for _, op in ipairs {"exp", "tanh", "sqrt", "relu", "abs", "sign"} do both(op, function(a) return a[op](a) end, odd) end
        both("min", function(a) return a:min(), a:max(), a:argmin(), a:argmax(), a:minimum(0), a:isnan() end, odd)
        both("sums", function(a) return a:sum(), a:mean() end, tensor {1 / 0, 1})
    end)

    it("works in place, also on views", function()
        both("in place", function(a, b)
            a = a:clone()
            a:add_(b):mul_(0.5):select(1, 3):copy_(b[1])
            a:slice(2, 2, -1, 2):neg_()
            a:add_(a:select(1, 1)) -- shares memory with itself
            return a
        end, x, y)
        local there = tensor.zeros(2, 2, {device = "cuda"})
        there:copy_(tensor {{1, 2}, {3, 4}}) -- from the cpu
        local here = tensor.zeros(2, 2):copy_(there:t())
        assert.are.same({{1, 3}, {2, 4}}, here:totable())
    end)

    it("reduces: everything, a dimension, short and long", function()
        local long = tensor.randn(9000, {seed = 5})
        for _, op in ipairs {"sum", "mean", "min", "max", "var", "std", "norm", "argmin", "argmax", "median", "any", "all"} do
            both(op, function(a) return a[op](a), a[op](a, 1), a[op](a, 2), a[op](a, 2, true), a:t()[op](a:t(), 1) end, x)
            both(op .. " long", function(a) return a[op](a), a:view(3, 3000)[op](a:view(3, 3000), 2), a:view(3000, 3)[op](a:view(3000, 3), 1) end, long)
            both(op .. " whole", function(a) return a[op](a), a[op](a, 1) end, whole)
        end
        both("ties", function(a) return a:argmax(), a:argmin() end, tensor.ones(1000))
        both("three dimensions", function(a) return a:sum(2), a:max(3), a:mean(1) end, tensor.randn(4, 5, 70, {seed = 6}))
        both("the rest", function(a) return a:quantile(0.3), a:cumsum(1), a:sort() end, long)
        assert.equal(0, tensor.zeros(0, {device = "cuda"}):sum())
    end)

    it("multiplies matrices of any strides, shapes and dtypes", function()
        local p, q = tensor.randn(70, 33, {seed = 8}), tensor.randn(33, 129, {seed = 9})
        both("matmul", function(a, b) return a:matmul(b), b:t():matmul(a:t()), a:narrow(1, 2, 5):matmul(b:slice(2, 1, -1, 2)), a:matmul(b:select(2, 3)),
            a[4]:matmul(b) end, p, q)
        both("f64", function(a, b) return a:to("f64"):matmul(b), a:to("i64"):matmul(b) end, p, q)
        both("empty", function(a, b) return a:narrow(2, 1, 0):matmul(b:narrow(1, 1, 0)) end, p, q)
        -- against float64, not only against the cpu's float32
        local exact, got = p:to("f64"):matmul(q:to "f64"), p:to("cuda"):matmul(q:to "cuda"):to "cpu"
        assert.is_true((exact - got:to "f64"):abs():max() <= 1e-5 * exact:abs():max())
    end)

    it("takes rows, joins and unfolds", function()
        both("take", function(a) return a:take {3, 1, 1, 7}, a:t():take {2} end, x)
        both("cat", function(a, b) return tensor.cat({a, b}, 1), tensor.cat({a, b}, 2), tensor.stack {a, b} end, x, y)
        both("unfold", function(a) return a:unfold(2, 5, 3):clone(), a:unfold(2, 5, 3):sum(3), a:transpose(1, 2):reshape(11, 21) end, x)
        raises("outside 1..7", function() return x:to("cuda"):take {8} end)
    end)

    it("is saved and loaded like any other", function()
        local path = os.tmpname()
        tensor.save(path, {a = x:to("cuda"):t(), b = y})
        local back = tensor.load(path)
        os.remove(path)
        assert.are.same(x:t():totable(), back.a:totable())
        assert.equal("cpu", back.a.device)
    end)

    it("does not mix with the cpu's by accident", function()
        local there = x:to "cuda"
        raises("add: shapes .7 x 33. and .7 x 33. lie on different devices .f32 on cuda and f32 on cpu.: move one with x:to%('cuda'%)",
            function() return there + y end)
        raises("tensor_cases.lua:%d+: matmul: .*different devices", function() return there:matmul(y:t()) end)
        raises("cat: .*different devices", tensor.cat, {there, y})
        raises("add_: .*different devices", function() y:add_(there) end)
        raises("shapes .7 x 33. and .4. do not fit together .f32 on cuda and f64 on cuda.",
            function() return there + tensor.zeros(4, {dtype = "f64", device = "cuda"}) end)
        raises("unknown device 'cude', did you mean cuda", tensor.zeros, 2, {device = "cude"})
        local mlp = require "neap.mlp"
        raises("this works on the cpu, the tensor is on cuda: move it with x:to%('cpu'%)", function() return mlp.rows(there) end)
        raises("move it with x:to%('cpu'%)", function() mlp({input = 33}):step(there, tensor.zeros(7, 1)) end)
        same(tensor(3.5) + x, tensor(3.5) + there, "a single number may stay on the cpu")
    end)
end)

describe("memory on cuda", function()
    local function used() return tensor.cuda().used end

    it("comes back when tensors go, and is handed out again", function()
        collectgarbage() collectgarbage()
        local before = used()
        for _ = 1, 50 do
            local a <close> = tensor.zeros(1000, {device = "cuda"})
            local b <close> = a + 1
            assert.equal(1000, b:sum())
        end
        collectgarbage() collectgarbage()
        assert.equal(before, used())
        assert.is_true(tensor.cuda().cached > 0)
        local view = tensor.ones(10, 10, {device = "cuda"}):t():select(1, 3) -- a view alone keeps its storage
        collectgarbage() collectgarbage()
        assert.equal(10, view:sum())
        assert.is_true(used() > before)
    end)

    it("counts as tensors' bytes, so that the collector runs for it", function()
        local before = tensor.live_bytes()
        local a = tensor.zeros(1 << 20, {device = "cuda"})
        assert.is_true(tensor.live_bytes() >= before + (4 << 20))
        a:free()
        assert.equal(before, tensor.live_bytes())
    end)

    it("that is not there is told: how much was asked for, how much is free", function()
        local total = tensor.cuda().total
        local ok, err = pcall(tensor.zeros, total * 2, {device = "cuda"})
        assert.is_false(ok)
        assert.equal("memory", err.kind)
        assert.is_truthy(tostring(err):find "zeros: .*out of GPU memory: %d+ bytes asked for, %d+ of %d+ free, %d+ in use by neap")
        local small = tensor.ones(5, {device = "cuda"}) -- and life goes on
        assert.equal(5, small:sum())
    end)

    it("cached for one size serves another when the device is full", function()
        local total = tensor.cuda().total
        if total > 1 << 30 then return pending "a real device is too large for this" end
        local first = tensor.zeros(total // 10, {device = "cuda"}) -- 40% of it, in bytes
        first:free()
        local second = tensor.zeros(total // 6, {device = "cuda"}) -- 67%: the first one's cache must go
        assert.equal(total // 6, second:numel())
        second:free()
    end)
end)
