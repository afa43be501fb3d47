--- neap.log: what a program says about itself, on stderr, one line a message.
--
--     local log = require("neap.log").module "ingest"
--     log.info("batch stored", {sensor = "oven", n = 12})
--     local here = log.with{client = "10.0.0.7"}      -- every line of `here` carries the field
--     here.warn("slow body", {seconds = 3.2})
--
-- Three shapes: pretty (for people; the default on a terminal), logfmt (the default elsewhere), json. NEAP_LOG sets levels
-- ("debug", or "info,http=debug,redis=error"), NEAP_LOG_FORMAT the shape. A message repeated without a break is written once and
-- then counted. Fields that the runtime knows (worker, task, request) come from `log.context`, which the host sets.
local term = require "neap.term"

local log = {}

local LEVELS = {trace = 1, debug = 2, info = 3, warn = 4, error = 5, off = 6}
local STYLE = {trace = "dim", debug = "dim", info = "green", warn = "yellow", error = "bold red"}
local NAMES = {"trace", "debug", "info", "warn", "error"}
local FOLD_S = 10 -- a repeated message is written again, with its count, after so many seconds

local state = {default = LEVELS.info, by_module = {}, format = nil, sink = nil, colour = nil, last = nil, repeats = 0, last_at = 0}

--- Seconds since 1970. A plain lua5.4 knows whole seconds only.
log.clock = neap and neap.clock or os.time

--- Called for each message that is written; returns a table of fields that belong to it (worker, task, request) or nil.
log.context = nil

-- ---- shapes -----------------------------------------------------------------------------------------------------------
local function stamp(at, utc_ms)
    if utc_ms then return os.date("!%Y-%m-%dT%H:%M:%S", math.floor(at)) .. (".%03dZ"):format(math.floor(at % 1 * 1000)) end
    return os.date("%H:%M:%S", math.floor(at)) .. (at % 1 ~= 0 and (".%03d"):format(math.floor(at % 1 * 1000)) or "")
end

local function plain(v)
    if math.type(v) == "float" then
        return v ~= v and "nan" or v == math.huge and "inf" or v == -math.huge and "-inf" or ("%.6g"):format(v)
    end
    return tostring(v)
end

local function logfmt_value(v)
    local s = plain(v)
    if s == "" or s:find('[%s="%c\\]') then
        s = '"' .. s:gsub('[\\"]', "\\%0"):gsub("\n", "\\n"):gsub("\t", "\\t"):gsub("%c",
            function(c) return ("\\x%02x"):format(c:byte()) end) .. '"'
    end
    return s
end

local JSON_ESCAPE = {['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t"}
local function json_string(s)
    if not utf8.len(s) then s = s:gsub("[\128-\255]", "?") end
    return '"' .. s:gsub('[%c"\\\127]', function(c) return JSON_ESCAPE[c] or ("\\u%04x"):format(c:byte()) end) .. '"'
end

-- Log fields are scalars; a log line must never fail, so its few lines of JSON are here and need no module.
local function json_value(v)
    if math.type(v) == "integer" or type(v) == "boolean" then return tostring(v) end
    if type(v) == "number" and v == v and v ~= math.huge and v ~= -math.huge then return ("%.14g"):format(v) end
    return json_string(plain(v))
end

local shapes = {}

function shapes.logfmt(r)
    local out = {"time=" .. stamp(r.at, true), "level=" .. r.level}
    if r.module then out[#out + 1] = "module=" .. r.module end
    out[#out + 1] = "msg=" .. logfmt_value(r.msg)
    for _, f in ipairs(r.fields) do out[#out + 1] = f[1]:gsub('[%s="%c]', "_") .. "=" .. logfmt_value(f[2]) end
    return table.concat(out, " ")
end

function shapes.json(r)
    local out = {'"time":"' .. stamp(r.at, true) .. '"', '"level":"' .. r.level .. '"'}
    if r.module then out[#out + 1] = '"module":' .. json_string(r.module) end
    out[#out + 1] = '"msg":' .. json_string(r.msg)
    for _, f in ipairs(r.fields) do out[#out + 1] = json_string(f[1]) .. ":" .. json_value(f[2]) end
    return "{" .. table.concat(out, ",") .. "}"
end

-- What others sent may be in a message: a terminal must not obey it. C0 but tab and newline, DEL, and C1 as UTF-8.
local function shown(text)
    local hex = function(c) return ("\\x%02x"):format(c:byte(-1)) end
    return (text:gsub("[\0-\8\11-\31\127]", hex):gsub("\xC2[\x80-\x9F]", hex))
end

function shapes.pretty(r)
    local colour = state.colour
    if colour == nil then colour = term.colour(io.stderr) end
    local out = {term.paint(stamp(r.at), "dim", colour), term.paint(("%-5s"):format(r.level), STYLE[r.level], colour)}
    if r.module then out[#out + 1] = term.paint(r.module .. ":", "bold", colour) end
    out[#out + 1] = shown(r.msg:gsub("\r?\n", "\n    "))
    for _, f in ipairs(r.fields) do out[#out + 1] = term.paint(f[1] .. "=", "dim", colour) .. shown((plain(f[2]):gsub("\r?\n", "\n    "))) end
    return table.concat(out, " ")
end

-- ---- writing ----------------------------------------------------------------------------------------------------------
local function emit(r)
    local format = state.format
    if not format then
        format = term.tty(io.stderr) and "pretty" or "logfmt"
        state.format = format
    end
    local line = shapes[format](r) .. "\n"
    if state.sink then
        state.sink(line, r)
    else
        io.stderr:write(line)
    end
end

local function add_fields(list, fields)
    local names = {}
    for k in pairs(fields) do names[#names + 1] = tostring(k) end
    table.sort(names)
    for _, k in ipairs(names) do list[#list + 1] = {k, fields[k]} end
end

--- Writes what is still counted of a repeated message. The host calls it before it ends.
function log.flush()
    local last, n = state.last, state.repeats
    state.last, state.repeats = nil, 0
    if n > 0 then emit{at = log.clock(), level = last.level, module = last.module, msg = last.msg, fields = {{"repeated", n}}} end
end

local function same(a, b)
    if not a or a.level ~= b.level or a.module ~= b.module or a.msg ~= b.msg or #a.fields ~= #b.fields then return false end
    for i, f in ipairs(a.fields) do
        if f[1] ~= b.fields[i][1] or f[2] ~= b.fields[i][2] then return false end
    end
    return true
end

local function write(level, module, bound, msg, fields)
    if type(msg) ~= "string" then
        local mt = getmetatable(msg)
        if type(msg) == "table" and not (mt and mt.__tostring) then msg = require("neap.inspect")(msg) else msg = tostring(msg) end
    end
    local r = {at = log.clock(), level = level, module = module, msg = msg, fields = {}}
    if fields ~= nil and type(fields) ~= "table" then error(("log.%s: fields must be a table, got %s"):format(level, type(fields)), 3) end
    if fields then add_fields(r.fields, fields) end
    if bound then add_fields(r.fields, bound) end
    if same(state.last, r) and r.at - state.last_at < FOLD_S then
        state.repeats = state.repeats + 1
        return
    end
    log.flush()
    state.last, state.last_at = {level = level, module = module, msg = msg, fields = {table.unpack(r.fields)}}, r.at
    local context = log.context and log.context()
    if context then add_fields(r.fields, context) end
    if state.default <= LEVELS.debug or level == "error" then
        local info = debug.getinfo(3, "Sl")
        if info and info.currentline > 0 then r.fields[#r.fields + 1] = {"at", info.short_src .. ":" .. info.currentline} end
    end
    emit(r)
end

-- The five functions (and `enabled`, `with`, `module`) of a logger with this module name and these bound fields.
local function logger(self, module, bound)
    for _, level in ipairs(NAMES) do
        local rank = LEVELS[level]
        self[level] = function(msg, fields)
            if rank < (module and state.by_module[module] or state.default) then return end
            write(level, module, bound, msg, fields)
        end
    end
    --- Is a level written here? For messages that are costly to build.
    function self.enabled(level) return LEVELS[level] >= (module and state.by_module[module] or state.default) end
    --- A logger whose lines all carry these fields.
    function self.with(fields)
        local all = {}
        for k, v in pairs(bound or {}) do all[k] = v end
        for k, v in pairs(fields) do all[k] = v end
        return logger({}, module, all)
    end
    --- A logger whose lines carry a module name, with a level of its own if `log.level` gave it one.
    function self.module(name) return logger({}, name, bound) end
    return self
end

logger(log, nil, nil)

local function check_level(level)
    if not LEVELS[level] then
        error(("unknown log level '%s'; the levels are trace, debug, info, warn, error and off"):format(tostring(level)), 3)
    end
    return LEVELS[level]
end

--- log.level() -> the general level; log.level("debug") sets it; log.level("http", "debug") sets one module's (nil: general again).
function log.level(...)
    local n, first, second = select("#", ...), ...
    if n == 0 then
        return NAMES[state.default] or "off"
    elseif n == 1 then
        state.default = check_level(first)
    else
        state.by_module[first] = second and check_level(second) or nil
    end
end

--- Sets levels from text as in NEAP_LOG: "info,http=debug". Raises on a word that is no level.
function log.levels(text)
    for item in text:gmatch("[^,%s]+") do
        local module, level = item:match("^([^=]+)=(.+)$")
        if module then log.level(module, level) else log.level(item) end
    end
end

--- The shape of a line: "pretty", "logfmt" or "json"; nil asks the terminal again.
function log.format(name)
    if name ~= nil and not shapes[name] then error(("unknown log format '%s'; use pretty, logfmt or json"):format(tostring(name)), 2) end
    state.format = name
end

--- Sends finished lines (with their newline) to `fn(line, record)` instead of stderr; nil gives stderr back. `colour`: for pretty lines.
---@return function? before the sink that was in place
function log.sink(fn, colour)
    local before = state.sink
    state.sink, state.colour = fn, colour
    return before
end

local function from_environment(name, apply)
    local value = os.getenv(name)
    if not value or value == "" then return end
    local ok, why = pcall(apply, value)
    if not ok then log.warn(("%s is ignored: %s"):format(name, tostring(why):gsub("^.-:%d+: ", ""))) end
end
from_environment("NEAP_LOG", log.levels)
from_environment("NEAP_LOG_FORMAT", log.format)

return log
