--- neap rocks: luarocks for this project: Lua 5.4, into lua_modules, where neap finds it without any setting.
local args = require "neap.args"

local opt = args.parse{
    name = "neap rocks", summary = "Runs luarocks for Lua 5.4 with the tree lua_modules of this project (another one with --tree).",
    positional = {{"command", many = true, help = "install X, make, list, remove X, search X, ... as of luarocks"}},
    stop_at_word = true,
    options = {{"--tree", "-t", value = "DIR", default = "lua_modules", help = "where rocks are installed"}},
    example = "neap rocks install lua-cbor\nneap rocks make --tree ~/.luarocks",
}

local function quote(s) return "'" .. s:gsub("'", "'\\''") .. "'" end
local function exists(path)
    local f = io.open(path, "r")
    if f then f:close() end
    return f ~= nil
end

-- `--tree` may also stand behind the command, as luarocks' users write it.
local tree, words = opt.tree, {}
local i = 1
while i <= #opt.command do
    local word = opt.command[i]
    local inline = word:match("^%-%-tree=(.*)$")
    if inline then tree = inline
    elseif word == "--tree" then tree, i = opt.command[i + 1] or tree, i + 1
    else words[#words + 1] = word end
    i = i + 1
end

local p = io.popen("command -v luarocks 2>/dev/null")
local luarocks = p:read("l")
p:close()
if not luarocks then
    io.stderr:write("neap rocks: luarocks is not installed. On Debian: apt-get install luarocks liblua5.4-dev gcc\n")
    os.exit(1, true)
end

local command = {"exec", quote(luarocks), "--lua-version=5.4", "--tree", quote(tree)}
for _, word in ipairs(words) do command[#command + 1] = quote(word) end

-- C parts of extensions include neap_ext.h: from the source tree, the installed one, or written out of this binary into the tree.
local builds = {install = true, make = true, build = true}
if builds[words[1]] then
    local dir = neap.root ~= "" and neap.root .. "/host/include"
    if not dir or not exists(dir .. "/neap_ext.h") then
        dir = tree .. "/include"
        os.execute("mkdir -p " .. quote(dir))
        local f = assert(io.open(dir .. "/neap_ext.h", "w"))
        f:write(neap.asset "host/include/neap_ext.h")
        f:close()
        if not dir:find("^/") then dir = (os.getenv "PWD" or ".") .. "/" .. dir end
    end
    command[#command + 1] = quote("NEAP_INCDIR=" .. dir)
end

local _, how, code = os.execute(table.concat(command, " "))
os.exit(how == "exit" and code or 130, true)
