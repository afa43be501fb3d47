--- neap.repl: the prompt on a terminal, or fed by a pipe. What a line means is in neap.repl_eval; the keys are in host/edit.c.
--
--     os.exit(require("neap.repl").run{})
--
-- The chunk that calls `run` waits in the editor, and the loop turns meanwhile: timers, servers and connections go on. Each line is a task;
-- Ctrl-C cancels that task, never the process. The terminal is in raw mode only while a line is typed, so what a line runs finds it as any
-- program does. What background tasks print meanwhile goes above the prompt.
local task = require "neap.task"
local term = require "neap.term"
local log = require "neap.log"

local repl = {}

local function history_path()
    local path = os.getenv("NEAP_HISTORY")
    if path then return path ~= "" and path or nil end
    local home = os.getenv("HOME")
    return home and home .. "/.neap_history"
end

-- ---- what others print ------------------------------------------------------------------------------------------------
-- While the prompt is shown, text from print, io.write, io.stdout, io.stderr and the log goes above it. A text without its newline is kept
-- until the rest of the line comes, or the prompt is left.
local Screen = {}
Screen.__index = Screen

function Screen:out(text)
    if not self.prompting then
        self.raw_write(io.stdout, text)
        io.stdout:flush()
        return
    end
    self.held = self.held .. text
    local whole, rest = self.held:match("^(.*\n)([^\n]*)$")
    if whole then
        self.held = rest
        self.editor:hide()
        self.raw_write(io.stdout, whole)
        io.stdout:flush()
        self.editor:show()
    end
end

function Screen:release()
    self.prompting = false
    if self.held ~= "" then
        self.raw_write(io.stdout, self.held, "\n")
        self.held = ""
        io.stdout:flush()
    end
end

-- Puts our functions in the place of print and the write methods of files; returns a function that undoes it.
local function capture(screen)
    local methods = getmetatable(io.stdout).__index
    local print_before, write_before, method_before = print, io.write, methods.write
    screen.raw_write = method_before
    local function joined(...)
        local parts = table.pack(...)
        for i = 1, parts.n do parts[i] = tostring(parts[i]) end
        return table.concat(parts, "\t", 1, parts.n)
    end
    function print(...) screen:out(joined(...) .. "\n") end -- luacheck: ignore 121
    methods.write = function(file, ...)
        if screen.prompting and (file == io.stdout or file == io.stderr) then
            for _, part in ipairs{...} do screen:out(tostring(part)) end
            return file
        end
        return method_before(file, ...)
    end
    io.write = function(...) return io.output():write(...) end -- luacheck: ignore 122
    local sink_before = log.sink(function(line) screen:out(line) end, term.colour(io.stdout))
    return function()
        print, io.write, methods.write = print_before, write_before, method_before -- luacheck: ignore 121 122
        log.sink(sink_before)
    end
end

-- ---- one line as a task -----------------------------------------------------------------------------------------------
-- Runs text in a task and waits for it; Ctrl-C cancels it, a second one leaves it running in the background.
local function run_line(backend, text)
    local handle = task.spawn(function() return backend:run(text) end):quiet()
    for attempt = 1, 2 do
        local ok, done, result = pcall(handle.wait, handle)
        if ok then return done and result end
        if attempt == 1 then handle:cancel("interrupted") end
    end
    io.stderr:write("it does not stop; it goes on in the background (/tasks)\n")
    return false
end

-- ---- the terminal -----------------------------------------------------------------------------------------------------
-- Reads one complete chunk. Returns it, or nil and "eof"; an interrupted line starts again.
local function read_chunk(editor, screen, backend, prompt)
    local more = (" "):rep(math.max(0, term.columns(prompt) - 4)) .. "... "
    editor:start(prompt, more)
    screen.prompting = true
    while true do
        local event, text, cursor = editor:event()
        if event == "enter" then
            if backend:status(text) == "incomplete" then
                editor:newline()
            else
                editor:finish(true)
                screen:release()
                return text
            end
        elseif event == "tab" then
            local before = text:sub(1, cursor)
            if before:find("^%s*$") or before:find("\n%s*$") then
                editor:set(before .. "    " .. text:sub(cursor + 1))
            else
                local ok, from, words = pcall(backend.complete, backend, text, cursor)
                if ok and #words > 0 then editor:complete(from, words) end
            end
        elseif event == "interrupt" then
            editor:abandon()
            screen:release()
            return ""
        elseif event == "suspend" then
            editor:hide()
            editor:suspend()
            editor:start(prompt, more)
            editor:set(text)
        else
            editor:abandon()
            screen:release()
            return nil, event
        end
    end
end

local function on_terminal(backend, opts)
    local edit = require "neap.edit"
    local editor <close> = edit.new()
    local screen = setmetatable({editor = editor, prompting = false, held = ""}, Screen)
    local restore = capture(screen)
    local guard <close> = setmetatable({}, {__close = function() -- luacheck: ignore 211
        screen:release()
        restore()
        edit.interrupts(false)
    end})
    edit.interrupts(true)
    local path = history_path()
    if path then
        local ok, why = pcall(editor.history, editor, path, 2000)
        if not ok then io.write("no history: ", tostring(why), "\n") end
    end
    neap.on_signal("WINCH", function() if screen.prompting then editor:resize() end end)
    neap.on_signal("TERM", function() os.exit(143, false) end) -- the closers give the terminal back
    if opts.banner then io.write(opts.banner, "\n") end
    local colour = term.colour(io.stdout)
    while true do
        local prompt = backend.prompt and backend:prompt() or term.paint("neap> ", "bold", colour)
        local text = read_chunk(editor, screen, backend, prompt)
        editor:cooked()
        if not text or text:find("^%s*/q[uit]*%s*$") then return 0 end
        if not text:find("^%s*$") then run_line(backend, text) end
    end
end

-- /edit: the last lines in the user's editor; what comes back is run. Only where the code runs on the user's own terminal.
local function edit_command(session)
    local name = os.tmpname()
    local f = assert(io.open(name, "w"))
    f:write(session.lines[#session.lines] or "", "\n")
    f:close()
    local editor = (os.getenv "VISUAL" or "") ~= "" and os.getenv "VISUAL" or os.getenv "EDITOR" or "vi"
    local ok = os.execute(editor .. " " .. name)
    f = io.open(name, "r")
    local text = f and f:read "a" or ""
    if f then f:close() end
    os.remove(name)
    if ok ~= true then
        session:write(("the editor '%s' failed (EDITOR chooses another)\n"):format(editor))
        return false
    end
    session:write(text)
    return session:run(text)
end

-- ---- a pipe -----------------------------------------------------------------------------------------------------------
-- The lines of standard input. Waiting for one turns the loop: timers and servers go on.
local function input_lines()
    local input = require("neap.edit").input
    local held, ended = "", false
    return function()
        while true do
            local line, rest = held:match("^([^\n]*)\n(.*)$")
            if line then
                held = rest
                return line
            end
            if ended then
                line, held = held, ""
                return line ~= "" and line or nil
            end
            local more = input()
            if more then held = held .. more else ended = true end
        end
    end
end

-- Chunks come line by line; no prompt; the first error ends it with exit code 1.
local function from_pipe(backend)
    local pending
    for line in input_lines() do
        local text = pending and pending .. "\n" .. line or line
        if backend:status(text) == "incomplete" then
            pending = text
        else
            pending = nil
            if text:find("^%s*/q[uit]*%s*$") then return 0 end
            if not run_line(backend, text) then return 1 end
            io.stdout:flush() -- whoever feeds the pipe may wait for the answer
        end
    end
    if pending and not run_line(backend, pending) then return 1 end
    return 0
end

--- Runs the prompt until ^D or /quit; returns the exit code. opts: backend (default: a session in this process), banner, extra
--- (names for its environment), names(prefix) (words for completion inside strings).
---@param opts? table
---@return integer
function repl.run(opts)
    opts = opts or {}
    local tty = term.tty(io.stdin) and term.tty(io.stdout)
    local backend = opts.backend
    if not backend then
        local Session = require "neap.repl_eval"
        backend = Session.new{colour = term.colour(io.stdout), extra = opts.extra}
        backend.names = opts.names
        backend.extra.help = function(what) require("neap.help").show(what, backend) end
        backend.extra.plot = setmetatable({}, {__index = require "neap.plot", __call = function(_,
            ...) print(require("neap.plot")(...)) end})
        if tty then
            backend.commands.edit = {help = "the last lines in your editor ($EDITOR); what comes back is run", run = edit_command}
        else -- errors of a piped chunk belong on stderr
            function backend.show_error(self, failure)
                io.stdout:flush()
                self.failure = failure
                io.stderr:write("neap: ", self.describe(failure.error), "\n")
                for _, frame in ipairs(failure.frames or {}) do io.stderr:write(frame, "\n") end
            end
        end
    end
    if not tty then return from_pipe(backend) end
    return on_terminal(backend, opts)
end

return repl
