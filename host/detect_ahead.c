/* detect_ahead.c: see detect_ahead.h. */
#include "host/detect_ahead.h"
#include <math.h>

enum { PENDING = NEAP_DETECT_PENDING, OPINIONS = NEAP_DETECT_OPINIONS };
enum { NET, LINE, NOW, LONGER, DAYS_BEFORE };

void neap_detect_ahead_init(neap_detect_ahead *a, int f, uint64_t seed) {
    memset(a, 0, sizeof *a);
    a->f = f;
    neap_detect_net_init(&a->net, seed);
    neap_detect_line_init(&a->line);
}

int neap_detect_ahead_get(const neap_detect_ahead *a, const neap_detect_past *p, uint64_t row, double *value) {
    uint64_t k = (uint64_t)neap_detect_span[a->f];
    if (row < k) return 0;
    *value = p->origin + a->blend[(row - k) % PENDING];
    return 1;
}

static void line_inputs(const neap_detect_past *p, int f, double day, double x[NEAP_DETECT_LINE_IN]) {
    uint64_t t = p->rows - 1;
    const float *mean = neap_detect_past_means(p, f, t);
    double now = mean[f];
    int i = 0;
    x[i++] = 1;
    x[i++] = 0.3 * now;
    for (int m = 0; m < 4; m++)
        if (m != f) x[i++] = mean[m] - now;
    x[i++] = neap_detect_past_units(p, f, p->origin + day) - now;
    for (uint64_t lag = 1; lag <= 4; lag *= 2) x[i++] = neap_detect_past_z(p, f, t < lag ? 0 : t - lag) - now;
    x[i++] = t < 12 ? 0 : neap_detect_past_z(p, f, t - 12) - now;
    _Static_assert(2 + 3 + 1 + 3 + 1 == NEAP_DETECT_LINE_IN, "inputs");
}

static void judge_and_learn(neap_detect_ahead *a, const neap_detect_ahead_config *c, const neap_detect_past *p, uint64_t *random) {
    uint64_t t = p->rows - 1, k = (uint64_t)neap_detect_span[a->f];
    if (t < k) return;
    if (neap_detect_past_whole(p, a->f, t)) {
        size_t i = (t - k) % PENDING;
        for (int e = 0; e < OPINIONS; e++) a->err[e] += c->discount * (fabs(a->said[i][e] - p->y[a->f]) - a->err[e]);
        double change = neap_detect_past_z(p, a->f, t) - neap_detect_past_z(p, a->f, t - k);
        neap_detect_line_learn(&a->line, a->inputs[i], change, c->forget);
    }
    if (t < k + 1) return;
    uint64_t room = c->replay < t - k ? c->replay : t - k;
    uint32_t steps = t < c->early_rows ? c->early_steps : c->steps;
    float rate = fmaxf(c->learn_rate[a->f], 1e-3f * fminf(1.0f, (float)c->early_rows / (float)t));
    for (uint32_t s = 0; s < steps; s++) {
        float x[NEAP_DETECT_BATCH][NEAP_DETECT_NIN], y[NEAP_DETECT_BATCH];
        int n = 0;
        for (int b = 0; b < NEAP_DETECT_BATCH; b++) { /* this row once, the rest replayed */
            uint64_t r = s == 0 && b == 0 ? t : t - 1 - neap_detect_random(random) % room;
            if (r < k || !neap_detect_past_whole(p, a->f, r)) continue;
            neap_detect_past_inputs(p, a->f, r - k, x[n]);
            y[n++] = neap_detect_past_z(p, a->f, r) - neap_detect_past_z(p, a->f, r - k);
        }
        if (n) neap_detect_net_step(&a->net, n, x, y, rate, c->decay);
    }
}

static void look_ahead(neap_detect_ahead *a, const neap_detect_ahead_config *c, const neap_detect_past *p, int day_rows) {
    uint64_t t = p->rows - 1;
    int f = a->f;
    const neap_detect_scale *seen = &p->scale[f];
    double over = c->over * (seen->hi - seen->lo), lo = seen->lo - over, hi = seen->hi + over;
    double *said = a->said[t % PENDING], *line_x = a->inputs[t % PENDING];
    float x[NEAP_DETECT_NIN], z = neap_detect_past_z(p, f, t);
    neap_detect_past_inputs(p, f, t, x);
    said[DAYS_BEFORE] = neap_detect_past_days(p, f, day_rows, neap_detect_span[f]);
    line_inputs(p, f, said[DAYS_BEFORE], line_x);
    said[NET] = neap_detect_past_value(p, f, z + neap_detect_net_predict(&a->net, x)) - p->origin;
    said[LINE] = neap_detect_past_value(p, f, z + (float)neap_detect_line_predict(&a->line, line_x)) - p->origin;
    said[NOW] = p->y[f];
    said[LONGER] = p->y[f ? 3 : 1];
    double best = INFINITY, sum = 0, total = 0;
    for (int e = 0; e < OPINIONS; e++) best = fmin(best, a->err[e]);
    for (int e = 0; e < OPINIONS; e++) {
        said[e] = fmax(lo, fmin(hi, said[e])); /* never far from where the series has been */
        double w = best > 0 ? exp(-c->sharp[f] * (a->err[e] / best - 1)) : a->err[e] > 0 ? 0 : 1;
        sum += w * said[e];
        total += w;
    }
    a->blend[t % PENDING] = sum / total;
}

void neap_detect_ahead_step(neap_detect_ahead *a, const neap_detect_ahead_config *c, const neap_detect_past *p, int day_rows, uint64_t *random) {
    judge_and_learn(a, c, p, random);
    look_ahead(a, c, p, day_rows);
}

void neap_detect_ahead_io(neap_detect_io *io, neap_detect_ahead *a) {
    detect_io(io, &a->f, sizeof a->f);
    detect_io_check(io, a->f == 0 || a->f == 1);
    detect_io(io, a->blend, sizeof a->blend);
    detect_io(io, a->said, sizeof a->said);
    detect_io(io, a->inputs, sizeof a->inputs);
    detect_io(io, a->err, sizeof a->err);
    neap_detect_net_io(io, &a->net);
    neap_detect_line_io(io, &a->line);
}
