--- Child processes that the loop watches. Waits let other tasks run; a handle in a <close> variable ends its child.
---
---   local p <close> = process.spawn {"redis-server", "--port", "0", stdout = "pipe"}
---   for line in p:lines() do print(line) end
---   local code, signal = p:wait(5)                     -- nil when it still runs after 5 s
local core = require "neap.process.core"
local task = require "neap.task"

local process = {}
local Process = {}
Process.__index = Process

local SIGNALS = {HUP = 1, INT = 2, QUIT = 3, KILL = 9, USR1 = 10, USR2 = 12, TERM = 15, CONT = 18, STOP = 19}
local OPTIONS = {env = true, cwd = true, stdin = true, stdout = true, stderr = true, path = true, detached = true}

--- Starts a program: the list part holds its name and arguments (no shell). Options: env = {"A=1", ...} (replaces the environment), cwd,
--- stdin = "null" | "inherit" | "pipe", stdout and stderr = "inherit" | "null" | "pipe" | "file" (appended to `path`), stderr = "stdout" (where stdout
--- goes), detached (an own process group). Raises {kind="spawn"} if it cannot start.
function process.spawn(opts)
    local args = table.move(opts, 1, #opts, 1, {})
    for k in pairs(opts) do
        if type(k) == "string" and not OPTIONS[k] then error(("process.spawn: unknown option '%s'"):format(k), 2) end
    end
    local h = core.spawn(args, opts.env, opts.cwd, opts.stdin or "null", opts.stdout or "inherit", opts.stderr or "inherit", opts.path, opts.detached)
    return setmetatable({handle = h, pid = h:pid(), rest = ""}, Process)
end

--- Exit code and signal number (0: none) once it has ended; nil if it still runs after `timeout` seconds.
function Process:wait(timeout) return self.handle:wait(timeout) end

--- Sends a signal, "TERM" by default; false if the process has ended.
function Process:kill(signal) return self.handle:kill(SIGNALS[signal or "TERM"] or error("unknown signal " .. tostring(signal), 2)) end

--- Text that has arrived from stdout = "pipe"; nil at the end; nil, "timeout".
function Process:read(timeout)
    if self.rest ~= "" then
        local text = self.rest
        self.rest = ""
        return text
    end
    return self.handle:read(timeout)
end

--- The next line without its newline; nil at the end; nil, "timeout".
function Process:line(timeout)
    local until_ = timeout and task.now() + timeout
    while true do
        local line, rest = self.rest:match "^([^\n]*)\n(.*)$"
        if line then
            self.rest = rest
            return line
        end
        local more, why = self.handle:read(until_ and math.max(0, until_ - task.now()))
        if not more then
            if why or self.rest == "" then return nil, why end
            line, self.rest = self.rest, ""
            return line
        end
        self.rest = self.rest .. more
    end
end

--- for line in p:lines() do ... end
function Process:lines() return function() return self:line() end end

--- Everything until the end of its output.
function Process:all()
    local parts = {}
    for text in function() return self:read() end do parts[#parts + 1] = text end
    return table.concat(parts)
end

--- Writes to stdin = "pipe"; false if it is closed.
function Process:write(text) return self.handle:write(text) end
function Process:close_stdin() self.handle:close_stdin() end

--- Ends the child: TERM, and KILL if it has not gone after `patience` seconds (default 5). Returns its exit code and signal.
function Process:stop(patience)
    self:kill "TERM"
    local code, signal = self:wait(patience or 5)
    if code == nil then
        self:kill "KILL"
        code, signal = self:wait(5)
    end
    return code, signal
end

Process.__close = function(self) self:stop() end

--- Runs a program to its end; returns its output (stdout and stderr together) and its exit code.
function process.run(opts)
    opts.stdout, opts.stderr = "pipe", "stdout"
    local p <close> = process.spawn(opts)
    local text = p:all()
    return text, (p:wait())
end

return process
