--- One reading per POST against the peers that are installed, side by side in one run: same Redis settings (one private redis-server each round, AOF
--- off for all), same load generator (wrk, 64 connections), answers after Redis' reply. Rounds are interleaved; medians are printed.
local process, task = require "neap.process", require "neap.task"

local bench = {summary = "one reading per POST: requests/s and CPU per request beside Flask, gunicorn, nginx + lua, Node and bare libmicrohttpd"}

local function has(command) return os.execute("command -v " .. command .. " >/dev/null 2>&1") == true end

local function python_has(modules) return has "python3" and os.execute("/usr/bin/python3 -c 'import " .. modules .. "' 2>/dev/null") == true end

--- CPU seconds of a process and its children, from /proc.
local function cpu_seconds(pid)
    local total = 0
    local function add(p)
        local f = io.open("/proc/" .. p .. "/stat")
        if not f then return end
        local stat = f:read "a"
        f:close()
        local fields = {}
        for w in stat:match("%) (.*)$"):gmatch "%S+" do fields[#fields + 1] = w end
        total = total + (tonumber(fields[12]) + tonumber(fields[13])) / 100
    end
    add(pid)
    local children = io.popen("pgrep -P " .. pid)
    for child in children:lines() do add(child) end
    children:close()
    return total
end

--- Waits until something accepts connections on the port: a request is answered.
local function await(port)
    local deadline = task.now() + 20
    repeat
        local ok = os.execute(("curl -s -o /dev/null -m 1 http://127.0.0.1:%d/ 2>/dev/null"):format(port))
        if ok then return end
        task.sleep(0.05)
    until task.now() > deadline
    error("nothing answers on port " .. port, 0)
end

local function write(path, text)
    local f = assert(io.open(path, "w"))
    f:write(text)
    f:close()
end

local OWN <const>, PLAIN <const>, CEILING <const> = "neap", "neap, plain Lua handler", "bare libmicrohttpd"

--- The peers: name -> function(port, env) -> argument list, or nil if it is not installed.
local function peers(dir, socket, here)
    local function asset(name) -- peers' files are only in a checkout
        local path = here .. "/spec/bench/" .. name
        local f = io.open(path)
        if f then f:close() return path end
    end
    return {
        {OWN, function(port) return {arg[-1], "serve", "--listen", "127.0.0.1:" .. port, "--redis", "unix://" .. socket, "--data", dir .. "/neap",
            "--workers", "1"} end},
        {PLAIN, function(port)
            local app = asset "plain_app.lua"
            return app and {arg[-1], "serve", app, "--listen", "127.0.0.1:" .. port, "--redis", "unix://" .. socket, "--data", dir .. "/plain",
                "--workers", "1"}
        end},
        {"Flask's server", function(port)
            local f = asset "kit_flask.py"
            return f and python_has "flask, redis" and {"/usr/bin/python3", f, tostring(port)}
        end},
        {"gunicorn, 2 workers", function(port)
            return asset "kit_flask.py" and has "gunicorn" and python_has "flask, redis" and
                {"gunicorn", "-w", "2", "-b", "127.0.0.1:" .. port, "--chdir", here .. "/spec/bench", "kit_flask:app"}
        end},
        {"nginx + lua, 2 workers", function(port)
            local conf = asset "nginx.conf"
            if not (conf and has "nginx" and io.open "/usr/lib/nginx/modules/ngx_http_lua_module.so") then return nil end
            local text = io.open(conf):read "a":gsub("@(%u+)@", {PORT = tostring(port), SOCKET = socket, DIR = dir,
                USER = process.run({"id", "-u"}):match "^0" and "user root;" or ""})
            write(dir .. "/nginx.conf", text)
            return {"nginx", "-c", dir .. "/nginx.conf", "-p", dir}
        end},
        {"Node, hand-written RESP", function(port) local f = asset "node_resp.js" return f and has "node" and {"node", f, tostring(port)} end},
        {CEILING, function(port)
            local source = asset "bare_mhd.c"
            if not (source and has "gcc") then return nil end
            if not os.execute(("gcc -O2 -o %s/bare_mhd %s -lmicrohttpd 2>/dev/null"):format(dir, source)) then return nil end
            return {dir .. "/bare_mhd", tostring(port)}
        end},
    }
end

local function median(list)
    table.sort(list)
    return list[(#list + 1) // 2]
end

--- Runs wrk for `seconds`; returns requests/s, the CPU seconds of the server per request, and how many answers were not 2xx.
local function load_once(port, pid, seconds, here)
    local before = cpu_seconds(pid)
    local text = process.run {"wrk", "-t1", "-c64", ("-d%ds"):format(math.max(1, seconds // 1)), "-s", here .. "/spec/bench/post.wrk.lua",
        "http://127.0.0.1:" .. port .. "/receive"}
    local rate, count = tonumber(text:match "Requests/sec:%s*([%d.]+)"), tonumber(text:match "(%d+) requests in")
    if not rate or not count or count == 0 then error("wrk gave no result:\n" .. text, 0) end
    return rate, (cpu_seconds(pid) - before) / count, tonumber(text:match "Non%-2xx or 3xx responses: (%d+)") or 0
end

--- How many times faster than each peer `name` is, and what its CPU per request is of the ceiling's.
local function ratios(out, name)
    local vs = {}
    for peer, rate in pairs(out.rates) do
        if peer ~= OWN and peer ~= PLAIN and peer ~= CEILING then vs[peer] = out.rates[name] / rate end
    end
    return vs, out.cpu_us[CEILING] and out.cpu_us[name] / out.cpu_us[CEILING]
end

--- opts: seconds (a round, default 3), rounds (default 3). Returns {rates = {name = req/s}, cpu_us = {..}}; vs and cpu_of_ceiling: the plain Lua handler's
--- ratios (or, without a checkout's peers, absent), and the same for neap's own route, which also waits for the disk, in `own`.
function bench.run(opts, say)
    if not has "wrk" then error("neap bench post needs the load generator wrk (Debian: apt-get install wrk)", 0) end
    if neap.root == "" then error("neap bench post runs from a source checkout (its peers are in spec/bench)", 0) end
    local seconds, rounds = opts.seconds or 3, opts.rounds or 3
    local dir = process.run({"mktemp", "-d", "/tmp/neap-bench.XXXXXX"}):match "%S+"
    local cleanup <close> = setmetatable({}, {__close = function() os.execute("rm -rf " .. dir) end}) -- luacheck: ignore 211
    local socket = dir .. "/redis.sock"
    local redis <close> = process.spawn {"redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no", -- luacheck: ignore 211
        "--dir", dir, stdout = "null"}
    repeat task.sleep(0.02) until os.execute("redis-cli -s " .. socket .. " ping >/dev/null 2>&1")

    local env = {"REDIS_SOCKET=" .. socket, "PATH=" .. os.getenv "PATH", "HOME=" .. (os.getenv "HOME" or "/"), "PYTHONDONTWRITEBYTECODE=1"}
    local results, order, skipped = {}, {}, {}
    for round = 1, rounds do
        for i, peer in ipairs(peers(dir, socket, neap.root)) do
            local name, command = peer[1], peer[2]
            local port = 28100 + i
            local args = command(port)
            if not args then
                skipped[name] = true
            else
                args.env, args.stdout, args.stderr = env, "file", "stdout"
                args.path = dir .. "/server.log"
                local server <close> = process.spawn(args)
                await(port)
                local rate, cpu, bad = load_once(port, server.pid, seconds, neap.root)
                if bad > 0 then error(("%s answered %d requests with an error; see %s"):format(name, bad, args.path), 0) end
                if not results[name] then
                    results[name] = {rate = {}, cpu = {}}
                    order[#order + 1] = name
                end
                table.insert(results[name].rate, rate)
                table.insert(results[name].cpu, cpu)
                say(("round %d of %d: %-26s %8.0f requests/s, %6.1f us CPU each"):format(round, rounds, name, rate, cpu * 1e6))
            end
        end
    end
    local out = {bench = "post", rates = {}, cpu_us = {}, own = {}, rounds = rounds, seconds = seconds, redis = "AOF off, answer after its reply"}
    for _, name in ipairs(order) do
        out.rates[name], out.cpu_us[name] = median(results[name].rate), median(results[name].cpu) * 1e6
    end
    out.vs, out.cpu_of_ceiling = ratios(out, PLAIN)
    out.own.vs, out.own.cpu_of_ceiling = ratios(out, OWN)
    say(("\n%-26s %10s %9s  %12s %14s"):format("", "requests/s", "CPU us", "plain Lua is", "neap's own is"))
    for _, name in ipairs(order) do
        local times = out.vs[name] and ("%11.1fx %13.1fx"):format(out.vs[name], out.own.vs[name]) or ""
        if name == CEILING then times = ("%8.2f CPU %10.2f CPU"):format(out.cpu_of_ceiling, out.own.cpu_of_ceiling) end
        say(("%-26s %10.0f %9.1f  %s"):format(name, out.rates[name], out.cpu_us[name], times))
    end
    for name in pairs(skipped) do say(name .. ": not installed, left out") end
    return out
end

return bench
