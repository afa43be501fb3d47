# A safetensors reader from the format's text, standard library only: prints what a file holds, as Lua, for spec/mlp_spec.lua.
# Run: python3 spec/oracles/read_safetensors.py FILE
import json
import struct
import sys

with open(sys.argv[1], "rb") as f:
    raw = f.read()
(n,) = struct.unpack("<Q", raw[:8])
header, body = json.loads(raw[8:8 + n]), raw[8 + n:]
kinds = {"F32": "f", "F64": "d", "I64": "q", "U8": "B"}
print("return {")
for key, value in sorted(header.pop("__metadata__", {}).items()):
    print("  ['meta.%s'] = %s," % (key, json.dumps(value)))
for name, t in sorted(header.items()):
    lo, hi = t["data_offsets"]
    values = struct.unpack("<%d%s" % ((hi - lo) // struct.calcsize(kinds[t["dtype"]]), kinds[t["dtype"]]), body[lo:hi])
    print("  ['%s'] = {dtype = '%s', shape = {%s}, sum = %.17g}," % (name, t["dtype"], ",".join(map(str, t["shape"])), sum(values)))
print("}")
