-- neap demo: the whole main job on recorded readings. A server is started, the history is posted to it over HTTP in order of
-- time, a network is trained on it, every reading is scored strictly online, and a summary says what came of it.
local args = require "neap.args"
local demo = require "neap.demo"

local opt = args.parse {
    name = "neap demo",
    summary = "Watch neap do its whole job once, on a private Redis that is gone afterwards: recorded readings in over HTTP, a network\n"
        .. "trained on them, a machine's real incidents flagged. Takes less than a minute and changes nothing.",
    options = {
        {"--data", value = "FILE.csv", help = "readings of your own (timestamp,value, or a column per sensor)"},
        {"--labels", value = "FILE.json", help = "known incidents: {\"series\": [[from, to, \"what\"], ...]}"},
        {"--sensor", value = "NAME", help = "which column, where the file has several"},
        {"--epochs", type = "integer", min = 1, default = 40, help = "at most so many passes over the training part"},
    },
    example = "make demo DATA=machine.csv LABELS=windows.json",
}

local ok, err = pcall(demo.run, opt)
if not ok then
    local interrupted = tostring(err):find "interrupted!$"
    io.stderr:write("neap demo: ", interrupted and "interrupted" or tostring(err), "\n")
    os.exit(interrupted and 130 or 1, true)
end
