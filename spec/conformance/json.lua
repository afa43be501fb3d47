-- json.lua SUITES: neap.json against nst/JSONTestSuite (SUITES/JSONTestSuite/test_parsing). y_ must pass, n_ must fail, i_ may do
-- either but must not raise anything except our own error. Exit code 0 = no deviation, 3 = suite not there.
local json = require "neap.json"
local dir = (arg[1] or ".") .. "/JSONTestSuite/test_parsing"

local function files()
  local pipe = assert(io.popen("ls '" .. dir:gsub("'", "'\\''") .. "' 2>/dev/null"))
  local names = {}
  for name in pipe:lines() do names[#names + 1] = name end
  pipe:close()
  return names
end

local names, wrong, free = files(), 0, 0
if #names == 0 then
  print("json: skipped, no " .. dir)
  os.exit(3)
end
for _, name in ipairs(names) do
  local f = assert(io.open(dir .. "/" .. name, "rb"))
  local text = f:read "a"
  f:close()
  local ok, err = pcall(json.decode, text)
  local kind = name:sub(1, 1)
  local bad = (kind == "y" and not ok) or (kind == "n" and ok) or (not ok and err.kind ~= "invalid")
  if ok and not bad then bad = not pcall(function() assert(json.encode(json.decode(json.encode(json.decode(text))))) end) end
  if kind == "i" then free = free + 1 end
  if bad then
    wrong = wrong + 1
    print(("json: %s: %s"):format(name, ok and "accepted" or "refused: " .. tostring(err)))
  end
end
print(("json: %d files, %d deviations (%d free)"):format(#names, wrong, free))
os.exit(wrong == 0 and 0 or 1)
