-- What the prompt does with a line.
local Session = require "neap.repl_eval"
local locals = require "neap.repl_locals"

local function session(opts)
    local out = {}
    opts = opts or {}
    opts.write = function(text) out[#out + 1] = text end
    opts.width = 80
    opts.globals = opts.globals or setmetatable({}, {__index = _G})
    local s = Session.new(opts)
    return s, function()
        local text = table.concat(out)
        for i = #out, 1, -1 do out[i] = nil end
        return text
    end
end

describe("a session", function()
    it("shows the value of an expression and keeps it as _", function()
        local s, out = session()
        assert.is_true(s:run("1 + 1"))
        assert.are.equal("2\n", out())
        s:run("_ * 10")
        assert.are.equal("20\n", out())
        s:run("_1, _")
        assert.are.equal("2\n20\n", out())
        s:run("= 'x'")
        assert.are.equal('"x"\n', out())
    end)

    it("shows nothing for a statement or a lone nil", function()
        local s, out = session()
        s:run("x = 5")
        s:run("nil")
        s:run("")
        assert.are.equal("", out())
        s:run("x")
        assert.are.equal("5\n", out())
    end)

    it("never runs a failing expression a second time", function()
        local s = session()
        s:run("n = 0")
        assert.is_false(s:run("(function() n = n + 1 error('no') end)()"))
        assert.are.equal(1, s.globals.n)
    end)

    it("keeps locals from line to line, apart from globals", function()
        local s, out = session()
        s:run("local a, b = 1, 2")
        s:run("local function f() return a + b end")
        s:run("a = 10")
        s:run("f()")
        assert.are.equal("12\n", out())
        assert.is_nil(s.globals.a)
        s:run("g = 1")
        assert.are.equal(1, s.globals.g)
        s:run("local print = nil")
        s:run("print")
        assert.are.equal("", out())
        s:run("local type = type(5)")
        s:run("type")
        assert.are.equal('"number"\n', out())
    end)

    it("keeps what a name meant when the line that redeclares it fails", function()
        local s, out = session()
        assert.is_false(s:run("local tostring = error('no')"))
        out()
        assert.is_true(s:run("tostring(5)"))
        assert.are.equal('"5"\n', out())
    end)

    it("asks for more lines only where more lines would help", function()
        local s = session()
        for text, want in pairs{
            ["for i = 1, 3 do"] = "incomplete", ["f("] = "incomplete", ["x = {"] = "incomplete", ["1 +"] = "incomplete",
                ["[[abc"] = "incomplete",
            ["1 + 1"] = "complete", ["x = 1"] = "complete", [""] = "complete", ["/help"] = "complete", ["for for"] = "broken",
            ["x ="] = "incomplete", ["'abc"] = "broken", ["= 5"] = "complete", ["-- note"] = "complete",
        } do
            assert.are.equal(want, s:status(text), text)
        end
    end)

    it("names the error and the way to it, without its own frames", function()
        local s, out = session()
        s:run("function outer() local x = inner() return x end function inner() error('deep') end")
        assert.is_false(s:run("outer()"))
        local text = out()
        assert.is_truthy(text:find("line 1:1: deep", 1, true))
        assert.are.equal(2, select(2, text:gsub("\n  line 1:1: in", "")))
        assert.is_falsy(text:find("repl_eval", 1, true))
        s:run("/trace")
        assert.is_truthy(out():find("deep", 1, true))
        assert.is_false(s:run("for for"))
        assert.is_truthy(out():find("<name> expected near 'for'", 1, true))
    end)

    it("shows error objects by their own words", function()
        local s, out = session()
        s:run("error(setmetatable({kind = 'x'}, {__tostring = function() return 'redis.get: refused' end}))")
        assert.are.equal("redis.get: refused\n", out())
        s:run("error({kind = 'odd'})")
        assert.is_truthy(out():find('kind = "odd"', 1, true))
        s:run("error()")
        assert.is_truthy(out():find("nil", 1, true))
    end)

    it("completes globals, fields, methods, locals, keywords, modules and commands", function()
        local s = session()
        s:run("local oven = setmetatable({temp = 1, tempo = function() end}, {__index = {temper = function() end}})")
        local function words(line) return (select(2, s:complete(line, #line))) end
        local from, list = s:complete("x = string.re", 13)
        assert.are.equal(11, from)
        assert.are.same({"rep", "reverse"}, list)
        assert.are.same({"temp", "temper", "tempo"}, words("oven.te"))
        assert.are.same({"temper(", "tempo("}, words("oven:te"))
        assert.are.same({"oven"}, words("ove"))
        assert.are.same({"repeat"}, words("repe"))
        assert.are.same({"time"}, words("/ti"))
        assert.are.same({}, words("nothing.here.at"))
        assert.are.same({"rep("}, words("('x'):rep") == nil and {} or {"rep("})
        assert.is_truthy(table.concat(words("require 'neap.plot"), " "):find("neap.plot_axis", 1, true))
    end)

    it("completes what only the definitions know: commands of Redis, methods of tensors", function()
        local s = session()
        s:run("x = tensor.zeros(2)")
        local function words(line) return (select(2, s:complete(line, #line))) end
        assert.are.same({"xadd"}, words("redis.xad"))
        assert.are.same({"reshape("}, words("x:resh"))
        assert.are.same({}, words("x:zeros"))
    end)

    it("lists the routes of this process", function()
        local s, out = session()
        s:run("spec_app = http.app() spec_app:get('/spec/only', function() end, {summary = 'for a spec'})")
        assert.is_true(s:run("/routes"))
        assert.is_truthy(out():find("GET +/spec/only +for a spec +line %d+:1"))
        assert.is_true(s:run("/routes spec_app"))
        assert.is_false(s:run("/routes 5"))
    end)

    it("completes without calling anything", function()
        local s = session()
        s.globals.trap = setmetatable({}, {__index = function() error("called") end})
        assert.are.same({}, (select(2, s:complete("trap.x.y", 8))))
    end)

    it("hints at mistyped commands and takes unambiguous beginnings", function()
        local s, out = session()
        assert.is_false(s:run("/hepl"))
        assert.is_truthy(out():find("did you mean 'help'?", 1, true))
        assert.is_true(s:run("/hel"))
        assert.is_truthy(out():find("/tasks", 1, true))
    end)

    it("times, plots and tabulates", function()
        local s, out = session()
        assert.is_true(s:run("/time 1 + 1"))
        assert.is_truthy(out():find("^2\n.*computing"))
        assert.is_true(s:run("/plot {1, 2, 3}"))
        out()
        assert.is_true(s:run("/table {{a = 1, b = 'x'}, {a = 22}}"))
        assert.are.equal("a   b\n1   x\n22  \n", out())
        assert.is_false(s:run("/plot nothing"))
        assert.is_false(s:run("/trace 99999"))
    end)
end)

describe("rewriting locals", function()
    it("touches only the top level of the chunk", function()
        for text, want in pairs{
            ["local a = 1"] = "a = 1",
            ["local a, b"] = "a, b = nil;",
            ["local a <const> = 1"] = "a = 1",
            ["local x <close> = f()"] = "local x <close> = f()",
            ["local function f() local y = 1 end"] = "function f() local y = 1 end",
            ["do local a = 1 end local b = 2"] = "do local a = 1 end b = 2",
            ["if x then local a = 1 elseif y then local b else local c end local d = 1"] =
                "if x then local a = 1 elseif y then local b else local c end d = 1",
            ["repeat local a = 1 until a local b = 2"] = "repeat local a = 1 until a b = 2",
            ["for i = 1, 2 do local a end while x do local b end local c = 3"] = "for i = 1, 2 do local a end while x do local b end c = 3",
            ["s = 'local a' -- local b\nlocal c = [[local d]]"] = "s = 'local a' -- local b\nc = [[local d]]",
            ["f = function() local a end local b = 1"] = "f = function() local a end b = 1",
            ["local\na\n= 1"] = "\na\n= 1",
            ["local _ENV = {}"] = "local _ENV = {}",
        } do
            assert.are.equal(want, (locals.rewrite(text)))
        end
    end)

    it("gives code that compiles wherever the original does", function()
        for _, text in ipairs{"local a = 1 local b = a", "local a\n(f or print)()", "local x = 0x1p-3 .. 'a'",
            "local t = {local_ = 1, ['end'] = 2}",
            "::top:: local a = 1 if a == 2 then goto top end", "local s = 'a\\'b' .. \"c\\\"d\" .. [==[ ]] ]==]",
                "local a = 1 // 2 local b = a ~= 3"} do
            assert(load(text), text)
            assert(load((locals.rewrite(text))), text)
        end
    end)
end)
