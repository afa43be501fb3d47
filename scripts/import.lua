-- neap import: readings from a CSV file, or from the lists of a starter kit, into neap's history.
local args = require "neap.args"
local csv = require "neap.csv"
local importer = require "neap.importer"
local redis = require "neap.redis"
local session = require "neap.session"
local store = require "neap.store"

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
        {"--kit", type = "flag", help = "read the starter kit's lists sensor_logs:* instead of a file"},
        {"--from", value = "URL", help = "with --kit: the kit's Redis, such as redis://host:6379/0 (default: the kit's own REDIS_HOST, REDIS_PORT,\n"
            .. "REDIS_DB, REDIS_PASSWORD; else the Redis that neap uses); what is read goes where --data or --redis say"},
        {"--namespace", default = "sensor_logs", help = "where the kit's lists are"},
    },
    example = "neap import machine.csv --sensor machine\nneap import --kit --from redis://localhost:6379/0 --data neap-data",
}
if not opt.file and not opt.kit then
    args.refuse("neap import", "name a CSV file, or give --kit to read a starter kit's lists")
elseif opt.file and opt.kit then
    args.refuse("neap import", "--kit reads lists, not a file; name the kit's Redis with --from redis://host:6379/0")
elseif opt.from and not opt.kit then
    args.refuse("neap import", "--from names a starter kit's Redis and goes with --kit")
end

local MOST_SHOWN <const> = 10

local function without_password(url) return (url:gsub("//[^/]*@", "//")) end

-- The store that holds the kit's lists, and its address. Without --from it is the Redis of the kit's variables, which is also where neap itself
-- works unless --data or --redis say otherwise.
local function kit_store(here)
    local url = opt.from or not opt.redis and redis.environment_url() or nil
    if not url or url == here.url then return here.store, here.url or "the Redis of " .. here.data end
    return store.new(redis.connect(url)), url
end

session.run("neap import", opt, function(here)
    local problems = 0
    local function problem(text)
        problems = problems + 1
        if problems <= MOST_SHOWN then io.stderr:write("  ", text, "\n") end
    end
    local each
    if opt.kit then
        local source, url = kit_store(here)
        io.stderr:write(("reading %s:* from %s, writing to %s\n"):format(opt.namespace, without_password(url),
            here.url and without_password(here.url) or "the Redis of " .. here.data))
        each = importer.kit(source, opt.namespace, problem)
    else
        local readings = csv.readings(opt.file, {sensor = opt.sensor, time = opt.time, value = opt.value, name = opt.name})
        each = importer.checked(readings, problem)
    end
    local count, names = importer.run(here.store, each)
    if problems > MOST_SHOWN then io.stderr:write(("  ... and %d more\n"):format(problems - MOST_SHOWN)) end
    print(("%d readings of %d sensor%s imported%s"):format(count, #names, #names == 1 and "" or "s",
        problems > 0 and (", %d refused"):format(problems) or ""))
    if opt.kit and count == 0 and problems == 0 then
        io.stderr:write(("neap import: that Redis holds no lists %s:*; name the kit's with --from redis://host:6379/0\n"):format(opt.namespace))
        os.exit(1, true)
    end
    for _, name in ipairs(names) do print("  " .. name) end
end)
