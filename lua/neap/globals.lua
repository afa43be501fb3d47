--- neap.globals: the global names that a chunk reads and writes, found in its bytecode without running it and without touching _G.
---
---   for _, use in ipairs(globals.of(assert(load "print(x) y = 1"))) do print(use.name, use.line, use.write) end
---
--- In Lua 5.4 every global access compiles to GETTABUP or SETTABUP on the upvalue _ENV with the name as a constant, so the answer is
-- exact where a
--- reader of source text would have to know scopes. (A chunk with more than 255 constants in one function reaches the later ones another
-- way; those are missed.)
local globals = {}

local OP_GETTABUP, OP_SETTABUP = 11, 15

-- A reader over the text of string.dump.
local Reader = {}
Reader.__index = Reader

function Reader:byte()
    local b = self.text:byte(self.at)
    self.at = self.at + 1
    return b
end

function Reader:int() -- seven bits a byte, the highest bit marks the last
    local v = 0
    while true do
        local b = self:byte()
        v = v << 7 | b & 0x7F
        if b & 0x80 ~= 0 then return v end
    end
end

function Reader:string()
    local n = self:int()
    if n == 0 then return nil end
    local s = self.text:sub(self.at, self.at + n - 2)
    self.at = self.at + n - 1
    return s
end

function Reader:constants()
    local out = {}
    for i = 1, self:int() do
        local kind = self:byte()
        if kind == 4 or kind == 20 then
            out[i] = self:string()
        elseif kind == 3 or kind == 19 then
            self.at = self.at + 8
        end
        out[i] = out[i] or false
    end
    return out
end

-- The line of each instruction, from the differences that the compiler keeps.
function Reader:lines(first, n)
    local deltas, absolute, lines = {}, {}, {}
    for i = 1, self:int() do
        local d = self:byte()
        deltas[i] = d >= 128 and d - 256 or d
    end
    for _ = 1, self:int() do
        local pc = self:int()
        absolute[pc + 1] = self:int()
    end
    local line = first
    for i = 1, n do
        if deltas[i] == -128 then line = absolute[i] or line else line = line + (deltas[i] or 0) end
        lines[i] = line
    end
    return lines
end

local function read_function(r, uses)
    r:string() -- source
    local first = r:int()
    r:int()
    r.at = r.at + 3
    local code = {}
    for i = 1, r:int() do
        code[i] = string.unpack("<I4", r.text, r.at)
        r.at = r.at + 4
    end
    local k = r:constants()
    local n = r:int() -- upvalue descriptions
    r.at = r.at + 3 * n
    for _ = 1, r:int() do read_function(r, uses) end
    local lines = r:lines(first, #code)
    for _ = 1, r:int() do -- local variables
        r:string()
        r:int()
        r:int()
    end
    local upvalues = {}
    for i = 1, r:int() do upvalues[i] = r:string() end
    for pc, instruction in ipairs(code) do
        local op, a, b, c = instruction & 0x7F, instruction >> 7 & 0xFF, instruction >> 16 & 0xFF, instruction >> 24
        if op == OP_GETTABUP and upvalues[b + 1] == "_ENV" then
            uses[#uses + 1] = {name = k[c + 1], line = lines[pc], write = false}
        elseif op == OP_SETTABUP and upvalues[a + 1] == "_ENV" then
            uses[#uses + 1] = {name = k[b + 1], line = lines[pc], write = true}
        end
    end
end

--- The uses of global names in a Lua function and the functions in it, by line: {{name=, line=, write=}...}.
---@param fn function
function globals.of(fn)
    local r = setmetatable({text = string.dump(fn), at = 1}, Reader)
    assert(r.text:sub(1, 5) == "\27Lua\x54", "the bytecode of Lua 5.4")
    r.at = 4 + 1 + 1 + 6 + 3 + 8 + 8 + 1 + 1 -- past the header and the number of upvalues
    local uses = {}
    read_function(r, uses)
    table.sort(uses, function(x, y) return x.line < y.line or (x.line == y.line and x.name < y.name) end)
    return uses
end

return globals
