-- Commands at their edges: pipes that close, keys that are no lists, files in other dialects, Ctrl-C, taken ports, damaged models.
local helper = require "spec.helper"
local http = require "neap.http"
local json = require "neap.json"
local process = require "neap.process"

describe("a command", function()
    local dir
    before_each(function() dir = helper.dir() end)
    after_each(function() helper.remove(dir) end)

    local function neap(...) return process.run {helper.program(), ...} end

    local function series(rows)
        local lines = {"timestamp,value"}
        for i = 1, rows do lines[#lines + 1] = ("%d,%d"):format(1700000000 + 60 * i, i % 7) end
        return helper.write(dir .. "/series.csv", table.concat(lines, "\n") .. "\n")
    end

    --- Ten hours of a cycle that a small network learns at once: what a made-up history holds depends on the time of day.
    local function import_cycle(sensor)
        local lines = {"timestamp,value"}
        for i = 1, 600 do lines[#lines + 1] = ("%d,%.3f"):format(1700000000 + 60 * i, 20 + 5 * math.sin(i / 5)) end
        local file = helper.write(dir .. "/cycle.csv", table.concat(lines, "\n") .. "\n")
        neap("import", file, "--data", dir .. "/d", "--sensor", sensor)
    end

    it("ends quietly when the reader of its output has had enough", function()
        local file = series(4000)
        local function head(command)
            return process.run {"sh", "-c", ("'%s' %s 2>%s/err | head -1"):format(helper.program(), command, dir)}
        end
        assert.equal("timestamp,value,forecast,p,anomaly_score\n", (head("score --csv " .. file)))
        assert.equal("", helper.read(dir .. "/err"))
        neap("import", file, "--data", dir .. "/d", "--sensor", "s")
        assert.equal("timestamp,value\n", (head("export s --data " .. dir .. "/d")))
        assert.equal("", helper.read(dir .. "/err"))
    end)

    it("flags a number that no sensor measures, learns nothing from it, and does not call it missing", function()
        local file = series(400)
        local f <close> = assert(io.open(file, "a"))
        f:write "1700030000,1e300\n1700030060,3\n"
        f:close()
        local said = neap("score", "--csv", file, "--out", dir .. "/out.csv")
        assert.matches("402 readings, 1 flagged, 0 missing", said)
        local out = helper.read(dir .. "/out.csv")
        assert.matches("1e300,[%d.]+,[%d.]+,1%.000000\n", out)
    end)

    it("reads semicolons, tabs and decimal commas, and guesses at nothing", function()
        local file = helper.write(dir .. "/a.csv", "time;value\n2024-01-01 00:00:00;21,5\n2024-01-01 00:01:00;1.234,5\n2024-01-01 00:02:00;-3\n")
        local said, code = neap("import", file, "--data", dir)
        assert.equal(0, code)
        assert.matches("line 3: '1.234,5' is not a number", said, 1, true)
        assert.equal("timestamp,value\n2024-01-01T00:00:00Z,21.5\n2024-01-01T00:02:00Z,-3\n", (neap("export", "a", "--data", dir)))
        said = neap("score", "--csv", file, "--out", dir .. "/b.csv")
        assert.matches("3 readings, 0 flagged, 1 missing", said)
        assert.matches('"21,5",,1,', helper.read(dir .. "/b.csv"), 1, true)
        file = helper.write(dir .. "/t.csv", "timestamp\tvalue\n2024-01-01 00:00:00\t0,25\n")
        assert.matches("1 readings of 1 sensor imported", (neap("import", file, "--data", dir)))
    end)

    it("imports a kit's lists from another Redis, leaves out what is no list, and says what it reads and writes", function()
        local kit <close> = helper.redis(dir .. "/kit")
        kit:lpush("sensor_logs:temp", json.encode {sensor_name = "temp", sensor_output = 21.5, timestamp = "2024-01-01T00:00:00+00:00"})
        kit:set("sensor_logs:odd", "hello")
        local before = #kit:keys "*"
        local url = "unix://" .. kit.socket
        local said, code = neap("import", "--kit", "--from", url, "--data", dir .. "/mine")
        assert.equal(0, code, said)
        assert.matches("reading sensor_logs:* from " .. url .. ", writing to the Redis of " .. dir .. "/mine", said, 1, true)
        assert.matches("sensor_logs:odd is a string, not a list: left out", said, 1, true)
        assert.matches("1 readings of 1 sensor imported, 1 refused", said)
        assert.equal(before, #kit:keys "*")
        assert.equal("timestamp,value\n2024-01-01T00:00:00Z,21.5\n", (neap("export", "temp", "--data", dir .. "/mine")))
    end)

    it("says what is wrong with import --kit", function()
        local function says(code, text, ...)
            local said, got = neap("import", ...)
            assert.equal(code, got, said)
            assert.matches(text, said, 1, true)
        end
        says(2, "--from names a starter kit's Redis and goes with --kit", "x.csv", "--from", "redis://h")
        says(2, "name the kit's Redis with --from", "x.csv", "--kit")
        says(1, "cannot connect to Redis at 127.0.0.1:1", "--kit", "--from", "redis://127.0.0.1:1", "--data", dir .. "/d")
        says(1, "holds no lists sensor_logs:*; name the kit's with --from", "--kit", "--data", dir .. "/d")
    end)

    it("leaves nothing behind when its port is taken", function()
        local holder = http.app {}:listen {port = 0}
        local said, code = neap("serve", "--listen", "127.0.0.1:" .. holder:port(), "--data", dir .. "/data")
        holder:close()
        assert.equal(1, code)
        assert.matches("another program holds the port", said)
        assert.is_nil(io.open(dir .. "/data/journal"))
        assert.equal(1, select(2, process.run {"test", "-e", dir .. "/data"}))
    end)

    it("ends at Ctrl-C without a traceback", function()
        local p = process.spawn {helper.program(), "record", "--interval", "60", "--csv", dir .. "/r.csv", stdout = "pipe", stderr = "file",
            path = dir .. "/err"}
        helper.eventually(function() return helper.read(dir .. "/r.csv") end, 10) -- it records now
        p:kill "INT"
        local code = p:wait(10)
        local said = helper.read(dir .. "/err") or ""
        assert.is_nil(said:find("traceback", 1, true), said)
        assert.is_true(code == 0 or code == 130, tostring(code))
    end)

    it("names a damaged model in the verdict, keeps its file when a new one is trained, and goes on judging", function()
        local function here(...) return neap(select(1, ...), select(2, ...)) end
        import_cycle "temperature"
        local said = here("train", "temperature", "--data", dir .. "/d", "--epochs", "8", "--no-plot")
        assert.matches("In use from now on", said)
        local file = dir .. "/d/models/temperature.safetensors"
        helper.write(file, "rubbish")
        said = here("train", "temperature", "--data", dir .. "/d", "--epochs", "8", "--no-plot")
        assert.matches("temperature.safetensors.bad", said, 1, true)
        assert.equal("rubbish", helper.read(file .. ".bad"))
        assert.is_nil(require("neap.models").damaged(file))
    end)

    it("trains and uses a model for a sensor whose name is too long for a file's", function()
        local models = require "neap.models"
        local long = ("é"):rep(100)
        import_cycle(long)
        assert.matches("In use from now on", neap("train", long, "--data", dir .. "/d", "--epochs", "8", "--no-plot"))
        local name = models.file_name(long)
        assert.is_true(#name <= 240)
        assert.is_true(#helper.read(dir .. "/d/models/" .. name) > 0)
        assert.is_nil(models.damaged(dir .. "/d/models/" .. name))
        local scored = neap("score", long, "--data", dir .. "/d")
        assert.not_matches("no model", scored)
        assert.not_equal(name, models.file_name(long .. "é"))
        assert.equal("oven%2F%C3%A9.safetensors", models.file_name "oven/é") -- short ones are called what they always were
        assert.equal(("a"):rep(200) .. ".safetensors", models.file_name(("a"):rep(200)))
    end)

    it("takes an item of a list without a name as the kit did: skipped, and named", function()
        local decode = require "neap.decode"
        local kit = decode.json('[{"x":1},{"sensor_name":"t","sensor_output":2},{"ts":1,"values":{"a":3}}]', {named = true})
        assert.equal(2, kit.count)
        assert.same({{index = 1, reason = "sensor_name is missing"}}, (kit:errors()))
        assert.equal(1, decode.json('{"x":1}', {named = true}).count)
        assert.equal(1, decode.json('[{"x":1}]').count)
    end)
end)

