-- neap score: readings from a CSV file, scored strictly online into another one.
local args = require "neap.args"
local score_csv = require "neap.score_csv"

local opt = args.parse {
    name = "neap score",
    summary = "Score a series of readings: for each one the forecast made before it, how often the series was that odd before (p), and\n"
        .. "an anomaly score from 0 to 1; 0.5 and above means flagged. Nothing is trained before, and no row looks ahead.",
    options = {
        {"--csv", value = "IN.csv", help = "the readings: columns timestamp,value; - reads standard input"},
        {"--out", value = "OUT.csv", default = "-", help = "the verdicts: timestamp,value,forecast,p,anomaly_score; - prints them"},
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

if not opt.csv then fail("say which readings: --csv FILE (a running server's verdicts are at /api/sensors/NAME/status)") end

local detector = require "neap.detector"
local function print_flagged(verdict, time_text)
    if not verdict.flagged then return end
    io.stderr:write(("%s  %.6g, expected %s  score %.2f  p %.2g  %s\n"):format(time_text, verdict.value,
        verdict.forecast and ("%.6g"):format(verdict.forecast) or "?", verdict.score, verdict.p, detector.reasons[verdict.why]))
end

local ok, sum = pcall(score_csv.run, opt.csv, opt.out, {
    seed = opt.seed, time = opt.time, value = opt.value, on_row = opt.flagged and print_flagged or nil,
})
if not ok then fail(tostring(sum)) end
for _, text in ipairs(sum.problems) do io.stderr:write("neap score: ", text, "\n") end
if opt.out ~= "-" then
    local text = "%d readings, %d flagged, %d missing, %.1f s -> %s\n"
    io.stderr:write(text:format(sum.rows, sum.flagged, sum.missing, sum.seconds, opt.out))
end
