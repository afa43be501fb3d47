-- neap score: readings scored strictly online, from a CSV file into another one, or a sensor's history.
local args = require "neap.args"
local score_csv = require "neap.score_csv"
local session = require "neap.session"

local opt = args.parse {
    name = "neap score",
    summary = "Score a series of readings: for each one the forecast made before it, how often the series was that odd before (p), and\n"
        .. "an anomaly score from 0 to 1; 0.5 and above means flagged. No row looks ahead.\n"
        .. "With a sensor's name its history in Redis is scored, with its model, and shown.",
    positional = {{"sensor", optional = true, help = "a sensor whose history is to be scored"}},
    options = session.options {
        {"--csv", value = "IN.csv", help = "the readings: columns timestamp,value; - reads standard input"},
        {"--out", value = "OUT.csv", help = "the verdicts: timestamp,value,forecast,p,anomaly_score; with --csv, - prints them"},
        {"--checkpoint", value = "PATH", help = "the forecasts and p of this model of `neap train` instead of a detector that learns as it goes"},
        {"--last", type = "integer", min = 1, help = "with a sensor: only the newest so many readings"},
        {"--time", value = "COLUMN", help = "name of the column of times"},
        {"--value", value = "COLUMN", help = "name of the column of values"},
        {"--seed", type = "integer", default = 1, min = 0, help = "of the learner's first weights"},
        {"--flagged", type = "flag", help = "print the flagged readings for people, each with its reason"},
    },
    example = "neap score --csv oven.csv --out oven.scored.csv",
}

local function fail(text)
    io.stderr:write("neap score: ", text, "\n")
    os.exit(2, true)
end

if opt.sensor and opt.csv then fail("give a sensor or --csv FILE, not both") end
if opt.sensor then
    return session.run("neap score", opt, function(here)
        require("neap.score_sensor").run(here, opt.sensor, {checkpoint = opt.checkpoint, last = opt.last, out = opt.out})
    end)
end
if not opt.csv then
    fail("say which readings: --csv FILE, or a sensor's name (a running server's verdicts are at /api/sensors/NAME/status)")
end
opt.out = opt.out or "-"

local detector = require "neap.detector"
local function print_flagged(verdict, time_text)
    if not verdict.flagged then return end
    io.stderr:write(("%s  %.6g, expected %s  score %.2f  p %.2g  %s\n"):format(time_text, verdict.value,
        verdict.forecast and ("%.6g"):format(verdict.forecast) or "?", verdict.score, verdict.p, detector.reasons[verdict.why] or ""))
end

local loaded, judge = true, nil
if opt.checkpoint then loaded, judge = pcall(require("neap.score_sensor").judge, opt.checkpoint, (session.specs(opt.sensors))) end
if not loaded then fail(tostring(judge)) end
local ok, sum = pcall(score_csv.run, opt.csv, opt.out, {
    judge = judge,
    seed = opt.seed, time = opt.time, value = opt.value, on_row = opt.flagged and print_flagged or nil,
})
if not ok and sum == score_csv.READER_LEFT then os.exit(141, true) end -- quietly, as tools do that SIGPIPE ends
if not ok then fail(tostring(sum)) end
for _, text in ipairs(sum.problems) do io.stderr:write("neap score: ", text, "\n") end
if opt.out ~= "-" then
    local text = "%d readings, %d flagged, %d missing, %.1f s -> %s\n"
    io.stderr:write(text:format(sum.rows, sum.flagged, sum.missing, sum.seconds, opt.out))
end
