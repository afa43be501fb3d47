---@meta neap.http
-- The parts of neap.http that are C: requests, streams, servers. The rest is documented in lua/neap/http.lua and http_client.lua.
-- Usage: local http = require "neap.http"

local http = {}

---A request, as handlers get it. Its fields are made when they are read; fields that you set stay with it (req.user = ..).
---It can be read until the handler has returned; work that goes on belongs into req:background(fn).
---@class neap.http.request
---@field method string "GET", "POST", ..
---@field path string decoded
---@field params table<string, string> what the route's ":name" and "*rest" matched
---@field query table<string, string> of a name given twice the last counts
---@field query_string string as it came
---@field headers table<string, string> by name in any case
---@field body string as sent, decompressed
---@field id string unique; it is in the log and in answers to errors
---@field ip string the peer's address
---@field loopback boolean the peer is this machine
---@field allow string where no route fits: the methods that the path takes, "" if there is no such path
local request = {}

---The body as a string, decompressed (gzip, deflate). Raises a 413, 415 or 400 for the client if it cannot be.
---@return string
function request:text() end

---The body as JSON. Raises a 400 with line and column for the client if it is none.
---@return any
function request:json() end

---The body as a form (application/x-www-form-urlencoded).
---@return table<string, string>
function request:form() end

---Iterates over the body's lines. Usage: for line in req:lines() do .. end
---@return fun(): string?
function request:lines() end

---One header, nil if absent; of several names, the value of each.
---@param name string
---@param ... string
---@return string? ...
function request:header(name, ...) end

---One cookie's value, nil if absent.
---@param name string
---@return string?
function request:cookie(name) end

---Adds a header to the answer, whatever the handler returns; returns the request.
---@param name string
---@param value string
function request:set_header(name, value) end

---Begins a streamed answer. Usage: local stream <close> = req:stream {["Content-Type"] = "text/csv"}
---@param headers? table<string, string>
---@param status? integer
---@return neap.http.stream
function request:stream(headers, status) end

---Answers with a file below the directory root; false if there is none. app:static is the usual way.
---@param root string
---@param path string
---@param index? string file name for directories
---@param cache? string Cache-Control
---@return boolean
function request:send_file(root, path, index, cache) end

---Changes how long this handler may still take; nil: no limit.
---@param seconds? number
function request:time_limit(seconds) end

---Keeps the request readable after the answer; req:background does it for you.
function request:keep() end

---A streamed answer. Closes with <close>. When the client leaves, the task is cancelled.
---@class neap.http.stream
local stream = {}

---Sends text; waits while the client is slow. Raises {kind = "closed"} once it has gone. Waits.
---@param text string
function stream:write(text) end

---Ends the answer.
function stream:close() end

---True once the client has gone or the stream is closed.
---@return boolean
function stream:closed() end

---What app:listen returns. Open until it is closed or the program ends.
---@class neap.http.server
local server = {}

---The port, also when 0 was asked for.
---@return integer
function server:port() end

---Requests from now on go to another app's handlers (reload); those under way end in the old one.
---@param app table
function server:swap(app) end

---Stops accepting, waits up to `seconds` (0) for requests under way, closes. Waits.
---@param seconds? number
function server:close(seconds) end

---Counters: connections, requests, answered, refused_bad, refused_big, refused_full, timeouts, gone, bytes_in, bytes_out, open, in_flight, body_bytes.
---@return table<string, integer>
function server:stats() end
---How many answers had each status: {["200"] = n, ..}.
---@return table<string, integer>
function server:answers() end

---The listening descriptor, for app:listen {fd = ..} of a new version in the same process.
---@return integer
function server:fd() end

---True if two strings are equal, in time that depends on their lengths only. For tokens.
---@param a string
---@param b string
---@return boolean
function http.equal(a, b) end
