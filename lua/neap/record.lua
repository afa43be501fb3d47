--- The machine itself as a sensor: samples what this computer has, for everyone without hardware at hand.
--
--   local sampler = require("neap.record").sampler{ sleep = task.sleep, clock = task.now }
--   local reading = sampler:sample()        -- { time = 1764000000.25, values = { load1 = 0.4, ... }, order = { "cpu_use", ... } }
--
-- Everything comes from files that the Linux kernel keeps (/proc, /sys), read with io.open: no library, no privilege. Rates
-- are the difference of two samples, so the first sample has none. The two probes (fsync, scheduling) measure by doing:
-- they write one small file and sleep a few milliseconds. What a machine does not have is left out, never invented.

local record = {}

---@class neap.record.Column
---@field name string
---@field unit string
---@field about string

-- What a sample may hold, in column order. Thermal and hwmon sensors are added behind these, under the names the kernel gives.
---@type neap.record.Column[]
record.columns = {
    { name = "cpu_use", unit = "%", about = "share of all processors' time spent working since the last sample" },
    { name = "load1", unit = "tasks", about = "tasks running or waiting to run, averaged over a minute by the kernel" },
    { name = "running", unit = "tasks", about = "tasks running or ready to run at this moment" },
    { name = "processes", unit = "tasks", about = "all tasks that exist" },
    { name = "memory_used", unit = "%", about = "memory that could not be given to a new program" },
    { name = "page_cache", unit = "MiB", about = "file contents kept in memory" },
    { name = "dirty", unit = "MiB", about = "file contents changed in memory and not yet on disk" },
    { name = "disk_read", unit = "MiB/s", about = "read from all disks" },
    { name = "disk_write", unit = "MiB/s", about = "written to all disks" },
    { name = "net_in", unit = "KiB/s", about = "received, without the loopback interface" },
    { name = "net_out", unit = "KiB/s", about = "sent, without the loopback interface" },
    { name = "cpu_pressure", unit = "%", about = "share of the time in which some task waited for a processor" },
    { name = "io_pressure", unit = "%", about = "share of the time in which some task waited for a disk" },
    { name = "fsync", unit = "ms", about = "time to write 4 KiB and have the disk confirm it" },
    { name = "sched_delay", unit = "ms", about = "how late a 10 ms sleep ends, the worst of five" },
}

local function slurp(path)
    local f = io.open(path, "r")
    if not f then return nil end
    local text = f:read("a")
    f:close()
    return text
end

-- ---- one reader per kernel file; each puts gauges into `now.values` and running totals into `now.totals` ----

local function read_stat(slurp_file, now)
    local line = (slurp_file("/proc/stat") or ""):match("^cpu%s+([%d ]+)")
    if not line then return end
    local total, idle, column = 0, 0, 0
    for ticks in line:gmatch("%d+") do
        column = column + 1
        if column <= 8 then total = total + ticks end -- columns 9 and 10 (guests) are part of column 1
        if column == 4 or column == 5 then idle = idle + ticks end
    end
    now.totals.cpu_total, now.totals.cpu_idle = total, idle
end

local function read_loadavg(slurp_file, now)
    local load1, running, all = (slurp_file("/proc/loadavg") or ""):match("^(%S+) %S+ %S+ (%d+)/(%d+)")
    if not load1 then return end
    now.values.load1, now.values.running, now.values.processes = tonumber(load1), tonumber(running), tonumber(all)
end

local function read_meminfo(slurp_file, now)
    local text = slurp_file("/proc/meminfo")
    if not text then return end
    local function kib(key) return tonumber(text:match("%f[%w_]" .. key .. ":%s+(%d+)")) end
    local total, available, cached, dirty = kib "MemTotal", kib "MemAvailable", kib "Cached", kib "Dirty"
    if total and available then now.values.memory_used = 100 * (total - available) / total end
    if cached then now.values.page_cache = cached / 1024 end
    if dirty then now.values.dirty = dirty / 1024 end
end

--- Whole disks only: a partition's traffic is counted by its disk, and loop or zram devices sit on top of others.
---@param name string
function record.is_disk(name)
    for _, kind in ipairs { "^loop", "^z?ram", "^dm%-", "^md", "^[sf][rd]%d" } do
        if name:match(kind) then return false end
    end
    if name:match("^[shv]d%a+%d+$") or name:match("^xvd%a+%d+$") then return false end
    return not (name:match("^nvme%d+n%d+p%d+$") or name:match("^mmcblk%d+p%d+$"))
end

local function read_diskstats(slurp_file, now)
    local text = slurp_file("/proc/diskstats")
    if not text then return end
    local read, written = 0, 0
    for name, sectors_read, sectors_written in text:gmatch("%d+%s+%d+ (%S+) %d+ %d+ (%d+) %d+ %d+ %d+ (%d+)") do
        if record.is_disk(name) then read, written = read + sectors_read, written + sectors_written end
    end
    now.totals.disk_read, now.totals.disk_write = read / 2048, written / 2048 -- sectors of 512 bytes to MiB
end

local function read_net(slurp_file, now)
    local text = slurp_file("/proc/net/dev")
    if not text then return end
    local received, sent = 0, 0
    for name, counters in text:gmatch("(%S+):([%s%d]+)") do
        local column = 0
        for value in counters:gmatch("%d+") do
            column = column + 1
            if name ~= "lo" and column == 1 then received = received + value end
            if name ~= "lo" and column == 9 then sent = sent + value end
        end
    end
    now.totals.net_in, now.totals.net_out = received / 1024, sent / 1024
end

local function read_pressure(slurp_file, now)
    for _, what in ipairs { "cpu", "io" } do
        local total_us = (slurp_file("/proc/pressure/" .. what) or ""):match("some [^\n]*total=(%d+)")
        if total_us then now.totals[what .. "_pressure"] = total_us / 1e6 * 100 end -- seconds waited, so that a rate is per cent
    end
end

--- Temperatures, fans and voltages. The numbers behind the names are fixed by the kernel's sysfs interface.
local function read_thermal(slurp_file, now)
    local function add(name, raw, divisor)
        local value = tonumber((raw or ""):match("^%-?%d+"))
        if not value then return end
        name = name:gsub("[^%w]+", "_"):gsub("_+$", ""):lower()
        local unique, n = name, 1
        while now.values[unique] do n = n + 1; unique = name .. "_" .. n end
        now.values[unique] = value / divisor
        now.extra[#now.extra + 1] = unique
    end
    for zone = 0, 31 do
        local dir = "/sys/class/thermal/thermal_zone" .. zone
        local kind = slurp_file(dir .. "/type")
        if not kind then break end
        add("thermal_" .. kind, slurp_file(dir .. "/temp"), 1000)
    end
    for chip = 0, 31 do
        local dir = "/sys/class/hwmon/hwmon" .. chip
        local chip_name = slurp_file(dir .. "/name")
        if not chip_name then break end
        for _, kind in ipairs { { "temp", 1000 }, { "fan", 1 }, { "in", 1000 } } do
            for input = kind[1] == "in" and 0 or 1, 16 do
                local stem = dir .. "/" .. kind[1] .. input
                local raw = slurp_file(stem .. "_input")
                if raw then add(chip_name .. "_" .. (slurp_file(stem .. "_label") or kind[1] .. input), raw, kind[2]) end
            end
        end
    end
end

local readers = { read_stat, read_loadavg, read_meminfo, read_diskstats, read_net, read_pressure, read_thermal }

-- ---- probes: measured by doing ----

--- Milliseconds for one 4 KiB write with fsync, by coreutils' dd, which times the write itself (Lua has no fsync).
---@param dir string where the small file goes
function record.fsync_probe(dir)
    local path = (dir .. "/.neap-fsync-probe"):gsub("'", "'\\''")
    local command = "LC_ALL=C dd if=/dev/zero of='" .. path .. "' bs=4096 count=1 conv=fsync,notrunc 2>&1; rm -f '" .. path .. "'"
    local pipe = io.popen(command, "r")
    if not pipe then return nil end
    local said = pipe:read("a")
    pipe:close()
    local seconds = tonumber(said:match("copied, ([%d.e%-+]+) s"))
    return seconds and seconds * 1000
end

--- Milliseconds by which the latest of five 10 ms sleeps overslept.
---@param sleep fun(seconds: number)
---@param clock fun(): number
function record.sched_probe(sleep, clock)
    local worst = 0
    for _ = 1, 5 do
        local before = clock()
        sleep(0.01)
        worst = math.max(worst, clock() - before - 0.01)
    end
    return worst * 1000
end

-- ---- the sampler ----

---@class neap.record.Sampler
local Sampler = {}
Sampler.__index = Sampler

local RATES = { "disk_read", "disk_write", "net_in", "net_out", "cpu_pressure", "io_pressure" }

--- Take one sample: { time, values = {name = number}, order = {name, ...} }.
function Sampler:sample()
    local now = { time = self.clock(), values = {}, totals = {}, extra = {} }
    for _, read in ipairs(readers) do read(self.slurp, now) end
    if self.fsync then now.values.fsync = self.fsync(self.dir) end
    if self.sleep then now.values.sched_delay = record.sched_probe(self.sleep, self.clock) end

    local last = self.last
    if last and now.time > last.time then
        local seconds = now.time - last.time
        for _, name in ipairs(RATES) do
            local a, b = last.totals[name], now.totals[name]
            if a and b and b >= a then now.values[name] = (b - a) / seconds end
        end
        local a, b = last.totals, now.totals
        if a.cpu_total and b.cpu_total and b.cpu_total > a.cpu_total then
            local total = b.cpu_total - a.cpu_total
            now.values.cpu_use = math.min(100, math.max(0, 100 * (total - (b.cpu_idle - a.cpu_idle)) / total))
        end
    end
    self.last = now

    local order = {}
    for _, column in ipairs(record.columns) do
        if now.values[column.name] then order[#order + 1] = column.name end
    end
    table.move(now.extra, 1, #now.extra, #order + 1, order)
    return { time = now.time, values = now.values, order = order }
end

--- ARGS: clock() -> wall time in seconds; sleep(seconds), optional (without it: no scheduling probe); dir, for the fsync
--- probe's file (false: no fsync probe); slurp(path) -> text | nil, for tests.
---@param opts { clock: (fun(): number), sleep?: (fun(s: number)), dir?: string|false, slurp?: (fun(path: string): string?) }
---@return neap.record.Sampler
function record.sampler(opts)
    return setmetatable({
        clock = opts.clock, sleep = opts.sleep, slurp = opts.slurp or slurp,
        dir = opts.dir or ".", fsync = opts.dir ~= false and record.fsync_probe or nil,
    }, Sampler)
end

-- ---- CSV: one row a sample, one column a sensor ----

--- A number as short as it is honest: these sensors do not know more than four significant digits.
local function short(value)
    if not value then return "" end
    if value == math.floor(value) and math.abs(value) < 1e9 then return ("%d"):format(value) end
    return ("%.4g"):format(value)
end

---@param order string[]
function record.csv_header(order) return "time," .. table.concat(order, ",") .. "\n" end

---@param sample { time: number, values: table<string, number> }
---@param order string[] the header's columns; a value that this sample lacks leaves its cell empty
function record.csv_row(sample, order)
    local cells = { ("%.3f"):format(sample.time) }
    for i, name in ipairs(order) do cells[i + 1] = short(sample.values[name]) end
    return table.concat(cells, ",") .. "\n"
end

return record
