local task = require "neap.task"

describe("a task", function()
    it("runs after its spawner waits, and gives its results to join", function()
        local order = {}
        local t = task.spawn(function(a, b)
            order[#order + 1] = "task"
            return a + b, nil, "x"
        end, 1, 2)
        order[#order + 1] = "spawner"
        local sum, hole, x = t:join()
        assert.same({"spawner", "task"}, order)
        assert.same({3, "x"}, {sum, x})
        assert.is_nil(hole)
    end)

    it("raises its error in whoever joins, as often as they join", function()
        local t = task.spawn(function() error({kind = "mine"}) end):quiet()
        for _ = 1, 2 do
            local ok, e = pcall(t.join, t)
            assert.is_false(ok)
            assert.equal("mine", e.kind)
        end
        assert.matches("in function 'error'", t:info().traceback)
    end)

    it("waits inside pcall, metamethods, iterators and the user's own coroutines", function()
        local function wait(v)
            task.sleep(0)
            return v
        end
        local obj = setmetatable({}, {__index = function(_, k) return wait(k) end, __add = function() return wait(7) end,
            __lt = function() return wait(true) end, __concat = function() return wait("cat") end, __call = function() return wait("called") end})
        assert.equal("k", obj.k)
        assert.equal(7, obj + 1)
        assert.is_true(obj < obj)
        assert.equal("cat", obj .. "x")
        assert.equal("called", obj())
        local ok, v = pcall(wait, 5)
        assert.same({true, 5}, {ok, v})
        local function numbers(n) return coroutine.wrap(function() for i = 1, n do coroutine.yield(wait(i)) end end) end
        local outer = coroutine.wrap(function() for i in numbers(3) do coroutine.yield(wait(i * 10)) end end)
        assert.same({10, 20, 30}, {outer(), outer(), outer()})
    end)

    it("names the C function where Lua cannot yield", function()
        for name, fn in pairs {
            ["table.sort"] = function() table.sort({2, 1}, function(a, b) task.sleep(0) return a < b end) end,
            ["string.gsub"] = function() return (("x"):gsub("x", function() task.sleep(0) end)) end,
            tostring = function() return tostring(setmetatable({}, {__tostring = function() task.sleep(0) return "" end})) end,
        } do
            local ok, e = task.spawn(fn):quiet():wait() -- a task, also under plain busted: on the main thread the loop would turn instead
            assert.is_false(ok)
            assert.matches("task.sleep cannot wait here.*'" .. name .. "'", e)
        end
        -- a generator inside gsub is yieldable itself, but its resumer is not
        local gen = coroutine.wrap(function() while true do task.sleep(0) coroutine.yield("y") end end)
        local ok, e = task.spawn(string.gsub, "x", "x", function() return gen() end):quiet():wait()
        assert.is_false(ok)
        assert.matches("'string.gsub'", e)
    end)

    it("shows a coroutine in a wait as normal, refuses to resume it, and lets close detach it", function()
        local co
        local t = task.spawn(function()
            co = coroutine.create(function() task.sleep(30) end)
            return coroutine.resume(co)
        end)
        task.yield()
        assert.equal("normal", coroutine.status(co))
        assert.same({false, "cannot resume non-suspended coroutine"}, {coroutine.resume(co)})
        assert.is_true(coroutine.close(co))
        assert.same({false, "cannot resume dead coroutine"}, {t:join()})
    end)

    it("cannot yield to nobody", function()
        local t = task.spawn(function()
            assert.is_false(coroutine.isyieldable())
            coroutine.yield(1)
        end):quiet()
        local ok, e = pcall(t.join, t)
        assert.is_false(ok)
        assert.matches("outside a coroutine", e)
    end)

    it("closes its <close> variables when cancelled, and they may wait", function()
        local log = {}
        local t = task.spawn(function()
            local guard <close> = setmetatable({}, {__close = function() task.sleep(0.001) log[#log + 1] = "closed" end}) -- luacheck: ignore 211
            local ok, e = pcall(task.sleep, 30)
            log[#log + 1] = tostring(ok) .. " " .. e.kind
            error(e, 0)
        end):quiet()
        task.yield()
        t:cancel("enough")
        local ok, e = t:wait()
        assert.is_false(ok)
        assert.same({"cancelled", "enough"}, {e.kind, e.message})
        assert.same({"false cancelled", "closed"}, log)
        assert.equal("cancelled", t:info().status)
    end)

    it("that was never started can be cancelled", function()
        local ran = false
        local t = task.spawn(function() ran = true end):quiet()
        t:cancel()
        assert.is_false((t:wait()))
        assert.is_false(ran)
    end)

    it("is shielded from cancellation where it says so", function()
        local done = false
        local t = task.spawn(function()
            task.shield(function() task.sleep(0.002) done = true end)
            task.sleep(30)
        end):quiet()
        task.yield()
        t:cancel()
        t:wait()
        assert.is_true(done)
    end)
end)

describe("task.group", function()
    it("waits for its tasks and cancels the rest at the first error", function()
        local cancelled
        local ok, e = pcall(task.group, function(g)
            g:spawn(function()
                local _, err = pcall(task.sleep, 30)
                cancelled = err.kind
                error(err, 0)
            end)
            g:spawn(function() task.sleep(0.001) error("first", 0) end)
        end)
        assert.same({false, "first", "cancelled"}, {ok, e, cancelled})
    end)

    it("ends with all, any and map", function()
        local a, b = task.all(function() task.sleep(0.001) return "a" end, function() return "b" end)
        assert.same({"a", "b"}, {a, b})
        assert.equal("fast", task.any(function() task.sleep(30) end, function() task.sleep(0.001) return "fast" end))
        local busy, most = 0, 0
        local squares = task.map({1, 2, 3, 4, 5}, function(x)
            busy = busy + 1
            most = math.max(most, busy)
            task.sleep(0)
            busy = busy - 1
            return x * x
        end, {limit = 2})
        assert.same({1, 4, 9, 16, 25}, squares)
        assert.equal(2, most)
    end)
end)

describe("time", function()
    it("limits a function with task.timeout", function()
        local ok, e = pcall(task.timeout, 0.005, task.sleep, 30)
        assert.is_false(ok)
        assert.equal("timeout", e.kind)
        assert.equal(3, task.timeout(30, function() return 3 end))
    end)

    it("repeats with every until stopped, and after runs once", function()
        local n, once = 0, 0
        local three = task.event()
        local timer = task.every(0.001, function() n = n + 1 if n == 3 then three:set() end end, {immediate = true})
        local later = task.after(0.001, function() once = once + 1 end)
        assert.is_true((three:wait(10)))
        timer:stop()
        later.handle:wait(10)
        timer.handle:wait(10)
        assert.equal(1, once)
        local at = n
        task.sleep(0.005)
        assert.equal(at, n)
    end)
end)

describe("a channel", function()
    it("hands values over in order, with and without capacity", function()
        for _, capacity in ipairs {0, 2} do
            local ch, got = task.channel(capacity), {}
            local producer = task.spawn(function() for i = 1, 5 do ch:send(i) end ch:close() end)
            for v in ch:each() do got[#got + 1] = v end
            producer:join()
            assert.same({1, 2, 3, 4, 5}, got)
        end
    end)

    it("skips a receiver that left", function()
        local ch = task.channel()
        assert.is_nil(ch:recv(0.001))
        local t = task.spawn(function() return ch:recv() end)
        task.yield()
        assert.is_true(ch:send("x"))
        assert.equal("x", t:join())
        assert.is_false(ch:send("nobody", 0.001))
    end)

    it("that nobody can end raises a deadlock in the main chunk", function()
        local out = io.popen((arg[-1] or "build/neap") .. [[ -e 'print(pcall(require("neap.task").channel().recv, require("neap.task").channel()))' 2>&1]])
        local text = out:read "a"
        out:close()
        assert.matches("waits for ever", text)
    end)
end)

describe("a semaphore", function()
    it("lets n in at a time and gives its place back on error", function()
        local s, inside, most = task.semaphore(2), 0, 0
        task.group(function(g)
            for i = 1, 6 do
                g:spawn(function()
                    pcall(s.with, s, function()
                        inside = inside + 1
                        most = math.max(most, inside)
                        task.sleep(0)
                        inside = inside - 1
                        if i % 2 == 0 then error "x" end
                    end)
                end)
            end
        end)
        assert.same({2, 2}, {most, s.free})
    end)
end)
