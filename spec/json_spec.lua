local json = require "neap.json"

local function refused(text, opts)
  local ok, err = pcall(json.decode, text, opts)
  assert.is_false(ok, "was accepted: " .. text)
  assert.equal("invalid", err.kind)
  return tostring(err)
end

describe("neap.json decodes", function()
  it("integers exactly, to 64 bits", function()
    for _, n in ipairs {0, -1, 9007199254740993, math.maxinteger, math.mininteger, 1700000000123456} do
      local back = json.decode(json.encode(n))
      assert.equal("integer", math.type(back))
      assert.equal(n, back)
    end
    assert.equal("float", math.type(json.decode "9223372036854775808"))
    assert.equal("float", math.type(json.decode "1.0"))
  end)

  it("floats to the nearest double and back to the same bits", function()
    local function bits(x) return (string.unpack("<i8", string.pack("<d", x))) end
    for _, x in ipairs {0.1 + 0.2, 1e15, 1e16, 1e22, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 21.53, -0.0,
      2.0, 1 / 3, 1e-5, 123456789.123456789} do
      assert.equal(bits(x), bits(json.decode(json.encode(x))))
    end
    local seed = 88172645463325252
    for _ = 1, 20000 do
      seed = seed ~ (seed << 13); seed = seed ~ (seed >> 7); seed = seed ~ (seed << 17)
      local x = string.unpack("<d", string.pack("<i8", seed))
      if x == x and x ~= math.huge and x ~= -math.huge then
        assert.equal(bits(x), bits(json.decode(json.encode(x))), string.format("%a", x))
      end
    end
  end)

  it("what RFC 8259 allows, and nothing else", function()
    for _, text in ipairs {"NaN", "Infinity", "0x10", "+1", "-01", "1.", ".5", "1e", "'a'", "[1,]", "{a:1}", "{\"a\":1,}", "[1 2]",
      "", " ", "nul", "\"a\nb\"",
      "\"\\x\"", "\"\\ud800\"", "\"\xff\"", "\"\xed\xa0\x80\"", "\"\xc0\xaf\"", "[1]x", "123\0", "1e400", "[", "{", "\"", "\"\\u00\""} do
      refused(text)
    end
    assert.equal("a\u{1F600}\u{e9}\0\n/", json.decode [["a\ud83d\ude00é\u0000\n\/"]])
  end)

  it("with the last of duplicate keys", function() assert.equal(2, json.decode [[{"a":1,"a":2}]].a) end)

  it("with a depth limit", function()
    assert.is_table(json.decode(("["):rep(128) .. ("]"):rep(128)))
    assert.matches("too deeply", refused(("["):rep(129) .. ("]"):rep(129)))
    assert.matches("too deeply", refused("[[[]]]", {max_depth = 2}))
    assert.is_table(json.decode(("["):rep(1000) .. ("]"):rep(1000), {max_depth = 1000}))
  end)

  it("and says where and what was expected", function()
    assert.matches("line 2 column 8: expected ',' or '}', found '\"'", refused('{"a":1,\n "b": 2"c"}'), 1, true)
    assert.matches("line 1 column 2: expected a value or ']', found the end", refused "[", 1, true)
    assert.matches("line 1 column 6: expected a value, found 'x'", refused '["ü",x]', 1, true)
  end)

  it("null as json.null, which is a value in a list", function()
    local t = json.decode "[null,1]"
    assert.equal(json.null, t[1])
    assert.equal(2, #t)
    assert.equal("[null,1]", json.encode(t))
  end)
end)

describe("neap.json encodes", function()
  it("empty arrays that were arrays as arrays", function()
    assert.equal("[]", json.encode(json.decode "[]"))
    assert.equal("{}", json.encode(json.decode "{}"))
    assert.equal("{}", json.encode {})
    assert.equal("[]", json.encode(json.array()))
    assert.equal("[]", json.encode(json.array {}))
    assert.equal([[{"a":[]}]], json.encode(json.decode [[{"a":[]}]]))
  end)

  it("lists, objects and number keys by one rule each", function()
    assert.equal("[1,2]", json.encode {1, 2})
    assert.equal([[{"1":"a"}]], json.encode(json.object {"a"}))
    for _, t in ipairs {{1, nil, 3}, {1, x = 2}, {[5] = 1}, {[1.5] = 1}, {[true] = 1}} do assert.is_false(pcall(json.encode, t)) end
  end)

  it("sorted and pretty text", function()
    assert.equal([[{"a":1,"aa":3,"b":2}]], json.encode({b = 2, aa = 3, a = 1}, {sort = true}))
    assert.equal('{\n  "a": [\n    1\n  ],\n  "b": {}\n}', json.encode({b = {}, a = {1}}, {pretty = true}))
  end)

  it("no NaN unless told how", function()
    local ok, err = pcall(json.encode, {a = {0 / 0}})
    assert.is_false(ok)
    assert.matches("$.a[1]", tostring(err), 1, true)
    assert.equal("[null]", json.encode({math.huge}, {nan = "null"}))
  end)

  it("only UTF-8, or replaces what is not", function()
    assert.is_false(pcall(json.encode, "a\xff"))
    assert.equal('"a\u{fffd}é"', json.encode("a\xffé", {utf8 = "replace"}))
    assert.equal('"\\u0001\\u007f\\"\\\\\\n"', json.encode "\1\127\"\\\n")
    assert.equal('"é\\"n"', json.encode "é\"n")
  end)

  it("no cycle, function or userdata", function()
    local t = {}
    t.t = t
    assert.matches("contain itself", tostring(select(2, pcall(json.encode, t))), 1, true)
    assert.matches("cannot write a function", tostring(select(2, pcall(json.encode, {print}))), 1, true)
  end)

  it("with floats that stay floats and are short", function()
    assert.equal("[2.0,0.3,0.30000000000000004,-0.0,21.53,1e+16]", json.encode {2.0, 0.3, 0.1 + 0.2, -0.0, 21.53, 1e16})
  end)

  it("and refuses unknown options by their nearest name", function()
    assert.matches("did you mean 'pretty'", tostring(select(2, pcall(json.encode, 1, {prety = true}))), 1, true)
  end)
end)

describe("neap.json", function()
  it("has a try view that returns nil and the error", function()
    local v, err = json.try.decode "[1"
    assert.is_nil(v)
    assert.equal("invalid", err.kind)
    assert.is_nil((json.try.encode(print)))
    assert.equal(1, json.try.decode "1")
  end)

  it("iterates NDJSON and names the line of an error", function()
    local got = {}
    for line, v in json.lines '{"a":1}\n\r\n  [2]\r\n3' do got[#got + 1] = line .. ":" .. json.encode(v) end
    assert.same({'1:{"a":1}', "3:[2]", "4:3"}, got)
    local ok, err = pcall(function() for _ in json.lines "1\n{]" do end end)
    assert.is_false(ok)
    assert.matches("line 2 column 2", tostring(err), 1, true)
    local bad = 0
    for _, v, e in json.try.lines "1\nx\n2" do bad = bad + ((v == nil and e) and 1 or 0) end
    assert.equal(1, bad)
  end)

  it("keeps a user's metatable out of the marks", function()
    assert.is_false(pcall(json.array, setmetatable({}, {})))
    assert.equal("[]", json.encode(setmetatable({}, {__jsontype = "array"})))
  end)
end)
