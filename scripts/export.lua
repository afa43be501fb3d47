-- neap export: a sensor's history as CSV, NDJSON or line protocol.
local args = require "neap.args"
local exporter = require "neap.exporter"
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
        {"--synthetic", type = "flag", help = "the made-up readings instead of the real ones"},
    },
    example = "neap export temperature --from 2026-11-01 --out november.csv",
}

local function time(text, flag)
    if not text then return nil end
    local time_us, why = when.parse(text)
    if time_us then return time_us end
    io.stderr:write(("neap export: %s: %s\n"):format(flag, why))
    os.exit(2, true)
end
local query = {from_us = time(opt.from, "--from"), to_us = time(opt.to, "--to"), last = opt.last,
    source = opt.synthetic and "synthetic" or "real"}

session.run("neap export", opt, function(here)
    local out = io.stdout
    if opt.out then
        local file, why = io.open(opt.out, "w")
        if not file then error("cannot write " .. why, 0) end
        out = file
    end
    local names = opt.sensor and #opt.sensor > 0 and opt.sensor or here.store:sensors()
    local write, count = exporter.writer(opt.format, #names == 1, function(text) assert(out:write(text)) end), 0
    for _, name in ipairs(names) do
        local times, values = here.store:history(name, query)
        for i = 1, #times do write(name, times[i], values[i]) end
        count = count + #times
    end
    if opt.out then
        out:close()
        print(("%d readings of %d sensor%s written to %s"):format(count, #names, #names == 1 and "" or "s", opt.out))
    end
end)
