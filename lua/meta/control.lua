---@meta neap.control
-- The control socket of a running host: only our own user can connect. neap.attach speaks over it; see there.
-- Usage: control.listen(control.dir(true) .. "/mine.sock", function(conn) conn:send(conn:recv()) end)

local control = {}

---Listens at a path; fn(conn) runs as a task for each connection. Keeps no program alive; close() ends it.
---@param path string at most 106 bytes
---@param fn fun(conn: neap.control.conn)
---@return {close: fun(self)} server
function control.listen(path, fn) end

---Connects to a socket.
---@param path string
---@return neap.control.conn conn
function control.connect(path) end

---The directory of the sockets, $XDG_RUNTIME_DIR/neap or /tmp/neap-UID; with true it is made if missing.
---@param make? boolean
---@return string? path
function control.dir(make) end

---The paths of the sockets in that directory, living or left behind.
---@return string[] paths
function control.list() end

---@class neap.control.conn
local conn = {}

---The next message; nil when the other end has left, false when `timeout` seconds have passed. Waits.
---@param timeout? number
---@return string|false|nil text
function conn:recv(timeout) end

---Sends a message; false when the other end has left.
---@param text string
---@return boolean sent
function conn:send(text) end

---Ends the connection.
function conn:close() end
