--- neap.generation: an app file and the modules beside it, loaded as one unit that can be built aside, put in force, and dropped.
---
---   local gen = generation.load("app.lua")       -- raises with file and line; nothing outside has changed
---   gen.result                                    -- what the file returned
---   gen:close()                                   -- ends the tasks it started
---
--- It has globals, libraries, Lua modules, tasks and listeners of its own (neap.generation_env). What must outlive a reload is kept with
--- neap.keep("counts", function() return {} end): the same table in each generation.
---
--- Why not a new Lua state for each version? That was tried on paper first (and a state costs only 28 us and its modules 10 ms). But the scorer's windows
--- and calibrations of thousands of sensors, open connections and live streams, and whoever is attached are in the state that serves; a second state
--- would have to take all that over, through Redis or C, between two requests, while readings arrive: the cost of a reload would grow with the sensors,
--- and there would be a moment with two scorers or none. What a user can see of the old version is closed here instead; a fresh state of everything is
--- what a replaced worker gets (supervisor.lua). What stays until a restart: modules in C, and metrics that no version has any more.
local env = require "neap.generation_env"
local task = require "neap.task"

local generation = {}
generation.__index = generation

local kept = {}

--- The value that a former generation of this worker kept under the name, or else what init() gives.
---@param name string
---@param init fun(): any
function generation.keep(name, init)
    if kept[name] == nil then kept[name] = init and init() or {} end
    return kept[name]
end
neap.keep = generation.keep -- luacheck: ignore 122

--- Loads and runs an app file. Raises its error (with file and line) after ending what it had started.
---@param path string
---@param extra? table more names for its environment
function generation.load(path, extra)
    local self = setmetatable({path = path, files = {}, tasks = {}, started = 0, closers = {}, loading = true}, generation)
    env.new(self, path:match "^(.*)/[^/]*$" or ".")
    for k, v in pairs(extra or {}) do self.env[k] = v end
    local ok, result = xpcall(function() return env.compile(self, path)(path) end, function(e)
        return type(e) == "string" and not e:find "\n" and debug.traceback(e, 2):gsub("\n%s*%[C%]: in function 'xpcall'.*", "") or e
    end)
    generation.failed = not ok and self.files or nil -- the files of the last one that did not load: mending one of them is a reason to try again
    if not ok then
        self:close()
        error(result, 0)
    end
    self.result = result
    return self
end

local DRAIN_S <const> = 30 -- how long requests of the old version may go on

local function cancel(tasks, kind, why)
    for _, handle in ipairs(task.list()) do
        if tasks[env.id_of(handle)] == kind then handle:cancel(why) end
    end
end

--- Ends what it has running: timers and tasks, listeners and signals at once; tasks that a request started have a while to end with it.
function generation:close(why)
    why = why or "a newer version of the app is in force"
    for i = #self.closers, 1, -1 do self.closers[i]() end
    self.closers = {}
    cancel(self.tasks, "lasting", why)
    local left = {} -- of the generation nothing else may be held for so long
    for _, handle in ipairs(task.list()) do
        local id = env.id_of(handle)
        if self.tasks[id] == "request" then left[id] = "request" end
    end
    if next(left) then task.after(DRAIN_S, function() cancel(left, "request", why) end) end
end

return generation
