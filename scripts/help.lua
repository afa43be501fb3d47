--- neap help: the commands, or what is known about a function: neap help redis.xadd
local help = require "neap.help"

local what = arg and arg[1]
if what and what ~= "--help" and what ~= "-h" then
    if neap.asset("scripts/" .. what .. ".lua") and not what:find("[./]") then
        arg = {[0] = what, "--help"} -- luacheck: ignore 121
        return assert(load(neap.asset("scripts/" .. what .. ".lua"), "@scripts/" .. what .. ".lua", "t"))("--help")
    end
    local text, why = help.text(what, require("neap.term").colour())
    if not text then
        io.stderr:write("neap help: ", why, "\n")
        os.exit(1, true)
    end
    print(text)
    os.exit(0, true)
end

print("usage: neap [options] [script [args]]     a drop-in lua 5.4\n       neap COMMAND [args]\n\ncommands (each has --help):")
for _, name in ipairs(neap.assets "scripts/") do
    local command = name:match "^scripts/([%a_]+)%.lua$"
    local summary = command and neap.asset(name):match "^%-%-%-? neap [^\n]-: ([^\n]+)"
    if summary then print(("  neap %-10s %s"):format(command, summary:match "^(.-)[.;] " or summary)) end
end
print("\nfunctions:\n  neap help NAME     what is known about a function or module, for instance: neap help task.spawn")
print("\noptions are those of lua: -e STAT, -l MOD, -i, -v, -E, -W, --, - (stdin); and --version")
