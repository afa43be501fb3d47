--- neap.inspect: any value as text that a person reads, and for plain data as text that Lua reads back.
--
--     local inspect = require "neap.inspect"
--     print(inspect({name = "oven", range = {0, 250}}))      --> {name = "oven", range = {0, 250}}
--
-- Short tables stand on one line, long ones are broken; keys are sorted; cycles, depth and length are bounded, so that a line
-- typed at the prompt never floods the screen. Values with __tostring (tensors, Redis replies, errors) speak for themselves.
local term = require "neap.term"

local RESERVED = {}
for word in ([[and break do else elseif end false for function goto if in local nil not or repeat return then
    true until while]]):gmatch("%a+") do
    RESERVED[word] = true
end

local ESCAPE = {["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t", ["\\"] = "\\\\", ['"'] = '\\"', ["\27"] = "\\27"}

-- A quoted string; valid UTF-8 stays readable, other bytes become \ddd.
local function quote(s)
    local out = s:gsub('[%c\\"]', function(c) return ESCAPE[c] or ("\\%03d"):format(c:byte()) end)
    if not utf8.len(s) then out = out:gsub("[\128-\255]", function(c) return ("\\%03d"):format(c:byte()) end) end
    return '"' .. out .. '"'
end

-- The shortest decimal that reads back as the same number.
local function number(n)
    if math.type(n) == "integer" then return tostring(n) end
    if n ~= n then return "nan" elseif n == math.huge then return "inf" elseif n == -math.huge then return "-inf" end
    for digits = 14, 17 do
        local s = ("%." .. digits .. "g"):format(n)
        if tonumber(s) == n then return s:find("[.eE]") and s or s .. ".0" end
    end
end

local ORDER = {number = 1, boolean = 2, string = 3}
local function before(a, b)
    local ta, tb = type(a), type(b)
    if ta ~= tb then return (ORDER[ta] or 9) < (ORDER[tb] or 9) end
    if ta == "number" or ta == "string" then return a < b end
    return tostring(a) < tostring(b)
end

local Writer = {}
Writer.__index = Writer

function Writer:style(text, style) return term.paint(text, style, self.colour) end

function Writer:scalar(v)
    local kind = type(v)
    if kind == "string" then
        if #v > self.string_max then
            local cut = utf8.len(v) and utf8.offset(v, 0, self.string_max + 1) or self.string_max + 1
            return self:style(quote(v:sub(1, cut - 1)), "green") .. self:style((" .. %d more bytes"):format(#v - cut + 1), "dim")
        end
        return self:style(quote(v), "green")
    elseif kind == "number" then
        return self:style(number(v), "cyan")
    elseif kind == "boolean" or kind == "nil" then
        return self:style(tostring(v), "magenta")
    elseif kind == "function" then
        local info = debug.getinfo(v, "S")
        local where = info.what == "C" and "C" or ("%s:%d"):format(info.short_src, info.linedefined)
        return self:style(("function <%s>"):format(where), "dim")
    end
    return self:style(tostring(v), "dim")
end

function Writer:key(k)
    if type(k) == "string" and k:find("^[%a_][%w_]*$") and not RESERVED[k] then return k end
    return "[" .. self:scalar(k) .. "]"
end

-- Its own words, when the value has some: the text of __tostring, else nil.
local function own_words(v)
    local mt = getmetatable(v)
    if type(mt) ~= "table" or rawget(mt, "__tostring") == nil then return nil end
    local ok, text = pcall(tostring, v)
    return ok and text or ("<%s: its __tostring failed: %s>"):format(type(v), tostring(text))
end

-- The items of a table as {text...}: array part first, then sorted keys. `left` is how many were left out.
function Writer:items(t, depth)
    local out, n, left = {}, 0, 0
    local function add(text) n = n + 1; out[n] = text end
    local len = rawlen(t)
    for i = 1, len do
        if i > self.items_max then left = len - i + 1 break end
        add(self:value(rawget(t, i), depth + 1))
    end
    local keys = {}
    for k in next, t do
        if not (math.type(k) == "integer" and k >= 1 and k <= len) then keys[#keys + 1] = k end
    end
    table.sort(keys, before)
    for i, k in ipairs(keys) do
        if n >= self.items_max then left = left + #keys - i + 1 break end
        add(self:key(k) .. " = " .. self:value(rawget(t, k), depth + 1))
    end
    return out, left
end

function Writer:table(t, depth)
    if self.open[t] then return self:style("<cycle>", "dim") end
    if next(t) == nil then return "{}" end
    if depth >= self.depth then return self:style("{...}", "dim") end
    self.open[t] = true
    local items, left = self:items(t, depth)
    self.open[t] = nil
    if left > 0 then items[#items + 1] = self:style(("... %d more"):format(left), "dim") end
    local flat, broken = table.concat(items, ", "), false
    for _, item in ipairs(items) do broken = broken or item:find("\n", 1, true) ~= nil end
    local indent = ("  "):rep(depth + 1)
    if not broken and term.columns(flat) + 2 * depth + 2 <= self.width then return "{" .. flat .. "}" end
    return "{\n" .. indent .. table.concat(items, ",\n" .. indent) .. "\n" .. ("  "):rep(depth) .. "}"
end

function Writer:value(v, depth)
    local kind = type(v)
    if kind == "table" or kind == "userdata" then
        local words = own_words(v)
        if words then return depth > 0 and (words:gsub("\n", "\n" .. ("  "):rep(depth + 1))) or words end
        if kind == "table" then return self:table(v, depth) end
    end
    return self:scalar(v)
end

--- The value as text. opts: width (80), depth (6), items (60 a table), string (400 bytes), colour (false).
---@param v any
---@param opts? table
---@return string
local function inspect(v, opts)
    opts = opts or {}
    local self = setmetatable({
        width = opts.width or 80, depth = opts.depth or 6, items_max = opts.items or 60, string_max = opts.string or 400,
        colour = opts.colour or false, open = {},
    }, Writer)
    return self:value(v, 0)
end

return setmetatable({inspect = inspect, number = number, quote = quote}, {__call = function(_, v, opts) return inspect(v, opts) end})
