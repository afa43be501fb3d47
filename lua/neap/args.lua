--- neap.args: the command line of a script, described by a table.
--
--     local opt = require("neap.args").parse{
--         name = "neap train", summary = "Train a forecaster for one sensor.",
--         positional = {{"sensor", help = "name of the sensor", optional = true}},
--         options = {
--             {"--epochs", type = "integer", default = 20, min = 1, help = "passes over the data"},
--             {"--rate", "-r", type = "number", default = 1e-3, help = "learning rate"},
--             {"--device", choices = {"auto", "cpu", "cuda"}, default = "auto", help = "where to compute"},
--             {"--quiet", "-q", type = "flag", help = "say less"},
--         },
--     }
--     print(opt.sensor, opt.epochs, opt.quiet)
--
-- `--name value` and `--name=value` both work, `-r 0.1` and `-r0.1` too, `--` ends the options, `--help` prints and exits 0.
-- A mistake prints one line that names it and the nearest right name, and exits with 2. `args.try` returns nil and that line instead.
local args = {}

--- ", did you mean 'x'?" or "".
function args.hint(word, names)
    local near = neap.nearest(word, names)
    return near and (", did you mean '%s'?"):format(near) or ""
end

local function key_of(option)
    return option.key or option[1]:gsub("^%-+", ""):gsub("%-", "_")
end

local SIZE = {[""] = 1, k = 1024, m = 1024 ^ 2, g = 1024 ^ 3}
local TIME = {[""] = 1, ms = 1e-3, s = 1, m = 60, min = 60, h = 3600, d = 86400, w = 604800}

-- Each reader: text -> value, or nil and what was expected.
local readers = {
    string = function(s) return s end,
    number = function(s)
        local n = tonumber(s)
        if n and n == n and not s:find("^%s*$") then return n + 0.0 end
        return nil, "a number"
    end,
    integer = function(s)
        local n = math.tointeger(tonumber(s))
        if n then return n end
        return nil, "a whole number"
    end,
    boolean = function(s)
        local v = ({["true"] = true, yes = true, on = true, ["1"] = true, ["false"] = false, no = false, off = false,
            ["0"] = false})[s:lower()]
        if v == nil then return nil, "yes or no" end
        return v
    end,
    bytes = function(s)
        local n, unit = s:lower():match("^(%d+%.?%d*)([kmg]?)i?b?$")
        if not n then return nil, "a size such as 512k or 2M" end
        return math.floor(tonumber(n) * SIZE[unit])
    end,
    duration = function(s)
        local n, unit = s:lower():match("^(%d*%.?%d+)(%a*)$")
        if not n or not TIME[unit] then return nil, "a time such as 30s, 5m or 2h" end
        return tonumber(n) * TIME[unit] + 0.0
    end,
}

local function fail(...) error({usage = string.format(...)}, 0) end

-- What a name takes: shown in help and in "needs ..." errors.
local function placeholder(option)
    if option.value then return option.value end
    if option.choices then return table.concat(option.choices, "|") end
    return ({integer = "N", number = "X", bytes = "SIZE", duration = "TIME", boolean = "yes|no"})[option.type] or "VALUE"
end

local function read(option, shown, text)
    local reader = readers[option.type or "string"]
    local value, expected = reader(text)
    if value == nil then fail("%s: expected %s, got '%s'", shown, expected, text) end
    if option.choices then
        local ok = false
        for _, c in ipairs(option.choices) do ok = ok or c == value end
        if not ok then fail("%s: '%s' is none of %s%s", shown, text, table.concat(option.choices, ", "), args.hint(text,
            option.choices)) end
    end
    if option.min and value < option.min then fail("%s: %s is below the minimum, %s", shown, text, option.min) end
    if option.max and value > option.max then fail("%s: %s is above the maximum, %s", shown, text, option.max) end
    return value
end

local function show_default(v)
    if type(v) == "number" then return ("%.14g"):format(v) end
    if type(v) == "table" then return table.concat(v, ",") end
    return tostring(v)
end

local function wrap(text, width, indent) return table.concat(require("neap.term").wrap(text, width), "\n" .. (" "):rep(indent)) end

--- The usage line: "usage: neap train [options] [sensor]".
function args.usage(def)
    local parts = {"usage: " .. (def.name or "neap")}
    if def.options and #def.options > 0 then parts[#parts + 1] = "[options]" end
    for _, p in ipairs(def.positional or {}) do
        local shown = p.many and p[1] .. "..." or p[1]
        parts[#parts + 1] = (p.optional or p.default ~= nil) and "[" .. shown .. "]" or shown
    end
    return table.concat(parts, " ")
end

--- The whole text of `--help`.
---@return string
function args.help(def)
    local out, rows = {args.usage(def)}, {}
    if def.summary then out[#out + 1] = "\n" .. def.summary end
    for _, p in ipairs(def.positional or {}) do rows[#rows + 1] = {p[1], p, "arguments"} end
    for _, o in ipairs(def.options or {}) do
        local names = {}
        for i = 1, #o do names[#names + 1] = o[i] end
        if o.type ~= "flag" then names[#names] = names[#names] .. " " .. placeholder(o) end
        rows[#rows + 1] = {table.concat(names, ", "), o, "options"}
    end
    rows[#rows + 1] = {"--help, -h", {help = "this text"}, "options"}
    local left = 0
    for _, row in ipairs(rows) do left = math.max(left, math.min(#row[1], 26)) end
    local heading
    for _, row in ipairs(rows) do
        if row[3] ~= heading then
            heading = row[3]
            out[#out + 1] = "\n" .. heading .. ":"
        end
        local o, text = row[2], row[2].help or ""
        if o.required then text = text .. " (required)" end
        if o.many and row[3] == "options" then text = text .. " (may be repeated)" end
        if o.default ~= nil and o.type ~= "flag" then text = text .. " (default " .. show_default(o.default) .. ")" end
        local gap = #row[1] <= left and (" "):rep(left - #row[1] + 2) or "\n" .. (" "):rep(left + 4)
        out[#out + 1] = "  " .. row[1] .. gap .. wrap(text, math.max(30, 96 - left), left + 4)
    end
    if def.example then out[#out + 1] = "\nexample:\n  " .. def.example:gsub("\n", "\n  ") end
    if def.more then out[#out + 1] = "\n" .. def.more end
    return table.concat(out, "\n") .. "\n"
end

-- name -> option, and the list of names for hints
local function index(def)
    local by_name, names = {}, {}
    for _, option in ipairs(def.options or {}) do
        assert(option.type == nil or option.type == "flag" or readers[option.type], "unknown option type " .. tostring(option.type))
        for i = 1, #option do
            by_name[option[i]] = option
            names[#names + 1] = option[i]
        end
    end
    names[#names + 1] = "--help"
    return by_name, names
end

local function store(result, option, value)
    local key = key_of(option)
    if option.many then
        result[key] = result[key] or {}
        table.insert(result[key], value)
    else
        result[key] = value
    end
end

-- One option word at list[i]; returns the index of the last word it used.
local function take_option(by_name, names, list, i, result)
    local word = list[i]
    local name, inline = word:match("^(%-%-[^=]+)=(.*)$")
    name = name or word
    local option = by_name[name]
    if not option and not name:find("^%-%-") and #name > 2 then
        option, inline = by_name[name:sub(1, 2)], name:sub(3) -- -r0.1
        name = name:sub(1, 2)
    end
    local negated = not option and by_name["--" .. (name:match("^%-%-no%-(.+)$") or "")]
    if negated and negated.type == "flag" then
        result[key_of(negated)] = false
        return i
    end
    if not option then fail("unknown option '%s'%s", name, args.hint(name, names)) end
    if option.type == "flag" then
        if inline then fail("%s takes no value", name) end
        store(result, option, true)
        return i
    end
    if not inline then
        i = i + 1
        inline = list[i]
        if not inline then fail("%s needs a value: %s", name, placeholder(option)) end
    end
    store(result, option, read(option, name, inline))
    return i
end

local function take_positionals(def, words, result)
    local at = 1
    for _, p in ipairs(def.positional or {}) do
        local key = p.key or p[1]:gsub("%-", "_")
        if p.many then
            result[key] = {}
            for i = at, #words do table.insert(result[key], read(p, p[1], words[i])) end
            if #result[key] == 0 and not p.optional then fail("missing argument: %s", p[1]) end
            at = #words + 1
        elseif words[at] ~= nil then
            result[key] = read(p, p[1], words[at])
            at = at + 1
        elseif p.default ~= nil then
            result[key] = p.default
        elseif not p.optional then
            fail("missing argument: %s", p[1])
        end
    end
    if words[at] ~= nil then
        local _, names = index(def)
        fail("unexpected argument '%s'%s", words[at], args.hint("--" .. words[at], names))
    end
end

local function parse(def, list)
    local by_name, names = index(def)
    local result, words, i, ended = {}, {}, 1, false
    while i <= #list do
        local word = list[i]
        if ended or word == "-" or not word:find("^%-") or (word:find("^%-[%d.]") and not by_name[word:sub(1, 2)]) then
            words[#words + 1] = word
            if def.stop_at_word then -- the rest belongs to somebody else: `neap rocks install X --y`
                for j = i + 1, #list do words[#words + 1] = list[j] end
                break
            end
        elseif word == "--" then
            ended = true
        elseif (word == "--help" or word == "-h") and not by_name[word] then
            error({help = true}, 0)
        else
            i = take_option(by_name, names, list, i, result)
        end
        i = i + 1
    end
    take_positionals(def, words, result)
    for _, option in ipairs(def.options or {}) do
        local key = key_of(option)
        if result[key] == nil then
            if option.required then fail("%s is required", option[1]) end
            result[key] = option.default
            if option.type == "flag" and result[key] == nil then result[key] = false end
            if option.many and result[key] == nil then result[key] = {} end
        end
    end
    return result
end

--- Like parse, but never exits: the table, or nil and a message ("help" when --help was given).
---@param def table
---@param list? string[] default the global `arg`
function args.try(def, list)
    local ok, result = pcall(parse, def, list or arg or {})
    if ok then return result end
    if type(result) ~= "table" then error(result, 0) end
    return nil, result.help and "help" or result.usage
end

--- Parses the command line. Prints help and exits 0, or prints the mistake and exits 2.
---@param def table see the head of this file
---@param list? string[] default the global `arg`
---@return table values by long name, "-" turned into "_"
function args.parse(def, list)
    local result, why = args.try(def, list)
    if result then return result end
    if why == "help" then
        io.stdout:write(args.help(def))
        os.exit(0, true)
    end
    io.stderr:write(("%s: %s\n%s (--help explains)\n"):format(def.name or "neap", why, args.usage(def)))
    os.exit(2, true)
end

--- For a mistake that the table cannot describe, such as two options that contradict each other: prints it and exits 2.
---@param name string the command
---@param why string what is wrong and what to do
function args.refuse(name, why)
    io.stderr:write(name, ": ", why, "\n")
    os.exit(2, true)
end

--- Checks a trailing options table of a function: unknown names raise at the caller of the caller with the nearest one.
---   args.check(opts, {"timeout", "retry"}, "redis.connect")
---@param opts table?
---@param known string[]
---@param what string name of the function for the message
function args.check(opts, known, what)
    for key in pairs(opts or {}) do
        local ok = false
        for _, name in ipairs(known) do ok = ok or name == key end
        if not ok then error(("%s: unknown option '%s'%s"):format(what, tostring(key), args.hint(tostring(key), known)), 3) end
    end
    return opts or {}
end

return args
