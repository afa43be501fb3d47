-- The dialects of lua/neap/clients.lua, as the clients themselves speak them.
local clients = require "neap.clients"
local helper = require "spec.helper"
local http = require "neap.http"
local ingest = require "neap.ingest"
local json = require "neap.json"
local process = require "neap.process"
local sensors = require "neap.sensors"

describe("the other clients' routes", function()
    local app, here, stored, broken

    --- A store in memory: what was taken, as "name=value@time_us".
    local function take(session, batch)
        if broken or not batch then return nil end
        local taken = ingest.judge(batch, session.context)
        for _, name in ipairs(taken.order) do
            local list = taken.pairs[name]
            for i = 1, #list, 2 do stored[#stored + 1] = ("%s=%.14g@%d"):format(name, list[i + 1], list[i]) end
        end
        return taken
    end

    before_each(function()
        local specs = sensors.parse('sensor "oven" { minimum = 0, maximum = 300 }', "s.lua")
        stored, broken = {}, false
        here = {started_at = neap.clock(), journal = {stats = function() return {live = true} end}}
        here.context = {specs = specs, limits = ingest.limits(specs), now_us = 1700000100 * 1000000,
            stamp = function() return 5 end}
        app = http.app {}
        clients.routes(app, here, take)
    end)

    local function post(path, body, headers) return app:test("POST", path, {body = body, headers = headers}) end

    it("take line protocol as InfluxDB 2 does", function()
        assert.equal(204, post("/api/v2/write?org=o&bucket=b&precision=s", "oven,room=a value=21.5 1700000000\noven hum=4i 1700000001").status)
        assert.same({"oven,room=a=21.5@1700000000000000", "oven.hum=4@1700000001000000"}, stored)
        local answer = post("/api/v2/write?precision=ms", "a v=1 1700000000000\nb v=\nc v=2 1700000000000")
        assert.equal(400, answer.status)
        assert.equal("invalid", answer.json.code)
        assert.equal(2, answer.json.line)
        assert.equal("integer", math.type(answer.json.line))
        assert.equal("c.v=2@1700000000000000", stored[4], "good lines are stored")
        assert.equal(204, post("/api/v2/write?partial=204", "a v=1 1700000000000000000\nb v=").status)
        assert.equal(400, post("/api/v2/write?precision=h", "a v=1").status)
        broken = true
        answer = post("/api/v2/write", "a v=1")
        assert.equal(503, answer.status)
        assert.equal("1", answer.headers["Retry-After"])
        assert.equal("unavailable", answer.json.code)
    end)

    it("take it as InfluxDB 1 does", function()
        assert.equal(204, post("/write?db=d&rp=&precision=m&consistency=all&u=x&p=y", "a v=1 28333333\n\nb v=t").status)
        assert.same({"a.v=1@1699999980000000"}, stored)
        local answer = post("/write?db=d", "a v=x\nb v=1")
        assert.equal(400, answer.status)
        assert.matches("^partial write: line 1: .* dropped=1$", answer.json.error)
        assert.equal(answer.json.error, answer.headers["X-Influxdb-Error"])
        assert.same({"b.v=1@5"}, {stored[2]})
        broken = true
        assert.equal(503, post("/write", "a v=1").status)
    end)

    it("name every bad line and value", function()
        local body = "a v=1\nbad\nb v=2\nworse,\nc v=3"
        assert.matches("^partial write: line 2: .*; line 4: .* dropped=2$", post("/write", body).json.error)
        local answer = post("/api/v2/write", body).json
        assert.matches("^line 2: .*; line 4: .* %(2 refused, 3 stored%)$", answer.message)
        assert.equal(2, answer.line)
        assert.matches("; and 180 more ", post("/api/v2/write", ("bad\n"):rep(200)).json.message)
        answer = post("/collectd", "PUTVAL h/p/x 1700000000:1.5:nan:zz\nPUTVAL h/p/y 1:1e999\n").json
        assert.same({1, 2}, {answer.stored, answer.refused})
        assert.matches("^line 1: .*; line 2: ", answer.error)
        assert.matches("one of ns, us, ms, s, m, h", post("/write?precision=x", "a v=1").json.error)
    end)

    it("are told what was refused before the readings were looked at in their own words too", function()
        local gzip = {["Content-Encoding"] = "gzip"}
        for _, path in ipairs {"/write", "/api/v2/write", "/api/v1/T/telemetry"} do
            local answer = post(path, "no gzip", gzip)
            assert.equal(400, answer.status)
            assert.same({"invalid", 400}, {answer.json.code, answer.json.status})
            assert.equal(answer.json.error, answer.json.message)
            assert.equal("unsupported media type", post(path, "x", {["Content-Encoding"] = "br"}).json.code)
        end
        local small = http.app {max_body = 100}
        clients.routes(small, here, take)
        local server = small:listen {host = "127.0.0.1", port = 0}
        for _, chunked in ipairs {"X-None: 1", "Transfer-Encoding: chunked"} do
            local text = process.run {"curl", "-s", "-m", "10", "-H", chunked, "--data-binary", ("a v=1\n"):rep(100),
                ("http://127.0.0.1:%d/api/v2/write"):format(server:port())}
            local answer = json.decode(text)
            assert.same({"request too large", 413, 100}, {answer.code, answer.status, answer.maxLength})
            assert.equal(answer.error, answer.message)
        end
        server:close(0)
    end)

    it("answer what clients ask before they write", function()
        local answer = app:test("GET", "/ping")
        assert.equal(204, answer.status)
        assert.matches("^1%.", answer.headers["X-Influxdb-Version"])
        answer = app:test("GET", "/ping?verbose=true")
        assert.equal(200, answer.status)
        assert.is_string(answer.json.version)
        assert.equal("ready", app:test("GET", "/ready").json.status)
        for _, method in ipairs {"GET", "POST"} do
            assert.equal('{"results":[{"statement_id":0}]}', app:test(method, "/query?q=CREATE+DATABASE+d").body)
        end
        local form = {["Content-Type"] = "application/x-www-form-urlencoded"}
        answer = post("/query", "q=CREATE+DATABASE+d%3B+show+databases%3BSELECT+*+FROM+x", form).json
        assert.same({statement_id = 1, series = {{name = "databases", columns = {"name"}, values = {{"neap"}}}}}, answer.results[2])
        assert.matches("no query language", answer.results[3].error)
        assert.equal(2, answer.results[3].statement_id)
        assert.equal(400, app:test("GET", "/query").status)
    end)

    it("take collectd's JSON and commands", function()
        local body = [==[[{"values":[2.5,null],"dsnames":["shortterm","midterm"],"time":1700000000.5,"interval":10,"host":"h","plugin":"load",
            "plugin_instance":"","type":"load","type_instance":""}]]==]
        assert.equal('{"stored":1}', post("/collectd", body, {["Content-Type"] = "application/json"}).body)
        assert.equal(200, post("/collectd", "PUTVAL h/cpu-0/cpu-idle interval=10 1700000000:97\n").status)
        assert.same({"h/load/load.shortterm=2.5@1700000000500000", "h/cpu-0/cpu-idle=97@1700000000000000"}, stored)
        assert.equal(400, post("/collectd", "{").status)
    end)

    it("take ThingsBoard's telemetry", function()
        local answer = post("/api/v1/secret/telemetry", '{"ts":1700000000123,"values":{"t":21.5,"on":true,"mode":"eco"}}')
        assert.equal(200, answer.status)
        assert.equal("", answer.body)
        assert.equal(200, post("/api/v1/secret/telemetry", '[{"t":1},{"h":"40"}]').status)
        assert.same({"t=21.5@1700000000123000", "t=1@5", "h=40@5"}, stored)
        assert.equal(400, post("/api/v1/secret/telemetry", "nonsense").status)
        for _, text in ipairs {'{"mode":"eco"}', '{"a":"nan"}', "{}", '{"k":[1,2]}', '{"ts":1700000000123,"values":{}}'} do
            assert.equal(200, post("/api/v1/secret/telemetry", text).status, text) -- telemetry, but no readings
        end
        answer = post("/api/v1/secret/telemetry", '[{"t":2},{"k":{"a":{"b":1}}}]')
        assert.same({200, 1, 1}, {answer.status, answer.json.stored, answer.json.refused})
        assert.matches("^item 2: nested", answer.json.message)
        assert.equal(200, post("/api/v1/secret/attributes", '{"fw":"1.0"}').status)
    end)

    it("take a GET only where the user said so", function()
        assert.equal(405, app:test("GET", "/receive?sensor_name=t&sensor_output=1").status)
        here.query_ingest = true
        assert.equal(200, app:test("GET", "/receive?sensor_name=t%20%C3%BC&sensor_output=21.5&time=1700000000").status)
        assert.same({"t ü=21.5@1700000000000000"}, stored)
        assert.equal(400, app:test("GET", "/receive?sensor_name=t&sensor_output=warm").status)
        assert.equal(400, app:test("GET", "/receive?sensor_name=t").status)
        assert.equal(200, app:test("GET", "/receive?sensor=u&value=2&timestamp=1700000000").status)
        assert.equal("u=2@1700000000000000", stored[2])
        assert.matches("time could not be read", app:test("GET", "/receive?sensor=u&value=2&time=noon").json.note)
        for _, path in ipairs {"/receive", "/receive?value=1"} do assert.matches("sensor_name is missing", app:test("GET", path).json.error) end
        assert.equal(405, app:test("HEAD", "/receive?sensor=u&value=3").status)
        assert.equal(3, #stored)
    end)

    it("take gzip, plain and chunked, from curl", function()
        local server = app:listen {host = "127.0.0.1", port = 0}
        local dir = helper.dir()
        helper.write(dir .. "/lines", ("oven,room=a value=%d 1700000000000000000\n"):format(7):rep(1000))
        os.execute(("gzip -k '%s/lines'"):format(dir))
        local url = ("http://127.0.0.1:%d/api/v2/write"):format(server:port())
        assert.equal("204", process.run {"curl", "-s", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Content-Encoding: gzip", "-H",
            "Transfer-Encoding: chunked", "--data-binary", "@" .. dir .. "/lines.gz", url})
        assert.equal(1000, #stored)
        assert.equal("400", process.run {"curl", "-s", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Content-Encoding: gzip",
            "--data-binary", "@" .. dir .. "/lines", url})
        server:close(0)
        helper.remove(dir)
    end)

    it("answer JSON that other tools can read", function()
        assert.is_table(json.decode(post("/write", "bad").body))
    end)
end)
