-- Networks: training on the compute threads, files, a fleet.
local tensor, mlp = require "neap.tensor", require "neap.mlp"
local series = tensor.randn(200, {seed = 1})
local data = mlp.windows(series, {window = 8})
local model = mlp {input = data:inputs(), hidden = {8}, seed = 1}
model:epoch(data, {batch = 32})
model:fit(data, {epochs = 2, batch = 32, val = data, patience = 1})
for x, y in data:batches {batch = 64} do model:step(x, y) end
model:predict(data)
model:save(arg[0] .. "/m.safetensors", {sensor = "s"})
local again = mlp.load(arg[0] .. "/m.safetensors")
assert(again:loss(data) > 0)
local rows = mlp.rows(tensor.randn(20, 8, {seed = 2}), tensor.randn(20, {seed = 3}))
local fleet = mlp.fleet {count = 2, input = 8, hidden = {4}, seed = 1}
fleet:fit({rows, rows}, {epochs = 2, batch = 10})
