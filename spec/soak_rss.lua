-- soak_rss.lua: does the host's memory grow? Posts readings with wrk for a warm-up and then for `SECONDS` (default 60), and compares its resident set.
-- The sensor's history is trimmed, so only a leak can grow. Closes with "rss: N passed, N failed".
local helper = require "spec.helper"
local process = require "neap.process"
local seconds = tonumber(os.getenv "SECONDS" or 60)

local function rss_kib(pid)
    for line in io.lines("/proc/" .. pid .. "/status") do
        local n = line:match "^VmRSS:%s*(%d+)"
        if n then return tonumber(n) end
    end
end

local dir = helper.dir()
local server, url = helper.serve(dir)
local drain = require("neap.task").spawn(function() for _ in server:lines() do end end)
local idle = rss_kib(server.pid)

local function load(s)
    local text = process.run {"wrk", "-t1", "-c64", "-d" .. s .. "s", "-s", "spec/bench/post.wrk.lua", url .. "/receive"}
    return tonumber(text:match "(%d+) requests in") or 0, tonumber(text:match "Non%-2xx or 3xx responses: (%d+)") or 0
end

load(math.max(5, seconds)) -- the allocator and the collector settle for about 40 s
local before = rss_kib(server.pid)
local count, bad = load(seconds)
local after = rss_kib(server.pid)
server:stop()
drain:wait(5)
helper.remove(dir)
local drift = after / before - 1
print(("idle %.1f MiB, warm %.1f MiB, after %d more requests (%d not 2xx) %.1f MiB: drift %+.1f %%"):format(
    idle / 1024, before / 1024, count, bad, after / 1024,
    drift * 100))
local ok = drift <= 0.05 and bad == 0 and count > 0
print(("rss: %d passed, %d failed"):format(ok and 1 or 0, ok and 0 or 1))
