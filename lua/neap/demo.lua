--- The demonstration behind `neap demo` and `make demo`; each step is a function of a few lines.

local alarm = require "neap.alarm"
local csv = require "neap.csv"
local detector = require "neap.detector"
local http = require "neap.http"
local json = require "neap.json"
local plot = require "neap.plot"
local process = require "neap.process"
local review = require "neap.review"
local session = require "neap.session"
local task = require "neap.task"
local term = require "neap.term"
local train = require "neap.train"
local when = require "neap.when"

local demo = {}

local BATCH <const> = 500 -- readings a POST

local function heading(text) io.write("\n", term.paint(text, "bold"), "\n") end

-- ---- what is shown ----

--- The recording that travels with neap, written where the CSV reader can open it.
local function own_recording(dir)
    for _, name in ipairs {"machine.csv", "labels.json"} do
        local f = assert(io.open(dir .. "/" .. name, "w"))
        f:write(assert(neap.asset("scripts/demo/" .. name), name .. " is not in this neap"))
        f:close()
    end
    return dir .. "/machine.csv", dir .. "/labels.json"
end

--- The readings of one series, in order of time. Without a name: the file's only one, or the first.
local function read_series(path, wanted)
    local by_sensor, order = {}, {}
    for reading, problem in csv.readings(path) do
        if not reading then
            io.stderr:write("  ", problem, "\n")
        else
            local list = by_sensor[reading.sensor]
            if not list then
                list = {}
                by_sensor[reading.sensor], order[#order + 1] = list, reading.sensor
            end
            list[#list + 1] = reading
        end
    end
    local name = wanted or order[1]
    if not name or not by_sensor[name] then
        error(("%s has no readings%s; it has %s"):format(path, wanted and " of '" .. wanted .. "'" or "", table.concat(order, ", ")), 0)
    end
    table.sort(by_sensor[name], function(a, b) return a.time_us < b.time_us end)
    return name, by_sensor[name]
end

-- ---- the steps ----

--- The program that runs this.
local function program()
    local lowest = 0
    while arg[lowest - 1] do lowest = lowest - 1 end
    return lowest < 0 and arg[lowest] or "neap"
end

--- A real server as a child process, and its address.
local function serve(dir)
    local server = process.spawn {program(), "serve", "--listen", "127.0.0.1:0", "--data", dir .. "/data",
        stdout = "pipe", stderr = "file", path = dir .. "/serve.log"}
    local url
    repeat
        local line = server:line(20)
        if not line then
            local f = io.open(dir .. "/serve.log")
            error("the server did not start: " .. (f and f:read "a" or "it said nothing"), 0)
        end
        io.write("  ", line, "\n")
        url = url or line:match "(http://%S+)"
    until line:find("  try", 1, true)
    return server, url
end

local function post_all(url, name, list)
    local bar = term.progress {label = "posting", total = #list}
    local sent, started = 0, task.now()
    for from = 1, #list, BATCH do
        local items = json.array {}
        for i = from, math.min(#list, from + BATCH - 1) do
            items[#items + 1] = {sensor_name = name, sensor_output = list[i].value, timestamp = when.iso(list[i].time_us)}
        end
        local response = http.request {method = "POST", url = url .. "/receive", json = items, timeout = 30}
        if response.status ~= 200 then error(("POST /receive answered %d: %s"):format(response.status, response.body), 0) end
        sent = sent + #response:json().data
        bar:update(sent)
    end
    local seconds = task.now() - started
    bar:done(("%d readings of '%s' posted in %d requests, %.0f a second, each safe on disk before its 200"):format(sent, name,
        math.ceil(#list / BATCH), sent / seconds))
    return sent
end

local function train_on(here, name, epochs)
    local times, values = here.store:history(name)
    local bar = term.progress {label = "training", total = epochs}
    local result, why = train.run(times, values, here.specs:get(name), {
        epochs = epochs,
        on_epoch = function(e, best) bar:update(e.epoch, ("loss %.5f, validation %.5f, best at %d"):format(e.loss, e.validation, best)) end,
    })
    if not result then
        bar:done("no model: " .. why)
        return nil, times, values
    end
    local r = result.report
    bar:done(("trained for %d epochs, best at %d; %d windows of %d readings"):format(r.epochs, r.best_epoch, #result.data.parts.train,
        result.data.window))
    return result, times, values
end

--- Every reading through the online detector: forecasts, and the stretches that it flags.
local function score_all(times, values)
    local watch, seen = detector.new(), alarm.new()
    local bar = term.progress {label = "scoring", total = #times}
    local forecasts, lower, upper, started = {}, {}, {}, task.now()
    for i = 1, #times do
        local v = watch:update(times[i] / 1e6, values[i])
        forecasts[i], lower[i], upper[i] = v.forecast or 0 / 0, v.lower or 0 / 0, v.upper or 0 / 0
        seen:update(times[i], v.flagged and 0 or v.p and math.max(v.p, seen.raise) or nil, v.why, v.flagged)
        if i % 500 == 0 then bar:update(i) end
    end
    bar:done(("%d readings scored, each from those before it alone, %.0f us a reading"):format(#times,
        (task.now() - started) / #times * 1e6))
    local stretches = table.move(seen.stretches, 1, #seen.stretches, 1, {})
    stretches[#stretches + 1] = seen.open
    return stretches, {forecast = forecasts, lower = lower, upper = upper}
end

-- ---- the summary ----

local function tell_model(result, unit)
    heading "The model against forecasts that cost nothing"
    local r, rows = result.report, {}
    rows[1] = {"your model", r.rmse}
    for _, naive in ipairs(r.naive) do rows[#rows + 1] = {naive.name, naive.rmse} end
    io.write(plot.bars(rows, {unit = unit ~= "" and unit or nil, best = "low"}), "\n")
    io.write(("  error (RMSE) on %d newer readings that training never saw: %s\n"):format(r.test_readings, r.verdict))
end

local function tell_incidents(compared, incidents, stretches)
    heading "Incidents"
    if #incidents == 0 then
        io.write(("  %d stretches flagged; there are no labels to compare them with\n"):format(#stretches))
    end
    for i, incident in ipairs(incidents) do
        local first = compared.first[i]
        local mark = first and term.paint("found ", "green") or term.paint("missed", "red")
        io.write(("  %s  %s to %s  %s%s\n"):format(mark, when.short(incident[1]), when.short(incident[2]), incident[3] or "known incident",
            first and (", flagged after " .. when.human((first - incident[1]) / 1e6)) or ""))
    end
    for _, s in ipairs(compared.false_alarms) do
        io.write(("  %s  %s  %s\n"):format(term.paint("alarm ", "yellow"), when.short(s.from_us), detector.reasons[s.why] or s.why or ""))
    end
end

local function tell_all(name, unit, times, values, shown, stretches, incidents)
    heading(("'%s', its forecast, and what was flagged"):format(name))
    local x, flags, known = {}, {}, {}
    for i, t in ipairs(times) do x[i] = t / 1e6 end
    for i, s in ipairs(stretches) do flags[i] = {s.from_us / 1e6, s.to_us / 1e6} end
    for i, k in ipairs(incidents) do known[i] = {k[1] / 1e6, k[2] / 1e6} end
    io.write(plot.line {x = x, y = values, forecast = shown.forecast, flags = flags, known = known, name = name, unit = unit,
        width = math.min(100, term.width())}, "\n")
end

--- ARGS: the parsed command line of `neap demo`.
---@param opt table
function demo.run(opt)
    local started = task.now()
    local dir = os.tmpname()
    os.remove(dir)
    assert(os.execute(("mkdir -m 700 '%s'"):format(dir)))
    local cleanup <close> = setmetatable({}, {__close = function() os.execute(("rm -rf '%s'"):format(dir)) end}) -- luacheck: ignore 211

    local path, labels = opt.data, opt.labels
    if not path then path, labels = own_recording(dir) end
    local name, list = read_series(path, opt.sensor)
    local incidents = {}
    if labels then incidents = review.labels(labels, opt.data and path or name) end
    io.write(("%s: %d readings of '%s', %s to %s, %d known incident%s\n"):format(opt.data or "a recording of a real machine", #list, name,
        when.iso(list[1].time_us), when.iso(list[#list].time_us), #incidents, #incidents == 1 and "" or "s"))

    heading "Serving"
    local server <close>, url = serve(dir) -- luacheck: ignore 211

    heading "Readings in, a network trained, every reading scored"
    local sent = post_all(url, name, list)
    local here <close> = session.open {data = dir .. "/data"}
    local unit = here.specs:get(name).unit
    local result, times, values = train_on(here, name, opt.epochs)
    local stretches, shown = score_all(times, values)
    local compared = review.compare(stretches, incidents)

    tell_all(name, unit, times, values, shown, stretches, incidents)
    if result then tell_model(result, unit) end
    tell_incidents(compared, incidents, stretches)

    heading "Summary"
    io.write(("  %d readings in, %d in the history, %.0f s in all\n"):format(sent, #times, task.now() - started))
    if result then
        io.write(("  model %.4g against %.4g for \"%s\"\n"):format(result.report.rmse, result.report.naive.best.rmse,
            result.report.naive.best.name))
    end
    if #incidents > 0 then
        io.write(("  %d of %d known incidents found, %d false alarm%s in %s\n"):format(#compared.found, #incidents, #compared.false_alarms,
            #compared.false_alarms == 1 and "" or "s", when.human((times[#times] - times[1]) / 1e6)))
    end
end

return demo
