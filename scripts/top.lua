--- neap top: a running server at a glance, live: how late its loop is, requests, tasks, memory, Redis.
local args = require "neap.args"
local attach = require "neap.attach"
local plot = require "neap.plot"
local task = require "neap.task"
local term = require "neap.term"

local opt = args.parse{
    name = "neap top", summary = "A running server at a glance, live: q or Ctrl-C leaves, the space bar pauses. Piped, it prints once.",
    positional = {{"server", optional = true, help = "process id or name; not needed when only one runs"}},
    options = {
        {"--interval", "-i", type = "duration", default = 1.0, min = 0.05, help = "between two looks"},
        {"--count", "-n", type = "integer", min = 1, help = "looks before it ends (default: for ever; 1 when piped)"},
        {"--json", type = "flag", help = "one JSON object a look"},
    },
}

local PATIENCE_S <const> = 1 -- a worker that takes longer to answer is busy

-- The server: {info = of one of its workers, clients = {[worker number] = client}}. Raises when there is none, or several and none was named.
local function server_of(target)
    local first = attach.open(target, 0)
    first:close()
    return {info = first.info, clients = {}}
end

-- Connects to workers that are new, and forgets those that have left.
local function connect(server)
    for n, client in pairs(server.clients) do
        if client.gone then server.clients[n] = nil end
    end
    local silent = {}
    for _, info in ipairs(attach.list()) do
        if info.pid == server.info.pid and (info.worker > 0 or not info.silent) then
            if info.silent then
                silent[#silent + 1] = info
            elseif not server.clients[info.worker] then
                local ok, client = pcall(attach.open, info.path)
                if ok then server.clients[info.worker] = client end
                if ok and not server.info.where then server.info = client.info end
            end
        end
    end
    return silent
end

-- The workers' statistics, and their sum: counters, gauges and histograms are added, the worst lag wins. The third result: sentences about those that
-- do not answer.
local function look(server)
    local each, silences = {}, {}
    local sum = {counters = {}, gauges = {}, histograms = {}, memory = 0, tasks = 0, lag = 0, lag_worst = 0, uptime = 0}
    local numbers, left = {}, 0
    for n in pairs(server.clients) do numbers[#numbers + 1] = n end
    table.sort(numbers)
    local answers = task.map(numbers, function(n)
        local ok, s = pcall(task.timeout, PATIENCE_S, function() return server.clients[n]:ask{op = "stats"} end)
        return ok and s
    end, {limit = 64})
    for i, n in ipairs(numbers) do
        local client, s = server.clients[n], answers[i]
        if not s then
            client:close() -- its late answer would be taken for the next one
            server.clients[n] = nil
            left = left + 1
        else
            s.worker = n
            if n > 0 then each[#each + 1] = s end -- the main thread counts (the journal is its), but serves nobody
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
    end
    if left > 0 or #each < server.info.workers then
        for _, info in ipairs(connect(server)) do
            silences[#silences + 1] = ("worker %d  does not answer%s"):format(info.worker, attach.silence(info):match ", blocked for [^)]*" or "")
        end
        if #each == 0 and #silences == 0 and not next(server.clients) then error(task.error("connection", "the server has left"), 0) end
    end
    sum.at = task.now()
    return sum, each, silences
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
local function page(info, now, each, silences, before, colour)
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
    for _, text in ipairs(silences) do line(term.paint(text, "red", colour)) end
    if #each > 1 then
        for _, s in ipairs(each) do
            line(("  worker %d: lag %.1f ms (worst %.1f), tasks %d, memory %sB"):format(s.worker, s.lag * 1e3, s.lag_worst * 1e3, s.tasks,
                short(s.memory)))
        end
    end
    local widest = 10
    for _, kind in ipairs{"counters", "gauges", "histograms"} do
        for name in pairs(now[kind]) do widest = math.max(widest, #name) end
    end
    if next(now.counters) then line("", bold(term.pad("counted", widest)), bold("      total    per second")) end
    local zeros = 0
    for _, name in ipairs(sorted_names(now.counters)) do
        local total = now.counters[name]
        local rate = before and before.counters[name] and math.max(0, total - before.counters[name]) / seconds -- less: a worker is missing just now
        local history = rate and remember(name, rate) or ""
        if total == 0 then
            zeros = zeros + 1
        else
            line(term.pad(name, widest), ("%11s"):format(short(total)), rate and ("  %12s  "):format(short(rate)) or "", history)
        end
    end
    if zeros > 0 then line(term.paint(("  and %d that are 0"):format(zeros), "dim", colour)) end
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

-- Draws the page on the whole screen; what does not fit is left out, and said so.
local function draw(lines, info)
    local columns, rows = require("neap.edit").size()
    columns, rows = columns or term.width(), rows or 24
    local out = {}
    for i = 1, math.min(#lines, rows - 1) do out[i] = term.clip(lines[i], columns) end
    if #lines > rows - 1 then out[rows - 1] = term.clip(("  ... %d more lines: a taller window shows them"):format(#lines - rows + 2), columns) end
    local foot = term.clip(("q leaves  space pauses  %s"):format(info), columns)
    io.write("\27[H", table.concat(out, "\27[K\r\n"), "\27[K\r\n\27[J\27[", rows, ";1H", term.paint(foot, "dim", term.colour(io.stdout)), "\27[K")
    io.stdout:flush()
end

-- Waits for the next look; "quit" when a key asks for it. `again` redraws after a change of the window's size.
local function pause(keys, seconds, again)
    local until_, paused = task.now() + seconds, false
    while paused or task.now() < until_ do
        local typed = keys:recv(paused and 3600 or math.max(0, until_ - task.now()))
        if not typed or typed:find "[qQ\3\4]" then return "quit" end
        if typed:find " " then
            paused = not paused
            again(paused and "paused" or "")
        end
    end
end

local function run()
    local server = server_of(opt.server)
    connect(server)
    local tty = term.tty(io.stdout) and not opt.json
    local colour, count = term.colour(io.stdout), opt.count or (tty and math.huge or 1)
    local keys <close> = tty and require("neap.keys").open() or nil
    local screen <close> = setmetatable({}, {__close = function() if tty then io.write("\27[?25h\27[?1049l") io.stdout:flush() end end}) -- luacheck: ignore 211
    local stop = task.event()
    if tty then
        io.write("\27[?1049h\27[?25l\27[2J")
        neap.on_signal("TERM", function() stop:set() end)
        neap.on_signal("INT", function() stop:set() end)
    end
    local before
    if not tty and not opt.json then -- rates need two looks
        before = look(server)
        task.sleep(opt.interval)
    end
    local lines = {}
    local function again(note) draw(lines, note or "") end
    if tty then neap.on_signal("WINCH", function() io.write "\27[2J" again() end) end
    local done = 0
    while not stop.is_set do
        local now, each, silences = look(server)
        if opt.json then
            now.at = nil
            io.write(require("neap.json").encode({workers = each, total = now, silent = require("neap.json").array(silences)}, {nan = "null"}), "\n")
            io.stdout:flush()
        else
            lines = page(server.info, now, each, silences, before, colour)
            if tty then again() else io.write(table.concat(lines, "\n"), "\n") end
        end
        before, done = now, done + 1
        if not before.at then before.at = task.now() end
        if done >= count then return end
        if not keys then
            if stop:wait(opt.interval) then return end
        elseif task.any(function() return pause(keys, opt.interval, again) end, function() return stop:wait() and "quit" end) then
            return
        end
    end
end

local ok, e = pcall(run)
if not ok and not tostring(e):find("interrupted!", 1, true) then
    io.stderr:write("neap top: ", tostring(e), "\n")
    os.exit(1, true)
end
os.exit(0, true)
