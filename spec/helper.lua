--- What many specs need: a directory that goes away, a private Redis or a whole server in it, and waiting on conditions instead of sleeping.
local process = require "neap.process"
local redis = require "neap.redis"
local task = require "neap.task"

local helper = {}

--- The neap that runs the specs.
function helper.program()
    local lowest = 0
    while arg and arg[lowest - 1] do lowest = lowest - 1 end
    return lowest < 0 and arg[lowest] or "build/neap"
end

--- A new directory; remove it with helper.remove(dir).
function helper.dir()
    local path = os.tmpname()
    os.remove(path)
    assert(os.execute("mkdir -m 700 '" .. path .. "'"))
    return path
end

function helper.remove(dir) os.execute("rm -rf '" .. dir .. "'") end

--- A client of a redis-server of its own. fsync = "no" unless told otherwise: specs need order, not disks.
function helper.redis(dir, opts)
    opts = opts or {}
    opts.dir, opts.fsync = dir, opts.fsync or "no"
    return redis.private(opts)
end

--- A `neap serve` that takes requests, on a free port, with DIR/data and DIR/log as its own; `args` are added to its command line, opts.env is its
--- environment. An error with its log if it ends instead. RETURN: its process (a <close> variable ends it), its address, what it printed.
function helper.serve(dir, args, opts)
    local words = {helper.program(), "serve", "--listen", "127.0.0.1:0", "--data", dir .. "/data", stdout = "pipe", stderr = "file",
        path = dir .. "/log", env = opts and opts.env}
    local p = process.spawn(table.move(args or {}, 1, #(args or {}), #words + 1, words))
    local said = ""
    repeat
        local line, why = p:line(20)
        if not line then
            p:stop()
            error(("the server %s: %s%s"):format(why and "does not start" or "ended", said, helper.read(dir .. "/log") or ""), 2)
        end
        said = said .. line .. "\n"
    until line:find "^  try"
    return p, said:match "https?://[%d.]+:%d+", said
end

--- An `it` for what needs a program: it_with(command, title, body) is left out, with a word, where `command` does not run. busted gives `it` and
--- `pending` to a spec's own file only, which hands them on.
function helper.it_with(it, pending)
    return function(command, title, body)
        if os.execute(command .. " >/dev/null 2>&1") then it(title, body) else pending(title .. " (not installed)", function() end) end
    end
end

--- A shell's test for helper.it_with: collectd is here, with its HTTP client and the JSON library that its types need.
helper.COLLECTD = 'test -x /usr/sbin/collectd -a -e /usr/lib/collectd/write_http.so -a -n "$(ldconfig -p | grep yajl)"'

--- A collectd that measures its machine's load ten times a second, as the host "edge", and posts it: `nodes` is what stands in its write_http.
--- Its buffer goes out when it is full, which is soon. RETURN: its process.
function helper.collectd(dir, nodes)
    helper.write(dir .. "/collectd.conf", ([[
Hostname "edge"
Interval 0.1
PIDFile "DIR/pid"
BaseDir "DIR"
TypesDB "/usr/share/collectd/types.db"
LoadPlugin load
LoadPlugin write_http
<Plugin write_http>
%s</Plugin>
]]):format(nodes):gsub("DIR", dir))
    return process.spawn {"/usr/sbin/collectd", "-f", "-C", dir .. "/collectd.conf", stdout = "null", stderr = "null"}
end

--- The first true value of fn(), asked again until it comes; an error after `seconds` (10).
function helper.eventually(fn, seconds)
    local deadline = task.now() + (seconds or 10)
    while true do
        local value = fn()
        if value then return value end
        if task.now() > deadline then error("it did not become true in time", 2) end
        task.sleep(0.01)
    end
end

--- A generator of normal random numbers, the same ones for the same seed.
function helper.normals(seed)
    local _, normal = require("neap.synth").generator(seed)
    return normal
end

--- The text of a file, or nil.
function helper.read(path)
    local f = io.open(path, "r")
    if not f then return nil end
    local text = f:read "a"
    f:close()
    return text
end

function helper.write(path, text)
    local f = assert(io.open(path, "w"))
    f:write(text)
    f:close()
    return path
end

return helper
