-- neap serve: take readings over HTTP, keep them in Redis, score them as they come.
local args = require "neap.args"
local session = require "neap.session"
local supervisor = require "neap.supervisor"

local opt = args.parse {
    name = "neap serve",
    summary = "Take readings over HTTP (POST /receive), keep them safely in Redis, and score them as they arrive.\n"
        .. "GET /health answers 200 when it is ready; GET /api/sensors shows what is there.",
    positional = {{"app.lua", key = "app", optional = true, help = "a Lua file of your own that adds routes: return function(app, here)"}},
    options = session.options {
        {"--listen", value = "HOST:PORT", default = "127.0.0.1:5000", help = "where to listen"},
        {"--workers", type = "integer", min = 1, max = 64, default = 1, help = "threads that answer requests"},
        {"--name", default = "neap", help = "what `neap attach` and `neap top` call this server"},
        {"--use", value = "EXTENSION", many = true, help = "turn an installed extension on"},
        {"--auth", type = "flag", help = "ask for tokens on this machine too, as behind a proxy (elsewhere they are always asked for)"},
        {"--no-auth", type = "flag", help = "ask nobody for a token"},
        {"--allow-host", value = "NAME", many = true, help = "where no token is asked for: answer for this name too, and let its pages send (else addresses"
            .. " and local names only)"},
        {"--tls-cert", value = "FILE", help = "serve HTTPS with this certificate (PEM)"},
        {"--tls-key", value = "FILE", help = "and its key"},
        {"--rate-limit", type = "number", min = 0.001, value = "N", help = "requests a second from one device, else 429 (bursts: ten times that)"},
        {"--allow-get", type = "flag", help = "take readings from GET /receive?sensor_name=..&sensor_output=.. too"},
        {"--time-limit", type = "duration", min = 0, default = 2.0, help = "a handler that computes for longer without waiting is stopped (0: never; a route's"
            .. " own: app:get(path, fn, {limit = 10}))"},
        {"--memory-limit", type = "bytes", default = 1 << 30, help = "what the Lua of a worker may hold (default 1GB)"},
        {"--ack", choices = {"disk", "memory"}, default = "disk", help = "when 2xx is answered: once readings are on disk, or once the system has them"
            .. " (faster; a power cut may cost the last seconds, a crash of neap nothing)"},
        {"--journal-bytes", type = "bytes", default = 1 << 30, help = "how much the journal may keep for a Redis that is behind, before 503 (default 1GB)"},
        {"--journal-age", type = "duration", min = 1, default = 86400.0, help = "and for how long the oldest reading may wait (default 24h)"},
        {"--most-sensors", type = "integer", min = 1, default = 10000, help = "how many sensors may register themselves"},
    },
    example = "neap serve --listen 127.0.0.1:5000 --data neap-data",
}

local host, why = supervisor.address(opt.listen)
if not host then args.refuse("neap serve", why) end
if opt.no_auth and opt.auth then args.refuse("neap serve", "--auth and --no-auth contradict each other; give one of them") end
if (opt.tls_cert == nil) ~= (opt.tls_key == nil) then args.refuse("neap serve", "TLS needs both --tls-cert and --tls-key") end
local ok, err = pcall(supervisor.start, opt)
if not ok then
    io.stderr:write("neap serve: ", tostring(err), "\n")
    os.exit(1, true)
end
