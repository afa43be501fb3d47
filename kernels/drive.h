/* drive.h: whole jobs on CPU backends: epochs, early stopping, threads over models. drive.c; used as table entries by scalar.c and simd.h. */
#ifndef NEAP_DRIVE_H
#define NEAP_DRIVE_H
#include "kernels/kernels.h"

int drive_train(const neap_kernels *k, neap_train_job *jobs, size_t n, int threads, const neap_progress *p);
int drive_predict(const neap_kernels *k, neap_predict_job *jobs, size_t n, int threads, const neap_progress *p);

double neap_peak_avx2(double seconds);
double neap_peak_avx512(double seconds);

/* The CPU tables; the vector ones exist on x86-64 only. */
extern const neap_kernels neap_kernels_scalar, neap_kernels_avx2, neap_kernels_avx512;
#endif
