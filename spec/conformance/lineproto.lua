-- lineproto.lua SUITES: neap.decode.points against influxdata/line-protocol's corpus
-- (SUITES/line-protocol/lineprotocol/testdata/corpus.json): every valid text must give the same points, every other one an error.
-- Exit code 0 = no deviation, 3 = corpus not there.
local decode, json = require "neap.decode", require "neap.json"
local path = (arg[1] or ".") .. "/line-protocol/lineprotocol/testdata/corpus.json"
local file = io.open(path, "rb")
if not file then
  print("lineproto: skipped, no " .. path)
  os.exit(3)
end
local corpus = json.decode(file:read "a").decode
file:close()

local alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
local function base64(text)
  local out, bits, n = {}, 0, 0
  for c in text:gmatch "[%w+/]" do
    bits, n = bits << 6 | (alphabet:find(c, 1, true) - 1), n + 6
    if n >= 8 then
      n = n - 8
      out[#out + 1] = string.char(bits >> n & 255)
    end
  end
  return table.concat(out)
end
local function plain(v) return type(v) == "table" and base64(v.binary) or v end
local unit = {["1ns"] = 1, ["1µs"] = 1000, ["1ms"] = 1000000, ["1s"] = 1000000000}

local function same_value(got, want)
  local kind, v = next(want)
  if kind == "string" then return got == plain(v) end
  if kind == "binary" then return got == base64(v) end
  if kind == "bool" then return got == v end
  if kind == "uint" and v < 0 then v = v + 2.0 ^ 64 end
  return type(got) == "number" and got == v
end

local function same(points, want, input)
  if #points ~= #want then return false end
  for i, w in ipairs(want) do
    local p, ns = points[i], unit[input.precision]
    if p.measurement ~= plain(w.name) or (p.time_ns or input.defaultTime // ns * ns) ~= w.time then return false end
    local tags, fields = 0, 0
    for _ in pairs(p.tags) do tags = tags + 1 end
    for _ in pairs(p.fields) do fields = fields + 1 end
    for _, t in ipairs(w.tags) do
      if p.tags[plain(t.key)] ~= plain(t.value) then return false end
    end
    local seen, distinct = {}, 0
    for _, f in ipairs(w.fields) do -- a field given twice: the last one counts
      local key = plain(f.key)
      distinct = distinct + (seen[key] and 0 or 1)
      seen[key] = f.value
    end
    for key, value in pairs(seen) do
      if not same_value(p.fields[key], value) then return false end
    end
    if tags ~= #w.tags or fields ~= distinct then return false end
  end
  return true
end

local total, wrong = 0, 0
for key, case in pairs(corpus) do
  local input, want = case.input, case.output
  local precision = input.precision:sub(2)
  local points, errors = decode.points(plain(input.text), {precision = precision})
  local bad
  if want.error then bad = #errors == 0 else bad = #errors > 0 or not same(points, want.result, input) end
  total = total + 1
  if bad then
    wrong = wrong + 1
    print(("lineproto: %s: %q wants %s"):format(key, plain(input.text), want.error or json.encode(want.result)))
  end
end
print(("lineproto: %d cases, %d deviations"):format(total, wrong))
os.exit(wrong == 0 and 0 or 1)
