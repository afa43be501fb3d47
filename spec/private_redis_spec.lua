-- The private redis-server as scripts meet it; the protocol itself is tested in spec/c/redis_server_test.c.
local process = require "neap.process"
local redis = require "neap.redis"
local server = require "spec.redis_server"

local NEAP <const> = io.popen "readlink /proc/$PPID/exe":read "l"
local ENV <const> = {"PATH=" .. os.getenv "PATH", "HOME=/nonexistent"}

-- Runs a script in a neap of its own; its output.
local function run(dir, code)
    local out, status = process.run({NEAP, "-e", code, env = {"NEAP_DATA=" .. dir, table.unpack(ENV)}, stderr = "stdout"})
    return out, status
end

-- A neap that uses the private server of dir until it is told to end; returns once it has printed its first line.
local function user(dir, serve)
    local p = process.spawn {NEAP, "-e", ([[
        local redis = require "neap.redis"
        redis.configure {data = %q, serve = %s}
        local ok, e = pcall(redis.incr, "users")
        print(ok and "up " .. tostring(redis.joined) or "no: " .. e.kind .. ": " .. e.message)
        io.stdout:flush()
        if ok then for _ in redis.stream("work", {block = math.huge}) do end end
    ]]):format(dir, tostring(serve or false)), stdout = "pipe", env = ENV}
    return p, p:line(20)
end

local function redis_pid(dir)
    local f = io.open(dir .. "/redis/redis.pid")
    local pid = f and f:read "n"
    if f then f:close() end
    return pid
end

-- Of the server's guard, which forked it.
local function guard_pid(dir)
    local f <close> = io.open("/proc/" .. redis_pid(dir) .. "/stat")
    return f:read "a":match "%) %a (%d+)"
end

local function alive(pid) return io.open("/proc/" .. pid .. "/stat") ~= nil end

describe("the private redis-server", function()
    local dir
    before_each(function() dir = server.directory() end)
    after_each(function() os.execute("rm -rf " .. dir) end)

    it("starts by itself, keeps what was written, and ends with the script", function()
        assert.equal("OK\n", run(dir, [[local r = require "neap.redis" print(r.set("k", "kept"))]]))
        assert.equal("kept\tfalse\n", run(dir, [[local r = require "neap.redis" print(r.get "k", r.joined)]]))
        assert.is_false(alive(redis_pid(dir) or 0))
        local f = io.popen("stat -c %a " .. dir .. "/redis")
        assert.equal("700", f:read "l")
        f:close()
        local conf = io.open(dir .. "/redis/redis.conf"):read "a"
        assert.matches("port 0\n", conf)
        assert.matches("appendfsync always\n", conf)
        assert.matches("unixsocketperm 700\n", conf)
    end)

    it("is shared by processes; a second serve is refused; the last one ends it", function()
        local a, said_a = user(dir, true)
        local b, said_b = user(dir)
        local c, said_c = user(dir, true)
        assert.equal("up false", said_a)
        assert.equal("up true", said_b)
        assert.matches("^no: in_use: another `neap serve` %(process " .. a.pid .. "%)", said_c)
        assert.equal("2\n", run(dir, [[print((require "neap.redis").get "users")]]))
        local pid = redis_pid(dir)
        a:kill "TERM"
        a:wait(10)
        assert.equal("2\n", run(dir, [[print((require "neap.redis").get "users")]]))
        assert.is_true(alive(pid))
        b:kill "KILL"
        b:wait(10)
        c:wait(10)
        server.eventually(function() return not alive(pid) end)
    end)

    it("is never orphaned by a kill -9, and what was acknowledged is there again", function()
        for i = 1, 3 do
            local p, said = user(dir, true)
            assert.equal("up false", said)
            local pid = redis_pid(dir)
            p:kill "KILL"
            p:wait(10)
            server.eventually(function() return not alive(pid) end)
            assert.equal(i .. "\n", run(dir, [[print((require "neap.redis").get "users")]]))
        end
    end)

    it("comes back when it is killed under a client, which goes on", function()
        local r <close> = redis.private {dir = dir, log = function() end}
        r:set("k", 1)
        os.execute("kill -9 " .. redis_pid(dir))
        server.eventually(function() return r.try:get "k" == "1" end, 5)
        assert.equal(2, r:incr "k")
        assert.equal("always", r:durability().class)
        assert.matches("/redis/redis.sock$", r.socket)
    end)

    it("comes back when its guard is killed too", function()
        local r <close> = redis.private {dir = dir, log = function() end}
        r:set("k", 1)
        local pid = redis_pid(dir)
        os.execute("kill -9 " .. guard_pid(dir))
        server.eventually(function() return not alive(pid) end)
        server.eventually(function() return r.try:get "k" == "1" end, 8)
    end)

    it("has its append-only file watched by the guard, which gives it to the disk as it grows", function()
        local r <close> = redis.private {dir = dir, log = function() end}
        r:set("k", 1)
        server.eventually(function() return (process.run {"ls", "-l", "/proc/" .. guard_pid(dir) .. "/fd"}):find("appendonly%.aof") end, 5)
    end)

    it("says what to do when it cannot start", function()
        local function why(opts)
            local ok, e = pcall(redis.private, opts)
            assert.is_false(ok)
            return e.message
        end
        assert.matches("cannot run /no/redis%-server", why {dir = dir, redis_exe = "/no/redis-server"})
        assert.matches("data directory /dev/null.*%-%-data DIR", why {dir = "/dev/null/x"})
    end)

    it("is found through REDIS_URL or the starter kit's variables instead, if they are set", function()
        local s <close> = setmetatable(server.start {password = "p w"}, {__index = server, __close = server.stop})
        local function with(env)
            table.insert(env, "PATH=" .. os.getenv "PATH")
            return (process.run {NEAP, "-e", [[local r = require "neap.redis" print(r.incr "n", r.url)]], env = env, stderr = "stdout", cwd = dir})
        end
        assert.matches("^1\tunix://", with {"REDIS_URL=unix://" .. s.socket .. "?password=p%20w"})
        assert.matches("^2\tredis://:%*%*%*@localhost", with {"REDIS_HOST=localhost", "REDIS_PORT=" .. s.port, "REDIS_PASSWORD=p w"})
        assert.matches("^1\t", with {"REDIS_HOST=localhost", "REDIS_PORT=" .. s.port, "REDIS_PASSWORD=p w", "REDIS_DB=4"})
    end)
end)
