---@meta neap.decode
-- What devices send, decoded in C to a batch of readings. Usage: local decode = require "neap.decode"
-- A body is a string, or a request, whose body is then read without being copied. A batch holds its memory until it is collected;
-- `local batch <close> = decode.json(req)` gives it back at the end of the block (the batch is empty then), which is worth it where there are many.

---@class neap.decode.options
---@field prefix? string put before every sensor name
---@field precision? "ns"|"us"|"ms"|"s"|"m"|"h" line protocol: unit of its timestamps (default ns)

---@class neap.decode.batch
---@field count integer readings accepted so far (also #batch)
---@field refused integer items, lines or values refused
---@field items integer items or lines seen
---@field skipped integer values that are no readings (texts, switches, nulls)
---@field shape string "array", "object", "lines", "line protocol" or "collectd"
local batch = {}

---for i, name, value, time_us, flags, sensor, item in batch:each() do .. end; time_us is nil for an untimed reading
---@return fun(): integer?, string, number, integer?, integer, integer, integer
function batch:each() end

---@param i integer
---@return string name, number value, integer? time_us, integer flags, integer sensor, integer item
function batch:get(i) end

---The value as the client wrote it, nil where that was not plain JSON number text.
---@param i integer
---@return string?
function batch:raw(i) end

---@return {index: integer, reason: string, name?: string}[] errors, integer total the first 1,000, and how many there are
function batch:errors() end

---@return string[] names distinct, in order of appearance
function batch:names() end

---Looks every reading up in a table of known sensors: sets its sensor and flags. Returns how many got a flag.
---@param sensors neap.decode.sensors
---@return integer flagged
function batch:check(sensors) end

---Like check, and true if no reading needs a closer look: all of known, not special sensors, within limits, untimed or timed between the two.
---@param sensors neap.decode.sensors
---@param oldest_us integer
---@param newest_us integer
---@return boolean plain, integer count, integer refused as batch.count and batch.refused
function batch:plain(sensors, oldest_us, newest_us) end

---Refuses an accepted reading after all: it leaves the batch and is listed with its reason.
---@param i integer
---@param reason string
function batch:refuse(i, reason) end

---@param i integer
---@param time_us integer? nil makes it untimed
function batch:set_time(i, time_us) end

---@param i integer
---@param value number
function batch:set_value(i, value) end

---@return string json the accepted readings as [{"sensor_name":..,"sensor_output":..},..]
function batch:echo() end

---@class neap.decode.sensors
local sensors = {}

---@param name string
---@param min? number
---@param max? number
---@param special? boolean batch:plain says no to its readings
---@return integer place 1-based; an old name keeps its place and gets the new limits
function sensors:add(name, min, max, special) end

---@param name string
---@return integer? place
function sensors:find(name) end

---These sensors have news: those of a batch that was checked against this table, or one by its name.
---@param what neap.decode.batch|string
function sensors:touch(what) end

---Appends the names of the sensors that have news, in no order; they have none any more.
---@param list? string[]
---@return string[]
function sensors:touched(list) end

---@class neap.decode
---@field try neap.decode the same functions, returning nil, err where these raise
---@field BAD_TIME integer flag: the item's time could not be read, it counts as untimed
---@field UNKNOWN integer flag: not in the table of sensors
---@field LOW integer flag: below the sensor's minimum
---@field HIGH integer flag: above the sensor's maximum
local decode = {}

---Any JSON that devices send: the kit's array, one object, flat values, {ts,values}, one level of nesting, sensor.community, NDJSON.
---Raises {kind="invalid", message=, line=} when the body as a whole is none of these.
---@param body string|neap.http.request
---@param opts? neap.decode.options
---@return neap.decode.batch
function decode.json(body, opts) end

---One item a line; bad lines are refused one by one.
---@param body string|neap.http.request
---@param opts? neap.decode.options
---@return neap.decode.batch
function decode.ndjson(body, opts) end

---Influx line protocol: each numeric field is a sensor named measurement[,tag=value..].field, the field name "value" dropped.
---@param body string|neap.http.request
---@param opts? neap.decode.options
---@return neap.decode.batch
function decode.lines(body, opts) end

---collectd's write_http JSON: sensors named host/plugin[-instance]/type[-instance][.dsname].
---@param body string|neap.http.request
---@param opts? neap.decode.options
---@return neap.decode.batch
function decode.collectd(body, opts) end

---collectd's write_http Format "Command".
---@param body string|neap.http.request
---@param opts? neap.decode.options
---@return neap.decode.batch
function decode.putval(body, opts) end

---Line protocol as it is: points {measurement, tags, fields, time_ns, line} and the bad lines {line, reason}.
---@param body string
---@param opts? neap.decode.options
---@return table[] points, {line: integer, reason: string}[] errors
function decode.points(body, opts) end

---Unpacks a gzip or deflate body; raises kind "full" beyond the cap (or 200-fold growth), "corrupt", "unsupported".
---@param body string
---@param encoding string
---@param max_bytes? integer default 16 MiB
---@return string
function decode.inflate(body, encoding, max_bytes) end

---A table of known sensors with their limits, for batch:check.
---@param list? {name: string, min?: number, max?: number, special?: boolean}[]
---@return neap.decode.sensors
function decode.sensors(list) end

---A time as devices write it (seconds to nanoseconds by magnitude, ISO 8601), in microseconds since 1970; nil if unreadable.
---@param time string|number
---@return integer? time_us
function decode.time(time) end

---A field of a sensor's stream as written by neap: appends its readings to the two lists. Somebody else's text adds none.
---@param first string the field's name: the event time of the first reading in microseconds
---@param text string the field's value: "21.5 21.75@1000000 22"
---@param times integer[]
---@param values number[]
function decode.unpack(first, text, times, values) end

---The readings from the `first` one on, as long as their times ascend and lie before `stop_us` (the first one counts in any case).
---@param times integer[]
---@param values number[]
---@param first integer
---@param stop_us integer
---@return integer last, number low, number high, number sum
function decode.run(times, values, first, stop_us) end

---The other way round: pairs[from] .. pairs[to] of {time_us, value, time_us, value, ..} as one field.
---@param pairs (integer|number)[]
---@param from integer
---@param to integer
---@return integer first, string text
function decode.pack(pairs, from, to) end

return decode
