-- Import and export, as commands on a private Redis.
local decode = require "neap.decode"
local helper = require "spec.helper"
local process = require "neap.process"

describe("import and export", function()
    local dir
    before_each(function() dir = helper.dir() end)
    after_each(function() helper.remove(dir) end)

    local function neap(...)
        local text, code = process.run {helper.program(), ...}
        return text, code
    end

    it("bring a CSV file in and out again unchanged, and importing it twice changes nothing", function()
        local text = "timestamp,value\n2026-01-01T00:00:00Z,21.5\n2026-01-01T00:00:01.25Z,-3\n2026-01-01T00:00:02Z,0.30000000000000004\n"
        local file = helper.write(dir .. "/oven.csv", text)
        for _ = 1, 2 do
            local said, code = neap("import", file, "--data", dir)
            assert.equal(0, code, said)
            assert.matches("3 readings of 1 sensor imported", said)
        end
        local said, code = neap("export", "oven", "--data", dir)
        assert.equal(0, code, said)
        assert.equal(text, said)
    end)

    it("name bad rows and go on; formats other than CSV read back too", function()
        local file = helper.write(dir .. "/wide.csv", "time,a b,c\n1700000000,1,2\n1700000060,x,3\n")
        local said, code = neap("import", file, "--data", dir)
        assert.equal(0, code, said)
        assert.matches("line 3: 'x' is not a number", said)
        assert.matches("3 readings of 2 sensors imported, 1 refused", said)
        said = neap("export", "--data", dir, "--format", "line")
        assert.equal("a\\ b value=1 1700000000000000000\nc value=2 1700000000000000000\nc value=3 1700000060000000000\n", said)
        said = neap("export", "c", "--data", dir, "--format", "ndjson", "--last", "1")
        assert.equal('{"sensor_name":"c","sensor_output":3.0,"timestamp":"2023-11-14T22:14:20Z"}\n', said)
        said = neap("export", "--data", dir, "--from", "2023-11-14T22:14:00Z")
        assert.equal("timestamp,sensor,value\n2023-11-14T22:14:20Z,c,3\n", said)
    end)

    it("keep every name through line protocol, or say which it has no word for", function()
        local names = {"a&b=c", "cpu,b=c,host=h.usage", "back\\slash", "ends in\\", "=x", '"q"', "ü b", "#c", "plain"}
        local rows = {"time,sensor,value"}
        for i, name in ipairs(names) do rows[i + 1] = ('1700000000,"%s",%d'):format(name:gsub('"', '""'), i) end
        local said, code = neap("import", helper.write(dir .. "/names.csv", table.concat(rows, "\n") .. "\n"), "--data", dir)
        assert.equal(0, code, said)
        said, code = neap("export", "--data", dir, "--format", "line", table.unpack(names))
        assert.equal(1, code)
        local back = {}
        for _, name, value in decode.lines(said):each() do back[name] = value end
        for i, name in ipairs(names) do
            if not back[name] then assert.is_truthy(said:find(("the sensor '%s' has no name in line protocol"):format(name), 1, true), name .. said)
            else assert.equal(i, back[name]) end
        end
        assert.is_nil(back["#c"])
        assert.is_truthy(back["cpu,b=c,host=h.usage"] and back["a&b=c"] and back["back\\slash"])
        for name in pairs(back) do assert.is_truthy(table.concat(names, "\n"):find(name, 1, true), name) end
    end)

    it("say what to do when a file or a time cannot be understood", function()
        local said, code = neap("import", dir .. "/none.csv", "--data", dir)
        assert.equal(1, code)
        assert.matches("cannot read .*none.csv", said)
        said, code = neap("import", "--data", dir)
        assert.equal(2, code)
        assert.matches("name a CSV file", said)
        said, code = neap("export", "--from", "soon", "--data", dir)
        assert.equal(2, code)
        assert.matches("%-%-from: 'soon'", said)
    end)
end)

describe("neap seed", function()
    local dir
    before_each(function() dir = helper.dir() end)
    after_each(function() helper.remove(dir) end)

    it("makes up every described sensor, marked as synthetic, and replaces what it made before", function()
        for _ = 1, 2 do
            local said, code = process.run {helper.program(), "seed", "--samples", "50", "--data", dir}
            assert.equal(0, code, said)
            for _, name in ipairs {"temperature", "pressure", "humidity"} do assert.matches(name .. ": 50 made%-up readings", said) end
        end
        local real = process.run {helper.program(), "export", "temperature", "--data", dir}
        assert.equal("timestamp,value\n", real)
        local made = process.run {helper.program(), "export", "temperature", "--synthetic", "--data", dir}
        assert.equal(51, select(2, made:gsub("\n", "")))
    end)

    it("writes a file instead, with labelled faults, and says that white noise cannot be forecast", function()
        local said = process.run {helper.program(), "seed", "humidity", "--samples", "200", "--faults", "2", "--white", "--csv", dir .. "/h.csv"}
        assert.matches("fault: spike", said)
        assert.matches("no model can forecast it", said)
        assert.equal(201, select(2, helper.read(dir .. "/h.csv"):gsub("\n", "")))
    end)
end)
