--- neap.plot: pictures of readings in the terminal (braille and colour, ASCII where that is all there is) and as SVG files.
--
--     local plot = require "neap.plot"
--     print(plot({1, 4, 2, 8, 5, 7}))                                   -- a list or a tensor: a line plot
--     print(plot.line{y = values, x = times, forecast = f, lower = lo, upper = hi, flags = {{t1, t2}}, known = {{t3, t4}}, unit = "°C"})
--     print(plot.spark(values))
--     plot.line{y = values, file = "oven.svg"}                          -- the same picture as a file
--
-- Every function returns text (the name of the file when `file` is given) and prints nothing. NaN, false and nil are gaps.
-- A function here turns its arguments into a *figure*, plain data {title, xlim, ylim, layers, tracks, notes}; plot_text and
-- plot_svg draw figures, so a new kind of plot is one function here and looks right in both.
local axis = require "neap.plot_axis"
local term = require "neap.term"

local plot = {}
local NAN = 0 / 0
local COLOURS = {"green", "cyan", "magenta", "yellow", "blue", "white"}

-- A list of floats out of a list or a tensor; what is no number becomes NaN.
local function numbers(v, what)
    if type(v) == "userdata" or (type(v) == "table" and getmetatable(v) and v.totable) then v = v:totable() end
    if type(v) ~= "table" then error(("%s: expected a list of numbers or a tensor, got %s"):format(what, type(v)), 4) end
    local out, n = {}, math.max(#v, v.n or 0)
    for i = 1, n do
        local x = v[i]
        if type(x) == "table" then x = x[1] end -- a column [n x 1]
        out[i] = type(x) == "number" and x + 0.0 or NAN
    end
    return out
end

local function figure(opts, fields)
    fields.title, fields.xlabel, fields.ylabel = opts.title, opts.xlabel, opts.ylabel or opts.unit
    fields.tracks, fields.notes = fields.tracks or {}, fields.notes or {}
    for _, layer in ipairs(fields.layers) do
        for _, v in ipairs(layer.y or {}) do
            if v - v == 0 then return fields end
        end
    end
    table.insert(fields.notes, 1, "no values to draw")
    return fields
end

-- Draws, and writes the file when one is asked for.
local function finish(fig, opts)
    if not opts.file then return require("neap.plot_text").render(fig, opts) end
    if not opts.file:find("%.svg$") then error(("plot: file '%s': only .svg files can be written"):format(opts.file), 3) end
    local text = require("neap.plot_svg").render(fig, {width = opts.width, height = opts.height})
    local f, why = io.open(opts.file, "w")
    if not f then error(("plot: cannot write %s"):format(why), 3) end
    f:write(text)
    f:close()
    return opts.file
end

-- Spans {{from, to, name=}...} in units of x, from spans, from {from=, to=} records, or from a list of booleans (one a point).
local function spans_of(list, x)
    if not list then return {} end
    local out = {}
    if type(list[1]) == "boolean" then
        local from
        for i = 1, #x + 1 do
            if list[i] and not from then from = i end
            if from and not list[i] then
                out[#out + 1] = {x[from], x[i - 1]}
                from = nil
            end
        end
        return out
    end
    for _, s in ipairs(list) do
        if type(s) == "number" then out[#out + 1] = {s, s} else out[#out + 1] = {s[1] or s.from, s[2] or s.to or s[1] or s.from,
            name = s.name} end
    end
    return out
end

-- For each point: does it lie in a span? Spans need not be sorted.
local function inside(spans, x)
    if #spans == 0 then return nil end
    local flags = {}
    for i = 1, #x do
        for _, s in ipairs(spans) do
            if x[i] >= s[1] and x[i] <= s[2] then flags[i] = true break end
        end
    end
    return flags
end

-- Five times the usual distance between two points is a gap that no line crosses.
local function usual_gap(x)
    local d = {}
    local stride = math.max(1, #x // 2000)
    for i = 2, #x, stride do d[#d + 1] = x[i] - x[i - 1] end
    if #d < 3 then return nil end
    table.sort(d)
    return d[#d // 2 + 1] > 0 and d[#d // 2 + 1] * 5 or nil
end

local function x_of(opts, n, what)
    if opts.x then return numbers(opts.x, what), opts.time ~= false and numbers(opts.x, what)[1] or 0 end
    local x = {}
    for i = 1, n do x[i] = i + 0.0 end
    return x, 0
end

--- A series over time. Fields of opts: y (or series = {{y=, name=}...}), x (seconds since 1970 show as times; default 1, 2, 3...),
--- forecast, lower and upper (the band), flags and known (spans {from, to} in x, or one boolean a point), name, unit, title,
--- xlabel, ylabel, width, height, file, ylim, gap (longest distance in x that a line crosses; found out), colour, unicode, log (y axis).
---@param opts table
---@return string
function plot.line(opts)
    if type(opts) ~= "table" or not (opts.y or opts.series) then
        error("plot.line: give it {y = values} or {series = {{y = values, name = ..}, ..}}", 2) end
    local list = opts.series or {{y = opts.y, name = opts.name}}
    local layers, ys, xs, flagged = {}, {}, {}, {}
    local y1 = numbers(list[1].y, "plot.line")
    local x, first = x_of(opts, #y1, "plot.line")
    local gap = opts.gap or (opts.x and usual_gap(x)) or nil
    local known = spans_of(opts.known, x)
    local function add(layer, ...)
        layers[#layers + 1] = layer
        for _, v in ipairs{...} do ys[#ys + 1] = v end
        xs[#xs + 1] = layer.x
    end
    if opts.lower and opts.upper then
        local lo, hi = numbers(opts.lower, "plot.line"), numbers(opts.upper, "plot.line")
        add({kind = "band", x = x, lo = lo, hi = hi, colour = "blue", name = opts.band_name or "expected range"}, lo, hi)
    end
    if opts.flags then flagged = spans_of(opts.flags, x) end
    for i, s in ipairs(list) do
        local y = i == 1 and y1 or numbers(s.y, "plot.line")
        local sx = s.x and numbers(s.x, "plot.line") or x
        local flags = i == 1 and inside(flagged, sx) or nil
        add({kind = "line", x = sx, y = y, colour = s.colour or COLOURS[(i - 1) % #COLOURS + 1], name = s.name or (#list == 1
            and "measured" or nil), flags = flags, gap = gap, dash = i % 2 == 0}, y)
    end
    if opts.forecast then
        local f = numbers(opts.forecast, "plot.line")
        add({kind = "line", role = "forecast", x = x, y = f, colour = "cyan", name = opts.forecast_name or "forecast", gap = gap}, f)
    end
    if opts.log then
        for _, v in ipairs(ys) do for i = 1, #v do v[i] = v[i] > 0 and math.log(v[i], 10) or NAN end end
    end
    local tracks = {}
    if opts.flags then tracks[#tracks + 1] = {name = opts.flags_name or "flagged", spans = flagged, colour = "red", unicode = "▲",
        ascii = "^"} end
    if opts.known then tracks[#tracks + 1] = {name = opts.known_name or "known", spans = known, colour = "yellow", unicode = "━",
        ascii = "="} end
    local x0, x1 = axis.limits(xs)
    local y0, yy1
    if opts.ylim then y0, yy1 = opts.ylim[1], opts.ylim[2] else y0, yy1 = axis.limits(ys, 0.03) end
    local fig = figure(opts, {xlim = {x0, x1}, ylim = {y0, yy1}, layers = layers, tracks = tracks, ylog = opts.log,
                              xtime = first and first > 1e8 and opts.time ~= false})
    return finish(fig, opts)
end

--- Loss by epoch: plot.loss{train = {...}, validation = {...}, best = 12, why = "no better for 5 epochs"}.
function plot.loss(opts)
    local train = numbers(opts.train or error("plot.loss: give it {train = losses, validation = losses}", 2), "plot.loss")
    local series = {{y = train, name = "training"}}
    if opts.validation and #opts.validation > 0 then series[2] = {y = numbers(opts.validation, "plot.loss"), name = "validation"} end
    local lo, hi = math.huge, 0
    for _, s in ipairs(series) do
        for _, v in ipairs(s.y) do
            if v > 0 and v < lo then lo = v end
            if v > hi then hi = v end
        end
    end
    local log = opts.log
    if log == nil then log = hi > 20 * lo end
    local layers, ys, x = {}, {}, {}
    for i = 1, #train do x[i] = i + 0.0 end
    for i, s in ipairs(series) do
        local y = {}
        for k, v in ipairs(s.y) do y[k] = log and (v > 0 and math.log(v, 10) or NAN) or v end
        layers[i], ys[i] = {kind = "line", x = x, y = y, colour = COLOURS[i], name = s.name, dash = i == 2}, y
    end
    if opts.best then layers[#layers + 1] = {kind = "rule", at = opts.best + 0.0, colour = "yellow", name = "kept: epoch " .. opts.best} end
    local y0, y1 = axis.limits(ys, 0.03)
    local notes = {}
    if opts.why then notes[1] = "stopped here because " .. opts.why end
    return finish(figure({title = opts.title or "loss by epoch", xlabel = "epoch"}, {xlim = {1, math.max(2, #train) + 0.0}, ylim = {y0,
        y1}, ylog = log,
        layers = layers, notes = notes}), opts)
end

--- How often each value occurs: plot.hist(values, {bins=, threshold=, title=, unit=}). The threshold is drawn as a line.
function plot.hist(values, opts)
    opts = opts or {}
    local v = numbers(values, "plot.hist")
    local lo, hi = axis.limits({v})
    if opts.xlim then lo, hi = opts.xlim[1], opts.xlim[2] end
    local bins = opts.bins or math.max(8, math.min(60, math.ceil(2 * (#v > 0 and #v or 1) ^ (1 / 3))))
    local counts, edges, out = {}, {}, 0
    for i = 1, bins do counts[i] = 0.0 end
    for i = 0, bins do edges[i + 1] = lo + (hi - lo) * i / bins end
    for i = 1, #v do
        if v[i] >= lo and v[i] <= hi then
            local b = math.min(bins, math.floor((v[i] - lo) / (hi - lo) * bins) + 1)
            counts[b] = counts[b] + 1
        elseif v[i] == v[i] then
            out = out + 1
        end
    end
    local _, top = axis.limits({counts})
    local layers = {{kind = "bars", x = edges, y = counts, colour = "green", name = opts.name or "readings"}}
    if opts.threshold then layers[2] = {kind = "rule", at = opts.threshold + 0.0, colour = "red", name = opts.threshold_name
        or "threshold"} end
    local notes = {}
    if out > 0 then notes[1] = ("%d values lie outside this range"):format(out) end
    return finish(figure({title = opts.title, xlabel = opts.xlabel or opts.unit, ylabel = opts.ylabel}, {xlim = {lo, hi}, ylim = {0.0, math.max(1, top)},
        layers = layers, notes = notes}), opts)
end

--- Points: plot.scatter{x = actual, y = predicted, diagonal = true}.
function plot.scatter(opts)
    local x, y = numbers(opts.x, "plot.scatter"), numbers(opts.y, "plot.scatter")
    if #x ~= #y then error(("plot.scatter: x has %d values and y %d"):format(#x, #y), 2) end
    local x0, x1 = axis.limits({x}, 0.03)
    local y0, y1 = axis.limits({y}, 0.03)
    local layers = {{kind = "points", x = x, y = y, colour = "green", name = opts.name}}
    if opts.diagonal then table.insert(layers, 1, {kind = "diagonal", colour = "grey"}) end
    return finish(figure(opts, {xlim = {x0, x1}, ylim = {y0, y1}, layers = layers}), opts)
end

--- Bars with names: plot.bars({{"your model", 0.21}, {"repeat the last value", 0.34}}, {unit = "°C", best = "low"}).
--- `best` = "low" or "high" marks the winner.
function plot.bars(rows, opts)
    opts = opts or {}
    if opts.file then error("plot.bars: bars are drawn in the terminal only", 2) end
    local unicode, colour = opts.unicode, opts.colour
    if unicode == nil then unicode = term.unicode() end
    local names, values, top, best = 0, 0, 0, nil
    local shown = {}
    for i, row in ipairs(rows) do
        shown[i] = axis.label(row[2]) .. (opts.unit and " " .. opts.unit or "")
        names, values = math.max(names, term.columns(row[1])), math.max(values, term.columns(shown[i]))
        if row[2] == row[2] then top = math.max(top, math.abs(row[2])) end
        if not best or (opts.best == "low" and row[2] < rows[best][2]) or (opts.best == "high" and row[2] > rows[best][2]) then best = i end
    end
    local room = math.max(8, math.min(opts.width or term.width() - 1, 100) - names - values - 4)
    local out = {}
    if opts.title then out[1] = term.paint(opts.title, "bold", colour) end
    for i, row in ipairs(rows) do
        local cells = top > 0 and row[2] == row[2] and math.abs(row[2]) / top * room or 0
        local whole = math.floor(cells)
        local eighth = math.floor((cells - whole) * 8)
        local bar = unicode and ("█"):rep(whole) .. (eighth > 0 and utf8.char(0x2590 - eighth) or "") or ("#"):rep(math.floor(cells + 0.5))
        local wins = opts.best and i == best
        bar = term.paint(term.pad(bar, room), wins and "green" or "grey", colour)
        out[#out + 1] = term.pad(row[1], names) .. "  " .. bar .. "  " .. term.paint(term.pad(shown[i], values, true), wins and "bold"
            or "", colour)
    end
    return table.concat(out, "\n")
end

local BLOCKS = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"}
local RAMP = {"_", ".", "-", "~", "=", "+", "*", "#"}

--- One line of text: "▁▃▂█▅▇". Longer series are averaged down to `width` (40) columns; a column without a value is blank.
function plot.spark(values, opts)
    opts = opts or {}
    local v = numbers(values, "plot.spark")
    local unicode = opts.unicode
    if unicode == nil then unicode = term.unicode() end
    local width = math.min(opts.width or 40, #v)
    local means = {}
    for c = 1, width do
        local sum, n = 0, 0
        for i = (c - 1) * #v // width + 1, c * #v // width do
            if v[i] == v[i] then sum, n = sum + v[i], n + 1 end
        end
        means[c] = n > 0 and sum / n or NAN
    end
    local lo, hi = axis.limits({means})
    local out = {}
    for c = 1, width do
        local step = means[c] == means[c] and math.min(8, math.floor((means[c] - lo) / (hi - lo) * 8) + 1)
        out[c] = step and (unicode and BLOCKS or RAMP)[step] or " "
    end
    return table.concat(out)
end

-- plot(x): a list or tensor is a line; a table with named fields is what plot.line takes.
local function call(_, v, opts)
    if type(v) == "table" and (v.y or v.series) and not (getmetatable(v) and v.totable) then return plot.line(v) end
    local line = {y = v}
    for k, o in pairs(opts or {}) do line[k] = o end
    return plot.line(line)
end

return setmetatable(plot, {__call = call})
