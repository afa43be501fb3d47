--- neap repl: a Lua prompt in which Redis, HTTP, tensors and models are at hand; each line is a task, so whatever waits just works.
local args = require "neap.args"
local session = require "neap.session"

-- `neap` alone and `neap -i script` come here too, with another program's arguments in `arg`: only our own are looked at.
local ours = arg and arg[0] == "repl"
local opt = ours and args.parse{
    name = "neap repl", summary = "A Lua prompt in which Redis, HTTP, tensors and models are at hand.",
    positional = {{"script", optional = true, help = "a file to run first; its globals are there at the prompt"}},
    options = session.options(),
    example = "neap repl\nneap> x = tensor.randn{1000}\nneap> /plot x",
} or {}
local redis = require "neap.redis"
if opt.redis or opt.data then redis.configure{url = opt.redis, data = not opt.redis and opt.data or nil} end
if opt.script then dofile(opt.script) end

-- `store` and `specs` are there when they are first named; a running server's private Redis is joined, not disturbed.
local here
local function open_here()
    if not here then
        local specs = session.specs(opt.sensors)
        here = {specs = specs, redis = redis.default(), data = opt.data}
        here.store = require("neap.store").new(here.redis, {specs = specs})
    end
    return here
end
local extra = setmetatable({}, {__index = function(_, name)
    if name == "here" then return open_here() end
    if name == "store" or name == "specs" then return open_here()[name] end
end})

local code = require("neap.repl").run{
    extra = extra,
    names = function() return here and here.store:sensors() or {} end,
    banner = ("neap %s on %s. /help explains, Tab completes, ^D leaves."):format(neap.version, _VERSION),
}
if here then here.redis:close() end
os.exit(code, true) -- whatever still runs in the background ends with the prompt
