--- Batches of readings over HTTP, acknowledged after fsync, beside InfluxDB with its defaults; and what Redis and the disk can do at best.
--- Same client for all (spec/bench/batch_load.c, which says what it sends; its share of a core is printed, so that a figure limited by it can be
--- told), rounds interleaved, medians printed. neap has its private Redis, which syncs every second.
local process, task = require "neap.process", require "neap.task"

local bench = {summary = "batches of 100 and 1,000, 100 to 10,000 sensors: readings/s beside InfluxDB and redis-benchmark, bytes a reading, p99 at half load"}

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

local function info(socket, section, field)
    return tonumber((process.run({"redis-cli", "-s", socket, "INFO", section}):match(field .. ":(%d+)")))
end

--- Serves on a private Redis of its own. Returns the process, Redis' socket and its pid.
local function neap_server(dir, port, ack)
    local p = process.spawn {"env", "-u", "REDIS_URL", arg[-1], "serve", "--listen", "127.0.0.1:" .. port, "--data", dir .. "/neap", "--workers", "1",
        "--ack", ack, stdout = "file", stderr = "stdout", path = dir .. "/neap.log"}
    answers(("http://127.0.0.1:%d/health"):format(port))
    local socket = dir .. "/neap/redis/redis.sock"
    return p, socket, info(socket, "server", "process_id")
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

--- CPU seconds of all threads that a process has, as the scheduler counts them: /proc/PID/stat knows hundredths of a second, and a load takes 0.7 s.
local function cpu_seconds(pid)
    local ns, threads = 0, io.popen("cat /proc/" .. pid .. "/task/*/schedstat")
    for line in threads:lines() do ns = ns + line:match "%d+" end
    threads:close()
    return ns / 1e9
end

--- The most memory that a process has had, MiB.
local function peak_mib(pid)
    local f = assert(io.open("/proc/" .. pid .. "/status"))
    local kb = f:read("a"):match "VmHWM:%s*(%d+)"
    f:close()
    return tonumber(kb) / 1024
end

local function compile(dir, name)
    local to = dir .. "/" .. name
    if not os.execute(("gcc -O2 -o %s %s/spec/bench/%s.c"):format(to, neap.root, name)) then
        error("neap bench batch compiles its load generator with gcc, and that failed", 0)
    end
    return to
end

--- rate: requests a second (0: as fast as answers come). Returns readings sent, readings/s, p50 and p99 of an answer in ms, the client's share of a core.
local function load_once(tools, port, case, seconds, rate)
    local text = process.run {tools.batch_load, tostring(port), case.path, case.dialect, tostring(case.readings), tostring(case.sensors),
        tostring(case.connections or CONNECTIONS), tostring(case.requests and 60 or seconds), tostring(rate or 0), tostring(case.requests or 0)}
    local requests, took, p50, p99, client, failures = text:match "([%d.]+) ([%d.]+) ([%d.]+) ([%d.]+) ([%d.]+) ([%d.]+)"
    if not requests then error("the load generator gave no result:\n" .. text, 0) end
    if tonumber(failures) > 0 then error(("%s: %s requests were answered with errors"):format(case.name, failures), 0) end
    local sent = requests * case.readings
    return {sent = sent, rate = sent / took, p50 = p50 / 1e3, p99 = p99 / 1e3, client = tonumber(client)}
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
local function disk(tools, dir)
    local p50, p99 = process.run({tools.fdatasync, dir .. "/probe", "1000"}):match "([%d.]+) ([%d.]+)"
    return tonumber(p50), tonumber(p99)
end

--- Waits until Redis has all that was acknowledged.
local function settle(port)
    repeat
        task.sleep(0.1)
        local text = process.run {"curl", "-s", "-m", "5", ("http://127.0.0.1:%d/metrics"):format(port)}
    until text:find "\nneap_journal_behind_bytes 0\n"
end

-- ---- the run ----

local LINES <const>, INFLUX <const>, JSON <const> = "line protocol, 100 over 100", "InfluxDB, 100 over 100", "JSON array, 100 over 100"
local BACKFILL <const>, QUICK <const>, ALONE <const> = "backfill, 1,000 of one sensor", "not waiting for the disk", "alone, over 10 sensors"

local function lines(name, more)
    local case = {name = name, server = "neap", path = "/write", dialect = "line", readings = 100, sensors = 100, ack = "disk"}
    for key, value in pairs(more or {}) do case[key] = value end
    return case
end

local function million(over, sensors) return lines(over .. " sensors", {requests = 10000, sensors = sensors, twice = true}) end
local function influx_million(over, sensors)
    return lines("InfluxDB, " .. over, {server = "influx", path = "/write?db=bench", requests = 10000, sensors = sensors})
end
local SCALE <const> = {million("1,000,000 over 100", 100), million("1,000,000 over 1,000", 1000), million("1,000,000 over 10,000", 10000)}
local INFLUX_SCALE <const> = {influx_million("1,000,000 over 100", 100), influx_million("1,000,000 over 10,000", 10000)}
local CASES <const> = {
    lines(LINES, {half = true}),
    lines(INFLUX, {server = "influx", path = "/write?db=bench"}),
    lines(QUICK, {ack = "memory", limit = true}),
    lines(JSON, {path = "/receive", dialect = "json"}),
    lines(BACKFILL, {readings = 1000, sensors = 1}),
    lines(ALONE, {readings = 1, sensors = 10, connections = 10, requests = 200000}), -- no two of one sensor under way: none share an entry
    SCALE[1], SCALE[2], SCALE[3], INFLUX_SCALE[1], INFLUX_SCALE[2],
}

local function half_load(tools, port, dir, case, seconds, out)
    out.disk_p50, out.disk_p99 = disk(tools, dir)
    local half = load_once(tools, port, case, seconds, out.rate / 2 / case.readings)
    out.half_rate, out.half_p50, out.half_p99 = half.rate, half.p50, half.p99
    settle(port)
end

--- A load until Redis has all of it; and the CPU that a reading cost in the host and in Redis, microseconds.
local function load_counted(tools, port, case, seconds, server, redis)
    local host, store = cpu_seconds(server), cpu_seconds(redis)
    local out = load_once(tools, port, case, seconds)
    settle(port)
    return out, (cpu_seconds(server) - host) / out.sent * 1e6, (cpu_seconds(redis) - store) / out.sent * 1e6
end

--- One server at a time, with a data directory and a Redis of its own, so that none pays for another's data.
local function measure(tools, case, seconds, port)
    local dir = process.run({"mktemp", "-d", "/var/tmp/neap-bench.XXXXXX"}):match "%S+"
    local cleanup <close> = setmetatable({}, {__close = function() os.execute("rm -rf " .. dir) end}) -- luacheck: ignore 211
    if case.server == "influx" then
        local server <close> = influx_server(dir, port)
        local before = cpu_seconds(server.pid)
        local out = load_once(tools, port, case, seconds)
        out.host_us = (cpu_seconds(server.pid) - before) / out.sent * 1e6
        return out
    end
    local server <close>, socket, redis = neap_server(dir, port, case.ack)
    local memory = info(socket, "memory", "used_memory_dataset")
    local out, host_us, redis_us = load_counted(tools, port, case, seconds, server.pid, redis)
    out.host_us, out.redis_us = host_us, redis_us
    out.bytes, out.mib = (info(socket, "memory", "used_memory_dataset") - memory) / out.sent, peak_mib(server.pid)
    if case.twice then out.again_host_us, out.again_redis_us = select(2, load_counted(tools, port, case, seconds, server.pid, redis)) end
    if case.half then half_load(tools, port, dir, case, seconds, out) end
    if case.limit then out.xadd = xadd_limit(socket) end
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
    local ours, quick, vs = m[LINES], m[QUICK], {}
    say ""
    say "                               readings/s   p50 ms   p99 ms  CPU us a reading  client's   Redis bytes  neap's"
    say "                                                              host     Redis   share      a reading    MiB"
    for _, case in ipairs(CASES) do
        local one = m[case.name]
        if one then
            vs[case.name] = ours.rate / one.rate
            say(("%-30s %10.0f %8.2f %8.2f  %7.3f %8s  %6.0f%% %11s %9s"):format(case.name, one.rate, one.p50, one.p99, one.host_us,
                one.redis_us and ("%.3f"):format(one.redis_us) or "", 100 * one.client, one.bytes and ("%.1f"):format(one.bytes) or "",
                one.mib and ("%.1f"):format(one.mib) or ""))
        end
    end
    say ""
    if m[INFLUX] then say(("durable, line protocol is %.2fx InfluxDB"):format(vs[INFLUX])) end
    say(("not waiting for the disk it is %.0f%% of redis-benchmark's pipelined XADD (%.0f/s)"):format(100 * quick.rate / quick.xadd, quick.xadd))
    say(("JSON is %.0f%% of line protocol; backfill is %.2fx the batch over 100 sensors"):format(100 / vs[JSON], 1 / vs[BACKFILL]))
    say(("half load (%.0f readings/s): p50 %.2f ms, p99 %.2f ms; the disk's own fdatasync of 2 kB: p50 %.2f ms, p99 %.2f ms"):format(ours.half_rate,
        ours.half_p50, ours.half_p99, ours.disk_p50, ours.disk_p99))
    local few, many = m[SCALE[1].name], m[SCALE[3].name]
    local function cost(one) return one.host_us + one.redis_us, one.again_host_us + one.again_redis_us end
    local first, again = cost(many)
    local few_first, few_again = cost(few)
    say(("10,000 sensors cost %.2fx the CPU of 100 a reading (%.3f + %.3f us beside %.3f + %.3f); in time %.2fx: the second million, into the same "
        .. "streams, beside the first. There it is %.2fx of 100 (%.3f + %.3f us beside %.3f + %.3f)"):format(first / few_first, many.host_us,
        many.redis_us, few.host_us, few.redis_us, again / first, again / few_again, many.again_host_us, many.again_redis_us, few.again_host_us,
        few.again_redis_us))
    local influx_few, influx_many = m[INFLUX_SCALE[1].name], m[INFLUX_SCALE[2].name]
    if influx_many then say(("InfluxDB: 10,000 sensors cost %.2fx the CPU of 100 a reading"):format(influx_many.host_us / influx_few.host_us)) end
    return vs
end

--- opts: seconds (a round, default 3), rounds (default 3). Returns {cases = {name = {rate, p50, p99, bytes, ..}}, vs = {name = line protocol / name}}.
function bench.run(opts, say)
    if neap.root == "" then error("neap bench batch runs from a source checkout (its load generator is in spec/bench)", 0) end
    local seconds, rounds, seen = opts.seconds or 3, opts.rounds or 3, {}
    local dir = process.run({"mktemp", "-d", "/var/tmp/neap-bench.XXXXXX"}):match "%S+"
    local cleanup <close> = setmetatable({}, {__close = function() os.execute("rm -rf " .. dir) end}) -- luacheck: ignore 211
    local tools = {batch_load = compile(dir, "batch_load"), fdatasync = compile(dir, "fdatasync")}
    for round = 1, rounds do
        for i, case in ipairs(CASES) do
            if case.server == "influx" and not has "influxd" then
                if round == 1 then say "InfluxDB is not installed (Debian: apt-get install influxdb), left out" end
            else
                local one = measure(tools, case, seconds, 28200 + 10 * i)
                local all = seen[case.name] or {}
                seen[case.name] = all
                for figure, value in pairs(one) do
                    all[figure] = all[figure] or {}
                    table.insert(all[figure], value)
                end
                say(("round %d of %d: %-30s %9.0f readings/s"):format(round, rounds, case.name, one.rate))
            end
        end
    end
    local m = medians(seen)
    return {bench = "batch", rounds = rounds, seconds = seconds, connections = CONNECTIONS, redis = "AOF everysec", cases = m, vs = report(m, say)}
end

return bench
