--- What a user may write in plain Lua instead of neap's own ingest route; measured by `neap bench post` too.
local http, redis = require "neap.http", require "neap.redis"

local app = http.app {name = "plain"}

app:post("/receive", function(req)
    local items = req:json()
    for _, item in ipairs(items) do
        redis.xadd("neap:plain:" .. item.sensor_name, "MAXLEN", "~", "100000", "*", "v", item.sensor_output)
    end
    return {status = "success", data = items}
end)

return app
