-- Rollups against a brute-force computation from the history, on a real Redis.
local helper = require "spec.helper"
local process = require "neap.process"
local record = require "neap.rollup_record"
local rollup = require "neap.rollup"
local rollup_store = require "neap.rollup_store"
local sensors = require "neap.sensors"
local store_of = require "neap.store"
local when = require "neap.when"

local SPAN <const> = {60 * 1000000, 3600 * 1000000, 86400 * 1000000}

describe("rollups", function()
    local dir, r, store, spec, now_us
    setup(function()
        dir = helper.dir()
        r = helper.redis(dir)
    end)
    teardown(function()
        r:close()
        helper.remove(dir)
    end)
    local function describe_sensor(keys)
        local specs = sensors.parse(('sensor "s" { %s }'):format(keys or ""), "s.lua")
        store, spec = store_of.new(r, {specs = specs}), specs:get "s"
    end
    before_each(function()
        r:call "FLUSHALL"
        describe_sensor()
        now_us = math.tointeger(neap.clock() // 86400) * 86400 * 1000000
    end)

    local function put(...) store:append {order = {"s"}, pairs = {s = {...}}} end
    local function catch_up() rollup.catch_up(store, "s", spec) end
    local function columns(level, query) return rollup.columns(store, "s", level, query or {}) end

    -- All buckets of a level from readings in order of time.
    local function brute(level, times, values)
        local c = {times = {}, n = {}, min = {}, max = {}, mean = {}, last = {}}
        for i, t in ipairs(times) do
            local start, k = t // SPAN[level] * SPAN[level], #c.times
            if c.times[k] ~= start then
                k = k + 1
                c.times[k], c.n[k], c.min[k], c.max[k], c.mean[k] = start, 0, math.huge, -math.huge, 0
            end
            c.n[k], c.min[k], c.max[k] = c.n[k] + 1, math.min(c.min[k], values[i]), math.max(c.max[k], values[i])
            c.mean[k], c.last[k] = c.mean[k] + values[i], values[i]
        end
        for k, sum in ipairs(c.mean) do c.mean[k] = sum / c.n[k] end
        return c
    end

    -- The values of these specs are quarters, so that sums are exact in any order.
    local function assert_exact(what)
        local times, values = store:history "s"
        for level = 1, 3 do assert.same(brute(level, times, values), columns(level), ("%s, level %d"):format(what or "", level)) end
    end
    local function quarter() return math.random(-400, 400) / 4 end

    it("are exact for readings in order, out of order, late and repeated, in batches of any size", function()
        math.randomseed(7)
        local from, known = now_us - 9 * SPAN[3], {}
        for round = 1, 60 do
            local pairs = {}
            for _ = 1, math.random(1, 150) do
                local t = from + round * 3600 * 1000000 + math.random(0, 7200) * 1000000
                if #known > 0 and math.random() < 0.2 then t = known[math.random(#known)] end -- again, however old
                known[#known + 1] = t
                pairs[#pairs + 1], pairs[#pairs + 2] = t, quarter()
            end
            put(table.unpack(pairs))
            if round % 7 == 0 then
                catch_up()
                assert_exact("round " .. round)
            end
        end
        catch_up()
        assert_exact "end"
    end)

    it("put late readings into an old bucket, and of equal times count the one accepted last", function()
        local at = now_us - 40 * SPAN[3]
        for i = 0, 9 do put(at + i * 6 * 1000000, i) end
        put(now_us, 5)
        catch_up()
        assert.same({at, now_us}, columns(3).times)
        put(at + 15 * 1000000, 100, at + 54 * 1000000, -7) -- between two; and in the place of the bucket's last
        catch_up()
        local c = columns(1)
        assert.same({11, -7, 100, -7}, {c.n[1], c.min[1], c.max[1], c.last[1]})
        assert_exact()
        put(at + 15 * 1000000, 1) -- corrects the highest
        put(now_us, 6)
        catch_up()
        assert.equal(8, columns(3).max[1])
        assert.same({1, 6}, {columns(1).n[2], columns(1).last[2]})
        assert_exact()
    end)

    it("go on where they stopped, and count nothing twice whoever works at once or dies between", function()
        local at = now_us - 2 * SPAN[3]
        for i = 1, 1300 do put(at + i * 10 * 1000000, i / 4) end
        local task = require "neap.task"
        local group = {}
        for i = 1, 3 do group[i] = task.spawn(catch_up) end
        for _, t in ipairs(group) do t:wait() end
        assert_exact "three at once"
        local state = r:hgetall "neap:{s}:rollup"
        for i = 1301, 1400 do put(at + i * 10 * 1000000, i / 4) end
        -- One that read the state before and comes late changes nothing.
        local slow = rollup_store.open(store, "s", {})
        catch_up()
        slow:set(1, at, record.of({at}, {1e9}, 1, 1))
        assert.is_false(slow:commit {position = "9999999999999-0"})
        assert.not_equal(state.position, r:hget("neap:{s}:rollup", "position"))
        store = store_of.new(r, {specs = store.specs})
        catch_up()
        assert_exact "again"
    end)

    it("take what is newer than all of its bucket without reading the stream again", function()
        local at = now_us - SPAN[3]
        for i = 1, 20 do put(at + i * 1000000, i) end
        catch_up()
        for i = 21, 40 do
            put(at + i * 1000000, i)
            catch_up()
        end
        put(at + 40 * 1000000, 40) -- a retry of the last
        rollup.catch_up(store, "s", spec)
        assert.equal(0, r:scard "neap:{s}:rollup:dirty")
        assert_exact()
    end)

    it("outlive the readings, and add what comes later than those are kept", function()
        describe_sensor "keep = 100"
        local at = now_us - 10 * SPAN[3]
        local all_times, all_values = {}, {}
        for i = 1, 2000 do
            all_times[i], all_values[i] = at + i * 60 * 1000000, quarter()
            r:xadd("neap:{s}:readings", {tostring(all_times[i]), tostring(all_values[i])}) -- as the journal does, which does not trim
        end
        catch_up()
        assert.is_true(store:entries "s" < 300)
        for level = 1, 3 do assert.same(brute(level, all_times, all_values), columns(level)) end
        local c = columns(1, {last = 2000})
        assert.equal(1, c.n[1])
        put(c.times[1] + 30 * 1000000, 1000, c.times[2] - 1, -1000)
        put(all_times[1] + 20 * 1000000, 500)
        catch_up()
        c = columns(1)
        assert.same({4, -1000, 1000, -1000}, {c.n[1], c.min[1], c.max[1], c.last[1]})
        assert.same(columns(3).n[1], brute(3, all_times, all_values).n[1] + 3)
    end)

    it("never trim a reading that is not rolled up, and trim by time of arrival", function()
        describe_sensor "keep = 100"
        for i = 1, 1500 do r:xadd("neap:{s}:readings", {tostring(now_us - i * 1000000), "1"}) end
        local view = rollup_store.open(store, "s", rollup_store.horizon({false, false, false}, neap.clock()))
        assert.equal(-1, view:trim_readings(100))
        assert.equal(1500, store:entries "s")
        r:del "neap:{s}:readings"
        describe_sensor 'keep_for = "30 days"'
        local old_ms = math.tointeger(neap.clock() * 1000 // 1) - 40 * 86400000
        for i = 1, 500 do r:xadd("neap:{s}:readings", {tostring(now_us - i * 1000000), "1"}, {id = (old_ms + i) .. "-0"}) end
        for i = 1, 50 do r:xadd("neap:{s}:readings", {tostring(now_us + i), "2"}) end
        catch_up()
        assert.is_true(store:entries "s" < 250) -- whole nodes of the stream go
        assert.equal(550, columns(3).n[1] + (columns(3).n[2] or 0))
    end)

    it("are kept for as long as the spec says, a late reading goes to the finest level that reaches back", function()
        local at = now_us - 20 * SPAN[3]
        for i = 0, 20 * 24 do put(at + i * SPAN[2], i) end
        catch_up()
        assert.equal(481, #columns(1).times)
        describe_sensor 'keep_minutes = "2 days", keep_hours = "10 days"'
        catch_up()
        local cut = math.tointeger((neap.clock() - 2 * 86400) // 3600) * SPAN[2]
        assert.is_true(columns(1).times[1] >= cut)
        assert.is_true(columns(2).times[1] >= now_us - 15 * SPAN[3] and columns(2).times[1] <= now_us - 9 * SPAN[3])
        assert.same({at, 24}, {columns(3).times[1], columns(3).n[1]})
        local before = #columns(1).times
        local late = now_us - 5 * SPAN[3] -- minutes are gone, hours are there
        put(late + 5, 1000, late + 5, 2000, late + 4, -1000)
        put(at + 7, 3000, at + 7, 4000) -- only days are there
        catch_up()
        put(late + 5, 2000, at + 7, 4000) -- again
        catch_up()
        assert.equal(before, #columns(1).times)
        local c = columns(2, {from_us = late, to_us = late})
        assert.same({{late}, {3}, {-1000}, {2000}, {2000}}, {c.times, c.n, c.min, c.max, c.last})
        c = columns(3)
        assert.same({25, 4000}, {c.n[1], c.max[1]})
        local times, values = store:history "s"
        assert.same(brute(3, times, values), c)
        describe_sensor 'keep_days = "30 days", keep_hours = "10 days", keep_minutes = "2 days"'
        put(at - 400 * SPAN[3], 1)
        catch_up()
        assert.equal(at, columns(3).times[1] // SPAN[3] * SPAN[3])
    end)

    it("answer for a span of time and for the newest buckets, and are forgotten with their sensor", function()
        local at = now_us - 3 * SPAN[3]
        for i = 0, 299 do put(at + i * SPAN[1], i) end
        catch_up()
        assert.same({at + 298 * SPAN[1], at + 299 * SPAN[1]}, columns(1, {last = 2}).times)
        assert.same({at + 60 * SPAN[1], at + 61 * SPAN[1]}, columns(1, {from_us = at + 60 * SPAN[1] + 5, to_us = at + 61 * SPAN[1]}).times)
        assert.same({}, columns(1, {from_us = at - 10, to_us = at - 5}).times[2] or {})
        assert.is_true(#r:keys "neap:{s}:*" > 5)
        store:forget "s"
        assert.same({}, r:keys "neap:{s}:*")
    end)

    it("sum up a run of readings as one by one, and end it where times stop rising or the bucket ends", function()
        local times, values = {10, 20, 30, 30, 5, 40, 50}, {3, -1.5, 2, 7, 8, 9, 10}
        for _, case in ipairs {{1, 100, 3}, {1, 25, 2}, {4, 100, 4}, {5, 100, 7}, {5, 50, 6}, {7, 1, 7}} do
            local first, stop, last = table.unpack(case)
            local t, v = table.move(times, first, last, 1, {}), table.move(values, first, last, 1, {})
            local sum, got = record.run(times, values, first, stop, 5, 6)
            assert.equal(last, got)
            assert.same(record.of(t, v, 5, 6), sum)
        end
        assert.error_matches(function() record.run({}, {}, 1, 10, 0, 0) end, "no such reading")
    end)

    it("stay compact, and give a mean even where the sum is beyond all numbers", function()
        local many = record.of({10, 20}, {1e308, 1.5e308}, 1795459200000, 12)
        assert.is_true(#record.pack(many, 0) <= 64)
        assert.same(many, record.unpack(record.pack(many, 0), 0))
        assert.equal(1.25e308, record.mean(many))
        local one = record.of({86399999999}, {-0.1}, 1, 2)
        assert.same(one, record.unpack(record.pack(one, 0), 0))
    end)

    it("are written out by neap export, without a server too", function()
        local file = helper.write(dir .. "/in.csv", "timestamp,value\n2026-11-01T00:00:10Z,2\n2026-11-01T00:00:20Z,4\n2026-11-01T01:00:00Z,-1\n")
        local data = dir .. "/data"
        local said, code = process.run {helper.program(), "import", file, "--sensor", "oven", "--data", data}
        assert.equal(0, code, said)
        said, code = process.run {helper.program(), "export", "oven", "--step", "1h", "--data", data}
        assert.equal(0, code, said)
        assert.equal("timestamp,n,min,max,mean,last\n2026-11-01T00:00:00Z,2,2,4,3,4\n2026-11-01T01:00:00Z,1,-1,-1,-1,-1\n", said)
        said = process.run {helper.program(), "export", "oven", "--step", "1d", "--data", data, "--format", "line"}
        assert.equal("oven n=3i,min=-1,max=4,mean=1.6666666666666667,last=-1 1793491200000000000\n", said)
        said, code = process.run {helper.program(), "export", "oven", "--step", "5m", "--data", data}
        assert.equal(2, code)
        assert.matches("a step is 1m, 1h or 1d", said)
        assert.equal(1793491200000000, (when.parse "2026-11-01"))
    end)
end)
