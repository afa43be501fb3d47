---@meta neap.secret
-- What keeping secrets takes. Usage: local secret = require "neap.secret"

local secret = {}

---SHA-256 of a text, as 64 hex digits.
---@param text string
---@return string
function secret.sha256(text) end

---n (1 to 256) random bytes from the kernel, as 2n hex digits.
---@param n integer
---@return string
function secret.random(n) end

---Replaces a file by a text, whole or not at all; only its owner can read it (0600). On disk when it returns; raises otherwise.
---@param path string
---@param text string
function secret.write(path, text) end

---Locks a file (made if missing) against other processes and threads until the lock is closed (`local l <close> = ..`); nil: somebody has it.
---@param path string
---@return userdata?
function secret.lock(path) end

return secret
