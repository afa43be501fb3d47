--- neap.plot_svg: a figure (see neap.plot) as a self-contained SVG file: no scripts, no fonts, readable on light and dark pages.
-- Long series are thinned to the extremes of each pixel column, so a year of readings stays a small file and no spike is lost.
local axis = require "neap.plot_axis"

local LIGHT = {green = "#1a7f37", cyan = "#0969da", yellow = "#9a6700", red = "#cf222e", ["bold red"] = "#cf222e", blue = "#0550ae",
               magenta = "#8250df", dim = "#8c959f", grey = "#8c959f", white = "#24292f"}

local function escape(s)
    return (tostring(s):gsub("[&<>\"']", {["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["'"] = "&#39;"}))
end

local function hex(colour) return LIGHT[colour] or LIGHT.green end
local function num(v) return (("%.1f"):format(v):gsub("%.0$", "")) end

-- Runs of finite points as lists of {x, y} in pixels, thinned to first, lowest, highest and last of each pixel column.
local function runs(layer, px, py, keep)
    local out, run, column = {}, nil, nil
    local function flush_column()
        if not column then return end
        local picks = {column.first, column.low, column.high, column.last}
        table.sort(picks, function(a, b) return a.i < b.i end)
        local last
        for _, p in ipairs(picks) do
            if p ~= last then run[#run + 1] = num(p.x) .. "," .. num(p.y) end
            last = p
        end
        column = nil
    end
    local last_x
    for i = 1, #layer.y do
        local x, y = layer.x[i], layer.y[i]
        if x ~= x or y ~= y or (keep and not keep(i)) then
            flush_column()
            run = nil
        else
            if not run or (layer.gap and last_x and x - last_x > layer.gap) then
                flush_column()
                run = {}
                out[#out + 1] = run
            end
            local p = {x = px(x), y = py(y), i = i}
            if column and math.floor(p.x) == math.floor(column.first.x) then
                if p.y < column.low.y then column.low = p end
                if p.y > column.high.y then column.high = p end
                column.last = p
            else
                flush_column()
                column = {first = p, low = p, high = p, last = p}
            end
            last_x = x
        end
    end
    flush_column()
    return out
end

local draw = {}

local function polyline(add, points, colour, width, extra)
    if #points == 1 then
        local x, y = points[1]:match("^(.-),(.+)$")
        add(('<circle cx="%s" cy="%s" r="%s" fill="%s"/>'):format(x, y, 2 * width, colour)) -- a point between two gaps
    else
        add(('<polyline points="%s" fill="none" stroke="%s" stroke-width="%s" stroke-linejoin="round"%s/>'):format(
            table.concat(points, " "), colour, width, extra or ""))
    end
end

function draw.line(add, _, layer, px, py)
    local dash = (layer.role == "forecast" or layer.dash) and ' stroke-dasharray="5 3"' or ""
    for _, run in ipairs(runs(layer, px, py)) do polyline(add, run, hex(layer.colour), 1.4, dash) end
    if not layer.flags then return end
    local function keep(i) return layer.flags[i] or layer.flags[i + 1] end
    for _, run in ipairs(runs(layer, px, py, keep)) do polyline(add, run, hex("red"), 2.2) end
end

function draw.band(add, _, layer, px, py)
    local up, down, shapes = {}, {}, {}
    local function flush()
        for i = #down, 1, -1 do up[#up + 1] = down[i] end
        if #up >= 4 then shapes[#shapes + 1] = table.concat(up, " ") end
        up, down = {}, {}
    end
    local last
    for i = 1, #layer.lo do
        local lo, hi, x = layer.lo[i], layer.hi[i], layer.x[i]
        if lo ~= lo or hi ~= hi then
            flush()
        elseif not last or px(x) - last >= 1 or #up == 0 then
            last = px(x)
            up[#up + 1], down[#down + 1] = num(last) .. "," .. num(py(hi)), num(last) .. "," .. num(py(lo))
        end
    end
    flush()
    for _, points in ipairs(shapes) do add(('<polygon points="%s" fill="%s" fill-opacity="0.18"/>'):format(points, hex(layer.colour))) end
end

function draw.points(add, fig, layer, px, py)
    local drawn = {} -- points of one pixel are one: a million do not make a file of 70 MB
    for i = 1, #layer.y do
        local x, y = layer.x[i], layer.y[i]
        if x == x and y == y and x >= fig.xlim[1] and x <= fig.xlim[2] then
            local at = px(x) // 1 * 10000 + py(y) // 1
            if not drawn[at] then
                add(('<circle cx="%s" cy="%s" r="2" fill="%s" fill-opacity="0.6"/>'):format(num(px(x)), num(py(y)), hex(layer.colour)))
            end
            drawn[at] = true
        end
    end
end

function draw.bars(add, fig, layer, px, py)
    local base = py(math.max(0, fig.ylim[1]))
    for i = 1, #layer.y do
        local x0, x1, y = px(layer.x[i]), px(layer.x[i + 1]), py(layer.y[i])
        add(('<rect x="%s" y="%s" width="%s" height="%s" fill="%s"><title>%s to %s: %s</title></rect>'):format(num(x0), num(y),
            num(math.max(0.5, x1 - x0 - 1)), num(math.max(0, base - y)), hex(layer.colour), axis.label(layer.x[i]),
                axis.label(layer.x[i + 1]),
            axis.label(layer.y[i])))
    end
end

function draw.rule(add, fig, layer, px, _, box)
    if layer.at < fig.xlim[1] or layer.at > fig.xlim[2] then return end
    local x = num(px(layer.at))
    add(('<line x1="%s" x2="%s" y1="%d" y2="%d" stroke="%s" stroke-dasharray="4 3"/>'):format(x, x, box.top, box.bottom, hex(layer.colour)))
end

function draw.diagonal(add, fig, layer, px, py)
    local lo, hi = math.max(fig.xlim[1], fig.ylim[1]), math.min(fig.xlim[2], fig.ylim[2])
    add(('<line x1="%s" y1="%s" x2="%s" y2="%s" stroke="%s" stroke-dasharray="4 3"/>'):format(num(px(lo)), num(py(lo)), num(px(hi)),
        num(py(hi)),
        hex(layer.colour)))
end

local function draw_spans(add, fig, px, box)
    for _, track in ipairs(fig.tracks) do
        for _, span in ipairs(track.spans) do
            local a, b = math.max(box.left, px(span[1])), math.min(box.right, px(span[2]))
            if b >= box.left and a <= box.right then
                local what = escape(track.name) .. (span.name and ": " .. escape(span.name) or "")
                add(('<rect x="%s" y="%d" width="%s" height="%d" fill="%s" fill-opacity="0.14"><title>%s</title></rect>'):format(
                    num(a), box.top, num(math.max(1.5, b - a)), box.bottom - box.top, hex(track.colour), what))
            end
        end
    end
end

local function legend(add, fig, x, y)
    local items = {}
    for _, layer in ipairs(fig.layers) do if layer.name then items[#items + 1] = {layer.name, layer.colour} end end
    for _, track in ipairs(fig.tracks) do items[#items + 1] = {track.name, track.colour} end
    if #items < 2 then return end
    for _, item in ipairs(items) do
        add(('<rect x="%d" y="%d" width="12" height="4" fill="%s"/><text x="%d" y="%d">%s</text>'):format(x, y - 6, hex(item[2]),
            x + 16, y, escape(item[1])))
        x = x + 30 + 7 * (utf8.len(item[1]) or #item[1])
    end
end

--- The figure as the text of an SVG file.
---@param fig table
---@param opts {width: integer?, height: integer?} in pixels
---@return string
local function render(fig, opts)
    local width, height = opts.width or 900, opts.height or 320
    local box = {left = 64, right = width - 16, top = 48, bottom = height - 44}
    local out = {}
    local function add(s) out[#out + 1] = s end
    add(('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img">'):format(width, height, width,
        height))
    add("<style>svg{background:#fff;font:12px system-ui,sans-serif}text{fill:#24292f}.axis{stroke:#d0d7de}.tick{fill:#57606a}"
        .. "@media(prefers-color-scheme:dark){svg{background:#0d1117}text{fill:#e6edf3}.axis{stroke:#30363d}.tick{fill:#8b949e}}</style>")
    if fig.title then add(('<title>%s</title><text x="%d" y="18" font-weight="bold">%s</text>'):format(escape(fig.title), box.left,
        escape(fig.title))) end
    legend(add, fig, box.left, 38)

    local xs = (box.right - box.left) / (fig.xlim[2] - fig.xlim[1])
    local ys = (box.bottom - box.top) / (fig.ylim[2] - fig.ylim[1])
    local function px(x) return box.left + (x - fig.xlim[1]) * xs end
    local function py(y) return math.max(box.top, math.min(box.bottom, box.bottom - (y - fig.ylim[1]) * ys)) end
    for _, tick in ipairs((fig.ylog and axis.logs or axis.numbers)(fig.ylim[1], fig.ylim[2], 5)) do
        local y = num(py(tick.at))
        add(('<line class="axis" x1="%d" x2="%d" y1="%s" y2="%s"/>'):format(box.left, box.right, y, y))
        add(('<text class="tick" x="%d" y="%s" text-anchor="end" dy="4">%s</text>'):format(box.left - 6, y, escape(tick.label)))
    end
    for _, tick in ipairs((fig.xtime and axis.times or axis.numbers)(fig.xlim[1], fig.xlim[2], 8)) do
        local half = 3.5 * (utf8.len(tick.label) or #tick.label) -- no label leaves the picture
        add(('<text class="tick" x="%s" y="%d" text-anchor="middle">%s</text>'):format(
            num(math.max(half + 2, math.min(width - half - 2, px(tick.at)))), box.bottom + 16, escape(tick.label)))
    end
    if fig.ylabel then
        add(('<text class="tick" x="14" y="%d" text-anchor="middle" transform="rotate(-90 14 %d)">%s</text>'):format((box.top + box.bottom) // 2,
            (box.top + box.bottom) // 2, escape(fig.ylabel)))
    end
    draw_spans(add, fig, px, box)
    for _, layer in ipairs(fig.layers) do draw[layer.kind](add, fig, layer, px, py, box) end
    local caption = fig.xlabel or fig.xtime and axis.span(fig.xlim[1], fig.xlim[2]) or ""
    if #fig.notes > 0 then caption = (caption ~= "" and caption .. " · " or "") .. table.concat(fig.notes, " · ") end
    if caption ~= "" then add(('<text class="tick" x="%d" y="%d">%s</text>'):format(box.left, height - 10, escape(caption))) end
    add("</svg>\n")
    return table.concat(out, "\n")
end

return {render = render, escape = escape}
