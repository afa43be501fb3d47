-- HTTP: a server and a client in one host; streams, files, errors.
local http, task = require "neap.http", require "neap.task"
require("neap.log").sink(function() end)
local app = http.app()
app:get("/hello/:name", function(req) return {hello = req.params.name, q = req.query.q} end)
app:post("/echo", function(req) return 201, req:json(), {["X-Own"] = "1"} end)
app:get("/bad", function() error "on purpose" end)
app:sse("/live", function(_, stream) for i = 1, 3 do stream:send {data = i} end end)
app:use(function(req, next) task.yield() return next(req) end)
local f = assert(io.open(arg[0] .. "/file.txt", "w"))
f:write(("x"):rep(5000))
f:close()
app:static("/files", arg[0])
local server = app:listen {port = 0}
local base = "http://127.0.0.1:" .. server:port()
local guard <close> = setmetatable({}, {__close = function() server:close() end}) -- luacheck: ignore 211
local function ask(opts)
    opts.url, opts.timeout = base .. opts.url, 5
    return http.request(opts)
end
assert(ask {url = "/hello/you?q=1"}.status == 200)
assert(ask {url = "/echo", method = "POST", json = {a = {1, 2, 3}}}:json().a[3] == 3)
assert(ask {url = "/bad"}.status == 500)
assert(ask {url = "/none"}.status == 404)
assert(#ask {url = "/files/file.txt"}.body == 5000)
assert(ask {url = "/live"}.body:find "data: 3")
assert(app:test("GET", "/hello/me").status == 200)
