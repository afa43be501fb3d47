local decode = require "neap.decode"
local json = require "neap.json"

-- "name=value@time_us" of every accepted reading, and "index:reason" of every refusal
local function seen(batch)
  local out = {}
  for _, name, value, time_us in batch:each() do out[#out + 1] = ("%s=%.15g%s"):format(name, value, time_us and "@" .. time_us or "") end
  return out
end
local function refusals(batch)
  local out = {}
  for _, e in ipairs((batch:errors())) do out[#out + 1] = e.index .. ":" .. e.reason end
  return out
end

describe("neap.decode.json reads", function()
  it("no name that a terminal would obey", function()
    local b = decode.json '[{"a\\u001b":1},{"b\\u009b2J":2},{"c\\u007f":3},{"d\\u00e9":4}]'
    assert.same({"d\u{e9}=4"}, seen(b))
    for _, why in ipairs(refusals(b)) do assert.matches("control character", why) end
    assert.equal(1, decode.lines("a\xC2\x9Bb v=1\n").refused)
  end)

  it("the kit's array, naming each bad item", function()
    local b = decode.json [==[[{"sensor_name":"t","sensor_output":21.5,"timestamp":1700000000},{"sensor_name":"t","sensor_output":"12.5"},
      {"sensor_name":"x","sensor_output":"nan"},{"sensor_name":"x","sensor_output":null},{"sensor_output":1},{"sensor_name":"x"},7,
      {"extra":{"a":[1]},"sensor_output":-3,"sensor_name":"p","mode":9}]]==]
    assert.same({"t=21.5@1700000000000000", "t=12.5", "p=-3"}, seen(b))
    assert.equal(3, b.count)
    assert.equal(8, b.items)
    assert.equal(5, b.refused)
    assert.equal("array", b.shape)
    local r = refusals(b)
    assert.matches("^3:NaN", r[1])
    assert.matches("^4:.*null", r[2])
    assert.matches("^5:sensor_name is missing", r[3])
    assert.matches("^6:sensor_output is missing", r[4])
    assert.matches("^7:expected an object", r[5])
    local echo = [=[[{"sensor_name":"t","sensor_output":21.5},{"sensor_name":"t","sensor_output":12.5},]=] ..
      [=[{"sensor_name":"p","sensor_output":-3.0}]]=]
    assert.equal(echo, b:echo())
  end)

  it("one object, flat values and numeric strings", function()
    assert.same({"t=1"}, seen(decode.json [[{"sensor_name":"t","sensor_output":1}]]))
    assert.same({"t=1"}, seen(decode.json [[{"name":"t","value":1,"unit":"C"}]]))
    local b = decode.json [[{"temperature":"21.5","humidity":40,"state":"ON","pressure":null,"ok":true,"broken":"nan"}]]
    assert.same({"temperature=21.5", "humidity=40"}, seen(b))
    assert.equal(3, b.skipped)
    assert.matches("NaN", refusals(b)[1])
    assert.equal(1, decode.json([[{"state":"ON"}]]).refused)
  end)

  it("ThingsBoard telemetry, alone and in arrays", function()
    local one = decode.json [[{"values":{"a":1,"b":"2"},"ts":1700000000123}]]
    assert.same({"a=1@1700000000123000", "b=2@1700000000123000"}, seen(one))
    assert.same({"a=1@1000000", "b=2"}, seen(decode.json '[{"ts":1,"values":{"a":1}},{"b":2}]'))
  end)

  it("Tasmota's nested level, whose local time is no event time", function()
    local b = decode.json [[{"Time":"2024-02-11T23:49:43","SHTC3":{"Temperature":12.1,"Humidity":19.8},
      "VL53L0X":{"Distance":null},"TempUnit":"C"}]]
    assert.same({"SHTC3.Temperature=12.1", "SHTC3.Humidity=19.8"}, seen(b))
    assert.matches("one level", refusals(decode.json [[{"a":{"b":{"c":1}},"d":1}]])[1])
  end)

  it("sensor.community with a prefix", function()
    local b = decode.json([[{"esp8266id":"123","software_version":"1","sensordatavalues":[{"value_type":"temperature","value":"12.3"},
      {"value_type":"P1","value":7},{"value":1}]}]], {prefix = "garden/"})
    assert.same({"garden/temperature=12.3", "garden/P1=7"}, seen(b))
    assert.same({"1:value_type is missing"}, refusals(b))
  end)

  it("NDJSON, refusing only the bad lines", function()
    local text = '{"t":1}\n\n{"t":}\n{"t":2} x\n{"t":3,"ts":1700000000}\r\n'
    for _, b in ipairs {decode.json(text), decode.ndjson(text)} do
      assert.same({"t=1", "t=3@1700000000000000"}, seen(b))
      assert.matches("^3:column 6: expected a value", refusals(b)[1])
      assert.matches("^4:", refusals(b)[2])
      assert.equal("lines", b.shape)
    end
  end)

  it("times from seconds to nanoseconds and ISO 8601", function()
    local want = 1700000000123456
    for text, us in pairs {["1700000000"] = 1700000000000000, ["1700000000.123456"] = want, ["1700000000123"] = 1700000000123000,
      ["1700000000123456"] = want, ["1700000000123456789"] = want, ['"2023-11-14T22:13:20Z"'] = 1700000000000000,
      ['"2023-11-14 23:13:20.123456+01:00"'] = want, ['"2023-11-14T22:13:20"'] = 1700000000000000,
      ['"1700000000"'] = 1700000000000000, ['"2024-02-29T00:00:00Z"'] = 1709164800000000, ['"1969-12-31T23:59:59Z"'] = -1000000} do
      local _, _, time_us = decode.json(('{"t":1,"time":%s}'):format(text)):get(1)
      assert.equal(us, time_us, text)
    end
    for _, text in ipairs {'"soon"', '"2023-02-29T00:00:00Z"', '"2023-13-01"', "[]", "true", "1e300"} do
      local _, _, time_us, flags = decode.json(('{"t":1,"time":%s}'):format(text)):get(1)
      assert.is_nil(time_us)
      assert.equal(decode.BAD_TIME, flags, text)
    end
    assert.equal(1700000000000000, decode.time "2023-11-14T22:13:20Z")
    assert.is_nil(decode.time "yesterday")
  end)

  it("no body that is not JSON, and says where", function()
    local ok, err = pcall(decode.json, '[{"sensor_name":"t","sensor_output":NaN}]')
    assert.is_false(ok)
    assert.equal("invalid", err.kind)
    assert.matches("line 1 column 37", tostring(err), 1, true)
    local b, e = decode.try.json "7"
    assert.is_nil(b)
    assert.matches("Expected a list of JSON objects", tostring(e), 1, true)
    for _, bad in ipairs {"", "[", "[1}", '{"a":1}}', '[{"a":1},]', "[\xff]"} do assert.is_nil((decode.try.json(bad)), bad) end
  end)

  it("the good items of a list with a number beyond a double or half a surrogate pair", function()
    local b = decode.json '[{"sensor_name":"a","sensor_output":1,"n":1e999,"s":"\\ud800"},{"sensor_name":"b","sensor_output":-1e400},{"\\udc00":2}]'
    assert.same({"a=1", "\u{fffd}=2"}, seen(b))
    assert.same({"2:the value is too large for a double"}, refusals(b))
    assert.same({"t.x=1"}, seen(decode.json '{"t":{"x":1,"y":2e308}}'))
    assert.is_false((pcall(json.decode, "[1e400]")))
  end)

  it("one object a line, whichever line is bad", function()
    for _, text in ipairs {'{"a":nan}\n{"b":2}\n', 'garbage\n{"b":2}', 'null\n\n{"b":2}', '{"b":2}\ngarbage', '\n {"a"\n{"b":2}'} do
      local b = decode.json(text)
      assert.same({"b=2"}, seen(b), text)
      assert.equal(1, b.refused, text)
    end
    for _, text in ipairs {'[{"a":nan},\n{"b":2}]', '[{"a":1}]\n{"b":2}', 'garbage\n"x"', '{"a":nan,\n"b":2}'} do
      assert.is_nil((decode.try.json(text)), text)
    end
  end)

  it("no words that begin like NaN or infinity as such", function()
    local b = decode.json '{"label":"infrared","unit":"nanometer","page":"Info","v":1,"x":"-NaN","y":" +Infinity ","z":"inf"}'
    assert.same({"v=1"}, seen(b))
    assert.equal(3, b.refused)
    for _, one in ipairs(refusals(b)) do assert.matches("NaN and infinity", one) end
  end)

  it("sensor.community's list around an item that is none", function()
    local b = decode.json '{"sensordatavalues":[5,{"value_type":"P1","value":"3"},[1],null]}'
    assert.same({"P1=3"}, seen(b))
    assert.equal(3, b.refused)
  end)

  it("names as data, but no empty, endless or control ones", function()
    local b = decode.json('[{"sensor_name":"a\\u0000b","sensor_output":1},{"sensor_name":"","sensor_output":1},{"sensor_name":"' ..
      ("x"):rep(501) .. '","sensor_output":1},{"sensor_name":"\\"é\\u00e9}{*","sensor_output":1}]')
    assert.same({'"éé}{*=1'}, seen(b))
    assert.equal(3, b.refused)
  end)
end)

describe("neap.decode.lines reads", function()
  it("points with tags in key order, dropping the field name value", function()
    local b = decode.lines 'weather,room=b,city=a value=21.5,hum=40i,on=t,s="x\ny" 1700000000123456789\n# note\n\nm v=1u'
    local series = "weather,city=a,room=b"
    assert.same({series .. "=21.5@1700000000123456", series .. ".hum=40@1700000000123456", "m.v=1"}, seen(b))
    assert.equal(2, b.skipped)
    assert.equal("40", b:raw(2))
  end)

  it("each line by itself and in the declared precision", function()
    local b = decode.lines("a v=1 1\nb v=\nc v=2 2\nd v=nan\ne v=1e400\nf v=3 3", {precision = "s"})
    assert.same({"a.v=1@1000000", "c.v=2@2000000", "f.v=3@3000000"}, seen(b))
    local r = refusals(b)
    assert.equal(3, #r)
    assert.matches("^2:a field has no value", r[1])
    assert.matches("^4:", r[2])
    assert.is_false(pcall(decode.lines, "a v=1", {precision = "d"}))
  end)

  it("escapes", function()
    assert.same({"a b,k,=v =1"}, seen(decode.lines [[a\ b,k\,=v\  value=1]]))
    local points = decode.points([[m\ x,k=v a="q\"\\",b=-3i,c=F 12]])
    assert.same({{measurement = "m x", tags = {k = "v"}, fields = {a = 'q"\\', b = -3, c = false}, time_ns = 12, line = 1}}, points)
  end)
end)

describe("neap.decode.collectd reads", function()
  local body = [==[[{"values":[2.48,null,0.49],"dstypes":["gauge","gauge","gauge"],"dsnames":["shortterm","midterm","longterm"],
    "time":1700000000.658,"interval":1.000,"host":"edge-7","plugin":"load","plugin_instance":"","type":"load",
    "type_instance":"","meta":{"x":[1]}},{"values":[7],"dsnames":["value"],"time":1,"host":"h","plugin":"cpu","plugin_instance":"0",
    "type":"cpu","type_instance":"idle"},{"values":[1]}]]==]
  it("JSON", function()
    local b = decode.collectd(body)
    assert.same({"edge-7/load/load.shortterm=2.48@1700000000658000", "edge-7/load/load.longterm=0.49@1700000000658000",
      "h/cpu-0/cpu-idle=7@1000000"}, seen(b))
    assert.matches("^3:host, plugin or type", refusals(b)[1])
    assert.is_nil((decode.try.collectd '{"a":1}'))
  end)
  it("commands", function()
    local b = decode.putval 'PUTVAL h/load/load interval=1.000 1700000000.5:2.48:U:1\nPUTVAL "h/a b/c" N:7\nFLUSH\nPUTVAL x 1:y\n'
    assert.same({"h/load/load=2.48@1700000000500000", "h/load/load.2=1@1700000000500000", "h/a b/c=7"}, seen(b))
    assert.equal(2, b.refused)
    b = decode.putval 'PUTVAL h/if/octets 1700000000:nan:NaN\nPUTVAL h/p/x 1700000000:1:zz:3\n'
    assert.same({"h/p/x=1@1700000000000000", "h/p/x.2=3@1700000000000000"}, seen(b))
    assert.same({"2:the value is not a number"}, refusals(b))
    assert.same({"h/p/t.a=1"}, seen(decode.collectd '[{"values":[1,1e999],"dsnames":["a","b"],"host":"h","plugin":"p","type":"t"}]'))
  end)
end)

describe("a batch", function()
  it("is checked against known sensors in C", function()
    local known = decode.sensors {{name = "t", min = 0, max = 50}, {name = "h"}}
    local b = decode.json [[{"t":60,"h":1e9,"new":1}]]
    assert.equal(2, b:check(known))
    local got = {}
    for _, name, _, _, flags, sensor in b:each() do got[name] = {flags, sensor} end
    assert.same({t = {decode.HIGH, 1}, h = {0, 2}, new = {decode.UNKNOWN, 0}}, got)
    assert.equal(3, known:add("new", -1, 1))
    assert.equal(1, b:check(known))
    assert.equal(3, known:find "new")
    assert.is_nil(known:find "other")
    for i = 1, 1000 do assert.equal(3 + i, known:add("s" .. i)) end
    assert.equal(503, known:find "s500")
  end)

  it("lets a policy refuse readings and set their times", function()
    local b = decode.json [[{"a":1,"b":2,"c":3}]]
    b:refuse(2, "too old")
    b:set_time(1, 5)
    assert.same({"a=1@5", "c=3"}, seen(b))
    assert.equal(2, #b)
    assert.same({"a", "c"}, b:names())
    assert.same({"1:too old"}, refusals(b))
    assert.is_false(pcall(b.refuse, b, 4, "x"))
  end)

  it("of many readings keeps them all", function()
    local items = {}
    for i = 1, 5000 do items[i] = {sensor_name = "s" .. i % 100, sensor_output = i} end
    local b, sum = decode.json(json.encode(items)), 0
    for _, _, value in b:each() do sum = sum + value end
    assert.equal(5000 * 5001 // 2, math.tointeger(sum))
    assert.equal(100, #b:names())
  end)
end)

describe("a request given to a decoder", function()
  local http = require "neap.http"
  local app = http.app {}
  local kept = {}
  app:use(function(req, next)
    next(req)
    return {text = #req:text(), closed = #kept.closed, open = #kept.open, first = kept.open:get(1)}
  end)
  app:post("/", function(req)
    local closed <close> = decode.lines(req)
    kept.closed, kept.open = closed, decode.lines(req) -- as often as one likes
    assert.equal(#kept.open, #closed)
    assert.equal(#req:text(), #req.body)
    return 204
  end)

  for _, lines in ipairs {3, 50, 5000} do
    it("is read where it lies, and keeps it: " .. lines .. " lines", function()
      local body = ("a value=1\n"):rep(lines - 1) .. "last_of_all value=7\n"
      assert.same({text = #body, closed = 0, open = lines, first = "a"}, app:test("POST", "/", {body = body}).json)
    end)
    it("outlives the request in a batch that is not closed: " .. lines .. " lines", function()
      local batches, other = {}, http.app {}
      other:post("/", function(req) batches[#batches + 1] = decode.lines(req) return 204 end)
      local server <close> = other:listen {port = 0}
      for i = 1, 6 do -- the later ones in memory that is used again, if the first one's were free
        http.post(("http://127.0.0.1:%d/"):format(server:port()), {body = ("a value=1\n"):rep(lines - 1) .. "number" .. i .. " value=7\n"})
      end
      collectgarbage()
      for i = 1, 6 do assert.equal("number" .. i, (batches[i]:get(lines))) end
    end)
  end

  it("may be empty, or what no decoder takes", function()
    local other = http.app {}
    other:post("/", function(req)
      local batch, err = decode.try.json(req)
      return ("%s, %s, %d"):format(batch and #batch, err and err.kind, #req:text())
    end)
    assert.equal("nil, invalid, 9000", other:test("POST", "/", {body = ("x"):rep(9000)}).body)
    assert.matches("0$", other:test("POST", "/", {body = ""}).body)
    for _, wrong in ipairs {{}, io.stdout, true} do assert.matches("string or request expected", select(2, pcall(decode.json, wrong))) end
    assert.matches("string or request expected, got no value", select(2, pcall(decode.json)))
  end)
end)

describe("neap.decode.inflate", function()
  local hello = "\031\139\008\000\000\000\000\000\002\003\203\072\205\201\201\007\000\134\166\016\054\005\000\000\000"
  it("unpacks gzip and refuses damage, other encodings and too much", function()
    assert.equal("hello", decode.inflate(hello, "gzip"))
    assert.equal("hellohello", decode.inflate(hello .. hello, "gzip"))
    local function kind(...) return select(2, decode.try.inflate(...)).kind end
    assert.equal("corrupt", kind(hello:sub(1, -3), "gzip"))
    assert.equal("corrupt", kind("hello", "gzip"))
    assert.equal("unsupported", kind(hello, "br"))
    assert.equal("full", kind(hello, "gzip", 4))
    assert.equal("corrupt", kind("", "gzip"))
  end)
end)
