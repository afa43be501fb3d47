--- neap repl: a Lua prompt in which Redis, HTTP, tensors and models are at hand; each line is a task, so whatever waits just works.
local args = require "neap.args"

-- `neap` alone and `neap -i script` come here too, with another program's arguments in `arg`: only our own are looked at.
local ours = arg and arg[0] == "repl"
local opt = ours and args.parse{
    name = "neap repl", summary = "A Lua prompt in which Redis, HTTP, tensors and models are at hand.",
    positional = {{"script", optional = true, help = "a file to run first; its globals are there at the prompt"}},
    example = "neap repl\nneap> x = tensor.randn{1000}\nneap> /plot x",
} or {}
if opt.script then dofile(opt.script) end

local code = require("neap.repl").run{
    banner = ("neap %s on %s. /help explains, Tab completes, ^D leaves."):format(neap.version, _VERSION),
}
os.exit(code, true) -- whatever still runs in the background ends with the prompt
