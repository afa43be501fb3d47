"""A safetensors file read with nothing but Python's standard library, from the format's description: eight bytes with the header's
length (little endian), a JSON object, then the bytes of the tensors. Prints one line a tensor, then the metadata's card."""
import json
import struct
import sys

SIZES = {"F64": 8, "F32": 4, "I64": 8, "U8": 1}

data = open(sys.argv[1], "rb").read()
(length,) = struct.unpack_from("<Q", data)
header = json.loads(data[8:8 + length].decode("utf-8"))
body = data[8 + length:]
metadata = header.pop("__metadata__", {})
assert all(isinstance(v, str) for v in metadata.values()), "metadata values are strings"

end = 0
for name, t in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
    first, last = t["data_offsets"]
    count = 1
    for n in t["shape"]:
        count *= n
    assert first == end, "the tensors follow one another without holes"
    assert last - first == count * SIZES[t["dtype"]], "offsets fit shape and type"
    end = last
    if t["dtype"] == "F32":
        values = struct.unpack("<%df" % count, body[first:last])
        print(name, t["dtype"], t["shape"], "%.9g" % sum(values))
    else:
        print(name, t["dtype"], t["shape"])
assert end == len(body), "nothing stands behind the last tensor"
print("sensor", metadata["sensor"])
print("window", json.loads(metadata["card"])["window"])
