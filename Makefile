# neap: `make` builds, `make demo` runs the main job, `make test` passes the tests, `make help` lists the rest.

# ---- configuration -------------------------------------------------------------------------------------------------
SANITIZER ?=
BUILD     ?= build$(if $(SANITIZER),/$(SANITIZER))
PREFIX    ?= /usr/local
DESTDIR   ?=
CC        ?= gcc
V         ?= 0
JOBS      ?= $(shell nproc)
Q         := $(if $(filter 1,$(V)),,@)

VERSION := 0.1.0
PKGS    := lua5.4 hiredis libmicrohttpd libuv libcurl zlib
# libcurl is opened when needed (host/fetch_curl.h). Lua is linked statically with its symbols exported: C rocks built for Lua 5.4 then load unchanged.
PKG_CFLAGS = $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
# mimalloc, where it is installed, takes malloc's place in the program (never in libneap): 0.3 us less a request. Sanitizers need their own.
MALLOC     = $(if $(SANITIZER),,$(if $(wildcard /usr/include/mimalloc.h),-lmimalloc))
PKG_LIBS   = -Wl,-E -l:liblua5.4.a $(shell pkg-config --libs $(filter-out lua5.4 libcurl,$(PKGS)) 2>/dev/null) -lm -ldl -lpthread

# -ffp-contract=off: the compiler must not fuse a*b+c by itself; "one seed, one result" depends on it.
OPT      ?= -O2 -g -fno-semantic-interposition -fno-plt
CPPFLAGS += -D_GNU_SOURCE -DNEAP_VERSION='"$(VERSION)"' -I. -Ihost/include $(PKG_CFLAGS)
CFLAGS   += -std=gnu11 $(OPT) -Wall -Wextra -Wno-unused-parameter -Wmissing-prototypes -Wshadow -fno-strict-aliasing -ffp-contract=off \
            -fvisibility=default -fPIC $(if $(SANITIZER),-fsanitize=$(SANITIZER) -fno-omit-frame-pointer)
LDFLAGS  += $(if $(SANITIZER),-fsanitize=$(SANITIZER))

,  := ,
# ---- sources: every .c file in its folder belongs -------------------------------------------------------------------
KERNEL_SRC := $(wildcard kernels/*.c)
HOST_SRC   := $(wildcard host/*.c)
API_SRC    := $(filter-out host/api/main.c,$(wildcard host/api/*.c))
OBJ        := $(patsubst %.c,$(BUILD)/%.o,$(KERNEL_SRC) $(HOST_SRC) $(API_SRC)) $(BUILD)/embed.o
CORE_OBJ   := $(patsubst %.c,$(BUILD)/%.o,$(KERNEL_SRC) $(HOST_SRC))
CTEST_SRC  := $(wildcard spec/c/*_test.c)
CTESTS     := $(patsubst spec/c/%.c,$(BUILD)/ctest/%,$(CTEST_SRC))
EMBEDDED   := $(shell find lua/neap lua/meta scripts host/include/neap_ext.h -path scripts/examples -prune -o -type f -print 2>/dev/null | sort)

.PHONY: gpu cuda all check-oom help setup setup-test build test demo check check-format check-includes check-lua conformance bench soak fuzz fuzzers dist compat clean ctest compdb install
## make              build build/neap
all: setup
	@$(MAKE) --no-print-directory -j$(JOBS) build cuda
build: $(BUILD)/neap

setup:
	@sh scripts/setup.sh build
setup-test:
	@sh scripts/setup.sh test

help:
	@sed -n 's/^##  *//p' $(firstword $(MAKEFILE_LIST))

# ---- rules ---------------------------------------------------------------------------------------------------------
$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	@echo "  cc   $<"
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c $< -o $@

$(BUILD)/kernels/%_avx2.o:   CFLAGS += -mavx2 -mfma
$(BUILD)/kernels/%_avx512.o: CFLAGS += -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma
$(BUILD)/kernels/%.o:        CFLAGS += -O3
$(BUILD)/host/tensor_math.o $(BUILD)/host/tensor_reduce.o: CFLAGS += -O3
$(BUILD)/host/detect_net.o: CFLAGS += -O3 -fno-math-errno -fno-trapping-math

# The CUDA backend is a shared object of its own, opened only where a driver is; the program never needs it. Explicit rounding is in the source, -fmad=false
# keeps the compiler from fusing the rest. Machine code for sm_75, 80, 86 (89 runs it) and 90, PTX for what comes later (the driver compiles it at first
# use); CUDA_ARCHS="90" is the quick build for one GPU.
NVCC       ?= $(firstword $(wildcard /usr/local/cuda/bin/nvcc) $(shell command -v nvcc 2>/dev/null))
CUDA_ARCHS ?= 75 80 86 90
CUDA_DEFS  ?=
CUDA_SRC   := $(sort $(wildcard kernels/cuda/*.cu)) kernels/perm.c kernels/net.c
CUDA_OBJ   := $(CUDA_SRC:%=$(BUILD)/cuda/%.o)
CUDA_ARCH_FLAGS := $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$(a)$(,)code=sm_$(a)) -gencode arch=compute_75$(,)code=compute_75
NVCC_FLAGS = -O3 -std=c++17 -fmad=false -Xptxas -v --threads 2 $(CUDA_ARCH_FLAGS) $(CUDA_DEFS) -I. -Xcompiler -fPIC$(,)-fvisibility=hidden$(,)-ffp-contract=off
cuda: $(if $(NVCC),$(if $(SANITIZER),,$(BUILD)/neap_cuda.so))
	@$(if $(NVCC),:,echo "  cuda: no nvcc here, built without the CUDA backend")
$(BUILD)/cuda/%.o: % $(wildcard kernels/cuda/*.h) kernels/kernels.h kernels/device.h kernels/elementwise.h kernels/formulas.h kernels/perm.h
	@mkdir -p $(@D)
	@echo "  nvcc $<"
	$(Q)nice $(NVCC) $(NVCC_FLAGS) -c -o $@ $< > $@.log 2>&1 || { cat $@.log; rm -f $@; exit 1; }
$(BUILD)/neap_cuda.so: $(CUDA_OBJ)
	@echo "  nvcc $@"
	$(Q)$(NVCC) $(CUDA_ARCH_FLAGS) -Xlinker --no-undefined -shared --cudart static -o $@.tmp $(CUDA_OBJ) -ldl && cat $(CUDA_OBJ:%=%.log) > $(BUILD)/neap_cuda.log && mv $@.tmp $@

# The same sources as plain C over the fiber shim: the whole backend without a GPU, for the specs (NEAP_CUDA_SHIM).
$(BUILD)/neap_cuda_shim.so: $(CUDA_SRC) spec/c/shim_cuda.c $(wildcard kernels/cuda/*.h kernels/*.h spec/c/shim*.h)
	@mkdir -p $(@D)
	@echo "  shim $@"
	$(Q)$(CC) -D_GNU_SOURCE -I. -std=gnu11 -O2 -g -ffp-contract=off -fPIC -fvisibility=hidden -fno-strict-aliasing -Wall -Wextra -Wno-unused-parameter \
	    $(if $(filter-out thread,$(SANITIZER)),-fsanitize=$(SANITIZER)) -shared -o $@ -x c $(CUDA_SRC) spec/c/shim_cuda.c -x none -lm -lpthread -ldl

# For GPU machines that have compilers and nothing else: the backend's test and the fleet bench, without Lua and libraries (spec/gpu.sh).
GPU_OBJ := $(patsubst %.c,$(BUILD)/%.o,$(KERNEL_SRC) host/cuda.c host/err.c host/tensor.c host/tensor_device.c host/tensor_math.c host/tensor_reduce.c)
$(BUILD)/gpu/device_test: spec/c/device_test.c
$(BUILD)/gpu/fleet_gpu: spec/bench/fleet_gpu.c
$(BUILD)/gpu/device_test $(BUILD)/gpu/fleet_gpu: $(GPU_OBJ)
	@mkdir -p $(@D)
	@echo "  link $@"
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -o $@ $(filter %.c,$^) $(GPU_OBJ) -lm -ldl -lpthread

## make gpu          on a GPU machine: specs, compute-sanitizer, tile shapes and benches; results to spec/results/ (MODE=shim tries it without a GPU)
gpu:
	@sh spec/gpu.sh $(MODE)

# Lua modules and scripts travel inside the binary (.incbin, so a rebuild costs nothing).
$(BUILD)/embed.s: host/embed.sh $(EMBEDDED)
	@mkdir -p $(@D)
	$(Q)sh host/embed.sh $(EMBEDDED) > $@
$(BUILD)/embed.o: $(BUILD)/embed.s
	$(Q)$(CC) -c $< -o $@

$(BUILD)/libneap.a: $(OBJ)
	@rm -f $@
	$(Q)ar rcs $@ $(OBJ)

$(BUILD)/libcore.a: $(CORE_OBJ)
	@rm -f $@
	$(Q)ar rcs $@ $(CORE_OBJ)

$(BUILD)/neap: $(BUILD)/host/api/main.o $(BUILD)/libneap.a
	@echo "  link $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $< -Wl,--whole-archive $(BUILD)/libneap.a -Wl,--no-whole-archive $(MALLOC) $(PKG_LIBS)

# ---- tests ---------------------------------------------------------------------------------------------------------
# spec/c/NAME_test.c is a program of its own, linked with the core (no Lua); exit 0 and a last line "N passed, N failed".
$(BUILD)/ctest/device_test: $(if $(filter thread,$(SANITIZER)),,$(BUILD)/neap_cuda_shim.so)
$(BUILD)/ctest/%: spec/c/%.c $(BUILD)/libcore.a
	@mkdir -p $(@D)
	@echo "  ctest $*"
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP $(LDFLAGS) -o $@ $< $(BUILD)/libcore.a $(PKG_LIBS)

# NAME_host_test.c embeds the whole host. In oom_host_test our own allocations can be made to fail.
$(BUILD)/ctest/oom_host_test: LDFLAGS += $(foreach f,malloc calloc realloc strdup strndup,-Wl$(,)--wrap=$(f))
$(BUILD)/ctest/%_host_test: spec/c/%_host_test.c $(BUILD)/libneap.a
	@mkdir -p $(@D)
	@echo "  ctest $*_host"
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP $(LDFLAGS) -o $@ $< -Wl,--whole-archive $(BUILD)/libneap.a -Wl,--no-whole-archive $(PKG_LIBS)

# Fuzz targets (spec/fuzz/NAME_fuzz.c) with a driver of our own; `make fuzz` has libFuzzer drive them.
FUZZERS := $(patsubst spec/fuzz/%_fuzz.c,$(BUILD)/ctest/fuzz_%,$(wildcard spec/fuzz/*_fuzz.c))
$(BUILD)/ctest/fuzz_%: spec/fuzz/%_fuzz.c spec/fuzz/standalone.c $(BUILD)/libcore.a
	@mkdir -p $(@D)
	@echo "  fuzz  $*"
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $< spec/fuzz/standalone.c $(BUILD)/libcore.a $(PKG_LIBS)

## make fuzz FUZZ=json SECONDS=60   libFuzzer on one decoder (clang)
FUZZ ?= json
FUZZ_SRC = $(filter host/json% host/num% host/readings% host/record.c host/lineproto% host/collectd% host/inflate%,$(HOST_SRC))
SECONDS ?= 60
fuzz:
	@mkdir -p build/fuzz/$(FUZZ)
	clang -g -O1 -fsanitize=fuzzer,address,undefined $(CPPFLAGS) -std=gnu11 -ffp-contract=off -Wno-everything -o build/fuzz/$(FUZZ)_fuzz \
	    spec/fuzz/$(FUZZ)_fuzz.c $(FUZZ_SRC) -lz -lm
	build/fuzz/$(FUZZ)_fuzz -max_total_time=$(SECONDS) build/fuzz/$(FUZZ) spec/fuzz/corpus/$(FUZZ)

fuzzers: $(FUZZERS)
## make check-oom    every single allocation of the scripts in spec/oom fails once (the tests try some of them)
check-oom: $(BUILD)/ctest/oom_host_test
	@NEAP_OOM_LIVES=0 $< $(SCRIPTS)

ctest: $(CTESTS)
	@rc=0; for t in $(CTESTS); do $$t || rc=1; done; exit $$rc

## make test         all specs and C tests (SANITIZER=address|undefined|thread for a sanitized build)
test: setup-test
	@$(MAKE) --no-print-directory -j$(JOBS) build $(if $(SANITIZER),,cuda) $(BUILD)/neap_cuda_shim.so $(CTESTS) $(FUZZERS)
	@sh spec/run.sh $(BUILD) $(SPECS)

## make demo         the whole main job on a private Redis (DATA=file.csv LABELS=file.json for your own)
demo: all
	@$(BUILD)/neap demo $(if $(DATA),--data "$(DATA)") $(if $(LABELS),--labels "$(LABELS)")

## make check        formatting, luacheck, include direction, then the tests
check: check-format check-includes check-lua test
check-format:
	@bad=$$(for f in $$(git ls-files "*.c" "*.h"); do clang-format --dry-run -Werror $$f >/dev/null 2>&1 || echo $$f; done); [ -z "$$bad" ] && echo "format: ok" || { echo "not as clang-format wants it:"; echo "$$bad"; exit 1; }
check-includes:
	@sh spec/includes.sh
check-lua:
	@luacheck -q lua scripts spec

## make conformance SUITES=DIR   public suites that are not in the tree (Lua's own tests, JSONTestSuite, line protocol)
conformance: build
	@sh spec/conformance/run.sh $(BUILD)/neap "$(SUITES)"

## make compat       compile check against the next Debian's headers (hiredis 1.x, libmicrohttpd 1.0, Lua 5.4.7)
compat:
	@sh spec/compat.sh

## make compdb       compile_commands.json for editors
compdb:
	@bear --output compile_commands.json -- $(MAKE) -B build

## make bench        what neap is measured by, beside its peers (neap bench NAME for one)
bench: build
	@for b in $$($(BUILD)/neap bench --list); do echo "== neap bench $$b"; $(BUILD)/neap bench $$b || exit 1; done

## make soak         the long counts of kills, fuzzing and leaks, 15 minutes; results to spec/results/
soak: setup-test
	@sh spec/soak.sh

# ---- packages ------------------------------------------------------------------------------------------------------
## make install PREFIX=/usr/local DESTDIR=   binary, libneap, neap.h, pkg-config file, editor definitions
install: build $(BUILD)/libneap.so
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/pkgconfig $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(PREFIX)/share/neap/meta
	install -m 755 $(BUILD)/neap $(DESTDIR)$(PREFIX)/bin/neap
	install -m 644 $(BUILD)/libneap.a $(BUILD)/libneap.so $(DESTDIR)$(PREFIX)/lib/
	install -m 644 host/include/neap.h host/include/neap_ext.h $(DESTDIR)$(PREFIX)/include/
	install -m 644 lua/meta/*.lua $(DESTDIR)$(PREFIX)/share/neap/meta/
	sed -e 's|@PREFIX@|$(PREFIX)|; s|@VERSION@|$(VERSION)|' host/include/neap.pc.in > $(DESTDIR)$(PREFIX)/lib/pkgconfig/neap.pc
	@if [ -f $(BUILD)/neap_cuda.so ]; then install -d $(DESTDIR)$(PREFIX)/lib/neap && install -m 644 $(BUILD)/neap_cuda.so $(DESTDIR)$(PREFIX)/lib/neap/; fi

# The shared library leaves Lua to liblua5.4.so: the program and its C rocks then share one Lua.
$(BUILD)/libneap.so: $(OBJ)
	@echo "  link $@"
	$(Q)$(CC) -shared $(LDFLAGS) -o $@ $(OBJ) -llua5.4 $(filter-out -Wl$(,)-E -l:liblua5.4.a,$(PKG_LIBS))

## make dist         a tarball that runs on another x86-64 machine: binary, its libraries, CUDA backend if built, redis-server
dist: $(BUILD)/dist/neap
	@sh scripts/dist.sh $(BUILD) $(VERSION)
$(BUILD)/dist/neap: $(BUILD)/neap
	@mkdir -p $(@D)
	@echo "  link $@"
	$(Q)$(CC) $(LDFLAGS) -Wl,--disable-new-dtags,-rpath,'$$ORIGIN/../lib' -o $@ $(BUILD)/host/api/main.o -Wl,--whole-archive $(BUILD)/libneap.a -Wl,--no-whole-archive $(MALLOC) $(PKG_LIBS)

## make clean        remove build/
clean:
	rm -rf build

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
