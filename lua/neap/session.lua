--- What every command needs: the sensor specs, a Redis (a private one unless told otherwise), and the store on it.
--
--     local opt = args.parse{name = "neap seed", options = session.options{ {"--count", ...} }}
--     local here = session.open(opt)            -- here.specs, here.redis, here.store, here.data
--
-- The private Redis lives in the data directory; a second command beside a running server joins it, and the last one to leave
-- ends it. REDIS_URL and the starter kit's REDIS_HOST, ... choose another one, unless --data or --redis was given. The session's
-- client is also the default client of neap.redis, so that a user's own Lua talks to the same Redis.

local journal = require "neap.journal"
local redis = require "neap.redis"
local sensors = require "neap.sensors"
local store = require "neap.store"

local session = {}

local COMMON <const> = {
    {"--data", value = "DIR", help = "where the private Redis and the models live (default: NEAP_DATA, or neap-data)"},
    {"--redis", value = "URL", help = "use this Redis, such as redis://host:6379/0 or unix:///path; also REDIS_URL"},
    {"--sensors", value = "FILE", help = "sensor specs; sensors.lua or scripts/sensors.lua if not given"},
}

--- A command's own options with the common ones behind them.
---@param own? table[]
function session.options(own)
    local all = table.move(own or {}, 1, #(own or {}), 1, {})
    for _, option in ipairs(COMMON) do all[#all + 1] = option end
    return all
end

--- The sensor specs: the file asked for, one of the usual files, or those that travel inside neap.
---@param path? string
---@return neap.Specs specs
---@return string path
function session.specs(path)
    if path then return sensors.load(path), path end
    for _, usual in ipairs {"sensors.lua", "scripts/sensors.lua"} do
        local f = io.open(usual, "r")
        if f then
            f:close()
            return sensors.load(usual), usual
        end
    end
    return sensors.parse(neap.asset "scripts/sensors.lua", "neap's own scripts/sensors.lua"), "(inside neap)"
end

---@class neap.Session
---@field specs neap.Specs
---@field specs_path string
---@field redis any
---@field store any
---@field data string
---@field url? string of an external Redis
---@field private boolean
---@field journal? any
---@field socket? string the private Redis' socket

--- The data directory: --data, NEAP_DATA, or neap-data.
---@param opt {data?: string}
---@return string
function session.directory(opt)
    local named = os.getenv "NEAP_DATA"
    return opt.data or named ~= "" and named or "neap-data"
end

--- ARGS: the parsed command line. RETURN: a session; close it (or let it be closed) to leave the private Redis.
---@param opt table
---@param more? {serve?: boolean, worker?: boolean} a server's main thread, or one of its other workers: they write through the journal
---@return neap.Session
function session.open(opt, more)
    local self = {data = session.directory(opt)}
    self.specs, self.specs_path = session.specs(opt.sensors)
    self.url = opt.redis or not opt.data and redis.environment_url() or nil
    if self.url then
        redis.configure {url = self.url}
    else
        redis.configure {data = self.data, serve = more and more.serve or false}
    end
    self.redis, self.private = redis.default(), not self.url
    self.socket = self.private and self.redis.socket or nil
    self.store = store.new(self.redis, {specs = self.specs, most_sensors = opt.most_sensors})
    if more and (more.serve or more.worker) then
        journal.join(self, {apply = more.serve, max_bytes = opt.journal_bytes, max_age = opt.journal_age, loose = opt.ack == "memory"})
    end
    return setmetatable(self, {__index = session, __close = session.close})
end

--- Leaves the journal and Redis.
function session:close()
    journal.leave(self, 2)
    if self.redis then self.redis:close() end
    self.redis = nil
end

--- Runs a command's body with a session, and turns an expected failure into one line and exit code 1.
---@param opt table
---@param body fun(here: neap.Session)
---@param name string the command, for messages
function session.run(name, opt, body)
    local ok, err = pcall(function()
        local here <close> = session.open(opt)
        return body(here)
    end)
    if ok then return err end
    if type(err) == "string" and err:find "interrupted!$" then -- Ctrl-C: what was begun is given up, and where does not matter
        io.stderr:write(name, ": interrupted\n")
        os.exit(130, true)
    end
    local expected = type(err) == "string" or type(err) == "table" and err.kind and err.kind ~= "bug"
    if not expected or os.getenv "NEAP_TRACEBACK" then error(err, 0) end
    io.stderr:write(name, ": ", tostring(err), "\n")
    os.exit(1, true)
end

return session
