/* detect_net.c: see detect_net.h. Shapes stand after each pointer; loops run over the outputs in the innermost
 * position. */
#include "host/detect_net.h"
#include <math.h>

enum { NIN = NEAP_DETECT_NIN, H1 = NEAP_DETECT_H1, H2 = NEAP_DETECT_H2 };
#define LEAK 0.01f
#define TINY 1e-25f

void neap_detect_net_init(neap_detect_net *net, uint64_t seed) {
    memset(net, 0, sizeof *net);
    net->c1 = net->c2 = 1;
    uint64_t state = seed;
    float *w[2] = {&net->par.w1[1][0], &net->par.w2[0][0]};
    int count[2] = {(NIN - 1) * H1, H1 * H2};
    float scale[2] = {sqrtf(6.0f / NIN), sqrtf(6.0f / H1)};
    for (int l = 0; l < 2; l++)
        for (int i = 0; i < count[l]; i++) w[l][i] = scale[l] * ((float)(neap_detect_random(&state) >> 40) / 8388608.0f - 1.0f);
    state ^= 0x5bf03635;
    for (int i = 0; i < H2; i++) net->par.w3[i] = 0;
    for (int i = 0; i < H2; i++) net->par.b2[i] = 0;
}

/* Forward: pre-activations z1 [32], z2 [16]; activations a1, a2. Returns the output. */
static float forward(const neap_detect_par *p, const float *x /* [NIN] */, float *a1 /* [H1] */, float *a2 /* [H2] */) {
    for (int j = 0; j < H1; j++) a1[j] = 0;
    for (int i = 0; i < NIN; i++)
        for (int j = 0; j < H1; j++) a1[j] += x[i] * p->w1[i][j];
    for (int j = 0; j < H1; j++) a1[j] = a1[j] > 0 ? a1[j] : LEAK * a1[j];
    for (int j = 0; j < H2; j++) a2[j] = p->b2[j];
    for (int i = 0; i < H1; i++)
        for (int j = 0; j < H2; j++) a2[j] += a1[i] * p->w2[i][j];
    for (int j = 0; j < H2; j++) a2[j] = a2[j] > 0 ? a2[j] : LEAK * a2[j];
    float out = 0;
    for (int j = 0; j < H2; j++) out += a2[j] * p->w3[j];
    for (int i = 0; i < NIN; i++) out += x[i] * p->skip[i];
    return out;
}

float neap_detect_net_predict(const neap_detect_net *net, const float x[NIN]) {
    float a1[H1], a2[H2];
    return forward(&net->par, x, a1, a2);
}

/* Adds one sample's gradient to g, given d = dloss/doutput. w2t [H2][H1] is w2 transposed. */
static void backward(const neap_detect_par *p, const float w2t[H2][H1], const float *x, const float *a1, const float *a2, float d,
                     neap_detect_par *g) {
    float d2[H2], d1[H1];
    for (int i = 0; i < NIN; i++) g->skip[i] += d * x[i];
    for (int j = 0; j < H2; j++) g->w3[j] += d * a2[j];
    for (int j = 0; j < H2; j++) d2[j] = d * p->w3[j] * (a2[j] > 0 ? 1.0f : LEAK);
    for (int j = 0; j < H2; j++) g->b2[j] += d2[j];
    for (int i = 0; i < H1; i++)
        for (int j = 0; j < H2; j++) g->w2[i][j] += a1[i] * d2[j];
    for (int i = 0; i < H1; i++) d1[i] = 0;
    for (int j = 0; j < H2; j++)
        for (int i = 0; i < H1; i++) d1[i] += d2[j] * w2t[j][i];
    for (int i = 0; i < H1; i++) d1[i] *= a1[i] > 0 ? 1.0f : LEAK;
    for (int i = 0; i < NIN; i++)
        for (int j = 0; j < H1; j++) g->w1[i][j] += x[i] * d1[j];
}

/* Adam, bias-corrected: w -= lr * (m^ / (sqrt(v^) + eps) + decay * w). + TINY - TINY sets what has decayed to nothing to 0:
   denormals would cost a hundred cycles each. */
static void adam(float *restrict w, float *restrict m, float *restrict v, const float *restrict g, float lr, float decay, float k1, float k2) {
    for (size_t i = 0; i < sizeof(neap_detect_par) / sizeof(float); i++) {
        m[i] = m[i] + 0.1f * (g[i] - m[i]) + TINY - TINY;
        v[i] = v[i] + 0.001f * (g[i] * g[i] - v[i]) + TINY - TINY;
        w[i] -= lr * (m[i] * k1 / (sqrtf(v[i] * k2) + 1e-8f) + decay * w[i]);
    }
}

void neap_detect_net_step(neap_detect_net *net, int n, const float x[][NIN], const float *y, float lr, float decay) {
    neap_detect_par g;
    float w2t[H2][H1], a1[H1], a2[H2];
    memset(&g, 0, sizeof g);
    for (int i = 0; i < H1; i++)
        for (int j = 0; j < H2; j++) w2t[j][i] = net->par.w2[i][j];
    for (int b = 0; b < n; b++) {
        float e = forward(&net->par, x[b], a1, a2) - y[b];
        float d = e > 1 ? 1 : e < -1 ? -1 : e;
        backward(&net->par, w2t, x[b], a1, a2, d / (float)n, &g);
    }
    net->steps++;
    net->c1 *= 0.9f;
    net->c2 *= 0.999f;
    adam((float *)&net->par, (float *)&net->m, (float *)&net->v, (const float *)&g, lr, decay, 1.0f / (1.0f - net->c1), 1.0f / (1.0f - net->c2));
}

void neap_detect_net_io(neap_detect_io *io, neap_detect_net *net) {
    detect_io(io, &net->steps, sizeof net->steps);
    detect_io(io, &net->c1, sizeof net->c1);
    detect_io(io, &net->c2, sizeof net->c2);
    detect_io(io, &net->par, sizeof net->par);
    detect_io(io, &net->m, sizeof net->m);
    detect_io(io, &net->v, sizeof net->v);
}
