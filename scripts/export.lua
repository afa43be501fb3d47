-- neap export: a sensor's history as CSV, NDJSON or line protocol.
local args = require "neap.args"
local exporter = require "neap.exporter"
local rollup = require "neap.rollup"
local session = require "neap.session"
local when = require "neap.when"

local opt = args.parse {
    name = "neap export",
    summary = "Write the history of sensors to a file or the terminal.",
    positional = {{"sensor", help = "which sensors; all if none is named", many = true, optional = true}},
    options = session.options {
        {"--out", "-o", value = "FILE", help = "write here instead of the terminal"},
        {"--format", choices = {"csv", "ndjson", "line"}, default = "csv", help = "CSV, a JSON object a line, or line protocol"},
        {"--from", value = "TIME", help = "not before this time"},
        {"--to", value = "TIME", help = "not after this time"},
        {"--last", type = "integer", min = 1, help = "only the newest so many readings of each sensor"},
        {"--step", value = "STEP", help = "n, min, max, mean and last of every 1m, 1h or 1d instead of the readings"},
        {"--synthetic", type = "flag", help = "the made-up readings instead of the real ones"},
        {"--quarantine", type = "flag", help = "those that were kept apart because their device's clock was not believed"},
    },
    example = "neap export temperature --from 2026-11-01 --out november.csv",
}

local function time(text, flag)
    if not text then return nil end
    local time_us, why = when.parse(text)
    if time_us then return time_us end
    args.refuse("neap export", ("%s: %s"):format(flag, why))
end
local level
if opt.step then
    local why
    level, why = rollup.level(opt.step)
    if opt.synthetic or opt.quarantine then level, why = nil, "only real readings have rollups" end
    if not level then args.refuse("neap export", "--step: " .. why) end
end
local query = {from_us = time(opt.from, "--from"), to_us = time(opt.to, "--to"), last = opt.last,
    source = opt.synthetic and "synthetic" or opt.quarantine and "quarantine" or "real"}

session.run("neap export", opt, function(here)
    local out = io.stdout
    if opt.out then
        local file, why = io.open(opt.out, "w")
        if not file then error("cannot write " .. why, 0) end
        out = file
    end
    local names = opt.sensor and #opt.sensor > 0 and opt.sensor or here.store:sensors()
    local function put(text)
        local ok, why, code = out:write(text)
        if ok then return end
        if out == io.stdout and code == 32 then os.exit(141, true) end -- `| head` has had enough: quietly, as tools do that SIGPIPE ends
        error(("cannot write %s: %s"):format(opt.out or "the output", why), 0)
    end
    local write, count = (level and exporter.rollup_writer or exporter.writer)(opt.format, #names == 1, put), 0
    local left_out = {}
    for _, name in ipairs(names) do
        local times, refused = {}, exporter.refuses(opt.format, name)
        if refused then
            left_out[#left_out + 1] = refused
        elseif level then
            rollup.catch_up(here.store, name, here.specs:get(name)) -- beside a server too: whoever is faster writes
            local c = rollup.columns(here.store, name, level, query)
            times = c.times
            for i = 1, #times do write(name, times[i], c.n[i], c.min[i], c.max[i], c.mean[i], c.last[i]) end
        else
            local values
            times, values = here.store:history(name, query)
            for i = 1, #times do write(name, times[i], values[i]) end
        end
        count = count + #times
    end
    if opt.out then out:close() end
    if #left_out > 0 then error(table.concat(left_out, "\n"), 0) end -- the others are written
    if opt.out then
        print(("%d %s of %d sensor%s written to %s"):format(count, level and "buckets" or "readings", #names, #names == 1 and "" or "s", opt.out))
    end
end)
