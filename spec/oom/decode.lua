-- What devices send, JSON both ways, secrets, detectors.
local decode, json, secret = require "neap.decode", require "neap.json", require "neap.secret"
local known = decode.sensors {{name = "a", min = 0, max = 10}}
for _, b in ipairs {decode.json '{"a":1,"b":[1,2],"c":{"d":"2.5"}}', decode.ndjson '{"a":1}\n{bad\n',
    decode.lines "m,tag=x a=1,b=2i 1700000000000000000\nbroken\n",
    decode.collectd '[{"host":"h","plugin":"cpu","type":"gauge","time":1700000000.5,"values":[1.5],"dsnames":["value"]}]',
    decode.putval 'PUTVAL "h/cpu/gauge" interval=10 1700000000:1.5\n'} do
    b:check(known)
    for _ in b:each() do end
    b:errors()
    b:names()
    b:echo()
end
decode.points "m,t=x f=1.5,s=\"y\" 1700000000000000000\n"
pcall(decode.json, "{")
pcall(decode.inflate, "no gzip", "gzip", 1000)
local text = json.encode({a = {1, 2.5, "x\n", false, json.null}, big = 1 << 60}, {pretty = true, sort = true})
assert(json.decode(text).big == 1 << 60)
pcall(json.decode, "[1,")
assert(#secret.sha256 "x" == 64)
secret.write(arg[0] .. "/s", secret.random(8))
local d = require("neap.detector").new {}
for i = 1, 50 do d:update(i, i % 5 + (i == 40 and 90 or 0)) end
d:save()
d:close()
