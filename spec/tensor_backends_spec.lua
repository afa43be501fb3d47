-- Float32 tensor functions on every CPU backend against the same in double (libm): accuracy, ends, NaN, every ragged length; products of all layouts.
local helper = require "spec.helper"

local SCRIPT <const> = [==[
local tensor = require "neap.tensor"
local worst, bad = 0, {}
local function check(ok, ...) if not ok then bad[#bad + 1] = table.concat({...}, " ") end end

-- relative error, absolute where a function crosses zero away from its argument's zero
local ranges = {
    log = {{-36, 36, exp = true}}, sin = {{-8000, 8000, zero = 1}, {-1e-3, 1e-3}, {-4, 4, zero = 1}}, cos = {{-8000, 8000, zero = 1}},
    log1p = {{-0.99, 5}, {-1e-4, 1e-4}, {0, 1e6}}, expm1 = {{-16, 20}, {-1e-4, 1e-4}, {-1, 1}}, asinh = {{-10, 10}, {-1e-3, 1e-3}, {-1e8, 1e8}},
    sqrt = {{0, 100}}, exp = {{-80, 80}}, tanh = {{-9, 9}},
}
for name, list in pairs(ranges) do
    for _, r in ipairs(list) do
        local x = tensor.rand(4003, {seed = 3}):mul_(r[2] - r[1]):add_(r[1])
        if r.exp then x = x:exp() end
        local y, wide = x[name](x):to "f64", x:to "f64"
        local z = wide[name](wide)
        local off = ((y - z):abs() / (z:abs() + (r.zero or 1e-300))):max()
        check(off <= 1e-6, name, r[1], r[2], off)
    end
end
for name in pairs(ranges) do
    local x = tensor {0 / 0, 1 / 0, -1 / 0, 0, -0.0, -1, -2, 1e-40, 3e38, 0.5, -0.5, 1e9}
    local y, wide = x[name](x), x:to "f64"
    local z = wide[name](wide)
    for i = 1, #x do
        local a, b = y[i], z[i]
        if math.abs(b) > 3.5e38 then b = b < 0 and -1 / 0 or 1 / 0 end
        check(a == b or a ~= a and b ~= b or math.abs(a - b) <= 1e-6 * math.max(math.abs(b), 1), name, x[i], a, b)
    end
end
for n = 1, 70 do
    local x = tensor.rand(n, {seed = n})
    for _, name in ipairs {"log", "sin", "exp", "sqrt"} do
        local y = x[name](x)
        for i = 1, n do check(math.abs(y[i] - math[name](x[i])) < 1e-6 * (1 + math.abs(y[i])), name, n, i) end
    end
    local v = x:totable()
    check(x:max() == math.max(table.unpack(v)) and x:min() == math.min(table.unpack(v)), "max, min", n)
    for _, at in ipairs {1, (n + 1) // 2, n} do
        local w = tensor(v)
        w[at] = 1 / 0
        check(w:max() == 1 / 0 and w:min() == w:min(), "infinity", n, at)
        w[at] = 0 / 0
        check(w:max() ~= w:max() and w:min() ~= w:min(), "NaN", n, at)
    end
end

-- sums and comparisons against loops
local m = tensor.randn(37, 21, {seed = 5})
local down, across, less = m:sum(1), m:mean(2), m:lt(0.25)
for j = 1, 21 do
    local s = 0
    for i = 1, 37 do s = s + m[i][j] end
    check(math.abs(s - down[j]) < 1e-5, "sum(1)", j)
end
for i = 1, 37 do
    local s = 0
    for j = 1, 21 do
        s = s + m[i][j]
        check((less[i][j] ~= 0) == (m[i][j] < 0.25), "lt", i, j)
    end
    check(math.abs(s / 21 - across[i]) < 1e-6, "mean(2)", i)
end

for _, s in ipairs {{1, 1, 1}, {3, 5, 7}, {12, 33, 300}, {100, 32, 256}, {96, 64, 513}, {130, 257, 129}, {200, 31, 8}, {64, 1, 500}, {13, 300, 264}} do
    local rows, cols, depth = s[1], s[2], s[3]
    for layout = 0, 3 do
        local a = layout % 2 == 0 and tensor.randn(rows, depth, {seed = 1}) or tensor.randn(depth, rows, {seed = 1}):t()
        local b = layout < 2 and tensor.randn(depth, cols, {seed = 2}) or tensor.randn(cols, depth, {seed = 2}):t()
        local c, exact = a:matmul(b), a:to "f64":matmul(b:to "f64")
        local off = ((c:to "f64" - exact):abs() / (exact:abs() + depth ^ 0.5)):max()
        check(off <= 1e-5, "matmul", rows, cols, depth, "layout", layout, off)
    end
end
print(require "neap.mlp".isa(), #bad == 0 and "fine" or table.concat(bad, "; "))
]==]

describe("float32 tensor functions", function()
    for _, isa in ipairs {"scalar", "avx2", "avx512"} do
        it("stay within 1e-6 of double, NaN and infinities included, on " .. isa, function()
            local dir = helper.dir()
            local f = assert(io.open(dir .. "/functions.lua", "w"))
            f:write(SCRIPT)
            f:close()
            local p = assert(io.popen(("NEAP_ISA=%s '%s' '%s/functions.lua' 2>&1"):format(isa, helper.program(), dir)))
            local used, verdict = p:read "a":match "^(%S+)%s+(.-)%s*$"
            p:close()
            helper.remove(dir)
            if used ~= isa then assert.equal(used, require "neap.mlp".isa()) end -- this CPU lacks it: the best one ran
            assert.equal("fine", verdict)
        end)
    end
end)
