-- The disk fills up under a whole server: journal and private Redis on one small tmpfs. Readings are refused with 503, nothing crashes, and
-- when there is room again readings are taken and everything that was accepted is there once. Needs the right to mount.
local helper = require "spec.helper"
local http = require "neap.http"
local process = require "neap.process"

local probe = helper.dir()
local may_mount = os.execute(("mount -t tmpfs -o size=64k none '%s' 2>/dev/null && umount '%s'"):format(probe, probe))
helper.remove(probe)

local function it_mounted(title, body)
    if may_mount then it(title, body) else pending(title .. " (this user may not mount a tmpfs)", function() end) end
end

describe("a server whose disk is full", function()
    local dir, server, url

    before_each(function()
        dir = helper.dir()
        if not may_mount then return end
        assert(os.execute(("mkdir -m 700 '%s/data' && mount -t tmpfs -o size=24m,mode=700 none '%s/data'"):format(dir, dir)))
        server, url = helper.serve(dir)
    end)
    after_each(function()
        if server then server:stop() end
        server, url = nil, nil
        os.execute(("umount -l '%s/data' 2>/dev/null"):format(dir))
        helper.remove(dir)
    end)

    --- Until nothing fits any more; said again and again, as the journal gives back what Redis has safely.
    local function fill() os.execute(("cat /dev/zero >>'%s/data/filler' 2>/dev/null"):format(dir)) end
    local function health() return http.request {url = url .. "/health", timeout = 10} end

    it_mounted("refuses readings until there is room again, and keeps every one that it accepted", function()
        local sent, accepted, refused = 0, 0, 0
        --- A batch of numbered readings, so that each can be found again.
        local function post(n)
            n = n or 100
            local items = {}
            for i = 1, n do items[i] = ('{"sensor_name":"oven","sensor_output":%d,"time":%d}'):format(sent + i, 1700000000 + sent + i) end
            sent = sent + n
            local answer = http.request {method = "POST", url = url .. "/receive", body = "[" .. table.concat(items, ",") .. "]", timeout = 10}
            if answer.status == 200 then
                accepted = accepted + n
            else
                assert.equal(503, answer.status, answer.body)
                assert.is_truthy(answer.headers["Retry-After"])
                refused = refused + n
            end
            return answer.status
        end
        local function stored()
            local answer = http.request {url = url .. "/api/sensors/oven/readings?last=100000", timeout = 10}
            return answer.status == 200 and answer:json() or {count = 0, readings = {}}
        end
        for _ = 1, 5 do assert.equal(200, post()) end
        local redis = health():json().redis.socket
        local pid = process.run({"redis-cli", "-s", redis, "INFO", "server"}):match "process_id:(%d+)"
        for round = 1, 2 do
            -- Redis is stopped while the last readings come in, so that it is the full disk that they meet when it goes on.
            os.execute("kill -STOP " .. pid)
            for _ = 1, 3 do assert.equal(200, post(2000)) end
            fill()
            os.execute("kill -CONT " .. pid)
            helper.eventually(function()
                fill()
                local said = table.concat(health():json().degraded, " ")
                return said:find "MISCONF" or said:find "cannot write its append%-only file"
            end, 20)
            helper.eventually(function()
                fill()
                return post() == 503
            end, 20)
            for _ = 1, 5 do post() end
            helper.eventually(function()
                local answer = health()
                return answer.status == 503 and answer:json().status == "fail"
            end, 10)
            assert.is_nil((server:wait(0)), "round " .. round .. ": it lives: " .. helper.read(dir .. "/log"))
            os.remove(dir .. "/data/filler")
            helper.eventually(function() return health().status == 200 end, 10) -- although nobody sends anything
            helper.eventually(function() return post() == 200 end, 10)
            helper.eventually(function() -- and Redis takes what the journal kept for it
                local answer = health()
                return answer.status == 200 and #answer:json().degraded == 0
            end, 20)
        end
        for _ = 1, 5 do assert.equal(200, post()) end
        helper.eventually(function() return stored().count == accepted end, 30)
        local seen = {}
        for _, r in ipairs(stored().readings) do
            assert.is_nil(seen[r.value])
            seen[r.value] = true
        end
        local counts = health():json().readings
        assert.same({accepted = accepted, refused = 0, unavailable = refused, unanswered = 0}, counts)
        assert.equal(sent, accepted + refused)
        server:kill "TERM"
        assert.equal(0, (server:wait(10)))
        server = nil
    end)
end)
