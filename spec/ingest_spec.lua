local decode = require "neap.decode"
local ingest = require "neap.ingest"
local json = require "neap.json"
local sensors = require "neap.sensors"

local NOW = 1795459200000000

local specs = sensors.parse([[
    sensor "t" { minimum = 0, maximum = 100 }
    sensor "strict" { clock = "reject" }
    sensor "odd" { clock = "trust" }
    sensor "raw" { scale = 0.1, offset = -40, minimum = -40, maximum = 5 }]], "s.lua")

local function read(body, more)
    local tick = NOW
    local context = {specs = specs, limits = ingest.limits(specs), now_us = NOW, stamp = function() tick = tick + 1; return tick end}
    for k, v in pairs(more or {}) do context[k] = v end
    local batch = decode.json(type(body) == "string" and body or json.encode(body))
    local taken = ingest.judge(batch, context)
    local status, text = ingest.answer(batch, taken)
    return taken, status, json.decode(text)
end

describe("ingest", function()
    it("takes the starter kit's array and answers exactly as the kit did", function()
        local taken, status, body = read '[{"sensor_name":"t","sensor_output":12.5,"extra":1},{"sensor_name":"h","sensor_output":"40"}]'
        assert.same({"t", "h"}, taken.order)
        assert.equal(12.5, taken.pairs.t[2])
        assert.equal(200, status)
        assert.same({status = "success", data = {{sensor_name = "t", sensor_output = 12.5}, {sensor_name = "h", sensor_output = 40}}}, body)
    end)

    it("keeps good items, and names each bad one with its place and reason", function()
        local taken, status, body = read [=[[{"sensor_name":"t","sensor_output":1},{"sensor_name":"t","sensor_output":"abc"},
            {"sensor_name":"t"},"text",{"sensor_name":"t","sensor_output":"nan"},{"sensor_name":5,"sensor_output":1},
            {"sensor_name":"t","sensor_output":2}]]=]
        assert.equal(2, taken.count)
        assert.equal(200, status)
        assert.equal("partial", body.status)
        assert.matches("^5 of 7 readings refused, the others are stored; item 2: ", body.error)
        local places = {}
        for _, one in ipairs(body.errors) do places[#places + 1] = one.index end
        assert.same({2, 3, 4, 5, 6}, places)
        assert.equal(2, #body.data)
    end)

    it("answers 400 when nothing could be kept, and 200 with no data when items were only incomplete", function()
        local _, status, body = read '[{"sensor_name":"t","sensor_output":"abc"}]'
        assert.equal(400, status)
        assert.equal("error", body.status)
        assert.matches("^Couldn't process request. Error: item 1", body.error)
        _, status, body = read '[{"sensor_name":"t"},{"sensor_output":3}]'
        assert.equal(200, status)
        assert.equal("success", body.status)
        assert.same({}, body.data)
        assert.equal(2, #body.errors)
        _, status, body = read "[]"
        assert.equal(200, status)
        assert.same({status = "success", data = {}}, body)
    end)

    it("counts true as 1 and false as 0, as Python's float() does", function()
        local taken = read '[{"sensor_name":"door","sensor_output":true},{"sensor_name":"door","sensor_output":false}]'
        assert.equal(1, taken.pairs.door[2])
        assert.equal(0, taken.pairs.door[4])
    end)

    it("refuses a body without readings in the kit's words", function()
        local function refusal(body)
            local batch, err = decode.try.json(body)
            assert.is_nil(batch)
            return json.decode(ingest.not_understood(err)).error
        end
        assert.equal("Expected a list of JSON objects", refusal "5")
        assert.equal("Expected a list of JSON objects", refusal '"text"')
        assert.matches("^Couldn't process request%. Error: .*line 1 column", refusal "[1,")
    end)

    it("keeps a device's time, whatever its unit, and gives untimed readings unique increasing ones", function()
        local pairs = read({
            {sensor_name = "a", sensor_output = 1, timestamp = 1700000000},
            {sensor_name = "a", sensor_output = 1, timestamp = "2023-11-14T22:13:20Z"},
            {sensor_name = "a", sensor_output = 1, ts = 1700000000000},
            {sensor_name = "a", sensor_output = 1}, {sensor_name = "a", sensor_output = 1},
        }).pairs.a
        for i = 1, 5, 2 do assert.equal(1700000000000000, pairs[i]) end
        assert.equal(NOW + 1, pairs[7])
        assert.equal(NOW + 2, pairs[9])
    end)

    it("treats a wrong clock as the sensor's policy says, and says so", function()
        local future = NOW // 1000000 + 86400
        local taken, _, body = read {
            {sensor_name = "t", sensor_output = 1, timestamp = 12}, {sensor_name = "t", sensor_output = 1, timestamp = future},
            {sensor_name = "strict", sensor_output = 1, timestamp = future}, {sensor_name = "odd", sensor_output = 1, timestamp = future},
            {sensor_name = "t", sensor_output = 1, timestamp = "noon"},
        }
        assert.equal(4, taken.count)
        for i = 1, 5, 2 do assert.is_true(taken.pairs.t[i] > NOW and taken.pairs.t[i] < NOW + 10) end
        assert.equal(future * 1000000, taken.pairs.odd[1])
        assert.is_nil(taken.pairs.strict)
        assert.same({1, 2, 5}, {body.notes[1].index, body.notes[2].index, body.notes[3].index})
        assert.equal(3, body.errors[1].index)
        assert.matches("ahead of ours", body.errors[1].error)
        assert.equal("partial", body.status)
    end)

    it("flags what lies outside the spec's range in the spec's own units, and never drops it", function()
        local taken, status, body = read '[{"sensor_name":"t","sensor_output":150},{"sensor_name":"raw","sensor_output":500}]'
        assert.equal(200, status)
        assert.equal("success", body.status)
        assert.equal(150, taken.pairs.t[2])
        assert.equal(10, taken.pairs.raw[2])
        assert.equal("150 is above the maximum of 100: kept and flagged", body.notes[1].note)
        assert.equal("10 is above the maximum of 5: kept and flagged", body.notes[2].note)
    end)

    it("stops at the cap on sensors, item by item", function()
        local taken, _, body = read({{sensor_name = "new", sensor_output = 1}, {sensor_name = "t", sensor_output = 2}},
            {admit = function(name) return name == "t", "too many sensors" end})
        assert.same({"t"}, taken.order)
        assert.equal("too many sensors", body.errors[1].error)
        assert.same({{sensor_name = "t", sensor_output = 2}}, body.data)
    end)
end)
