/* detect_calib.c: see detect_calib.h. */
#include "host/detect_calib.h"
#include <math.h>

void neap_detect_calib_add(neap_detect_calib *c, float score) {
    neap_detect_scale_add(&c->body, score);
    neap_detect_tail_add(&c->tail, score);
}

double neap_detect_calib_p(neap_detect_calib *c, float score) {
    if (c->body.n == 0) return 1;
    float s;
    if (neap_detect_tail_fitted(&c->tail, score, NEAP_DETECT_TAIL_CARRIED, &s) || neap_detect_tail_ranked(&c->tail, score, &s)) return pow(10.0, -s);
    uint32_t below = neap_detect_scale_below(&c->body, score);
    double p = (1.0 + c->body.n - below) / (1.0 + c->body.n), edge = (1.0 + c->tail.n) / (1.0 + (double)c->tail.seen);
    return fmax(p, edge); /* at least what the exact list says */
}

void neap_detect_calib_io(neap_detect_io *io, neap_detect_calib *c) {
    neap_detect_scale_io(io, &c->body);
    neap_detect_tail_io(io, &c->tail);
}
