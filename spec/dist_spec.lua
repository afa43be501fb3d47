-- `make dist`: what it packs runs where nothing but libc is installed, proved in a root directory that holds libc and nothing else.
local helper = require "spec.helper"
local process = require "neap.process"

local BUILD = helper.program():match "^(.*)/[^/]*$" or "."
local LIBC = {"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libresolv.so.2"}

local function shell(command)
    local out, code = process.run {"sh", "-c", "exec 2>&1; " .. command}
    return code, out
end

local function why_not()
    if BUILD:find "/address$" or BUILD:find "/thread$" or BUILD:find "/undefined$" then return "a sanitized build is not for others" end
    if shell "unshare --mount --pid --fork true" ~= 0 and shell "unshare -Urmpf true" ~= 0 then return "no namespaces may be made here" end
end

describe("make dist", function()
    local missing = why_not()
    if missing then return pending("runs on nothing but libc (" .. missing .. ")", function() end) end

    it("packs a neap that runs on nothing but libc, with a Redis of its own", function()
        local root = helper.dir()
        local guard <close> = setmetatable({}, {__close = function() helper.remove(root) end}) -- luacheck: ignore 211
        local source = neap.root ~= "" and neap.root or "."
        local code, out = shell(("unset MAKEFLAGS MAKELEVEL; make -s -C %s -o %s/neap -o build dist BUILD=%s"):format(source, BUILD, BUILD))
        assert.equal(0, code, out)
        local tarball = out:match "dist: (%S+%.tar%.gz)"
        code, out = shell(([[set -e; cd %s; mkdir opt tmp proc dev lib64; tar xzf %s/%s --strip-components=1 -C opt
            interpreter=$(ldd opt/bin/neap | sed -n 's/^\t\(\/lib[^ ]*ld-linux[^ ]*\).*/\1/p'); cp -L $interpreter lib64/
            for l in %s; do from=$(ldconfig -p | sed -n "s/.*$l (libc6,x86-64.*=> //p" | head -1); mkdir -p .$(dirname $from); cp -L $from .$from; done
            : > dev/null; touch dev/urandom]]):format(root, source == "." and process.run {"sh", "-c", "pwd"}:gsub("%s+$", "") or source, tarball,
            table.concat(LIBC, " ")))
        assert.equal(0, code, out)

        local script = [[
            local redis, tensor, mlp, http = require "neap.redis", require "neap.tensor", require "neap.mlp", require "neap.http"
            local r <close> = redis.private {dir = "/tmp/data"}
            print("redis", r:ping())
            print("model", mlp {input = 4, hidden = {4}, seed = 1}:predict(tensor.ones(1, 4)):numel())
            local app = http.app()
            app:get("/", function() return "hello" end)
            local server = app:listen {port = 0}
            print("http", http.get("http://127.0.0.1:" .. server:port() .. "/").body)
            server:close()
        ]]
        helper.write(root .. "/tmp/try.lua", script)
        local inside = ("--mount-proc=%s/proc chroot %s /opt/bin/neap /tmp/try.lua"):format(root, root)
        code, out = shell(("(unshare --mount --pid --fork true 2>/dev/null && exec unshare --mount --pid --fork %s) || exec unshare -Urmpf %s")
            :format(inside, inside))
        assert.equal(0, code, out)
        assert.matches("redis\tPONG", out)
        assert.matches("model\t1", out)
        assert.matches("http\thello", out)
    end)

    it("says so where no redis-server may be carried along", function()
        local dir = helper.dir()
        local guard <close> = setmetatable({}, {__close = function() helper.remove(dir) end}) -- luacheck: ignore 211
        helper.write(dir .. "/redis-server", "#!/bin/sh\necho 'Redis server v=8.0.1 sha=0'\n")
        shell(("chmod +x %s/redis-server; mkdir -p %s/build/dist; cp %s/neap %s/build/; cp %s/neap %s/build/dist/"):format(dir, dir, BUILD, dir, BUILD, dir))
        local code, out = shell(("PATH=%s:$PATH sh scripts/dist.sh %s/build 0"):format(dir, dir))
        assert.equal(0, code, out)
        assert.matches("redis%-server 8%.0 is not under the BSD licence: left out", out)
    end)
end)
