#!/bin/sh
# The long counts of what the suite runs in short: kills, fuzzing under sanitizers, reloads, leaks. Prints a report and keeps it in spec/results/.
# Usage: sh spec/soak.sh   (KILLS=100 INPUTS=1000000 by default; about ten minutes on two cores)
kills=${KILLS:-100} inputs=${INPUTS:-1000000}
report=spec/results/soak-$(date -u +%Y-%m-%d).txt
mkdir -p spec/results
make --no-print-directory build || exit 1
sanitized=build/address,undefined
make --no-print-directory SANITIZER=address,undefined build fuzzers || exit 1
rc=0
{
    echo "make soak, $(date -u +%Y-%m-%d), neap $(git describe --always --dirty 2>/dev/null)"
    echo "machine: $(nproc) x $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(awk '/MemTotal/ {printf "%.0f GiB", $2 / 1048576}' /proc/meminfo), Linux $(uname -r | cut -d- -f1)"
    echo
    echo "$inputs mutated inputs for each decoder, ASan and UBSan:"
    for f in spec/fuzz/corpus/*; do
        "$sanitized/ctest/fuzz_${f##*/}" "$f" "$inputs" 20261123 2>&1 | tail -n 3 || rc=1
    done
    echo
    echo "$kills kill -9 of host, Redis and both under load:"
    NEAP_KILLS=$kills build/neap test spec/durable_spec.lua 2>/dev/null || rc=1
    echo
    echo "100 reloads under load:"
    build/neap test spec/reload_spec.lua 2>/dev/null || rc=1
    echo
    echo "memory of a loaded server:"
    if command -v wrk >/dev/null; then build/neap spec/soak_rss.lua || rc=1; else echo "wrk is not installed: left out"; fi
} | tee "$report"
grep -qE ' [1-9][0-9]* failed|ERROR: |runtime error' "$report" && rc=1
exit $rc
