-- The server as its clients see it. The routes are tried without a socket where that is enough, and as real processes where
-- workers, signals and restarts matter.
local api = require "neap.api"
local clocks = require "neap.clocks"
local helper = require "spec.helper"
local http = require "neap.http"
local ingest = require "neap.ingest"
local journal = require "neap.journal"
local json = require "neap.json"
local process = require "neap.process"
local scorer = require "neap.scorer"
local sensors = require "neap.sensors"
local store = require "neap.store"
local when = require "neap.when"

describe("the routes", function()
    local dir, r, here, app

    setup(function()
        dir = helper.dir()
        r = helper.redis(dir)
    end)
    teardown(function()
        r:close()
        helper.remove(dir)
    end)
    before_each(function()
        r:call "FLUSHALL"
        local specs = sensors.parse([[sensor "oven" { unit = "°C", minimum = 0, maximum = 300 }
            sensor "apart" {clock = "quarantine"} sensor "strict" {clock = "reject"} sensor "double" {scale = 2}]], "s.lua")
        here = {redis = r, specs = specs, specs_path = "s.lua", store = store.new(r, {specs = specs, most_sensors = 5}), data = dir, workers = 1,
            started_at = neap.clock(), durability = r:durability(), private = true, socket = r.socket, reload = {last = {ok = true}},
            metrics = require("neap.metric").text}
        here.scorer, here.clocks = scorer.new(here), clocks.new(here.store)
        journal.join(here, {apply = true})
        helper.eventually(function() return here.journal:stats().live end)
        here.news = journal.news(here.journal, function(...) here.scorer:stored(...) end)
        here.context = {specs = specs, limits = ingest.limits(specs), stamp = function() return here.journal:stamp() end, whole = true,
            admit = function(name) return here.store:admit(name) end}
        app = http.app {}
        api.routes(app, here)
    end)

    after_each(function()
        journal.leave(here, 2)
        helper.eventually(function() return not here.scorer.running end) -- it still uses this Redis
        helper.remove(dir .. "/journal")
    end)

    local function post(body) return app:test("POST", "/receive", {body = body}) end
    local function get(path) return app:test("GET", path) end

    it("greet as the starter kit did", function()
        local answer = get "/"
        assert.equal(200, answer.status)
        assert.equal("<h1>hello world</h1>", answer.body)
        assert.matches("^text/html", answer.headers["Content-Type"])
    end)

    it("store a batch and give it back", function()
        local answer = post '[{"sensor_name":"oven","sensor_output":200},{"sensor_name":"oven","sensor_output":"201.5"}]'
        assert.equal(200, answer.status)
        assert.same({status = "success", data = {{sensor_name = "oven", sensor_output = 200}, {sensor_name = "oven", sensor_output = 201.5}}},
            answer.json)
        local readings = get("/api/sensors/oven/readings").json
        assert.equal(2, readings.count)
        assert.equal("°C", readings.unit)
        assert.equal(200, readings.readings[1].value)
        assert.equal(201.5, readings.readings[2].value)
        assert.is_true(when.parse(readings.readings[1].time) < when.parse(readings.readings[2].time))
        local latest = get("/api/sensors/oven/latest").json
        assert.equal(201.5, latest.value)
        assert.is_false(latest.synthetic)
    end)

    it("refuse what is no list of readings in the kit's words", function()
        local answer = post '"text"'
        assert.equal(400, answer.status)
        assert.equal("Expected a list of JSON objects", answer.json.error)
        answer = post '[{"sensor_name":'
        assert.equal(400, answer.status)
        assert.matches("^Couldn't process request%. Error: ", answer.json.error)
    end)

    it("keep event times, put late readings in their place, and answer for a span of time", function()
        post '[{"sensor_name":"oven","sensor_output":3,"timestamp":1700000120},{"sensor_name":"oven","sensor_output":1,"timestamp":1700000000}]'
        post '{"sensor_name":"oven","sensor_output":2,"timestamp":"2023-11-14T22:14:20Z"}'
        post '{"sensor_name":"oven","sensor_output":1.5,"timestamp":1700000000}'
        local function values(path)
            local list = {}
            for i, one in ipairs(get(path).json.readings) do list[i] = one.value end
            return list
        end
        assert.same({1.5, 2, 3}, values "/api/sensors/oven/readings")
        assert.same({2, 3}, values "/api/sensors/oven/readings?last=2")
        assert.same({2}, values "/api/sensors/oven/readings?from=1700000001&to=2023-11-14T22:14:30Z")
        assert.equal(400, get("/api/sensors/oven/readings?from=soon").status)
        assert.equal(400, get("/api/sensors/oven/readings?last=0").status)
        assert.equal(3, get("/api/sensors/oven/latest").json.value)
    end)

    it("list the sensors, and say which are unknown", function()
        post '[{"sensor_name":"oven","sensor_output":3},{"sensor_name":"a/b c","sensor_output":1}]'
        local list = get("/api/sensors").json
        assert.equal(2, list.count)
        assert.equal("a/b c", list.sensors[1].name)
        assert.is_false(list.sensors[1].described)
        assert.is_true(list.sensors[2].described)
        assert.equal(3, list.sensors[2].latest.value)
        assert.equal(1, get("/api/sensors/a%2Fb%20c/latest").json.value)
        for _, path in ipairs {"", "/readings", "/latest", "/status"} do
            assert.equal(404, get("/api/sensors/nobody" .. path).status, path)
        end
    end)

    it("stop unknown sensors at the cap, one by one", function()
        for i = 1, 5 do assert.equal(200, post(('[{"sensor_name":"s%d","sensor_output":1}]'):format(i)).status) end
        local answer = post '[{"sensor_name":"s6","sensor_output":1},{"sensor_name":"s1","sensor_output":2},{"sensor_name":"oven","sensor_output":2}]'
        assert.equal("partial", answer.json.status)
        assert.equal(2, #answer.json.data)
        assert.matches("cap", answer.json.errors[1].error)
    end)

    it("stop them in one batch too", function()
        local items = {}
        for i = 1, 20 do items[i] = ('{"sensor_name":"m%d","sensor_output":1}'):format(i) end
        local answer = post("[" .. table.concat(items, ",") .. "]")
        assert.equal(5, #answer.json.data)
        assert.equal(15, #answer.json.errors)
        assert.equal(5, #get("/api/sensors").json.sensors)
    end)

    it("refuse a value that its sensor's scale makes infinite, and nothing else", function()
        local answer = post '[{"sensor_name":"double","sensor_output":1e308},{"sensor_name":"double","sensor_output":4}]'
        assert.equal(200, answer.status)
        assert.equal("partial", answer.json.status)
        assert.matches("too large for a double", answer.json.errors[1].error)
        assert.equal(8, get("/api/sensors/double/latest").json.value)
    end)

    it("do with a time that is not believed what the sensor's spec says, and report the clock", function()
        local function sent(name, time) return post(('[{"sensor_name":"%s","sensor_output":7,"timestamp":%s}]'):format(name, time)) end
        local answer = sent("oven", 5)
        assert.equal(200, answer.status)
        assert.matches("clock is not set.*arrival time is used", answer.json.notes[1].note)
        assert.is_true(math.abs(when.parse(get("/api/sensors/oven/latest").json.time) / 1e6 - neap.clock()) < 60)

        for _, time in ipairs {"5", '"yesterday"'} do
            answer = sent("apart", time)
            assert.equal(200, answer.status)
            assert.matches("kept apart", answer.json.notes[1].note)
            answer = sent("strict", time)
            assert.equal(400, answer.status)
        end
        assert.equal(0, get("/api/sensors/apart/readings").json.count)
        helper.eventually(function() return get("/api/sensors/apart/readings?source=quarantine").json.count == 2 end)
        assert.equal("1970-01-01T00:00:05Z", get("/api/sensors/apart/readings?source=quarantine").json.readings[1].time)
        assert.equal(400, get("/api/sensors/apart/readings?source=quarantine&step=1m").status)

        assert.equal(200, sent("apart", math.floor(neap.clock())).status)
        assert.equal(1, get("/api/sensors/apart/readings").json.count, "a time that is believed")
        local function verdict(name) return helper.eventually(function() return get("/api/sensors/" .. name).json.clock end) end
        assert.equal("clamped", verdict("oven").verdict)
        assert.equal("rejected", verdict("strict").verdict)
        local of = get("/api/sensors/apart").json
        assert.same({"quarantined", 2}, {of.clock.verdict, of.quarantined})
        assert.is_true(of.clock.skew < -1e9, "seconds, behind ours")
        assert.matches('neap_readings_clock_total{verdict="quarantined"} %d', get("/metrics").body)

        assert.equal(200, sent("behind", math.floor(neap.clock()) - 300).status)
        local skew = get("/api/sensors/behind").json.skew
        assert.is_true(skew < -299 and skew > -310, tostring(skew))
        assert.is_nil(get("/api/sensors/behind").json.clock)
    end)

    it("give hints that a shell takes as they are meant", function()
        post [=[{"sensor_name":"${x}`id`; rm 'a'","sensor_output":1}]=]
        local hint = get("/api/sensors/%24%7Bx%7D%60id%60%3B%20rm%20%27a%27/status").json.hint
        assert.is_truthy(hint:find([=[`neap train '${x}`id`; rm '\''a'\'''`]=], 1, true), hint)
        post '{"sensor_name":"hall/temp-1.a","sensor_output":1}'
        assert.matches("`neap train hall/temp%-1%.a`", get("/api/sensors/hall%2Ftemp-1.a/status").json.hint)
    end)

    it("count a batch once that is kept apart in part, however often it is sent", function()
        local function sent()
            return app:test("POST", "/receive", {headers = {["Idempotency-Key"] = ("k"):rep(250)},
                body = '[{"sensor_name":"apart","sensor_output":1,"timestamp":"?"},{"sensor_name":"oven","sensor_output":2}]'})
        end
        for _ = 1, 3 do assert.equal(200, sent().status) end
        helper.eventually(function() return here.journal:stats().behind == 0 end)
        assert.same({1, 1}, {here.store:entries("apart", "quarantine"), here.store:entries "oven"})
    end)

    it("show the other sensors where something else is in one's place", function()
        r:set("neap:{bad}:readings", "mine")
        assert.equal(200, post('[{"sensor_name":"bad","sensor_output":1},{"sensor_name":"oven","sensor_output":2}]').status)
        helper.eventually(function() return here.store:entries "oven" == 1 end)
        assert.equal("mine", r:get "neap:{bad}:readings")
        assert.equal(1, r:xlen "neap:dead")
        for _, path in ipairs {"/api/sensors", "/api/status"} do
            local answer = get(path)
            assert.equal(200, answer.status)
            local bad, oven = table.unpack(answer.json.sensors)
            assert.equal("bad", bad.name)
            assert.matches("WRONGTYPE.*neap:{bad}:readings.*`TYPE key`", bad.hint)
            assert.equal(2, oven.latest and oven.latest.value or oven.value)
        end
        local bad, oven = table.unpack(here.store:pulse({"bad", "oven"}, 2)) -- what the page is told as it happens
        assert.matches("neap:{bad}:readings", bad.why)
        assert.equal(2, oven.value)
        assert.equal(500, get("/api/sensors/bad").status)
    end)

    it("put a device's name before its sensors' names", function()
        assert.equal(200, app:test("POST", "/receive?device=hall", {body = '{"temperature":21}'}).status)
        assert.equal(200, app:test("POST", "/api/v1/T/telemetry?device=attic", {body = '{"temperature":30}'}).status)
        assert.equal(204, app:test("POST", "/write?device=attic", {body = "door open=1i"}).status)
        for _, device in ipairs {"k%FCche", "%1b[2J", "a%0ab", ("x"):rep(600)} do
            for _, path in ipairs {"/receive", "/write", "/collectd", "/api/v1/T/telemetry"} do
                assert.equal(400, app:test("POST", path .. "?device=" .. device, {body = '{"t":1}'}).status, path .. device)
            end
        end
        assert.equal(3, get("/api/sensors").json.count)
        assert.same({21, 30, 1}, {get("/api/sensors/hall.temperature/latest").json.value, get("/api/sensors/attic.temperature/latest").json.value,
            get("/api/sensors/attic.door.open/latest").json.value})
    end)

    it("show made-up readings only where there are no real ones, and mark them", function()
        here.store:replace_synthetic("oven", {times = {1700000000000000}, values = {7}})
        assert.is_true(get("/api/sensors/oven/latest").json.synthetic)
        post '[{"sensor_name":"oven","sensor_output":8}]'
        assert.equal(8, get("/api/sensors/oven/latest").json.value)
        assert.is_false(get("/api/sensors/oven/readings").json.synthetic)
        assert.equal(7, get("/api/sensors/oven/readings?source=synthetic").json.readings[1].value)
    end)

    it("judge a described sensor as soon as it is stored", function()
        post '[{"sensor_name":"oven","sensor_output":20}]'
        post '[{"sensor_name":"oven","sensor_output":999}]'
        local status
        helper.eventually(function()
            status = get("/api/sensors/oven/status").json
            return status.anomaly_detected == 1
        end)
        assert.equal("range", status.why)
        assert.equal("anomaly", status.state)
        assert.equal("999 °C is above the maximum of 300 °C", status.text)
        assert.equal(999, status.value)
        for _ = 1, 3 do post '[{"sensor_name":"oven","sensor_output":20}]' end
        helper.eventually(function() return get("/api/sensors/oven/status").json.anomaly_detected == 0 end)
        status = get("/api/sensors/oven/status").json
        assert.equal("range", status.flagged_stretches[1].why)
        assert.equal(0, get("/api/sensors/oven").json.status.anomaly_detected)
    end)

    it("answer a device's poll for a sensor that nothing watches", function()
        post '[{"sensor_name":"plain","sensor_output":20}]'
        local status = get("/api/sensors/plain/status").json
        assert.equal(0, status.anomaly_detected)
        assert.equal("not watched", status.state)
        assert.matches("neap train plain", status.hint)
    end)

    it("are healthy while readings are accepted, and answer 503 with Retry-After when the journal is full", function()
        local health = get "/health"
        assert.equal(200, health.status)
        assert.equal("pass", health.json.status)
        assert.equal(r.socket, health.json.redis.socket)
        journal.leave(here, 2)
        journal.join(here, {max_bytes = 20000}) -- which nobody applies
        local answer
        helper.eventually(function()
            answer = post('[{"sensor_name":"oven","sensor_output":3}' .. (',{"sensor_name":"oven","sensor_output":3}'):rep(100) .. "]")
            return answer.status ~= 200
        end)
        assert.equal(503, answer.status)
        assert.equal("1", answer.headers["Retry-After"])
        assert.equal("error", answer.json.status)
        health = get "/health"
        assert.same({503, "fail"}, {health.status, health.json.status})
        assert.matches("the journal is full", health.json.message)
    end)

    it("serve a page that loads nothing from elsewhere, and the verdicts it shows", function()
        local page = get "/page/"
        assert.equal(200, page.status)
        assert.equal("default-src 'self'", page.headers["Content-Security-Policy"])
        for file in page.body:gmatch '"([%w]+%.%w+)"' do assert.equal(200, get("/page/" .. file).status, file) end
        assert.is_nil(page.body:find "//")
        post '[{"sensor_name":"oven","sensor_output":3},{"sensor_name":"<b>","sensor_output":4}]'
        local all = get("/api/status").json
        assert.equal(2, all.count)
        assert.equal("<b>", all.sensors[1].sensor)
        assert.equal(0, all.sensors[1].anomaly_detected)
        assert.equal(3, all.sensors[2].recent[1].value)
        assert.equal("°C", all.sensors[2].unit)
    end)

    it("see in one look which sensors have news, for the live stream", function()
        post '[{"sensor_name":"oven","sensor_output":3}]'
        local pulse = here.store:pulse({"oven", "none"}, 10)
        assert.equal(3, pulse[1].value)
        assert.equal("", pulse[2].mark)
        local before = pulse[1].mark
        post '[{"sensor_name":"oven","sensor_output":4}]'
        assert.are_not.equal(before, here.store:pulse({"oven"}, 10)[1].mark)
        assert.equal(0, #here.store:pulse({}, 10))
    end)

    it("count what was accepted and refused", function()
        local function counted(name) return tonumber(get("/metrics").body:match("\n" .. name .. " (%d+)")) or 0 end
        local before, refused = counted "neap_readings_total", counted "neap_readings_refused_total"
        post '[{"sensor_name":"oven","sensor_output":3},{"sensor_name":"oven","sensor_output":"x"},{"sensor_name":"oven","sensor_output":4}]'
        assert.equal(before + 2, counted "neap_readings_total")
        assert.equal(refused + 1, counted "neap_readings_refused_total")
    end)
end)

describe("neap serve", function()
    local dir, servers
    before_each(function() dir, servers = helper.dir(), {} end)
    after_each(function()
        for _, s in ipairs(servers) do s:stop() end
        helper.remove(dir)
    end)

    --- A server on a free port. RETURN: the process, its address, what it printed.
    local function serve(...)
        local p, url, said = helper.serve(dir, {...})
        servers[#servers + 1] = p
        return p, url, said
    end

    local function request(method, url, body)
        local words = {"curl", "-s", "-m", "20", "-X", method, "-w", "\n%{http_code}", url}
        if body then words[#words + 1], words[#words + 2] = "--data-binary", body end
        local text = process.run(words)
        local answer, status = text:match "^(.*)\n(%d+)$"
        return tonumber(status), answer
    end

    it("says where it listens and where its Redis is, and ends with 0 on SIGTERM without losing anything", function()
        local p, url, said = serve()
        assert.matches("Redis    private, socket " .. dir, said, 1, true)
        local status, text = request("GET", url .. "/health")
        assert.equal(200, status)
        assert.equal(dir .. "/data/redis/redis.sock", json.decode(text).redis.socket)
        assert.equal(200, (request("POST", url .. "/receive", '[{"sensor_name":"t","sensor_output":1.5}]')))
        assert.equal(0, (p:stop()))
        local exported = process.run {helper.program(), "export", "t", "--data", dir .. "/data"}
        assert.matches(",1.5\n$", exported)
    end)

    it("shares one port between workers, which judge each sensor in one place and count together", function()
        helper.write(dir .. "/sensors.lua", 'for i = 1, 6 do sensor("s" .. i) { maximum = 10 } end')
        local _, url = serve("--workers", "3", "--sensors", dir .. "/sensors.lua")
        for n = 1, 10 do
            for i = 1, 6 do
                local value = n == 10 and i % 2 == 0 and 99 or n
                assert.equal(200, (request("POST", url .. "/receive", ('[{"sensor_name":"s%d","sensor_output":%d}]'):format(i, value))))
            end
        end
        for i = 1, 6 do
            local wanted = i % 2 == 0 and 1 or 0
            helper.eventually(function()
                local _, text = request("GET", ("%s/api/sensors/s%d/status"):format(url, i))
                local status = json.decode(text)
                return status.value and (wanted == 1 and 99 or 10) == status.value and status.anomaly_detected == wanted
            end)
        end
        local _, metrics = request("GET", url .. "/metrics")
        assert.matches("\nneap_readings_total 60\n", metrics)
    end)

    it("goes on where it was after a kill -9: an alert stays raised, nothing is judged twice", function()
        helper.write(dir .. "/sensors.lua", 'sensor "oven" { maximum = 10 }')
        local p, url = serve("--sensors", dir .. "/sensors.lua")
        for _, v in ipairs {1, 2, 99} do
            request("POST", url .. "/receive", ('[{"sensor_name":"oven","sensor_output":%d}]'):format(v))
        end
        helper.eventually(function()
            local _, text = request("GET", url .. "/api/sensors/oven/status")
            return json.decode(text).anomaly_detected == 1
        end)
        p:kill "KILL"
        p:wait(10)
        p, url = serve("--sensors", dir .. "/sensors.lua")
        assert.is_truthy(p)
        local _, text = request("GET", url .. "/api/sensors/oven/status")
        assert.equal(1, json.decode(text).anomaly_detected)
        request("POST", url .. "/receive", '[{"sensor_name":"oven","sensor_output":98}]')
        local status
        helper.eventually(function()
            _, text = request("GET", url .. "/api/sensors/oven/status")
            status = json.decode(text)
            return status.value == 98
        end)
        assert.equal(1, status.anomaly_detected)
        assert.equal(1, #status.flagged_stretches)
    end)

    it("adds the routes of an app.lua, and takes an edited spec or app without a restart", function()
        helper.write(dir .. "/sensors.lua", 'sensor "oven" { maximum = 10 }')
        helper.write(dir .. "/app.lua", 'return function(app, here) app:get("/hello", function() return {n = #here.specs.list} end) end')
        local p, url = serve(dir .. "/app.lua", "--sensors", dir .. "/sensors.lua")
        local _, text = request("GET", url .. "/hello")
        assert.equal('{"n":1}', text)
        helper.write(dir .. "/sensors.lua", 'sensor "oven" { maximum = 10 } sensor "door" {}')
        p:kill "HUP"
        helper.eventually(function()
            _, text = request("GET", url .. "/hello")
            return text == '{"n":2}'
        end)
        helper.write(dir .. "/sensors.lua", 'sensor "oven" { maximun = 10 }')
        p:kill "HUP"
        helper.eventually(function()
            _, text = request("GET", url .. "/health")
            local degraded = json.decode(text).degraded[1]
            return degraded and degraded:find("did you mean 'maximum'?", 1, true)
        end)
        _, text = request("GET", url .. "/hello")
        assert.equal('{"n":2}', text) -- the old version serves
    end)

    it("takes this machine's own readings from neap record", function()
        local _, url = serve()
        local said, code = process.run {helper.program(), "record", "--interval", "0.2", "--count", "3", "--url", url, "--prefix", "pc.",
            "--no-probes"}
        assert.equal(0, code, said)
        assert.equal("", said)
        local _, text = request("GET", url .. "/api/sensors/pc.load1/readings")
        assert.equal(3, json.decode(text).count)
        said = process.run {helper.program(), "record", "--interval", "0.1", "--count", "1", "--url", "http://127.0.0.1:1", "--no-probes"}
        assert.matches("is `neap serve` running", said)
    end)

    it("refuses a bad address, a broken spec file and a second server in one directory, and says why", function()
        local text, code = process.run {helper.program(), "serve", "--listen", "nowhere", "--data", dir .. "/data"}
        assert.equal(2, code)
        assert.matches("HOST:PORT", text)
        helper.write(dir .. "/sensors.lua", 'sensor "oven" {\n maximun = 10 }')
        text, code = process.run {helper.program(), "serve", "--sensors", dir .. "/sensors.lua", "--data", dir .. "/data"}
        assert.equal(1, code)
        assert.matches("sensors.lua:2: sensor 'oven': unknown key 'maximun', did you mean 'maximum'?", text, 1, true)
        assert.is_truthy((serve()))
        assert.matches("the server ended: .*serve", select(2, pcall(serve)))
        local socket = "unix://" .. dir .. "/data/redis/redis.sock"
        text, code = process.run {helper.program(), "serve", "--listen", "127.0.0.1:0", "--data", dir .. "/data", "--redis", socket}
        assert.equal(1, code, "also with a Redis of somebody's own: " .. text)
        assert.matches("another `neap serve` uses", text)
    end)
end)
