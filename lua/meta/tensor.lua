---@meta neap.tensor

--- Arrays of numbers in one block of memory. Dimensions and indices count from 1, negative ones from the end. A method with a trailing underscore
--- works in place, without it makes a new tensor. Views (narrow, slice, select, t, unfold, ...) share memory and copy nothing. float32 by default.
---
---     local tensor = require "neap.tensor"
---     local x = tensor {{1, 2, 3}, {4, 5, 6}}      -- 2 x 3, f32
---     print(x:t():matmul(x), x:mean(), x[2][3])
---
--- On a GPU: tensor.zeros(2, 3, {device = "cuda"}), x:to "cuda", x:to "cpu". Operands of one operation lie on one device (a single number may stay on
--- the cpu); models and data sets read cpu tensors and take device = "cuda" themselves. sort, quantile, median and cumsum go through the cpu.
---
--- matmul, reductions, sort and quantile of large tensors (over a millisecond of work) run on a compute thread and are awaited: other tasks go on.
---
--- Operators + - * / ^ and unary minus broadcast like PyTorch's. Bytes held by tensors count for the garbage collector; :free() gives them back at once.
---@class neap.tensor
---@field shape integer[] size of each dimension
---@field dtype "f32"|"f64"|"i64"|"u8"
---@field device "cpu"|"cuda"
---@operator add(neap.tensor|number): neap.tensor
---@operator sub(neap.tensor|number): neap.tensor
---@operator mul(neap.tensor|number): neap.tensor
---@operator div(neap.tensor|number): neap.tensor
---@operator pow(neap.tensor|number): neap.tensor
---@operator unm: neap.tensor
---@operator len: integer size of dimension 1
---@overload fun(list: number|table|neap.tensor, opts?: neap.tensor.opts): neap.tensor
local tensor = {}

---@class neap.tensor.opts
---@field dtype? "f32"|"f64"|"i64"|"u8"
---@field seed? integer for rand and randn; without it math.random of this state decides
---@field device? "cpu"|"cuda" default cpu

---@alias neap.tensorlike neap.tensor|number|table

--- What is known about the GPU: its model, bytes `used` by neap, `cached` by it for reuse, `free` and `total`; `matmul`: "cublas" or "neap". Nil and
--- the reason where there is none.
---@return {model: string, used: integer, cached: integer, free: integer, total: integer, matmul: string}? info
---@return string? why
function tensor.cuda() end

-- ---- making (functions of the module) ----

--- Zeros: tensor.zeros(2, 3) or tensor.zeros({2, 3}).
---@param ... integer|integer[]|neap.tensor.opts
---@return neap.tensor
function tensor.zeros(...) end
---@param ... integer|integer[]|neap.tensor.opts
---@return neap.tensor
function tensor.ones(...) end
---@param dims integer[]
---@param value number
---@param opts? neap.tensor.opts
---@return neap.tensor
function tensor.full(dims, value, opts) end
--- Uniform in [0, 1).
---@param ... integer|integer[]|neap.tensor.opts
---@return neap.tensor
function tensor.rand(...) end
--- Standard normal.
---@param ... integer|integer[]|neap.tensor.opts
---@return neap.tensor
function tensor.randn(...) end
--- first, first + step, ... up to and including last, as Lua's for. Integers give i64.
---@param first number
---@param last number
---@param step? number
---@param opts? neap.tensor.opts
---@return neap.tensor
function tensor.arange(first, last, step, opts) end
---@param first number
---@param last number
---@param count integer
---@param opts? neap.tensor.opts
---@return neap.tensor
function tensor.linspace(first, last, count, opts) end
--- Raw little-endian numbers.
---@param bytes string
---@param dims? integer[]
---@param opts? neap.tensor.opts
---@return neap.tensor
function tensor.from_string(bytes, dims, opts) end
---@param x any
---@return boolean
function tensor.is(x) end
--- cond ~= 0 ? a : b, element by element.
---@param cond neap.tensor
---@param a neap.tensorlike
---@param b neap.tensorlike
---@return neap.tensor
function tensor.where(cond, a, b) end
--- Joins along a dimension (default 1).
---@param list neap.tensor[]
---@param dim? integer
---@return neap.tensor
function tensor.cat(list, dim) end
--- Joins tensors of one shape along a new first dimension.
---@param list neap.tensor[]
---@return neap.tensor
function tensor.stack(list) end
--- Writes a safetensors file (PyTorch and numpy read it), atomically and with a checksum. Metadata: strings, numbers, booleans.
---@param path string
---@param tensors table<string, neap.tensor>
---@param metadata? table<string, string|number|boolean>
function tensor.save(path, tensors, metadata) end
--- Reads a safetensors file; a truncated, damaged or foreign one raises an error of kind "corrupt".
---@param path string
---@return table<string, neap.tensor> tensors
---@return table<string, string> metadata
function tensor.load(path) end
--- Bytes of tensor memory that this state holds.
---@return integer
function tensor.live_bytes() end

-- ---- looking ----

---@param ... integer one index per dimension
---@return number
function tensor:at(...) end
--- x:set(i, j, value)
---@param ... number
---@return neap.tensor self
function tensor:set(...) end
--- The number of a tensor with one element.
---@return number
function tensor:item() end
---@return integer
function tensor:dim() end
---@return integer
function tensor:numel() end
---@param dim? integer
---@return integer ... the size of dim, or all sizes
function tensor:size(dim) end
---@return integer
function tensor:bytes() end
---@return boolean
function tensor:is_contiguous() end
---@return table|number nested lists
function tensor:totable() end
---@return string raw little-endian numbers
function tensor:to_string() end

-- ---- views and copies ----

---@param dim integer
---@param index integer
---@return neap.tensor view without that dimension
function tensor:select(dim, index) end
--- `length` elements from `first` on; leaving the tensor is an error.
---@param dim integer
---@param first integer
---@param length integer
---@return neap.tensor view
function tensor:narrow(dim, first, length) end
--- first to last, both included, clamped as string.sub does.
---@param dim integer
---@param first? integer
---@param last? integer
---@param step? integer
---@return neap.tensor view
function tensor:slice(dim, first, last, step) end
---@return neap.tensor view a matrix transposed
function tensor:t() end
---@param a integer
---@param b integer
---@return neap.tensor view
function tensor:transpose(a, b) end
---@param ... integer new order of the dimensions
---@return neap.tensor view
function tensor:permute(...) end
--- Windows of `size` every `step` elements along dim, in a new last dimension.
---@param dim integer
---@param size integer
---@param step? integer
---@return neap.tensor view
function tensor:unfold(dim, size, step) end
--- Same memory in another shape; one -1 is worked out. Needs contiguous memory.
---@param ... integer|integer[]
---@return neap.tensor view
function tensor:view(...) end
--- As view, copying if it must.
---@param ... integer|integer[]
---@return neap.tensor
function tensor:reshape(...) end
---@return neap.tensor
function tensor:clone() end
---@return neap.tensor
function tensor:contiguous() end
---@param what "f32"|"f64"|"i64"|"u8"|"cpu"
---@return neap.tensor
function tensor:to(what) end
---@param from neap.tensorlike
---@return neap.tensor self
function tensor:copy_(from) end
---@param value number
---@return neap.tensor self
function tensor:fill_(value) end
function tensor:free() end

-- ---- arithmetic; each of these also as name_ , in place ----

---@param b neap.tensorlike
---@return neap.tensor
function tensor:add(b) end
---@param b neap.tensorlike
---@return neap.tensor
function tensor:sub(b) end
---@param b neap.tensorlike
---@return neap.tensor
function tensor:mul(b) end
---@param b neap.tensorlike
---@return neap.tensor
function tensor:div(b) end
---@param b neap.tensorlike
---@return neap.tensor
function tensor:pow(b) end
---@param b neap.tensorlike
---@return neap.tensor
function tensor:minimum(b) end
---@param b neap.tensorlike
---@return neap.tensor
function tensor:maximum(b) end
---@return neap.tensor
function tensor:neg() end
---@return neap.tensor
function tensor:abs() end
---@return neap.tensor
function tensor:sqrt() end
---@return neap.tensor
function tensor:square() end
---@return neap.tensor
function tensor:exp() end
---@return neap.tensor
function tensor:log() end
---@return neap.tensor
function tensor:tanh() end
---@return neap.tensor
function tensor:sigmoid() end
---@return neap.tensor
function tensor:relu() end
---@return neap.tensor
function tensor:gelu() end
---@return neap.tensor
function tensor:sin() end
---@return neap.tensor
function tensor:cos() end
---@return neap.tensor
function tensor:floor() end
---@return neap.tensor
function tensor:ceil() end
---@return neap.tensor
function tensor:round() end
---@return neap.tensor
function tensor:asinh() end
---@return neap.tensor
function tensor:sign() end
---@return neap.tensor
function tensor:log1p() end
---@return neap.tensor
function tensor:expm1() end
--- Limits to lo..hi; either may be nil.
---@param lo? number
---@param hi? number
---@return neap.tensor
function tensor:clamp(lo, hi) end
--- Matrix product; [k] vectors count as a row or a column. Also tensor.matmul(a, b).
---@param b neap.tensor
---@return neap.tensor
function tensor:matmul(b) end

-- ---- comparisons: u8 tensors of 0 and 1 ----

---@param b neap.tensorlike
---@return neap.tensor
function tensor:eq(b) end
---@param b neap.tensorlike
---@return neap.tensor
function tensor:ne(b) end
---@param b neap.tensorlike
---@return neap.tensor
function tensor:lt(b) end
---@param b neap.tensorlike
---@return neap.tensor
function tensor:le(b) end
---@param b neap.tensorlike
---@return neap.tensor
function tensor:gt(b) end
---@param b neap.tensorlike
---@return neap.tensor
function tensor:ge(b) end
---@return neap.tensor
function tensor:isnan() end

-- ---- reductions: without dim a number, with dim a tensor (keep: that dimension stays, with size 1). NaN in, NaN out ----

---@param dim? integer
---@param keep? boolean
---@return number|neap.tensor
function tensor:sum(dim, keep) end
---@param dim? integer
---@param keep? boolean
---@return number|neap.tensor
function tensor:mean(dim, keep) end
---@param dim? integer
---@param keep? boolean
---@return number|neap.tensor
function tensor:min(dim, keep) end
---@param dim? integer
---@param keep? boolean
---@return number|neap.tensor
function tensor:max(dim, keep) end
--- Divided by n - 1.
---@param dim? integer
---@param keep? boolean
---@return number|neap.tensor
function tensor:var(dim, keep) end
---@param dim? integer
---@param keep? boolean
---@return number|neap.tensor
function tensor:std(dim, keep) end
---@param dim? integer
---@param keep? boolean
---@return number|neap.tensor
function tensor:norm(dim, keep) end
---@param dim? integer
---@param keep? boolean
---@return integer|neap.tensor position from 1
function tensor:argmin(dim, keep) end
---@param dim? integer
---@param keep? boolean
---@return integer|neap.tensor position from 1
function tensor:argmax(dim, keep) end
---@param dim? integer
---@param keep? boolean
---@return number|neap.tensor
function tensor:median(dim, keep) end
---@param dim? integer
---@param keep? boolean
---@return boolean|neap.tensor
function tensor:any(dim, keep) end
---@param dim? integer
---@param keep? boolean
---@return boolean|neap.tensor
function tensor:all(dim, keep) end
--- Linear interpolation, as numpy; a list of q gives a list.
---@param q number|number[]
---@return number|number[]
function tensor:quantile(q) end
--- A sorted copy of a vector and the order (i64, from 1); NaN last.
---@param descending? boolean
---@return neap.tensor values
---@return neap.tensor order
function tensor:sort(descending) end
---@param dim? integer
---@return neap.tensor
function tensor:cumsum(dim) end
--- Rows of dimension 1 by index (from 1).
---@param index neap.tensor|integer[]
---@return neap.tensor
function tensor:take(index) end

return tensor
