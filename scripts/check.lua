--- neap check: looks at a project before it serves: syntax, unknown globals, sensor specs, routes, rocks, Redis, ports, limits.
local args = require "neap.args"
local check = require "neap.check"

local opt = args.parse{
    name = "neap check", summary = "Looks at a project without serving it. Exit code 0: it may serve; 3: something must be mended first.",
    positional = {{"file", many = true, optional = true, help = "Lua files (default: app.lua, sensors.lua and lua/ here)"}},
    options = {
        {"--data", value = "DIR", help = "data directory"},
        {"--redis", value = "URL", help = "the Redis that will be used"},
        {"--sensors", value = "FILE", help = "sensor specs"},
        {"--listen", value = "HOST:PORT", default = "127.0.0.1:5000", help = "where it will listen"},
        {"--allow", value = "NAME", many = true, help = "a global that is there at run time"},
        {"--only", value = "CHECK", many = true,
            help = "run this check alone (or several: a,b): syntax, globals, sensors, routes, rocks, extensions, redis, gpu, port, limits"},
        {"--use", value = "EXTENSION", many = true, help = "turn an extension on first; its checks run too"},
        {"--json", type = "flag", help = "the report as JSON"},
    },
}

for _, name in ipairs(opt.use) do require("neap.ext").use(name) end
local report = check.run{
    files = #opt.file > 0 and opt.file or nil, data = opt.data, redis = opt.redis, sensors = opt.sensors, listen = opt.listen,
    globals = opt.allow, only = opt.only,
}
if opt.json then
    print(require("neap.json").encode(report, {pretty = true}))
else
    print(check.text(report, require("neap.term").colour()))
end
os.exit(report.failed > 0 and 3 or 0, true)
