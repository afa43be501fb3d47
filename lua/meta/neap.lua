---@meta neap
-- The one global: what the host is, and where its files are. Usage: print(neap.version)

---@class neap
---@field version string version of the host
---@field root string the source checkout this binary runs from, "" when installed
neap = {}

---The text of a file that travels with the host, such as "scripts/sensors.lua", or nil. In a source checkout its own file is read.
---@param name string path inside neap's tree
---@return string? text
function neap.asset(name) end

---The names of the files that travel with the host and begin with `prefix`, sorted.
---@param prefix? string
---@return string[] names
function neap.assets(prefix) end

---Calls fn in a task each time the process gets the signal. Keeps no program alive.
---@param name "INT"|"TERM"|"HUP"|"USR1"|"USR2"|"QUIT"|"WINCH"
---@param fn fun()
---@return {stop: fun(self)} handle
function neap.on_signal(name, fn) end

---Seconds since 1970, with microseconds.
---@return number
function neap.clock() end

---The name nearest to a mistyped word (in which it begins, or at most a third of the letters is wrong), or nil: for "did you mean".
---@param word string
---@param names string[]
---@return string?
function neap.nearest(word, names) end

---Turns an installed extension on (see neap.ext); nil and a message when it had to be left out.
---@param name string
---@param opts? table for its setup
---@return table? extension
---@return string? why
function neap.use(name, opts) end

---Ends the loop after this turn, whatever is still open: the way out of a server's script.
function neap.stop() end
