local ingest = require "neap.ingest"
local sensors = require "neap.sensors"

local NOW = 1795459200000000

local function is_array(t) return getmetatable(t) == "array" or t.array == true end

local function context(more)
    local tick = NOW
    local c = {
        specs = sensors.parse([[
            sensor "t" { minimum = 0, maximum = 100 }
            sensor "strict" { clock = "reject" }
            sensor "odd" { clock = "trust" }
            sensor "raw" { scale = 0.1, offset = -40 }]], "s.lua"),
        now_us = NOW, is_array = is_array,
        stamp = function() tick = tick + 1; return tick end,
    }
    for k, v in pairs(more or {}) do c[k] = v end
    return c
end

local function read(value, more) return ingest.read(value, context(more)) end
local function array(t) return t end

describe("ingest", function()
    it("takes the starter kit's array and echoes it", function()
        local result = read { { sensor_name = "t", sensor_output = 12.5, extra = "ignored" },
            { sensor_name = "h", sensor_output = "40" } }
        assert.equal(2, #result.accepted)
        local status, body = ingest.answer(result, array)
        assert.equal(200, status)
        assert.same({ status = "success",
            data = { { sensor_name = "t", sensor_output = 12.5 }, { sensor_name = "h", sensor_output = 40 } } }, body)
    end)

    it("keeps good items, and names each bad one with its place and reason", function()
        local result = read {
            { sensor_name = "t", sensor_output = 1 }, { sensor_name = "t", sensor_output = "abc" }, { sensor_name = "t" },
            "text", { sensor_name = "t", sensor_output = 0 / 0 },
            { sensor_name = 5, sensor_output = 1 }, { sensor_name = "t", sensor_output = 2 },
        }
        assert.equal(2, #result.accepted)
        local status, body = ingest.answer(result, array)
        assert.equal(200, status)
        assert.equal("partial", body.status)
        assert.matches("^4 of 7 items refused, the others are stored; item 2: 'abc' is not a number", body.error)
        local places = {}
        for _, one in ipairs(body.errors) do places[#places + 1] = one.index end
        assert.same({ 2, 4, 5, 6, 3 }, places)
    end)

    it("answers 400 when nothing could be kept, and 200 with no data when items were only incomplete", function()
        local status, body = ingest.answer(read { { sensor_name = "t", sensor_output = "abc" } }, array)
        assert.equal(400, status)
        assert.equal("error", body.status)
        assert.matches("^Couldn't process request. Error: item 1", body.error)
        status, body = ingest.answer(read { { sensor_name = "t" }, { sensor_output = 3 } }, array)
        assert.equal(200, status)
        assert.equal("success", body.status)
        assert.same({}, body.data)
        assert.equal(2, #body.errors)
    end)

    it("reads numbers as Python's float() does, without its NaN, infinity and what Lua alone would take", function()
        for text, value in pairs { ["12.5"] = 12.5, [" 7 "] = 7, ["1e3"] = 1000, ["-.5"] = -0.5, ["5."] = 5, ["+3"] = 3 } do
            assert.equal(value, ingest.number(text), text)
        end
        assert.equal(1, ingest.number(true))
        assert.equal(0, ingest.number(false))
        for _, bad in ipairs { "nan", "inf", "0x10", "", "1e", "1 2", "--1", "1e999" } do
            assert.is_nil((ingest.number(bad)), bad)
        end
        assert.is_nil((ingest.number({})))
        assert.is_nil((ingest.number(math.huge)))
    end)

    it("takes one object, a flat object, and values with a common time", function()
        assert.equal(5, read({ sensor_name = "t", sensor_output = 5 }).accepted[1].value)
        local flat = read({ humidity = 40, temperature = "21.5", note = "hello" }).accepted
        assert.same({ "humidity", "temperature" }, { flat[1].sensor, flat[2].sensor })
        local timed = read({ ts = 1700000000000, values = { a = 1, b = 2 } }).accepted
        assert.equal(1700000000000000, timed[1].time_us)
        assert.is_true(timed[2].timed)
    end)

    it("knows no other shape", function()
        for _, value in ipairs { 5, "text", true, {}, { text = "x" } } do assert.is_nil(read(value)) end
        assert.same({}, read({ array = true }).accepted)
    end)

    it("keeps a device's time, whatever its unit, and gives untimed readings unique increasing ones", function()
        local r = read({
            { sensor_name = "a", sensor_output = 1, timestamp = 1700000000 },
            { sensor_name = "a", sensor_output = 1, timestamp = "2023-11-14T22:13:20Z" },
            { sensor_name = "a", sensor_output = 1, ts = 1700000000000 },
            { sensor_name = "a", sensor_output = 1 }, { sensor_name = "a", sensor_output = 1 },
        }).accepted
        for i = 1, 3 do assert.equal(1700000000000000, r[i].time_us) end
        assert.is_false(r[4].timed)
        assert.is_true(r[5].time_us > r[4].time_us)
    end)

    it("treats a wrong clock as the sensor's policy says, and says so", function()
        local future = (NOW // 1000000) + 86400
        local r = read { { sensor_name = "t", sensor_output = 1, timestamp = 12 },
            { sensor_name = "t", sensor_output = 1, timestamp = future },
            { sensor_name = "strict", sensor_output = 1, timestamp = future },
            { sensor_name = "odd", sensor_output = 1, timestamp = future },
            { sensor_name = "t", sensor_output = 1, timestamp = "noon" } }
        assert.equal(4, #r.accepted)
        assert.is_false(r.accepted[1].timed)
        assert.is_true(r.accepted[2].time_us < NOW + 1000)
        assert.equal(future * 1000000, r.accepted[3].time_us)
        assert.same({ 1, 2, 5 }, { r.notes[1].index, r.notes[2].index, r.notes[3].index })
        assert.matches("ahead of ours", r.errors[1].error)
    end)

    it("flags what lies outside the spec's range, and never drops it", function()
        local r = read { { sensor_name = "t", sensor_output = 150 }, { sensor_name = "raw", sensor_output = 500 } }
        assert.equal(150, r.accepted[1].value)
        assert.matches("above the maximum of 100: kept and flagged", r.notes[1].note)
        assert.equal(10, r.accepted[2].value)
    end)

    it("stops at the cap on sensors, item by item", function()
        local r = read({ { sensor_name = "new", sensor_output = 1 }, { sensor_name = "t", sensor_output = 2 } },
            { admit = function(name) return name == "t", "too many sensors" end })
        assert.equal(1, #r.accepted)
        assert.equal("too many sensors", r.errors[1].error)
    end)

    it("gives two workers times that can never be equal", function()
        local frozen = function() return 1700000000.5 end
        local a, b, seen = ingest.stamper(frozen, 1, 2), ingest.stamper(frozen, 2, 2), {}
        for _ = 1, 100 do
            for _, stamp in ipairs { a, b } do
                local t = stamp()
                assert.is_nil(seen[t])
                seen[t] = true
                assert.equal("integer", math.type(t))
            end
        end
    end)
end)
