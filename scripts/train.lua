-- neap train: teach a network to forecast one sensor, and say honestly whether it can.
local args = require "neap.args"
local modelcard = require "neap.modelcard"
local models = require "neap.models"
local plot = require "neap.plot"
local session = require "neap.session"
local synth = require "neap.synth"
local task = require "neap.task"
local term = require "neap.term"
local train = require "neap.train"

local defaults = train.DEFAULTS
local opt = args.parse {
    name = "neap train",
    summary = "Learn to forecast a sensor's next reading from the ones before it, compare the result with forecasts that cost nothing,\n"
        .. "and put it to work in `neap serve` if it is better than they are.",
    positional = {{"sensor", key = "positional_sensor", optional = true, help = "which sensor (default temperature)"}},
    options = session.options {
        {"--sensor", key = "named_sensor", value = "NAME", help = "the same, for those who like to name it"},
        {"--all", type = "flag", help = "every sensor that has readings, side by side"},
        {"--bootstrap", type = "flag", help = "make up readings for all described sensors first, and train on those"},
        {"--white", type = "flag", help = "with --bootstrap: independent noise, as the starter kit made it"},
        {"--samples", type = "integer", min = 2, default = 256, help = "with --bootstrap: readings per sensor"},
        {"--window-size", type = "integer", min = 2, max = 1024, help = "readings the model looks back on (default: the sensor's spec, 16)"},
        {"--sequence-length", type = "integer", min = 2, default = 100000, help = "use at most so many of the newest readings"},
        {"--epochs", type = "integer", min = 1, default = defaults.epochs, help = "at most so many passes; it stops by itself when it gets no better"},
        {"--patience", type = "integer", min = 0, default = defaults.patience, help = "stop after so many epochs without improvement; 0 never stops"},
        {"--batch-size", type = "integer", min = 1, default = defaults.batch, help = "windows in a step"},
        {"--learning-rate", type = "number", min = 0, default = defaults.learning_rate, help = "size of a step"},
        {"--weight-decay", type = "number", min = 0, default = defaults.weight_decay, help = "pull of the weights towards zero"},
        {"--seed", type = "integer", default = defaults.seed, help = "of the first weights; the same seed gives the same model"},
        {"--device", choices = {"auto", "cpu", "cuda"}, default = "auto", help = "where to compute"},
        {"--checkpoint", value = "PATH", help = "also save the model here (folders are made)"},
        {"--no-plot", type = "flag", help = "no loss curve"},
    },
    example = "neap train --bootstrap --samples 512\nneap train --sensor temperature --epochs 20 --checkpoint checkpoints/temp.pt",
}

local sensor = opt.named_sensor or opt.positional_sensor or "temperature"
if opt.named_sensor and opt.positional_sensor and opt.named_sensor ~= opt.positional_sensor then
    args.refuse("neap train", ("two sensors are named, '%s' and '%s'; train one at a time, or --all"):format(opt.positional_sensor, opt.named_sensor))
end

local function bootstrap(here)
    print(("[bootstrap] Generating %d readings per sensor…"):format(opt.samples))
    local now_us = math.floor(neap.clock()) * 1000000
    local made = table.move(here.specs.list, 1, #here.specs.list, 1, {})
    if not here.specs:has(sensor) then made[#made + 1] = here.specs:get(sensor) end
    for _, spec in ipairs(made) do
        here.store:replace_synthetic(spec.name, synth.series(spec, {count = opt.samples, end_us = now_us, seed = opt.seed,
            kind = opt.white and "white" or nil}))
    end
end

--- The history to learn from, and whether it is made up.
local function history(here, name)
    local store = here.store
    local source = (opt.bootstrap or not store:has(name, "real")) and "synthetic" or "real"
    if opt.bootstrap and store:has(name, "real") then
        print(("note: '%s' also has real readings; leave --bootstrap out to train on those"):format(name))
    elseif source == "synthetic" and store:has(name, "synthetic") then
        print(("note: '%s' has no real readings yet; training on SYNTHETIC ones"):format(name))
    end
    local times, values = store:history(name, {last = opt.sequence_length, source = source})
    return times, values, source
end

--- One line an epoch where nobody watches; a bar on a terminal.
local function reporter()
    if not term.tty() then
        return function(e) print(("Epoch %d/%d - loss: %.6f - validation: %.6f"):format(e.epoch, opt.epochs, e.loss, e.validation)) end,
            function() end
    end
    local bar = term.progress {label = "training", total = opt.epochs}
    return function(e, best)
        bar:update(e.epoch, ("loss %.4f, validation %.4f, best at %d"):format(e.loss, e.validation, best))
    end, function() bar:done() end
end

local function loss_curve(result)
    if opt.no_plot or #result.history < 2 then return end
    local losses, validations = {}, {}
    for i, e in ipairs(result.history) do losses[i], validations[i] = e.loss, e.validation end
    local r = result.report
    io.write(plot.loss {train = losses, validation = validations, best = r.best_epoch,
        why = r.epochs < opt.epochs and ("no better for %d epochs"):format(opt.patience) or "all epochs done"}, "\n")
end

local function settings_of()
    return {
        window = opt.window_size, epochs = opt.epochs, patience = opt.patience, batch = opt.batch_size, learning_rate = opt.learning_rate,
        weight_decay = opt.weight_decay, seed = opt.seed, device = opt.device ~= "auto" and opt.device or nil,
    }
end

--- Every sensor at once, a line each.
local function train_all(here)
    local names, jobs = here.store:sensors(), {}
    if #names == 0 then error("there are no sensors yet; post some readings, or try --bootstrap", 0) end
    for i, name in ipairs(names) do
        local source = here.store:has(name, "real") and "real" or "synthetic"
        local times, values = here.store:history(name, {last = opt.sequence_length, source = source})
        jobs[i] = {times = times, values = values, spec = here.specs:get(name), synthetic = source == "synthetic"}
    end
    local started, used = task.now(), 0
    for i, result in ipairs(train.fleet(jobs, settings_of())) do
        local said = result.why
        if result.report then
            local path, kept_back = models.promote(here, result)
            used = used + (path and 1 or 0)
            said = result.report.verdict .. (path and "" or kept_back ~= result.report.verdict and ("; not put to use: " .. kept_back) or "")
        end
        print(("%-24s %s"):format(names[i], said))
    end
    print(("%d of %d sensors have a model in use now, %.1f s"):format(used, #names, task.now() - started))
end

local function train_one(here, name)
    local times, values, source = history(here, name)
    local on_epoch, done = reporter()
    local settings = settings_of()
    settings.on_epoch, settings.synthetic = on_epoch, source == "synthetic"
    local result, why = train.run(times, values, here.specs:get(name), settings)
    done()
    if not result then error(("%s: %s"):format(name, why), 0) end
    loss_curve(result)
    print(modelcard.text(result.card))
    if opt.checkpoint then
        models.write(result.model, result.card, opt.checkpoint)
        print("Saved checkpoint to " .. opt.checkpoint)
    end
    local path, kept_back = models.promote(here, result)
    print(path and "In use from now on: " .. path
        or "Not put to use" .. (kept_back ~= result.report.verdict and ": " .. kept_back or ", because of the verdict above"))
end

session.run("neap train", opt, function(here)
    if opt.bootstrap then bootstrap(here) end
    print("Using device: " .. (opt.device == "cuda" and "cuda" or "cpu"))
    if opt.all then train_all(here) else train_one(here, sensor) end
end)
