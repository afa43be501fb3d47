local sensors = require "neap.sensors"
local nearest = neap.nearest

local function failure(source)
    local ok, message = pcall(sensors.parse, source, "my/sensors.lua")
    assert.is_false(ok)
    return message
end

describe("sensor specs", function()
    it("reads a sensor, converts durations and fills in defaults", function()
        local specs = sensors.parse([[
            sensor "boiler" { unit = "°C", minimum = 10, maximum = 90, interval = "10 min", window = 24 }
            sensor "door" {}]], "s.lua")
        local boiler = specs:get "boiler"
        assert.equal(600, boiler.interval)
        assert.equal(24, boiler.window)
        assert.equal(1, boiler.scale)
        assert.is_true(boiler.known)
        assert.equal(16, specs:get("door").window)
        assert.same({ "boiler", "door" }, { specs.list[1].name, specs.list[2].name })
    end)

    it("gives defaults to a sensor that nobody described", function()
        local spec = sensors.none():get "stranger"
        assert.is_false(spec.known)
        assert.equal("stranger", spec.name)
        assert.equal("clamp", spec.clock)
    end)

    it("names file, line and the nearest key for a slip", function()
        assert.equal("my/sensors.lua:4: sensor 'a': unknown key 'minimun', did you mean 'minimum'?", failure [[
-- a comment
sensor "a" {
    unit = "x",
    minimun = 3,
}]])
    end)

    it("reports every mistake at once, in order of lines", function()
        local message = failure [[
sensor "a" {
    window = 1.5,
    kind = "wite",
}
sensor "b" { minimum = 5, maximum = 4 }
sensor "b" { unit = 7 }
sensor ""  { }]]
        local lines = {}
        for line in message:gmatch("[^\n]+") do lines[#lines + 1] = line end
        assert.matches("^my/sensors.lua:2: sensor 'a': 'window' must be a whole number from 2", lines[1])
        assert.matches("^my/sensors.lua:3: .*did you mean \"white\"?", lines[2])
        assert.matches("^my/sensors.lua:5: .*'minimum' %(5%) must be below 'maximum' %(4%)", lines[3])
        assert.matches("^my/sensors.lua:6: sensor 'b' is described twice", lines[4])
        assert.matches("^my/sensors.lua:6: .*'unit' must be a text", lines[5])
        assert.matches("^my/sensors.lua:7: .*must not be empty", lines[6])
        assert.equal(6, #lines)
    end)

    it("passes on syntax and runtime errors with their line", function()
        assert.matches("my/sensors.lua:2:", failure "sensor 'a' {\n unit = = 2 }")
        assert.matches("my/sensors.lua:1:.*nothing", failure "nothing.here()")
        assert.matches("my/sensors.lua:1: .*followed by a table", failure "local x = sensor 'a'")
    end)

    it("loads the file that is shipped, which describes the starter kit's three sensors", function()
        local specs = sensors.load "scripts/sensors.lua"
        assert.same({ 60, 70, 65, 1.5 }, { specs:get("temperature").minimum, specs:get("temperature").maximum,
            specs:get("temperature").mean, specs:get("temperature").deviation })
        assert.same({ 30, 35, 32.5, 0.8 }, { specs:get("pressure").minimum, specs:get("pressure").maximum,
            specs:get("pressure").mean, specs:get("pressure").deviation })
        assert.same({ 30, 50, 40, 3 }, { specs:get("humidity").minimum, specs:get("humidity").maximum,
            specs:get("humidity").mean, specs:get("humidity").deviation })
        assert.matches("no/such/file.lua: .*cannot read", select(2, pcall(sensors.load, "no/such/file.lua")))
    end)

    it("refuses names that would be unsafe to show", function()
        assert.is_nil((sensors.check_name("a\nb")))
        assert.is_nil((sensors.check_name("\255")))
        assert.is_nil((sensors.check_name(("x"):rep(501))))
        assert.is_nil((sensors.check_name(5)))
        assert.equal("Küche/temp {1}", sensors.check_name("Küche/temp {1}"))
    end)
end)

describe("the nearest word", function()
    it("finds slips and beginnings, and leaves strangers alone", function()
        local words = { "minimum", "maximum", "window", "train" }
        assert.equal("minimum", nearest("minmum", words))
        assert.equal("train", nearest("trian", words))
        assert.equal("window", nearest("win", words))
        assert.is_nil(nearest("zebra", words))
        assert.is_nil(nearest("foo", {"top"}))
        assert.is_nil(nearest("x", {}))
    end)
end)
