--- neap top: a running server at a glance, live: how late its loop is, requests, tasks, memory, Redis.
local args = require "neap.args"
local attach = require "neap.attach"
local plot = require "neap.plot"
local task = require "neap.task"
local term = require "neap.term"

local opt = args.parse{
    name = "neap top", summary = "A running server at a glance. Ctrl-C leaves.",
    positional = {{"server", optional = true, help = "process id or name; not needed when only one runs"}},
    options = {
        {"--interval", "-i", type = "duration", default = 1.0, min = 0.05, help = "between two looks"},
        {"--count", "-n", type = "integer", min = 1, help = "looks before it ends (default: for ever; 1 when piped)"},
        {"--json", type = "flag", help = "one JSON object a look"},
    },
}

-- A client for each worker of the server.
local function clients_of(target)
    local first = attach.open(target)
    local all = {first}
    for _, info in ipairs(attach.list()) do
        if info.pid == first.info.pid and info.worker ~= first.info.worker then all[#all + 1] = attach.open(info.path) end
    end
    table.sort(all, function(a, b) return a.info.worker < b.info.worker end)
    return all
end

-- The workers' statistics, and their sum: counters, gauges and histograms are added, the worst lag wins.
local function look(clients)
    local each, sum = {}, {counters = {}, gauges = {}, histograms = {}, memory = 0, tasks = 0, lag = 0, lag_worst = 0, uptime = 0}
    for i, client in ipairs(clients) do
        local s = client:ask{op = "stats"}
        each[i] = s
        for _, kind in ipairs{"counters", "gauges"} do
            for name, v in pairs(s[kind]) do sum[kind][name] = (sum[kind][name] or 0) + v end
        end
        for name, h in pairs(s.histograms) do
            local into = sum.histograms[name] or {sum = 0, n = 0}
            into.sum, into.n = into.sum + h.sum, into.n + h.n
            sum.histograms[name] = into
        end
        sum.memory, sum.tasks = sum.memory + s.memory, sum.tasks + s.tasks
        sum.lag, sum.lag_worst = math.max(sum.lag, s.lag), math.max(sum.lag_worst, s.lag_worst)
        sum.uptime = math.max(sum.uptime, s.uptime)
        for k, v in pairs(s) do if sum[k] == nil then sum[k] = v end end
    end
    sum.at = task.now()
    return sum, each
end

local function short(v)
    local size = math.abs(v)
    if size >= 1e9 then return ("%.1fG"):format(v / 1e9) elseif size >= 1e6 then return ("%.1fM"):format(v / 1e6)
    elseif size >= 1e4 then return ("%.0fk"):format(v / 1e3) elseif size >= 100 or v % 1 == 0 then return ("%.0f"):format(v) end
    return ("%.2f"):format(v)
end

local histories = {}
local function remember(name, v)
    local list = histories[name] or {}
    histories[name] = list
    list[#list + 1] = v
    if #list > 40 then table.remove(list, 1) end
    return #list > 1 and plot.spark(list) or ""
end

local function sorted_names(t)
    local names = {}
    for name in pairs(t) do names[#names + 1] = name end
    table.sort(names)
    return names
end

-- The lines of one look; `before` is the look before it, or nil.
local function page(info, now, each, before, colour)
    local out = {}
    local function line(...) out[#out + 1] = table.concat{...} end
    local function bold(s) return term.paint(s, "bold", colour) end
    local seconds = before and now.at - before.at
    line(bold(info.name or "neap"), ("  process %d, neap %s, up %s  %s"):format(info.pid, info.version, term.duration(now.uptime),
        info.where or ""))
    local late = now.lag_worst > 0.1 and "red" or now.lag_worst > 0.02 and "yellow" or "green"
    line("loop lag ", term.paint(("%.1f ms"):format(now.lag * 1e3), late, colour), (" (worst %.1f ms)  "):format(now.lag_worst * 1e3),
        remember("lag", now.lag))
    line(("tasks %d, Lua memory %s"):format(now.tasks, short(now.memory) .. "B"), now.redis_ms
        and (", Redis %.2f ms"):format(now.redis_ms) or "")
    if #each > 1 then
        for i, s in ipairs(each) do
            line(("  worker %d: lag %.1f ms (worst %.1f), tasks %d, memory %sB"):format(i, s.lag * 1e3, s.lag_worst * 1e3, s.tasks,
                short(s.memory)))
        end
    end
    local widest = 10
    for _, kind in ipairs{"counters", "gauges", "histograms"} do
        for name in pairs(now[kind]) do widest = math.max(widest, #name) end
    end
    if next(now.counters) then line("", bold(term.pad("counted", widest)), bold("      total    per second")) end
    for _, name in ipairs(sorted_names(now.counters)) do
        local rate = before and before.counters[name] and (now.counters[name] - before.counters[name]) / seconds
        line(term.pad(name, widest), ("%11s"):format(short(now.counters[name])), rate and ("  %12s  "):format(short(rate)) or "",
            rate and remember(name, rate) or "")
    end
    if next(now.histograms) then line(bold(term.pad("timed", widest)), bold("      count       mean ms")) end
    for _, name in ipairs(sorted_names(now.histograms)) do
        local h, b = now.histograms[name], before and before.histograms[name] or {sum = 0, n = 0}
        local n = h.n - b.n
        line(term.pad(name, widest), ("%11s"):format(short(h.n)), n > 0 and ("  %12.2f"):format((h.sum - b.sum) / n * 1e3) or "")
    end
    if next(now.gauges) then line(bold(term.pad("now", widest))) end
    for _, name in ipairs(sorted_names(now.gauges)) do line(term.pad(name, widest), ("%11s"):format(short(now.gauges[name]))) end
    return out
end

local function run()
    local clients = clients_of(opt.server)
    local tty, colour = term.tty(io.stdout) and not opt.json, term.colour(io.stdout)
    local count = opt.count or (tty and math.huge or 1)
    local screen <close> = setmetatable({}, {__close = function() if tty then io.write("\27[?1049l") end end}) -- luacheck: ignore 211
    if tty then io.write("\27[?1049h") end
    local before
    if not tty and not opt.json then -- rates need two looks
        before = look(clients)
        task.sleep(opt.interval)
    end
    local done = 0
    while true do
        local now, each = look(clients)
        if opt.json then
            now.at = nil
            io.write(require("neap.json").encode({workers = each, total = now}, {nan = "null"}), "\n")
        else
            local lines, width = page(clients[1].info, now, each, before, colour), tty and term.width() or math.huge
            local text = {}
            for i, l in ipairs(lines) do text[i] = width < math.huge and term.clip(l, width) or l end
            io.write(tty and "\27[H" or "", table.concat(text, tty and "\27[K\n" or "\n"), "\n", tty and "\27[J" or "")
        end
        io.stdout:flush()
        before, done = now, done + 1
        if not before.at then before.at = task.now() end
        if done >= count then return end
        task.sleep(opt.interval)
    end
end

local ok, e = pcall(run)
if not ok and not tostring(e):find("interrupted!", 1, true) then
    io.stderr:write("neap top: ", tostring(e), "\n")
    os.exit(1, true)
end
os.exit(0, true)
