-- neap.http: applications over loopback and without a socket, and the client. The guard's own cases are in spec/c/http_core_test.c.
local helper = require "spec.helper"
local http = require "neap.http"
local json = require "neap.json"
local log = require "neap.log"
local task = require "neap.task"

local eventually = helper.eventually
local lines, servers = {}, {}

before_each(function()
    lines = {}
    log.flush()
    log.sink(function(line) lines[#lines + 1] = line end)
end)
after_each(function()
    for _, s in ipairs(servers) do s:close() end
    servers = {}
    log.flush()
    log.sink(nil)
end)

local function serve(app, opts)
    local s = app:listen(opts or {port = 0})
    servers[#servers + 1] = s
    return "http://127.0.0.1:" .. s:port(), s
end

describe("an app", function()
    it("turns what a handler returns into an answer", function()
        local app = http.app {}
        local cases = {
            {"/table", function() return {a = 1} end, 200, '{"a":1}', "application/json"},
            {"/list", function() return json.array {} end, 200, "[]", "application/json"},
            {"/text", function() return "hello" end, 200, "hello", "text/plain; charset=utf-8"},
            {"/html", function() return "<!doctype html><p>hello" end, 200, "<!doctype html><p>hello", "text/html; charset=utf-8"},
            {"/nothing", function() end, 204, "", nil},
            {"/nil", function() return nil end, 204, "", nil},
            {"/status", function() return 202 end, 202, "", nil},
            {"/both", function() return 201, {id = 7} end, 201, '{"id":7}', "application/json"},
            {"/typed", function() return 200, "a,b", {["content-type"] = "text/csv"} end, 200, "a,b", nil},
            {"/body-headers", function() return "x", {["X-A"] = 5} end, 200, "x", "text/plain; charset=utf-8"},
            {"/true", function() return true end, 200, "true", "application/json"},
            {"/float", function() return 1.5 end, 200, "1.5", "application/json"},
            {"/whole", function() return http.response {status = 203, body = "w", headers = {["X-A"] = "1"}} end, 203, "w",
                "text/plain; charset=utf-8"},
        }
        for _, c in ipairs(cases) do app:get(c[1], c[2]) end
        for _, c in ipairs(cases) do
            local r = app:test("GET", c[1])
            assert.are.same({c[3], c[4], c[5]}, {r.status, r.body, r.headers["Content-Type"]}, c[1])
        end
        assert.are.equal("5", app:test("GET", "/body-headers").headers["X-A"])
        assert.are.equal("text/csv", app:test("GET", "/typed").headers["content-type"])
        local r = app:test("HEAD", "/text")
        assert.are.same({200, ""}, {r.status, r.body})
    end)

    it("gives handlers params, query, headers, cookies, form and lines", function()
        local app = http.app {}
        app:any("/s/:name/*rest", function(req)
            return {method = req.method, path = req.path, params = req.params, query = req.query, type = req.headers["Content-Type"],
                low = req.headers["content-type"],
                cookie = req:cookie "b", none = req:cookie "zz" == nil, ip = req.ip, local_ = req.loopback, header = req:header "X-MY",
                several = json.encode {req:header("Cookie", "X-My", "X-None")}, absent = select(2, req:header("X-My", "X-None")) == nil}
        end)
        local r = app:test("PATCH", "/s/a%2Fb%20c/x/y?q=1%202&e=&f&q=3+4", {json = {1}, headers = {Cookie = "a=1; b=2; c=3", ["X-My"] = "v"}}).json
        assert.are.same({name = "a/b c", rest = "x/y"}, r.params)
        assert.are.same({q = "3 4", e = "", f = ""}, r.query)
        assert.are.same({"PATCH", "/s/a/b c/x/y", "application/json", "application/json", "2", true, "127.0.0.1", true, "v"},
            {r.method, r.path, r.type, r.low, r.cookie, r.none, r.ip, r.local_, r.header})
        assert.are.same({'["a=1; b=2; c=3","v"]', true}, {r.several, r.absent})
        app:post("/form", function(req) return req:form() end)
        assert.are.same({a = "1 2", b = "ä"}, app:test("POST", "/form", {body = "a=1+2&b=%C3%A4",
            headers = {["Content-Type"] = "application/x-www-form-urlencoded"}}).json)
        app:post("/lines", function(req)
            local out = json.array {}
            for line in req:lines() do out[#out + 1] = line end
            return out
        end)
        assert.are.same({"one", "", "three"}, app:test("POST", "/lines", {body = "one\r\n\nthree"}).json)
    end)

    it("answers 404, 405 with Allow, and OPTIONS", function()
        local app = http.app {}
        app:get("/a", function() return "get" end):post("/a", function() return "post" end)
        assert.are.equal(404, app:test("GET", "/b").status)
        local r = app:test("DELETE", "/a")
        assert.are.equal(405, r.status)
        for _, m in ipairs {"GET", "HEAD", "POST", "OPTIONS"} do assert.is_truthy(r.headers.Allow:find(m), m) end
        assert.are.equal(204, app:test("OPTIONS", "/a").status)
        app:not_found(function(req) return 404, {sorry = req.path} end)
        assert.are.same({sorry = "/b"}, app:test("GET", "/b").json)
    end)

    it("wraps handlers in middleware, from the outside in", function()
        local app, order = http.app {}, {}
        local function note(name)
            return function(req, next)
                order[#order + 1] = name
                task.sleep(0)
                return next(req)
            end
        end
        app:use(note "all"):use("/api", note "api")
        app:group("/api", function(g)
            g:use(note "group")
            g:get("/x", function(req)
                order[#order + 1] = "handler"
                return req.user or "nobody"
            end)
            g:group("/deep", function(d) d:get("/", function() return "deep" end) end)
        end)
        app:get("/other", function() return "other" end)
        app:use(function(req, next)
            req.user = "me"
            local r = http.whole(next(req))
            r.headers["X-Seen"] = "1"
            return r
        end)
        local r = app:test("GET", "/api/x")
        assert.are.same({"all", "api", "group", "handler"}, order)
        assert.are.same({200, "me", "1"}, {r.status, r.body, r.headers["X-Seen"]})
        order = {}
        assert.are.equal("other", app:test("GET", "/other").body)
        assert.are.same({"all"}, order)
        assert.are.equal("deep", app:test("GET", "/api/deep").body)
        assert.are.equal(404, app:test("GET", "/none").status)
    end)

    it("keeps strange pages and hosts out, and lets chosen ones in", function()
        local app = http.app {}
        app:use(http.access_log()):use(http.same_origin {hosts = {"neap.lan"}}):use("/open", http.cors {origins = {"https://friend.example"}})
        app:post("/x", function() return 202 end):get("/open", function() return "data" end)
        local function try(method, path, headers) return app:test(method, path, {headers = headers}) end
        assert.are.equal(202, try("POST", "/x", {Host = "127.0.0.1:5000"}).status)
        assert.are.equal(202, try("POST", "/x", {Host = "neap.lan:5000", Origin = "http://neap.lan:5000"}).status)
        assert.are.equal(202, try("POST", "/x", {Host = "[::1]:5000", Origin = "http://[::1]:5000"}).status)
        assert.are.equal(403, try("POST", "/x", {Host = "neap.lan:5000", Origin = "https://evil.example"}).status)
        assert.are.equal(403, try("POST", "/x", {Host = "neap.lan:5000", Origin = "null"}).status)
        assert.are.equal(421, try("POST", "/x", {Host = "evil.example"}).status)
        local r = try("GET", "/open", {Host = "localhost", Origin = "https://friend.example"})
        assert.are.same({200, "https://friend.example"}, {r.status, r.headers["Access-Control-Allow-Origin"]})
        assert.is_nil(try("GET", "/open", {Host = "localhost", Origin = "https://evil.example"}).headers["Access-Control-Allow-Origin"])
        r = try("OPTIONS", "/open", {Host = "localhost", Origin = "https://friend.example", ["Access-Control-Request-Method"] = "GET"})
        assert.are.equal(204, r.status)
        assert.is_truthy(r.headers["Access-Control-Allow-Methods"]:find "GET")
        log.flush()
        assert.is_truthy(table.concat(lines, "\n"):find("status=202", 1, true))
    end)

    it("makes an error a 500 with an id, its traceback logged", function()
        local app = http.app {}
        app:get("/boom", function()
            task.sleep(0)
            error "the oven exploded"
        end)
        app:get("/teapot", function() http.error(409, "no", {sensor = "oven"}) end)
        local r = app:test("GET", "/boom")
        assert.are.equal(500, r.status)
        assert.are.equal("application/problem+json", r.headers["Content-Type"])
        assert.is_truthy(r.json.detail:find("the oven exploded", 1, true))
        assert.is_truthy(r.json.traceback:find("http_spec.lua", 1, true))
        log.flush()
        local text = table.concat(lines, "\n")
        assert.is_truthy(text:find("the oven exploded", 1, true) and text:find(r.json.request, 1, true), text)
        r = app:test("GET", "/teapot")
        assert.are.same({409, "no", "oven"}, {r.status, r.json.detail, r.json.sensor})
        app:on_error(function(err, req) return 500, {mine = tostring(err):match "oven", path = req.path} end)
        assert.are.same({mine = "oven", path = "/boom"}, app:test("GET", "/boom").json)
    end)

    it("answers 503 to an error that will pass, as when Redis is away", function()
        local app = http.app {}
        app:get("/away", function() error(task.error("connection", "Redis is away", {retryable = true}), 0) end)
        local r = app:test("GET", "/away")
        assert.are.same({503, "1", "Redis is away"}, {r.status, r.headers["Retry-After"], r.json.detail})
        assert.is_nil(r.json.traceback)
    end)

    it("says what is wrong with a handler's values", function()
        local app = http.app {}
        app:get("/status", function() return 99 end)
        app:get("/header", function() return 200, "", {["X-A"] = "a\r\nX-B: b"} end)
        app:get("/headers", function() return 200, "", "text/plain" end)
        app:get("/cycle", function()
            local t = {}
            t.t = t
            return t
        end)
        for path, want in pairs {status = "no HTTP status", header = "does not allow", headers = "headers are a string", cycle = ""} do
            local r = app:test("GET", "/" .. path)
            assert.are.equal(500, r.status, path)
            assert.is_truthy(r.json.detail:find(want, 1, true), r.json.detail)
        end
    end)

    it("refuses unknown options, double routes and bad patterns where they are written", function()
        local app = http.app {}
        app:get("/a", function() end)
        for want, fn in pairs {
            ["did you mean 'timeout'"] = function() http.app {timeot = 3} end,
            ["did you mean 'port'"] = function() app:listen {prot = 3} end,
            ["have a handler already"] = function() app:get("/a", function() end) end,
            ["begins with '/'"] = function() app:get("b", function() end) end,
            ["not a function"] = function() app:get("/b", 3) end,
            ["number of bytes"] = function() http.app {max_body = "lots"} end,
        } do
            local ok, err = pcall(fn)
            assert.is_false(ok)
            assert.is_truthy(tostring(err):find(want, 1, true), tostring(err))
            assert.is_truthy(tostring(err):find("http_spec.lua", 1, true), tostring(err))
        end
    end)

    it("lists its routes and makes their paths", function()
        local app = http.app {}
        app:get("/sensors/:name/x", function() end, {name = "x", summary = "an x"})
        local r = app:routes()[1]
        assert.are.same({"GET", "/sensors/:name/x", "an x"}, {r.method, r.path, r.summary})
        assert.is_truthy(r.where:find("http_spec.lua:%d"))
        assert.are.equal("/sensors/a%2Fb%20c/x", app:url_for("x", {name = "a/b c"}))
    end)

    it("undoes gzip with caps", function()
        local app = http.app {max_body = "100KB"}
        app:post("/", function(req) return tostring(#req:text()) end)
        local dir = helper.dir()
        local function packed(text)
            helper.write(dir .. "/x", text)
            os.execute("gzip -kf " .. dir .. "/x")
            return helper.read(dir .. "/x.gz")
        end
        local function post(body, encoding) return app:test("POST", "/", {body = body, headers = {["Content-Encoding"] = encoding or "gzip"}}) end
        assert.are.equal("50000", post(packed(("abcde"):rep(10000))).body)
        assert.are.equal(413, post(packed(("\0"):rep(1000000))).status)
        assert.are.equal(400, post("not gzip at all").status)
        assert.are.equal(400, post(packed("hello"):sub(1, -9)).status)
        assert.are.equal(415, post("x", "br").status)
        helper.remove(dir)
    end)
end)

describe("a server", function()
    it("serves over a socket: JSON in, JSON out, connection reused", function()
        local app = http.app {}
        app:post("/echo", function(req) return 201, req:json(), {["X-Id"] = req.id} end)
        local base, s = serve(app)
        for i = 1, 20 do
            local r = http.post(base .. "/echo", {json = {i = i, big = 9007199254740993, f = 0.1}})
            assert.are.equal(201, r.status)
            assert.are.same({i = i, big = 9007199254740993, f = 0.1}, r:json())
            assert.is_truthy(r.headers["x-id"])
        end
        local st = s:stats()
        assert.are.same({1, 20, 20}, {st.connections, st.requests, st.answered})
    end)

    it("runs handlers as tasks: many wait at once", function()
        local app, now, most = http.app {}, 0, 0
        app:get("/wait", function()
            now = now + 1
            most = math.max(most, now)
            eventually(function() return most == 30 end)
            now = now - 1
            return "done"
        end)
        local base = serve(app)
        local n = {}
        for i = 1, 30 do n[i] = i end
        for _, status in ipairs(task.map(n, function() return http.get(base .. "/wait").status end, {limit = 30})) do assert.are.equal(200, status) end
        assert.are.equal(30, most)
    end)

    it("cancels the task of a client that leaves, and <close> variables close", function()
        local app, closed, started = http.app {}, nil, false
        app:get("/wait", function()
            local guard <close> = setmetatable({}, {__close = function(_, e) closed = type(e) == "table" and e.kind or tostring(e) end}) -- luacheck: ignore 211
            started = true
            task.sleep(60)
        end)
        local base, s = serve(app)
        local t = task.spawn(function() http.get(base .. "/wait") end):quiet()
        eventually(function() return started end)
        t:cancel()
        eventually(function() return closed end)
        assert.are.equal("cancelled", closed)
        eventually(function() return s:stats().in_flight == 0 end)
        assert.are.equal(1, s:stats().gone)
    end)

    it("answers 503 for a handler past its time, and goes on", function()
        local app, ended = http.app {timeout = 0.1}, nil
        app:get("/slow", function()
            local guard <close> = setmetatable({}, {__close = function() ended = true end}) -- luacheck: ignore 211
            task.sleep(60)
        end)
        app:get("/patient", function()
            task.sleep(0.3)
            return "ok"
        end, {timeout = 20})
        local base = serve(app)
        local r = http.get(base .. "/slow")
        assert.are.equal(503, r.status)
        assert.is_truthy(r.headers["retry-after"])
        eventually(function() return ended end)
        assert.are.equal("ok", http.get(base .. "/patient").body)
    end)

    it("streams with back-pressure, and server-sent events", function()
        local app, closed = http.app {}, false
        app:get("/big", function(req)
            local stream <close> = req:stream {["Content-Type"] = "text/plain"}
            for _ = 1, 300 do stream:write(("x"):rep(10000)) end
        end)
        app:sse("/live", function(_, stream)
            stream:send {event = "n", id = 1, data = {a = 1}}
            stream:send "two\nlines"
            stream:comment "hi"
        end)
        app:sse("/endless", function(_, stream)
            local guard <close> = setmetatable({}, {__close = function() closed = true end}) -- luacheck: ignore 211
            while true do
                stream:send "tick"
                task.sleep(0.005)
            end
        end)
        app:get("/broken", function(req)
            req:stream():write "half"
            error "in the middle"
        end)
        local base = serve(app)
        assert.are.equal(3000000, #http.get(base .. "/big").body)
        local r = http.get(base .. "/live")
        assert.are.equal("text/event-stream", r.headers["content-type"])
        assert.are.equal('event: n\nid: 1\ndata: {"a":1}\n\ndata: two\ndata: lines\n\n: hi\n\n', r.body)
        local ok, err = pcall(http.get, base .. "/endless", {timeout = 0.3})
        assert.is_false(ok)
        assert.are.equal("timeout", err.kind)
        eventually(function() return closed end)
        ok, err = pcall(http.get, base .. "/broken")
        assert.are.same({false, "connection"}, {ok, err.kind})
        assert.are.equal(r.body, app:test("GET", "/live").body)
    end)

    it("keeps a request for background work after the answer", function()
        local app, seen = http.app {}, nil
        app:post("/job", function(req)
            req:background(function(r)
                task.sleep(0.01)
                seen = r:text() .. r.path
            end)
            return 202
        end)
        local held
        app:get("/hold", function(req) held = req end)
        local base = serve(app)
        assert.are.equal(202, http.post(base .. "/job", {body = "abc"}).status)
        eventually(function() return seen end)
        assert.are.equal("abc/job", seen)
        http.get(base .. "/hold")
        assert.has_error(function() return held.path end, "this request is over: read what you need before the handler returns, or work in req:background(fn)")
    end)

    it("refuses bodies over the route's limit before they come", function()
        local app = http.app {max_body = 1000}
        app:post("/small", function(req) return tostring(#req:text()) end)
        app:post("/large", function(req) return tostring(#req:text()) end, {max_body = "1MB"})
        local base = serve(app)
        assert.are.equal(413, http.post(base .. "/small", {body = ("x"):rep(1001)}).status)
        assert.are.equal("1000", http.post(base .. "/small", {body = ("x"):rep(1000)}).body)
        assert.are.equal("500000", http.post(base .. "/large", {body = ("x"):rep(500000)}).body)
    end)

    it("drains: answers what is under way, then closes", function()
        local app, inside = http.app {}, false
        app:get("/slow", function()
            inside = true
            task.sleep(0.2)
            return "done"
        end)
        local base, s = serve(app)
        local t = task.spawn(function() return http.get(base .. "/slow") end)
        eventually(function() return inside end)
        s:close(5)
        assert.are.equal("done", t:join().body)
        assert.are.equal("connection", select(2, http.try.get(base .. "/slow", {timeout = 2})).kind)
    end)

    it("hands its port to a new version without a lost request", function()
        local function version(text)
            local app = http.app {}
            app:get("/", function()
                task.sleep(0.01)
                return text
            end)
            return app
        end
        local base, old = serve(version "old")
        local failed, seen, stop = 0, {}, false
        local clients = task.spawn(function()
            task.map({1, 2, 3, 4}, function()
                while not stop do
                    local r = http.try.get(base .. "/", {headers = {Connection = "close"}})
                    if r and r.status == 200 then seen[r.body] = true else failed = failed + 1 end
                end
            end)
        end)
        eventually(function() return seen.old end)
        local new = version "new":listen {fd = old:fd()}
        servers[#servers + 1] = new
        old:close(5)
        eventually(function() return seen.new end)
        stop = true
        clients:join()
        assert.are.equal(0, failed)
        assert.are.equal("new", http.get(base .. "/").body)
    end)

    it("says who cannot listen and why", function()
        local app = http.app {}
        local _, s = serve(app)
        local ok, err = pcall(app.listen, app, {port = s:port()})
        assert.is_false(ok)
        assert.are.equal("io", err.kind)
        assert.is_truthy(err.message:find("another program holds the port", 1, true), err.message)
    end)

    it("serves files, and only those", function()
        local dir = helper.dir()
        os.execute(("mkdir -p %s/www/sub && ln -s ../secret %s/www/link && ln -s sub %s/www/inside"):format(dir, dir, dir))
        helper.write(dir .. "/secret", "secret")
        helper.write(dir .. "/www/.hidden", "hidden")
        helper.write(dir .. "/www/index.html", "<!doctype html>index")
        helper.write(dir .. "/www/a.css", ("body{}"):rep(100))
        helper.write(dir .. "/www/sub/b.txt", "0123456789")
        os.execute("gzip -k " .. dir .. "/www/a.css")
        local app = http.app {}
        app:static("/", dir .. "/www", {cache = "1h"})
        app:static("/assets", "asset:lua/meta")
        local base = serve(app)
        local function get(path, headers) return http.request {url = base .. path, headers = headers} end
        local r = get "/"
        assert.are.same({200, "<!doctype html>index", "text/html; charset=utf-8", "max-age=3600"},
            {r.status, r.body, r.headers["content-type"], r.headers["cache-control"]})
        assert.are.equal(304, get("/", {["If-None-Match"] = r.headers.etag}).status)
        assert.are.equal(304, get("/", {["If-Modified-Since"] = r.headers["last-modified"]}).status)
        r = get("/sub/b.txt", {Range = "bytes=2-4", ["Accept-Encoding"] = ""})
        assert.are.same({206, "234", "bytes 2-4/10"}, {r.status, r.body, r.headers["content-range"]})
        assert.are.equal("789", get("/sub/b.txt", {Range = "bytes=-3"}).body)
        assert.are.equal("9", get("/sub/b.txt", {Range = "bytes=9-"}).body)
        assert.are.equal(416, get("/sub/b.txt", {Range = "bytes=10-"}).status)
        assert.are.equal("0123456789", get("/sub/b.txt", {Range = "bytes=0-1,3-4"}).body)
        assert.are.equal("0123456789", get("/inside/b.txt").body)
        r = get("/a.css", {["Accept-Encoding"] = "gzip"})
        assert.are.same({200, "gzip", 600}, {r.status, r.headers["content-encoding"], #r.body})
        for _, path in ipairs {"/link", "/.hidden", "/../secret", "/%2e%2e/secret", "/..%2fsecret", "/sub/..%2f..%2fsecret", "/sub", "/none",
            "/%5c..%5csecret"} do
            assert.are.equal(404, get(path).status, path)
        end
        r = get "/assets/http.lua"
        assert.are.equal(200, r.status)
        assert.is_truthy(r.body:find("---@meta", 1, true))
        assert.are.equal(404, get("/assets/..%2fneap%2fhttp.lua").status)
        helper.remove(dir)
    end)

    it("speaks TLS with a certificate and a key", function()
        local dir = helper.dir()
        local made = os.execute(("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 "
            .. "-keyout %s/key.pem -out %s/cert.pem 2>/dev/null"):format(dir, dir))
        if not made then return pending "openssl is not installed" end
        local app = http.app {}
        app:post("/", function(req) return req:text():upper() end)
        local _, s = serve(app, {port = 0, tls = {cert = dir .. "/cert.pem", key = dir .. "/key.pem"}})
        local url = "https://127.0.0.1:" .. s:port() .. "/"
        assert.are.equal("ABC", http.post(url, {body = "abc", ca = dir .. "/cert.pem"}).body)
        local r, err = http.try.post(url, {body = "abc"})
        assert.is_nil(r)
        assert.are.equal("connection", err.kind)
        local ok, why = pcall(app.listen, app, {port = 0, tls = {cert = dir .. "/key.pem", key = dir .. "/key.pem"}})
        assert.is_false(ok)
        assert.is_truthy(tostring(why):find("certificate and key", 1, true), tostring(why))
        helper.remove(dir)
    end)

    it("listens on a unix socket", function()
        local dir = helper.dir()
        local app = http.app {}
        app:get("/", function(req) return req.ip end)
        serve(app, {unix = dir .. "/s"})
        assert.are.equal("unix", http.get("http://localhost/", {unix = dir .. "/s"}).body)
        helper.remove(dir)
    end)
end)

describe("the client", function()
    it("names what failed", function()
        local r, err = http.try.get("http://127.0.0.1:1/", {timeout = 2})
        assert.is_nil(r)
        assert.are.same({"connection", true, false}, {err.kind, err.retryable, err.sent})
        assert.are.equal("invalid", select(2, http.try.get "ftp://127.0.0.1/").kind)
        local app = http.app {}
        app:get("/big", function() return ("x"):rep(10000) end)
        local base = serve(app)
        assert.are.equal("full", select(2, http.try.get(base .. "/big", {max_body = 100})).kind)
        assert.has_error(function() http.get(base, {timeot = 1}) end)
        assert.has_error(function() http.get(base, {headers = {a = "b\r\nc: d"}}) end)
    end)

    it("sends queries, forms, bearer tokens, and follows redirects when asked", function()
        local app = http.app {}
        app:any("/x", function(req)
            return {q = req.query, f = req.method == "POST" and req:form() or nil, auth = req:header "Authorization"}
        end)
        app:get("/moved", function() return 302, nil, {Location = "/x?from=moved"} end)
        local base = serve(app)
        assert.are.same({q = {a = "1 & 2"}, f = {b = "ü="}, auth = "Bearer t"},
            http.post(base .. "/x", {query = {a = "1 & 2"}, form = {b = "ü="}, bearer = "t"}):json())
        assert.are.equal(302, http.get(base .. "/moved").status)
        assert.are.equal("moved", http.get(base .. "/moved", {redirects = 5}):json().q.from)
        assert.are.equal("moved", json.decode(http.fetch(base .. "/moved")).q.from)
    end)
end)

describe("http.equal", function()
    it("compares whole strings", function()
        assert.is_true(http.equal("secret", "secret"))
        for _, other in ipairs {"secreT", "secre", "secrett", ""} do assert.is_false(http.equal("secret", other)) end
    end)
end)
