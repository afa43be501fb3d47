--- neap.tokens: who may send and read where neap listens to other machines.
--
--     local list = tokens.open "neap-data"                               -- neap-data/tokens, read again when it has changed
--     local text = list:add {name = "kitchen", sensor = "kitchen/*"}     -- shown once: the file keeps its SHA-256 only
--     local token = list:find(text)                                      -- {name =, sensor =, only =}, or nil
--     tokens.allows(token, "write", "kitchen/oven")                      -- true
--
-- A file and not Redis: readings are accepted while Redis is away, so tokens must be known then. One JSON object a line, mode 0600; servers see
-- a new or revoked token within a second. A token is looked up by its sum, so what the look-up's time tells is about the sum, which nobody can
-- turn back; the sums are then compared in constant time. Tokens are 160 random bits: salts and slow sums are for passwords that people choose.

local http = require "neap.http"
local json = require "neap.json"
local log = require("neap.log").module "tokens"
local secret = require "neap.secret"
local task = require "neap.task"
local when = require "neap.when"

local tokens = {}

local List = {}
List.__index = List

local AGAIN_S <const> = 1
local LOCK_S <const> = 10 -- how long one change waits for another
local SHORTEST <const> = 16 -- of a token that was made elsewhere

---@class neap.Token
---@field name string
---@field sha256 string
---@field sensor? string pattern of the sensors it is for, "*" stands for any text; nil: all
---@field only? "read"|"write" nil: both
---@field created string

--- "kitchen/*" as a Lua pattern for the whole name.
local function compile(pattern) return "^" .. pattern:gsub("%W", function(c) return c == "*" and ".*" or "%" .. c end) .. "$" end

local function read(path)
    local f, why, code = io.open(path, "rb")
    if not f then
        if code == 2 then return "" end -- no file: no tokens
        error("the tokens cannot be read: " .. why, 0)
    end
    local text = f:read "a"
    f:close()
    return text
end

--- The tokens of a file's text: a list, and by sum. Raises with the line when it cannot be understood.
local function parse(text, path)
    local list, by_sum, number = {}, {}, 0
    for line in text:gmatch "[^\n]*" do
        number = number + 1
        if line:find "%S" then
            local ok, one = pcall(json.decode, line)
            if not ok or type(one) ~= "table" or type(one.name) ~= "string" or not tostring(one.sha256):find("^%x+$") or #one.sha256 ~= 64 then
                error(("%s:%d: this is no token; `neap token` writes this file"):format(path, number), 0)
            end
            if one.sensor then one.match = compile(one.sensor) end
            list[#list + 1] = one
            by_sum[one.sha256] = one
        end
    end
    return list, by_sum
end

--- The tokens of a data directory. Raises when there is a file that cannot be read or understood.
---@param data string
function tokens.open(data)
    local self = setmetatable({path = data .. "/tokens", looked = task.now()}, List)
    self.text = read(self.path)
    self.list, self.by_sum = parse(self.text, self.path)
    return self
end

--- Reads the file again if it has changed. A file that has become unreadable leaves the tokens as they were.
function List:refresh()
    self.looked = task.now()
    local ok, why = pcall(function()
        local text = read(self.path)
        if text == self.text then return end
        self.list, self.by_sum = parse(text, self.path)
        self.text = text
    end)
    if not ok and why ~= self.complaint then log.error("the tokens stay as they were", {error = tostring(why)}) end
    self.complaint = not ok and why or nil
end

--- The token that this text is, or nil.
---@param text string
---@return neap.Token?
function List:find(text)
    if task.now() - self.looked > AGAIN_S then self:refresh() end
    local sum = secret.sha256(text)
    local token = self.by_sum[sum]
    return token and http.equal(token.sha256, sum) and token or nil
end

--- Calls change() with the file as it is now, which nobody else changes meanwhile.
local function exclusive(self, change)
    local deadline, held = task.now() + LOCK_S
    repeat
        held = secret.lock(self.path .. ".lock")
        if not held then
            if task.now() > deadline then error(("%s.lock: another `neap token` holds it; end that one first"):format(self.path), 0) end
            task.sleep(0.01)
        end
    until held
    local lock <close> = held -- luacheck: ignore 211
    self:refresh()
    if self.complaint then error(self.complaint, 0) end -- what cannot be read must not be written over
    return change()
end

local function save(self, list)
    local out = {}
    for i, one in ipairs(list) do
        out[i] = json.encode {name = one.name, sha256 = one.sha256, sensor = one.sensor, only = one.only, created = one.created} .. "\n"
    end
    secret.write(self.path, table.concat(out))
    self:refresh()
end

--- Makes a token and returns its text. With `text` it is one that devices have already (16 characters or more).
---@param opt {name: string, sensor?: string, only?: "read"|"write", text?: string}
---@return string text
function List:add(opt)
    if not opt.name:find "^[%w._-]+$" then error("a token's name is made of letters, digits, '.', '_' and '-'", 0) end
    local text = opt.text or secret.random(20)
    if #text < SHORTEST or text:find "[%c%s:/]" then
        error(("a token has %d characters or more, without spaces, ':' and '/'"):format(SHORTEST), 0)
    end
    return exclusive(self, function()
        local list, sum = table.move(self.list, 1, #self.list, 1, {}), secret.sha256(text)
        for _, one in ipairs(list) do
            if one.name == opt.name then error(("there is a token '%s' already; revoke it first, or choose another name"):format(opt.name), 0) end
            if one.sha256 == sum then error(("the token '%s' has this text already"):format(one.name), 0) end
        end
        list[#list + 1] = {name = opt.name, sha256 = sum, sensor = opt.sensor, only = opt.only,
            created = when.iso(math.tointeger(neap.clock() * 1000000 // 1))}
        save(self, list)
        return text
    end)
end

--- Takes a token away. False if there was none of this name.
---@param name string
---@return boolean
function List:revoke(name)
    return exclusive(self, function()
        local list = {}
        for _, one in ipairs(self.list) do
            if one.name ~= name then list[#list + 1] = one end
        end
        if #list == #self.list then return false end
        save(self, list)
        return true
    end)
end

--- May the token do this (to this sensor)?
---@param token neap.Token
---@param action "read"|"write"
---@param sensor? string
---@return boolean
function tokens.allows(token, action, sensor)
    if token.only and token.only ~= action then return false end
    return not (sensor and token.match) or sensor:find(token.match) ~= nil
end

return tokens
