--- Middleware that many apps want: app:use(http.access_log()), app:use(http.same_origin()), app:use("/api", http.cors {origins = {..}}).
local middleware = {}

local UNSAFE <const> = {POST = true, PUT = true, PATCH = true, DELETE = true}

--- One line a request in the log: method, path, status, milliseconds, peer.
function middleware.access_log()
    local log, task = require("neap.log").module "access", require "neap.task"
    local http = require "neap.http"
    return function(req, next)
        local began = task.now()
        local r = http.whole(next(req))
        log.info("request", {method = req.method, path = req.path, status = r.status or 200, ms = (task.now() - began) * 1e3, peer = req.ip, request = req.id})
        return r
    end
end

--- Keeps other web sites' pages from using a visitor's browser against this server: requests that change something must come from a page of this host
--- (header Origin) or from no page at all (devices, curl); and with hosts = {"neap.lan", ..} the header Host must be one of them, or an address, or
--- localhost (a stranger's name that points here is refused).
function middleware.same_origin(opts)
    local http = require "neap.http"
    local allowed = opts and opts.hosts and {localhost = true}
    for _, host in ipairs(allowed and opts.hosts or {}) do allowed[host:lower()] = true end
    return function(req, next)
        local host = (req:header "Host" or ""):lower()
        local name = host:match "^%[.*%]" or host:match "^[^:]*"
        if allowed and not allowed[name] and not name:find "^%d+%.%d+%.%d+%.%d+$" and not name:find "^%[" then
            http.error(421, "this server does not answer for the host '" .. name .. "'")
        end
        local origin = UNSAFE[req.method] and req:header "Origin"
        if origin and origin:lower():match "^https?://(.*)$" ~= host then http.error(403, "pages of other sites may not change anything here") end
        return next(req)
    end
end

--- Lets pages of other sites read: http.cors {origins = {"https://a.example"} or "*", methods = "GET, POST", headers = "Content-Type", max_age = 600}.
function middleware.cors(opts)
    opts = opts or {}
    local http = require "neap.http"
    local any, listed = opts.origins == nil or opts.origins == "*", {}
    for _, origin in ipairs(type(opts.origins) == "table" and opts.origins or {}) do listed[origin:lower()] = true end
    return function(req, next)
        local origin = req:header "Origin"
        if not origin or not (any or listed[origin:lower()]) then return next(req) end
        req:set_header("Access-Control-Allow-Origin", any and "*" or origin)
        if not any then req:set_header("Vary", "Origin") end
        if req.method == "OPTIONS" and req:header "Access-Control-Request-Method" then
            return http.response {status = 204, headers = {["Access-Control-Allow-Methods"] = opts.methods or "GET, HEAD, POST, PUT, PATCH, DELETE",
                ["Access-Control-Allow-Headers"] = opts.headers or "Content-Type, Authorization", ["Access-Control-Max-Age"] = tostring(opts.max_age or 600)}}
        end
        return next(req)
    end
end

return middleware
