---@meta neap.edit
-- The line editor on the process's terminal. The prompt of `neap repl` is made of it; programs may have one too.
-- Usage: local editor <close> = require("neap.edit").new() editor:start("> ") print(editor:event())

local edit = {}

---Is this file descriptor a terminal?
---@param fd integer 0 standard input, 1 output, 2 error
---@return boolean
function edit.isatty(fd) end

---Columns and rows of the terminal, or nil where there is none.
---@return integer? columns
---@return integer? rows
function edit.size() end

---With true, every Ctrl-C raises "interrupted!" in what runs or waits; with false, it ends the process again.
---@param on boolean
function edit.interrupts(on) end

---What has come on standard input, at least a byte; nil at its end. Waits, while the loop goes on.
---@return string?
function edit.input() end

---An editor on standard input and output; raises where they are no terminal.
---@return neap.edit.editor
function edit.new() end

---@class neap.edit.editor
local editor = {}

---Shows an empty line behind the prompt. Lines after the first get `more`.
---@param prompt string
---@param more? string
function editor:start(prompt, more) end

---Waits for the next event: "enter" (answer with finish or newline), "tab" (maybe complete), "interrupt" and "eof" (abandon), "suspend".
---@return string event
---@return string text
---@return integer cursor bytes before it
function editor:event() end

---After "enter": the text goes on in a new line.
function editor:newline() end

---After "enter": leaves the text on the screen; with true it goes into the history.
---@param remember? boolean
function editor:finish(remember) end

---After "interrupt" or "eof": forgets the text.
function editor:abandon() end

---After "tab": the words may stand for text:sub(from + 1, cursor). Inserts what they share, or lists them.
---@param from integer
---@param words string[]
function editor:complete(from, words) end

---Replaces the text.
---@param text string
function editor:set(text) end

---Takes prompt and text off the screen, for something else to be printed.
function editor:hide() end

---Puts them back.
function editor:show() end

---Asks the terminal for its size and draws anew.
function editor:resize() end

---Loads the history and appends to it from now on.
---@param path string
---@param max? integer entries kept, default 2000
function editor:history(path, max) end

---The history, oldest first.
---@return string[]
function editor:entries() end

---Gives the terminal back as it was, until the next start.
function editor:cooked() end

---Stops the process as Ctrl-Z does; returns when it goes on.
function editor:suspend() end

---Gives the terminal back and ends the editor.
function editor:close() end
