-- neap record: this machine as a sensor, for everyone without hardware at hand.
local args = require "neap.args"
local record = require "neap.record"
local task = require "neap.task"

local opt = args.parse {
    name = "neap record",
    summary = "Sample this computer (processor, load, memory, disks, network, temperatures, fsync and scheduling delays) into a\n"
        .. "CSV file, or post the samples to a running `neap serve`. Ctrl-C ends it.",
    options = {
        {"--interval", type = "duration", default = 5, min = 0.01, help = "time between samples"},
        {"--for", key = "length", type = "duration", help = "stop after this long"},
        {"--count", type = "integer", min = 1, help = "stop after this many samples"},
        {"--csv", value = "FILE", help = "append to this file instead of posting"},
        {"--url", default = "http://127.0.0.1:5000", help = "the server to post to"},
        {"--prefix", default = "", help = "put this before every sensor's name, such as \"pc.\""},
        {"--probe-dir", value = "DIR", default = ".", help = "where the fsync probe writes its 4 KiB file"},
        {"--no-probes", type = "flag", help = "only read counters: no fsync, no short sleeps"},
    },
    example = "neap record --interval 2s --csv machine.csv",
}

--- Where samples go: a function that takes one.
local function csv_sink(path)
    local had = io.open(path, "r")
    local order
    if had then -- go on in the columns of an earlier run
        local header = had:read("l")
        had:close()
        if header then
            order = {}
            for name in header:gmatch("[^,]+") do order[#order + 1] = name end
            table.remove(order, 1)
        end
    end
    local file, why = io.open(path, "a")
    if not file then
        io.stderr:write("neap record: cannot write ", why, "\n")
        os.exit(1, true)
    end
    file:setvbuf("line")
    return function(sample)
        if not order then
            order = sample.order
            file:write(record.csv_header(order))
        end
        file:write(record.csv_row(sample, order))
    end
end

local function http_sink(url, prefix)
    local http, json = require "neap.http", require "neap.json"
    return function(sample)
        local items = json.array {}
        for _, name in ipairs(sample.order) do
            items[#items + 1] = {sensor_name = prefix .. name, sensor_output = sample.values[name], timestamp = sample.time}
        end
        local ok, response = pcall(http.request, {method = "POST", url = url .. "/receive", json = items, timeout = 10})
        if not ok then
            io.stderr:write("neap record: ", tostring(response), " (is `neap serve` running?)\n")
        elseif response.status >= 300 then
            io.stderr:write(("neap record: %s answered %d: %s\n"):format(url, response.status, response.body or ""))
        end
    end
end

local stop = task.event() -- before anything that takes time, so that Ctrl-C ends it in order at any moment
neap.on_signal("INT", function() stop:set() end)
neap.on_signal("TERM", function() stop:set() end)
local sink = opt.csv and csv_sink(opt.csv) or http_sink(opt.url, opt.prefix)
local probe_dir = opt.probe_dir
if opt.no_probes then probe_dir = false end
local sampler = record.sampler {clock = neap.clock, sleep = not opt.no_probes and task.sleep or nil, dir = probe_dir}
local last_count = opt.count or opt.length and math.floor(opt.length / opt.interval) or math.huge

sampler:sample() -- rates need a sample before them
local due, count = task.now(), 0
while count < last_count do
    due = due + opt.interval
    local late = task.now() - due
    if late > 0 then due = due + math.ceil(late / opt.interval) * opt.interval end -- missed samples stay missing
    if stop:wait(math.max(due - task.now(), 0)) then break end
    sink(sampler:sample())
    count = count + 1
end
