--- A program on a pseudo-terminal, for specs: `script` (in every Debian) makes the terminal, a FIFO carries what is typed, and reads
-- wait until
--- a text appears. There are no sleeps; a text that never comes fails the spec, because the program is ended after 20 seconds.
local pty = {}
pty.__index = pty

--- The binary that runs this spec.
function pty.neap()
    local p = io.popen("readlink /proc/$PPID/exe")
    local path = p:read("l")
    p:close()
    return path and path:find("/neap$") and path or "build/neap"
end

local function quote(s) return "'" .. s:gsub("'", "'\\''") .. "'" end

--- Starts `command` (for sh) on a terminal of 60 x 20.
function pty.start(command)
    local fifo = os.tmpname()
    os.remove(fifo)
    assert(os.execute("mkfifo -m 600 " .. fifo))
    local inner = "stty cols 60 rows 20; exec " .. command
    local outer = "LC_ALL=C.UTF-8 TERM=xterm timeout -s KILL 20 script -qfec %s /dev/null < %s 2>&1"
    local out = assert(io.popen(outer:format(quote(inner), fifo), "r"))
    local input = assert(io.open(fifo, "w"))
    os.remove(fifo)
    input:setvbuf("no")
    out:setvbuf("no")
    return setmetatable({input = input, out = out, text = "", seen = 1}, pty)
end

--- Types keys.
function pty:type(keys)
    self.input:write(keys)
    return self
end

--- Reads until `want` (plain text; colours are left out) appears behind what was waited for before. Returns the text up to and with it.
function pty:wait(want)
    while true do
        local plain = self.text:gsub("\27%[[%d;?]*[A-Za-z]", "")
        local from, to = plain:find(want, self.seen, true)
        if from then
            local text = plain:sub(self.seen, to)
            self.seen = to + 1
            return text
        end
        local byte = self.out:read(1)
        if not byte then error(("'%s' did not appear; the terminal showed:\n%s"):format(want, plain:sub(self.seen)), 2) end
        self.text = self.text .. byte
    end
end

--- Ends the program's input and returns its exit code.
function pty:finish()
    self.input:close()
    self.text = self.text .. self.out:read("a")
    local _, _, code = self.out:close()
    return code
end

return pty
