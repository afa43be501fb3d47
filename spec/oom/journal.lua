-- The journal without its applier: readings that are on disk.
local core, decode = require "neap.journal.core", require "neap.decode"
local j = core.open {dir = arg[0] .. "/journal", max_bytes = 1 << 24}
local batch = decode.json '[{"sensor_name":"t","sensor_output":21.5},{"sensor_name":"u","sensor_output":"wet"}]'
j:append(batch, {})
j:append_pairs({"a", "b"}, {a = {1000000, 1.5, 2000000, 2.5}, b = {1000000, 3}}, {})
j:stamp(3)
assert(j:stats().records >= 2)
j:close()
