-- Rollups as a client of the server sees them: two workers, late readings, and a host that is killed between.
local helper = require "spec.helper"
local json = require "neap.json"
local process = require "neap.process"

describe("the server's rollups", function()
    local dir, server
    before_each(function() dir = helper.dir() end)
    after_each(function()
        if server then
            server:stop()
            server = nil
        end
        helper.remove(dir)
    end)

    local function serve()
        local url
        server, url = helper.serve(dir, {"--workers", "2"})
        return url
    end
    local function get(url) return json.decode((process.run {"curl", "-s", "-m", "20", url})) end
    local function post(url, items)
        local list = {}
        for i, one in ipairs(items) do list[i] = {sensor_name = one[1], sensor_output = one[2], timestamp = one[3]} end
        local text = process.run {"curl", "-s", "-m", "20", "--data-binary", json.encode(json.array(list)), url .. "/receive"}
        assert.matches('"status":"success"', text, 1, true)
    end
    -- The columns of `a` once both sensors have so many readings in the day's bucket.
    local function rolled(url, n, path)
        helper.eventually(function()
            for _, name in ipairs {"a", "b"} do
                if get(url .. "/api/sensors/" .. name .. "/readings?step=1d").n[1] ~= n then return false end
            end
            return true
        end)
        return get(url .. "/api/sensors/a/readings?" .. path)
    end

    it("follow the readings of every worker's sensors, and count each once through kill -9 and late readings", function()
        local at = 1790000000 // 86400 * 86400
        local url = serve()
        for _, name in ipairs {"a", "b"} do post(url, {{name, 1, at}, {name, 3, at + 30}, {name, 8, at + 3600}}) end
        local c = rolled(url, 3, "step=1h")
        assert.same({{at, at + 3600}, {2, 1}, {1, 8}, {3, 8}, {2, 8}, {3, 8}}, {c.times, c.n, c.min, c.max, c.mean, c.last})
        assert.same({2, "1h"}, {c.count, c.step})

        for _, name in ipairs {"a", "b"} do post(url, {{name, -5, at + 10}, {name, 3, at + 30}}) end -- late, and one again
        server:kill "KILL"
        server:wait()
        url = serve()
        c = rolled(url, 4, "step=1m&from=" .. at .. "&to=" .. at + 59)
        assert.same({{at}, {3}, {-5}, {3}, {3}}, {c.times, c.n, c.min, c.max, c.last})

        c = get(url .. "/api/sensors/a/readings?step=1h&agg=mean,n&last=1")
        assert.same({{at + 3600}, {8}, {1}}, {c.times, c.mean, c.n})
        assert.is_nil(c.min)
        assert.matches("a step is 1m, 1h or 1d", get(url .. "/api/sensors/a/readings?step=5m").error)
        assert.matches("'median' is none of n, min", get(url .. "/api/sensors/a/readings?step=1h&agg=median").error)
        assert.matches("from:", get(url .. "/api/sensors/a/readings?step=1h&from=soon").error)
        assert.matches("there is no sensor", get(url .. "/api/sensors/nobody/readings?step=1h").error)
    end)
end)
