--- What many specs need: a directory that goes away, a private Redis in it, and waiting on conditions instead of sleeping.
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
