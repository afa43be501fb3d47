--- neap.guard: the door. Tokens, guesses at tokens, and so many requests a second for each device.
--
--     here.guard = guard.new {tokens = tokens.open(here.data), rate = 20}     -- either may be missing
--     here.guard:protect(app)                                                -- before all other middleware
--     guard.admit(req.token, here.context)                                   -- a context that refuses sensors the token is not for
--
-- A token comes as `Authorization: Token t`, `Bearer t` or `Basic` (as the password), in the query as p=t (InfluxDB 1, and devices that can only
-- GET), or in ThingsBoard's path. Whoever is refused is told so in the words of the client whose path it is; the answer to a missing or wrong
-- token asks for Basic, without which collectd and browsers do not send theirs. A token for some sensors writes to these and reads these,
-- and nothing else.

local core = require "neap.http.core"
local metric = require "neap.metric"
local ratelimit = require "neap.ratelimit"
local tokens = require "neap.tokens"

local guard = {}

local Guard = {}
Guard.__index = Guard

local refused = metric.counter("neap_requests_refused_total", "Requests refused at the door, by reason.", {"reason"})

local OPEN <const> = {["/"] = true, ["/health"] = true, ["/ready"] = true, ["/ping"] = true}
local INGEST <const> = {["/receive"] = true, ["/write"] = true, ["/api/v2/write"] = true, ["/collectd"] = true}
local GUESSES_A_MINUTE <const> = 20

-- ---- the token of a request ----

local VALUE = {} -- of base64's characters
for i = 0, 63 do VALUE[("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"):byte(i + 1)] = i end

local function base64(text)
    local out, bits, n = {}, 0, 0
    for i = 1, #text do
        local v = VALUE[text:byte(i)]
        if not v then break end -- "=" ends it
        bits, n = (bits << 6 | v) & 0xFFFFFF, n + 6
        if n >= 8 then
            n = n - 8
            out[#out + 1] = string.char(bits >> n & 255)
        end
    end
    return table.concat(out)
end

--- The text of the token that came with a request, or nil.
---@param req neap.http.request
---@return string?
function guard.presented(req)
    local scheme, rest = (req:header "Authorization" or ""):match "^%s*(%a+)%s+(%S+)%s*$"
    scheme = scheme and scheme:lower()
    if scheme == "basic" then
        local user, password = base64(rest):match "^([^:]*):?(.*)$"
        return password ~= "" and password or user
    end
    if scheme == "token" or scheme == "bearer" then return rest:match ":(.*)$" or rest end -- InfluxDB 1.8 clients send user:password
    local in_path = req.path:match "^/api/v1/([^/]+)/"
    if in_path then return in_path end
    local p = req.query.p
    return p ~= "" and p or nil
end

-- ---- refusals, in each client's words ----

local function refuse(req, status, reason, text, headers)
    refused:inc(1, {reason = reason})
    local path = req.path
    if path:find "^/api/v2/" then return status, {code = core.code(status), message = text}, headers end
    if path:find "^/api/v1/" then return status, {status = status, message = text, errorCode = status == 429 and 33 or 10}, headers end
    if path == "/write" or path == "/query" then headers["X-Influxdb-Error"] = text end
    return status, {status = "error", error = text}, headers
end

local function wait_for(seconds) return {["Retry-After"] = ("%d"):format(math.max(1, math.ceil(seconds)))} end

-- ---- the door ----

--- What a request does: "write", "read", or nil where any token will do.
local function action_of(req)
    if req.path == "/query" then return nil end
    if req.path == "/receive" or req.method ~= "GET" and req.method ~= "HEAD" then return "write" end
    return "read"
end

--- A token that is for some sensors: which paths it opens. What it may write is judged reading by reading (guard.admit).
local function opens(token, req)
    local path = req.path
    if INGEST[path] or path == "/query" or path:find "^/api/v1/" then return true end
    local name = path:find "^/api/sensors/" and req.params.name
    return name and tokens.allows(token, "read", name) or false
end

--- nil when the request may pass (req.token is then set), else the answer.
local function check(self, req)
    local text = guard.presented(req)
    local token = text and self.tokens:find(text)
    if not token then
        local headers = {["WWW-Authenticate"] = 'Basic realm="neap"'}
        if not text then return refuse(req, 401, "no token", "a token is needed: make one with `neap token add NAME`", headers) end
        local may, wait = self.guesses:take(req.ip)
        if not may then return refuse(req, 429, "guessing", "too many wrong tokens from this address", wait_for(wait)) end
        return refuse(req, 401, "wrong token", "this token is not known here", headers)
    end
    local action = action_of(req)
    if action and not tokens.allows(token, action) then
        return refuse(req, 403, "not allowed", ("the token '%s' is for %sing only"):format(token.name, token.only == "write" and "writ" or "read"), {})
    end
    if token.match and not opens(token, req) then
        return refuse(req, 403, "not allowed", ("the token '%s' is for the sensors %s only"):format(token.name, token.sensor), {})
    end
    req.token = token
end

--- A path that is open to all says more to those whom it knows (neap.health). Nobody is refused, but whoever guesses wrong for too long stays a
--- stranger.
local function recognise(self, req)
    local text = guard.presented(req)
    if not text or not self.guesses:open(req.ip) then return end
    req.token = self.tokens:find(text)
    if not req.token then self.guesses:take(req.ip) end
end

--- ARGS: tokens (a list of neap.tokens; nil: none are asked for), rate (requests a second from one token or address; nil: any number),
--- shared (a name: the doors of all workers that have it count together).
---@param opt {tokens?: any, rate?: number, shared?: string}
function guard.new(opt)
    local function shared(what) return opt.shared and what .. " " .. opt.shared end
    return setmetatable({
        tokens = opt.tokens, limit = opt.rate and ratelimit.new {rate = opt.rate, shared = shared "requests"} or nil,
        guesses = ratelimit.new {rate = GUESSES_A_MINUTE / 60, burst = GUESSES_A_MINUTE, shared = shared "guesses"},
    }, Guard)
end

--- Puts the door before all of an app's handlers.
function Guard:protect(app)
    if not self.tokens and not self.limit then return end
    table.insert(app.middleware, 1, {fn = function(req, next)
        if OPEN[req.path] then
            if self.tokens then recognise(self, req) end
            return next(req)
        end
        if self.tokens then
            local status, body, headers = check(self, req)
            if status then return status, body, headers end
        end
        if self.limit then
            local may, wait = self.limit:take(req.token and "token " .. req.token.name or req.ip)
            if not may then return refuse(req, 429, "rate", "too many requests from this device", wait_for(wait)) end
        end
        return next(req)
    end})
end

--- The context for a batch that came with this token: readings of other sensors are refused one by one.
---@param token neap.Token?
---@param context neap.ingest.Context
---@return neap.ingest.Context
function guard.admit(token, context)
    if not (token and token.match) then return context end
    local admit = context.admit
    return setmetatable({whole = false, admit = function(name) -- not whole: a batch of known sensors is looked at too
        if not tokens.allows(token, "write", name) then return false, ("the token '%s' is not for this sensor"):format(token.name) end
        if admit then return admit(name) end
        return true
    end}, {__index = context})
end

return guard
