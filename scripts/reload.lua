--- neap reload: makes a running server read its sensor specs, handlers and extensions again; a broken edit leaves the old version serving.
local args = require "neap.args"
local attach = require "neap.attach"

local opt = args.parse{
    name = "neap reload",
    summary = "Makes a running server read its files again. The new version is checked first; if it is broken the old one goes on.",
    positional = {{"server", optional = true, help = "process id, name or socket; not needed when only one runs"}},
}

local ok, server = pcall(attach.open, opt.server, 0)
local asked, reply
if ok then
    server.out = function() end -- what is told to everybody who is attached comes as the answer too
    asked, reply = pcall(server.ask, server, {op = "reload"})
    server:close()
end
if not asked or not reply.ok then
    io.stderr:write("neap reload: ", asked and reply.message or tostring(ok and reply or server), "\n")
    os.exit(1, true)
end
print(reply.message or "reloaded")
os.exit(0, true)
