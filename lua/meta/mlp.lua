---@meta neap.mlp

--- Small neural networks (multi-layer perceptrons): training, scoring, checkpoints, fleets of one model a sensor.
---
---     local mlp = require "neap.mlp"
---     local data  = mlp.windows(series, {window = 32, starts = starts, norm = "delta", inv = 10, level_inv = 1, extra = seasons})
---     local model = mlp {input = data:inputs(), hidden = {64, 64}, loss = "huber", seed = 1}
---     for epoch = 1, 20 do print(epoch, model:epoch(data, {batch = 64}), model:loss(val)) end
---     model:save("temp.safetensors", {sensor = "temp"})
---
--- Same seed, same weights, to the last bit: scalar, AVX2, AVX-512 and CUDA, any number of threads. Long calls run on a compute thread and are
--- awaited: other tasks go on, Ctrl-C and task cancellation end them between batches. While one runs, its model cannot be used elsewhere.
---@class neap.mlp.module
---@overload fun(options: neap.mlp.options): neap.mlp
local mlp = {}

---@class neap.mlp.hyper
---@field optimizer? "adam"|"adamw"|"sgd" default adam; weight_decay is L2 for adam (as torch.optim.Adam), decoupled for adamw
---@field lr? number default 1e-3
---@field beta1? number default 0.9
---@field beta2? number default 0.999
---@field eps? number default 1e-8
---@field momentum? number of sgd, default 0
---@field weight_decay? number default 0
---@field clip? number largest gradient norm, 0 = off
---@field loss? "mse"|"mae"|"huber" default mse
---@field huber? number where Huber turns linear, default 1

---@class neap.mlp.options: neap.mlp.hyper
---@field input integer numbers per sample
---@field hidden? integer[] layer sizes, default {64, 64}; {} is a linear model
---@field output? integer default 1
---@field act? "relu"|"leaky_relu"|"tanh"|"gelu"|"linear"
---@field leak? number slope of leaky_relu, default 0.01
---@field seed? integer of weights and shuffles, default 1

---@class neap.mlp
local model = {}

---@param options neap.mlp.options
---@return neap.mlp
function mlp.new(options) end
--- A checkpoint, ours or one with tensors layer1.weight [out x in], layer1.bias, ... Damaged files raise kind "corrupt".
---@param path string
---@return neap.mlp model
---@return table<string, string> metadata
function mlp.load(path) end
--- The CPU backend in use. NEAP_ISA=scalar|avx2|avx512 chooses.
---@return "avx512"|"avx2"|"scalar"
function mlp.isa() end
---@return integer compute threads that a fleet uses by default
function mlp.threads() end
--- Is the CUDA backend usable? If not, why.
---@return boolean
---@return string? why
function mlp.cuda() end

---@class neap.mlp.data
---@operator len: integer samples
local data = {}

--- Samples as rows: x [n x inputs], y [n x outputs] or [n], or none for scoring.
---@param x neap.tensorlike
---@param y? neap.tensorlike
---@return neap.mlp.data
function mlp.rows(x, y) end

---@class neap.mlp.windows
---@field window? integer readings per window, default 32
---@field horizon? integer the target lies this many readings after the last one, default 1
---@field outputs? integer consecutive targets from there, default 1
---@field starts? neap.tensor|integer[] where windows begin, from 1 (so that no window crosses a gap); default: every stride-th place
---@field stride? integer default 1
---@field dilation? integer readings between two inputs, default 1
---@field norm? "delta"|"affine"|"none" delta (default): (v - last) * inv, target too; affine: (v - loc) * inv
---@field loc? number default 0
---@field inv? number default 1
---@field level_inv? number adds the input (last - loc) * level_inv
---@field extra? neap.tensor [readings x k]: its row at the last reading is appended
---@field target? neap.tensor where targets are read instead of in the series

--- Windows over a series (a vector), formed on the fly: no window matrix is ever made. The series must not change while in use.
---@param series neap.tensorlike
---@param options? neap.mlp.windows
---@return neap.mlp.data
function mlp.windows(series, options) end

--- Samples as tensors (a copy), as the network sees them.
---@param first? integer
---@param last? integer
---@return neap.tensor x [n x inputs]
---@return neap.tensor? y [n x outputs]
function data:rows(first, last) end
--- Batches for a loop of your own; the two tensors are reused. Same order as model:epoch with this seed and epoch (counted from 0).
---@param options? {batch?: integer, shuffle?: boolean, seed?: integer, epoch?: integer}
---@return fun(): neap.tensor, neap.tensor
function data:batches(options) end
---@return integer
function data:inputs() end
---@return integer
function data:outputs() end

--- One optimiser step on a batch: x [n x input], y [n x output]. Runs at once (23 us at batch 64 on the usual model).
---@param x neap.tensorlike
---@param y neap.tensorlike
---@param options? neap.mlp.hyper for this step only
---@return number loss before the step
function model:step(x, y, options) end
--- One pass over a data set.
---@param set neap.mlp.data
---@param options? {batch?: integer, shuffle?: boolean, seed?: integer, epoch?: integer, threads?: integer, device?: "cpu"|"cuda"|"auto"} and neap.mlp.hyper
---@return number mean training loss
function model:epoch(set, options) end

---@class neap.mlp.fit: neap.mlp.hyper
---@field epochs? integer default 20
---@field batch? integer default 64
---@field val? neap.mlp.data decides early stopping; the best epoch's weights are kept
---@field patience? integer epochs without a better val loss before it stops, 0 = never
---@field keep_best? boolean default true with val
---@field shuffle? boolean default true
---@field seed? integer of the shuffle, default the model's
---@field on_epoch? fun(epoch: integer, train_loss: number, val_loss?: number): boolean? false stops
---@field threads? integer
---@field device? "cpu"|"cuda"|"auto"

---@class neap.mlp.fitted
---@field epochs integer epochs done
---@field best integer epoch of the best val loss, 0 = none
---@field train number[]
---@field val? number[]
---@field stopped "epochs"|"patience"|"on_epoch"|"failed"
---@field failed? string fleets: why this member was left alone
---@field device "cpu"|"cuda" where it was trained

---@param set neap.mlp.data
---@param options? neap.mlp.fit
---@return neap.mlp.fitted
function model:fit(set, options) end
--- Outputs [n x output] for a data set or rows; [output] for a single row.
---@param x neap.mlp.data|neap.tensorlike
---@param options? {threads?: integer, device?: string}
---@return neap.tensor
function model:predict(x, options) end
--- The same, always at once on this thread.
---@param x neap.tensorlike
---@return neap.tensor
function model:forward(x) end
--- Mean loss over a data set.
---@param set neap.mlp.data
---@param options? neap.mlp.hyper
---@return number
function model:loss(set, options) end
--- Optimiser and loss from now on.
---@param options neap.mlp.hyper
---@return neap.mlp self
function model:configure(options) end
---@return neap.mlp with the optimiser's state
function model:clone() end
--- SHA-256 over all weights: equal exactly if the weights are.
---@return string
function model:hash() end
--- Copies of a layer's weight [out x in] and bias [out]; given ones are taken over first.
---@param i integer
---@param weight? neap.tensor
---@param bias? neap.tensor
---@return neap.tensor weight
---@return neap.tensor bias
function model:layer(i, weight, bias) end
---@return {input: integer, output: integer, sizes: integer[], parameters: integer, steps: integer, epochs: integer, seed: integer, act: string, optimizer: string, loss: string, lr: number, isa: string}
function model:info() end
--- An atomic, checksummed safetensors file. With {optimizer = true} training can go on from it exactly.
---@param path string
---@param metadata? table<string, string|number|boolean>
---@param options? {optimizer?: boolean}
function model:save(path, metadata, options) end

---@class neap.mlp.fleet
---@field [integer] neap.mlp
---@operator len: integer
local fleet = {}

--- Many models that learn in one call. Give count (seeds seed, seed + 1, ...), or seeds, or models.
---@param options table neap.mlp.options and count, seeds, models, device
---@return neap.mlp.fleet
function mlp.fleet(options) end
--- One data set a model. Any option may be a list with one value a model: lr = {1e-3, 3e-3}, val = {..}. Bits as if trained alone.
---@param sets neap.mlp.data[]
---@param options? neap.mlp.fit
---@return neap.mlp.fitted[]
function fleet:fit(sets, options) end
---@param sets neap.mlp.data[]
---@param options? table
---@return number[] mean losses
function fleet:epoch(sets, options) end
---@param sets neap.mlp.data[]
---@param options? table
---@return neap.tensor[]
function fleet:predict(sets, options) end

return mlp
