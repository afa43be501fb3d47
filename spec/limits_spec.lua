local task = require "neap.task"

-- Made before any limit is set: it takes a while.
local many, deep = {}, {}
for i = 1, 1100000 do many[i] = i * 7919 % 1000003 end
for i = 1, 3000 do deep[i] = {} end
for i = 1, 3000 do for k = 1, 30 do deep[i][k] = deep[i % 3000 + 1][1] or 1 end end
local BODY <const> = "[" .. ("[1,2,3],"):rep(3000000) .. "0]"
local SUM <const> = "return (" .. ("1 + "):rep(3000000) .. "1)"

describe("a task that runs too long without waiting", function()
    before_each(function() task.limits {warn = 0.02, stop = 0.06} end)
    after_each(function() task.limits {warn = 0} end)

    local function run(fn)
        local ok, e = task.spawn(fn):quiet():wait(30)
        return ok, e
    end

    it("is stopped, whatever it loops in", function()
        local cases = {
            plain = function() while true do end end,
            pcall = function() while true do pcall(function() while true do end end) end end,
            coroutine = function()
                local co = coroutine.wrap(function() while true do coroutine.yield() end end)
                while true do co() end
            end,
            inner = function() coroutine.wrap(function() while true do pcall(function() while true do end end) end end)() end,
            unhooked = function() while true do debug.sethook() end end,
            caught = function()
                local ok, e = pcall(function() while true do end end)
                assert(not ok and e)
                while true do task.sleep(0) end -- cancelled at its next wait
            end,
        }
        for name, fn in pairs(cases) do
            local ok, e = run(fn)
            assert.is_false(ok, name)
            assert.is_truthy(e.kind == "overrun" or e.kind == "cancelled", name .. ": " .. tostring(e))
        end
    end)

    it("is stopped inside of long library calls too", function()
        local text, slow = ("a"):rep(40), ("a-"):rep(40) .. "b"
        local cases = {
            find = function() return text:find(slow) end,
            match = function() return text:match("(" .. ("a*"):rep(40) .. ")b") end,
            gmatch = function() for _ in text:gmatch(slow) do end end,
            gsub = function() return text:gsub(slow, "") end,
            nested = function() while true do pcall(pcall, string.find, text, slow) end end,
            coroutine = function() coroutine.wrap(function() pcall(string.find, text, slow) end)() end,
            from_string = function() return load(SUM) end,
            move = function() return table.move({}, 1, 1 << 60, 2) end,
            move_back = function() return table.move({}, 1, 1 << 60, 1 << 20) end,
            sort = function() while true do pcall(table.sort, many) many[1] = many[1000000] end end,
            decode = function()
                local json = require "neap.json"
                while true do pcall(json.decode, BODY) end
            end,
            encode = function()
                local json = require "neap.json"
                while true do pcall(json.encode, deep) end
            end,
        }
        for name, fn in pairs(cases) do
            local ok, e = run(function()
                fn()
                task.sleep(0)
            end)
            assert.is_false(ok, name)
            assert.is_truthy(type(e) == "table" and (e.kind == "overrun" or e.kind == "cancelled"), name .. ": " .. tostring(e))
        end
    end)

    it("does not take a neighbour with it, and its threads are as new afterwards", function()
        local ticks = 0
        local timer = task.every(0.001, function() ticks = ticks + 1 end)
        run(function() while true do end end)
        local before = ticks
        assert.equal(3, task.spawn(function()
            local n = 0
            for i = 1, 3 do
                task.sleep(0.002)
                n = n + (i > 0 and 1 or 0)
            end
            return n
        end):join())
        assert.is_true(ticks > before)
        timer:stop()
        timer.handle:wait()
        assert.is_true(select(2, task.usage()) > 0)
    end)
end)

describe("a memory limit", function()
    it("ends the task that exceeds it and leaves the host usable", function()
        local NEAP = require("spec.where").neap
        local p = io.popen(NEAP .. [[ -e '
            local task = require "neap.task"
            task.limits {warn = 0, memory = 20e6}
            local ok, e = task.spawn(function() local t = {} for i = 1, 1e9 do t[i] = {i} end end):quiet():wait()
            collectgarbage()
            print(ok, e, task.spawn(function() return #("x"):rep(1e6) end):join())' 2>&1]])
        assert.equal("false\tnot enough memory\t1000000\n", p:read "a")
        p:close()
    end)
end)
