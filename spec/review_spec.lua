local review = require "neap.review"

local function labels(text, series)
    local path = os.tmpname()
    local f = assert(io.open(path, "w"))
    f:write(text)
    f:close()
    local ok, result = pcall(review.labels, path, series)
    os.remove(path)
    return ok and result or nil, result
end

describe("flags against known incidents", function()
    it("are found, missed, or false alarms", function()
        local result = review.compare({{from_us = 5, to_us = 6}, {from_us = 14, to_us = 22}, {from_us = 24, to_us = 25},
            {from_us = 90, to_us = 90}},
            {{20, 30, "a"}, {40, 50, "b"}, {80, 95, "c"}})
        assert.equal(2, #result.found)
        assert.same({{40, 50, "b"}}, result.missed)
        assert.same({{from_us = 5, to_us = 6}}, result.false_alarms)
        assert.equal(20, result.first[1])
        assert.equal(90, result.first[3])
    end)

    it("reads labels as a list or by series", function()
        assert.same({{1700000000000000, 1700000060000000, "hog"}}, labels('[[1700000000, 1700000060, "hog"]]', "x"))
        local text = '{"a/machine.csv": [["2014-01-01 00:00:00.000000", "2014-01-02 00:00:00"]], "b.csv": []}'
        assert.equal(1, #labels(text, "/data/machine.csv"))
        assert.equal(1, #labels(text, "machine"))
        assert.same({}, labels(text, "b"))
        assert.matches("no labels for 'c'", select(2, labels(text, "c")))
        assert.matches("window 1 of 'x'", select(2, labels('{"x": [["soon", 5]]}', "x")))
    end)
end)
