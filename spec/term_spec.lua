-- The small tools for people at a terminal: term, inspect, args, log.
local term = require "neap.term"
local inspect = require "neap.inspect"
local args = require "neap.args"
local log = require "neap.log"

-- A file that remembers what was written.
local function sheet()
    local self = {text = ""}
    function self.write(_, ...) self.text = self.text .. table.concat{...} return self end
    function self.flush() end
    return self
end

describe("term", function()
    it("counts columns, not bytes", function()
        assert.are.equal(3, term.columns("°C!"))
        assert.are.equal(4, term.columns("温度"))
        assert.are.equal(2, term.columns("\27[31mab\27[0m"))
        assert.are.equal(1, term.columns("e\u{301}"))
        assert.are.equal(2, term.columns("\xff\xfe"))
    end)

    it("clips to columns and pads to columns", function()
        assert.are.equal(5, term.columns(term.clip("温度計温度", 5)) + (term.columns(term.clip("温度計温度", 5)) % 2 == 0 and 1 or 0))
        assert.are.equal("ab", term.clip("ab", 2))
        assert.are.equal("  °", term.pad("°", 3, true))
    end)

    it("paints only where colour is wanted and refuses an unknown style", function()
        assert.are.equal("x", term.paint("x", "red", false))
        assert.are.equal("\27[1;31mx\27[0m", term.paint("x", "bold red", true))
        assert.has_error(function() term.paint("x", "redd", true) end)
    end)

    it("writes one plain line a tenth where there is no terminal", function()
        local out = sheet()
        local bar = term.progress{label = "train", total = 100, out = out, tty = false}
        for i = 1, 100 do bar:update(i, "loss " .. i) end
        bar:done("finished")
        local _, n = out.text:gsub("\n", "")
        assert.are.equal(11, n)
        assert.is_falsy(out.text:find("[\r\27]"))
        assert.is_truthy(out.text:find("train 50/100  loss 50", 1, true))
        assert.is_truthy(out.text:find("finished\n$"))
    end)

    it("redraws one line on a terminal, not for every step, and wipes it at the end", function()
        local out, now = sheet(), 0
        local bar = term.progress{label = "train", total = 1000, out = out, tty = true, width = 60, clock = function() return now end}
        for i = 1, 1000 do
            now = now + 0.001
            bar:update(i)
        end
        local _, drawn = out.text:gsub("\r", "")
        assert.is_true(drawn >= 15 and drawn <= 25)
        assert.is_truthy(out.text:find("100%%"))
        bar:done()
        assert.is_truthy(out.text:find("\r\27%[K$"))
    end)

    it("says durations as people do", function()
        assert.are.equal("0.4 s", term.duration(0.42))
        assert.are.equal("3 min 20 s", term.duration(200))
        assert.are.equal("2 h 05 min", term.duration(7500))
        assert.are.equal("3 d 4 h", term.duration(3 * 86400 + 4 * 3600))
    end)
end)

describe("inspect", function()
    local function reads_back(v) return assert(load("return " .. inspect(v, {items = 1e6, string = 1e6}), "=inspect", "t", {}))() end

    it("writes plain data so that Lua reads it back", function()
        local v = {1, 2.5, -3, 0.1, 1e300, "a\n\"b\"\\\0\27é\xff", true, {x = {y = {}}, ["a b"] = 1, ["end"] = 2, [10] = 3},
            [2^53 | 0] = "big"}
        assert.are.same(v, reads_back(v))
        assert.are.equal("float", math.type(reads_back(3.0)))
        assert.are.equal(0.1 + 0.2, reads_back(0.1 + 0.2))
        assert.are.equal(math.mininteger, math.tointeger(reads_back(math.mininteger)))
    end)

    it("sorts keys and breaks only what is too wide", function()
        assert.are.equal('{1, 2, a = 1, b = {c = "x"}}', inspect{1, 2, b = {c = "x"}, a = 1})
        assert.is_truthy(inspect({("x"):rep(50), ("y"):rep(50)}):find("^{\n  \"x+\",\n  \"y+\"\n}$"))
    end)

    it("ends for cycles, deep and long tables", function()
        local t = {}
        t.self = t
        assert.are.equal("{self = <cycle>}", inspect(t))
        local deep = {}
        for _ = 1, 100 do deep = {deep} end
        assert.is_truthy(inspect(deep):find("{...}", 1, true))
        local long = {}
        for i = 1, 1000 do long[i] = i end
        assert.is_truthy(inspect(long):find("... 940 more", 1, true))
        assert.is_truthy(inspect(("é"):rep(1000)):find(".. 1600 more bytes", 1, true))
    end)

    it("lets a value speak for itself, and survives one that cannot", function()
        assert.are.equal("tensor [2 x 3]", inspect(setmetatable({}, {__tostring = function() return "tensor [2 x 3]" end})))
        assert.is_truthy(inspect(setmetatable({}, {__tostring = function() error("no") end})):find("__tostring failed", 1, true))
        assert.are.equal("{}", inspect(setmetatable({}, {__index = function() error("no") end})))
    end)
end)

describe("args", function()
    local def = {
        name = "neap train", summary = "Train.", positional = {{"sensor"}, {"more", many = true, optional = true}},
        options = {
            {"--epochs", "-e", type = "integer", default = 20, min = 1, help = "passes over the data"},
            {"--rate", type = "number", default = 0.001}, {"--device", choices = {"auto", "cpu", "cuda"}, default = "auto"},
            {"--quiet", "-q", type = "flag"}, {"--colour", type = "flag", default = true}, {"--max-body", type = "bytes"},
            {"--every", type = "duration"}, {"--tag", many = true},
        },
    }
    local function try(...) return args.try(def, {...}) end

    it("fills in defaults and types", function()
        local o = try("oven")
        assert.are.same({sensor = "oven", more = {}, epochs = 20, rate = 0.001, device = "auto", quiet = false, colour = true, tag = {}}, o)
    end)

    it("takes values after a blank, after =, and right after a short name", function()
        local o = try("--epochs", "3", "--rate=0.5", "-q", "oven", "a", "b", "--max-body=2M", "--every", "5m", "--tag", "x", "--tag=y",
            "--no-colour")
        assert.are.same({sensor = "oven", more = {"a", "b"}, epochs = 3, rate = 0.5, device = "auto", quiet = true, colour = false,
            max_body = 2 * 1024 * 1024, every = 300.0, tag = {"x", "y"}}, o)
        assert.are.equal(7, try("-e7", "oven").epochs)
        assert.are.equal("--quiet", try("--", "--quiet").sensor)
    end)

    it("takes a negative number for a value or a word, not for an option", function()
        assert.are.equal(-0.5, try("oven", "--rate", "-0.5").rate)
        assert.are.equal("-5", try("-5").sensor)
    end)

    it("names a mistake and the nearest right name", function()
        for _, case in ipairs{
            {{"oven", "--epocs", "3"}, "unknown option '--epocs', did you mean '--epochs'?"},
            {{"oven", "--epochs", "many"}, "--epochs: expected a whole number, got 'many'"},
            {{"oven", "--epochs", "1.5"}, "--epochs: expected a whole number, got '1.5'"},
            {{"oven", "--epochs", "0"}, "--epochs: 0 is below the minimum, 1"},
            {{"oven", "--epochs"}, "--epochs needs a value: N"},
            {{"oven", "--device", "cdua"}, "--device: 'cdua' is none of auto, cpu, cuda, did you mean 'cuda'?"},
            {{"oven", "--quiet=1"}, "--quiet takes no value"},
            {{}, "missing argument: sensor"},
            {{"oven", "--zzzzzz"}, "unknown option '--zzzzzz'"},
        } do
            local o, why = args.try(def, case[1])
            assert.is_nil(o)
            assert.are.equal(case[2], why)
        end
    end)

    it("explains itself", function()
        local text = args.help(def)
        for _, want in ipairs{"usage: neap train [options] sensor [more...]", "Train.", "--epochs, -e N", "(default 20)",
            "auto|cpu|cuda", "--help, -h"} do
            assert.is_truthy(text:find(want, 1, true), want)
        end
        assert.are.same({nil, "help"}, {nil, select(2, try("--help"))})
    end)

    it("checks option tables of functions", function()
        local function connect(opts) args.check(opts, {"timeout", "retry"}, "redis.connect") end
        connect{timeout = 1}
        local ok, why = pcall(connect, {timout = 1})
        assert.is_false(ok)
        assert.is_truthy(why:find("redis.connect: unknown option 'timout', did you mean 'timeout'?", 1, true))
    end)
end)

describe("log", function()
    local lines, clock
    before_each(function()
        lines, clock = {}, log.clock
        log.clock = function() return 1700000000.25 end
        log.flush()
        log.sink(function(line) lines[#lines + 1] = line end, false)
        log.format "logfmt"
        log.level "info"
    end)
    after_each(function()
        log.flush()
        log.sink(nil)
        log.format(nil)
        log.clock = clock
    end)

    it("never lets a message command the terminal", function()
        for _, format in ipairs {"pretty", "logfmt", "json"} do
            log.format(format)
            log.info("a\27]0;title\7b", {sensor = "c\27[2Jd\r\127", other = "e\xC2\x9B2Jf"})
            local line = lines[#lines]
            assert.is_nil(line:find "[\0-\8\11-\31\127]", line)
            if format == "pretty" then assert.is_nil(line:find "\xC2\x9B", line) end
        end
    end)

    it("writes logfmt with quoted values and sorted fields", function()
        log.info("stored", {sensor = "oven", n = 12, note = 'a "b"\n', s = 0.25})
        assert.are.same({'time=2023-11-14T22:13:20.250Z level=info msg=stored n=12 note="a \\"b\\"\\n" s=0.25 sensor=oven\n'}, lines)
    end)

    it("writes JSON that holds any bytes", function()
        log.format "json"
        log.with{worker = 1}.warn("tab\t\1", {x = 0 / 0, ok = true})
        assert.are.same({'{"time":"2023-11-14T22:13:20.250Z","level":"warn","msg":"tab\\t\\u0001","ok":true,"x":"nan","worker":1}\n'},
            lines)
    end)

    it("keeps levels per module", function()
        local http = log.module "http"
        log.debug("unseen")
        http.debug("unseen too")
        log.level("http", "debug")
        http.debug("seen")
        log.level("http", nil)
        assert.are.equal(1, #lines)
        assert.is_truthy(lines[1]:find("module=http msg=seen", 1, true))
        assert.has_error(function() log.level "loud" end)
    end)

    it("says where an error came from", function()
        log.error("broken")
        assert.is_truthy(lines[1]:find("at=%S*term_spec.lua:%d+"))
    end)

    it("counts repeats instead of writing them", function()
        for _ = 1, 5 do log.warn("again", {n = 1}) end
        log.warn("other")
        assert.are.equal(3, #lines)
        assert.is_truthy(lines[2]:find("msg=again repeated=4", 1, true))
    end)

    it("takes levels as one text", function()
        log.levels "warn,redis=trace"
        assert.are.equal("warn", log.level())
        assert.is_true(log.module("redis").enabled "trace")
        log.level("redis", nil)
    end)
end)
