-- Tensors: making, views, arithmetic, files.
local tensor = require "neap.tensor"
local x = tensor {{1, 2, 3}, {4, 5, 6}}
local y = x:t():matmul(x):add_(1):narrow(1, 1, 2):clone()
assert(y:sum() ~= 0)
local z = tensor.cat({tensor.zeros(2, 2), tensor.ones(2, 2)}):reshape(4, 2)
z = (z + 1) * 2 - tensor.full({4, 2}, 3) / 4
z:unfold(1, 2, 1):mean()
tensor.arange(1, 10):to "f64":std()
tensor.randn(5, 5, {seed = 1}):abs():log():exp():clamp(0, 1)
tensor.where(tensor {1, 0}, tensor {1, 2}, tensor {3, 4}):totable()
tensor.stack {tensor {1, 2}, tensor {3, 4}}
tostring(tensor.rand(20, 20))
pcall(function() return tensor.zeros(2, 3):matmul(tensor.zeros(2, 3)) end)
local path = arg[0] .. "/t.safetensors"
tensor.save(path, {a = x, b = z}, {note = "n"})
local back, meta = tensor.load(path)
assert(back.a[2][3] == 6 and meta.note == "n")
tensor.from_string(string.pack("<ffffff", 1, 2, 3, 4, 5, 6), {2, 3})
