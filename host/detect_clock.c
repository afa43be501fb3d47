/* detect_clock.c: see detect_clock.h. */
#include "host/detect_clock.h"
#include <math.h>

enum { STEPS = NEAP_DETECT_STEPS };

static double median(const double *v, size_t n) {
    double s[STEPS];
    for (size_t i = 0; i < n; i++) {
        size_t j = i;
        for (; j > 0 && s[j - 1] > v[i]; j--) s[j] = s[j - 1];
        s[j] = v[i];
    }
    return s[n / 2];
}

int neap_detect_clock_tick(neap_detect_clock *c, double time, double gap) {
    if (!isfinite(time)) return 0;
    double step = c->timed ? time - c->last : 0;
    c->timed = 1;
    c->last = time;
    if (!(step > 0)) return 0;
    int lost = c->interval > 0 && step > gap * c->interval;
    c->step[c->steps++ % STEPS] = step;
    c->interval = median(c->step, c->steps < STEPS ? (size_t)c->steps : STEPS);
    return lost;
}

int neap_detect_clock_day_rows(const neap_detect_clock *c) {
    double rows = c->interval > 0 ? floor(86400 / c->interval + 0.5) : 0;
    return rows < 1e6 ? (int)rows : 0;
}

double neap_detect_clock_day(double time) { return isfinite(time) ? time / 86400 - floor(time / 86400) : -1; }

void neap_detect_clock_io(neap_detect_io *io, neap_detect_clock *c) {
    detect_io(io, &c->timed, sizeof c->timed);
    detect_io(io, &c->last, sizeof c->last);
    detect_io(io, &c->steps, sizeof c->steps);
    detect_io(io, &c->interval, sizeof c->interval);
    detect_io(io, c->step, sizeof c->step);
}
