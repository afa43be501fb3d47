--- neap.repl_commands: the /commands of a prompt, as {help=, args=, run=function(session, rest)}. An extension adds its own with
--- `repl = {name = {help = "...", run = fn}}` (see neap.ext). A command writes with session:write and returns false if it failed.
local inspect = require "neap.inspect"
local term = require "neap.term"

local commands = {}

local function add(name, args, help, run) commands[name] = {args = args, help = help, run = run} end

-- The first value of the expression `rest`; with an empty rest the last value `_`. nil when it failed, after the error was shown.
local function value_of(session, rest, what)
    if rest == "" then rest = "_" end
    local results, failure = session:evaluate(rest)
    if not results then
        session:show_error(failure)
        return nil
    end
    if results[1] == nil then
        session:write(("/%s: '%s' is nil\n"):format(what, rest))
        return nil
    end
    session:remember(rest ~= "_" and results[1] or nil)
    return results[1]
end

--- Rows of cells as aligned columns; the first row is the heading.
local function columns(session, rows)
    local widths = {}
    for _, row in ipairs(rows) do
        for i, cell in ipairs(row) do widths[i] = math.max(widths[i] or 0, term.columns(cell)) end
    end
    for r, row in ipairs(rows) do
        local out = {}
        for i, cell in ipairs(row) do out[i] = i < #row and term.pad(cell, widths[i]) or cell end
        local line = table.concat(out, "  ")
        session:write(r == 1 and term.paint(line, "bold", session.colour) or line, "\n")
    end
end

add("help", "[name]", "this list, or what is known about a function: /help redis.xadd", function(session, rest)
    if rest ~= "" then return require("neap.help").show(rest, session) end
    local names, widest = {}, 0
    for name, command in pairs(session.commands) do
        names[#names + 1] = name
        widest = math.max(widest, #name + #(command.args or "") + 1)
    end
    table.sort(names)
    session:write("Type Lua: an expression shows its value, `_` is the last one, `local` lasts.\n")
    for _, name in ipairs(names) do
        local command = session.commands[name]
        session:write("  /", term.pad(name .. " " .. (command.args or ""), widest), "  ", command.help, "\n")
    end
    session:write("Keys: Tab completes, ^R searches the history, ^C cancels the line, Alt-Enter begins a new line, ^D leaves.\n")
end)

add("doc", "name", "what is known about a function, module or method", function(session, rest)
    return require("neap.help").show(rest, session)
end)

add("time", "code", "runs code and says how long it took and what it allocated", function(session, rest)
    if rest == "" then
        session:write("/time CODE\n")
        return false
    end
    collectgarbage()
    local memory, cpu, started = collectgarbage("count"), os.clock(), require("neap.task").now()
    local results, failure = session:evaluate(rest)
    local took = require("neap.task").now() - started
    cpu, memory = math.min(took, os.clock() - cpu), collectgarbage("count") - memory
    if not results then
        session:show_error(failure)
        return false
    end
    session:remember(results[1])
    if results.n > 0 then session:show(results) end
    local function si(s) return s < 1e-3 and ("%.0f us"):format(s * 1e6) or s < 1 and ("%.1f ms"):format(s * 1e3)
        or ("%.2f s"):format(s) end
    session:write(term.paint(("%s (%s of it computing), %+.0f KiB of Lua memory"):format(si(took), si(cpu), memory), "dim",
        session.colour), "\n")
end)

add("tasks", "", "the live tasks: what each waits for and where it was started", function(session)
    local rows = {{"id", "status", "waits for", "name", "spawned at"}}
    for _, handle in ipairs(require("neap.task").list()) do
        local info = handle:info()
        rows[#rows + 1] = {tostring(info.id), info.status, info.waits_for or "", info.name or "", info.spawned_at or ""}
    end
    table.sort(rows, function(a, b) return a == rows[1] or (b ~= rows[1] and (tonumber(a[1]) or 0) < (tonumber(b[1]) or 0)) end)
    columns(session, rows)
end)

add("trace", "[task id]", "where a task stands; without an id, the whole way to the last error", function(session, rest)
    if rest == "" then
        local failure = session.failure
        if not failure then
            session:write("no error yet\n")
            return
        end
        session:write(session.describe(failure.error), "\n", table.concat(failure.frames or {}, "\n"), "\n")
        return
    end
    for _, handle in ipairs(require("neap.task").list()) do
        local info = handle:info()
        if tostring(info.id) == rest then
            session:write(info.traceback or "it is running now", "\n")
            return
        end
    end
    session:write(("there is no live task %s; /tasks lists them\n"):format(rest))
    return false
end)

add("cancel", "task id", "cancels a task", function(session, rest)
    for _, handle in ipairs(require("neap.task").list()) do
        if tostring(handle:info().id) == rest then
            handle:cancel("cancelled from the prompt")
            return
        end
    end
    session:write(("there is no live task '%s'; /tasks lists them\n"):format(rest))
    return false
end)

local function show_routes(session, app)
    for _, r in ipairs(app:routes()) do
        session:write(term.pad(r.method, 7), term.pad(r.path, 36), " ", r.summary or "", "  ", term.paint(r.where, "dim", session.colour), "\n")
    end
end

add("routes", "[app]", "the routes of an application, or of all in this process, and where each is defined", function(session, rest)
    local apps = require("neap.http").apps()
    if rest ~= "" then
        local app = value_of(session, rest, "routes")
        if type(app) ~= "table" or not app.routes then
            session:write("/routes needs an application, such as http.app() gives\n")
            return false
        end
        apps = {app}
    end
    if #apps == 0 then session:write("there is no application in this process: app = http.app() makes one\n") end
    for _, app in ipairs(apps) do show_routes(session, app) end
end)

add("plot", "value", "draws a list or tensor, or what neap.plot's line takes", function(session, rest)
    local value = value_of(session, rest, "plot")
    if value == nil then return false end
    local plot = require "neap.plot"
    session:write(plot(value, {width = session.width and session.width - 1, colour = session.colour}), "\n")
end)

add("table", "value", "a list of records as a table", function(session, rest)
    local value = value_of(session, rest, "table")
    if type(value) ~= "table" or type(value[1]) ~= "table" then
        session:write("/table needs a list of records\n")
        return false
    end
    local names, known, rows = {}, {}, {}
    for i = 1, math.min(#value, 200) do
        for k in pairs(value[i]) do
            if not known[k] then known[k], names[#names + 1] = true, k end
        end
    end
    table.sort(names, function(a, b) return tostring(a) < tostring(b) end)
    rows[1] = {}
    for c, name in ipairs(names) do rows[1][c] = tostring(name) end
    for i = 1, math.min(#value, 200) do
        local row = {}
        for c, name in ipairs(names) do
            local cell = value[i][name]
            row[c] = cell == nil and "" or type(cell) == "string" and cell:gsub("%c", " ") or inspect(cell)
            row[c] = term.clip(row[c], 40)
        end
        rows[#rows + 1] = row
    end
    columns(session, rows)
    if #value > 200 then session:write(("... %d more\n"):format(#value - 200)) end
end)

add("json", "value", "the value as JSON", function(session, rest)
    local value = value_of(session, rest, "json")
    if value == nil then return false end
    session:write(require("neap.json").encode(value, {pretty = true, sort = true}), "\n")
end)

add("save", "file", "writes the lines of this session that worked into a file", function(session, rest)
    if rest == "" then
        session:write("/save FILE\n")
        return false
    end
    local f, why = io.open(rest, "w")
    if not f then
        session:write("cannot write ", why, "\n")
        return false
    end
    f:write(table.concat(session.lines, "\n"), "\n")
    f:close()
    session:write(("%d lines written to %s\n"):format(#session.lines, rest))
end)

add("metrics", "[part of a name]", "counters, gauges and histograms of this process", function(session, rest)
    for line in require("neap.metric").text():gmatch("[^\n]+") do
        if not line:find("^#") and not line:find("_bucket{") and (rest == "" or line:find(rest, 1, true)) then session:write(line, "\n") end
    end
end)

add("gc", "", "collects garbage and says what is left", function(session)
    local before = collectgarbage("count")
    collectgarbage()
    collectgarbage()
    session:write(("%.0f KiB of Lua memory, %.0f KiB freed\n"):format(collectgarbage("count"), before - collectgarbage("count")))
end)

return setmetatable(commands, {__index = {show_routes = show_routes}}) -- pairs() sees the commands only
