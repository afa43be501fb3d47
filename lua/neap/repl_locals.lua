--- neap.repl_locals: makes `local x = 1`, typed on one line of a prompt, live on in the next.
--
-- A chunk's locals die with it. So before a typed chunk is compiled, `local` at its top level is rewritten to a plain assignment
-- (on the same line, so that error positions stay right), and the session's environment keeps the names. What stands inside a block or
-- a function stays a real local, and so does a <close> variable, whose scope is its meaning. The alternative, tracing the chunk with
-- debug.getlocal, loses closures that share a variable.
--
--     rewrite("local a, b = 1; local function f() local c end")  --> "a, b = 1; function f() local c end", {"a", "b", "f"}
local OPENS = {["function"] = true, ["do"] = true, ["if"] = true, ["repeat"] = true}
local CLOSES = {["end"] = true, ["until"] = true}

local function ends(text, pattern, from, plain)
    local _, last = text:find(pattern, from, plain)
    return last
end

--- The tokens of a Lua chunk: an iterator of kind ("name", "string", "number", "op"), text, first and last byte. Comments and blanks
--- are skipped; broken input ends the iteration early, the compiler will say why.
---@param text string
local function tokens(text)
    local at = 1
    local function next_token()
        local from = text:find("%S", at)
        if not from then return nil end
        if text:find("^%-%-", from) then
            local level = text:match("^%-%-%[(=*)%[", from)
            local past = level and ends(text, "]" .. level .. "]", from, true) or not level and ends(text, "[^\n]*", from)
            if not past then return nil end
            at = past + 1
            return next_token()
        end
        local kind, last = "op", from
        local level = text:match("^%[(=*)%[", from)
        local quote = text:match("^[\"']", from)
        if level then
            kind = "string"
            last = ends(text, "]" .. level .. "]", from, true)
        elseif quote then
            kind = "string"
            repeat
                local stop = text:find('[\\\n' .. quote .. ']', last + 1)
                if not stop or text:sub(stop, stop) == "\n" then return nil end
                last = text:sub(stop, stop) == "\\" and (text:match("^\\z%s*()", stop) or stop + 2) - 1 or stop
            until text:sub(stop, stop) == quote
        elseif text:find("^[%a_]", from) then
            kind = "name"
            last = ends(text, "^[%w_]+", from)
        elseif text:find("^%.?%d", from) then
            kind = "number"
            last = ends(text, "^0[xX][%x.]*[pP][+-]?%d*", from) or ends(text, "^0[xX][%x.]*", from)
            if not last then
                last = ends(text, "^[%d.]*", from)
                last = ends(text, "^[eE][+-]?%d*", last + 1) or last
            end
        else
            last = ends(text, "^[=~<>]=", from) or ends(text, "^::", from) or ends(text, "^%.%.%.?", from) or from
        end
        if not last then return nil end
        at = last + 1
        return kind, text:sub(from, last), from, last
    end
    return next_token
end

-- The names after `local` at tokens[i + 1]...; nil if one is <close> or named _ENV. Returns names, the index of the first token behind
-- them.
local function name_list(list, i)
    local names = {}
    while list[i] and list[i].kind == "name" do
        names[#names + 1] = list[i].text
        if list[i].text == "_ENV" then return nil end
        i = i + 1
        if list[i] and list[i].text == "<" then
            if not list[i + 1] or list[i + 1].text == "close" then return nil end
            i = i + 3
        end
        if not list[i] or list[i].text ~= "," then break end
        i = i + 1
    end
    return #names > 0 and names or nil, i
end

--- The chunk with its top-level locals turned into assignments, and the names that it declares.
---@param text string
---@return string text
---@return string[] names
local function rewrite(text)
    local list = {}
    for kind, word, from, last in tokens(text) do list[#list + 1] = {kind = kind, text = word, from = from, last = last} end
    local out, done, declared, depth = {}, 1, {}, 0
    local function replace(from, last, with)
        out[#out + 1] = text:sub(done, from - 1) .. with
        done = last + 1
    end
    for i, token in ipairs(list) do
        local word = token.kind == "name" and token.text
        if word == "local" and depth == 0 then
            local follows = list[i + 1]
            if follows and follows.text == "function" and list[i + 2] then
                replace(token.from, follows.from - 1, "")
                declared[#declared + 1] = list[i + 2].text
            else
                local names, after = name_list(list, i + 1)
                if names then
                    local lhs, gap = table.concat(names, ", "), text:sub(token.from, list[after - 1].last):gsub("[^\n]", "")
                    local assigns = list[after] and list[after].text == "="
                    replace(token.from, list[after - 1].last, gap .. lhs .. (assigns and "" or " = nil;"))
                    table.move(names, 1, #names, #declared + 1, declared)
                end
            end
        elseif word and OPENS[word] then
            depth = depth + 1
        elseif word and CLOSES[word] then
            depth = depth - 1
        end
    end
    out[#out + 1] = text:sub(done)
    return table.concat(out), declared
end

return {rewrite = rewrite, tokens = tokens}
