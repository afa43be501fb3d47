---@meta neap.keys
-- Single keys from the terminal, for programs that redraw a screen. While one is open nothing is echoed and Ctrl-C is a key ("\3").
-- Usage: local keys <close> = require("neap.keys").open() if keys and keys:recv(1) == "q" then .. end

local keys = {}

---Takes the terminal; nil where standard input is none.
---@return neap.keys.keys?
function keys.open() end

---@class neap.keys.keys
local open = {}

---What was typed; "" when `timeout` seconds have passed, nil at the end of input. Waits.
---@param timeout? number
---@return string? text
function open:recv(timeout) end

---Gives the terminal back as it was. May run many times.
function open:close() end

return keys
