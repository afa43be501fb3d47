--- Small neural networks: multi-layer perceptrons that learn at the machine's speed while the loop stays readable Lua.
--
--     local mlp = require "neap.mlp"
--     local data = mlp.windows(series, {window = 32, norm = "delta", inv = 10})
--     local model = mlp {input = data:inputs(), hidden = {64, 64}, act = "relu", seed = 1}
--     for epoch = 1, 20 do print(epoch, model:epoch(data, {batch = 64})) end
--     local forecast = model:predict(data)
--
-- One seed, one result: the same bits on every CPU and thread count (and on CUDA), for one model or a fleet.
-- The C half is neap.mlp.core; options, defaults and their texts are here.

local core = require "neap.mlp.core"

local mlp = {}
local model, data = core.model, core.data -- method tables

-- ---- options ----

local HYPER <const> = {"optimizer", "lr", "beta1", "beta2", "eps", "momentum", "weight_decay", "clip", "loss", "huber"}

-- How far two names are apart: edits of one letter.
local function distance(a, b)
    local row = {}
    for j = 0, #b do row[j] = j end
    for i = 1, #a do
        local diagonal = row[0]
        row[0] = i
        for j = 1, #b do
            local above = row[j]
            row[j] = math.min(above + 1, row[j - 1] + 1, diagonal + (a:byte(i) == b:byte(j) and 0 or 1))
            diagonal = above
        end
    end
    return row[#b]
end

-- Sets of valid names, with the optimiser's if asked.
local function names(list, hyper)
    local set = {}
    for _, name in ipairs(list) do set[name] = true end
    for _, name in ipairs(hyper and HYPER or {}) do set[name] = true end
    return set
end

-- Raises at the caller of the public function for an option that is not in `valid`.
local function check(options, valid, what)
    if options == nil then return {} end
    if type(options) ~= "table" then error(("%s: options must be a table, got %s"):format(what, type(options)), 3) end
    for name in pairs(options) do
        if not valid[name] then
            local best, least
            for known in pairs(valid) do
                local d = distance(tostring(name), known)
                if not least or d < least or d == least and known < best then best, least = known, d end
            end
            local hint = least and least <= 3 and (", did you mean '%s'?"):format(best) or ""
            error(("%s: unknown option '%s'%s"):format(what, tostring(name), hint), 3)
        end
    end
    return options
end

local function want_integer(value, name, what, least)
    if math.type(value) ~= "integer" or value < least then
        error(("%s: %s must be a whole number of at least %d, got %s"):format(what, name, least, tostring(value)), 3)
    end
    return value
end

-- Calls into the core; what it raises gets the line of whoever called the public function. Never in tail position.
local function call(fn, ...)
    local r = table.pack(pcall(fn, ...))
    if not r[1] then error(r[2], type(r[2]) == "string" and 3 or 0) end
    return table.unpack(r, 2, r.n)
end

local SET <const> = getmetatable(core.rows {{0}}) -- tells data sets from tensors

function data.is(x) return type(x) == "userdata" and getmetatable(x) == SET end

local function want_set(set, what, level)
    if data.is(set) then return set end
    error(("%s: expected a data set, made by mlp.windows or mlp.rows, got %s"):format(what, type(set) == "userdata" and "a tensor" or type(set)), level or 3)
end

-- ---- models ----

local NEW <const> = names({"input", "hidden", "output", "act", "leak", "seed", "device"}, true)

--- A new model. `input` numbers in, `hidden` layer sizes (a list; {} is a linear model), `output` numbers out.
function mlp.new(options)
    check(options, NEW, "mlp")
    if not options or not options.input then error("mlp: give at least the number of inputs, mlp {input = 32}", 2) end
    local hidden = options.hidden or {64, 64}
    if type(hidden) ~= "table" then hidden = {hidden} end
    local sizes = {want_integer(options.input, "input", "mlp", 1)}
    for i, size in ipairs(hidden) do sizes[i + 1] = want_integer(size, "a hidden size", "mlp", 1) end
    sizes[#sizes + 1] = want_integer(options.output or 1, "output", "mlp", 1)
    local ok, made = pcall(core.new, sizes, options.act or "relu", options.leak or 0.01, options.seed or 1, options)
    if not ok then error(made, type(made) == "string" and 2 or 0) end
    return made
end

--- A model and its metadata from a checkpoint; damaged files raise an error of kind "corrupt".
mlp.load = core.load

local TRAIN <const> = names({"data", "val", "batch", "epochs", "patience", "shuffle", "seed", "keep_best", "threads", "device", "on_epoch", "epoch"}, true)

-- One job table for core.train out of a call's options.
local function job_of(m, set, options, epochs)
    local job = {model = m, data = set, epochs = epochs}
    for name, value in pairs(options) do
        if name ~= "on_epoch" and name ~= "threads" and name ~= "device" and name ~= "epochs" then job[name] = value end
    end
    return job
end

local EPOCH <const> = names({"batch", "shuffle", "seed", "threads", "device", "epoch"}, true)

--- One pass over a data set; the mean training loss.
function model:epoch(set, options)
    options = check(options, EPOCH, "epoch")
    local result = call(core.train, {job_of(self, want_set(set, "epoch"), options, 1)}, options.threads, options.device)[1]
    if result.failed then error("epoch: " .. result.failed, 2) end
    return result.train[1]
end

--- Many passes with early stopping. With `val` the weights of the best epoch are kept (unless keep_best = false) and training
--- ends after `patience` epochs without a better one. `on_epoch(epoch, train_loss, val_loss)` may return false to stop.
---@return table {epochs =, best =, train = {...}, val = {...}, stopped = "epochs"|"patience"|"on_epoch", device = "cpu"|"cuda"}
function model:fit(set, options)
    options = check(options, TRAIN, "fit")
    local epochs = want_integer(options.epochs or 20, "epochs", "fit", 0)
    local keep = options.val ~= nil and options.keep_best ~= false
    want_set(set, "fit")
    if options.val ~= nil then want_set(options.val, "fit: val") end
    if not options.on_epoch then
        local job = job_of(self, set, options, epochs)
        job.keep_best = keep
        local result = call(core.train, {job}, options.threads, options.device)[1]
        if result.failed then error("fit: " .. result.failed, 2) end
        result.stopped = result.epochs < epochs and "patience" or "epochs"
        return result
    end
    -- With a callback, epoch by epoch: same shuffles, same bits.
    local result = {epochs = 0, best = 0, train = {}, val = options.val and {} or nil, stopped = "epochs"}
    local least, best
    for epoch = 1, epochs do
        local done = call(core.train, {job_of(self, set, options, 1)}, options.threads, options.device)[1]
        if done.failed then error("fit: " .. done.failed, 2) end
        local loss, val = done.train[1], done.val and done.val[1]
        result.epochs, result.train[epoch], result.device = epoch, loss, done.device
        if val then
            result.val[epoch] = val
            if val < (least or math.huge) then
                least, result.best = val, epoch
                if keep then best = self:clone() end
            end
        end
        if options.on_epoch(epoch, loss, val) == false then result.stopped = "on_epoch" break end
        if val and (options.patience or 0) > 0 and epoch - result.best >= options.patience then result.stopped = "patience" break end
    end
    if best then
        for i = 1, #self:info().sizes - 1 do self:layer(i, best:layer(i)) end
    end
    return result
end

local PREDICT <const> = names {"threads", "device"}

--- Outputs for a data set, a tensor or list [n x input], or one row of inputs.
function model:predict(x, options)
    options = check(options, PREDICT, "predict")
    if not data.is(x) and type(x) == "userdata" and x:dim() == 2 and #x > 256 then x = call(core.rows, x) end
    if data.is(x) then
        local outs = call(core.predict, {{model = self, data = x}}, options.threads, options.device)
        return outs[1]
    end
    local ok, out = pcall(self.forward, self, x)
    if not ok then error(out, type(out) == "string" and 2 or 0) end
    return out
end

--- Mean loss over a data set, with the model's loss function (or options.loss).
function model:loss(set, options)
    options = check(options, names({"threads", "device"}, true), "loss")
    local job = {model = self, data = want_set(set, "loss"), loss = options.loss, huber = options.huber}
    local losses = call(core.predict, {job}, options.threads, options.device, true)
    return losses[1]
end

-- ---- data sets ----

--- Samples given as rows: x [n x inputs], y [n x outputs], [n] or nothing.
mlp.rows = core.rows

local WINDOWS <const> = names {"window", "horizon", "stride", "dilation", "norm", "loc", "inv", "level_inv", "outputs", "starts", "extra", "target"}

--- Windows over a series, formed on the fly. `starts` lists where windows begin (from 1; gaps stay uncrossed that way), else every
--- stride-th place. norm "delta": inputs and target relative to the window's last value, times inv; "affine": (v - loc) * inv;
--- "none": as they are. level_inv appends (last - loc) * level_inv; `extra` [readings x k] appends its row of the last reading.
function mlp.windows(series, options)
    options = check(options, WINDOWS, "windows")
    local window = want_integer(options.window or 32, "window", "windows", 1)
    for _, name in ipairs {"loc", "inv", "level_inv"} do
        local v = options[name]
        if v ~= nil and (type(v) ~= "number" or v ~= v or math.abs(v) == math.huge) then
            error(("windows: %s must be a finite number, got %s (a series without any spread cannot be scaled by it)"):format(name, tostring(v)), 2)
        end
    end
    local set = call(core.windows, series, options.target, options.starts, options.extra, window, options.horizon or 1, options.stride or 1,
        options.dilation or 1, options.norm or "delta", options.loc or 0, options.inv or 1, options.level_inv, options.outputs or 1)
    return set
end

local BATCHES <const> = names {"batch", "shuffle", "seed", "epoch"}

--- Batches for a loop of your own: for x, y in data:batches {batch = 64, epoch = e} do model:step(x, y) end
--- With the seed and epoch number of model:epoch the order is the same. The two tensors are reused: clone what you keep.
function data:batches(options)
    options = check(options, BATCHES, "batches")
    return self:_batches(options.batch or 64, options.shuffle ~= false, options.seed or 1, options.epoch or 0)
end

-- ---- fleets ----

local fleet = {}
fleet.__index = function(self, key) return fleet[key] or rawget(self, "models")[key] end
fleet.__len = function(self) return #self.models end
fleet.__tostring = function(self) return ("fleet of %d models like %s"):format(#self.models, tostring(self.models[1])) end

local FLEET <const> = names({"count", "input", "hidden", "output", "act", "leak", "seed", "seeds", "models", "device"}, true)

--- Many models that learn in one call, one a sensor: count, or a list of seeds, or a list of models. fleet[i] is an ordinary model.
function mlp.fleet(options)
    check(options, FLEET, "fleet")
    local models = options.models
    if not models then
        local seeds, count = options.seeds, options.count or options.seeds and #options.seeds
        models = {}
        if not count then error("fleet: give count, seeds or models", 2) end
        local one = {}
        for name, value in pairs(options) do if NEW[name] then one[name] = value end end
        for i = 1, count do
            one.seed = seeds and seeds[i] or (options.seed or 1) + i - 1
            models[i] = mlp.new(one)
        end
    end
    return setmetatable({models = models, device = options.device}, fleet)
end

-- sets[i] and, where options give a list, options[name][i]: a sweep over learning rates is lr = {..}.
local function fleet_jobs(self, sets, options, epochs)
    if #sets ~= #self.models then error(("fleet: %d models, %d data sets"):format(#self.models, #sets), 3) end
    local jobs = {}
    for i, m in ipairs(self.models) do
        local job = {model = m, data = want_set(sets[i], "fleet: model " .. i, 4), epochs = epochs}
        for name, value in pairs(options) do
            if name ~= "threads" and name ~= "device" and name ~= "epochs" then
                if type(value) == "table" then value = value[i] end
                job[name] = value
            end
        end
        jobs[i] = job
    end
    return jobs
end

--- Trains every model on its data set (val = a list of validation sets), each with its own early stopping. A model with an empty
--- training set is left alone and its result says so in `failed`. A list of results as of model:fit.
function fleet:fit(sets, options)
    options = check(options, TRAIN, "fit")
    local epochs = want_integer(options.epochs or 20, "epochs", "fit", 0)
    local jobs = fleet_jobs(self, sets, options, epochs)
    for _, job in ipairs(jobs) do job.keep_best = job.val ~= nil and options.keep_best ~= false end
    local results = call(core.train, jobs, options.threads, options.device or self.device)
    for _, result in ipairs(results) do result.stopped = result.failed and "failed" or result.epochs < epochs and "patience" or "epochs" end
    return results
end

--- One pass of every model over its set; a list of mean losses (NaN for an empty set).
function fleet:epoch(sets, options)
    options = check(options, EPOCH, "epoch")
    local losses = {}
    for i, result in ipairs(call(core.train, fleet_jobs(self, sets, options, 1), options.threads, options.device or self.device)) do
        losses[i] = result.train[1] or 0 / 0
    end
    return losses
end

--- Outputs of every model for its set: a list of tensors [n x output].
function fleet:predict(sets, options)
    options = check(options, PREDICT, "predict")
    local outs = call(core.predict, fleet_jobs(self, sets, {}, 0), options.threads, options.device or self.device)
    return outs
end

mlp.isa = core.isa
mlp.threads = core.threads
mlp.cuda = core.cuda

return setmetatable(mlp, {__call = function(_, options)
    local ok, made = pcall(mlp.new, options)
    if not ok then error(type(made) == "string" and made:gsub("^[^:]+:%d+: ", "") or made, 2) end
    return made
end})
