--- neap.http: web applications and a small client.
--
--     local http = require "neap.http"
--     local app = http.app {max_body = "2MB"}
--     app:get("/hello/:name", function(req) return {hello = req.params.name} end)
--     app:post("/echo", function(req) return 200, req:json() end)
--     app:listen {port = 5000}
--     assert(app:test("GET", "/hello/oven").json.hello == "oven")    -- without a socket
--
-- A handler returns [status,] body [, headers]: a table is sent as JSON, a string as text (HTML if it begins with "<!"), nothing as 204, a lone
-- integer as a status. It runs as a task: what waits (redis, http, sleep) just waits. An error becomes a 500 with an id, and the log has the
-- traceback. C does the work (mod_http.c); options, defaults and messages are here.
local args = require "neap.args"
local core = require "neap.http.core"

local http = {}

--- True if two strings are equal, in time that does not tell where they differ. For tokens.
http.equal = core.equal

-- ---- options ------------------------------------------------------------------------------------------------------------
local UNITS = {b = 1, kb = 1024, mb = 1024 ^ 2, gb = 1024 ^ 3}
local function bytes(name, v, level)
    if type(v) == "string" then
        local n, unit = v:match("^%s*(%d+%.?%d*)%s*(%a*)%s*$")
        v = n and UNITS[unit:lower() == "" and "b" or unit:lower()] and math.floor(tonumber(n) * UNITS[unit:lower() == "" and "b" or unit:lower()])
    end
    if type(v) ~= "number" or v < 1 then error(("%s is a number of bytes or a text such as \"1MB\""):format(name), level) end
    return math.floor(v)
end

--- Copies opts, checking each key against `known` ({name = type or checking function}). Errors at the caller of the public function.
local function options(what, opts, known, level)
    level = level or 3
    local out = {}
    for k, v in pairs(opts or {}) do
        local want = known[k]
        if want == nil then
            local names = {}
            for name in pairs(known) do names[#names + 1] = name end
            table.sort(names)
            error(("%s: unknown option '%s'%s"):format(what, tostring(k), args.hint(tostring(k), names)), level)
        end
        if want == "bytes" then v = bytes(what .. ": " .. k, v, level + 1)
        elseif want == "seconds" then
            if type(v) ~= "number" or v <= 0 then error(("%s: %s is a time in seconds"):format(what, k), level) end
        elseif want ~= "any" and type(v) ~= want then
            error(("%s: %s is a %s, not a %s"):format(what, k, want, type(v)), level)
        end
        out[k] = v
    end
    return out
end

-- ---- answers and errors ---------------------------------------------------------------------------------------------------
local Problem = {__name = "http.error", __tostring = function(e) return ("%d %s"):format(e.status, e.message) end}

--- Ends the handler with a status: the client gets problem+json. Usage: http.error(404, "no such sensor", {sensor = name})
function http.error(status, message, details)
    error(setmetatable({kind = "http", status = status, message = message or core.reason(status), details = details, retryable = status == 503}, Problem), 0)
end
core.bind("raise", http.error)

local Response = {__name = "http.response"}
core.bind("response", Response)

--- An answer as one value, for middleware that changes it: http.response {status = 201, body = {..}, headers = {..}}
function http.response(t) return setmetatable(t, Response) end

--- What next(req) returned as one table {status, body, headers}, so that middleware can look at it.
function http.whole(first, second, third)
    if getmetatable(first) == Response then return first end
    if math.type(first) == "integer" then return http.response {status = first, body = second, headers = third or {}} end
    return http.response {status = first == nil and 204 or 200, body = first, headers = second or {}}
end

-- In the words of every kind of client, as the answers that C gives (neap_http_problem): problem+json, InfluxDB 1's `error`, InfluxDB 2's `code`.
local function problem(status, message, more)
    local body = {type = "about:blank", title = core.reason(status), status = status, detail = message, error = message, message = message,
        code = core.code(status)}
    for k, v in pairs(more or {}) do if body[k] == nil then body[k] = v end end
    return status, body, {["Content-Type"] = "application/problem+json"}
end

local function log() return require("neap.log").module "http" end

-- Failures come in floods: ten a second are logged, of the others only their number.
local flood = {second = 0, count = 0}
local function log_failure(fields)
    local now = require("neap.task").now() // 1
    if now ~= flood.second then
        if flood.count > 10 then log().error("more handlers failed", {count = flood.count - 10}) end
        flood.second, flood.count = now, 0
    end
    flood.count = flood.count + 1
    if flood.count <= 10 then log().error("handler failed", fields) end
end

-- The path for the log. A route's parameter ":token" is a secret (ThingsBoard's devices have theirs in the path).
local function shown(req)
    local token = req.params.token
    if not token or token == "" then return req.path end
    return (req.path:gsub(token:gsub("%W", "%%%0"), "***"))
end

local PROXIED <const> = {"x-forwarded-for", "x-real-ip", "forwarded", "via"}

--- Does the request come from this machine, and not through a proxy here that speaks for another (and says so)?
---@param req neap.http.request
---@return boolean
function http.near(req)
    if not req.loopback then return false end
    local headers = req.headers
    for _, name in ipairs(PROXIED) do
        if headers[name] then return false end
    end
    return true
end

-- The answer to a handler that raised. Details go to this machine only: a traceback tells too much to strangers.
local function failed(app, req, err, traceback)
    if type(err) == "table" and err.kind == "http" then
        local status, body, headers = problem(err.status, err.message, err.details)
        if err.status == 503 then headers["Retry-After"] = "1" end
        return status, body, headers
    end
    local id, near = req.id, http.near(req)
    if type(err) == "table" and err.kind == "cancelled" then
        log().debug("request ended early", {request = id, path = shown(req), why = err.message})
        return 503, nil
    end
    local text = tostring(err)
    local passing = type(err) == "table" and err.retryable or nil -- Redis is away, say: no line of code is at fault
    if passing then traceback = nil end
    log_failure({request = id, method = req.method, path = shown(req), error = text, traceback = traceback})
    if app.error_handler then
        local r = table.pack(pcall(app.error_handler, err, req, traceback))
        if r[1] then return table.unpack(r, 2, r.n) end
        log().error("on_error failed", {request = id, error = tostring(r[2])})
    end
    local _, body, headers = problem(passing and 503 or 500, near and text or ("the handler failed; its error is in the server's log as " .. id),
        {request = id, traceback = near and traceback or nil})
    headers["Retry-After"] = passing and "1"
    return body.status, body, headers
end

-- ---- requests: the methods that are Lua (the others are in http_req_lua.c) ---------------------------------------------------
local Request = core.request

--- Runs fn(req) as a task of its own that outlives the answer.
function Request:background(fn)
    self:keep()
    return require("neap.task").spawn(fn, self)
end

local Stream = core.stream

--- Sends one server-sent event: stream:send {event = "alert", data = {..}, id = 7, retry = 2} or stream:send "text".
function Stream:send(e)
    if type(e) ~= "table" then e = {data = e} end
    local out = {}
    if e.event then out[#out + 1] = "event: " .. tostring(e.event):gsub("[\r\n]", " ") end
    if e.id then out[#out + 1] = "id: " .. tostring(e.id):gsub("[\r\n]", " ") end
    if e.retry then out[#out + 1] = ("retry: %d"):format(math.floor(e.retry * 1000)) end
    local data = e.data
    if type(data) == "table" then data = require("neap.json").encode(data) end
    for line in (tostring(data == nil and "" or data) .. "\n"):gsub("\r\n?", "\n"):gmatch("(.-)\n") do out[#out + 1] = "data: " .. line end
    out[#out + 1] = "\n"
    return self:write(table.concat(out, "\n"))
end

--- Sends a comment, which clients ignore: keeps proxies from closing a quiet stream.
function Stream:comment(text) return self:write(": " .. tostring(text or ""):gsub("[\r\n]", " ") .. "\n\n") end

-- ---- applications ---------------------------------------------------------------------------------------------------------------
local App = {}
App.__index = App
local apps = setmetatable({}, {__mode = "k"})

local APP_OPTIONS = {
    name = "string", max_body = "bytes", max_head = "bytes", max_bodies = "bytes", max_connections = "number", max_per_ip = "number",
    timeout = "seconds", head_timeout = "seconds", body_timeout = "seconds", idle_timeout = "seconds", write_timeout = "seconds",
}
local ROUTE_OPTIONS = {name = "string", summary = "string", max_body = "bytes", timeout = "number", limit = "number", auth = "any"}

--- What a route's options mean (the last argument of app:get and its like): name (for url_for), summary, max_body, timeout (seconds until the answer, waits
--- included; -1: none), limit (seconds that the handler may compute between two waits before it is stopped; 0: as long as it likes; without it what
--- `neap serve --time-limit` or task.limits says).

--- A new application. Options: name, max_body ("1MB"), timeout (30: seconds a handler may take), head_timeout (10),
--- body_timeout (15, and a second for each 4 KiB that came), idle_timeout (75), write_timeout (30),
--- max_head ("8KB"), max_bodies ("64MB" in flight together), max_connections (10000), max_per_ip.
function http.app(opts)
    opts = options("http.app", opts, APP_OPTIONS)
    opts.max_body = opts.max_body or 1024 ^ 2 // 1 | 0
    local app = setmetatable({options = opts, list = {}, middleware = {}, names = {}, prefix = ""}, App)
    app.core = core.app(opts.max_body)
    apps[app] = true
    return app
end

--- The applications of this process.
function http.apps()
    local out = {}
    for app in pairs(apps) do out[#out + 1] = app end
    return out
end

-- Callers put it in parentheses: a tail call would hide the frame that error levels count.
local function add(app, method, pattern, handler, opts, level)
    local root = app.root or app
    if type(handler) ~= "function" and not (getmetatable(handler) or {}).__call then
        error(("%s %s: the handler is a %s, not a function"):format(method, tostring(pattern), type(handler)), level + 1)
    end
    opts = options(method .. " " .. pattern, opts, ROUTE_OPTIONS, level + 2)
    local id = #root.list + 1
    local full = app.prefix .. pattern
    if full ~= "/" and app.prefix ~= "" and pattern == "/" then full = app.prefix end
    local ok, err = pcall(root.core.add, root.core, method:upper(), full, id, opts.max_body, opts.timeout)
    if not ok then error(err, level + 1) end
    local chain = app.chain and table.move(app.chain, 1, #app.chain, 1, {}) or {}
    root.list[id] = {id = id, method = method:upper(), path = full, handler = handler, chain = chain, name = opts.name, summary = opts.summary,
        auth = opts.auth, limit = opts.limit, source = debug.getinfo(handler, "S")}
    if opts.name then root.names[opts.name] = full end
    root.compiled = nil
    if root.live then root:compile() end
    return app
end

for _, method in ipairs {"get", "post", "put", "patch", "delete", "any"} do
    App[method] = function(self, pattern, handler, opts) return (add(self, method, pattern, handler, opts, 2)) end
end

--- A route as one table: app:route {method = "GET", path = "/x", handler = fn, name =, summary =, max_body =, timeout =, limit =}
function App:route(t)
    local opts = {}
    for k, v in pairs(t) do if k ~= "method" and k ~= "path" and k ~= "handler" then opts[k] = v end end
    return (add(self, t.method or "GET", t.path, t.handler, opts, 2))
end

--- Middleware: app:use(function(req, next) ... return next(req) end) for every request, app:use("/api", fn) below a path, in a group for its routes.
function App:use(prefix, fn)
    if fn == nil then prefix, fn = nil, prefix end
    if type(fn) ~= "function" then error("app:use takes a function(req, next)", 2) end
    if self.root then
        self.chain[#self.chain + 1] = fn
        return self
    end
    self.middleware[#self.middleware + 1] = {prefix = prefix, fn = fn}
    if self.live then self:compile() end
    return self
end

--- Routes with a common prefix and their own middleware: app:group("/api", function(g) g:use(auth) g:get("/x", f) end)
function App:group(prefix, fn)
    local g = setmetatable({root = self.root or self, prefix = self.prefix .. prefix, chain = table.move(self.chain or {}, 1, #(self.chain or {}), 1, {})}, App)
    fn(g)
    return self
end

--- The answer where no route fits: fn(req). req.allow is set when only the method is wrong.
function App:not_found(fn)
    self.fallback = fn
    if self.live then self:compile() end
    return self
end

--- The answer to a handler's error: fn(err, req, traceback). It may decline by raising.
function App:on_error(fn)
    self.error_handler = fn
    return self
end

--- Server-sent events: app:sse("/live", function(req, stream) for .. do stream:send {data = ..} end end). A comment goes out each 15 s; when the
--- client leaves the task is cancelled.
function App:sse(path, fn, opts)
    return (add(self, "get", path, function(req)
        local stream <close> = req:stream {["Content-Type"] = "text/event-stream", ["Cache-Control"] = "no-cache", ["X-Accel-Buffering"] = "no"}
        local task = require "neap.task"
        local beat = task.every(15, function() if not stream:closed() then stream:comment() end end)
        local guard <close> = setmetatable({}, {__close = function() beat:stop() end}) -- luacheck: ignore 211
        fn(req, stream)
    end, opts, 2))
end

--- Files: app:static("/", "public", {index = "index.html", cache = "1h", fallback = "index.html"}). The directory "asset:scripts/page" means files that
--- travel inside the program (a checkout's own win). ETag, Range and .gz neighbours are handled; nothing outside of the directory is served.
function App:static(prefix, dir, opts)
    opts = options("app:static", opts, {index = "string", cache = "string", fallback = "string"})
    local n, unit = (opts.cache or ""):match("^(%d+)([smhd])$")
    local cache = n and ("max-age=%d"):format(n * ({s = 1, m = 60, h = 3600, d = 86400})[unit]) or opts.cache or "no-cache"
    local index, assets = opts.index or "index.html", dir:match("^asset:(.*)")
    local function serve(req, path)
        if not assets then return req:send_file(dir, path, index, cache) end
        path = path:gsub("^/+", "")
        if path == "" or path:sub(-1) == "/" then path = path .. index end
        local text = not path:find("%.%.") and neap.asset(assets .. "/" .. path)
        if text then return 200, text, {["Content-Type"] = core.type(path), ["Cache-Control"] = cache, ["X-Content-Type-Options"] = "nosniff"} end
    end
    local function answer(ok, ...)
        if ok == true then return 200 end -- sent already
        if ok then return ok, ... end
    end
    return (add(self, "get", (prefix:gsub("/$", "")) .. "/*path", function(req)
        local path = req.params.path
        local status, body, headers = answer(serve(req, path))
        if not status and opts.fallback then status, body, headers = answer(serve(req, opts.fallback)) end
        if not status then http.error(404, "no such file") end
        return status, body, headers
    end, nil, 2))
end

--- The path of a named route: app:url_for("sensor", {name = "oven"})
function App:url_for(name, params)
    local path = (self.root or self).names[name] or error(("no route is named '%s'"):format(name), 2)
    return (path:gsub("[:*]([%w_]+)%[?%%?%a?%]?", function(key)
        local v = params and params[key] or error(("url_for: '%s' needs the parameter '%s'"):format(name, key), 4)
        return (tostring(v):gsub("[^%w%-%._~]", function(c) return ("%%%02X"):format(c:byte()) end))
    end))
end

--- The routes: a list of {method, path, name, summary, where = "file:line"}.
function App:routes()
    local out = {}
    for i, r in ipairs((self.root or self).list) do
        out[i] = {method = r.method, path = r.path, name = r.name, summary = r.summary, auth = r.auth,
            where = ("%s:%d"):format(r.source.short_src, r.source.linedefined)}
    end
    return out
end

local function limited(fn, seconds)
    local limit = require("neap.task").limit
    return function(req)
        limit(seconds)
        return fn(req)
    end
end

local function wrap(fn, next) return function(req) return fn(req, next) end end

local function default_not_found(req)
    if req.allow == "" then return problem(404, "no such path") end
    if req.method == "OPTIONS" then return 204, nil, {Allow = req.allow} end
    local status, body, headers = problem(405, "this path does not take this method")
    headers.Allow = req.allow
    return status, body, headers
end

local function below(path, prefix) return path == prefix or path:sub(1, #prefix + 1) == prefix:gsub("/$", "") .. "/" end

-- The handlers with their middleware around them, made once: a request costs no closure.
function App:compile()
    local handlers = {}
    local function with(handler, path, chain)
        for i = #chain, 1, -1 do handler = wrap(chain[i], handler) end
        for i = #self.middleware, 1, -1 do
            local m, next = self.middleware[i], handler
            if not m.prefix or path and below(path, m.prefix) then handler = wrap(m.fn, next)
            elseif not path then -- no route fits: the prefix is looked for in the request
                handler = function(req)
                    if below(req.path, m.prefix) then return m.fn(req, next) end
                    return next(req)
                end
            end
        end
        return handler
    end
    for id, r in ipairs(self.list) do handlers[id] = with(r.limit and limited(r.handler, r.limit) or r.handler, r.path, r.chain) end
    if self.fallback or #self.middleware > 0 then handlers[0] = with(self.fallback or default_not_found, nil, {}) end
    handlers.failed = function(req, err, traceback) return failed(self, req, err, traceback) end
    self.core:set(handlers)
    self.live = true
end

-- ---- serving --------------------------------------------------------------------------------------------------------------------------
local LISTEN_OPTIONS = {host = "string", port = "number", unix = "string", backlog = "number", tls = "table", share = "any", fd = "number"}

local function read_file(path)
    local f, err = io.open(path, "rb")
    if not f then error("http: cannot read " .. err, 0) end
    local text, why = f:read "a"
    f:close()
    if not text or text == "" then error(("http: cannot read %s: %s"):format(path, why or "it is empty"), 0) end
    return text
end

--- Listens: app:listen {host = "127.0.0.1", port = 0 (a free one), tls = {cert = file, key = file}, unix = path}. Returns a server: server:port(),
--- :close([seconds to wait for requests under way]), :stats(), :fd(). Several workers on one port: the first says share = "first", the others
--- join by themselves; a new program in the same process takes over with fd = old:fd().
function App:listen(opts)
    opts = options("app:listen", opts, LISTEN_OPTIONS)
    if not self.live then self:compile() end
    local o = {}
    for k, v in pairs(self.options) do o[k] = v end
    o.host, o.port, o.backlog, o.fd, o.share = opts.unix and "unix:" .. opts.unix or opts.host, opts.port, opts.backlog, opts.fd, opts.share
    if not o.share and not o.fd and (o.port or 0) > 0 and require("neap.worker").self() > 1 then o.share = "join" end
    if opts.tls then
        for _, k in ipairs {"cert", "key"} do o[k] = read_file(opts.tls[k] or error("app:listen: tls." .. k .. " is missing: a PEM file", 2)) end
    end
    return core.listen(self.core, o)
end

--- The sockets of a port for several workers, before any of them runs: {fd, ..., port =, close = fn}. Each worker listens with fd = its own (it takes
--- a copy); whoever made them keeps them, so that a worker can be replaced without a lost connection.
---@param opts {host: string, port: integer, count: integer}
function http.sockets(opts)
    local sockets, port = core.sockets(opts.host, opts.port, opts.count)
    sockets.port = port
    function sockets:close()
        for i = 1, #self do
            core.close(self[i])
            self[i] = nil
        end
    end
    return sockets
end

--- Takes over a running server of another app, between two requests: no connection is closed, requests under way end with the app they began with.
--- The listening options stay those of the first app.
function App:take_over(server)
    if not self.live then self:compile() end
    server:swap(self.core)
end

--- Tries the app without a socket: app:test("POST", "/x?y=1", {json = {..}, body = "..", headers = {..}}) returns {status, body, headers, json}.
function App:test(method, target, opts)
    opts = options("app:test", opts, {json = "any", body = "string", headers = "table", timeout = "seconds"})
    if not self.live then self:compile() end
    local headers, body = {}, opts.body
    if opts.json ~= nil then
        body = require("neap.json").encode(opts.json)
        headers = {"Content-Type", "application/json"}
    end
    for k, v in pairs(opts.headers or {}) do
        headers[#headers + 1] = k
        headers[#headers + 1] = tostring(v)
    end
    local status, text, answer_headers = core.test(self.core, method:upper(), target, headers, body, opts.timeout)
    local r = {status = status, body = text, headers = answer_headers}
    if (answer_headers["Content-Type"] or ""):find("json", 1, true) and text ~= "" then r.json = require("neap.json").decode(text) end
    return r
end

-- ---- the client ------------------------------------------------------------------------------------------------------------------------
-- http.request, get, post, fetch; http.try.* return nil, err. Loaded at first use: a server alone does not need libcurl's start-up time. So is the
-- middleware of http_middleware.lua: http.access_log, same_origin, cors.
local LATER = {request = "neap.http_client", get = "neap.http_client", post = "neap.http_client", fetch = "neap.http_client",
    access_log = "neap.http_middleware", same_origin = "neap.http_middleware", cors = "neap.http_middleware"}

http.try = setmetatable({}, {__index = function(t, k)
    local f = http[k]
    if type(f) ~= "function" then return nil end
    local function view(...)
        local r = table.pack(pcall(f, ...))
        if r[1] then return table.unpack(r, 2, r.n) end
        if type(r[2]) ~= "table" then error(r[2], 2) end -- misuse stays an error
        return nil, r[2]
    end
    rawset(t, k, view)
    return view
end})

return setmetatable(http, {__index = function(t, k)
    if not LATER[k] then return nil end
    for name, f in pairs(require(LATER[k])) do rawset(t, name, f) end
    return rawget(t, k)
end})
