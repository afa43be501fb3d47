--- neap.repl_eval: what a prompt does with a line, without the prompt: compile, run, show, complete. The terminal (neap.repl), a pipe, and
-- a client attached to a running server (neap.attach) all use it.
--
--     local session = require("neap.repl_eval").new{write = function(text) io.write(text) end}
--     session:run("1 + 1")                       -- writes 2
--     session:status("for i = 1, 3 do")          -- "incomplete"
--     session:complete("string.re", 9)           -- 7, {"string.rep", "string.reverse"}
--
-- A line is compiled as an expression; only if that does not compile, as a statement, so nothing ever runs twice. It runs in the task that
-- calls `run` (the callers start one a line, which is what Ctrl-C cancels). `_` is the last value, `_1` to `_9` the ones before it.
local inspect = require "neap.inspect"
local locals = require "neap.repl_locals"
local term = require "neap.term"

local Session = {}
Session.__index = Session

-- Modules that can be named without `require` at the prompt; loaded when first used.
local SHORT = {"redis", "http", "json", "task", "tensor", "mlp", "dataset", "log", "metric", "plot", "inspect", "store", "sensors"}

local function short_names()
    local set = {}
    for _, name in ipairs(SHORT) do set[name] = "neap." .. name end
    return set
end

--- A session. opts: write(text) (default io.write), width, colour, globals (default _G), extra (names put into its environment).
function Session.new(opts)
    opts = opts or {}
    local self = setmetatable({
        write_text = opts.write or function(text) io.write(text) end, width = opts.width, colour = opts.colour or false,
        globals = opts.globals or _G, declared = {}, values = {}, short = short_names(), count = 0, lines = {}, commands = {},
    }, Session)
    self.here = {} -- declared locals, `_`, help and what the caller adds
    self.extra = opts.extra or {}
    self.env = setmetatable({}, {
        __index = function(_, name) return self:lookup(name) end,
        __newindex = function(_, name, value)
            if self.declared[name] then self.here[name] = value else self.globals[name] = value end
        end,
        __pairs = function() return pairs(self.globals) end,
    })
    for name, command in pairs(require "neap.repl_commands") do self.commands[name] = command end
    return self
end

function Session:lookup(name)
    if self.declared[name] then return self.here[name] end
    local v = self.here[name]
    if v == nil then v = self.globals[name] end
    if v == nil then v = self.extra[name] end
    if v == nil and self.short[name] then
        local ok, module = pcall(require, self.short[name])
        if ok then
            self.here[name] = module
            return module
        end
    end
    return v
end

function Session:write(...) self.write_text(table.concat{...}) end

-- ---- compile ----------------------------------------------------------------------------------------------------------
local function expression(text, name, env) return load("return " .. text, name, "t", env) end

--- "complete", "incomplete" (more lines are needed) or "broken" (no more lines would help). Compiles, runs nothing.
---@param text string
function Session.status(_, text)
    if text:find("^%s*/") or text:find("^%s*$") then return "complete" end
    text = text:gsub("^%s*=", "")
    local fn, wrong = expression(text, "=repl", {})
    if fn then return "complete" end
    local why
    fn, why = load(text, "=repl", "t", {})
    if fn then return "complete" end
    if why:find("unfinished string near") then return "broken" end -- a quoted string cannot go on in the next line
    return (why:find("<eof>$") or wrong:find("<eof>$")) and "incomplete" or "broken"
end

--- The function of a typed chunk, or nil and the message.
function Session:compile(text)
    local name = ("=line %d"):format(self.count)
    text = text:gsub("^%s*=", "")
    local fn = expression(text, name, self.env)
    if fn then return fn end
    local rewritten, names = locals.rewrite(text)
    local why
    fn, why = load(rewritten, name, "t", self.env)
    if not fn then
        local _, plain = load(text, name, "t", self.env) -- the message about what was typed, not about what was made of it
        return nil, plain or why
    end
    for _, local_name in ipairs(names) do
        if not self.declared[local_name] then
            self.here[local_name] = self:lookup(local_name)
            self.declared[local_name] = true
        end
    end
    return fn
end

-- ---- run --------------------------------------------------------------------------------------------------------------
-- Frames of the traceback below the typed chunk are ours, not the user's.
local function trim(traceback)
    local out = {}
    for line in traceback:gmatch("[^\n]+") do
        if line:find("%[C%]: in function 'xpcall'") then break end
        if not line:find("^stack traceback:") then out[#out + 1] = line:gsub("^\t", "  ") end
    end
    return out
end

local function handler(e)
    return {error = e, frames = trim(debug.traceback("", 2))}
end

--- The text of an error value: its message, kind and cause.
function Session.describe(e)
    if type(e) == "string" then return e end
    local mt = getmetatable(e)
    if type(mt) == "table" and mt.__tostring then
        local ok, text = pcall(tostring, e)
        if ok then return text end
    end
    if type(e) == "table" and e.message then return tostring(e.message) end
    return "error object: " .. inspect(e)
end

function Session:show_error(failure)
    local e = failure.error
    self.failure = failure
    if type(e) == "table" and e.kind == "cancelled" or e == "interrupted!" then
        self:write(term.paint("interrupted", "yellow", self.colour), "\n")
        return
    end
    self:write(term.paint(Session.describe(e), "red", self.colour), "\n")
    local shown = 0
    for _, frame in ipairs(failure.frames or {}) do -- where it was raised is in the message; show the way there
        if not frame:find("%[C%]") and not frame:find("in main chunk") then
            shown = shown + 1
            if shown > 4 then
                self:write(term.paint("  ... /trace shows all", "dim", self.colour), "\n")
                break
            end
            self:write(term.paint(frame, "dim", self.colour), "\n")
        end
    end
end

function Session:remember(value)
    if value == nil then return end
    for i = 9, 2, -1 do self.here["_" .. i] = self.here["_" .. i - 1] end
    self.here._1, self.here._ = self.here._, value
end

function Session:show(results)
    local opts = {width = self.width or term.width(), colour = self.colour}
    for i = 1, results.n do self:write(inspect(results[i], opts), "\n") end
end

--- Evaluates text and returns its values as table.pack does, or nil and {error, frames}. Shows nothing.
function Session:evaluate(text)
    local fn, why = self:compile(text)
    if not fn then return nil, {error = why, frames = {}} end
    local results = table.pack(xpcall(fn, handler))
    if not results[1] then return nil, type(results[2]) == "table" and results[2].frames and results[2] or {error = results[2],
        frames = {}} end
    return table.pack(table.unpack(results, 2, results.n))
end

--- One line or chunk as typed: a /command or Lua. Shows the values or the error. Returns true when all went well.
---@param text string
---@return boolean
function Session:run(text)
    self.count = self.count + 1
    local name, rest = text:match("^%s*/([%a_]+)%s*(.-)%s*$")
    if name then return self:command(name, rest) end
    if text:find("^%s*$") then return true end
    local results, failure = self:evaluate(text)
    if not results then
        self:show_error(failure)
        return false
    end
    self.lines[#self.lines + 1] = text
    self:remember(results[1])
    if results.n > 0 and not (results.n == 1 and results[1] == nil) then self:show(results) end
    return true
end

function Session:command(name, rest)
    local command = self.commands[name]
    if not command then
        local names = {}
        for known in pairs(self.commands) do
            if known:sub(1, #name) == name then command = command == nil and self.commands[known] or false end
            names[#names + 1] = known
        end
        if not command then
            self:write(("unknown command /%s%s; /help lists them\n"):format(name, require("neap.args").hint(name, names)))
            return false
        end
    end
    local results = table.pack(xpcall(command.run, handler, self, rest))
    if not results[1] then
        self:show_error(results[2])
        return false
    end
    return results[2] ~= false
end

-- ---- completion -------------------------------------------------------------------------------------------------------
local KEYWORDS = {"and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if", "in", "local", "nil", "not",
    "or",
                  "repeat", "return", "then", "true", "until", "while"}

-- The module whose definitions list the fields of a value: a loaded module's table, or a userdata such as a tensor.
local function module_of(value, mt)
    if type(mt.__name) == "string" then return mt.__name:match("^neap%.([%a_]+)") end
    for path, module in pairs(package.loaded) do
        if module == value then return path:match("^neap%.(.+)$") end
    end
end

-- What can follow value. or value: as a set of names; looks through __index tables, calls nothing. Where __index is a function, the definitions
-- that feed help know the names.
local function fields_of(value, methods_only)
    local names, seen = {}, 0
    while value ~= nil and seen < 8 do
        seen = seen + 1
        if type(value) == "table" then
            for k, v in next, value do
                if type(k) == "string" and k:find("^[%a_][%w_]*$") and not k:find("^__") and (not methods_only
                    or type(v) == "function") then
                    names[k] = true
                end
            end
        end
        local mt = debug.getmetatable(value)
        local index = type(mt) == "table" and rawget(mt, "__index") or nil
        local module = type(index) == "function" and module_of(value, mt)
        for name in pairs(module and require("neap.help").names(module, methods_only) or {}) do names[name] = true end
        value = type(index) == "table" and index or nil
    end
    return names
end

-- Walks a.b.c from the environment without running anything but our own lookup of names.
local function resolve(self, path)
    local value
    for name in path:gmatch("[^.:]+") do
        if value == nil then
            value = self:lookup(name)
        else
            local fields, found = value, nil
            for _ = 1, 8 do
                if type(fields) == "table" then found = rawget(fields, name) end
                local mt = debug.getmetatable(fields)
                if found ~= nil or type(mt) ~= "table" then break end
                fields = rawget(mt, "__index")
            end
            value = found
        end
        if value == nil then return nil end
    end
    return value
end

local function sorted(prefix, names, head, tail)
    local out = {}
    for name in pairs(names) do
        if name:sub(1, #prefix) == prefix then out[#out + 1] = head .. name .. (tail or "") end
    end
    table.sort(out)
    return out
end

--- Words that could stand at the cursor: the number of bytes before them, and the list. May wait (names of sensors come from Redis).
---@param line string
---@param cursor integer bytes before the cursor
function Session:complete(line, cursor)
    local before = line:sub(1, cursor)
    local slash = before:match("^%s*/([%a_]*)$")
    if slash then return #before - #slash, sorted(slash, self.commands, "") end
    local quoted = before:match("require%s*%(?%s*[\"']([%w_.]*)$")
    if quoted then
        local names = {}
        for name in pairs(package.preload) do names[name] = true end
        for name in pairs(package.loaded) do names[name] = true end
        for _, file in ipairs(neap and neap.assets and neap.assets("lua/neap/") or {}) do
            names[file:gsub("^lua/", ""):gsub("%.lua$", ""):gsub("/", ".")] = true
        end
        return #before - #quoted, sorted(quoted, names, "")
    end
    local open = before:match("[\"']([%w_.%-]*)$")
    if open and self.names then -- inside a string: what the application names (sensors)
        local names = {}
        for _, name in ipairs(self.names(open) or {}) do names[name] = true end
        return #before - #open, sorted(open, names, "")
    end
    local chain = before:match("[%a_][%w_.:]*$")
    if not chain then return cursor, {} end
    local path, mark, prefix = chain:match("^(.*)([.:])([%w_]*)$")
    if path then
        local value = resolve(self, path)
        if value == nil then return cursor, {} end
        return #before - #prefix, sorted(prefix, fields_of(value, mark == ":"), "", mark == ":" and "(" or nil)
    end
    local names = fields_of(self.globals)
    for _, set in ipairs{self.here, self.extra, self.short} do
        for name in pairs(set) do names[name] = true end
    end
    for _, word in ipairs(KEYWORDS) do names[word] = true end
    return #before - #chain, sorted(chain, names, "")
end

return Session
