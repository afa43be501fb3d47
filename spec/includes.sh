#!/bin/sh
# Includes point down only: kernels know no host, the host core knows no Lua.
bad=$(grep -nE '#include *[<"](lua|lauxlib|lualib)\.h' kernels/* host/*.c host/*.h 2>/dev/null; grep -nE '#include *"host/' kernels/* 2>/dev/null
    grep -nE '#include *"host/api/' host/*.c host/*.h 2>/dev/null)
if [ -n "$bad" ]; then
    echo "includes that point up:" && echo "$bad"
    exit 1
fi
echo "includes: ok"
