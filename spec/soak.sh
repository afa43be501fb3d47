#!/bin/sh
# The long counts of what the suite runs in short: fuzzing under sanitizers, hostile pipelines, kills, reloads, leaks. Prints a report as it goes and
# keeps it in spec/results/soak-DATE.txt. Usage: sh spec/soak.sh   (KILLS=100 INPUTS=1000000 PIPELINES=5000 RSS_SECONDS=60 by default)
# About 15 minutes on two cores, builds included; each part has a time limit, all of them together an hour.
kills=${KILLS:-100} inputs=${INPUTS:-1000000} pipelines=${PIPELINES:-5000} rss=${RSS_SECONDS:-60}
version=$(git describe --always --dirty 2>/dev/null) # before the report makes the tree a changed one
report=spec/results/soak-$(date -u +%Y-%m-%d).txt
sanitized=build/address,undefined
mkdir -p spec/results
bad=$(mktemp) && logs=$(mktemp -d) || exit 1
trap 'rm -rf "$bad" "$logs"' EXIT
began=$(date +%s)
make --no-print-directory build || exit 1
make --no-print-directory SANITIZER=address,undefined build fuzzers $sanitized/ctest/http_guard_test || exit 1
export ASAN_OPTIONS="log_path=$logs/report" UBSAN_OPTIONS="print_stacktrace=1:log_path=$logs/report"

parts=0
part() { # seconds at most, title, then the command: its last lines, its time, whether it did what it should
    limit=$1 title=$2 from=$(date +%s)
    parts=$((parts + 1))
    shift 2
    echo
    echo "[$parts] $title"
    { timeout "$limit" "$@" || echo "exit code $?"; } >"$logs/out" # progress and logs go to standard error
    grep -vE '^(time=|$)' "$logs/out" | tail -n 6
    if grep -qE '^exit code |[1-9][0-9]* failed' "$logs/out" || ! grep -q ' passed, 0 failed' "$logs/out"; then echo "$title" >>"$bad"; fi
    echo "    $(($(date +%s) - from)) s"
}

{
    echo "make soak, $(date -u +%Y-%m-%d), neap $version"
    echo "machine: $(nproc) x $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(awk '/MemTotal/ {printf "%.0f GiB", $2 / 1048576}' /proc/meminfo), Linux $(uname -r | cut -d- -f1)"
    for f in spec/fuzz/corpus/*; do
        part 600 "$inputs mutated inputs for the decoder of ${f##*/}, ASan and UBSan" "$sanitized/ctest/fuzz_${f##*/}" "$f" "$inputs" 20261123
    done
    part 1200 "$inputs fuzzed bodies through the ingest routes, ASan and UBSan" "$sanitized/neap" spec/fuzz/routes.lua "$inputs" 20261123
    part 600 "malformed requests, and $pipelines mutated pipelines in each of two modes, ASan and UBSan" \
        env NEAP_HTTP_MUTANTS="$pipelines" "$sanitized/ctest/http_guard_test"
    part 900 "$kills kill -9 of host, Redis and both under load" env NEAP_KILLS="$kills" build/neap test spec/durable_spec.lua
    part 900 "$kills kills of host, node and both on a Redis Cluster under load, and freezes" env NEAP_KILLS="$kills" build/neap test spec/journal_cluster_spec.lua
    part 300 "100 reloads under load" build/neap test spec/reload_spec.lua
    if command -v wrk >/dev/null; then
        part $((rss * 3 + 60)) "memory of a server under load for $rss s" env SECONDS="$rss" build/neap spec/soak_rss.lua
    else
        echo && echo "memory of a loaded server: left out, wrk is not installed"
    fi
    echo
    for f in "$logs"/report.*; do
        [ -e "$f" ] || continue
        echo "sanitizer report:" && head -n 40 "$f"
        echo "sanitizer report" >>"$bad"
    done
    if [ -s "$bad" ]; then echo "FAILED: $(paste -sd';' "$bad")"; else echo "all $parts parts passed"; fi
    echo "$(($(date +%s) - began)) s in all"
} | tee "$report"
[ ! -s "$bad" ]
