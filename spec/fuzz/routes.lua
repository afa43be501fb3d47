--- Fuzzed bodies through the ingest routes as they are: decoder, spec check, journal, answer; only the socket and Redis are left out. No answer may
--- be 5xx, every answer must be one that its client can read, and what was decoded must add up to what was accepted and refused.
---
---     build/address,undefined/neap spec/fuzz/routes.lua 1000000 [SEED]      -- `make soak`; spec/fuzz_routes_spec.lua has a short form
local api = require "neap.api"
local clocks = require "neap.clocks"
local helper = require "spec.helper"
local http = require "neap.http"
local ingest = require "neap.ingest"
local journal = require "neap.journal"
local json = require "neap.json"
local metric = require "neap.metric"
local sensors = require "neap.sensors"
local store = require "neap.store"

local SPECS <const> = [[
sensor "oven" { unit = "°C", minimum = 0, maximum = 300 }
sensor "scaled" { scale = 0.1, offset = -40, minimum = -40, maximum = 85 }
sensor "strict" { clock = "reject" }
sensor "trusting" { clock = "trust" }
sensor "apart" { clock = "quarantine" }
sensor "huge" { scale = 1e300 }
]]

local ROUTES <const> = {
    {"/receive", "json"}, {"/receive", "json"}, {"/receive", "tasmota"}, {"/receive", "ndjson"}, {"/receive", "kit"},
    {"/api/v1/fuzz/telemetry", "thingsboard"}, {"/write", "lines"}, {"/api/v2/write", "lines"}, {"/collectd", "collectd"}, {"/collectd", "putval"},
    {"/query", "query"},
}
local SEEDS <const> = {
    json = '[{"sensor_name":"oven","sensor_output":21.5,"time":1700000000},{"sensor_name":"scaled","sensor_output":"7","ts":1700000000123456}]',
    kit = '[{"sensor_name":"temperature","sensor_output":65},{"sensor_name":"pressure","sensor_output":-1e3},{"sensor_name":"strict","sensor_output":1}]',
    tasmota = '{"Time":"2024-02-11T23:49:43","SHTC3":{"Temperature":12.1,"Humidity":null},"POWER":"ON","TempUnit":"C"}',
    ndjson = '{"oven":1}\n{"ts":1700000000000,"values":{"trusting":"2.5","x":true}}\n'
        .. '{"software_version":"1","sensordatavalues":[{"value_type":"t","value":"3"}]}\n',
    thingsboard = '[{"ts":1451649600512,"values":{"oven":42,"b":"73","c":true}},{"strict":5}]',
    lines = 'oven,room=a\\ b v=1.5,n=4u,ok=T,s="x\ny\\"" 1700000000000000000\n# c\ntrusting v=2i 5\n\nscaled v=-3e2\n',
    collectd = '[{"values":[1,null,2.5],"dstypes":["gauge","derive","gauge"],"dsnames":["a","b","value"],"time":1700000000.658,"interval":1.0,'
        .. '"host":"h","plugin":"load","plugin_instance":"","type":"load","type_instance":"x"}]',
    putval = 'PUTVAL host/load-0/load interval=1.000 1700000000.658:2.48:U:0.49\nPUTVAL "a b"/c/d N:1\n',
    query = "CREATE DATABASE x; SHOW DATABASES; SELECT * FROM y",
}
local WORDS <const> = {
    '"', "{", "}", "[", "]", ",", ":", "=", " ", "\n", "\r", "\t", "\0", "\\", "\\u", "\\ud800", "\\u0000", "1e999", "-1e999", "-0", "NaN", "nan", "inf",
    "null", "true", "9223372036854775807", "-9223372036854775808", "18446744073709551615u", "0.1", "i", "u", '""', "#", "\xff", "\xc3\x28", "\u{10ffff}",
    "1700000000000000000", "253402300800", "-1", "PUTVAL ", "/", "..", "sensor_name", "sensor_output", "time", "ts", "values", "oven", "scaled", "strict",
    "trusting", "apart", "huge", "1.7e308", ":nan", "<script>", "%s%n", "{oven}",
    ("a"):rep(300), ("["):rep(200), ('{"a":'):rep(40),
}
local HEADERS <const> = {
    {}, {}, {}, {["Content-Type"] = "application/json"}, {["Content-Type"] = "text/plain"}, {["Content-Type"] = "application/x-www-form-urlencoded"},
    {["Idempotency-Key"] = "one"}, {["Idempotency-Key"] = ("k"):rep(300)}, {["Content-Encoding"] = "gzip"}, {["Content-Encoding"] = "deflate"},
    {["Content-Encoding"] = "br"}, {Authorization = "Token x"},
}
local QUERIES <const> = {"", "", "", "?precision=s", "?precision=", "?precision=zz", "?partial=204", "?db=d&p=x",
    "?org=o&bucket=b&precision=ms", "?device=d", "?device=%01&precision=s"}

--- Seeded numbers of our own, so that a run can be repeated on any machine: splitmix64.
local function random_from(seed)
    return function(n) -- 1..n
        seed = seed + 0x9E3779B97F4A7C15
        local z = seed
        z = (z ~ z >> 30) * 0xBF58476D1CE4E5B9
        z = (z ~ z >> 27) * 0x94D049BB133111EB
        return 1 + ((z ~ z >> 31) >> 1) % n
    end
end

local function mutate(text, random, list)
    for _ = 1, random(6) - 1 do
        local at, kind = random(#text + 1), random(6)
        if kind == 1 then
            text = text:sub(1, at - 1) .. string.char(random(256) - 1) .. text:sub(at + 1)
        elseif kind == 2 then
            text = text:sub(1, at - 1) .. text:sub(at + random(16))
        elseif kind == 3 then
            text = text:sub(1, at - 1) .. WORDS[random(#WORDS)] .. text:sub(at)
        elseif kind == 4 then
            text = text:sub(1, at - 1)
        elseif kind == 5 then
            text = text:sub(1, at - 1) .. text:sub(at, at + random(64)):rep(random(3)) .. text:sub(at)
        else
            local other = SEEDS[list[random(#list)]]
            text = text:sub(1, at - 1) .. other:sub(random(#other))
        end
        if #text > 4096 then text = text:sub(1, 4096) end
    end
    return text
end

local function number_of(name)
    for _, m in ipairs(metric.snapshot()) do
        if m.name == name then return m.series[""] or 0 end
    end
    return 0
end

--- The routes over a journal that nobody applies.
local function surroundings(dir)
    local specs = sensors.parse(SPECS, "s.lua")
    local here = {specs = specs, specs_path = "s.lua", data = dir, workers = 1, started_at = neap.clock(), reload = {last = {ok = true}},
        durability = {class = "none", text = ""}, metrics = metric.text, later = function() end, news = function() end, query_ingest = true}
    -- Redis' part in taking readings is to be told of new sensors.
    here.redis = setmetatable({}, {__index = function() return function() return {} end end})
    here.store = store.new(here.redis, {specs = specs, most_sensors = 300})
    here.clocks = clocks.new(here.store)
    local ready, taken = ingest.limits(specs), 0
    here.context = {specs = specs, limits = ready, whole = true, stamp = function() return here.journal:stamp() end,
        admit = function(name) return here.store:admit(name) end}
    --- A new journal now and then: this one is on a small disk, and nothing takes its records away.
    function here.renew()
        if here.journal then
            here.journal:close()
            helper.remove(dir .. "/journal")
        end
        taken = taken + 1
        here.journal = journal.open {dir = dir .. "/journal"}
        here.store:use_journal(here.journal)
        here.context.whole = taken % 4 ~= 0 -- now and then the readings go one by one
    end
    return here
end

--- ARGS: count, seed, tell(done) now and then. RETURN: {inputs =, accepted =, refused =, ["200"] = n, ..}. Raises with the input at the first fault.
local function run(count, seed, tell)
    local random, list = random_from(seed), {}
    for name in pairs(SEEDS) do list[#list + 1] = name end
    table.sort(list)
    local shm = os.execute "test -w /dev/shm" and "/dev/shm" or nil
    local dir = shm and ("%s/neap-fuzz-%s"):format(shm, require("neap.secret").random(6)) or helper.dir()
    if shm then assert(os.execute("mkdir -m 700 '" .. dir .. "'")) end
    local clean <close> = setmetatable({}, {__close = function() helper.remove(dir) end}) -- luacheck: ignore 211
    local here = surroundings(dir)
    local close <close> = setmetatable({}, {__close = function() if here.journal then here.journal:close() end end}) -- luacheck: ignore 211
    local app = http.app {}
    api.routes(app, here)
    local before = require("neap.log").sink(function() end)
    local quiet <close> = setmetatable({}, {__close = function() require("neap.log").sink(before) end}) -- luacheck: ignore 211
    local statuses = {inputs = count}
    local was = {accepted = number_of "neap_readings_total", refused = number_of "neap_readings_refused_total"}
    for i = 1, count do
        if i % 20000 == 1 then
            here.renew()
            if tell and i > 1 then tell(i - 1) end
        end
        local route = ROUTES[random(#ROUTES)]
        local seed_name = random(8) == 1 and list[random(#list)] or route[2]
        local body, headers, target = mutate(SEEDS[seed_name], random, list), HEADERS[random(#HEADERS)], route[1]
        target = target .. (target:find "write" and QUERIES[random(#QUERIES)] or "")
        local ok, answer = pcall(app.test, app, "POST", target, {body = body, headers = headers}) -- also reads the answer, if it says that it is JSON
        local wrong = not ok and tostring(answer) or answer.status >= 500 and ("%d %s"):format(answer.status, answer.body)
            or answer.status == 204 and answer.body ~= "" and "204 with a body" or answer.status >= 400 and answer.body == "" and "an error without a word"
        if wrong then error(("input %d, seed %d, POST %s: %s\n%q"):format(i, seed, target, wrong, body), 0) end
        local key = tostring(answer.status)
        statuses[key] = (statuses[key] or 0) + 1
    end
    statuses.accepted = number_of "neap_readings_total" - was.accepted
    statuses.refused = number_of "neap_readings_refused_total" - was.refused
    return statuses
end

if arg and arg[0] and arg[0]:find "fuzz/routes%.lua$" then
    local count, seed = math.tointeger(tonumber(arg[1] or 100000)), math.tointeger(tonumber(arg[2] or 20261123))
    local began = neap.clock()
    local ok, said = pcall(run, count, seed, function(done)
        io.stderr:write(("\r  routes: %d of %d inputs, %.0f s "):format(done, count, neap.clock() - began))
    end)
    io.stderr:write "\n"
    if ok then print("routes: " .. json.encode(said)) else print("routes: " .. tostring(said)) end
    print(("routes: %d inputs, %.0f s: %d passed, %d failed"):format(count, neap.clock() - began, ok and 1 or 0, ok and 0 or 1))
    os.exit(ok and 0 or 1, true)
end
return run
