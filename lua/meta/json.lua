---@meta neap.json
-- Strict JSON: RFC 8259 in, exact integers, floats that round-trip. Usage: local json = require "neap.json"

---@class neap.json
---@field null lightuserdata JSON's null as a value (equals cjson.null)
---@field try neap.json the same functions, returning nil, err where these raise
local json = {}

---@class neap.json.encode_options
---@field pretty? boolean two-space indentation, keys sorted
---@field sort? boolean keys in byte order
---@field nan? "error"|"null" what NaN and infinities become (default "error")
---@field utf8? "error"|"replace" what strings that are not UTF-8 become (default "error")
---@field max_depth? integer levels of nesting (default 128)

---A list (keys exactly 1..n, or marked by json.array) becomes [..], an empty or string-keyed table {..}.
---Usage: json.encode({temperature = 21.5}) --> {"temperature":21.5}
---@param value any
---@param opts? neap.json.encode_options
---@return string text
function json.encode(value, opts) end

---Arrays come back marked, so that an empty one is encoded as [] again. Duplicate keys: the last wins.
---Raises {kind="invalid", message="json: line 1 column 5: expected ..."} on bad text.
---@param text string
---@param opts? {max_depth?: integer}
---@return any value
function json.decode(text, opts) end

---Iterates NDJSON, skipping blank lines. Usage: for line, value in json.lines(text) do .. end
---json.try.lines gives line, nil, err for a bad line and goes on.
---@param text string
---@return fun(): integer?, any, neap.error?
function json.lines(text) end

---Marks a table (or a new one) as a list: json.encode(json.array {}) --> []
---@param t? table
---@return table t the same table
function json.array(t) end

---Marks a table (or a new one) as an object: number keys are written as strings.
---@param t? table
---@return table t the same table
function json.object(t) end

return json
