-- A new version is built aside, and put in force everywhere or nowhere.
local ext = require "neap.ext"
local generation = require "neap.generation"
local log = require "neap.log"
local Reload = require "neap.reload"
local task = require "neap.task"

local dir

local function write(name, text)
    local f = assert(io.open(dir .. "/" .. name, "w"))
    f:write(text)
    f:close()
    return dir .. "/" .. name
end

before_each(function()
    dir = os.tmpname()
    os.remove(dir)
    os.execute("mkdir -p " .. dir .. "/lua")
    log.flush()
    log.sink(function() end)
end)
after_each(function()
    os.execute("rm -rf " .. dir)
    log.flush()
    log.sink(nil)
end)

describe("a generation", function()
    it("has globals and modules of its own", function()
        write("lua/mine.lua", "counter = (counter or 0) + 1 return {value = 1}")
        local app = write("app.lua", "stamp = 'first' local m = require 'mine' assert(m == require 'mine') return m.value .. counter")
        local one = generation.load(app)
        assert.are.equal("11", one.result)
        assert.is_nil(rawget(_G, "stamp"))
        assert.is_nil(package.loaded.mine)
        write("lua/mine.lua", "counter = (counter or 0) + 1 return {value = 2}")
        assert.are.equal("21", generation.load(app).result)
        assert.are.equal("first", one.env.stamp)
        assert.are.same({app, dir .. "/lua/mine.lua"}, one.files)
    end)

    it("shares neap's and rocks' modules with everybody", function()
        local gen = generation.load(write("app.lua", "return {require 'neap.log', require 'neap.task'.sleep, string}"))
        assert.are.equal(log, gen.result[1])
        assert.are.equal(task.sleep, gen.result[2])
        assert.are.equal(string.rep, gen.result[3].rep)
    end)

    it("leaves nothing behind in the libraries that all share", function()
        write("lua/part.lua", "part_was_here = true function string.shout(s) return s:upper() .. '!' end return true")
        local app = write("app.lua", [[
            require "part"
            function string.trim(s) return (s:gsub("^%s+", "")) end
            table.first = function(t) return t[1] end
            package.path = "nowhere/?.lua;" .. package.path
            package.loaded.invented = {1}
            package.preload.promised = function() return {2} end
            load "loaded_was_here = true"()
            neap.mine = 1
            getmetatable("").__name = getmetatable("").__name
            return {("  a"):trim(), table.first {3}, require("invented")[1], loaded_was_here, neap.mine, ("a"):shout(), require("promised")[1]}]])
        local path = package.path
        local gen = generation.load(app)
        assert.same({"a", 3, 1, true, 1, "A!", 2}, gen.result)
        assert.is_nil(rawget(string, "trim"))
        assert.is_nil(rawget(table, "first"))
        assert.is_nil(rawget(_G, "loaded_was_here"))
        assert.is_nil(rawget(_G, "part_was_here"))
        assert.is_nil(neap.mine)
        assert.is_nil(package.loaded.invented or package.preload.promised or package.loaded.part)
        assert.are.equal(path, package.path)
        gen:close()
        gen = nil -- luacheck: ignore 311
        collectgarbage()
        collectgarbage()
        assert.is_nil(("").trim)
        assert.is_nil(("").shout)
    end)

    it("reads rocks in Lua anew, and shares modules in C", function()
        local rocks = dir .. "/rocks"
        os.execute("mkdir -p " .. rocks)
        local before = package.path
        package.path = rocks .. "/?.lua;" .. before
        write("rocks/reload_rock.lua", "rock_global = 1 return {version = 1}")
        local app = write("app.lua", "return {require('reload_rock').version, rock_global, require 'cjson'}")
        local one = generation.load(app).result
        write("rocks/reload_rock.lua", "return {version = 2}")
        local two = generation.load(app).result
        package.path = before
        assert.same({1, 1}, {one[1], one[2]})
        assert.same({2}, {two[1], two[2]})
        assert.are.equal(one[3], two[3])
        assert.is_nil(rawget(_G, "rock_global"))
        assert.is_nil(package.loaded.reload_rock)
    end)

    it("takes its listeners with it", function()
        local worker = require "neap.worker"
        local on = {}
        local real_on, real_off = worker.on, worker.off
        worker.on = function(topic, fn) on[topic] = fn end
        worker.off = function(topic, fn) if on[topic] == fn then on[topic] = nil end end
        local gen = generation.load(write("app.lua", "require 'neap.worker'.on('spec', print) neap.on_signal('USR2', print)"))
        assert.are.equal(print, on.spec)
        gen:close()
        worker.on, worker.off = real_on, real_off
        assert.is_nil(on.spec)
    end)

    it("names file and line of what is wrong", function()
        for text, want in pairs{["return {\n"] = "app.lua:2:", ["local x\nx.y = 1"] = "app.lua:2:",
            ["require 'other'"] = "lua/other.lua:1:",
            ["require 'loop'"] = "requires itself"} do
            write("lua/other.lua", "local t = {,}")
            write("lua/loop.lua", "return require 'loop'")
            local ok, e = pcall(generation.load, write("app.lua", text))
            assert.is_false(ok)
            assert.is_truthy(tostring(e):find(want, 1, true), tostring(e))
        end
    end)

    it("takes the tasks it started with it", function()
        local before = #task.list()
        local gen = generation.load(write("app.lua", [[
            local task = require "neap.task"
            task.spawn(function() task.sleep(600) end)
            task.every(600, function() end)
            task.after(600, function() end)]]))
        assert.are.equal(before + 3, #task.list())
        gen:close()
        for _ = 1, 100 do if #task.list() > before then task.yield() end end
        assert.are.equal(before, #task.list())
        assert.is_false((pcall(generation.load, write("app.lua",
            "require 'neap.task'.spawn(function() require 'neap.task'.sleep(600) end) error 'x'"))))
        for _ = 1, 100 do if #task.list() > before then task.yield() end end
        assert.are.equal(before, #task.list())
    end)

    it("hands on what is kept", function()
        local app = write("app.lua", "local t = neap.keep('spec-kept', function() return {n = 0} end) t.n = t.n + 1 return t.n")
        assert.are.equal(1, generation.load(app).result)
        assert.are.equal(2, generation.load(app).result)
    end)
end)

describe("reload", function()
    local function reloader(app)
        local self
        self = {force = generation.load(app), reload = Reload.new{
            build = function() return generation.load(app) end,
            commit = function(gen) self.force, self.old = gen, self.force end,
            files = function() return self.force.files end,
        }}
        return self
    end

    it("puts a good version in force and keeps the old one when the new one is broken", function()
        local app = write("app.lua", "return 1")
        local server = reloader(app)
        write("app.lua", "return 2")
        assert.is_true((server.reload:now()))
        assert.are.equal(2, server.force.result)
        write("app.lua", "return 3 +")
        local ok, why = server.reload:now()
        assert.is_false(ok)
        assert.is_truthy(why:find("app.lua:1:", 1, true))
        assert.are.equal(2, server.force.result)
        assert.are.equal(why, server.reload.last.error)
        write("app.lua", "return 4")
        assert.is_true((server.reload:now()))
        assert.are.equal(4, server.force.result)
        assert.is_nil(server.reload.last.error)
    end)

    it("happens by itself when a file changes", function()
        local app = write("app.lua", "return require 'part'")
        write("lua/part.lua", "return 1")
        local server = reloader(app)
        local watcher = server.reload:watch()
        task.yield()
        write("lua/part.lua", "return 2")
        for _ = 1, 200 do
            if server.force.result == 2 then break end
            task.sleep(0.05)
        end
        watcher:cancel "over"
        assert.are.equal(2, server.force.result)
    end)

    it("does not grow with the number of reloads", function()
        local app = write("app.lua", "local t = {} for i = 1, 1000 do t[i] = {i} end return t")
        local server = reloader(app)
        for _ = 1, 10 do server.reload:now() end
        server.old = nil
        collectgarbage() collectgarbage()
        local before = collectgarbage "count"
        for _ = 1, 100 do server.reload:now() end
        server.old = nil
        collectgarbage() collectgarbage()
        assert.is_true(collectgarbage "count" < before * 1.05)
    end)

    it("stops the extensions of the old version, or of the new one when it is dropped", function()
        local said = {}
        local version = 1
        package.preload["neap.ext.spec_reload"] = function()
            local mine = version
            return {name = "spec_reload", api = 1, version = tostring(mine), setup = function() said[#said + 1] = "start " .. mine end,
                stop = function() said[#said + 1] = "stop " .. mine end}
        end
        ext.reset()
        neap.use "spec_reload"
        version = 2
        ext.begin()
        neap.use "spec_reload"
        assert.are.equal("1", ext.active()[1].version) -- still the old one
        local commit = ext.finish()
        commit()
        assert.are.equal("2", ext.active()[1].version)
        version = 3
        ext.begin()
        neap.use "spec_reload"
        local _, abort = ext.finish()
        abort()
        assert.are.equal("2", ext.active()[1].version)
        assert.are.same({"start 1", "start 2", "stop 1", "start 3", "stop 3"}, said)
        package.preload["neap.ext.spec_reload"], package.loaded["neap.ext.spec_reload"] = nil, nil
        ext.reset()
    end)
end)
