--- Middleware that many apps want: app:use(http.access_log()), app:use(http.same_origin()), app:use("/api", http.cors {origins = {..}}).
local middleware = {}

local caller = require("neap.http.core").caller -- (req) -> Host, Origin, whether its method may change something

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

-- Ends of names that no public DNS server answers for: nobody can point one of them here from outside.
local LOCAL_ENDS <const> = {["local"] = true, localhost = true, lan = true, internal = true, ["home.arpa"] = true}

--- The name in a Host header or an Origin, in small letters, without port and final dot.
local function name_of(host)
    host = host:lower()
    return host:match "^%[.*%]" or host:match "^([^:]*)":gsub("%.$", "")
end

--- Is this an address, or a name that means something in a local network only?
local function is_local(name)
    if name:find "^%[" or name:find "^[%d.]+$" or not name:find(".", 1, true) then return true end
    return LOCAL_ENDS[name:match "[^.]+$"] or LOCAL_ENDS[name:match "[^.]+%.[^.]+$"] or false
end

--- Keeps other web sites' pages from using a visitor's browser against this server. What changes something, and what opens a WebSocket, must come from
--- a page of this host (header Origin) or from no page at all (devices, curl). With hosts = {"neap.example", ..} the header Host must be one of them, an
--- address, or a local name (a stranger's name that points here is refused). pages = {"neap.example", ..}: hosts whose pages are let in too, as behind a
--- proxy. hint: what is said behind a refusal; `unsafe` has paths whose GET changes something.
---@param opts? {hosts?: string[], pages?: string[], hint?: string, unsafe?: table<string, boolean>}
function middleware.same_origin(opts)
    local http = require "neap.http"
    opts = opts or {}
    local allowed, known, hint, unsafe = opts.hosts and {}, nil, opts.hint and "; " .. opts.hint or "", opts.unsafe or {}
    for _, host in ipairs(opts.hosts or {}) do allowed[name_of(host)] = true end
    local pages = {}
    for _, host in ipairs(opts.pages or {}) do pages[name_of(host)] = true end
    local function same(origin, host)
        local from = origin:lower():match "^https?://(.*)$"
        return from and (from == (host or ""):lower() or pages[name_of(from)])
    end
    return function(req, next)
        local host, origin, changes = caller(req)
        if allowed and host and host ~= known then -- most requests name the same host
            local name = name_of(host)
            if not allowed[name] and not is_local(name) then http.error(421, ("this server does not answer for the host '%s'%s"):format(name, hint)) end
            known = host
        end
        if origin and (changes or unsafe[req.path] or req:header "Upgrade") and not same(origin, host) then
            http.error(403, "pages of other sites may not change anything here" .. hint)
        end
        if not changes and unsafe[req.path] then -- an image's address, say: browsers send no Origin then
            local site = req:header "Sec-Fetch-Site"
            if site == "cross-site" or site == "same-site" then http.error(403, "pages of other sites may not change anything here" .. hint) end
        end
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
