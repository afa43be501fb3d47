-- The embedding example, built as a user would build it: against an installed neap, through pkg-config. Also under the address and thread sanitizers
-- (`make test SANITIZER=...` has the whole host instrumented), and with allocations failing.
local helper = require "spec.helper"
local process = require "neap.process"

local function shell(command)
    local out, code = process.run {"sh", "-c", "exec 2>&1; " .. command}
    return code, out
end

describe("the embedding example", function()
    local dir, example
    local build = helper.program():match "^(.*)/[^/]*$" or "."
    local sanitizer = build:match "/(%a+)$"
    sanitizer = (sanitizer == "address" or sanitizer == "thread" or sanitizer == "undefined") and sanitizer or nil

    local function compile(name, kind)
        local flags = kind and ("-fsanitize=%s -fno-omit-frame-pointer"):format(kind) or ""
        local code, out = shell(([[export PKG_CONFIG_PATH=%s/lib/pkgconfig; "${CC:-cc}" -g -Wall -Wextra -Werror -Wno-unused-parameter %s \
            %s/score.c $(pkg-config --cflags --libs neap) -lm -lpthread -o %s/%s]]):format(dir, flags, example, dir, name))
        assert.equal(0, code, out)
        return function(arguments)
            return shell(("export LD_LIBRARY_PATH=%s/lib; setarch -R %s/%s %s/judge.lua %s"):format(dir, dir, name, example, arguments or ""))
        end
    end

    setup(function()
        dir = helper.dir()
        local root = neap.root ~= "" and neap.root or "."
        example = root .. "/scripts/examples/embed"
        local code, out = shell(("unset MAKEFLAGS MAKELEVEL; make -s -C %s -o build install BUILD=%s PREFIX=%s %s"):format(root, build, dir,
            sanitizer and "SANITIZER=" .. sanitizer or ""))
        assert.equal(0, code, out)
    end)
    teardown(function() helper.remove(dir) end)

    local function judges_right(run)
        local code, out = run()
        assert.equal(0, code, out)
        assert.is_truthy(out:find("^reading 460: %d+%.%d+ is unusual, expected about %d+%.%d"), out) -- the fault
        assert.is_falsy(out:find("reading 530", 1, true), out) -- the glitch, which the instrument's thread did not confirm
        assert.is_truthy(out:find("200 readings judged, 1 flagged, 0 failed", 1, true), out)
    end

    local function survives(run, step)
        local code, out = run("--exhaust " .. step)
        assert.equal(0, code, out)
        local lives, errors = out:match "(%d+) lives, (%d+) ended with an error, nothing left behind"
        assert.is_truthy(lives, out)
        assert.is_true(tonumber(errors) > 5 and tonumber(errors) < tonumber(lives), out)
    end

    it("scores readings of its own, with three threads, against an installed neap", function()
        judges_right(compile("score", sanitizer))
    end)

    it("returns an error code and leaks nothing, whichever allocation fails", function()
        survives(compile("score", sanitizer), sanitizer and 200 or 7)
    end)

    for _, kind in ipairs {"address", "thread"} do
        if not sanitizer then
            it("is clean under the " .. kind .. " sanitizer", function()
                local run = compile("score_" .. kind, kind)
                judges_right(run)
                survives(run, 400)
            end)
        end
    end
end)
