-- The clients themselves, where they are installed (Debian: influxdb-client, python3-influxdb, collectd-core with libyajl2): each against
-- a server of its own.
local helper = require "spec.helper"
local http = require "neap.http"
local process = require "neap.process"

local it_with = helper.it_with(it, pending)

describe("the clients from Debian", function()
    local dir, server, url, host, port

    before_each(function()
        dir = helper.dir()
        server, url = helper.serve(dir)
        host, port = url:match "//(.*):(%d+)"
    end)
    after_each(function()
        server:stop()
        helper.remove(dir)
    end)

    local function latest(sensor)
        local path = sensor:gsub("[^%w.-]", function(c) return ("%%%02X"):format(c:byte()) end)
        local answer = http.request {url = url .. "/api/sensors/" .. path .. "/latest"}
        return answer.status == 200 and answer:json() or nil
    end

    it_with("influx -version", "influx -import fills in a history", function()
        helper.write(dir .. "/in", "# DDL\nCREATE DATABASE pirates\n\n# DML\n# CONTEXT-DATABASE: pirates\n\n"
            .. "treasures,captain=flint value=29 1439856000\ntreasures,captain=sparrow value=38 1439856001\n")
        local said = process.run {"influx", "-host", host, "-port", port, "-import", "-path=" .. dir .. "/in", "-precision=s", stderr = "stdout"}
        assert.matches("Processed 2 inserts", said)
        assert.matches("Failed 0 inserts", said)
        assert.equal(38, latest "treasures,captain=sparrow".value)
        assert.equal("2015-08-18T00:00:01Z", latest "treasures,captain=sparrow".time)
    end)

    it_with("/usr/bin/python3 -c 'import influxdb'", "python3-influxdb writes, plain and packed, and reads the errors", function()
        helper.write(dir .. "/c.py", [[
import sys
from influxdb import InfluxDBClient
for packed in (False, True):
    c = InfluxDBClient(sys.argv[1], int(sys.argv[2]), "u", "p", "d", gzip=packed)
    assert c.ping().startswith("1.")
    c.create_database("d")
    point = {"measurement": "cpu", "tags": {"host": "a b"}, "fields": {"load": 0.5 + packed, "n": 3, "ok": True, "s": "x\"y\nz"},
             "time": "2023-11-14T22:13:2%dZ" % packed}
    assert c.write_points([point])
    try:
        c.write("good v=1\ngood v=\n", params={"db": "d"}, protocol="line")
    except Exception as e:
        assert e.code == 400 and "line 2" in str(e), e
    else:
        raise AssertionError("no error")
print("fine")
]])
        assert.equal("fine\n", process.run {"/usr/bin/python3", dir .. "/c.py", host, port, stderr = "stdout"})
        assert.equal(1.5, latest "cpu,host=a b.load".value)
        assert.equal(1, latest "good.v".value)
    end)

    it_with(helper.COLLECTD, "collectd posts its JSON and its commands", function()
        local p <close> = helper.collectd(dir, ([[
  <Node "json">
    URL "HERE/collectd"
    Format "JSON"
    BufferSize 1024
  </Node>
  <Node "command">
    URL "HERE/collectd"
    Format "Command"
    BufferSize 1024
  </Node>
]]):gsub("HERE", url))
        helper.eventually(function() return latest "edge/load/load.shortterm" or p:wait(0) end, 20)
        p:stop(10)
        assert.is_number(latest "edge/load/load.longterm".value)
    end)
end)
