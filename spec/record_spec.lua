local record = require "neap.record"

-- A machine made of text: what the kernel's files say at two moments.
local function machine(n)
    return {
        ["/proc/stat"] = ("cpu  %d 0 100 %d 50 0 0 0 7 0\ncpu0 1 2 3\n"):format(100 + n * 30, 1000 + n * 70),
        ["/proc/loadavg"] = "0.42 0.30 0.20 3/123 4567\n",
        ["/proc/meminfo"] = "MemTotal: 4096000 kB\nMemAvailable: 1024000 kB\nSwapCached: 9 kB\nCached: 204800 kB\nDirty: 2048 kB\n",
        ["/proc/diskstats"] = ("7 0 loop0 9 9 999999 9 9 9 999999 9\n254 0 vda 1 2 %d 4 5 6 %d 8\n254 1 vda1 1 2 77777 4 5 6 77777 8\n")
            :format(2048 * n, 4096 * n),
        ["/proc/net/dev"] = ("a|b\n lo: 999 1 0 0 0 0 0 0 999 1\n eth0:%d 1 0 0 0 0 0 0 %d 1\n"):format(10240 * n, 2048 * n),
        ["/proc/pressure/cpu"] = ("some avg10=0.00 avg60=0.00 avg300=0.00 total=%d\nfull total=1\n"):format(500000 * n),
        ["/sys/class/thermal/thermal_zone0/type"] = "x86_pkg_temp\n",
        ["/sys/class/thermal/thermal_zone0/temp"] = "48500\n",
        ["/sys/class/hwmon/hwmon0/name"] = "nvme\n",
        ["/sys/class/hwmon/hwmon0/temp1_input"] = "39850\n",
    }
end

local function sampler_of(states, extra)
    local n, now = 1, 1000.0
    local opts = {dir = false, clock = function() return now end, slurp = function(path) return states[n][path] end}
    for k, v in pairs(extra or {}) do opts[k] = v end
    local s = record.sampler(opts)
    return s, function(seconds) n, now = n + 1, now + seconds end
end

describe("the machine as a sensor", function()
    it("reads gauges at once and rates from the second sample on", function()
        local s, step = sampler_of {machine(0), machine(1)}
        local first = s:sample()
        assert.equal(0.42, first.values.load1)
        assert.equal(75, first.values.memory_used)
        assert.equal(200, first.values.page_cache)
        assert.equal(48.5, first.values.thermal_x86_pkg_temp)
        assert.equal(39.85, first.values.nvme_temp1)
        assert.is_nil(first.values.cpu_use)
        step(2)
        local v = s:sample().values
        assert.equal(30, v.cpu_use)
        assert.equal(0.5, v.disk_read) -- 1 MiB in two seconds, partitions and loop devices left out
        assert.equal(1, v.disk_write)
        assert.equal(5, v.net_in)
        assert.equal(1, v.net_out)
        assert.equal(25, v.cpu_pressure)
    end)

    it("leaves out what the machine does not have, and a counter that went back", function()
        local s, step = sampler_of {machine(5), machine(1), {}}
        s:sample()
        step(2)
        local v = s:sample().values
        assert.is_nil(v.disk_read)
        assert.is_nil(v.io_pressure)
        step(2)
        assert.same({}, s:sample().order)
    end)

    it("measures how late the worst of its short sleeps ended", function()
        local now, sleeps = 0, 0
        local late = record.sched_probe(function(s) sleeps = sleeps + 1; now = now + s + (sleeps == 3 and 0.004 or 0.001) end,
            function() return now end)
        assert.equal(5, sleeps)
        assert.is_true(math.abs(late - 4) < 1e-6)
    end)

    it("writes CSV rows under a fixed header, with empty cells for what is missing", function()
        assert.equal("time,a,b\n", record.csv_header {"a", "b"})
        assert.equal("1.500,,3.142\n", record.csv_row({time = 1.5, values = {b = 3.14159}}, {"a", "b"}))
    end)

    it("samples the machine that this spec runs on", function()
        local s = record.sampler {clock = os.time, dir = false}
        local sample = s:sample()
        assert.is_true(sample.values.memory_used > 0 and sample.values.memory_used < 100)
        assert.is_true(sample.values.processes >= 1)
    end)

    it("times an fsync by really doing one", function()
        local dir = os.tmpname()
        os.remove(dir)
        assert(os.execute("mkdir " .. dir))
        local ms = record.fsync_probe(dir)
        assert.is_true(ms and ms > 0 and ms < 60000)
        assert(os.execute("rmdir " .. dir)) -- nothing was left behind
        assert.is_nil(record.fsync_probe(dir))
    end)
end)
