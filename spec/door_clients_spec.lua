-- The server's door as real clients meet it: tokens in each client's own form, TLS, the refusal to start open to all. A client that is not
-- installed (Debian: python3-influxdb, collectd-core with libyajl2, prometheus with promtool; npm: @influxdata/influxdb-client, which
-- scripts/setup.sh puts under build/npm) leaves its spec out.
local helper = require "spec.helper"
local process = require "neap.process"

local it_with = helper.it_with(it, pending)
local NODE <const> = 'NODE_PATH="build/npm/node_modules:$NODE_PATH"'

describe("the server's door", function()
    local dir, data, server, url, token

    local function start(...)
        local said
        server, url, said = helper.serve(dir, {...})
        return said
    end

    local function new_token(...)
        return process.run({helper.program(), "token", "add", "--data", data, stderr = "null", ...}):match "^%x+"
    end

    before_each(function()
        dir = helper.dir()
        data, server = dir .. "/data", nil
        token = new_token "edge"
    end)
    after_each(function()
        if server then server:stop() end
        helper.remove(dir)
    end)

    --- curl's answer: its text, and the status alone.
    local function curl(...)
        local text = process.run {"curl", "-s", "-m", "10", "-w", "\n%{http_code}", ...}
        local body, status = text:match "^(.*)\n(%d+)$"
        return body, tonumber(status)
    end
    local function latest(sensor)
        local path = sensor:gsub("[^%w.-]", function(c) return ("%%%02X"):format(c:byte()) end)
        local body, status = curl("-H", "Authorization: Token " .. token, url .. "/api/sensors/" .. path .. "/latest")
        return status == 200 and tonumber(body:match '"value":([-%d.eE+]+)') or nil
    end

    it("does not open to other machines without a token, and says what to do", function()
        local p = process.spawn {helper.program(), "serve", "--listen", "0.0.0.0:0", "--data", dir .. "/new", stdout = "null", stderr = "pipe"}
        assert.equal(1, (p:wait(10)))
        p = process.spawn {helper.program(), "serve", "--listen", "0.0.0.0:0", "--data", dir .. "/new", stdout = "pipe", stderr = "stdout"}
        local said = ""
        for line in p:lines() do said = said .. line .. "\n" end
        assert.matches("opens neap to other machines", said)
        assert.matches("neap token add NAME %-%-data " .. dir:gsub("%p", "%%%0") .. "/new", said)
        assert.matches("%-%-no%-auth", said)
    end)

    it("lets curl in with a token, tells it what is wrong without one, and forgets a revoked one", function()
        local said = start "--auth"
        assert.matches("tokens +asked for", said)
        local reading = '[{"sensor_name":"oven","sensor_output":200}]'
        local body, status = curl("-d", reading, url .. "/receive")
        assert.equal(401, status)
        assert.matches("neap token add", body)
        assert.equal(200, select(2, curl("-H", "Authorization: Token " .. token, "-d", reading, url .. "/receive")))
        assert.equal(200, select(2, curl("-H", "Authorization: Bearer " .. token, "-d", reading, url .. "/receive")))
        assert.equal(200, select(2, curl("-u", "oven:" .. token, "-d", reading, url .. "/receive")))
        assert.equal(204, select(2, curl("--data-binary", "oven value=201", url .. "/write?db=d&u=x&p=" .. token)))
        assert.equal(200, select(2, curl("-d", '{"oven":202}', url .. "/api/v1/" .. token .. "/telemetry")))
        assert.equal(202, latest "oven")
        assert.equal(200, select(2, curl(url .. "/health")))

        assert.equal("revoked 'edge'\n", process.run {helper.program(), "token", "revoke", "edge", "--data", data})
        helper.eventually(function() return select(2, curl("-H", "Authorization: Token " .. token, url .. "/api/sensors")) == 401 end)
    end)

    it("keeps other sites' pages out where no token is asked for, and lets every device and its own page in", function()
        start("--allow-get", "--allow-host", "neap.example")
        local port = url:match "%d+$"
        local function send(...)
            local list = {"-d", '[{"sensor_name":"oven","sensor_output":200}]', url .. "/receive"}
            for _, header in ipairs {...} do list[#list + 1], list[#list + 2] = "-H", header end
            local body, status = curl(table.unpack(list))
            return status, body
        end
        local function read(path, ...) return select(2, curl(url .. path, ...)) end
        for _, host in ipairs {
            "127.0.0.1", "192.168.1.7:" .. port, "[::1]:" .. port, "localhost:" .. port, "nas", "Nas.local:" .. port, "neap.example", "neap.lan",
        } do
            assert.equal(200, (send("Host: " .. host)), host)
        end
        assert.equal(200, (send("Origin: " .. url)))
        assert.equal(200, (send("Origin: https://neap.example"))) -- a proxy that sends its own address as Host
        for _, origin in ipairs {"https://evil.example", "null", "http://127.0.0.1:1", "https://neap.example.evil.example", "http://localhost.evil.example"} do
            local status, body = send("Origin: " .. origin)
            assert.equal(403, status, origin)
            assert.matches('"detail":"pages of other sites', body, 1, true)
        end
        for _, host in ipairs {"evil.example:" .. port, "127.0.0.1.evil.example", "neap.example.evil.example", "local.example"} do
            local status, body = send("Host: " .. host, "Origin: http://" .. host) -- a name that was made to point here
            assert.equal(421, status, host)
            assert.matches("--allow-host", body, 1, true)
            assert.equal(421, read("/api/sensors", "-H", "Host: " .. host))
        end
        assert.equal(200, read("/api/sensors", "-H", "Origin: https://evil.example")) -- which the browser keeps from that page
        assert.equal(403, read("/api/sensors", "-H", "Origin: https://evil.example", "-H", "Upgrade: websocket"))
        local get = "/receive?sensor_name=oven&sensor_output=1"
        assert.equal(200, read(get))
        assert.equal(200, read(get, "-H", "Sec-Fetch-Site: same-origin"))
        assert.equal(403, read(get, "-H", "Sec-Fetch-Site: cross-site")) -- <img src=..>
        assert.equal(403, read(get, "-H", "Origin: https://evil.example"))
    end)

    it("keeps other sites' pages from GET /receive too where app.lua lets devices use it", function()
        local f = assert(io.open(dir .. "/app.lua", "w"))
        f:write "return function(app, here) here.query_ingest = true end"
        f:close()
        start(dir .. "/app.lua")
        local get = url .. "/receive?sensor_name=oven&sensor_output=1"
        assert.equal(200, (select(2, curl(get))))
        assert.equal(403, (select(2, curl("-H", "Sec-Fetch-Site: cross-site", get))))
        assert.equal(403, (select(2, curl("-H", "Origin: https://evil.example", get))))
    end)

    it("counts a batch that is sent again once, for each token by itself", function()
        local other = new_token "other"
        start "--auth"
        local function send(who, key)
            return select(2, curl("-H", "Authorization: Token " .. who, "-H", "Idempotency-Key: " .. key, "-d", '{"oven":1}', url .. "/receive"))
        end
        local function count()
            local body = curl("-H", "Authorization: Token " .. token, url .. "/api/sensors/oven/readings")
            return tonumber(body:match '"count":(%d+)')
        end
        local long = ("k"):rep(400)
        for _, key in ipairs {"one", "one", long, long, long .. "x"} do assert.equal(200, send(token, key)) end
        assert.equal(200, send(other, "one"))
        helper.eventually(function() return count() == 4 end)
    end)

    it("gives every answer a length, and small ones to devices", function()
        start "--auth"
        for _, case in ipairs {
            {"/receive", '{"oven":1}', 200}, {"/receive", "nonsense", 400}, {"/collectd", "PUTVAL h/a/a 1700000000:1", 200}, {"/write", "oven v=", 400},
            {"/api/v2/write", "oven v=1", 204}, {"/api/v1/" .. token .. "/telemetry", '{"oven":1}', 200}, {"/api/v1/x/telemetry", "{}", 401, true},
        } do
            local answer = process.run {"curl", "-s", "-i", "-m", "10", "-H", case[4] and "X: y" or "Authorization: Token " .. token, "--data-binary",
                case[2], url .. case[1]}
            assert.matches("^HTTP/1.1 " .. case[3], answer)
            if case[3] ~= 204 then assert.matches("\r\nContent%-Length: %d+\r\n", answer, case[1]) end
            assert.is_true(#answer < 512, answer)
        end
    end)

    it("keeps a device to its rate", function()
        start("--rate-limit", "0.1")
        assert.equal(200, select(2, curl("-d", '{"oven":1}', url .. "/receive")))
        local answer = process.run {"curl", "-s", "-i", "-m", "10", "-d", '{"oven":1}', url .. "/receive"}
        assert.matches("^HTTP/1.1 429", answer)
        assert.matches("\r\nRetry%-After: %d+\r\n", answer)
    end)

    it("tells strangers that it is well, and only its owner how it is made", function()
        start("--auth", "--listen", "0.0.0.0:0")
        url = url:gsub("0%.0%.0%.0", "127.0.0.1")
        local own = curl(url .. "/health")
        assert.matches(data, own, 1, true)
        assert.matches('"accepted":0', own, 1, true)
        local function stranger(text)
            assert.matches('"status":"pass"', text, 1, true)
            assert.matches('"message":"ready for queries and writes"', text, 1, true)
            for _, secret in ipairs {dir, "/", "socket", "uptime", "workers", "journal", "durability", "accepted"} do
                assert.is_nil(text:gsub("queries and writes", ""):find(secret, 1, true), text)
            end
        end
        stranger(curl("-H", "X-Forwarded-For: 192.0.2.1", url .. "/health"))
        stranger(curl("-H", "Via: 1.1 proxy", "-H", "Authorization: Token guess", url .. "/health"))
        assert.matches(data, curl("-H", "Via: 1.1 proxy", "-H", "Authorization: Token " .. token, url .. "/health"), 1, true)
        local writer, some = new_token("writer", "--only", "write"), new_token("some", "--sensor", "oven*")
        helper.eventually(function() return select(2, curl("-H", "Authorization: Token " .. some, url .. "/api/sensors/oven/status")) == 404 end)
        stranger(curl("-H", "Via: 1.1 proxy", "-H", "Authorization: Token " .. writer, url .. "/health"))
        stranger(curl("-H", "Via: 1.1 proxy", "-H", "Authorization: Token " .. some, url .. "/health"))
        local address = process.run {"hostname", "-I"}:match "%d+%.%d+%.%d+%.%d+"
        if address then stranger(curl("-m", "5", (url:gsub("127%.0%.0%.1", address)) .. "/health")) end
    end)

    it("counts rates and wrong guesses for the whole server, whichever worker is asked", function()
        start("--auth", "--workers", "2", "--rate-limit", "0.01")
        local began, wrong, slowed, passed, limited = neap.clock(), 0, 0, 0, 0
        for i = 1, 45 do -- connections of their own: the kernel gives them to both workers
            local status = select(2, curl("-H", "Authorization: Token guess" .. i, "-d", '{"oven":1}', url .. "/receive"))
            if status == 401 then wrong = wrong + 1 elseif status == 429 then slowed = slowed + 1 end
        end
        for _ = 1, 12 do
            local status = select(2, curl("-H", "Authorization: Token " .. token, "-d", '{"oven":1}', url .. "/receive"))
            if status == 200 then passed = passed + 1 elseif status == 429 then limited = limited + 1 end
        end
        local later = neap.clock() - began
        assert.equal(45, wrong + slowed)
        assert.is_true(wrong <= 20 + later / 3 + 1, wrong .. " guesses were answered")
        assert.equal(12, passed + limited)
        assert.is_true(passed <= 1 + later / 100 + 1, passed .. " requests passed")
    end)

    it("takes readings from a GET where it was told to", function()
        start "--allow-get"
        assert.equal(200, select(2, curl(url .. "/receive?sensor_name=oven&sensor_output=21.5")))
        assert.equal(21.5, latest "oven")
    end)

    it_with("openssl version", "speaks TLS with a certificate, in all workers", function()
        assert.is_true(os.execute(("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 "
            .. "-keyout %s/key -out %s/cert 2>/dev/null"):format(dir, dir)))
        start("--auth", "--workers", "2", "--tls-cert", dir .. "/cert", "--tls-key", dir .. "/key")
        assert.matches("^https:", url)
        for i = 1, 4 do
            assert.equal(200, select(2, curl("--cacert", dir .. "/cert", "-H", "Authorization: Token " .. token, "-d", ('{"oven":%d}'):format(i),
                url .. "/receive")))
        end
        local _, status = curl("-d", "{}", (url:gsub("^https", "http")) .. "/receive")
        assert.is_true(status == 0 or status == 400, "plain text got " .. status)
        local p = process.spawn {helper.program(), "serve", "--listen", "127.0.0.1:0", "--data", dir .. "/d2", "--tls-cert", dir .. "/cert",
            stdout = "null", stderr = "null"}
        assert.equal(2, (p:wait(10)), "a certificate without a key")
        for _, bad in ipairs {dir, "/dev/null", dir .. "/none"} do -- and never plain text instead
            local said, code = process.run {helper.program(), "serve", "--listen", "127.0.0.1:0", "--data", dir .. "/d2", "--tls-cert", bad, "--tls-key",
                dir .. "/key"}
            assert.equal(1, code, said)
        end

        --- What comes back for these bytes over TLS.
        local function say(text)
            helper.write(dir .. "/bytes", text)
            return (process.run {"sh", "-c", ("(cat %s/bytes; sleep 1) | timeout 5 openssl s_client -quiet -connect %s 2>/dev/null"):format(dir,
                url:match "//(.*)")})
        end
        local head = "POST /receive HTTP/1.1\r\nHost: a\r\nAuthorization: Token " .. token .. "\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert.matches("^HTTP/1.1 200", say(head .. '8\r\n{"o":12}\r\n0\r\n\r\n'))
        for _, chunks in ipairs {'8\n{"o":12}\r\n0\r\n\r\n', '8\r\n{"o":12}\n0\r\n\r\n', '8\r\n{"o":12}\r\n0\r\nX: a\r\n b\r\n\r\n', "zz\r\n"} do
            assert.matches("^HTTP/1.1 400", say(head .. chunks), chunks)
        end
    end)

    it_with("promtool --version", "shows promtool metrics without a fault", function()
        start "--auth"
        curl("-d", "[]", url .. "/receive")
        curl("-H", "Authorization: Token " .. token, "-d", '{"oven":1}', url .. "/receive")
        curl("-H", "Authorization: Token " .. token, "-d", "nonsense", url .. "/receive")
        local text, status = curl("-H", "Authorization: Bearer " .. token, url .. "/metrics")
        assert.equal(200, status)
        assert.matches('neap_requests_refused_total{reason="no token"} 1', text)
        assert.matches("neap_batches_not_understood_total 1", text)
        helper.write(dir .. "/metrics", text)
        local p = process.spawn {"sh", "-c", "promtool check metrics <" .. dir .. "/metrics", stdout = "pipe", stderr = "stdout"}
        local said = ""
        for line in p:lines() do said = said .. line .. "\n" end
        assert.equal("", said)
        assert.equal(0, (p:wait(10)))
    end)

    it_with("prometheus --version", "is scraped by Prometheus itself, which shows its token", function()
        start "--auth"
        curl("-H", "Authorization: Token " .. token, "-d", '{"oven":1}', url .. "/receive")
        local reader = new_token("prometheus", "--only", "read")
        helper.write(dir .. "/p.yml", ([[
global: {scrape_interval: 200ms, scrape_timeout: 200ms}
scrape_configs:
  - job_name: neap
    authorization: {type: Bearer, credentials: %s}
    static_configs: [{targets: ["%s"]}]
]]):format(reader, url:match "//(.*)"))
        local probe = require("neap.http").app {}:listen {host = "127.0.0.1", port = 0} -- a port that is free
        local at = "http://127.0.0.1:" .. probe:port()
        probe:close()
        local p = process.spawn {"prometheus", "--config.file", dir .. "/p.yml", "--storage.tsdb.path", dir .. "/tsdb", "--web.listen-address",
            at:match "//(.*)", stdout = "null", stderr = "null"}
        local seen
        helper.eventually(function()
            seen = curl(at .. "/api/v1/query?query=neap_readings_total")
            return seen:find('"1"%]', 1) or p:wait(0)
        end, 30)
        p:kill "TERM"
        p:wait(10)
        assert.matches('"job":"neap"', seen, 1, true)
    end)

    it_with("/usr/bin/python3 -c 'import influxdb'", "lets python3-influxdb in by its password, and tells it when that is wrong", function()
        start "--auth"
        helper.write(dir .. "/c.py", [[
import sys
from influxdb import InfluxDBClient
def client(password): return InfluxDBClient(sys.argv[1], int(sys.argv[2]), "edge", password, "d", gzip=True)
c = client(sys.argv[3])
assert c.ping().startswith("1.")
assert c.get_list_database() == [{"name": "neap"}], c.get_list_database()
assert c.write_points([{"measurement": "oven", "fields": {"value": 210.5}}])
try:
    client("wrong").write_points([{"measurement": "oven", "fields": {"value": 1.0}}])
except Exception as e:
    assert e.code == 401 and "not known" in str(e), e
else:
    raise AssertionError("no error")
print("fine")
]])
        local host, port = url:match "//(.*):(%d+)"
        assert.equal("fine\n", process.run {"/usr/bin/python3", dir .. "/c.py", host, port, token, stderr = "stdout"})
        assert.equal(210.5, latest "oven")
    end)

    it_with(NODE .. [[ node -e 'require("@influxdata/influxdb-client")']], "lets @influxdata/influxdb-client in, and names it the bad line", function()
        start "--auth"
        helper.write(dir .. "/c.js", [==[
const {InfluxDB, Point} = require("@influxdata/influxdb-client");
const [url, token] = process.argv.slice(2);
const api = (t, o) => new InfluxDB({url, token: t}).getWriteApi("org", "bucket", "ns", {maxRetries: 0, ...o});
async function main() {
    const good = api(token, {gzipThreshold: 1});  // packed: a chunked body without a length
    for (let i = 0; i < 100; i++) {
        const point = new Point("oven").tag("room", "a b").floatField("t", i).booleanField("on", true);
        good.writePoint(point.uintField("n", 4).stringField("s", "x\ny"));
    }
    await good.close();
    for (const [t, lines, code] of [[token, ["good v=1", "good v="], 400], ["wrong", ["good v=2"], 401]]) {
        let seen;
        const bad = api(t, {writeFailed: e => { seen = e; return Promise.resolve(); }});
        bad.writeRecords(lines);
        await bad.close();
        if (!seen || seen.statusCode !== code) throw new Error(`wanted ${code}: ${seen}`);
        if (code === 400 && seen.json.line !== 2) throw new Error(`line: ${seen.body}`);
    }
    console.log("fine");
}
main().catch(e => { console.log(String(e)); process.exit(1); });
]==])
        assert.equal("fine\n", process.run {"sh", "-c", NODE .. ' exec node "$@"', "sh", dir .. "/c.js", url, token, stderr = "stdout"})
        assert.equal(99, latest "oven,room=a b.t")
        assert.equal(1, latest "good.v")
    end)

    it_with(helper.COLLECTD, "lets collectd in, which sends its password after a 401", function()
        start "--auth"
        local p <close> = helper.collectd(dir, ([[
  <Node "neap">
    URL "HERE/collectd"
    User "edge"
    Password "TOKEN"
    Format "JSON"
    BufferSize 1024
  </Node>
]]):gsub("HERE", url):gsub("TOKEN", token))
        helper.eventually(function() return latest "edge/load/load.shortterm" or p:wait(0) end, 20)
        p:stop(10)
        assert.is_number(latest "edge/load/load.longterm")
    end)
end)
