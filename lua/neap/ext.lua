--- neap.ext: extensions, which are rocks. A rock `neap-ext-modbus` installs the module `neap.ext.modbus`; `neap.use "modbus"` turns it
-- on, and nothing
--- happens before that. The module returns a table; every field but `name` and `api` may be left out:
---
---   return {
---       name = "modbus", version = "1.0", api = 1, help = "readings from Modbus devices",
---       setup = function(neap, opts) end,            -- once, when it is turned on; opts are those of neap.use
---       routes = function(app, here) end,            -- when a server is built: app:post("/modbus", fn); here.receive(list) stores
-- readings
---       decoders = {["text/x-modbus"] = fn},         -- fn(body, headers) -> list of {sensor =, value =, time =}; for POST /receive
---       keys = {{name = "unit_id", check = fn, about = ".."}},   -- more keys of a sensor spec (see neap.sensors.keys)
---       detectors = {name = fn},                     -- fn(spec) -> nil or function(time, value) -> a text while something is wrong
---       repl = {scan = {args = "", help = "..", run = fn}},      -- more /commands of the prompt
---       checks = {bus = function(context, say) end}, -- more of neap check
---       health = function(h) end,                    -- adds fields to /health
---       stop = function() end,                       -- when a reload has put a newer load of it in its place
---   }
---
--- A command `neap NAME` is a module `neap.cmd.NAME`. C parts take what they need through host/include/neap_ext.h, a versioned table of
-- functions,
--- so they link with nothing. An extension that fails is named and left out; the others and the server go on.
local args = require "neap.args"
local log = require("neap.log").module "ext"

local ext = {api = 1}

local FIELDS = {name = "string", version = "string", api = "number", help = "string", setup = "function", routes = "function",
    decoders = "table",
    keys = "table", detectors = "table", repl = "table", checks = "table", health = "function", stop = "function"}

-- What is on. A reload fills a second set aside, which then takes the place of the first or is dropped.
local function new_set() return {active = {}, by_name = {}, failures = {}} end
local current, building = new_set(), nil

-- ---- finding ------------------------------------------------------------------------------------------------------------
local function roots()
    local out, seen = {}, {}
    local function add(dir)
        if dir and dir ~= "" and not seen[dir] then
            seen[dir] = true
            out[#out + 1] = dir
        end
    end
    for dir in (os.getenv "NEAP_PATH" or ""):gmatch("[^:;]+") do add(dir) end
    add "lua"
    add "lua_modules/share/lua/5.4"
    for template in package.path:gmatch("[^;]+") do add(template:match("^(.*)/%?%.lua$")) end
    add((os.getenv "HOME" or "/nowhere") .. "/.luarocks/share/lua/5.4")
    add "/usr/local/share/lua/5.4"
    return out
end

--- The installed extensions, turned on or not: {{name=, path=}...}, by name.
function ext.found()
    local command, out, seen = {"ls -d"}, {}, {}
    for _, dir in ipairs(roots()) do
        if dir ~= "." then command[#command + 1] = "'" .. dir:gsub("'", "'\\''") .. "'/neap/ext/*" end
    end
    local p = io.popen(table.concat(command, " ") .. " 2>/dev/null")
    for path in p:lines() do
        local name = path:match("/neap/ext/([%w_]+)%.lua$") or path:match("/neap/ext/([%w_]+)$")
        if name and not seen[name] then
            seen[name] = true
            out[#out + 1] = {name = name, path = path}
        end
    end
    p:close()
    table.sort(out, function(a, b) return a.name < b.name end)
    return out
end

-- ---- loading ------------------------------------------------------------------------------------------------------------
local function fail(name, ...) error(("extension '%s': "):format(name) .. string.format(...), 0) end

local function validate(name, module)
    if type(module) ~= "table" then fail(name, "its module must return a table, not %s", type(module)) end
    if module.api ~= ext.api then fail(name, "it was made for interface %s, this neap has %d", tostring(module.api), ext.api) end
    local names = {}
    for field in pairs(FIELDS) do names[#names + 1] = field end
    for field, value in pairs(module) do
        if not FIELDS[field] then fail(name, "unknown field '%s'%s", tostring(field), args.hint(tostring(field), names)) end
        if type(value) ~= FIELDS[field] then fail(name, "field '%s' must be a %s, not %s", field, FIELDS[field], type(value)) end
    end
    return module
end

--- The table of an installed extension, checked but not turned on. Raises a message that names it.
---@param name string
function ext.load(name)
    local ok, module = pcall(require, "neap.ext." .. name)
    if not ok then
        local text = tostring(module)
        if text:find("module 'neap.ext." .. name .. "' not found", 1, true) then
            local names = {}
            for _, e in ipairs(ext.found()) do names[#names + 1] = e.name end
            fail(name, "it is not installed%s (neap rocks install neap-ext-%s)", args.hint(name, names), name)
        end
        fail(name, "%s", text)
    end
    return validate(name, module)
end

--- Turns an extension on. Returns its table; when something is wrong with it, logs that and returns nil and the message.
---@param name string
---@param opts? table for its setup
function ext.use(name, opts)
    if type(name) ~= "string" then error("neap.use: expected the name of an extension", 2) end
    local set = building or current
    if set.by_name[name] then return set.by_name[name] end
    local ok, module = pcall(ext.load, name)
    if ok then
        local set_up, why = true, nil
        if module.setup then set_up, why = pcall(module.setup, neap, opts or {}) end
        if not set_up then ok, module = false, ("extension '%s': its setup failed: %s"):format(name, tostring(why)) end
    end
    if not ok then
        set.failures[name] = module
        log.error("left out: " .. tostring(module))
        return nil, module
    end
    for _, key in ipairs(module.keys or {}) do require("neap.sensors").add_key(key) end
    for command, definition in pairs(module.repl or {}) do require("neap.repl_commands")[command] = definition end
    set.by_name[name], set.failures[name] = module, nil
    set.active[#set.active + 1] = module
    return module
end

--- The extensions that are on, in the order in which they were turned on.
function ext.active() return current.active end

--- The messages of those that were left out: {name = message}.
function ext.failures() return current.failures end

-- ---- reload -------------------------------------------------------------------------------------------------------------
local loaded_before -- the Lua modules of extensions as they were, while a new set is built

--- From now on neap.use fills a new set, and the files of extensions are read anew. End with commit or abort.
function ext.begin()
    building, loaded_before = new_set(), {}
    for path, module in pairs(package.loaded) do
        if path:find("^neap%.ext%.[%w_]+$") then loaded_before[path] = module end
    end
    for path in pairs(loaded_before) do package.loaded[path] = nil end
end

--- The new set is complete but not yet in force (other workers may still refuse theirs); returns a function that puts it in force, stopping
--- the old one, and one that drops it.
---@return fun() commit
---@return fun() abort
function ext.finish()
    local new, before = building, loaded_before
    building, loaded_before = nil, nil
    local function stop(set)
        for _, module in ipairs(set.active) do
            if module.stop then
                local ok, why = pcall(module.stop)
                if not ok then log.error(("extension '%s': its stop failed: %s"):format(module.name, tostring(why))) end
            end
        end
    end
    local function commit()
        local old = current
        current = new
        stop(old)
    end
    local function abort()
        for path in pairs(package.loaded) do
            if path:find("^neap%.ext%.[%w_]+$") then package.loaded[path] = nil end
        end
        for path, module in pairs(before) do package.loaded[path] = module end
        stop(new)
    end
    return commit, abort
end

-- ---- what others ask ----------------------------------------------------------------------------------------------------
--- Lets the extensions add their routes to an app; `here` is what the server gives to app.lua too. One that fails is named in the log.
function ext.add_routes(app, here)
    local set = building or current
    for _, module in ipairs(set.active) do
        if module.routes then
            local ok, why = pcall(module.routes, app, here)
            if not ok then
                set.failures[module.name] = ("extension '%s': its routes failed: %s"):format(module.name, tostring(why))
                log.error(set.failures[module.name])
            end
        end
    end
end

--- Whether any extension decodes anything.
---@return boolean
function ext.decoding()
    for _, module in ipairs(current.active) do
        if module.decoders then return true end
    end
    return false
end

--- The decoder for a content type, or nil: fn(body, headers) -> list of readings.
---@param content_type? string
function ext.decoder(content_type)
    local kind = content_type and content_type:match("^%s*([^;%s]+)")
    for _, module in ipairs(kind and current.active or {}) do
        local fn = module.decoders and module.decoders[kind:lower()]
        if fn then return fn end
    end
end

--- The extensions' detectors for a sensor: {["ext.name"] = function(time, value) -> text or nil}. One that fails to start is named in the log.
---@param spec table its sensor spec
function ext.detectors(spec)
    local out = {}
    for _, module in ipairs(current.active) do
        for name, start in pairs(module.detectors or {}) do
            local ok, look = pcall(start, spec)
            if ok and look then
                out[module.name .. "." .. name] = look
            elseif not ok then
                log.error(("extension '%s': its detector '%s' failed: %s"):format(module.name, name, tostring(look)))
            end
        end
    end
    return out
end

--- Lets the extensions add to /health; a failing one is named there.
function ext.health(h)
    for _, module in ipairs(current.active) do
        local ok, why = true, nil
        if module.health then ok, why = pcall(module.health, h) end
        if not ok then current.failures[module.name] = tostring(why) end
    end
    if next(current.failures) then h.extensions_left_out = current.failures end
end

--- Forgets what is on; for specs.
function ext.reset()
    current, building = new_set(), nil
end

return ext
