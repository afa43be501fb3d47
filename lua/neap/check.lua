--- neap.check: looks at a project before it serves, and says what is wrong with file, line and what to do. Of the
--- project it runs only app.lua, to see its routes; nothing listens, and a Redis is asked for its settings at most.
---
---   local report = check.run{files = {"app.lua"}, data = "neap-data"}
---   print(check.text(report))                 -- report.failed is the number of failures
---
--- A check is a function(context, say); it calls say("ok" | "warn" | "fail", text, hint). Extensions add theirs: `checks = {name = fn}`.
local args = require "neap.args"
local globals = require "neap.globals"
local term = require "neap.term"

local check = {}

local function read(path)
    local f = io.open(path, "r")
    if not f then return nil end
    local text = f:read("a")
    f:close()
    return text
end

local function lines_of(command)
    local p = io.popen(command .. " 2>/dev/null")
    local out = {}
    for line in p:lines() do out[#out + 1] = line end
    p:close()
    return out
end

local function quote(s) return "'" .. s:gsub("'", "'\\''") .. "'" end

-- ---- the project's Lua --------------------------------------------------------------------------------------------------
-- Names that programs test for to find out where they run.
local TOLERATED = {jit = true, unpack = true, loadstring = true, setfenv = true, getfenv = true, ngx = true, bit32 = true, _PROMPT = true,
    _PROMPT2 = true, sensor = true}

local function compile(path)
    local text = read(path)
    if not text then return nil, path .. ": cannot be read" end
    return load(text:gsub("^#[^\n]*", ""), "@" .. path, "t")
end

local function check_syntax(context, say)
    local good = 0
    for _, path in ipairs(context.files) do
        local fn, why = compile(path)
        if fn then good = good + 1 else say("fail", why) end
    end
    if good == #context.files and good > 0 then say("ok", good == 1 and context.files[1] .. " compiles" or good .. " files compile") end
    if #context.files == 0 then say("ok", "no Lua files of a project here; neap's own defaults serve") end
end

local function check_globals(context, say)
    local known, names, uses, clean = {}, {}, {}, true
    for name in pairs(_G) do known[name] = true end
    for _, name in ipairs(context.globals or {}) do known[name] = true end
    for _, path in ipairs(context.files) do
        local fn = compile(path)
        for _, use in ipairs(fn and not path:find("sensors%.lua$") and globals.of(fn) or {}) do
            use.path = path
            uses[#uses + 1] = use
            if use.write then known[use.name] = true end
        end
    end
    for name in pairs(known) do names[#names + 1] = name end
    table.sort(names)
    local told = {}
    for _, use in ipairs(uses) do
        if not use.write and not known[use.name] and not TOLERATED[use.name] and not told[use.path .. use.name] then
            told[use.path .. use.name], clean = true, false
            say("fail", ("%s:%d: unknown global '%s'%s"):format(use.path, use.line, use.name, args.hint(use.name, names)))
        end
    end
    for _, use in ipairs(uses) do
        if use.write and _G[use.name] == nil and not told[use.path .. "=" .. use.name] then
            told[use.path .. "=" .. use.name] = true
            say("warn", ("%s:%d: '%s' becomes a global, shared by all requests of a worker"):format(use.path, use.line, use.name),
                "write `local " .. use.name .. "`, or keep it if that is meant")
        end
    end
    if clean and #context.files > 0 then say("ok", "every global that is read exists") end
end

local function check_specs(context, say)
    local session = require "neap.session"
    local ok, specs, path = pcall(session.specs, context.sensors)
    if not ok then
        for line in tostring(specs):gmatch("[^\n]+") do say("fail", line) end
        return
    end
    local n = 0
    for _ in pairs(specs.by_name or specs.list or {}) do n = n + 1 end
    say("ok", n > 0 and ("%d sensor specs in %s"):format(n, path) or ("sensor specs in %s"):format(path))
end

-- What `here` is while an app is only looked at: any use of it says so.
local NOT_HERE <const> = "is not there while an app is checked; use it inside a handler or a task"
local function absent(name)
    local function refuse() error(("here.%s %s"):format(name, NOT_HERE), 0) end
    return setmetatable({}, {__index = refuse, __call = refuse, __newindex = refuse})
end

-- Loads app.lua and lets it add its routes to an app that never listens.
local function check_routes(context, say)
    local path
    for _, file in ipairs(context.files) do
        if file == context.app or file:find("app%.lua$") then path = path or file end
    end
    if not path or not compile(path) then return end
    local quiet_os = setmetatable({exit = function() error("os.exit was called while the file was loaded", 0) end}, {__index = os})
    local ok, gen = pcall(require("neap.generation").load, path, {os = quiet_os})
    if not ok then
        say("fail", tostring(gen):match("^[^\n]+"))
        return
    end
    local app, mine = require("neap.http").app{}, gen.result
    local here = setmetatable({specs = {list = {}, by_name = {}}}, {__index = function(_, name) return absent(name) end})
    local built, why = true, nil
    if type(mine) == "function" then built, why = pcall(mine, app, here) elseif type(mine) == "table" and mine.routes then app = mine end
    gen:close "only checked"
    if type(mine) ~= "function" and app ~= mine then
        say("warn", path .. " returns no function(app, here): `neap serve` cannot use it")
    elseif not built then
        local text = tostring(why):match("^[^\n]+")
        say(text:find(NOT_HERE, 1, true) and "warn" or "fail", path .. ": " .. text)
    else
        local seen = {}
        for _, r in ipairs(app:routes()) do
            local key = r.method .. " " .. r.path
            if seen[key] then say("warn", ("%s: %s stands already at %s"):format(r.where, key, seen[key])) end
            seen[key] = r.where
        end
        say("ok", ("%d route%s of its own in %s"):format(#app:routes(), #app:routes() == 1 and "" or "s", path))
    end
end

-- ---- rocks --------------------------------------------------------------------------------------------------------------
local function trees()
    local out = {}
    for _, dir in ipairs{"lua_modules", (os.getenv "HOME" or "/nowhere") .. "/.luarocks", "/usr/local"} do
        if #lines_of("ls -d " .. quote(dir .. "/lib/lua/5.4")) > 0 then out[#out + 1] = dir .. "/lib/lua/5.4" end
    end
    return out
end

local function check_rocks(_, say)
    local good, bad = 0, 0
    for _, tree in ipairs(trees()) do
        for _, path in ipairs(lines_of("find " .. quote(tree) .. " -name '*.so'")) do
            local name = path:sub(#tree + 2):gsub("%.so$", ""):gsub("/", "_")
            local text = read(path) or ""
            local other = text:match("liblua5%.[1235][%w.]*%.so") or text:match("libluajit[%w.-]*%.so")
            local fn, why = package.loadlib(path, "luaopen_" .. name)
            if other then
                bad = bad + 1
                say("fail", ("%s was built for another Lua (it asks for %s)"):format(path, other),
                    "install it again: neap rocks install " .. name)
            elseif not fn and not tostring(why):find("luaopen_", 1, true) then
                bad = bad + 1
                say("fail", ("%s does not load: %s"):format(path, why), "install it again: neap rocks install " .. name)
            else
                good = good + 1
            end
        end
    end
    if bad == 0 then say("ok", good == 0 and "no C rocks installed" or ("%d C module%s of rocks fit%s this Lua"):format(good, good == 1 and "" or "s",
        good == 1 and "s" or "")) end
end

local function check_extensions(_, say)
    local ext = require "neap.ext"
    for _, found in ipairs(ext.found()) do
        local ok, loaded = pcall(ext.load, found.name)
        if ok then say("ok", ("extension %s %s"):format(found.name, loaded.version or "")) else say("warn", tostring(loaded)) end
    end
end

-- ---- what it stands on --------------------------------------------------------------------------------------------------
local DURABILITY = {always = "every write is on disk before it is answered",
    everysec = "what it has not synced yet is in neap's journal", no = "what the system has not written yet is in neap's journal at best"}

local function check_redis(context, say)
    local url = context.redis or os.getenv "REDIS_URL"
    if not url or url == "" then
        if #lines_of("command -v redis-server") == 0 then
            say("fail", "there is no redis-server, and no REDIS_URL", "apt-get install redis-server, or give --redis redis://host:6379")
        else
            say("ok", "a private redis-server will be started in " .. context.data)
        end
        return
    end
    local ok, why = pcall(function()
        local r <close> = require("neap.redis").connect(url)
        r:ping()
        local settings = r:config("get", "append*") or {}
        local saves = r:config("get", "save") or {}
        if settings.appendonly == "yes" then
            say(settings.appendfsync == "no" and "warn" or "ok", ("Redis answers; AOF %s: %s"):format(settings.appendfsync,
                DURABILITY[settings.appendfsync] or "?"))
        else
            say("warn", "Redis answers; no AOF" .. (saves.save ~= "" and saves.save and ", snapshots only"
                or ", nothing is written to disk"),
                "neap's journal keeps acknowledged readings until Redis has them on disk; for history set appendonly yes")
        end
        local policy = (r:config("get", "maxmemory-policy") or {})["maxmemory-policy"]
        if policy and policy ~= "noeviction" then
            say("fail", ("when its memory is full this Redis throws keys away (maxmemory-policy %s): readings too"):format(policy),
                "CONFIG SET maxmemory-policy noeviction, or give neap a Redis of its own")
        end
    end)
    if not ok then say("fail", "Redis at " .. url:gsub("//[^@/]*@", "//...@") .. ": " .. tostring(why)) end
end

local function check_gpu(_, say)
    local driver = read("/proc/driver/nvidia/version")
    if not driver then
        say("ok", "no GPU driver: models are trained on the CPU")
        return
    end
    say("ok", "GPU driver " .. (driver:match("Kernel Module%s+([%d.]+)") or driver:match("  ([%d.]+)  ") or "found"))
end

-- Asks the system for the address, and gives it back at once.
local function check_port(context, say)
    local host, port = require("neap.supervisor").address(context.listen)
    if not host then
        say("fail", tostring(port))
        return
    end
    local ok, why = pcall(function() require("neap.http").sockets({host = host, port = port, count = 2}):close() end)
    why = tostring(why):gsub("^http: ", "")
    if ok then
        say("ok", ("%s is free"):format(context.listen))
    elseif why:find("in use", 1, true) then
        say("warn", why .. " (a running neap serve?)", ("neap serve --listen %s:%d"):format(host:find(":", 1, true) and "[" .. host .. "]" or host, port + 1))
    else
        say("fail", why)
    end
end

local function check_limits(context, say)
    local files = tonumber((read("/proc/self/limits") or ""):match("Max open files%s+(%d+)"))
    if files and files < 1024 then
        say("warn", ("only %d files may be open at once"):format(files), "ulimit -n 4096")
    elseif files then
        say("ok", ("%d files may be open at once"):format(files))
    end
    local parent = context.data:match("^(.*)/[^/]+/?$") or "."
    local where = #lines_of("ls -d " .. quote(context.data)) > 0 and context.data or parent
    local free = tonumber((lines_of("df -Pk " .. quote(where))[2] or ""):match("%S+%s+%d+%s+%d+%s+(%d+)"))
    if free then
        say(free < 16 * 1024 and "fail" or free < 512 * 1024 and "warn" or "ok", ("%.1f GiB free for %s"):format(free / 1024 / 1024, context.data))
    end
    if os.execute("test -w " .. quote(where)) ~= true then say("fail", where .. " cannot be written", "give --data DIR") end
    if (read("/proc/sys/vm/overcommit_memory") or "1"):match("%d") == "2" then
        say("warn", "vm.overcommit_memory is 2: Redis may be unable to save", "sysctl vm.overcommit_memory=1")
    end
end

--- The built-in checks in the order they run: {name, fn}.
check.list = {
    {"syntax", check_syntax}, {"globals", check_globals}, {"sensors", check_specs}, {"routes", check_routes}, {"rocks", check_rocks}, {"extensions",
        check_extensions},
    {"redis", check_redis}, {"gpu", check_gpu}, {"port", check_port}, {"limits", check_limits},
}

--- The Lua files of the project in the working directory: app.lua, sensors.lua and what is in lua/.
function check.project_files()
    local out = {}
    for _, name in ipairs{"app.lua", "sensors.lua"} do
        if read(name) then out[#out + 1] = name end
    end
    for _, path in ipairs(lines_of("find lua -name '*.lua' -not -path '*/meta/*' 2>/dev/null | sort")) do out[#out + 1] = path end
    return out
end

--- Runs the checks. context: files, data, listen, sensors, redis, globals (names that are allowed), only (list of check names).
---@return {checks: {check: string, result: string, text: string, hint: string?}[], failed: integer, warned: integer}
function check.run(context)
    context.files = context.files or check.project_files()
    context.data = context.data or os.getenv "NEAP_DATA" or "neap-data"
    context.listen = context.listen or "127.0.0.1:5000"
    local report = {checks = {}, failed = 0, warned = 0}
    local list = table.move(check.list, 1, #check.list, 1, {})
    for _, extension in ipairs(require("neap.ext").active()) do
        for name, fn in pairs(extension.checks or {}) do list[#list + 1] = {extension.name .. "." .. name, fn} end
    end
    local wanted
    for _, name in ipairs(context.only or {}) do
        wanted = wanted or {}
        for one in name:gmatch "[^,%s]+" do wanted[one] = true end
    end
    for name in pairs(wanted or {}) do
        local names, known = {}, false
        for i, item in ipairs(list) do
            names[i], known = item[1], known or item[1] == name
        end
        if not known then
            report.checks[1], report.failed = {check = "only", result = "fail", text = ("there is no check '%s'%s"):format(name, args.hint(name, names)),
                hint = "there are " .. table.concat(names, ", ")}, 1
        end
    end
    for _, item in ipairs(list) do
        local name, fn = item[1], item[2]
        local function say(result, text, hint)
            report.checks[#report.checks + 1] = {check = name, result = result, text = text, hint = hint}
            if result == "fail" then report.failed = report.failed + 1 elseif result == "warn" then report.warned = report.warned + 1 end
        end
        if not wanted or wanted[name] then
            local ok, why = pcall(fn, context, say)
            if not ok then say("fail", "the check itself failed: " .. tostring(why)) end
        end
    end
    return report
end

--- A report as text for people.
function check.text(report, colour)
    local out, marks = {}, {ok = {"ok  ", "green"}, warn = {"warn", "yellow"}, fail = {"FAIL", "red"}}
    for _, c in ipairs(report.checks) do
        out[#out + 1] = term.paint(marks[c.result][1], marks[c.result][2], colour) .. "  " .. term.pad(c.check, 10) .. "  " .. c.text
        if c.hint then out[#out + 1] = (" "):rep(18) .. term.paint("-> " .. c.hint, "dim", colour) end
    end
    out[#out + 1] = report.failed > 0 and ("%d failed, %d warnings"):format(report.failed, report.warned)
        or report.warned > 0 and ("nothing failed, %d warnings"):format(report.warned) or "all is well"
    return table.concat(out, "\n")
end

return check
