/* detect_net.h: a small network that learns online: NIN inputs -> 32 -> 16 -> 1, leaky ReLU, plus a linear skip from
   the inputs to the output; Huber loss, Adam with decoupled weight decay. Sizes are fixed so that every inner loop has
   a constant length and no reduction: the compiler uses SIMD and the result is the same for any vector width. neap.mlp
   is for trained models; this one costs about 1 us a sample and has no allocation. Plain data; one thread at a time. */
#ifndef NEAP_DETECT_NET_H
#define NEAP_DETECT_NET_H
#include <stdint.h>
#include "host/detect_io.h"

enum { NEAP_DETECT_NIN = 20, NEAP_DETECT_H1 = 32, NEAP_DETECT_H2 = 16, NEAP_DETECT_BATCH = 8 };

/* All parameters in one run of floats, so that Adam is one loop. */
typedef struct neap_detect_par {
    float w1[NEAP_DETECT_NIN][NEAP_DETECT_H1]; /* input 0 is the constant 1: w1[0] is the bias */
    float w2[NEAP_DETECT_H1][NEAP_DETECT_H2];
    float b2[NEAP_DETECT_H2];
    float w3[NEAP_DETECT_H2];
    float skip[NEAP_DETECT_NIN]; /* skip[0] is the output's bias */
} neap_detect_par;

typedef struct neap_detect_net {
    uint64_t steps; /* Adam steps taken */
    float c1, c2;   /* beta1^steps, beta2^steps */
    neap_detect_par par, m, v;
} neap_detect_net;

/* Sets weights from the seed (He scaling; the output layer and the skip start at 0, so the first prediction is "no
 * change"). */
void neap_detect_net_init(neap_detect_net *net, uint64_t seed);
/* The output for one input vector (x[0] must be 1). */
float neap_detect_net_predict(const neap_detect_net *net, const float x[NEAP_DETECT_NIN]);
/* One Adam step on n <= BATCH samples: mean Huber loss (delta 1) of output - y. */
void neap_detect_net_step(neap_detect_net *net, int n, const float x[][NEAP_DETECT_NIN], const float *y, float lr, float decay);
void neap_detect_net_io(neap_detect_io *io, neap_detect_net *net);

/* The next number of a counter-based stream (splitmix64). */
static inline uint64_t neap_detect_random(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
#endif
