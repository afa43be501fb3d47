local helper = require "spec.helper"
local importer = require "neap.importer"
local sensors = require "neap.sensors"
local store_of = require "neap.store"

describe("the store", function()
    local dir, r, store
    setup(function()
        dir = helper.dir()
        r = helper.redis(dir)
    end)
    teardown(function()
        r:close()
        helper.remove(dir)
    end)
    before_each(function()
        r:call "FLUSHALL"
        store = store_of.new(r, {specs = sensors.parse('sensor "known" {}', "s.lua"), most_sensors = 3})
    end)

    local function put(sensor, ...) store:append {order = {sensor}, pairs = {[sensor] = {...}}} end

    it("gives back what was stored, exactly", function()
        put("s", 1700000000000001, 0.1 + 0.2, 1700000000000002, -5, 1700000000000003, 1e300)
        local times, values = store:history "s"
        assert.same({1700000000000001, 1700000000000002, 1700000000000003}, times)
        assert.same({0.1 + 0.2, -5, 1e300}, values)
        assert.equal("integer", math.type(times[1]))
    end)

    it("keeps readings that arrive together in one entry, readable in redis-cli, under a hash-tagged key", function()
        put("s", 1, 20.5, 2, 21)
        assert.equal(1, store:entries "s")
        assert.same({"1", "20.5 21@1"}, r:raw("XRANGE", "neap:{s}:readings", "-", "+")[1][2])
    end)

    it("sorts late readings, and of equal event times the last arrival counts", function()
        put("s", 30, 3)
        put("s", 10, 1, 20, 2)
        put("s", 20, 22)
        local times, values = store:history "s"
        assert.same({10, 20, 30}, times)
        assert.same({1, 22, 3}, values)
        times, values = store:history("s", {last = 2})
        assert.same({{20, 30}, {22, 3}}, {times, values})
        assert.same({{20}, {22}}, {store:history("s", {from_us = 15, to_us = 25})})
        assert.same({30, 3}, {store:latest "s"})
    end)

    it("knows the newest readings by event time, however many late ones arrived after them", function()
        local now = neap.clock() * 1000000 // 1 | 0
        put("late", now - 5, 1, now, 999)
        for i = 1, 300 do put("late", now - 86400000000 + i, i) end
        assert.same({now, 999}, {store:latest "late"})
        assert.same({{now - 5, now}, {1, 999}}, {store:history("late", {last = 2})})
        assert.equal(999, store:pulse({"late"}, 10)[1].value)
        put("late", now - 86400000000, 5)
        assert.equal(999, store:pulse({"late"}, 10)[1].value)
        put("late", now + 1, 1000)
        assert.same({now + 1, 1000}, {store:latest "late"})
        assert.equal(1000, store:pulse({"late"}, 10)[1].value)
        r:call("DEL", "neap:{late}:readings")
        assert.is_nil(store:pulse({"late"}, 10)[1].value)
    end)

    it("reads a history that is late as a whole once, and then its end only", function()
        local now, read = neap.clock() * 1000000 // 1 | 0, 0
        local columns = r.columns
        store.redis = setmetatable({columns = function(_, ...)
            local c = columns(r, ...)
            read = read + c.entries
            return c
        end}, {__index = function(_, name) return function(_, ...) return r[name](r, ...) end end})
        local function put_here(i) store:append {order = {"zone"}, pairs = {zone = {now - 8 * 3600 * 1000000 + i * 1000000, i}}} end
        for i = 1, 2000 do put_here(i) end
        assert.same({2000}, {select(2, store:latest "zone")})
        assert.is_true(read >= 2000)
        for i = 2001, 2300 do
            put_here(i)
            read = 0
            assert.equal(i, select(2, store:latest "zone"))
            assert.is_true(read <= 100, read .. " entries read")
        end
    end)

    it("finds the same newest readings as all of the history has, in whatever order they came", function()
        math.randomseed(11)
        local now, sent = neap.clock() * 1000000 // 1 | 0, 0
        for round = 1, 30 do
            local late = round % 3 > 0 and math.random(1000000000) or 0 -- a device that was offline, or none
            for _ = 1, math.random(40) do
                sent = sent + 1
                put("mixed", now - late + sent, sent, now - late // 2 + sent, -sent)
            end
            local times, values = store:history "mixed"
            for _, last in ipairs {1, 2, 7, 60, 500} do
                local from = math.max(1, #times - last + 1)
                local want = {table.move(times, from, #times, 1, {}), table.move(values, from, #times, 1, {})}
                assert.same(want, {store:history("mixed", {last = last})}, ("round %d, last %d"):format(round, last))
            end
        end
    end)

    it("never lets a device's clock decide about a stream's order", function()
        put("s", 4102444800000000, 1) -- the year 2100
        put("s", 1700000000000000, 2)
        assert.same({1700000000000000, 4102444800000000}, (store:history "s"))
    end)

    it("splits a big batch into entries and reads all of it back", function()
        local pairs = {}
        for i = 1, 1000 do pairs[2 * i - 1], pairs[2 * i] = i, i * 2 end
        put("s", table.unpack(pairs))
        assert.equal(8, store:entries "s")
        local times, values = store:history "s"
        assert.equal(1000, #times)
        assert.equal(2000, values[1000])
        assert.equal(1000, (store:history("s", {last = 1}))[1])
    end)

    it("reads what came after an entry, once", function()
        put("s", 1, 1)
        put("s", 2, 2)
        local before = store:id_before_last "s"
        local times, _, id = store:after("s", before, 10)
        assert.same({2}, times)
        put("s", 0, 0)
        local more
        times, _, id, more = store:after("s", id, 10)
        assert.same({0}, times)
        assert.is_false(more)
        assert.same({}, (store:after("s", id, 10)))
        assert.same({0, 1, 2}, (store:before("s", id, 10)))
        assert.equal("0-0", store:id_before_last "nobody")
    end)

    it("lets sensors register themselves up to a cap, and described ones always", function()
        for i = 1, 3 do
            assert.is_true(store:admit("new" .. i))
            put("new" .. i, 1, 1)
        end
        local may, why = store:admit "new4"
        assert.is_false(may)
        assert.matches("3 sensors already", why)
        assert.is_true(store:admit "new1")
        assert.is_true(store:admit "known")
        assert.same({"new1", "new2", "new3"}, store:sensors())
        assert.is_true(store_of.new(r, {most_sensors = 4}):admit "new4")
    end)

    it("keeps made-up readings apart, and replaces them", function()
        put("s", 1, 1)
        store:replace_synthetic("s", {times = {5, 6}, values = {7, 8}})
        store:replace_synthetic("s", {times = {5}, values = {9}})
        assert.same({1}, (store:history "s"))
        assert.same({{5}, {9}}, {store:history("s", {source = "synthetic"})})
    end)

    it("trims a sensor's history to what its spec keeps", function()
        store = store_of.new(r, {specs = sensors.parse('sensor "s" { keep = 100 }', "s.lua")})
        for i = 1, 1000 do put("s", i, i) end
        assert.is_true(store:entries "s" < 400)
        assert.equal(1000, (store:latest "s"))
    end)

    it("treats names from the network as data", function()
        for _, name in ipairs {"a}b", "{x}", "* ?", "Küche", "a:readings"} do put(name, 1, 1) end
        for _, name in ipairs {"a}b", "{x}", "* ?", "Küche", "a:readings"} do assert.same({1}, (store:history(name))) end
        assert.same({}, (store:history "a"))
        store:forget "{x}"
        assert.same({}, (store:history "{x}"))
    end)

    it("imports a starter kit's lists, oldest first, merging nothing and refusing what is no number", function()
        local function push(name, value, time)
            r:call("LPUSH", "sensor_logs:" .. name,
                ('{"sensor_name":"%s","sensor_output":%s,"timestamp":"%s"}'):format(name, value, time))
        end
        for i = 1, 1500 do push("temperature", i, "2025-03-01T10:00:00+00:00") end
        push("temperature", 1501, "2025-03-01T11:00:00.5+00:00")
        push("humidity", '"NaN"', "2025-03-01T10:00:00+00:00")
        push("humidity", 40, "2025-03-01T10:00:00+00:00")
        local problems = {}
        local count, names = importer.run(store, importer.kit(store, "sensor_logs", function(text) problems[#problems + 1] = text end))
        assert.equal(1502, count)
        assert.same({"humidity", "temperature"}, names)
        assert.equal(1, #problems)
        assert.matches("^sensor_logs:humidity, reading 1: .*NaN", problems[1])
        local times, values = store:history "temperature"
        assert.equal(1501, #times)
        assert.same({1, 2, 1501}, {values[1], values[2], values[1501]})
        assert.equal(1740823200000000, times[1])
        assert.equal(1740823200000001, times[2])
        assert.equal(1740826800500000, times[1501])
        importer.run(store, importer.kit(store, "sensor_logs", function() end)) -- again: nothing is doubled
        assert.equal(1501, #(store:history "temperature"))
    end)
end)
