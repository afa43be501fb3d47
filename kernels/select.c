/* select.c: which CPU backend runs. Chosen once per process from the CPU's features; NEAP_ISA narrows it for tests. */
#include "kernels/drive.h"
#include <stdlib.h>
#include <string.h>

const neap_kernels *neap_kernels_named(const char *name) {
    if (!strcmp(name, "scalar")) return &neap_kernels_scalar;
#if defined(__x86_64__)
    if (!strcmp(name, "avx2") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &neap_kernels_avx2;
    if (!strcmp(name, "avx512") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl"))
        return &neap_kernels_avx512;
#endif
    return NULL;
}

const neap_kernels *neap_kernels_cpu(void) {
    static const char *const order[] = {"avx512", "avx2", "scalar"};
    static _Atomic(const neap_kernels *) chosen; /* two threads that race choose the same */
    const neap_kernels *k = chosen;
    if (k) return k;
    const char *wish = getenv("NEAP_ISA");
    if (wish && *wish) k = neap_kernels_named(wish);
    for (int i = 0; !k && i < 3; i++) k = neap_kernels_named(order[i]);
    return chosen = k;
}

double neap_kernels_peak(const neap_kernels *k, double seconds) {
#if defined(__x86_64__)
    if (k == &neap_kernels_avx512) return neap_peak_avx512(seconds);
    if (k == &neap_kernels_avx2) return neap_peak_avx2(seconds);
#endif
    return 0.0;
}
