--- What a person waits for: a start, the echo of a key at the prompt, an answer from inside a running server, a reload.
local process = require "neap.process"
local task = require "neap.task"

local bench = {summary = "milliseconds until a start, a key's echo at the prompt, neap attach -e, neap reload"}

local function median(list)
    table.sort(list)
    return list[#list // 2 + 1]
end

-- The median time of fn(), in milliseconds.
local function timed(rounds, fn)
    local took = {}
    for i = 1, rounds do
        local t0 = task.now()
        fn()
        took[i] = (task.now() - t0) * 1e3
    end
    return median(took)
end

local function start_of(program, rounds)
    return timed(rounds, function() process.run {program, "-e", ""} end)
end

-- Reads until the terminal has shown a text, colours and the like left out.
local function shown(p, text)
    local seen = ""
    while not seen:gsub("\27%[[%d;?]*[A-Za-z]", ""):find(text, 1, true) do
        seen = seen .. (p:read(10) or error "the prompt did not answer")
    end
end

local function echo(program, rounds)
    local p <close> = process.spawn {"script", "-qfec", "env NEAP_HISTORY= " .. program .. " repl", "/dev/null",
        stdin = "pipe", stdout = "pipe", stderr = "stdout"}
    shown(p, "neap> ")
    local typed = "neap> "
    return timed(rounds, function()
        typed = typed .. "x"
        p:write "x"
        shown(p, typed)
    end)
end

function bench.run(opts, say)
    local rounds = opts.rounds or 30
    local program = process.run({"readlink", "-f", "/proc/" .. process.run({"sh", "-c", "echo $PPID"}):gsub("%s", "") .. "/exe"}):gsub("%s+$", "")
    local dir = os.tmpname()
    os.remove(dir)
    process.run {"mkdir", "-m", "700", dir}
    local guard <close> = setmetatable({}, {__close = function() process.run {"rm", "-rf", dir} end}) -- luacheck: ignore 211
    local result = {start_ms = start_of(program, rounds), echo_ms = echo(program, rounds)}
    local ok, stock = pcall(start_of, "lua5.4", rounds)
    result.vs = {["lua5.4 start"] = ok and result.start_ms / stock or nil}
    say(("neap -e ''        %6.1f ms%s"):format(result.start_ms, ok and ("   lua5.4: %.1f ms"):format(stock) or ""))
    say(("a key's echo      %6.2f ms"):format(result.echo_ms))

    local server <close> = process.spawn {program, "serve", "--listen", "127.0.0.1:0", "--data", dir .. "/data", cwd = dir, stdout = "pipe",
        stderr = "stdout"}
    repeat
        local line = assert(server:line(20), "the server did not start")
    until line:find("listens on", 1, true)
    local pid = tostring(server.pid)
    local function inside(...)
        local out, code = process.run {program, ...}
        if code ~= 0 then error(out, 0) end
    end
    result.attach_ms = timed(rounds, function() inside("attach", pid, "-e", "1 + 1") end)
    say(("neap attach -e    %6.1f ms"):format(result.attach_ms))
    result.reload_ms = timed(rounds, function() inside("reload", pid) end)
    say(("neap reload       %6.1f ms"):format(result.reload_ms))
    return result
end

return bench
