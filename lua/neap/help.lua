--- neap.help: what is known about a function, found where it is defined: the comment above it in lua/neap/*.lua, or the definitions in
--- lua/meta/*.lua that also feed editors. One text serves the editor, the prompt and the API page.
---
---     help(redis.xadd)      help "plot.line"      help(task)      -- at the prompt; `neap help redis.xadd` in a shell
local term = require "neap.term"

local help = {}
local index -- name -> entry, made by the first question

-- ---- reading the definitions --------------------------------------------------------------------------------------------
-- "task.spawn(fn, ...)" and the like out of a line that defines something; nil otherwise.
local function definition(line)
    local name, params = line:match("^%s*function%s+([%w_.:]+)%s*(%b())")
    if not name then name, params = line:match("^%s*([%a_][%w_.]*)%s*=%s*function%s*(%b())") end
    return name, params
end

-- Comment lines (without their dashes) become {text = lines, params = {...}, returns = {...}}.
local function documentation(lines)
    local doc = {text = {}, params = {}, returns = {}}
    for _, line in ipairs(lines) do
        local tag, rest = line:match("^@(%a+)%s*(.*)$")
        if tag == "param" then
            local name, kind = rest:match("^(%S+)%s+(.*)$")
            doc.params[#doc.params + 1] = {name or rest, kind or ""}
        elseif tag == "return" then
            doc.returns[#doc.returns + 1] = rest
        elseif not tag then
            doc.text[#doc.text + 1] = line
        end
    end
    while doc.text[#doc.text] == "" do table.remove(doc.text) end
    return doc
end

-- Adds what one file defines. `module` is its short name ("plot"), `file` its path in the tree.
local function read_file(file, module, into)
    local text = neap.asset(file)
    if not text then return end
    local block, line_number, head, own = {}, 0, nil, nil
    for line in (text .. "\n"):gmatch("(.-)\n") do
        line_number = line_number + 1
        local comment = line:match("^%s*%-%-%-?%s?(.*)$")
        if comment and not line:find("^%s*%-%-%[") then
            if not comment:find("^%s*luacheck") and not comment:find("^%-%-+") then block[#block + 1] = comment end
        else
            if not head and #block > 0 and line_number > #block then head = documentation(block) end
            own = own or line:match("^local%s+([%a_][%w_]*)%s*=%s*{}") or line:match("^local%s+([%a_][%w_]*)%s*=%s*{%s*[%a}]")
            local name, params = definition(line)
            if name then
                local base, mark, field = name:match("^(.-)([.:])([%w_]+)$")
                local shown = not base and name or ((base == own or base:lower() == module) and module or base:lower()) .. mark .. field
                local entry = {name = shown, params = params, doc = documentation(block), file = file, line = line_number, module = module}
                entry.documented = #block > 0
                local key = shown:gsub(":", ".")
                if not into[key] or (entry.documented and not into[key].documented) then into[key] = entry end
                into["@" .. file .. ":" .. line_number] = entry
            end
            block = {}
        end
    end
    local known = into[module]
    if head and not (known and known.documented) then
        into[module] = {name = "neap." .. module, doc = head, file = file, line = 1, module = module, is_module = true, documented = true}
    end
end

local function build()
    if index then return index end
    index = {}
    for _, folder in ipairs{"lua/meta/", "lua/neap/"} do
        for _, file in ipairs(neap.assets(folder)) do
            local module = file:match("^lua/%a+/(.+)%.lua$")
            if module then read_file(file, module:gsub("/", "."), index) end
        end
    end
    return index
end

-- ---- finding --------------------------------------------------------------------------------------------------------------
-- The name under which a value stands in a loaded module: "redis.xadd", "json".
local function name_of(value)
    for path, module in pairs(package.loaded) do
        local short = path:match("^neap%.(.+)$")
        if short and type(module) == "table" then
            if module == value then return short end
            for k, v in next, module do
                if v == value and type(k) == "string" then return short .. "." .. k end
            end
        end
    end
    for _, meta in pairs(debug.getregistry()) do -- methods of userdata: their metatables stand in the registry
        local methods = type(meta) == "table" and rawget(meta, "__index")
        if type(methods) == "table" then
            for k, v in next, methods do
                if v == value and type(k) == "string" then return k end
            end
        end
    end
end

local function by_position(fn)
    local info = debug.getinfo(fn, "S")
    local file = info.source:match("(lua/neap/.+%.lua)$")
    return file and build()["@" .. file .. ":" .. info.linedefined]
end

--- The entry for a name or a value: {name, params, doc, file, line, is_module}; nil and the nearest names when there is none.
---@param what any "redis.xadd", a function, or a module's table
function help.find(what)
    local known = build()
    if type(what) == "function" then
        local entry = by_position(what)
        if entry and entry.documented then return entry end
        what = name_of(what) or entry and entry.name
    elseif type(what) ~= "string" then
        what = name_of(what)
    end
    if not what then return nil, {} end
    local key = what:gsub(":", ".")
    if known[key] and not known[key].is_module then return known[key] end
    key = key:gsub("^neap%.", "")
    if known[key] then return known[key] end
    local ends, near = {}, {}
    for name, entry in pairs(known) do
        if name:sub(1, 1) ~= "@" then
            if name:match("[^.]+$") == key:match("[^.]+$") and not entry.is_module then ends[#ends + 1] = name end
            near[#near + 1] = name
        end
    end
    table.sort(ends)
    if #ends == 1 then return known[ends[1]] end
    if #ends == 0 then ends = {neap.nearest(key, near)} end
    return nil, ends
end

--- The names that the definitions of a module list, as a set; `methods_only`: those called with a colon. For completion where an __index is a function.
---@param module string "tensor"
---@return table<string, boolean>
function help.names(module, methods_only)
    local names = {}
    for _, entry in pairs(build()) do
        local base, mark, name = entry.name:match("^([%w_.]+)([.:])([%w_]+)$")
        if base == module and not entry.is_module and (mark == ":" or module == "redis" or not methods_only) then names[name] = true end
    end
    return names
end

-- ---- showing --------------------------------------------------------------------------------------------------------------
local function first_sentence(doc)
    local text = table.concat(doc.text, " ")
    return text:match("^(.-[.;])%s") or text
end

-- What a module offers, one line each.
local function contents(module)
    local names, out, widest = {}, {}, 0
    for key, entry in pairs(build()) do
        if key:sub(1, 1) ~= "@" and entry.module == module and not entry.is_module and entry.documented then names[#names + 1] = entry end
    end
    table.sort(names, function(a, b) return a.name < b.name end)
    for _, entry in ipairs(names) do widest = math.max(widest, math.min(30, #entry.name)) end
    for _, entry in ipairs(names) do out[#out + 1] = "  " .. term.pad(entry.name, widest) .. "  " .. first_sentence(entry.doc) end
    return out
end

--- The text about a name or value, or nil and what to say instead.
---@return string? text
---@return string? why
function help.text(what, colour)
    local entry, near = help.find(what)
    if not entry then
        local shown = type(what) == "string" and "'" .. what .. "'" or "this value"
        return nil, ("nothing is known about %s%s"):format(shown, #near > 0 and "; is it " .. table.concat(near, ", ", 1,
            math.min(#near, 6)) .. "?" or "")
    end
    local out = {term.paint(entry.name .. (entry.params or ""), "bold", colour)}
    local width = math.max(40, (term.width() or 80) - 1)
    for _, line in ipairs(entry.doc.text) do
        for _, part in ipairs(term.columns(line) <= width - 2 and {line} or term.wrap(line, width - 2)) do out[#out + 1] = "  " .. part end
    end
    local widest = 0
    for _, p in ipairs(entry.doc.params) do widest = math.max(widest, #p[1]) end
    for _, p in ipairs(entry.doc.params) do out[#out + 1] = "  " .. term.paint(term.pad(p[1], widest), "cyan", colour) .. "  " .. p[2] end
    for _, r in ipairs(entry.doc.returns) do out[#out + 1] = "  " .. term.paint("returns", "cyan", colour) .. " " .. r end
    if entry.is_module then
        out[#out + 1] = ""
        for _, line in ipairs(contents(entry.module)) do out[#out + 1] = line end
    end
    if entry.file then out[#out + 1] = term.paint(("  (%s:%d)"):format(entry.file, entry.line), "dim", colour) end
    return table.concat(out, "\n")
end

--- Writes that text into a session of the prompt; false if nothing is known.
function help.show(what, session)
    if what == nil or what == "" then
        local names = {}
        for name, entry in pairs(build()) do
            if entry.is_module and name:sub(1, 1) ~= "@" and not name:find("[._]") then names[#names + 1] = entry end
        end
        table.sort(names, function(a, b) return a.name < b.name end)
        for _, entry in ipairs(names) do session:write(term.pad(entry.name, 20), "  ", first_sentence(entry.doc):gsub("^neap[%w_.]+: ",
            ""), "\n") end
        return true
    end
    local text, why = help.text(what, session.colour)
    session:write(text or why, "\n")
    return text ~= nil
end

return help
