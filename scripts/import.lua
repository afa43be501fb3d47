-- neap import: readings from a CSV file, or from the lists of a starter kit, into neap's history.
local args = require "neap.args"
local csv = require "neap.csv"
local importer = require "neap.importer"
local session = require "neap.session"

local opt = args.parse {
    name = "neap import",
    summary = "Read a CSV file (timestamp,value; timestamp,sensor,value; or a column per sensor) into the history.\n"
        .. "Importing the same file twice changes nothing: readings with equal times count once.",
    positional = {{"file", optional = true, help = "the CSV file"}},
    options = session.options {
        {"--sensor", value = "NAME", help = "the sensor's name, for a file of one sensor; its file name if not given"},
        {"--time", value = "COLUMN", help = "the column of times"},
        {"--value", value = "COLUMN", help = "the column of values"},
        {"--name", value = "COLUMN", help = "the column of sensors' names"},
        {"--kit", type = "flag", help = "read the starter kit's lists sensor_logs:* from this Redis instead of a file"},
        {"--namespace", default = "sensor_logs", help = "where the kit's lists are"},
    },
    example = "neap import machine.csv --sensor machine",
}
if not opt.file and not opt.kit then
    io.stderr:write("neap import: name a CSV file, or give --kit to read a starter kit's lists\n")
    os.exit(2, true)
elseif opt.file and opt.kit then
    io.stderr:write("neap import: --kit reads lists, not a file; name the kit's Redis with --redis redis://host:6379/0\n")
    os.exit(2, true)
end

local MOST_SHOWN <const> = 10

session.run("neap import", opt, function(here)
    local problems = 0
    local function problem(text)
        problems = problems + 1
        if problems <= MOST_SHOWN then io.stderr:write("  ", text, "\n") end
    end
    local each
    if opt.kit then
        each = importer.kit(here.store, opt.namespace, problem)
    else
        local readings = csv.readings(opt.file, {sensor = opt.sensor, time = opt.time, value = opt.value, name = opt.name})
        each = importer.checked(readings, problem)
    end
    local count, names = importer.run(here.store, each)
    if problems > MOST_SHOWN then io.stderr:write(("  ... and %d more\n"):format(problems - MOST_SHOWN)) end
    print(("%d readings of %d sensor%s imported%s"):format(count, #names, #names == 1 and "" or "s",
        problems > 0 and (", %d refused"):format(problems) or ""))
    if opt.kit and count == 0 and problems == 0 then
        io.stderr:write(("neap import: this Redis holds no lists %s:*; name the kit's with --redis redis://host:6379/0\n"):format(opt.namespace))
        os.exit(1, true)
    end
    for _, name in ipairs(names) do print("  " .. name) end
end)
