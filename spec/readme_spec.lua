-- README's tour, run as it stands there: its shell blocks in order, in an empty folder, and what it says they print.
local helper = require "spec.helper"
local process = require "neap.process"

--- The tour's steps: {commands, expected lines}.
local function tour_of(text)
    local steps, at = {}, 1
    while true do
        local from, to, commands = text:find("\n```sh tour\n(.-\n)```\n", at)
        if not from then return steps end
        local expected = text:match("^```text\n(.-\n)```\n", to + 1) or ""
        steps[#steps + 1] = {commands = commands, expected = expected}
        at = to
    end
end

--- Does a line of output fit a line of the README, in which "..." stands for anything?
local function fits(line, expected)
    local at, anchored = 1, true
    for part in (expected .. "..."):gmatch "(.-)%.%.%." do
        local from, to = line:find(part, at, true)
        if not from or anchored and part ~= "" and from ~= at then return false end
        at, anchored = to + 1, false
    end
    return expected:sub(-3) == "..." or at > #line
end

describe("README", function()
    it("matches lines with gaps, and only those", function()
        assert.is_true(fits("a 12 b", "a ... b"))
        assert.is_true(fits("xx a yy", "...a..."))
        assert.is_false(fits("xx a yy", "a..."))
        assert.is_false(fits("a b c", "a b"))
        assert.is_true(fits("a b", "a b"))
    end)

    it("has a tour that works as written", function()
        local root = neap.root ~= "" and neap.root or "."
        local steps = tour_of(assert(helper.read(root .. "/README.md"), "README.md is not here"))
        assert.is_true(#steps >= 8)

        local probe = require("neap.http").app {}:listen {port = 0}
        local port = tostring(probe:port())
        probe:close()
        local dir = helper.dir()
        local program = process.run {"readlink", "-f", helper.program()}
        local build = helper.program():match "^(.*)/[^/]*$" or "."
        local sanitizer = build:match "/(%a+)$"
        sanitizer = (sanitizer == "address" or sanitizer == "thread" or sanitizer == "undefined") and sanitizer
        local made, failed = process.run {"sh", "-c", ("unset MAKEFLAGS MAKELEVEL; make -s -C %s -o build install BUILD=%s PREFIX=%s/prefix %s")
            :format(root, build, dir, sanitizer and "SANITIZER=" .. sanitizer or "")}
        assert.equal(0, failed, made)
        local script = {
            "export PATH='" .. program:match "^(.*)/[^/]*$" .. "':$PATH NO_COLOR=1 COLUMNS=100",
            "export PKG_CONFIG_PATH=" .. dir .. "/prefix/lib/pkgconfig LD_LIBRARY_PATH=" .. dir .. "/prefix/lib",
            sanitizer and "cc() { command cc -fsanitize=" .. sanitizer .. ' "$@"; }' or "",
            "unset NEAP_DATA REDIS_URL REDIS_HOST REDIS_PORT", "cd '" .. dir .. "'",
            "trap 'kill $! 2>/dev/null || true; wait' EXIT"}
        for i, step in ipairs(steps) do
            script[#script + 1] = ("echo; echo '=== step %d'"):format(i)
            script[#script + 1] = step.commands:gsub("%f[%d]5000%f[%D]", port)
        end
        helper.write(dir .. "/tour.sh", "set -e\n" .. table.concat(script, "\n"))
        local said, code = process.run {"sh", dir .. "/tour.sh"}
        helper.remove(dir)
        assert.equal(0, code, said)

        for i, step in ipairs(steps) do
            local part = said:match(("\n=== step %d\n(.-)\n=== step"):format(i)) or said:match(("\n=== step %d\n(.*)$"):format(i))
            for expected in step.expected:gsub("%f[%d]5000%f[%D]", port):gmatch "[^\n]+" do
                local found = false
                for line in (part .. "\n"):gmatch "(.-)\n" do
                    -- An answer without a newline is followed by the next one on the same line.
                    found = found or fits(line, "..." .. expected .. "...")
                end
                assert.is_true(found, ("step %d does not print '%s':\n%s"):format(i, expected, part))
            end
        end
    end)
end)
