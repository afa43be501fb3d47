/* entry.h: how host/cuda.c and neap_cuda.so meet. */
#ifndef NEAP_CUDA_ENTRY_H
#define NEAP_CUDA_ENTRY_H
#include "kernels/device.h"
#include "kernels/kernels.h"

#define NEAP_CUDA_ABI (100 * NEAP_KERNELS_ABI + NEAP_DEVICE_ABI) /* either table changed: another number */

typedef struct neap_cuda_entry {
    const neap_kernels *kernels;
    const neap_device *device;
    const char *(*error)(void); /* what failed last; never NULL */
} neap_cuda_entry;

/* The one symbol of neap_cuda.so: int neap_cuda_open(uint32_t abi, neap_cuda_entry *entry). 0, or not and entry->error says why. */
#endif
