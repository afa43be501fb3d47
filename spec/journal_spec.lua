local decode = require "neap.decode"
local helper = require "spec.helper"
local journal = require "neap.journal"
local process = require "neap.process"
local redis = require "neap.redis"
local server = require "spec.redis_server"
local store = require "neap.store"
local task = require "neap.task"

describe("the journal", function()
    local dir, s, j

    before_each(function()
        dir = helper.dir()
        s = server.start {args = {"--appendonly", "yes", "--appendfsync", "everysec"}}
        j = journal.open {dir = dir .. "/journal"}
    end)

    after_each(function()
        journal.close(j)
        s:stop()
        helper.remove(dir)
    end)

    local function apply(more)
        local opts = {redis = s.url, keys = store.journal_keys(), timeout = 0.5}
        for k, v in pairs(more or {}) do opts[k] = v end
        journal.apply(j, opts)
        helper.eventually(function() return j:stats().state == "running" end)
    end

    --- What is in the stream, as it is: times and values in order of arrival.
    local function history(sensor, what)
        local r <close> = redis.connect(s.url)
        local times, values = {}, {}
        for _, entry in ipairs(r:raw("XRANGE", ("neap:{%s}:%s"):format(sensor, what or "readings"), "-", "+")) do
            for i = 1, #entry[2], 2 do decode.unpack(entry[2][i], entry[2][i + 1], times, values) end
        end
        return times, values
    end

    it("keeps a batch on disk and brings it to Redis, where a client reads its own write", function()
        apply()
        local batch = decode.json '[{"sensor_name":"t","sensor_output":21.5,"ts":1700000000},{"sensor_name":"t","sensor_output":22}]'
        local position, applied = j:append(batch, {visible = 5})
        assert.is_true(applied)
        assert.is_true(position > 0)
        local times, values = history "t"
        assert.equal(1700000000000000, times[1])
        assert.same({21.5, 22}, values)
        assert.is_true(times[2] > times[1])
        local r <close> = redis.connect(s.url)
        assert.same({"t"}, r:smembers "neap:sensors")
        local stats = j:stats()
        assert.equal(2, stats.readings)
        assert.equal(0, stats.behind)
        local other <close> = journal.open {dir = dir .. "/journal"} -- where it is not applied as much is known
        assert.equal(0, other:stats().behind)
        assert.equal("everysec", stats.durability)
        assert.same({}, journal.degraded(j))
        local metric = require "neap.metric"
        helper.eventually(function() return (tonumber(metric.text():match "\nneap_journal_applied_readings_total (%d+)") or 0) >= 2 end)
        assert.matches("\nneap_journal_behind_bytes 0\n", metric.text())
    end)

    it("takes Lua's own pairs, and made-up readings apart", function()
        apply()
        j:append_pairs({"b", "a"}, {a = {1, 1.5, 2, 3}, b = {7, -1}}, {visible = 5})
        j:append_pairs({"a"}, {a = {9, 9}}, {visible = 5, source = "synthetic"})
        j:append_pairs({"a"}, {a = {8, 8}}, {visible = 5, source = "quarantine"})
        assert.has_error(function() j:append_pairs({"a"}, {a = {8, 8}}, {source = "real?"}) end)
        local times, values = history "a"
        assert.same({1, 2}, times)
        assert.same({1.5, 3}, values)
        assert.same({{9}, {9}}, {history("a", "synthetic")})
        assert.same({{8}, {8}}, {history("a", "quarantine")})
        assert.is_nil(j:append_pairs({}, {}))
        for _, bad in ipairs {{1.5, 1}, {1, 0 / 0}, {1, "x"}} do
            assert.is_false(pcall(j.append_pairs, j, {"a"}, {a = bad}))
        end
        assert.is_false(pcall(j.append_pairs, j, {"a"}, {}))
    end)

    it("gives readings without a time unique, increasing ones", function()
        local seen, last = {}, 0
        task.map({1, 2, 3, 4}, function()
            for _ = 1, 50 do
                local us = j:stamp(3)
                for k = us, us + 2 do
                    assert.is_nil(seen[k])
                    seen[k] = true
                end
                assert.is_true(us > last)
                last = us + 2
                task.yield()
            end
        end)
    end)

    it("counts a retried batch once", function()
        apply()
        for _ = 1, 3 do j:append(decode.json '[{"sensor_name":"t","sensor_output":1}]', {key = "abc", visible = 5}) end
        local times = history "t"
        assert.equal(1, #times)
        assert.equal(2, j:stats().duplicates)
    end)

    it("answers from the disk while Redis is away, and applies all of it in order afterwards", function()
        apply()
        s:kill "STOP"
        local _, applied = j:append_pairs({"t"}, {t = {1, 1}}, {visible = 0.05})
        assert.is_false(applied)
        helper.eventually(function() return j:stats().state == "away" end)
        assert.matches("Redis has not taken", journal.degraded(j)[1])
        for i = 2, 20 do j:append_pairs({"t"}, {t = {i, i}}, {visible = 5}) end -- known to be away: does not wait
        s:kill "CONT"
        helper.eventually(function() return j:stats().behind == 0 and j:stats().state == "running" end)
        s:kill()
        for i = 21, 30 do j:append_pairs({"t"}, {t = {i, i}}) end
        local other <close> = journal.open {dir = dir .. "/journal"}
        assert.is_true(other:stats().behind > 0)
        s:start_again()
        local position = j:append_pairs({"t"}, {t = {31, 31}})
        helper.eventually(function() return select(2, j:wait(position, 1)) end)
        local times = history "t"
        local want = {}
        for i = 1, 31 do want[i] = i end
        assert.same(want, times)
    end)

    it("keeps a reading in less than 33 bytes of a stream alone, in less than 20 within a batch", function()
        apply()
        local r <close> = redis.connect(s.url)
        r:call("CONFIG", "SET", "rdbcompression", "no")
        local function bytes(sensor, n) -- what Redis keeps of each, without what the system's memory management adds
            assert.equal(n, #history(sensor))
            return #r:call("DUMP", ("neap:{%s}:readings"):format(sensor)) / n
        end
        local function reading(i) return 1700000000000000 + i * 1000123, 21 + i % 40 / 10 end
        for i = 1, 400 do j:append_pairs({"alone"}, {alone = {reading(i)}}, {visible = 5}) end
        for i = 1, 20 do
            local batch = {}
            for k = 1, 100 do batch[2 * k - 1], batch[2 * k] = reading(100 * i + k) end
            j:append_pairs({"together"}, {together = batch}, {visible = 5})
        end
        local alone, together = bytes("alone", 400), bytes("together", 2000)
        assert.is_true(alone > 20 and alone < 33, alone)
        assert.is_true(together > 4 and together < 20, together)
    end)

    it("notices that Redis was put back to a state before what it has let go of", function()
        local r <close> = redis.connect(s.url)
        local function again(old)
            journal.close(j)
            j = journal.open {dir = dir .. "/journal"}
            apply()
            assert.equal(old, j:stats().old_copy)
        end
        apply()
        j:append_pairs({"t"}, {t = {1, 1}}, {visible = 5})
        local before = r:hgetall "neap:journal"
        journal.close(j) -- what waits for Redis to have it on disk stays
        j = journal.open {dir = dir .. "/journal"}
        apply()
        local done = helper.eventually(function()
            local f = io.open(dir .. "/journal/done")
            local text = f and f:read "a"
            if f then f:close() end
            return text
        end)
        again(false)
        assert.same({}, journal.degraded(j))
        local uuid = done:match "^%S+"
        assert.equal(before[uuid], r:hget("neap:journal", uuid))
        r:hset("neap:journal", uuid, 0)
        again(true)
        assert.matches("Redis was put back to an older state", journal.degraded(j)[1], 1, true)
        r:hset("neap:journal", uuid, before[uuid])
        again(false)
        r:flushall() -- that is another thing, and told once
        again(false)
        again(false)
    end)

    it("notices by itself that a crash took the end back in Redis, while nothing else comes", function()
        local r <close> = redis.connect(s.url)
        apply()
        j:append_pairs({"t"}, {t = {1, 1}}, {visible = 5})
        local before = r:hgetall "neap:journal"
        j:append_pairs({"t"}, {t = {2, 2, 3, 3}}, {visible = 5})
        r:multi(function(p)
            p:raw("XTRIM", "neap:{t}:readings", "MAXLEN", 0)
            for field, value in pairs(before) do p:hset("neap:journal", field, value) end
        end)
        helper.eventually(function() return #history "t" == 2 end)
        assert.same({2, 3}, (history "t"))
        assert.same({0, 1}, {j:stats().behind, j:stats().rewinds})
    end)

    it("is found again by the next process", function()
        for i = 1, 10 do j:append_pairs({"t"}, {t = {i, i}}) end
        journal.close(j)
        j = journal.open {dir = dir .. "/journal"}
        apply()
        j:append_pairs({"t"}, {t = {11, 11}}, {visible = 5})
        assert.equal(11, #history "t")
    end)

    it("refuses when its bound is reached, and takes again once Redis has caught up", function()
        journal.close(j)
        j = journal.open {dir = dir .. "/small", max_bytes = 20000, segment_bytes = 2000}
        local pair, n, ok, err = {}, 0
        for i = 1, 20 do pair[2 * i - 1], pair[2 * i] = i, i end
        repeat
            ok, err = pcall(j.append_pairs, j, {"t"}, {t = pair})
            n = n + 1
        until not ok or n > 1000
        assert.equal("full", err.kind)
        assert.is_true(err.retryable)
        assert.equal(1, j:stats().refused)
        apply()
        helper.eventually(function() return pcall(j.append_pairs, j, {"t"}, {t = pair}) end)
    end)

    it("refuses when the oldest reading has waited for Redis for too long, and takes again once Redis has caught up", function()
        journal.close(j)
        j = journal.open {dir = dir .. "/old", max_age = 1}
        apply()
        j:append_pairs({"t"}, {t = {1, 1}}, {visible = 5})
        assert.equal(0, j:stats().age)
        s:kill "STOP"
        j:append_pairs({"t"}, {t = {2, 2}})
        local taken, err = 1, nil
        helper.eventually(function()
            local ok
            ok, err = pcall(j.append_pairs, j, {"t"}, {t = {taken + 2, 1}})
            if ok then taken = taken + 1 end
            return not ok
        end, 10)
        assert.same({"full", true}, {err.kind, err.retryable})
        assert.same({1, 1}, {j:stats().refused, j:stats().refused_old})
        assert.is_true(j:stats().age > 1)
        s:kill "CONT"
        helper.eventually(function() return pcall(j.append_pairs, j, {"t"}, {t = {taken + 2, 1}}, {visible = 5}) end, 10)
        helper.eventually(function() return j:stats().age == 0 end)
        assert.equal(taken + 2, #history "t")
    end)

    it("need not wait for the disk; then a log that a power cut has shortened is no contradiction", function()
        for _, loose in ipairs {true, false} do
            journal.close(j)
            local at = dir .. (loose and "/loose" or "/strict")
            j = journal.open {dir = at, loose = loose}
            apply()
            for i = 1, 10 do j:append_pairs({"t"}, {t = {i, i}}, {visible = 5}) end
            assert.equal(loose, j:stats().loose)
            journal.close(j)
            process.run {"sh", "-c", ("for f in %s/*/*; do [ $(stat -c %%s $f) -gt 200 ] && truncate -s 200 $f; done; true"):format(at)}
            j = journal.open {dir = at}
            journal.apply(j, {redis = s.url, keys = store.journal_keys()})
            helper.eventually(function() return j:stats().state == "running" end)
            assert.equal(loose, j:stats().damaged_bytes == 0, "that a disk which was waited for has less than Redis is said")
        end
        j:append_pairs({"t"}, {t = {11, 11}})
    end)

    it("is joined by a session, whose store then writes through it", function()
        local r <close> = redis.connect(s.url)
        local here = {data = dir, url = s.url, redis = r, store = store.new(r)}
        journal.join(here, {apply = true})
        helper.eventually(function() return here.journal:stats().live end)
        local seen
        local told = journal.news(here.journal, function(names) seen = names end)
        local applied, position = here.store:append({order = {"t"}, pairs = {t = {1, 1}}})
        assert.is_true(applied)
        local known = decode.sensors {{name = "a"}, {name = "b"}}
        for _, name in ipairs {"t", "a", "t"} do known:touch(name) end
        told(position, known)
        helper.eventually(function() return seen end)
        table.sort(seen)
        assert.same({"a", "t"}, seen)
        assert.same({}, known:touched())
        local times = {} -- a great many names come in stretches, each name in one of them
        told = journal.news(here.journal, function(names, from, to)
            assert.is_true(to - from < 500)
            for i = from, to do times[names[i]] = (times[names[i]] or 0) + 1 end
        end)
        local many = {}
        for i = 1, 1200 do many[i] = {name = "s" .. i} end
        known = decode.sensors(many)
        for _, one in ipairs(many) do known:touch(one.name) end
        told(position, known)
        helper.eventually(function() return times.s1 and times.s600 and times.s1200 end)
        for _, one in ipairs(many) do assert.equal(1, times[one.name]) end
        journal.leave(here, 2)
        assert.is_nil(here.journal)
        assert.equal(1, #history "t")
    end)

    it("is used up once closed, and closing twice is fine", function()
        j:close()
        j:close()
        local ok, err = pcall(j.stats, j)
        assert.is_false(ok)
        assert.equal("closed", err.kind)
        assert.is_false(pcall(journal.open, {dir = dir, maxbytes = 1}))
        assert.is_false(pcall(journal.open, {dir = "/proc/nowhere"}))
    end)
end)
