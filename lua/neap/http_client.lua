--- The client half of neap.http: http.request, http.get, http.post, http.fetch. On the loop, with connection reuse; a wait like any other.
--
--     local r = http.get("http://127.0.0.1:5000/health")
--     print(r.status, r.headers["content-type"], r:json().status)
--     http.post(url, {json = {temperature = 21.5}, timeout = 5})
--
-- A status of 4xx or 5xx is an answer, not an error. Errors are {kind = "connection" | "timeout" | "invalid" | "full", message, retryable, sent}.
local core = require "neap.http.client_core"

local client = {}

local Answer = {}
Answer.__index = Answer

--- The body as JSON; raises if it is none.
function Answer:json() return require("neap.json").decode(self.body) end

local Headers = {__index = function(t, k) return type(k) == "string" and rawget(t, k:lower()) or nil end}

local function parse(head)
    local headers = {}
    for name, value in head:gmatch("([^:\n]+):[ \t]*([^\n]*)\n") do
        name = name:lower()
        headers[name] = headers[name] and headers[name] .. ", " .. value or value
    end
    return setmetatable(headers, Headers)
end

local function escape(s) return (tostring(s):gsub("[^%w%-%._~]", function(c) return ("%%%02X"):format(c:byte()) end)) end

local function pairs_of(t)
    local out = {}
    for k, v in pairs(t) do out[#out + 1] = escape(k) .. "=" .. escape(v) end
    table.sort(out)
    return table.concat(out, "&")
end

local KNOWN = {url = 1, method = 1, json = 1, body = 1, form = 1, query = 1, headers = 1, timeout = 1, connect_timeout = 1, max_body = 1, redirects = 1,
    insecure = 1, ca = 1, unix = 1, bearer = 1}

--- One request. Options: url, method ("GET"), query = {..}, json = value, form = {..} or body = text, headers = {..}, bearer = token, timeout (30),
--- connect_timeout (10), max_body (64 MiB), redirects (0), unix = socket path, ca = file, insecure = true. Returns {status, body, headers, ok, url, seconds}.
function client.request(opts)
    if type(opts) ~= "table" then error("http.request takes a table: http.request {url = \"http://..\"}", 2) end
    for k in pairs(opts) do
        if not KNOWN[k] then error(("http.request: unknown option '%s'"):format(tostring(k)), 2) end
    end
    if type(opts.url) ~= "string" then error("http.request: url is missing", 2) end
    local url, body, headers, has = opts.url, opts.body, {}, {}
    if opts.query then url = url .. (url:find("?", 1, true) and "&" or "?") .. pairs_of(opts.query) end
    for k, v in pairs(opts.headers or {}) do
        local line = ("%s: %s"):format(k, tostring(v))
        if line:find("[\r\n\0]") then error("http.request: a header has a line break", 2) end
        headers[#headers + 1] = line
        has[tostring(k):lower()] = true
    end
    local function default(name, value) if not has[name:lower()] then headers[#headers + 1] = name .. ": " .. value end end
    if opts.json ~= nil then
        body = require("neap.json").encode(opts.json)
        default("Content-Type", "application/json")
    elseif opts.form then
        body = pairs_of(opts.form)
        default("Content-Type", "application/x-www-form-urlencoded")
    elseif body then default("Content-Type", "application/octet-stream") end
    if opts.bearer then default("Authorization", "Bearer " .. opts.bearer) end
    default("User-Agent", "neap/" .. tostring(neap and neap.version or ""))
    local method = (opts.method or (body and "POST" or "GET")):upper()
    local status, text, head, at, seconds = core.request(method, url, body, headers, opts.timeout or 30, opts.connect_timeout or 10,
        opts.max_body or 64 * 1024 * 1024, opts.redirects == true and 10 or opts.redirects or 0, opts.insecure or false, opts.ca, opts.unix)
    return setmetatable({status = status, ok = status >= 200 and status < 300, body = text, headers = parse(head), url = at, seconds = seconds}, Answer)
end

local function with(method, url, opts)
    local o = {}
    for k, v in pairs(opts or {}) do o[k] = v end
    o.url, o.method = url, method
    return client.request(o)
end

--- http.get(url [, opts]) and http.post(url [, opts]): request with the method set.
function client.get(url, opts) return with("GET", url, opts) end
function client.post(url, opts) return with("POST", url, opts) end

--- The body of a URL; raises unless the status is 2xx. Follows redirects.
function client.fetch(url, opts)
    local o = {redirects = 10}
    for k, v in pairs(opts or {}) do o[k] = v end
    local r = with("GET", url, o)
    if not r.ok then require("neap.task").error("reply", ("http.fetch %s: %d"):format(url, r.status), {status = r.status}) end
    return r.body
end

return client
