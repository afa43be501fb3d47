-- A plain redis-server for specs, in a temporary directory: server.start{password=} -> {url, socket, port, process}; s:kill(), s:start_again(), s:stop().
-- server.cluster(args) -> {three of them that share the slots, url=}; c:stop().
local process = require "neap.process"
local redis = require "neap.redis"
local task = require "neap.task"

local server = {}
server.__index = server

--- Waits until fn() is true-ish; returns it. Fails after `seconds` (10).
function server.eventually(fn, seconds)
    local limit = task.now() + (seconds or 10)
    while true do
        local v = fn()
        if v then return v end
        if task.now() > limit then error("not so after " .. (seconds or 10) .. " s", 2) end
        task.sleep(.005)
    end
end

function server.directory()
    local p = io.popen "mktemp -d /tmp/neap-spec-XXXXXX"
    local dir = p:read "l"
    p:close()
    return dir
end

local next_port = 20000 + math.random(0, 8000) * 4 -- a cluster's bus takes port + 10000

local function launch(self)
    local cmd = {"redis-server", "--port", tostring(self.port), "--bind", "127.0.0.1", "--unixsocket", self.socket, "--dir", self.dir, "--save", "",
        "--enable-debug-command", "yes", stdout = "null", stderr = "null", detached = true}
    if self.password then
        table.insert(cmd, "--requirepass")
        table.insert(cmd, self.password)
    end
    for _, word in ipairs(self.args) do table.insert(cmd, word) end
    self.process = process.spawn(cmd)
    server.eventually(function()
        local c <close> = redis.connect(self.tcp)
        local info = c.try:info "server" -- of our own process, not of somebody else's on that port
        return info and info.process_id == self.process.pid or self.process:wait(0) ~= nil
    end)
    return self.process:wait(0) == nil
end

--- Starts one on a free port and a unix socket.
function server.start(opts)
    opts = opts or {}
    local self = setmetatable({password = opts.password, args = opts.args or {}, dir = server.directory()}, server)
    self.socket = self.dir .. "/redis.sock"
    repeat
        next_port = next_port + 1
        self.port = next_port
        self.tcp = ("redis://%s127.0.0.1:%d"):format(self.password and ":" .. self.password .. "@" or "", self.port)
    until launch(self)
    self.url = "unix://" .. self.socket .. (self.password and "?password=" .. self.password or "")
    return self
end

function server:kill(signal)
    self.process:kill(signal or "KILL")
    if signal == nil or signal == "KILL" then
        self.process:wait()
        os.remove(self.socket)
    end
end

function server:start_again() assert(launch(self)) end

function server:stop()
    self.process:kill "CONT"
    self.process:kill "KILL"
    self.process:wait()
    os.execute("rm -rf " .. self.dir)
end

local cluster = {}
cluster.__index = cluster

--- Three masters with a third of the slots each, `args` on their command lines. Each has a client of its own as node.own.
function server.cluster(args)
    local self = setmetatable({}, cluster)
    for i = 1, 3 do
        local words = {"--cluster-enabled", "yes", "--cluster-node-timeout", "1000"}
        local node = server.start {args = table.move(args or {}, 1, #(args or {}), #words + 1, words)}
        self[i] = node
        node.own = redis.connect(node.tcp)
        node.own:cluster("addslotsrange", (i - 1) * 5461, i == 3 and 16383 or i * 5461 - 1)
        if i > 1 then node.own:cluster("meet", "127.0.0.1", self[1].port) end
    end
    for i = 1, 3 do
        local own = self[i].own
        server.eventually(function() return own:cluster_info():find "cluster_state:ok" and #own:cluster_slots() == 3 end, 20)
    end
    self.url = self[1].tcp
    return self
end

function cluster:stop()
    for _, node in ipairs(self) do
        node.own:close()
        node:stop()
    end
end

return server
