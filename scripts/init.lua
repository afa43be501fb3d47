--- neap init: makes a project of your own: an app, sensor specs, a spec, and the files that editors and rocks look for.
local args = require "neap.args"

local opt = args.parse{
    name = "neap init", summary = "Makes a project in a directory. What is there already is left as it is.",
    positional = {{"directory", default = ".", help = "where; it is made if missing"}},
    options = {{"--name", value = "NAME", help = "name of the project (default: the directory's)"}},
}

local function quote(s) return "'" .. s:gsub("'", "'\\''") .. "'" end
local dir = opt.directory:gsub("(.)/+$", "%1")
if os.execute("mkdir -p " .. quote(dir)) ~= true then os.exit(1, true) end
local function absolute()
    local p = io.popen("cd " .. quote(dir) .. " && pwd")
    local path = p:read("l")
    p:close()
    return path
end
local name = (opt.name or absolute():match("[^/]*$")):lower():gsub("[^%w_-]+", "-")
if name == "" or name == "-" then name = "plant" end

local made, kept = 0, 0
local function write(path, text)
    local full = dir .. "/" .. path
    local there = io.open(full, "r")
    if there then
        there:close()
        kept = kept + 1
        print("  kept   " .. path)
        return
    end
    local folder = path:match("^(.*)/")
    if folder then os.execute("mkdir -p " .. quote(dir .. "/" .. folder)) end
    local f, why = io.open(full, "w")
    if not f then
        io.stderr:write("neap init: ", why, "\n")
        os.exit(1, true)
    end
    f:write(text)
    f:close()
    made = made + 1
    print("  made   " .. path)
end

write("app.lua", [[
-- Routes of your own beside neap's. `here` has the store and the sensor specs. Saved changes are live after `neap reload`.
return function(app, here)
    app:get("/hello", function(req)
        return {hello = req.query.name or "world", sensors = #here.specs.list}
    end)
end
]])
write("sensors.lua", neap.asset "scripts/sensors.lua")
write("spec/app_spec.lua", [[
-- `neap test` runs this. A spec is a task: it may wait for Redis, HTTP and sleep.
describe("the sensor specs", function()
    it("can be read", function()
        assert.is_true(#require("neap.sensors").load("sensors.lua").list > 0)
    end)
end)
]])
write(".busted", 'return {_all = {lua = "neap", lpath = "lua/?.lua;lua/?/init.lua"}, default = {ROOT = {"spec"}}}\n')
write(".gitignore", "/lua_modules\n/.luarocks\n/.neap\n/neap-data\n") -- and never /lua, which `luarocks init` would add
write(name .. "-scm-1.rockspec", ([[
rockspec_format = "3.0"
package = "%s"
version = "scm-1"
source = {url = "file://."}
description = {summary = "What %s adds to neap", license = "MIT"}
dependencies = {"lua >= 5.4, < 5.5"}
build = {type = "builtin", modules = {}, install = {lua = {}}}
]]):format(name, name))
write(".luarc.json", [[
{
    "runtime.version": "Lua 5.4",
    "workspace.library": [".neap"],
    "diagnostics.globals": ["neap", "sensor"]
}
]])
-- What editors read: the definitions of the C modules, and neap's own Lua.
for _, prefix in ipairs{"lua/meta/", "lua/neap/"} do
    for _, file in ipairs(neap.assets(prefix)) do
        local path = dir .. "/.neap/" .. file:gsub("^lua/", "")
        os.execute("mkdir -p " .. quote(path:match("^(.*)/")))
        local f = io.open(path, "w")
        if f then
            f:write(neap.asset(file))
            f:close()
        end
    end
end
print(("%d files made%s in %s. Next: cd %s && neap check && neap serve app.lua"):format(made, kept > 0 and ", " .. kept .. " kept"
    or "", dir, dir))
