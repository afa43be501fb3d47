-- Child processes, and the control socket.
local process, control, task = require "neap.process", require "neap.control", require "neap.task"
do
    local p <close> = process.spawn {"sh", "-c", "echo one; echo two; cat",
        stdin = "pipe", stdout = "pipe", stderr = "stdout", env = {"A=1", "PATH=/usr/bin:/bin"}}
    assert(p:line(5) == "one")
    assert(p:line(5) == "two")
    p:kill()
    p:wait(5)
end
assert(process.run {"echo", "x"} == "x\n")
assert(not pcall(process.run, {"/no/such/program"}))
local server = control.listen(arg[0] .. "/c.sock", function(conn)
    conn:send(conn:recv(5))
    conn:close()
end)
local conn = control.connect(arg[0] .. "/c.sock")
conn:send "hello"
assert(conn:recv(5) == "hello")
conn:close()
server:close()
task.yield()
