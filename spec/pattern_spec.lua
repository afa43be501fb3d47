-- string.find, match, gmatch and gsub are neap's own: what the manual says of them, and the corners where implementations differ. (Lua's own
-- suite, make conformance, has more.)
local function list(...) return table.pack(...) end

local function matches(text, pattern, init)
    local out = {}
    for a, b in text:gmatch(pattern, init) do out[#out + 1] = tostring(a) .. (b and "|" .. tostring(b) or "") end
    return table.concat(out, " ")
end

describe("patterns", function()
    it("find what the manual says", function()
        for _, c in ipairs {
            {"hello", "l+", 3, 4}, {"hello", "", 1, 0}, {"hello", "", 10}, {"hello", "l", -2, 4, 4, init = true}, {"a.b", ".", 2, 2, plain = true},
            {"THE (quick) fox", "%((%a+)%)", 5, 11, "quick"}, {"key = value", "^(%w+)%s*=%s*(%w+)$", 1, 11, "key", "value"},
            {"abc", "()b()", 2, 2, 2, 3}, {"THE (quick) fox", "%f[%a]%a+%f[%A]", 1, 3}, {"x(a(b)c)y", "%b()", 2, 8},
            {[[say "it's" now]], [[(["'])(.-)%1]], 5, 10, '"', "it's"}, {"a\0b", "[%z]", 2, 2}, {"a]b", "[]]", 2, 2}, {"a-b", "[a-]+", 1, 2},
            {"aaab", "a-b", 1, 4}, {"aaa", "a-$", 1, 3}, {"äö", "[\128-\255]+", 1, 4}, {"$x", "$x", 1, 2}, {"a", "a?a", 1, 1}, {"abc", "^b"},
        } do
            local want = list(table.unpack(c, 3))
            if c.init then want = list(table.unpack(c, 4)) end
            if #c == 2 or c[3] == 10 then want = list(nil) end
            assert.same(want, list(c[1]:find(c[2], c.init and c[3] or c[3] == 10 and 10 or 1, c.plain)), c[2])
        end
    end)

    it("walk through all matches, the empty ones too", function()
        assert.equal("one two three", matches("one two  three", "%a+"))
        assert.equal("a|1 b|2", matches("a=1, b=2", "(%w+)=(%w+)"))
        assert.equal("1 2 3 4", matches("abc", "()"))
        assert.equal("two", matches("one two", "%a+", 5))
        assert.equal("", matches("one", "%a+", 9))
        assert.equal("a b", matches("a,b", "%a*")) -- no empty match right behind one that was not
    end)

    it("replace by text, table and function", function()
        assert.same(list("hexlo", 1), list(("hello"):gsub("l", "x", 1)))
        assert.same(list("-a-b-", 3), list(("ab"):gsub("", "-")))
        assert.same(list("[b]=a 100%", 1), list(("a=b"):gsub("(%w)=(%w)", "[%2]=%1 100%%")))
        assert.same(list("<ab>", 1), list(("ab"):gsub(".+", "<%0>")))
        assert.same(list("home is /root, $X", 2), list(("home is $HOME, $X"):gsub("%$(%u+)", {HOME = "/root", X = false})))
        assert.same(list("4 6", 2), list(("2 3"):gsub("%d", function(d) return d * 2 end)))
        assert.same(list("12", 2), list(("ab"):gsub("()%a", "%1")))
        assert.same(list("xbab", 1), list(("abab"):gsub("^a", "x")))
        local same = "nothing"
        assert.equal(same, (same:gsub("z", "y")))
    end)

    it("say what is wrong with a pattern", function()
        for want, f in pairs {
            ["malformed pattern %(ends with '%%'%)"] = function() return ("a"):find "%" end,
            ["malformed pattern %(missing '%]'%)"] = function() return ("a"):find "[a" end,
            ["missing arguments to '%%b'"] = function() return ("a"):find "%b" end,
            ["missing '%[' after '%%f' in pattern"] = function() return ("a"):find "%f" end,
            ["unfinished capture"] = function() return ("a"):find "(a" end,
            ["invalid pattern capture"] = function() return ("a"):match "a)" end,
            ["invalid capture index %%1"] = function() return ("a"):find "%1" end,
            ["invalid capture index %%2"] = function() return ("a"):gsub("a", "%2") end,
            ["invalid use of '%%' in replacement string"] = function() return ("a"):gsub("a", "%x") end,
            ["invalid replacement value %(a table%)"] = function() return ("a"):gsub("a", function() return {} end) end,
            ["too many captures"] = function() return ("a"):rep(40):find(("(a)"):rep(33)) end,
            ["pattern too complex"] = function() return ("a"):rep(300000):match((".?"):rep(300000)) end,
            ["bad argument #3 to 'gsub' %(string/function/table expected, got boolean%)"] = function() return string.gsub("a", "a", true) end,
            ["bad argument #1 to 'find' %(string expected, got nil%)"] = function() return string.find(nil, "a") end,
        } do
            local ok, e = pcall(f)
            assert.is_false(ok, want)
            assert.matches(want, e)
        end
    end)
end)
