local csv = require "neap.csv"

local function file_of(text)
    local path = os.tmpname()
    local f = assert(io.open(path, "w"))
    f:write(text)
    f:close()
    return path
end

local function read(text, opts)
    local path = file_of(text)
    local readings, problems = {}, {}
    for reading, problem in csv.readings(path, opts) do
        if reading then readings[#readings + 1] = reading else problems[#problems + 1] = problem end
    end
    os.remove(path)
    return readings, problems
end

describe("CSV", function()
    it("splits quoted and empty cells, and writes what it can read back", function()
        assert.same({"a", "", "c,d", 'say "hi"', ""}, csv.split('a,,"c,d","say ""hi""",'))
        assert.same({"1", "2"}, csv.split("1,2\r"))
        for _, cell in ipairs {'plain', 'a,b', 'x"y', ''} do assert.same({cell, "z"}, csv.split(csv.cell(cell) .. ",z")) end
    end)

    it("writes no cell that a spreadsheet would run, and reads back what it was", function()
        for _, name in ipairs {"=1+1", "+x", "-x", "@sum(a)", "'=x", "'plain", "plain", "=a,b"} do
            local cells = csv.split(csv.cell(name) .. ",1")
            assert.is_nil(cells[1]:find "^[=+@-]", name)
            assert.equal(name, csv.text(cells[1]))
        end
        assert.equal("-3.5", csv.cell "-3.5")
    end)

    it("reads timestamp,value under the given name", function()
        local readings = read("timestamp,value\n2013-12-02 21:15:00,73.9\n2013-12-02 21:20:00,74\n\n", {sensor = "machine"})
        assert.equal(2, #readings)
        assert.same({sensor = "machine", time_us = 1386018900000000, value = 73.9, timed = true}, readings[1])
    end)

    it("reads a column per sensor, leaves empty cells out, and needs no header", function()
        local readings = read("time,load1,memory\n1700000000.5,1,20\n1700000002,,21\n")
        assert.equal(3, #readings)
        assert.equal(1700000000500000, readings[1].time_us)
        assert.equal("memory", readings[3].sensor)
        assert.equal(2, #read("1700000000,1\n1700000001,2\n"))
    end)

    it("reads a column of names, and columns that the caller names", function()
        local readings = read("when,sensor,value\n1700000000,oven,200\n", {time = "when"})
        assert.equal("oven", readings[1].sensor)
        assert.equal(7, read("t,a,b\n1700000000,5,7\n", {time = "t", value = "b"})[1].value)
    end)

    it("names bad rows by line and reads on", function()
        local readings, problems = read("timestamp,value\n1700000000,abc\nyesterday,2\n1700000001,0x10\n1700000002,4\n")
        assert.equal(1, #readings)
        assert.same({"line 2", "line 3", "line 4"}, {problems[1]:sub(1, 6), problems[2]:sub(1, 6), problems[3]:sub(1, 6)})
    end)

    it("says what is missing in a file that it cannot understand", function()
        local function failure(text, opts) return select(2, pcall(read, text, opts)) end
        assert.matches("no column of times", failure "a,b\n1,2\n")
        assert.matches("no column 'x'", failure("time,value\n", {value = "x"}))
        assert.matches("is empty", failure "")
        assert.matches("cannot read", select(2, pcall(csv.readings, "/no/such.csv")))
    end)
end)
