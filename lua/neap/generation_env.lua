--- neap.generation_env: the world that a generation's code sees: globals, libraries, `require` and tasks of its own, so that nothing it sets outlives it.
---
---   local env = generation_env.new(gen, dir)    -- gen: where its tasks, files and modules are noted
---
--- Writes stay inside: globals, `string.trim = ..` (and the method ("x"):trim()), `package.path = ..`, what load and dofile compile, listeners of
--- neap.worker and neap.on_signal. Lua modules that are not neap's are read anew in each generation, rocks too. Shared are neap's own modules and
--- modules in C (the system keeps a .so for the life of the process).
local task = require "neap.task"

local generation_env = {}

local LIBRARIES <const> = {"string", "table", "math", "os", "io", "utf8", "coroutine", "debug", "package"}

local function copy(t)
    local out = {}
    for k, v in pairs(t) do out[k] = v end
    return out
end

-- ---- methods of strings ----

-- The `string` tables of the generations that are alive, newest last. What stock Lua's has not, ("x"):method() finds in one of them. Weak: requests
-- under way keep the old version's until they end.
local strings, newest = setmetatable({}, {__mode = "v"}), 0

local function own_strings()
    local live, n = setmetatable({}, {__mode = "v"}), 0
    for i = 1, newest do
        if strings[i] then n, live[n + 1] = n + 1, strings[i] end
    end
    strings, newest = live, n + 1
    strings[newest] = copy(string)
    return strings[newest]
end

if not getmetatable(string) then
    setmetatable(string, {__index = function(_, name)
        for i = newest, 1, -1 do
            local found = strings[i] and rawget(strings[i], name)
            if found ~= nil then return found end
        end
    end})
end

-- ---- tasks, signals, messages ----

--- A task's number, from its handle.
function generation_env.id_of(handle) return tostring(handle):match "^task (%d+)" end
local id_of = generation_env.id_of

-- neap.task for this generation: the numbers of the tasks it starts are remembered. (Handles would not do: held strongly they keep finished tasks'
-- results, held weakly those of running tasks may be collected.) Those that a request starts end with the old version's requests; the others at once.
local function own_tasks(gen)
    local own = setmetatable({}, {__index = task})
    local function remember(handle)
        local me = task.current()
        local lasting = gen.loading or me and gen.tasks[id_of(me)]
        gen.tasks[id_of(handle)] = lasting and "lasting" or "request"
        gen.started = gen.started + 1
        if gen.started % 10000 == 0 then -- forget the finished ones
            local live = {}
            for _, h in ipairs(task.list()) do live[id_of(h)] = gen.tasks[id_of(h)] end
            gen.tasks = live
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

local function own_worker(gen)
    local worker = require "neap.worker"
    local own = setmetatable({}, {__index = worker})
    function own.on(topic, fn)
        worker.on(topic, fn)
        gen.closers[#gen.closers + 1] = function() worker.off(topic, fn) end
    end
    return own
end

local function own_neap(gen)
    local own = setmetatable({}, {__index = neap})
    function own.on_signal(name, fn)
        local handle = neap.on_signal(name, fn)
        gen.closers[#gen.closers + 1] = function() handle:stop() end
        return handle
    end
    return own
end

local OWN <const> = {["neap.task"] = own_tasks, ["neap.worker"] = own_worker}

-- ---- code ----

local function read(path)
    local f = io.open(path, "r")
    if not f then return nil end
    local text = f:read "a"
    f:close()
    return text
end

--- Compiles a file into the generation's environment and remembers that it belongs to it. Raises.
function generation_env.compile(gen, path)
    local text = read(path)
    if not text then error(("%s: cannot be read"):format(path), 0) end
    gen.files[#gen.files + 1] = path
    local fn, why = load(text:gsub("^#[^\n]*", ""), "@" .. path, "t", gen.env)
    if not fn then error(why, 0) end
    return fn
end

-- load, loadfile and dofile with the generation's globals where none are given.
local function own_loaders(gen, env)
    function env.load(chunk, name, mode, ...)
        if select("#", ...) > 0 then return load(chunk, name, mode, (...)) end
        return load(chunk, name, mode, env)
    end
    function env.loadfile(path, mode, ...)
        if select("#", ...) > 0 then return loadfile(path, mode, (...)) end
        return loadfile(path, mode, env)
    end
    function env.dofile(path)
        if not path then return dofile() end
        return generation_env.compile(gen, path)()
    end
end

-- The chunk of a Lua module that is not the project's own (a rock), and its path; nil for what is in C, preloaded or not there.
local function find_rock(name)
    for i = 2, #package.searchers do
        local loader, path = package.searchers[i](name)
        if type(loader) == "function" then
            if debug.getinfo(loader, "S").what == "C" then return nil end
            return loader, path
        end
    end
end

-- A module's chunk, for this generation; nil if it is shared.
local function find(gen, name, templates)
    local path = package.searchpath(name, templates)
    if not path and gen.env.package.path ~= package.path then path = package.searchpath(name, gen.env.package.path) end
    if path then return generation_env.compile(gen, path), path end
    local loader, place = find_rock(name)
    if not loader then return nil end
    local env = gen.env
    for i = 1, 255 do -- its globals are this generation's too
        local upvalue = debug.getupvalue(loader, i)
        if not upvalue then break end
        if upvalue == "_ENV" then debug.upvaluejoin(loader, i, function() return env end, 1) end
    end
    return loader, place
end

local function own_require(gen, dir, loaded)
    local templates = ("%s/lua/?.lua;%s/lua/?/init.lua;%s/?.lua;%s/?/init.lua"):gsub("%%s", (dir:gsub("%%", "%%%%")))
    local loading = {}
    return function(name)
        if loaded[name] ~= nil then return loaded[name] end
        if OWN[name] then
            loaded[name] = OWN[name](gen)
            return loaded[name]
        end
        if loading[name] then error(("module '%s' requires itself in a loop"):format(name), 2) end
        if type(name) ~= "string" or name:find "^neap%." or package.preload[name] then return require(name) end
        loading[name] = true
        local ok, value, path = pcall(function()
            local chunk, path = rawget(gen.env.package.preload, name), ":preload:"
            if not chunk then chunk, path = find(gen, name, templates) end
            if not chunk then return require(name) end
            local value = chunk(name, path)
            if value == nil then value = rawget(loaded, name) end
            loaded[name] = value == nil and true or value
            return loaded[name], path
        end)
        loading[name] = nil
        if not ok then error(value, 0) end
        return value, path
    end
end

--- The environment for a generation whose app file is in `dir`.
---@param gen table
---@param dir string
---@return table env
function generation_env.new(gen, dir)
    local env = setmetatable({}, {__index = _G})
    local loaded = {_G = env}
    for _, name in ipairs(LIBRARIES) do
        env[name] = name == "string" and own_strings() or copy(_G[name])
        loaded[name] = env[name]
    end
    gen.env, env._G, env.neap = env, env, own_neap(gen)
    loaded.neap = env.neap
    env.package.preload, env.package.searchers = setmetatable({}, {__index = package.preload}), copy(package.searchers)
    env.package.loaded = setmetatable(loaded, {__index = function(_, name) -- other people's modules are shared, and may be looked at
        return type(name) == "string" and not OWN[name] and name:find "^neap%." and package.loaded[name] or nil
    end})
    own_loaders(gen, env)
    env.require = own_require(gen, dir, loaded)
    return env
end

return generation_env
