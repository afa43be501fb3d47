--- A neap command as a child process: how the demo and the specs run a real server.
--
--     local server = child.start({"serve", "--listen", "127.0.0.1:0", "--data", dir}, {until_line = "listens on", log = path})
--     server.output       --> what it said until then
--     server:stop()       --> exit code

local child = {}

local Child = {}
Child.__index = Child

--- One word for the shell.
local function quoted(word) return "'" .. word:gsub("'", "'\\''") .. "'" end

--- The program that runs this script.
function child.program()
    local lowest = 0
    while arg and arg[lowest - 1] do lowest = lowest - 1 end
    return lowest < 0 and arg[lowest] or "neap"
end

--- Starts `neap ARGS`, and reads its output until a line that holds `until_line`. Raises if the child ends before.
--- The pipe is read without turning the loop; that is only done here, at the start.
---@param words string[]
---@param opts {until_line?: string, log?: string, program?: string}
function child.start(words, opts)
    local line = {}
    for i, word in ipairs(words) do line[i] = quoted(word) end
    local log = opts.log or "/dev/null"
    local command = ("echo $$; exec %s %s 2>%s"):format(quoted(opts.program or child.program()), table.concat(line, " "), quoted(log))
    local pipe = assert(io.popen(command, "r"))
    local self = setmetatable({pipe = pipe, pid = math.tointeger(tonumber(pipe:read("l"))), output = "", log = log}, Child)
    while opts.until_line do
        local said = pipe:read("l")
        if not said then
            local code = self:wait()
            local f = io.open(log, "r")
            local why = f and f:read("a") or ""
            if f then f:close() end
            error(("neap %s ended with code %s before it was ready: %s"):format(words[1], tostring(code), why), 0)
        end
        self.output = self.output .. said .. "\n"
        if said:find(opts.until_line, 1, true) then break end
    end
    return self
end

--- Waits for the end; the exit code (128 + n for a signal).
function Child:wait()
    if not self.pipe then return self.code end
    local _, how, code = self.pipe:close()
    self.pipe = nil
    self.code = how == "signal" and 128 + code or code
    return self.code
end

--- Sends a signal ("TERM" if none is named).
function Child:signal(name) return os.execute(("kill -%s %d 2>/dev/null"):format(name or "TERM", self.pid)) end

--- Ends it in good order and waits for it.
function Child:stop()
    if self.pipe then self:signal("TERM") end
    return self:wait()
end
Child.__close = Child.stop

return child
