/* cuda.h: the CUDA backend, a shared object of its own (neap_cuda.so) that is opened at the first use, and only where a driver is. */
#ifndef NEAP_CUDA_H
#define NEAP_CUDA_H
#include "kernels/device.h"
#include "kernels/kernels.h"

/* The backend's table, or NULL; neap_cuda_error says why not. The first call may take half a second (the driver's context). Thread-safe. */
const neap_kernels *neap_cuda_kernels(void);

/* The same for tensors. */
const neap_device *neap_cuda_device(void);

/* Why these gave NULL, or what the last CUDA job failed with. Static storage, never NULL. */
const char *neap_cuda_error(void);

/* The rule of device = "auto": does a job of `flop` operations over `models` models win on the GPU? Asks for the device only if the job is large. */
int neap_cuda_worth(double flop, size_t models);
#endif
