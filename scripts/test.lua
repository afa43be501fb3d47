--- neap test [busted options] [file or directory ...]: runs busted specs in the host. Each spec is a task, so it may wait for Redis,
-- HTTP, sleep.
local task = require "neap.task"

local function has_option(names)
    for _, a in ipairs(arg) do
        for _, name in ipairs(names) do
            if a == name or a:sub(1, #name + 1) == name .. "=" then return true end
        end
    end
    return false
end

if has_option {"--help", "-h"} then
    print("usage: neap test [options] [file or directory ...]   (default: spec/)\n\n" ..
        "Runs busted specs inside neap, each as a task. Options are busted's, for instance:\n" ..
        "  --filter=PATTERN   only specs whose title matches\n  -v                 tracebacks\n  -o gtest           another way to print\n" ..
        "  -k, --no-keep-going  stop at the first error")
    os.exit(0)
end

local ok, runner = pcall(require, "busted.runner")
if not ok then
    io.stderr:write("neap test: busted is not installed. On Debian: apt-get install lua-busted\n")
    os.exit(2)
end
if not has_option {"-o", "--output"} then table.insert(arg, 1, "--output=neap.test_output") end
table.insert(arg, 1, "--ignore-lua") -- the `lua = "neap"` of a project's .busted is for plain busted: here neap runs already
package.path = "./?.lua;" .. package.path -- spec/helper.lua is require "spec.helper"

-- The runner ends the process with os.exit, the number of failures as its code; here that is caught, so that the host closes in good order.
local exit, code = os.exit, nil
os.exit = function(c) -- luacheck: ignore 122
    code = c == true and 0 or c == false and 1 or c or 0
    error("busted has ended", 0)
end
local run = task.spawn(function() runner {standalone = false} end):quiet()
local ended, err = run:wait()
os.exit = exit -- luacheck: ignore 122
if not ended and not code then error(err, 0) end
local left = {}
for _, h in ipairs(task.list()) do
    if h ~= run then left[#left + 1] = tostring(h) .. " spawned at " .. (h:info().spawned_at or "?") end
end
if #left > 0 then
    io.write("specs left tasks behind:\n  ", table.concat(left, "\n  "), "\n")
    code = 1
end
exit(math.min(code or 0, 100), true)
