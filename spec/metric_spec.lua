local metric = require "neap.metric"

describe("metric", function()
    before_each(metric.reset)

    it("writes counters, gauges and histograms as Prometheus reads them", function()
        local c = metric.counter("neap_readings_total", "Readings accepted.", {"sensor"})
        c:inc(2, {sensor = "oven"})
        c:inc(nil, {sensor = 'a"b\\c\n'})
        metric.gauge("neap_tasks", "Live tasks."):set(3)
        local h = metric.histogram("neap_wait_seconds", "Time waited.", nil, {0.1, 1})
        for _, v in ipairs{0.05, 0.5, 0.5, 7} do h:observe(v) end
        assert.are.equal([[
# HELP neap_readings_total Readings accepted.
# TYPE neap_readings_total counter
neap_readings_total{sensor="a\"b\\c\n"} 1
neap_readings_total{sensor="oven"} 2
# HELP neap_tasks Live tasks.
# TYPE neap_tasks gauge
neap_tasks 3
# HELP neap_wait_seconds Time waited.
# TYPE neap_wait_seconds histogram
neap_wait_seconds_bucket{le="0.1"} 1
neap_wait_seconds_bucket{le="1"} 3
neap_wait_seconds_bucket{le="+Inf"} 4
neap_wait_seconds_sum 8.05
neap_wait_seconds_count 4
]], metric.text())
    end)

    it("adds the workers' snapshots up", function()
        local c, h = metric.counter("neap_x_total", "X."), metric.histogram("neap_y_seconds", "Y.", nil, {1})
        c:inc(2)
        h:observe(0.5)
        local one = metric.snapshot()
        c:inc(3)
        local text = metric.text(one, metric.snapshot())
        assert.is_truthy(text:find("neap_x_total 7\n", 1, true))
        assert.is_truthy(text:find("neap_y_seconds_count 2\n", 1, true))
        assert.is_truthy(text:find('neap_y_seconds_bucket{le="1"} 2\n', 1, true))
        assert.are.equal(5, c:get())
    end)

    it("asks a gauge made with a function, and leaves it out when that fails", function()
        local value = 5
        metric.gauge("neap_depth", "Depth.", function() return value end)
        assert.is_truthy(metric.text():find("neap_depth 5\n", 1, true))
        metric.gauge("neap_broken", "Broken.", function() error("no") end)
        assert.is_falsy(metric.text():find("neap_broken", 1, true))
    end)

    it("asks a counter for its labelled values", function()
        metric.counter("neap_refused_total", "Refused.", {"why"}, function() return {bad = 2, big = 1} end)
        metric.counter("neap_seen_total", "Seen.", function() return 7 end)
        assert.is_truthy(metric.text():find('neap_refused_total{why="bad"} 2\nneap_refused_total{why="big"} 1\n', 1, true))
        assert.is_truthy(metric.text():find("neap_seen_total 7\n", 1, true))
    end)

    it("pleases promtool, where that is installed", function()
        local p = io.popen("command -v promtool")
        local promtool = p:read("l")
        p:close()
        if not promtool then return pending("promtool is not here (Debian: prometheus)") end
        local c = metric.counter("neap_readings_total", "Readings accepted.", {"sensor"})
        c:inc(1, {sensor = 'a"b\\c\nü'})
        metric.gauge("neap_odd", "Odd \\ values.\n", {"k"}):set(0 / 0, {k = "x"})
        metric.histogram("neap_wait_seconds", "Time waited.", {"route"}):observe(0.3, {route = "/a"})
        local name = os.tmpname()
        local f = assert(io.open(name, "w"))
        f:write(metric.text())
        f:close()
        p = io.popen(promtool .. " check metrics < " .. name .. " 2>&1; echo rc=$?")
        assert.are.equal("rc=0\n", p:read("a"))
        p:close()
        os.remove(name)
    end)

    it("refuses names that promtool would complain about, where the metric is made", function()
        for _, case in ipairs{
            {"counter", "neap_readings", "must end in _total"}, {"gauge", "neap_x_total", "only a counter"},
            {"histogram", "neap_wait_ms", "use the base unit 'seconds'"}, {"gauge", "neap_Gauge", "lower-case"},
            {"gauge", "neap_x_count", "belong to histograms"}, {"gauge", "neap_gauge_x", "leave the type"},
        } do
            local ok, why = pcall(metric[case[1]], case[2], "Help.")
            assert.is_false(ok)
            assert.is_truthy(tostring(why):find(case[3], 1, true), tostring(why))
        end
        assert.has_error(function() metric.counter("neap_a_total", "") end)
    end)

    it("refuses wrong labels and falling counters", function()
        local c = metric.counter("neap_a_total", "A.", {"x"})
        assert.has_error(function() c:inc(1) end)
        assert.has_error(function() c:inc(1, {x = 1, y = 2}) end)
        assert.has_error(function() c:inc(-1, {x = 1}) end)
        assert.has_error(function() c:inc(0 / 0, {x = 1}) end)
    end)

    it("gives the same metric for the same name, and an error for another kind", function()
        assert.are.equal(metric.counter("neap_a_total", "A."), metric.counter("neap_a_total", "A."))
        metric.gauge("neap_b", "B.")
        assert.has_error(function() metric.histogram("neap_b", "B.") end)
    end)

    it("caps the number of series", function()
        local c = metric.counter("neap_a_total", "A.", {"sensor"})
        for i = 1, 6000 do c:inc(1, {sensor = i}) end
        local _, n = metric.text():gsub("\nneap_a_total{", "")
        assert.are.equal(5001, n)
        assert.are.equal(1000, c:get{sensor = "other"})
    end)

    it("estimates quantiles inside the right bucket", function()
        local h = metric.histogram("neap_z_seconds", "Z.", nil, {1, 2, 4})
        for i = 1, 100 do h:observe(i / 25) end
        assert.is_true(math.abs(h:quantile(0.5) - 2) < 0.05)
        assert.is_true(math.abs(h:quantile(0.25) - 1) < 0.05)
        assert.is_nil(metric.histogram("neap_w_seconds", "W."):quantile(0.5))
    end)
end)
