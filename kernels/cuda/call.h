/* call.h: the device memory of one training or scoring call: bump arenas over blocks of the allocator, arrays that several jobs share and that travel
   once, plans of the networks, and the results to fetch. Everything goes at the end of the call. */
#ifndef NEAP_CUDA_CALL_H
#define NEAP_CUDA_CALL_H
#include "kernels/cuda/memory.h"
#include "kernels/cuda/plan.h"

typedef struct call_arena { /* what is taken in turn lies side by side, so that it travels together */
    char *at;
    size_t left, grown; /* grown: size of the last block; they double */
} call_arena;

typedef struct call_upload {
    const void *host;
    size_t bytes;
    void *dev;
} call_upload;

typedef struct call_fetch {
    const char *dev;
    void *host;
    size_t bytes;
} call_fetch;

typedef struct call {
    cudaStream_t stream;
    gpu_stage stage;
    void **blocks; /* to free at the end */
    size_t block_count, block_cap;
    call_arena in, state, moments, scratch; /* read only; weights; moments; losses, gradients, outputs */
    call_upload *seen;                      /* by host address: open addressing, power of two */
    size_t seen_cap, seen_count;
    neap_plan *host_plans; /* distinct networks */
    const neap_net **nets;
    neap_plan **plans; /* on the device */
    int plan_count;
    call_fetch *fetch;
    size_t fetch_count, fetch_cap;
    int rc; /* the first failure; later steps do nothing */
} call;

void call_open(call *c);
void call_close(call *c);
void *call_take(call *c, call_arena *a, size_t bytes); /* 16-byte aligned; NULL after a failure */
void call_put(call *c, void *to, const void *from, size_t bytes);
void call_zero(call *c, void *p, size_t bytes);
const void *call_share(call *c, const void *host, size_t bytes);           /* the device copy of a read-only array; NULL stays NULL */
neap_data call_data(call *c, const neap_net *net, const neap_data *d);     /* a data set with device pointers */
int call_plan(call *c, const neap_net *net);                               /* number of the network's plan; -1 after a failure */
void call_fetch_later(call *c, void *host, const void *dev, size_t bytes); /* noted; call_fetch_all does it */
void call_fetch_all(call *c);
void call_wait(call *c, const char *what);
void call_check(call *c, cudaError_t e, const char *what);
#endif
