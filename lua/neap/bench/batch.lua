--- Batches of readings over HTTP, acknowledged after fsync, beside InfluxDB with its defaults; and what Redis and the disk can do at best.
--- Same client (wrk, 16 connections) for all, rounds interleaved, medians printed. neap's Redis syncs every second, as its private one does.
local process, task = require "neap.process", require "neap.task"

local bench = {summary = "batches of 100 and 1,000: readings/s beside InfluxDB and redis-benchmark, bytes a reading, p99 at half load"}

local CONNECTIONS <const> = 16

local function has(command) return os.execute("command -v " .. command .. " >/dev/null 2>&1") == true end

local function median(list)
    table.sort(list)
    return list[(#list + 1) // 2]
end

local function answers(url)
    local deadline = task.now() + 20
    repeat
        if os.execute(("curl -sf -o /dev/null -m 1 %s 2>/dev/null"):format(url)) then return end
        task.sleep(0.05)
    until task.now() > deadline
    error("nothing answers at " .. url, 0)
end

-- ---- the servers ----

local function redis_server(dir)
    local socket = dir .. "/redis.sock"
    local p = process.spawn {"redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "yes", "--appendfsync", "everysec",
        "--dir", dir, stdout = "null"}
    repeat task.sleep(0.02) until os.execute("redis-cli -s " .. socket .. " ping >/dev/null 2>&1")
    return p, socket
end

local function neap_server(dir, port, socket)
    local p = process.spawn {arg[-1], "serve", "--listen", "127.0.0.1:" .. port, "--redis", "unix://" .. socket, "--data", dir .. "/neap",
        "--workers", "1", stdout = "file", stderr = "stdout", path = dir .. "/neap.log"}
    answers(("http://127.0.0.1:%d/health"):format(port))
    return p
end

local function influx_server(dir, port)
    local f = assert(io.open(dir .. "/influxdb.conf", "w"))
    f:write(([[
reporting-disabled = true
bind-address = "127.0.0.1:%d"
[meta]
dir = "%s/influx/meta"
[data]
dir = "%s/influx/data"
wal-dir = "%s/influx/wal"
[http]
bind-address = "127.0.0.1:%d"
]]):format(port + 1, dir, dir, dir, port))
    f:close()
    local p = process.spawn {"influxd", "-config", dir .. "/influxdb.conf", stdout = "null", stderr = "null"}
    answers(("http://127.0.0.1:%d/ping"):format(port))
    os.execute(("curl -sf -o /dev/null -XPOST http://127.0.0.1:%d/query --data-urlencode 'q=CREATE DATABASE bench'"):format(port))
    return p
end

-- ---- one measurement ----

local UNIT <const> = {us = 1e-3, ms = 1, s = 1e3}

--- Readings/s and the p50 and p99 of an answer in milliseconds. pause_ms: so long a connection rests between two requests.
local function load_once(url, case, seconds, pause_ms)
    local readings = case[5]
    local text = process.run {"wrk", "-t1", "-c" .. (case[7] or CONNECTIONS), ("-d%ds"):format(math.max(1, seconds // 1)), "--latency", "-s",
        neap.root .. "/spec/bench/batch.wrk.lua", url, "--", case[4], tostring(readings), tostring(case[6]), tostring(pause_ms or 0)}
    local rate = tonumber(text:match "Requests/sec:%s*([%d.]+)")
    if not rate then error("wrk gave no result:\n" .. text, 0) end
    if text:find "Non%-2xx" then error(url .. " answered with errors:\n" .. text, 0) end
    local function at(percent)
        local n, unit = text:match(percent .. "%%%s+([%d.]+)(%a+)")
        return tonumber(n) * UNIT[unit]
    end
    return rate * readings, at "50", at "99"
end

--- What Redis takes at best: one reading an entry, 100 commands in flight on each of 16 connections.
local function xadd_limit(socket)
    local text = process.run {"redis-benchmark", "-s", socket, "-c", tostring(CONNECTIONS), "-P", "100", "-n", "1000000", "-r", "100", "-q",
        "XADD", "limit:__rand_int__", "*", "1763900000000000", "21.5"}
    local rate
    for n in text:gmatch "([%d.]+) requests per second" do rate = tonumber(n) end
    return rate or error("redis-benchmark gave no result:\n" .. text, 0)
end

--- The disk alone: p50 and p99 of an appended 2 kB with fdatasync, milliseconds.
local function disk(dir)
    if not has "gcc" then return nil end
    if not os.execute(("gcc -O2 -o %s/fdatasync %s/spec/bench/fdatasync.c"):format(dir, neap.root)) then return nil end
    local p50, p99 = process.run({dir .. "/fdatasync", dir .. "/probe", "1000"}):match "([%d.]+) ([%d.]+)"
    return tonumber(p50), tonumber(p99)
end

--- Redis' bytes for each of the readings in the streams s001, s002, ..
local function bytes_a_reading(socket)
    local script = [[local bytes, n = 0, 0
        for i = 1, 100 do
            local key = ('neap:{s%03d}:readings'):format(i)
            local entries = redis.call('XLEN', key)
            if entries > 0 then
                local b = redis.call('MEMORY', 'USAGE', key, 'SAMPLES', 0)
                local sample, pairs = redis.call('XRANGE', key, '-', '+', 'COUNT', 2000), 0
                for _, e in ipairs(sample) do pairs = pairs + #e[2] / 2 end
                bytes, n = bytes + b, n + entries * pairs / #sample
            end
        end
        return tostring(bytes / n)]]
    return tonumber((process.run {"redis-cli", "-s", socket, "EVAL", script, "0"}))
end

-- ---- the run ----

-- name, server, path, dialect, readings, sensors, connections
local LINES <const>, INFLUX <const>, JSON <const> = "line protocol, 100 over 100", "InfluxDB, 100 over 100", "JSON array, 100 over 100"
local BACKFILL <const>, ALONE <const> = "backfill, 1,000 of one sensor", "one at a time, 1 connection"
local CASES <const> = {
    {LINES, "neap", "/write", "line", 100, 100},
    {INFLUX, "influx", "/write?db=bench", "line", 100, 100},
    {JSON, "neap", "/receive", "json", 100, 100},
    {BACKFILL, "neap", "/write", "line", 1000, 1},
    {ALONE, "neap", "/write", "line", 1, 1, 1},
}

--- Waits until Redis has all that was acknowledged: its number of entries stands still.
local function settle(socket)
    local before
    repeat
        local now = process.run {"redis-cli", "-s", socket, "INFO", "commandstats"}:match "cmdstat_xadd:calls=(%d+)"
        if now == before then return end
        before = now
        task.sleep(0.3)
    until false
end

--- One server at a time, with a data directory and a Redis of its own, so that none pays for another's data.
local function measure(case, seconds, port, half)
    local dir = process.run({"mktemp", "-d", "/var/tmp/neap-bench.XXXXXX"}):match "%S+"
    local cleanup <close> = setmetatable({}, {__close = function() os.execute("rm -rf " .. dir) end}) -- luacheck: ignore 211
    local url, out = ("http://127.0.0.1:%d%s"):format(port, case[3]), {}
    if case[2] == "influx" then
        local server <close> = influx_server(dir, port) -- luacheck: ignore 211
        out.rate, out.p50, out.p99 = load_once(url, case, seconds)
        return out
    end
    local redis <close>, socket = redis_server(dir) -- luacheck: ignore 211
    local server <close> = neap_server(dir, port, socket) -- luacheck: ignore 211
    out.rate, out.p50, out.p99 = load_once(url, case, seconds)
    settle(socket)
    out.bytes = bytes_a_reading(socket)
    if half then
        out.disk_p50, out.disk_p99 = disk(dir)
        local pause = math.max(1, math.floor(2e3 * CONNECTIONS * case[5] / out.rate - out.p50 + 0.5))
        out.half_rate, out.half_p50, out.half_p99 = load_once(url, case, seconds, pause)
        settle(socket)
        out.xadd = xadd_limit(socket)
    end
    return out
end

--- Medians of all rounds, as {case name = {figure = number}}.
local function medians(seen)
    local out = {}
    for name, figures in pairs(seen) do
        out[name] = {}
        for figure, list in pairs(figures) do out[name][figure] = median(list) end
    end
    return out
end

local function report(m, say)
    local ours, vs = m[LINES], {}
    say ""
    for _, case in ipairs(CASES) do
        local one = m[case[1]]
        if one then
            vs[case[1]] = ours.rate / one.rate
            say(("%-30s %9.0f readings/s  p50 %6.2f ms  p99 %6.2f ms%s"):format(case[1], one.rate, one.p50, one.p99,
                one.bytes and ("  %5.1f bytes a reading in Redis"):format(one.bytes) or ""))
        end
    end
    say(("redis-benchmark, pipelined XADD %8.0f readings/s; neap durable is %.0f%% of it"):format(ours.xadd, 100 * ours.rate / ours.xadd))
    if m[INFLUX] then say(("neap is %.2fx InfluxDB"):format(vs[INFLUX])) end
    say(("JSON is %.0f%% of line protocol; backfill is %.2fx the batch over 100 sensors"):format(100 / vs[JSON], 1 / vs[BACKFILL]))
    say(("half load (%.0f readings/s): p50 %.2f ms, p99 %.2f ms%s"):format(ours.half_rate, ours.half_p50, ours.half_p99,
        ours.disk_p99 and ("; the disk's own fdatasync: p50 %.2f ms, p99 %.2f ms"):format(ours.disk_p50, ours.disk_p99) or ""))
    return vs
end

--- opts: seconds (a round, default 3), rounds (default 3). Returns {cases = {name = {rate, p50, p99, bytes, ..}}, vs = {name = line protocol / name}}.
function bench.run(opts, say)
    if not has "wrk" then error("neap bench batch needs the load generator wrk (Debian: apt-get install wrk)", 0) end
    if neap.root == "" then error("neap bench batch runs from a source checkout (wrk's script is in spec/bench)", 0) end
    local seconds, rounds, seen = opts.seconds or 3, opts.rounds or 3, {}
    for round = 1, rounds do
        for i, case in ipairs(CASES) do
            if case[2] == "influx" and not has "influxd" then
                if round == 1 then say "InfluxDB is not installed (Debian: apt-get install influxdb), left out" end
            else
                local one = measure(case, seconds, 28200 + 10 * i, case[1] == LINES)
                local all = seen[case[1]] or {}
                seen[case[1]] = all
                for figure, value in pairs(one) do
                    all[figure] = all[figure] or {}
                    table.insert(all[figure], value)
                end
                say(("round %d of %d: %-30s %9.0f readings/s"):format(round, rounds, case[1], one.rate))
            end
        end
    end
    local m = medians(seen)
    return {bench = "batch", rounds = rounds, seconds = seconds, connections = CONNECTIONS, redis = "AOF everysec", cases = m, vs = report(m, say)}
end

return bench
