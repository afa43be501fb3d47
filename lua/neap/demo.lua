--- The demonstration behind `neap demo` and `make demo`; each step is a function of a few lines.
--
-- Honest by construction: the watch sees every reading once, in order, and knows only what came before; labels are opened when
-- all is scored; the model is measured on readings that its training never saw.

local csv = require "neap.csv"
local http = require "neap.http"
local json = require "neap.json"
local live = require "neap.live"
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

local function plural(n, word) return ("%d %s%s"):format(n, word, n == 1 and "" or "s") end

-- ---- what is shown ----

--- The recording that travels with neap, written where the CSV reader can open it.
local function own_recording(dir)
    for _, name in ipairs {"machine.csv", "labels.json"} do
        local f = assert(io.open(dir .. "/" .. name, "w"))
        f:write((assert(neap.asset("scripts/demo/" .. name), name .. " is not in this neap")))
        f:close()
    end
    return dir .. "/machine.csv", dir .. "/labels.json"
end

--- Every series of a file, each in order of time: {name =, readings = {...}}.
local function read_file(path)
    local by_name, all = {}, {}
    for reading, problem in csv.readings(path) do
        if not reading then
            io.stderr:write("  ", problem, "\n")
        else
            local series = by_name[reading.sensor]
            if not series then
                series = {name = reading.sensor, readings = {}}
                by_name[reading.sensor], all[#all + 1] = series, series
            end
            series.readings[#series.readings + 1] = reading
        end
    end
    for _, series in ipairs(all) do table.sort(series.readings, function(a, b) return a.time_us < b.time_us end) end
    return all
end

--- What the demonstration is about: the named series, else those that have labels, else the first.
local function choose(path, labels, wanted)
    local all, chosen = read_file(path), {}
    for _, series in ipairs(all) do
        local ok, incidents = pcall(review.labels, labels or "", #all == 1 and path or series.name)
        series.incidents = labels and ok and incidents or {}
        if wanted and series.name == wanted or not wanted and (#all == 1 or labels and ok) then chosen[#chosen + 1] = series end
    end
    if #chosen == 0 and not wanted then chosen[1] = all[1] end
    if #chosen == 0 then error(("%s has no readings%s"):format(path, wanted and " of '" .. wanted .. "'" or ""), 0) end
    table.sort(chosen, function(a, b) return #a.incidents > #b.incidents or #a.incidents == #b.incidents and a.name < b.name end)
    return chosen
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
    local server = process.spawn {program(), "serve", "--listen", "127.0.0.1:0", "--data", dir .. "/data", "--name", "demo",
        stdout = "pipe", stderr = "file", path = dir .. "/serve.log"}
    local url
    repeat
        local line = server:line(20)
        if not line then
            local f = io.open(dir .. "/serve.log")
            error("the server did not start: " .. (f and f:read "a" or "it said nothing"), 0)
        end
        if not line:find("  try", 1, true) then io.write("  ", line, "\n") end
        url = url or line:match "(http://%S+)"
    until line:find("  try", 1, true)
    return server, url
end

--- All readings of the chosen series in order of time, as devices would send them. Returns how many were accepted.
local function post_all(url, chosen)
    local list = {}
    for _, series in ipairs(chosen) do table.move(series.readings, 1, #series.readings, #list + 1, list) end
    table.sort(list, function(a, b) return a.time_us < b.time_us or a.time_us == b.time_us and a.sensor < b.sensor end)
    local bar = term.progress {label = "posting", total = #list}
    local sent, started = 0, task.now()
    for from = 1, #list, BATCH do
        local items = json.array {}
        for i = from, math.min(#list, from + BATCH - 1) do
            items[#items + 1] = {sensor_name = list[i].sensor, sensor_output = list[i].value, timestamp = when.iso(list[i].time_us)}
        end
        local response = http.request {method = "POST", url = url .. "/receive", json = items, timeout = 30}
        if response.status ~= 200 then error(("POST /receive answered %d: %s"):format(response.status, response.body), 0) end
        sent = sent + #response:json().data
        bar:update(sent)
    end
    bar:done(("posted   %d readings in %s, %.0f a second, each batch on disk before its 200"):format(sent,
        plural(math.ceil(#list / BATCH), "request"), sent / (task.now() - started)))
    -- Everything is on disk; Redis takes it from the journal, usually before the answer, under load a moment later.
    local deadline = task.now() + 10
    while task.now() < deadline do
        local journal = http.get(url .. "/health"):json().journal
        if not journal or journal.behind == 0 then break end
        task.sleep(0.05)
    end
    return sent
end

--- A network for one series; nil and why when there is nothing to learn.
local function train_on(series, spec, epochs)
    local bar = term.progress {label = "training " .. series.name, total = epochs}
    local result, why = train.run(series.times, series.values, spec, {
        epochs = epochs,
        on_epoch = function(e, best)
            bar:update(e.epoch, ("loss %.5f, validation %.5f, best at %d"):format(e.loss, e.validation, best))
        end,
    })
    if not result then
        bar:done(("trained  %s: no model, because %s"):format(series.name, why))
        return nil
    end
    local r = result.report
    bar:done(("trained  %s: %s on %d windows, best at %d"):format(series.name, plural(r.epochs, "epoch"), #result.data.parts.train, r.best_epoch))
    return result
end

--- The server looks at its clock every two seconds; here the clock is the recording's, and only a gap is worth a look.
local function pass_time(watch, from_us, to_us, usual)
    if not from_us or (to_us - from_us) / 1e6 < 5 * usual then return end
    for k = 1, 50 do watch:tick(from_us + (to_us - from_us) * k // 50) end
end

--- Every reading in order through the six detectors. The budget of false alarms is the sensor's, or two for the whole
--- recording where that is more: nobody waits a week for a demonstration.
local function score(series, spec)
    local n = #series.times
    local span = (series.times[n] - series.times[1]) / 1e6
    local budget = math.max(spec.false_alarms, 2 * 604800 / span)
    local watch = live.new {spec = setmetatable({false_alarms = budget}, {__index = spec})}
    local bar, started = term.progress {label = "scoring " .. series.name, total = n}, task.now()
    series.forecast = {}
    for i = 1, n do
        pass_time(watch, series.times[i - 1], series.times[i], span / n)
        local verdict = watch:push(series.times[i], series.values[i])
        series.forecast[i] = verdict and verdict.forecast or 0 / 0
        if i % 500 == 0 then bar:update(i) end
    end
    series.stretches = watch.stretches
    series.allowed = budget * span / 604800
    bar:done(("scored   %s: each reading from those before it alone, %.0f us a reading, %s flagged"):format(series.name,
        (task.now() - started) / n * 1e6, plural(#series.stretches, "stretch"):gsub("stretchs", "stretches")))
    watch:close()
end

-- ---- the summary ----

local function show_series(series, spec)
    heading(("'%s', its forecast, and what was flagged"):format(series.name))
    local x, flags, known = {}, {}, {}
    for i, t in ipairs(series.times) do x[i] = t / 1e6 end
    for i, s in ipairs(series.stretches) do flags[i] = {s.from_us / 1e6, s.to_us / 1e6} end
    for i, k in ipairs(series.incidents) do known[i] = {k[1] / 1e6, k[2] / 1e6} end
    io.write(plot.line {x = x, y = series.values, forecast = series.forecast, flags = flags, known = known, name = series.name,
        unit = spec.unit ~= "" and spec.unit or nil, width = math.min(100, term.width())}, "\n")
end

local function show_model(series, spec)
    local r, rows = series.result.report, {}
    heading(("The model of '%s' against forecasts that cost nothing"):format(series.name))
    rows[1] = {"your model", r.rmse}
    for _, naive in ipairs(r.naive) do rows[#rows + 1] = {naive.name, naive.rmse} end
    io.write(plot.bars(rows, {unit = spec.unit ~= "" and spec.unit or nil, best = "low"}), "\n")
    io.write(("  error (RMSE) on %d newer readings that training never saw: %s\n"):format(r.test_readings, r.verdict))
end

local function show_incidents(series)
    for i, incident in ipairs(series.incidents) do
        local first = series.compared.first[i]
        local mark = first and term.paint("found ", "green") or term.paint("missed", "red")
        local after = first and (first - incident[1]) / 1e6
        io.write(("  %s  %-12s %s to %s  %s%s\n"):format(mark, series.name, when.short(incident[1]), when.short(incident[2]),
            incident[3] or "known incident", not first and "" or after > 0 and ", flagged after " .. when.human(after)
            or ", while an alert was raised already"))
    end
    for _, s in ipairs(series.compared.false_alarms) do
        io.write(("  %s  %-12s %s  %s: %s\n"):format(term.paint("alarm ", "yellow"), series.name, when.short(s.from_us), s.why, s.text or ""))
    end
end

local function summary(chosen, labelled, sent, seconds)
    heading "Summary"
    local found, known, alarms, allowed, span = 0, 0, 0, 0, 0
    for _, s in ipairs(chosen) do
        found, known = found + #s.compared.found, known + #s.incidents
        alarms, allowed = alarms + #s.compared.false_alarms, allowed + s.allowed
        span = math.max(span, (s.times[#s.times] - s.times[1]) / 1e6)
        local r = s.result and s.result.report
        if r then
            io.write(("  %-14s model %.4g, \"%s\" %.4g: %s\n"):format(s.name, r.rmse, r.naive.best.name, r.naive.best.rmse,
                r.skill > 0 and ("%.0f %% better"):format(r.skill * 100) or "no better, so it is not used"))
        end
    end
    local kept = 0
    for _, s in ipairs(chosen) do kept = kept + #s.times end
    io.write(("  %d readings in, %d in the history%s; %.0f s in all\n"):format(sent, kept,
        sent > kept and (" (%d had the same time as another, the later one counts)"):format(sent - kept) or "", seconds))
    local of = #chosen > 1 and (" on %d sensors"):format(#chosen) or ""
    if labelled then
        io.write(("  %s\n"):format(term.paint(("%d of %d known incidents found, %s in %s%s (budget: %.0f)"):format(found, known,
            plural(alarms, "false alarm"), when.human(span), of, allowed), "bold")))
    else
        io.write(("  %s flagged in %s%s; there are no labels to compare them with\n"):format(plural(alarms, "stretch"):gsub("stretchs",
            "stretches"), when.human(span), of))
    end
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
    local chosen = choose(path, labels, opt.sensor)
    local first = chosen[1].readings
    io.write(("%s: %s, %s to %s\n"):format(opt.data or "a recording of a real machine, with incidents provoked on purpose",
        plural(#chosen, "sensor"), when.iso(first[1].time_us), when.iso(first[#first].time_us)))

    heading "A server, and readings in"
    local server <close>, url = serve(dir) -- luacheck: ignore 211
    local sent = post_all(url, chosen)

    heading "Learning and watching, from what Redis holds now"
    local here <close> = session.open {data = dir .. "/data"}
    for _, series in ipairs(chosen) do
        series.times, series.values = here.store:history(series.name)
        local spec = here.specs:get(series.name)
        series.result = train_on(series, spec, opt.epochs)
        score(series, spec)
        series.compared = review.compare(series.stretches, series.incidents)
    end

    local main = chosen[1] -- the picture is of the sensor that can be forecast best
    for _, series in ipairs(chosen) do
        local best, skill = main.result and main.result.report.skill or -1, series.result and series.result.report.skill or -1
        if skill > best then main = series end
    end
    show_series(main, here.specs:get(main.name))
    if main.result then show_model(main, here.specs:get(main.name)) end
    heading "Incidents"
    for _, series in ipairs(chosen) do show_incidents(series) end
    summary(chosen, labels ~= nil, sent, task.now() - started)
end

return demo
