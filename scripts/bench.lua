--- neap bench NAME [--json]: measure neap beside its peers, side by side in one run.
local function names()
    local list = {}
    for _, file in ipairs(neap.assets "lua/neap/bench/") do
        local name = file:match "^lua/neap/bench/([%w_]+)%.lua$"
        if name then list[#list + 1] = name end
    end
    return list
end

local args = require "neap.args"
if arg[1] == "--list" then
    print(table.concat(names(), "\n"))
    return
end
local list, table_of = {}, {}
for _, name in ipairs(names()) do
    table_of[name] = require("neap.bench." .. name)
    list[#list + 1] = ("  %-8s %s"):format(name, table_of[name].summary)
end

local opts = args.parse {
    name = "neap bench",
    summary = "Measures neap beside its peers. Ratios and medians of one run; name the machine when you quote them.\n\nBenches:\n" .. table.concat(list, "\n"),
    positional = {{"name", help = "which bench", choices = names()}},
    options = {
        {"--json", type = "flag", help = "print one JSON object instead of text"},
        {"--seconds", type = "number", help = "length of a round"},
        {"--rounds", type = "integer", help = "rounds, of which the median counts"},
        {"--device", choices = {"cpu", "cuda"}, default = "cpu", help = "train, fleet, score, matmul: on the GPU, beside PyTorch on the GPU"},
        {"--python", help = "with --device cuda: the python3 that has PyTorch"},
        {"--models", type = "integer", help = "with --device cuda: models of the fleet"},
        {"--windows", type = "integer", help = "with --device cuda: windows of each"},
    },
}
local function fail(why)
    io.stderr:write(tostring(why), "\n")
    os.exit(1, true)
end
local function say(text) if not opts.json then print(text) end end
local run = table_of[opts.name].run
if opts.device == "cuda" then
    run = require("neap.bench_cuda")[opts.name]
    if not run then fail("neap bench " .. opts.name .. " has nothing to do on a GPU; there are train, fleet, score, matmul") end
end
local ok, result = xpcall(run, function(err) return type(err) == "string" and opts.device == "cuda" and err or debug.traceback(err, 2) end, opts, say)
if not ok then fail(result) end
if opts.json then print(require("neap.json").encode(result, {sort = true})) end
