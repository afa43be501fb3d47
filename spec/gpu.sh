#!/bin/sh
# Everything that wants a GPU, in one run of a few minutes: builds the backend, checks it, tries the tile shapes, benches it beside PyTorch, and writes
# spec/results/DATE-gpu.txt. A bare machine will do: gcc, nvcc, make; python3 with torch for the peers. Where neap itself can be built, or a built one is
# given (NEAP=path), its specs and benches run too. What was left out is listed at the end.
#   sh spec/gpu.sh               on a GPU machine          sh spec/gpu.sh shim     the same steps without a GPU, small, nothing measured
# MODELS, WINDOWS: size of the fleet bench (10000 x 10000); PYTHON: the python3 that has torch; RESULTS: where the text goes; LIMIT: seconds for it all.
cd "$(dirname "$0")/.." || exit 1
mode=$1
build=build/gpu-run python=${PYTHON:-python3} limit=${LIMIT:-540} start=$(date +%s) left_out= failed=
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
export NEAP_CUDA_SHIM=
cores=$(nproc)
gpu=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null | head -n 1)
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d .)
results=${RESULTS:-spec/results/$(date +%F)-gpu.txt}
[ "$mode" = shim ] && results=${RESULTS:-build/gpu-shim.txt} && gpu="shim (no GPU): the steps were tried, NOTHING WAS MEASURED" MODELS=${MODELS:-4} WINDOWS=${WINDOWS:-200}
mkdir -p "$build" "$(dirname "$results")"
: >"$results"

say() { echo "$*" | tee -a "$results"; }
skip() { left_out="$left_out
  $*" && echo "  left out: $*"; }
short() { [ $(($(date +%s) - start)) -gt $((limit - $1)) ]; } # fewer than $1 seconds are left
step() { # step SECONDS TITLE COMMAND...: its output goes to the results; a failure is counted and the rest goes on
    seconds=$1 title=$2
    shift 2
    if short "$seconds"; then skip "$title: no time left (LIMIT=$limit)"; return 1; fi
    say "== $title"
    if timeout "$seconds" "$@" >"$dir/out" 2>"$dir/err"; then
        tail -n 40 "$dir/out" | tee -a "$results"
    else
        rc=$?
        say "FAILED ($rc): $*"
        tail -n 15 "$dir/out" | tee -a "$results"
        tail -n 60 "$dir/err" | tee -a "$results"
        failed="$failed
  $title"
        return 1
    fi
}

say "neap on a GPU, $(date '+%F %H:%M'), $(git rev-parse --short HEAD 2>/dev/null || echo 'no git')"
say "machine: ${gpu:-none found by nvidia-smi}; $cores cores of $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
nvcc=$(command -v /usr/local/cuda/bin/nvcc || command -v nvcc)
say "nvcc: $([ -n "$nvcc" ] && "$nvcc" --version | sed -n 's/.*release \([^,]*\).*/\1/p' || echo none); gcc: $(gcc -dumpfullversion)"
if [ -z "$gpu" ]; then
    say "There is no GPU here (nvidia-smi shows none). 'sh spec/gpu.sh shim' tries every step without one."
    exit 2
fi

# ---- build ----
make="make -s -j$cores BUILD=$build"
step 120 "build: test and bench without libraries" $make "$build/gpu/device_test" "$build/gpu/fleet_gpu" || exit 1
if [ "$mode" = shim ]; then
    step 120 "build: shim" $make "$build/neap_cuda_shim.so" || exit 1
    export NEAP_CUDA_SHIM="$PWD/$build/neap_cuda_shim.so"
else
    step 300 "build: neap_cuda.so for sm_${capability:-90}" $make CUDA_ARCHS="${capability:-90}" "$build/neap_cuda.so" || exit 1
    grep -A2 "entry function 'neap_fleet" "$build/neap_cuda.log" | grep -E "entry|spill|Used" >>"$results"
    export NEAP_CUDA="$PWD/$build/neap_cuda.so"
fi

# ---- checks ----
step 120 "weights bit for bit, tensors, memory (spec/c/device_test.c)" "$build/gpu/device_test"
[ "$mode" = shim ] || step 120 "the same with the matrix product of our own" env NEAP_CUBLAS=off "$build/gpu/device_test"
if command -v /usr/local/cuda/bin/compute-sanitizer >/dev/null || command -v compute-sanitizer >/dev/null; then
    sanitizer=$(command -v /usr/local/cuda/bin/compute-sanitizer || command -v compute-sanitizer)
    [ "$mode" = shim ] && skip "compute-sanitizer: no GPU" || for tool in memcheck racecheck initcheck; do
        step 90 "compute-sanitizer $tool" env NEAP_CUBLAS=off "$sanitizer" --tool "$tool" --error-exitcode 9 "$build/gpu/device_test" small
    done
else
    skip "compute-sanitizer: not installed"
fi

# ---- neap itself ----
neap=$NEAP
if [ -z "$neap" ] && $make build >"$dir/out" 2>&1; then neap=$PWD/$build/neap; fi
[ -x "$neap" ] || neap=
if [ -z "$neap" ]; then
    skip "neap itself (its libraries are not installed here; NEAP=path names a built one): spec/device/*_cases.lua, neap bench"
elif "$neap" test --version >/dev/null 2>&1; then
    step 120 "device specs through Lua" "$neap" test spec/device/tensor_cases.lua spec/device/models_cases.lua
else
    skip "spec/device/*_cases.lua: busted is not installed"
fi

# ---- the fleet, beside PyTorch, and in other tile shapes ----
models=${MODELS:-10000} windows=${WINDOWS:-10000}
mkdir "$dir/job"
step 60 "job: $models models x $windows windows, batch 64, 3 epochs" "$build/gpu/fleet_gpu" prepare "$dir/job" "$models" "$windows" 64 3
step 120 "fleet, neap alone" "$build/gpu/fleet_gpu" cuda "$dir/job"
if short 60; then :; else
    mkdir "$dir/few"
    "$build/gpu/fleet_gpu" prepare "$dir/few" $((models < 64 ? models : 64)) "$windows" 64 1
    step 60 "64 of them on one cpu core: the same weights as below" "$build/gpu/fleet_gpu" cpu 1 "$dir/few"
    step 60 "and here" "$build/gpu/fleet_gpu" cuda "$dir/few"
fi
device=cuda few=
[ "$mode" = shim ] && device=cpu few="--windows 200"
if "$python" -c 'import torch, sys; sys.exit(sys.argv[1] == "cuda" and not torch.cuda.is_available())' $device 2>/dev/null; then
    step 240 "fleet beside PyTorch, interleaved" "$python" spec/bench/fleet_peer.py "$dir/job" $device 3 "$build/gpu/fleet_gpu" cuda
    [ -z "$neap" ] || for name in train score matmul; do
        # shellcheck disable=SC2086
        step 90 "neap bench $name --device cuda" "$neap" bench "$name" --device cuda --python "$python" $few
    done
else
    skip "PyTorch beside it: $python has no torch that sees the GPU (PYTHON=path names another)"
fi
if [ "$mode" = shim ]; then
    skip "tile shapes: only speed tells them apart (spec/c/cuda_test.c is bit-exact with all of them)"
else
    for defs in "-DFLEET_LAYOUT=1" "-DFLEET_TILE=8 -DFLEET_THREADS=128" "-DFLEET_TILE=8 -DFLEET_THREADS=128 -DFLEET_LAYOUT=1"; do
        shape=$build/$(echo "$defs" | tr -dc 'A-Z0-9=')
        short 90 && skip "tile shape $defs: no time left" && continue
        if make -s -j$cores BUILD="$shape" CUDA_ARCHS="${capability:-90}" CUDA_DEFS="$defs" "$shape/neap_cuda.so" >"$dir/out" 2>&1; then
            NEAP_CUDA=$PWD/$shape/neap_cuda.so step 90 "tile shape $defs" "$build/gpu/fleet_gpu" cuda "$dir/job"
            grep -A2 "entry function 'neap_fleet_train_[24]" "$shape/neap_cuda.log" | grep -E "spill|Used" >>"$results"
        else
            skip "tile shape $defs: does not build: $(tail -n 1 "$dir/out")"
        fi
    done
fi

say "== left out:${left_out:- nothing}"
say "== failed:${failed:- nothing}"
say "$(($(date +%s) - start)) s in all; this text: $results"
[ -z "$failed" ]
