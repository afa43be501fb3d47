/* shim.h: runs CUDA device code on the CPU, one block at a time: threads are fibers, a barrier is a yield, shared memory starts as NaN. In which
   order threads run between two barriers is chosen by the test; code that is right under forward, reverse and random order does not depend on it.
   Blind to races inside one warp's lockstep, weak memory and bank conflicts. */
#ifndef NEAP_SHIM_H
#define NEAP_SHIM_H
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define SHIM_THREADS 256
#define SHIM_STACK   (64 << 10)

enum { SHIM_FORWARD, SHIM_REVERSE, SHIM_RANDOM };

static int shim_thread, shim_threads, shim_block;
static __attribute__((unused)) int shim_blocks = 1;
static float *shim_shared;
static int shim_skip;     /* this barrier is left out: its absence must be noticed */
static unsigned shim_met; /* bit per barrier number that was reached */
static ucontext_t shim_main, shim_fiber[SHIM_THREADS];
static char *shim_stacks;
static char shim_over[SHIM_THREADS];
static void (*shim_body)(void *);
static void *shim_arg;

static inline void shim_sync(int id) {
    shim_met |= 1u << id;
    if (id == shim_skip) return;
    swapcontext(&shim_fiber[shim_thread], &shim_main);
}

static void shim_entry(void) {
    shim_body(shim_arg);
    shim_over[shim_thread] = 1;
}

/* Runs body(arg) as block `number` of `threads` threads. */
static __attribute__((unused)) void shim_run_block(void (*body)(void *), void *arg, int number, int threads, size_t shared_bytes, int order) {
    static uint64_t state = 88172645463325252u;
    shim_body = body, shim_arg = arg, shim_block = number, shim_threads = threads;
    shim_shared = aligned_alloc(64, (shared_bytes + 63) / 64 * 64);
    memset(shim_shared, 0xFF, shared_bytes); /* NaN in every float and double */
    if (!shim_stacks) shim_stacks = malloc((size_t)SHIM_THREADS * SHIM_STACK);
    for (int i = 0; i < threads; i++) {
        getcontext(&shim_fiber[i]);
        shim_fiber[i].uc_stack.ss_sp = shim_stacks + (size_t)i * SHIM_STACK;
        shim_fiber[i].uc_stack.ss_size = SHIM_STACK;
        shim_fiber[i].uc_link = &shim_main;
        makecontext(&shim_fiber[i], shim_entry, 0);
        shim_over[i] = 0;
    }
    for (int left = threads; left > 0;) {
        int turn[SHIM_THREADS];
        for (int i = 0; i < threads; i++) turn[i] = order == SHIM_REVERSE ? threads - 1 - i : i;
        for (int i = threads - 1; order == SHIM_RANDOM && i > 0; i--) {
            state ^= state << 13, state ^= state >> 7, state ^= state << 17;
            int k = (int)(state % (uint64_t)(i + 1)), keep = turn[i];
            turn[i] = turn[k], turn[k] = keep;
        }
        for (int i = 0; i < threads; i++) {
            shim_thread = turn[i];
            if (shim_over[shim_thread]) continue;
            swapcontext(&shim_main, &shim_fiber[shim_thread]);
            left -= shim_over[shim_thread];
        }
    }
    free(shim_shared);
}
#endif
