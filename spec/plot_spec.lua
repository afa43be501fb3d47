-- Plots: what is drawn where. The oracle for braille is a decoder written here from the Unicode chart.
local plot = require "neap.plot"
local axis = require "neap.plot_axis"
local term = require "neap.term"

local PLAIN = {colour = false, unicode = false}
local function with(opts) for k, v in pairs(PLAIN) do if opts[k] == nil then opts[k] = v end end return opts end
local function lines_of(text)
    local out = {}
    for line in (text .. "\n"):gmatch("(.-)\n") do out[#out + 1] = line end
    return out
end

-- The dots of a braille character as a set "x,y" (Unicode numbers the dots 1-3 down the left, 4-6 down the right, 7 and 8 below).
local DOT = {{0, 0}, {0, 1}, {0, 2}, {1, 0}, {1, 1}, {1, 2}, {0, 3}, {1, 3}}
local function dots_of(char)
    local bits, set = utf8.codepoint(char) - 0x2800, {}
    for i, at in ipairs(DOT) do
        if bits & (1 << (i - 1)) ~= 0 then set[at[1] .. "," .. at[2]] = true end
    end
    return set
end

describe("plot", function()
    it("draws a rising line from the bottom left to the top right", function()
        local rows = {}
        for _, line in ipairs(lines_of(plot.line(with{y = {0, 1, 2, 3, 4, 5, 6, 7}, width = 24, height = 8}))) do
            local cells = line:match("[|+](.*)$")
            if cells and not cells:find("^%-+$") then rows[#rows + 1] = cells:find("*", 1, true) end
        end
        assert.is_true(#rows >= 7)
        for i = 2, #rows do assert.is_true(rows[i] < rows[i - 1], "row " .. i) end
    end)

    it("sets exactly the braille dots of a horizontal line", function()
        local text = plot.line{y = {1, 1, 1}, ylim = {0, 2}, width = 20, height = 3, colour = false, unicode = true}
        local found = {}
        for _, c in utf8.codes(text) do
            if c > 0x2800 and c < 0x2900 then found[#found + 1] = dots_of(utf8.char(c)) end
        end
        assert.is_true(#found >= 10)
        local rows = {}
        for _, set in ipairs(found) do
            for at in pairs(set) do rows[at:match(",(%d)")] = true end
        end
        local n = 0
        for _ in pairs(rows) do n = n + 1 end
        assert.are.equal(1, n) -- all dots stand at one height inside their row of characters
    end)

    it("leaves gaps blank and never draws across a hole in time", function()
        local x, y = {}, {}
        for i = 1, 50 do x[i], y[i] = i + (i > 25 and 100 or 0), 1 end
        local text = plot.line(with{x = x, y = y, ylim = {0, 2}, width = 80, height = 5, time = false})
        local row
        for _, line in ipairs(lines_of(text)) do if line:find("%*") then row = line end end
        assert.is_truthy(row:find("%*%s%s%s%s%s%s%s%s%s%s+%*"))
        assert.is_falsy(plot.line(with{y = {1, 0 / 0, 1}, ylim = {0, 2}, width = 40, height = 5}):find("%*%*%*"))
    end)

    it("marks flagged stretches on the line and below it, and known incidents below it", function()
        local y = {}
        for i = 1, 60 do y[i] = i > 30 and i < 40 and 9 or 1 end
        local text = plot.line(with{y = y, flags = {{31, 39}}, known = {{20, 45}}, width = 70, height = 8})
        assert.is_truthy(text:find("!", 1, true))
        local flagged, known = text:match("flagged  ([ ^]*)\n"), text:match("known  ([ =]*)\n")
        local _, n_flagged = flagged:gsub("%^", "")
        local _, n_known = known:gsub("=", "")
        assert.is_true(n_known > 2 * n_flagged and n_flagged >= 8)
        assert.is_true(known:find("=") < flagged:find("%^"))
    end)

    it("shows a flag even when it is shorter than a column", function()
        local y = {}
        for i = 1, 5000 do y[i] = 1 end
        assert.is_truthy(plot.line(with{y = y, flags = {{2500, 2500}}, width = 60, height = 4}):match("flagged +%^"))
    end)

    it("accepts flags as one boolean a point", function()
        local flags = {}
        for i = 1, 20 do flags[i] = i >= 10 and i <= 12 end
        local y = {}
        for i = 1, 20 do y[i] = i % 3 end
        assert.is_truthy(plot.line(with{y = y, flags = flags, width = 50, height = 5}):match("flagged +%^+"))
    end)

    it("draws forecast and band under the measured line and names them", function()
        local y, f, lo, hi = {}, {}, {}, {}
        for i = 1, 100 do y[i], f[i], lo[i], hi[i] = 5, 5, 3, 7 end
        local text = plot.line(with{y = y, forecast = f, lower = lo, upper = hi, ylim = {0, 10}, width = 60, height = 12})
        assert.is_truthy(text:find("expected range", 1, true))
        assert.is_truthy(text:find(":::::", 1, true))
        assert.is_truthy(text:find("*****", 1, true))
        assert.is_falsy(text:find("+++++", 1, true)) -- hidden by the equal measured line
    end)

    it("labels a time axis in UTC", function()
        local x, y = {}, {}
        for i = 1, 100 do x[i], y[i] = 1391385600 + i * 3600, i end
        local text = plot.line(with{x = x, y = y, width = 80, height = 5})
        assert.is_truthy(text:find("04 Feb", 1, true))
        assert.is_truthy(text:find("3 Feb 2014 01:00 to 7 Feb 2014 04:00 UTC", 1, true))
    end)

    it("keeps every line within the width", function()
        local y = {}
        for i = 1, 500 do y[i] = math.sin(i / 9) * 1e6 end
        for _, unicode in ipairs{true, false} do
            for _, line in ipairs(lines_of(plot.line{y = y, width = 60, height = 9, colour = true, unicode = unicode, title = "x"})) do
                assert.is_true(term.columns(line) <= 60, line)
            end
        end
    end)

    it("writes no escape sequence without colour and closes each one with it", function()
        assert.is_falsy(plot.line{y = {1, 2, 3}, colour = false, unicode = true}:find("\27"))
        local text = plot.line{y = {1, 2, 3}, colour = true, unicode = true}
        local _, on = text:gsub("\27%[[1-9][%d;]*m", "")
        local _, off = text:gsub("\27%[0m", "")
        assert.is_true(on > 0)
        assert.are.equal(on, off)
    end)

    it("counts a histogram right", function()
        local text = plot.hist({1, 1, 1, 1, 2, 3, 4, 4}, with{bins = 4, xlim = {1, 5}, width = 46, height = 8, threshold = 3.5})
        assert.is_truthy(text:find("4 +|", 1, true) or text:find("4 +#", 1, true))
        local _, full = text:gsub("#+", "")
        assert.is_true(full >= 8)
        assert.is_truthy(text:find("threshold", 1, true))
        assert.is_truthy(plot.hist({1, 2, 900}, with{xlim = {0, 10}, width = 40}):find("1 values lie outside", 1, true))
    end)

    it("says why training stopped and which epoch was kept", function()
        local text = plot.loss(with{train = {1, .5, .3, .2}, validation = {1, .6, .7, .8}, best = 2, why = "no better for 2 epochs",
            width = 60})
        assert.is_truthy(text:find("stopped here because no better for 2 epochs", 1, true))
        assert.is_truthy(text:find("kept: epoch 2", 1, true))
    end)

    it("compares by bars whose lengths have the ratio of the values", function()
        local text = plot.bars({{"a", 10}, {"b", 5}}, with{width = 60})
        local a, b = text:match("a  (#+)"), text:match("b  (#+)")
        assert.is_true(math.abs(#a / #b - 2) < 0.1)
    end)

    it("draws a sparkline of the right length, with blanks for missing values", function()
        assert.are.equal("▁▄█", (plot.spark({0, 3.4, 7}, {unicode = true})))
        assert.are.equal("_ #", (plot.spark({0, 0 / 0, 7}, PLAIN)))
        local long = {}
        for i = 1, 1000 do long[i] = i end
        assert.are.equal(40, utf8.len(plot.spark(long, {unicode = true})))
    end)

    it("writes an SVG that is well-formed and keeps a single spike in 100,000 points", function()
        local y = {}
        for i = 1, 100000 do y[i] = 0 end
        y[54321] = 100
        local name = os.tmpname() .. ".svg"
        assert.are.equal(name, plot.line{y = y, file = name, title = "a < b & c", flags = {{54000, 55000}}})
        local f = assert(io.open(name))
        local text = f:read("a")
        f:close()
        os.remove(name)
        assert.is_true(#text < 60000)
        assert.is_truthy(text:find("a &lt; b &amp; c", 1, true))
        local open = 0
        for slash, _, self in text:gmatch("<(/?)(%a+)[^>]-(/?)>") do
            if slash == "/" then open = open - 1 elseif self ~= "/" then open = open + 1 end
            assert.is_true(open >= 0)
        end
        assert.are.equal(0, open)
        local top = math.huge
        for _, py in text:gmatch("([%d.]+),([%d.]+)") do top = math.min(top, tonumber(py)) end
        assert.is_true(top < 60) -- the spike reaches the top of the box
    end)

    it("keeps title, names and notes within a narrow terminal", function()
        for _, width in ipairs{16, 24, 40} do
            local text = plot.loss{train = {1, .5, .3}, validation = {1, .6, .7}, best = 2, why = "no better for 2 epochs", width = width,
                title = "a title that is longer than all of it", colour = false, unicode = true}
            for _, line in ipairs(lines_of(text)) do assert.is_true(term.columns(line) <= math.max(width, 24), line) end
        end
    end)

    it("says the unit at the y axis, and that there is nothing to draw", function()
        assert.is_truthy(plot.line(with{y = {1, 2}, unit = "°C", width = 40}):find("°C\n", 1, true))
        assert.is_truthy(plot.line(with{y = {0 / 0}, width = 40}):find("no values to draw", 1, true))
        assert.is_falsy(plot.line(with{y = {0}, width = 40}):find("no values", 1, true))
        local name = os.tmpname() .. ".svg"
        plot.scatter{x = {1, 1, 1, 2}, y = {1, 1, 1, 2}, unit = "bar", file = name}
        local f = assert(io.open(name))
        local text = f:read("a")
        f:close()
        os.remove(name)
        assert.is_truthy(text:find("rotate%(%-90 [^>]*>bar<"))
        assert.are.equal(2, select(2, text:gsub("<circle", ""))) -- three points at one place are one
    end)

    it("tells lines apart without colour: the forecast and a second series are dashed", function()
        local y, low = {}, {}
        for i = 1, 60 do y[i], low[i] = 2, 1 end
        local function dots(text)
            local n = 0
            for _, c in utf8.codes(text) do
                if c > 0x2800 and c < 0x2900 then for _ in pairs(dots_of(utf8.char(c))) do n = n + 1 end end
            end
            return n
        end
        local opts = {ylim = {0, 3}, width = 60, height = 6, colour = false, unicode = true}
        local function drawn(more)
            for k, v in pairs(opts) do more[k] = v end
            return dots(plot.line(more):match("\n(.*)$"))
        end
        local one = drawn{y = y}
        local two = drawn{series = {{y = y}, {y = low}}}
        assert.is_true(two > 1.4 * one and two < 1.6 * one)
    end)

    it("takes a tensor for a list", function()
        local tensor = setmetatable({totable = function() return {1, 2, 3} end}, {})
        assert.are.equal(plot({1, 2, 3}, with{}), plot(tensor, with{}))
    end)

    it("survives empty, constant, infinite and all-NaN input", function()
        for _, y in ipairs{{}, {5}, {5, 5, 5}, {1 / 0, 2, -1 / 0}, {0 / 0, 0 / 0}} do
            assert.is_string(plot(y, with{}))
            assert.is_string(plot.hist(y, with{}))
            assert.is_string(plot.spark(y, PLAIN))
        end
        assert.is_string(plot.scatter(with{x = {}, y = {}}))
    end)

    it("names what it did not understand", function()
        assert.has_error(function() plot.line{} end, nil)
        local ok, why = pcall(plot.line, {y = 5})
        assert.is_false(ok)
        assert.is_truthy(tostring(why):find("expected a list of numbers or a tensor, got number", 1, true))
        ok, why = pcall(plot.line, {y = {1, 2}, file = "x.png"})
        assert.is_false(ok)
        assert.is_truthy(tostring(why):find("only .svg", 1, true))
    end)
end)

describe("plot_axis", function()
    it("puts number ticks at steps of 1, 2 or 5 inside the limits", function()
        for _, case in ipairs{{0, 10, 5}, {-3.7, 12.1, 4}, {0.001, 0.0042, 5}, {1e6, 3e6, 5}, {-1e-9, 1e-9, 4}} do
            local ticks = axis.numbers(case[1], case[2], case[3])
            assert.is_true(#ticks >= 2 and #ticks <= case[3] + 1)
            local step = ticks[2].at - ticks[1].at
            local mantissa = step / 10.0 ^ math.floor(math.log(step, 10) + 1e-9)
            assert.is_true(math.abs(mantissa - 1) < 1e-6 or math.abs(mantissa - 2) < 1e-6 or math.abs(mantissa - 5) < 1e-6)
            for i, tick in ipairs(ticks) do
                assert.is_true(tick.at >= case[1] - step * 1e-6 and tick.at <= case[2] + step * 1e-6)
                if i > 1 then assert.are_not.equal(tick.label, ticks[i - 1].label) end
            end
        end
    end)

    it("puts time ticks at round times", function()
        for _, tick in ipairs(axis.times(1391385600, 1391385600 + 86400 * 5, 6)) do assert.are.equal(0, tick.at % 86400) end
        for _, tick in ipairs(axis.times(1391385600, 1391385600 + 300, 6)) do assert.are.equal(0, tick.at % 60) end
    end)

    it("writes large numbers short", function()
        assert.are.equal("1.5M", axis.label(1.5e6))
        assert.are.equal("0", axis.label(-0.0, 1))
        assert.are.equal("0.25", axis.label(0.25, 0.05))
    end)
end)
