--- neap attach: a prompt inside a running server. Change it while it runs: look at tasks, try code, reload.
local args = require "neap.args"
local attach = require "neap.attach"

local opt = args.parse{
    name = "neap attach", summary = "A prompt inside a running server of yours: its variables, its tasks, its connections.",
    positional = {{"server", optional = true, help = "process id, name or socket; not needed when only one runs"}},
    options = {
        {"--execute", "-e", value = "CODE", help = "run CODE there, print what it gives, and leave (exit code 1 if it fails)"},
        {"--worker", "-w", type = "integer", min = 1, default = 1, help = "which worker"},
        {"--list", "-l", type = "flag", help = "list the running servers"},
    },
    example = "neap attach\nneap attach 1234 -e 'return #task.list()'",
}

if opt.list then
    for _, s in ipairs(attach.list()) do
        if s.worker > 0 then
            print(("%d  %s  worker %d of %d  %s"):format(s.pid, s.name or "", s.worker, s.workers, s.silent and "does not answer" or s.where or ""))
        end
    end
    os.exit(0, true)
end

local ok, server = pcall(attach.open, opt.server, opt.worker)
if not ok then
    io.stderr:write("neap attach: ", tostring(server), "\n")
    os.exit(1, true)
end

local code
if opt.execute then
    local ran, result = pcall(server.run, server, opt.execute)
    if not ran then io.stderr:write("neap attach: ", tostring(result), "\n") end
    code = ran and result and 0 or 1
else
    local info = server.info
    if info.note then io.write(info.note, "\n") end
    code = require("neap.repl").run{
        backend = server,
        banner = ("in %s, process %d%s, neap %s. What you type runs there; /help explains, ^D leaves."):format(info.name or "a server",
            info.pid,
            info.workers > 1 and (", worker %d of %d"):format(info.worker, info.workers) or "", info.version),
    }
end
server:close()
os.exit(code, true)
