/* cuda.h: the CUDA backend, a shared object of its own (neap_cuda.so) that is opened at the first use, and only where a driver is. */
#ifndef NEAP_CUDA_H
#define NEAP_CUDA_H
#include "kernels/kernels.h"

/* The backend's table, or NULL; neap_cuda_error says why not. The first call may take half a second (the driver's context). Thread-safe. */
const neap_kernels *neap_cuda_kernels(void);

/* Why neap_cuda_kernels gave NULL, or what the last CUDA job failed with. Static storage, never NULL. */
const char *neap_cuda_error(void);

/* Does a job of `flop` operations over `models` models win on the GPU? No driver: 0, at no cost. */
int neap_cuda_worth(double flop, size_t models);
#endif
