#!/bin/sh
# Runs every C test and every spec against one build and closes with the sum: "N passed, N failed".
# Usage: sh spec/run.sh BUILD_DIR [spec files]
build=$1
shift
log=$build/test.log
: >"$log"
rc=0
# Sanitizer reports of every process that a spec starts land in files; one report fails the run. libuv is not instrumented: TSan must not judge it.
rm -f "$build"/sanitizer.*
supp="log_path=$PWD/$build/sanitizer"
export ASAN_OPTIONS="${ASAN_OPTIONS:-$supp}" UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1:$supp}" TSAN_OPTIONS="${TSAN_OPTIONS:-ignore_noninstrumented_modules=1:report_thread_leaks=0:$supp}"
run() { # a program whose last line is "name: N passed, N failed"; one that dies without it counts as a failure
    before=$(grep -c ' passed, ' "$log")
    { "$@" 2>&1 || echo "exit-code: $?"; } | tee -a "$log" | grep -v '^exit-code: '
    tail -n 1 "$log" | grep -q '^exit-code: ' && rc=1
    [ "$(grep -c ' passed, ' "$log")" -gt "$before" ] || echo "crash: $*: 0 passed, 1 failed" | tee -a "$log"
}
if [ $# = 0 ]; then
    for t in "$build"/ctest/*_test; do [ -x "$t" ] && run "$t"; done
    for f in spec/fuzz/corpus/*; do # a short run; `make soak` has the long one
        run "$build/ctest/fuzz_${f##*/}" "$f" 20000
    done
    run "$build/neap" test
    # What runs on a GPU, on one if it is here, else on the shim: the same sources as C, thread by thread. TSan cannot follow fibers.
    shim=
    "$build/neap" -e 'os.exit(require("neap.mlp").cuda())' || shim=$build/neap_cuda_shim.so
    case $build in *thread*) echo "device specs: skipped under TSan" ;; *) run env NEAP_CUDA_SHIM="$shim" "$build/neap" test spec/device/*_cases.lua ;; esac
    # One file under plain busted: there the specs run on the main thread and a wait turns the loop.
    run busted --lua="$build/neap" -o neap.test_output spec/task_spec.lua
else
    run "$build/neap" test "$@"
fi
for report in "$build"/sanitizer.*; do
    grep -qsE 'ERROR: |WARNING: ThreadSanitizer|runtime error' "$report" || continue
    cat "$report"
    echo "sanitizer: $report: 0 passed, 1 failed" | tee -a "$log"
done
awk '/^[^ ]*:.* [0-9]+ passed, [0-9]+ failed$/ {for (i = 2; i < NF; i++) {if ($(i + 1) ~ /^passed,?$/) p += $i; if ($(i + 1) == "failed") f += $i}}
     END {printf "%d passed, %d failed\n", p, f; exit f > 0}' "$log" || rc=1
exit $rc
