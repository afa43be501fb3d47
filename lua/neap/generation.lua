--- neap.generation: an app file and the modules beside it, loaded as one unit that can be built aside, put in force, and dropped.
---
---   local gen = generation.load("app.lua")       -- raises with file and line; nothing outside has changed
---   gen.result                                    -- what the file returned
---   gen:close()                                   -- ends the tasks it started
---
--- Its globals are its own (reads fall through to _G), its `require` reads the project's modules anew and once a generation, everything
-- else comes
--- from the common one. Tasks that it starts with its `require "neap.task"` belong to it. What must outlive a reload is kept with
--- neap.keep("counts", function() return {} end): the same table in each generation.
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

-- A task's number, from its handle.
local function id_of(handle) return tostring(handle):match("^task (%d+)") end

-- neap.task for this generation: the numbers of the tasks it starts are remembered. (Handles would not do: held strongly they keep finished tasks'
-- results, held weakly those of running tasks may be collected.)
local function own_tasks(self)
    local own = setmetatable({}, {__index = task})
    local function remember(handle)
        self.tasks[id_of(handle)] = true
        self.started = self.started + 1
        if self.started % 10000 == 0 then -- forget the finished ones
            local live = {}
            for _, h in ipairs(task.list()) do live[id_of(h)] = self.tasks[id_of(h)] end
            self.tasks = live
        end
        return handle
    end
    function own.spawn(fn, ...) return remember(task.spawn(fn, ...)) end
    function own.after(seconds, fn)
        local timer = task.after(seconds, fn)
        remember(timer.handle)
        return timer
    end
    function own.every(seconds, fn, opts)
        local timer = task.every(seconds, fn, opts)
        remember(timer.handle)
        return timer
    end
    return own
end

local function read(path)
    local f = io.open(path, "r")
    if not f then return nil end
    local text = f:read("a")
    f:close()
    return text
end

-- Compiles a file into the generation's environment and remembers that it belongs to it.
local function compile(self, path)
    local text = read(path)
    if not text then error(("%s: cannot be read"):format(path), 0) end
    self.files[#self.files + 1] = path
    local fn, why = load(text:gsub("^#[^\n]*", ""), "@" .. path, "t", self.env)
    if not fn then error(why, 0) end
    return fn
end

local function own_require(self, dir)
    local loaded, own = {}, nil
    local templates = ("%s/lua/?.lua;%s/lua/?/init.lua;%s/?.lua;%s/?/init.lua"):gsub("%%s", (dir:gsub("%%", "%%%%")))
    return function(name)
        if name == "neap.task" then
            own = own or own_tasks(self)
            return own
        end
        if loaded[name] ~= nil then
            if loaded[name] == self then error(("module '%s' requires itself in a loop"):format(name), 2) end
            return loaded[name]
        end
        local path = type(name) == "string" and not name:find("^neap%.") and package.searchpath(name, templates)
        if not path then return require(name) end
        loaded[name] = self
        local ok, value = pcall(compile(self, path), name, path)
        loaded[name] = nil
        if not ok then error(value, 0) end
        loaded[name] = value == nil and true or value
        return loaded[name], path
    end
end

--- Loads and runs an app file. Raises its error (with file and line) after ending what it had started.
---@param path string
---@param extra? table more names for its environment
function generation.load(path, extra)
    local self = setmetatable({path = path, files = {}, tasks = {}, started = 0}, generation)
    self.env = setmetatable({}, {__index = _G})
    for k, v in pairs(extra or {}) do self.env[k] = v end
    self.env._G = self.env
    self.env.require = own_require(self, path:match("^(.*)/[^/]*$") or ".")
    local ok, result = xpcall(function() return compile(self, path)(path) end, function(e)
        return type(e) == "string" and not e:find("\n") and debug.traceback(e, 2):gsub("\n%s*%[C%]: in function 'xpcall'.*", "") or e
    end)
    generation.failed = not ok and self.files or nil -- the files of the last one that did not load: mending one of them is a reason to try again
    if not ok then
        self:close()
        error(result, 0)
    end
    self.result = result
    return self
end

--- Ends the tasks that it started.
function generation:close(why)
    for _, handle in ipairs(task.list()) do
        if self.tasks[id_of(handle)] then handle:cancel(why or "a newer version of the app is in force") end
    end
end

return generation
