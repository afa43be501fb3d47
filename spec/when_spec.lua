local when = require "neap.when"

describe("times and durations", function()
    it("reads dates, times and zones as UTC microseconds", function()
        assert.equal(0, when.parse_iso("1970-01-01"))
        assert.equal(1386018300000000, when.parse_iso("2013-12-02 21:05:00"))
        assert.equal(when.parse_iso("2026-11-23T17:40:00.25Z"), when.parse_iso("2026-11-23T18:40:00.250+01:00"))
        assert.equal(951782400000000, when.parse_iso("2000-02-29"))
        assert.equal(-86400000000, when.parse_iso("1969-12-31T00:00Z"))
    end)

    it("refuses what is not a date and says what was expected", function()
        for _, bad in ipairs { "", "yesterday", "2026-13-01", "2026-00-10", "2026-01-01T25:00", "2026-01-01T10:00+1", "2026-01-01 10" } do
            local us, why = when.parse_iso(bad)
            assert.is_nil(us, bad)
            assert.is_string(why)
        end
    end)

    it("writes back exactly what it read, for every day of four centuries", function()
        for days = -50000, 100000, 13 do
            local us = days * 86400000000 + (days % 86400) * 1000000 + 123000
            assert.equal(us, when.parse_iso(when.iso(us)))
        end
        assert.equal("2026-11-23T18:40:00.000001Z", when.iso(when.parse_iso("2026-11-23T18:40:00.000001Z")))
    end)

    it("infers seconds, milli-, micro- and nanoseconds by magnitude", function()
        local us = 1700000000123456
        assert.equal(us, when.from_number(1700000000.123456))
        assert.equal(1700000000123000, when.from_number(1700000000123))
        assert.equal(us, when.from_number(us))
        assert.equal(us, when.from_number(us * 1000 + 999))
        assert.equal(us, when.parse(tostring(us)))
        assert.equal(1700000000500000, when.parse("1700000000.5"))
        assert.is_nil(when.from_number(0 / 0))
        assert.is_nil((when.parse(true)))
    end)

    it("reads durations in words and says them again", function()
        assert.equal(600, when.duration("10 min"))
        assert.equal(5400, when.duration("1.5h"))
        assert.equal(172800, when.duration("2 days"))
        assert.equal(3.5, when.duration(3.5))
        assert.is_nil((when.duration("soon")))
        assert.is_nil((when.duration("3 parsecs")))
        assert.equal("12 min", when.human(720))
        assert.equal("3.5 h", when.human(12600))
        assert.equal("2.5 days", when.human(216000))
    end)
end)
