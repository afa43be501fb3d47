/* clip.h: the gradient's norm, included by each backend so that its compiler has an instruction for fma. One order everywhere: squares in double in
   eight lanes, then a tree. */
#ifndef NEAP_CLIP_H
#define NEAP_CLIP_H
#include <math.h>
#include <stddef.h>

/* min(1, clip / (norm + 1e-6)) of a gradient; n is a multiple of 8. */
static float clip_scale(const float *grad, size_t n, float clip) {
    double acc[8] = {0};
    for (size_t i = 0; i < n; i += 8)
        for (int j = 0; j < 8; j++) acc[j] = fma((double)grad[i + j], (double)grad[i + j], acc[j]);
    for (int step = 4; step; step /= 2)
        for (int j = 0; j < step; j++) acc[j] += acc[j + step];
    double scale = (double)clip / (sqrt(acc[0]) + 1e-6);
    return scale < 1.0 ? (float)scale : 1.0f;
}
#endif
