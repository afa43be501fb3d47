--- neap.plot_text: a figure (see neap.plot) as lines of text: braille dots, two by four a character, each character in the colour
-- of the most important thing in it; or, where the terminal knows no UTF-8, one ASCII sign a character.
local axis = require "neap.plot_axis"
local term = require "neap.term"

local BIT = {[0] = {[0] = 0x01, 0x02, 0x04, 0x40}, {[0] = 0x08, 0x10, 0x20, 0x80}} -- BIT[x][y] of a braille character
local RANK = {band = 1, bars = 2, rule = 3, diagonal = 3, forecast = 4, line = 5, points = 6, flag = 7}
local SIGN = {band = ":", bars = "#", rule = "|", diagonal = ".", forecast = "+", line = "*", points = "o", flag = "!"}

local SYMBOL = {band = "⢕⢕", bars = "⣿⣿", rule = "⡇", diagonal = "⠒⠒", forecast = "⠒ ⠒", line = "⠒⠒", points = "⠂⠂"}

local Canvas = {}
Canvas.__index = Canvas

local function canvas(columns, rows, unicode)
    local self = setmetatable({columns = columns, rows = rows, unicode = unicode, sx = unicode and 2 or 1, sy = unicode and 4 or 1}, Canvas)
    self.w, self.h = columns * self.sx, rows * self.sy
    self.bits, self.rank, self.colour, self.sign = {}, {}, {}, {}
    return self
end

-- Sets the dot x, y (0-based, from the left and the top).
function Canvas:dot(x, y, rank, colour, sign)
    if x < 0 or y < 0 or x >= self.w or y >= self.h then return end
    local cell = (y // self.sy) * self.columns + x // self.sx
    if self.unicode then self.bits[cell] = (self.bits[cell] or 0) | BIT[x % 2][y % 4] else self.bits[cell] = 1 end
    if rank >= (self.rank[cell] or 0) then self.rank[cell], self.colour[cell], self.sign[cell] = rank, colour, sign end
end

-- A straight run of dots (Bresenham), or of dashes where there are dots. Far ends are cut first so that a wild value costs nothing.
function Canvas:stroke(x0, y0, x1, y1, rank, colour, sign, dash)
    dash = dash and self.unicode
    y0, y1 = math.max(-9, math.min(self.h + 8, y0)), math.max(-9, math.min(self.h + 8, y1))
    local dx, dy = math.abs(x1 - x0), -math.abs(y1 - y0)
    local step_x, step_y, err = x0 < x1 and 1 or -1, y0 < y1 and 1 or -1, dx + dy
    while true do
        if not dash or x0 // 4 % 2 == 0 then self:dot(x0, y0, rank, colour, sign) end
        if x0 == x1 and y0 == y1 then return end
        local e2 = 2 * err
        if e2 >= dy then err, x0 = err + dy, x0 + step_x end
        if e2 <= dx then err, y0 = err + dx, y0 + step_y end
    end
end

function Canvas:row(r, colour)
    local out = {}
    for c = 0, self.columns - 1 do
        local cell = r * self.columns + c
        local bits = self.bits[cell]
        local char = " "
        if bits then char = self.unicode and utf8.char(0x2800 + bits) or self.sign[cell] end
        out[#out + 1] = bits and term.paint(char, self.colour[cell], colour) or char
    end
    return (table.concat(out):gsub("\27%[0m(\27%[[%d;]+m)", function(set) return "\27[0m" .. set end))
end

-- ---- layers -----------------------------------------------------------------------------------------------------------
local draw = {}

function draw.line(cv, fig, layer, px, py)
    local kind = layer.role == "forecast" and "forecast" or "line"
    local dash = layer.dash or kind == "forecast"
    local last_x, last_y, last_at
    local column, low, high, seen -- what a line has covered of the present column of dots: a million points cost no million strokes
    for i = 1, #layer.y do
        local x, y = layer.x[i], layer.y[i]
        if y ~= y or x ~= x or x < fig.xlim[1] or x > fig.xlim[2] then
            last_x = nil
        else
            local flagged = layer.flags and layer.flags[i]
            local rank, colour, sign = RANK[kind], layer.colour, SIGN[kind]
            if flagged then rank, colour, sign = RANK.flag, "bold red", SIGN.flag end
            local cx, cy = px(x), py(y)
            if last_x and not (layer.gap and x - last_at > layer.gap) then
                if cx ~= column or last_x ~= column or cy < low or cy > high or rank ~= seen then
                    cv:stroke(last_x, last_y, cx, cy, rank, colour, sign, dash)
                end
            else
                cv:dot(cx, cy, rank, colour, sign)
            end
            if cx == column and rank == seen and last_x then
                low, high = math.min(low, cy), math.max(high, cy)
            else
                column, low, high, seen = cx, cy, cy, rank
            end
            last_x, last_y, last_at = cx, cy, x
        end
    end
end

function draw.band(cv, fig, layer, px, py)
    local top, bottom = {}, {} -- per dot column
    for i = 1, #layer.lo do
        local lo, hi, x = layer.lo[i], layer.hi[i], layer.x[i]
        if lo == lo and hi == hi and x >= fig.xlim[1] and x <= fig.xlim[2] then
            local c = px(x)
            local t, b = math.max(0, py(hi)), math.min(cv.h - 1, py(lo))
            top[c], bottom[c] = math.min(top[c] or t, t), math.max(bottom[c] or b, b)
        end
    end
    for c, t in pairs(top) do
        for y = t, bottom[c] do
            if not cv.unicode or (c + y) % 2 == 0 then cv:dot(c, y, RANK.band, layer.colour, SIGN.band) end
        end
    end
end

function draw.points(cv, fig, layer, px, py)
    for i = 1, #layer.y do
        local x, y = layer.x[i], layer.y[i]
        if x == x and y == y and x >= fig.xlim[1] and x <= fig.xlim[2] then cv:dot(px(x), py(y), RANK.points, layer.colour, SIGN.points) end
    end
end

function draw.bars(cv, fig, layer, px, py)
    local base = py(math.max(0, fig.ylim[1]))
    for i = 1, #layer.y do
        if layer.y[i] > 0 then
            local from, to = px(layer.x[i]), px(layer.x[i + 1]) - 1
            for x = from, math.max(from, to) do
                for y = math.min(base, math.max(0, py(layer.y[i]))), base do cv:dot(x, y, RANK.bars, layer.colour, SIGN.bars) end
            end
        end
    end
end

function draw.rule(cv, fig, layer, px)
    if layer.at < fig.xlim[1] or layer.at > fig.xlim[2] then return end
    for y = 0, cv.h - 1 do cv:dot(px(layer.at), y, RANK.rule, layer.colour, SIGN.rule) end
end

function draw.diagonal(cv, fig, layer, px, py)
    local lo, hi = math.max(fig.xlim[1], fig.ylim[1]), math.min(fig.xlim[2], fig.ylim[2])
    cv:stroke(px(lo), py(lo), px(hi), py(hi), RANK.diagonal, layer.colour, SIGN.diagonal)
end

-- ---- around the canvas ------------------------------------------------------------------------------------------------
-- What the layers are, as lines of at most `width` columns.
local function legend(fig, unicode, colour, width)
    local lines, n = {}, 0
    for _, layer in ipairs(fig.layers) do
        if layer.name then
            local kind = layer.kind == "line" and layer.role == "forecast" and "forecast" or layer.kind
            local symbol = unicode and SYMBOL[layer.dash and "forecast" or kind] or SIGN[kind]
            local item = term.paint(symbol, layer.colour, colour) .. " " .. layer.name
            n = n + 1
            if #lines > 0 and term.columns(lines[#lines]) + 3 + term.columns(item) <= width then
                lines[#lines] = lines[#lines] .. "   " .. item
            else
                lines[#lines + 1] = item
            end
        end
    end
    return n > 1 and lines or {}
end

-- One row of marks under the plot: where a span covers any part of a column there is a mark, so that a short one is never lost.
local function track_row(fig, track, columns, unicode, colour)
    local marks, width = {}, fig.xlim[2] - fig.xlim[1]
    local char = unicode and (track.unicode or "▀") or track.ascii or "^"
    for _, span in ipairs(track.spans) do
        local a = math.floor((span[1] - fig.xlim[1]) / width * columns)
        local b = math.floor((span[2] - fig.xlim[1]) / width * columns)
        if b >= 0 and a < columns then
            for c = math.max(0, a), math.min(columns - 1, b) do marks[c] = true end
        end
    end
    local out = {}
    for c = 0, columns - 1 do out[#out + 1] = marks[c] and term.paint(char, track.colour, colour) or " " end
    return (table.concat(out):gsub("%s+$", ""))
end

-- Tick labels under the axis; one that would touch its neighbour is left out. px gives a dot column, left is the margin.
local function tick_row(ticks, px, sx, columns, left)
    local row, at = "", 0
    for _, tick in ipairs(ticks) do
        local width = term.columns(tick.label)
        local start = left + math.floor(px(tick.at) / sx) - width // 2
        start = math.max(0, math.min(start, left + columns - width))
        if at == 0 or start >= at + 2 then
            row = row .. (" "):rep(start - at) .. tick.label
            at = start + width
        end
    end
    return row
end

--- The figure as text, without a newline at the end.
---@param fig table
---@param opts {width: integer?, height: integer?, colour: boolean?, unicode: boolean?}
---@return string
local function render(fig, opts)
    local unicode, colour = opts.unicode, opts.colour
    if unicode == nil then unicode = term.unicode() end
    if colour == nil then colour = term.colour() end
    local rows = math.max(3, opts.height or 12)
    local yticks = (fig.ylog and axis.logs or axis.numbers)(fig.ylim[1], fig.ylim[2], math.max(2, rows // 3))
    local left = 0
    for _, tick in ipairs(yticks) do left = math.max(left, term.columns(tick.label)) end
    for _, track in ipairs(fig.tracks) do left = math.max(left, term.columns(track.name)) end
    local columns = math.max(10, math.min(opts.width or term.width() - 1, 400) - left - 2)
    local cv = canvas(columns, rows, unicode)

    local x0, xs = fig.xlim[1], (cv.w - 1) / (fig.xlim[2] - fig.xlim[1])
    local y1, ys = fig.ylim[2], (cv.h - 1) / (fig.ylim[2] - fig.ylim[1])
    local function px(x) return math.floor((x - x0) * xs + 0.5) end
    local function py(y) return math.floor(math.max(-1e6, math.min(1e6, (y1 - y) * ys)) + 0.5) end
    for _, layer in ipairs(fig.layers) do draw[layer.kind](cv, fig, layer, px, py) end

    local out, labels = {}, {}
    local function dim(s) return term.paint(s, "dim", colour) end
    if fig.title then out[#out + 1] = (" "):rep(left + 2) .. term.paint(term.clip(fig.title, columns), "bold", colour) end
    for _, key in ipairs(legend(fig, unicode, colour, columns)) do out[#out + 1] = (" "):rep(left + 2) .. key end
    if fig.ylabel then out[#out + 1] = dim(term.pad(term.clip(fig.ylabel, left + 2 + columns), left, true)) end
    for _, tick in ipairs(yticks) do labels[py(tick.at) // cv.sy] = tick.label end
    local bar, notch, corner, rule = unicode and "│" or "|", unicode and "┤" or "+", unicode and "└" or "+", unicode and "─" or "-"
    for r = 0, rows - 1 do
        local label = labels[r]
        out[#out + 1] = dim(term.pad(label or "", left, true) .. " " .. (label and notch or bar)) .. (cv:row(r, colour):gsub(" +$", ""))
    end
    out[#out + 1] = dim((" "):rep(left + 1) .. corner .. rule:rep(columns))
    for _, track in ipairs(fig.tracks) do
        out[#out + 1] = term.paint(term.pad(track.name, left, true), track.colour, colour) .. "  " .. track_row(fig, track, columns,
            unicode, colour)
    end
    local xticks = (fig.xtime and axis.times or axis.numbers)(fig.xlim[1], fig.xlim[2], math.max(2, columns // 14))
    out[#out + 1] = dim(tick_row(xticks, px, cv.sx, columns, left + 2))
    local caption = fig.xlabel or fig.xtime and axis.span(fig.xlim[1], fig.xlim[2])
    for _, line in ipairs(caption and term.wrap(caption, columns) or {}) do out[#out + 1] = (" "):rep(left + 2) .. dim(line) end
    for _, note in ipairs(fig.notes) do
        for _, line in ipairs(term.wrap(note, columns)) do out[#out + 1] = (" "):rep(left + 2) .. line end
    end
    return table.concat(out, "\n")
end

return {render = render}
