-- `neap demo`, whole: on the recording that travels with neap, and on a file of one's own.
local helper = require "spec.helper"
local process = require "neap.process"
local sensors = require "neap.sensors"
local synth = require "neap.synth"

local function demo(...) return process.run {helper.program(), "demo", ...} end

describe("neap demo", function()
    it("does the whole job on its own recording and leaves nothing behind", function()
        local said, code = demo()
        assert.equal(0, code, said)
        assert.matches("listens on http://127.0.0.1:", said, 1, true)
        local posted = tonumber(said:match "posted%s+(%d+) readings")
        assert.is_true(posted > 5000)
        assert.equal(posted, tonumber(said:match "(%d+) readings in, %d+ in the history"))
        local found, known, alarms = said:match "(%d+) of (%d+) known incidents found, (%d+) false alarms?"
        assert.is_true(tonumber(known) >= 5)
        assert.is_true(tonumber(found) >= tonumber(known) * 0.6, said)
        assert.is_true(tonumber(alarms) <= 25, said)
        assert.matches("repeat the last value", said)
        local dir = said:match "socket (/%S-)/data/redis"
        assert.is_nil(io.open(dir))
    end)

    it("takes any recording and its labels, and finds what was put in", function()
        local dir = helper.dir()
        local spec = sensors.parse('sensor "made" { mean = 50, deviation = 3, interval = 300 }', "s.lua"):get "made"
        local s = synth.series(spec, {count = 4000, end_us = 1700000000000000, seed = 3})
        local rows = {"timestamp,value"}
        for i, value in ipairs(s.values) do
            if i >= 3000 and i < 3040 then value = value + 40 end
            rows[i + 1] = ("%d,%g"):format(s.times[i] // 1000000, value)
        end
        local file = helper.write(dir .. "/made.csv", table.concat(rows, "\n") .. "\n")
        local labels = helper.write(dir .. "/labels.json",
            ('{"some/made.csv": [[%d, %d, "a jump"]]}'):format(s.times[2995] // 1000000, s.times[3045] // 1000000))
        local said, code = demo("--data", file, "--labels", labels)
        helper.remove(dir)
        assert.equal(0, code, said)
        assert.matches("found   made", said)
        assert.matches("1 of 1 known incidents found", said)
        assert.matches("4000 readings in, 4000 in the history", said)
    end)

    it("says what is wrong with a file that it cannot use", function()
        local said, code = demo("--data", "/no/such.csv")
        assert.equal(1, code)
        assert.matches("cannot read", said)
    end)
end)
