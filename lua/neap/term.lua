--- neap.term: what the terminal can do, and the few things we write to it: colours, widths, a progress bar.
-- Everything degrades by itself: no colour when the output is not a terminal, when NO_COLOR is set or TERM is "dumb"; plain
-- lines instead of a moving bar in a pipe; ASCII where the locale is not UTF-8. Pure Lua; `neap.edit` (C) answers isatty and
-- the width when it is there, otherwise the shell does, once.
--
--     local term = require "neap.term"
--     io.write(term.paint("late", "yellow"), "\n")
--     local bar = term.progress{label = "training", total = 20}
--     for epoch = 1, 20 do bar:update(epoch, "loss 0.0123") end
--     bar:done("best at epoch 17")
local term = {}

local SGR = {
    bold = 1, dim = 2, italic = 3, underline = 4, reverse = 7,
    black = 30, red = 31, green = 32, yellow = 33, blue = 34, magenta = 35, cyan = 36, white = 37,
    grey = 90, ["bright-red"] = 91, ["bright-green"] = 92, ["bright-yellow"] = 93, ["bright-blue"] = 94,
}

local function edit_module()
    local ok, edit = pcall(require, "neap.edit")
    return ok and type(edit) == "table" and edit or nil
end

local function fd_of(file)
    if file == io.stdin then return 0 elseif file == io.stdout then return 1 elseif file == io.stderr then return 2 end
end

local tty_cache = {}

--- Is this open file (io.stdin, io.stdout, io.stderr) a terminal? Any other file is not.
---@param file? file* default io.stdout
---@return boolean
function term.tty(file)
    local fd = fd_of(file or io.stdout)
    if not fd then return false end
    if tty_cache[fd] == nil then
        local edit = edit_module()
        if edit and edit.isatty then
            tty_cache[fd] = edit.isatty(fd)
        else
            tty_cache[fd] = os.execute("test -t " .. fd) == true
        end
    end
    return tty_cache[fd]
end

--- Columns of the terminal; COLUMNS wins, 80 when nobody knows.
---@return integer
function term.width()
    local env = math.tointeger(tonumber(os.getenv("COLUMNS") or ""))
    if env and env > 0 then return env end
    local edit = edit_module()
    if edit and edit.size then
        local columns = edit.size()
        if columns and columns > 0 then return columns end
    end
    return 80
end

--- May colours be written to `file`? NO_COLOR (any non-empty value) says no, FORCE_COLOR yes, otherwise a terminal decides.
---@param file? file*
---@return boolean
function term.colour(file)
    local no = os.getenv("NO_COLOR")
    if no and no ~= "" then return false end
    local force = os.getenv("FORCE_COLOR") or os.getenv("CLICOLOR_FORCE")
    if force and force ~= "" and force ~= "0" then return true end
    return os.getenv("TERM") ~= "dumb" and term.tty(file)
end

--- Does the locale speak UTF-8? Decides between braille and ASCII. NEAP_ASCII=1 forces ASCII.
---@return boolean
function term.unicode()
    local ascii = os.getenv("NEAP_ASCII")
    if ascii and ascii ~= "" and ascii ~= "0" then return false end
    for _, name in ipairs{"LC_ALL", "LC_CTYPE", "LANG"} do
        local value = os.getenv(name)
        if value and value ~= "" then return value:upper():find("UTF%-?8") ~= nil end
    end
    return false
end

--- `text` in a style such as "red" or "bold cyan"; unchanged where `colour` is false.
---@param text string
---@param style string words of the table above
---@param colour? boolean default term.colour()
---@return string
function term.paint(text, style, colour)
    if colour == nil then colour = term.colour() end
    if not colour or not style or style == "" then return text end
    local codes = {}
    for word in style:gmatch("%S+") do
        codes[#codes + 1] = SGR[word] or error(("unknown style '%s'"):format(word), 2)
    end
    return "\27[" .. table.concat(codes, ";") .. "m" .. text .. "\27[0m"
end

--- `text` without colour sequences.
function term.strip(text) return (text:gsub("\27%[[%d;?]*[A-Za-z]", "")) end

-- Code points that take no column (combining marks, joiners) and two columns (CJK, most emoji).
local function codepoint_width(c)
    if c < 0x300 then return 1 end
    if c <= 0x36F or (c >= 0x200B and c <= 0x200F) or (c >= 0xFE00 and c <= 0xFE0F) or (c >= 0x20D0 and c <= 0x20FF) then return 0 end
    if (c >= 0x1100 and c <= 0x115F) or (c >= 0x2E80 and c <= 0xA4CF) or (c >= 0xAC00 and c <= 0xD7A3) or (c >= 0xF900 and c <= 0xFAFF)
        or (c >= 0xFE30 and c <= 0xFE6F) or (c >= 0xFF00 and c <= 0xFF60) or (c >= 0xFFE0 and c <= 0xFFE6) or (c >= 0x1F300
            and c <= 0x1FAFF)
        or (c >= 0x20000 and c <= 0x3FFFD) then
        return 2
    end
    return 1
end

--- Columns that `text` takes on a terminal: colour sequences are free, wide characters take two. Bytes that are no UTF-8 count one each.
---@return integer
function term.columns(text)
    text = term.strip(text)
    if not utf8.len(text) then return #text end
    local n = 0
    for _, c in utf8.codes(text) do n = n + codepoint_width(c) end
    return n
end

--- `text` padded with blanks to `width` columns, at the right or (`left` true) at the left.
function term.pad(text, width, left)
    local blanks = (" "):rep(math.max(0, width - term.columns(text)))
    return left and blanks .. text or text .. blanks
end

--- A text as lines of at most `width` columns, broken at blanks. A longer word has a line of its own.
---@return string[]
function term.wrap(text, width)
    local lines, line = {}, text:match("^%s*")
    local empty = true
    for word in text:gmatch("%S+") do
        if not empty and term.columns(line) + 1 + term.columns(word) > width then
            lines[#lines + 1], line, empty = line, "", true
        end
        line, empty = line .. (empty and "" or " ") .. word, false
    end
    lines[#lines + 1] = line
    return lines
end

--- `text` cut to `width` columns, the last one an ellipsis when something was cut. Colours are dropped from a text that is cut.
function term.clip(text, width)
    if term.columns(text) <= width then return text end
    text = term.strip(text)
    if not utf8.len(text) then return text:sub(1, width) end
    local out, n = {}, 0
    for _, c in utf8.codes(text) do
        local w = codepoint_width(c)
        if n + w > width - 1 then break end
        out[#out + 1], n = utf8.char(c), n + w
    end
    return table.concat(out) .. (term.unicode() and "…" or ".")
end

--- Seconds as people say them: "0.4 s", "12 s", "3 min 20 s", "2 h 05 min", "3 d 4 h".
function term.duration(s)
    if s ~= s then return "?" end
    if s < 10 then return ("%.1f s"):format(s) end
    if s < 60 then return ("%.0f s"):format(s) end
    local total = math.floor(s + 0.5)
    if total < 3600 then return ("%d min %02d s"):format(total // 60, total % 60) end
    if total < 86400 then return ("%d h %02d min"):format(total // 3600, total % 3600 // 60) end
    return ("%d d %d h"):format(total // 86400, total % 86400 // 3600)
end

local Progress = {}
Progress.__index = Progress

local function bar_text(self, done, note)
    local share = self.total > 0 and math.min(1, done / self.total) or 1
    local cells = 24
    local full = share * cells
    local text
    if self.unicode then
        local whole = math.floor(full)
        local eighth = math.floor((full - whole) * 8)
        text = ("█"):rep(whole) .. (eighth > 0 and utf8.char(0x2590 - eighth) or "")
        text = term.pad(text, cells)
    else
        text = term.pad(("#"):rep(math.floor(full)), cells)
    end
    return ("%s [%s] %3.0f%%%s"):format(self.label, text, share * 100, note and note ~= "" and "  " .. note or "")
end

--- Shows that `done` of `total` are finished. On a terminal one line is redrawn (at most 20 times a second, and always at
--- the end); elsewhere one plain line is written each time another tenth is reached.
---@param done number
---@param note? string shown at the end of the line
function Progress:update(done, note)
    self.last, self.note = done, note
    if self.tty then
        local now = self.clock()
        if done < self.total and self.drawn_at and now - self.drawn_at < 0.05 then return end
        self.drawn_at = now
        self.out:write("\r", term.clip(bar_text(self, done, note), self.width - 1), "\27[K")
        self.out:flush()
        self.open = true
    else
        local step = self.total > 0 and math.floor(done / self.total * 10) or 10
        if step > self.step then
            self.step = step
            local count = math.type(done) == "integer" and math.type(self.total) == "integer" and "%d/%d" or "%g/%g"
            self.out:write(("%s " .. count .. "%s\n"):format(self.label, done, self.total, note and note ~= "" and "  " .. note or ""))
            self.out:flush()
        end
    end
end

--- Ends the bar: the line is wiped on a terminal, and `text` (if any) is written as a line of its own in both cases.
---@param text? string
function Progress:done(text)
    if self.open then self.out:write("\r\27[K") end
    self.open = false
    if text then self.out:write(text, "\n") end
    self.out:flush()
end

--- A progress bar. opts: label, total, out (default io.stderr), tty and width (found out), clock (for tests).
---@return table bar with :update(done, note) and :done(text)
function term.progress(opts)
    local out = opts.out or io.stderr
    local tty = opts.tty
    if tty == nil then tty = term.tty(out) and os.getenv("TERM") ~= "dumb" end
    return setmetatable({
        label = opts.label or "", total = opts.total or 0, out = out, tty = tty, step = 0,
        width = opts.width or term.width(), unicode = term.unicode(), clock = opts.clock or os.clock,
    }, Progress)
end

return term
