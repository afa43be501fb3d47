--- neap help: the commands.
local commands = {}
for _, name in ipairs(neap.assets "scripts/") do
    local command = name:match "^scripts/([%a_]+)%.lua$"
    if command then
        local summary = neap.asset(name):match "^%-%-%- neap [^\n]-: ([^\n]+)"
        if summary then commands[#commands + 1] = {command, summary} end
    end
end
print("usage: neap [options] [script [args]]     a drop-in lua 5.4\n       neap COMMAND [args]\n\ncommands (each has --help):")
for _, c in ipairs(commands) do print(("  neap %-10s %s"):format(c[1], c[2])) end
print("\noptions are those of lua: -e STAT, -l MOD, -i, -v, -E, -W, --, - (stdin); and --version")
