--- The training loop, and an honest account of what came out of it.
--
--     local result = train.run(times, values, spec, {epochs = 40, on_epoch = print})
--     result.model:forecast(...)       result.report.skill --> 0.31: errors 31 % smaller than the best naive forecast's
--
-- The loop below is meant to be read and changed: a model is trained on the oldest part of the history, the next part says
-- when to stop (the best weights are kept), the third calibrates the scores, and the newest one, which nothing has seen, is
-- where the model is compared with forecasts that cost nothing.

local baseline = require "neap.baseline"
local conformal = require "neap.conformal"
local dataset = require "neap.dataset"
local forecaster = require "neap.forecaster"
local json = require "neap.json"
local mlp = require "neap.mlp"
local when = require "neap.when"

local train = {}

train.DEFAULTS = {
    epochs = 40, batch = 64, learning_rate = 1e-3, weight_decay = 1e-4, -- the starter kit's, but for 10 epochs
    hidden = {64, 32}, loss = "huber", patience = 5, seed = 1,
}

--- Train until the validation loss has not improved for `patience` epochs; the model ends with its best weights.
--- RETURN: the history {epoch, loss, validation} and the best epoch.
---@param model any from neap.forecaster
---@param parts table<string, integer[]>
---@param opts table
function train.loop(model, parts, opts)
    local history, best, best_epoch = {}, math.huge, 0
    for epoch = 1, opts.epochs do
        local loss = model:epoch(parts.train, opts.batch)
        local validation = model:loss(parts.val)
        history[epoch] = {epoch = epoch, loss = loss, validation = validation}
        if validation < best then
            best, best_epoch = validation, epoch
            model:keep() -- remember these weights
        end
        if opts.on_epoch then opts.on_epoch(history[epoch], best_epoch) end
        if loss ~= loss then error("the training loss is not a number any more; a smaller --learning-rate helps", 0) end
        if opts.patience > 0 and epoch - best_epoch >= opts.patience then break end
    end
    model:restore()
    return history, best_epoch
end

--- Errors (reading minus forecast) on the windows that start at `starts`, in the sensor's unit.
local function errors_of(model, data, starts)
    local forecasts = model:forecasts(starts)
    local errors = {}
    for i, start in ipairs(starts) do errors[i] = data.series[start + data.window] - forecasts[i] end
    return errors
end

--- What may be said about the result, in words. `promote` tells whether the model is worth using.
---@return string verdict
---@return boolean promote
local function verdict_of(report)
    local naive = report.naive.best
    if report.skill > 0.02 then
        return ("the model's errors are %.0f %% smaller than those of \"%s\""):format(report.skill * 100, naive.name), true
    end
    if naive.name == "mean of the training data" then
        return ("this sensor looks like pure noise: no model can forecast it, and the best forecast is its mean, %.6g"):format(report.mean),
            false
    end
    if report.skill > 0 then
        return ("the model is hardly better than \"%s\" (%.1f %%)"):format(naive.name, report.skill * 100), true
    end
    return ("the model does not beat \"%s\", which costs nothing: it is not used"):format(naive.name), false
end

--- Measure a trained model on the part that nothing has seen.
local function report_of(model, data, calibration, history, best_epoch)
    local errors = errors_of(model, data, data.parts.test)
    local rmse, mae = baseline.error_of(errors)
    local naive = baseline.measure(data, data.parts.test)
    local alarms = 0
    for _, e in ipairs(errors) do if calibration and calibration:p(math.abs(e)) < 0.01 then alarms = alarms + 1 end end
    local report = {
        rmse = rmse, mae = mae, naive = naive, mean = data.train_mean,
        skill = naive.best.rmse > 0 and 1 - rmse / naive.best.rmse or 0,
        test_readings = #errors, surprises_at_1_percent = alarms / #errors,
        epochs = #history, best_epoch = best_epoch,
    }
    report.verdict, report.promote = verdict_of(report)
    return report
end

--- Errors for the model's file: the newest 2,000, with the digits that matter.
local function calibration_of(errors)
    local list = json.array {}
    for i = math.max(1, #errors - 1999), #errors do list[#list + 1] = tonumber(("%.5g"):format(errors[i])) end
    return list
end

---@class neap.train.Result
---@field model any
---@field data neap.Dataset
---@field calibration any
---@field history table[]
---@field report table
---@field card table plain data for the model file and the model card

--- The data set of a history and an untrained model for it, or nil and why.
local function prepare(times, values, spec, opts)
    local data, why = dataset.build(times, values, {
        window = opts.window or spec.window, interval = spec.interval, period = spec.period, minimum = spec.minimum, maximum = spec.maximum,
    })
    if not data then return nil, why end
    return data, forecaster.new(data, opts)
end

--- Calibrate and measure a trained model, and write down what there is to know about it.
local function finish(model, data, spec, opts, history, best_epoch)
    local errors = errors_of(model, data, data.parts.cal)
    local calibration = conformal.fit(errors)
    local report = report_of(model, data, calibration, history, best_epoch)

    local health = data.health
    local card = {
        format = 1, sensor = spec.name, unit = spec.unit, synthetic = opts.synthetic or false,
        trained_at = when.iso(math.floor(neap.clock()) * 1000000), neap = neap.version,
        window = data.window, interval = data.interval, seasons = json.array(data.seasons), scaler = data.scaler,
        settings = {epochs = opts.epochs, batch = opts.batch, learning_rate = opts.learning_rate, weight_decay = opts.weight_decay,
            hidden = json.array(opts.hidden), loss = opts.loss, seed = opts.seed},
        history = {readings = health.readings, from = when.iso(health.from_us), to = when.iso(health.to_us), gaps = health.gaps,
            filled = health.filled, out_of_range = health.out_of_range},
        metrics = {rmse = report.rmse, mae = report.mae, skill = report.skill, best_naive = report.naive.best.name,
            best_naive_rmse = report.naive.best.rmse, test_readings = report.test_readings,
            surprises_at_1_percent = report.surprises_at_1_percent, epochs = report.epochs, best_epoch = best_epoch},
        verdict = report.verdict, promoted = report.promote, calibration = calibration_of(errors),
    }
    return {model = model, data = data, calibration = calibration, history = history, report = report, card = card}
end

--- ARGS: a history, its sensor spec, options (train.DEFAULTS; window, on_epoch, on_data, device). RETURN: a result, or nil and why.
---@param times integer[]
---@param values number[]
---@param spec neap.SensorSpec
---@param opts? table
---@return neap.train.Result?
---@return string? why
function train.run(times, values, spec, opts)
    opts = setmetatable(opts or {}, {__index = train.DEFAULTS})
    local data, model = prepare(times, values, spec, opts)
    if not data then return nil, model end
    if opts.on_data then opts.on_data(data) end
    local history, best_epoch = train.loop(model, data.parts, opts)
    return finish(model, data, spec, opts, history, best_epoch)
end

---@class neap.train.Job
---@field times integer[]
---@field values number[]
---@field spec neap.SensorSpec
---@field synthetic? boolean

--- Many sensors in one call: their networks learn side by side on all processors (or one GPU), each with its own early stopping,
--- and each comes out with the same bits as if trained alone. RETURN: for each job a result, or {why = ...}.
---@param jobs neap.train.Job[]
---@param opts? table as for train.run; on_epoch is not called
---@return table[]
function train.fleet(jobs, opts)
    opts = setmetatable(opts or {}, {__index = train.DEFAULTS})
    local results, groups = {}, {}
    for i, job in ipairs(jobs) do
        local data, model = prepare(job.times, job.values, job.spec, opts)
        if not data then
            results[i] = {why = model}
        else -- networks of one fleet are of one shape
            local inputs = data.window + 2 * #data.seasons
            groups[inputs] = groups[inputs] or {}
            table.insert(groups[inputs], {i = i, job = job, data = data, model = model})
        end
    end
    for _, group in pairs(groups) do
        local models, sets, checks = {}, {}, {}
        for k, one in ipairs(group) do
            models[k], sets[k], checks[k] = one.model.mlp, one.model:set(one.data.parts.train), one.model:set(one.data.parts.val)
        end
        local trained = mlp.fleet({models = models, device = opts.device}):fit(sets, {
            val = checks, epochs = opts.epochs, patience = opts.patience, batch = opts.batch,
        })
        for k, one in ipairs(group) do
            local history = {}
            for epoch = 1, trained[k].epochs do
                history[epoch] = {epoch = epoch, loss = trained[k].train[epoch], validation = trained[k].val[epoch]}
            end
            local settings = setmetatable({synthetic = one.job.synthetic}, {__index = opts})
            results[one.i] = finish(one.model, one.data, one.job.spec, settings, history, trained[k].best)
        end
    end
    return results
end

return train
