/* detect_line.c: see detect_line.h. */
#include "host/detect_line.h"
#include <math.h>

enum { N = NEAP_DETECT_LINE_IN };

void neap_detect_line_init(neap_detect_line *l) {
    memset(l, 0, sizeof *l);
    for (int i = 0; i < N; i++) l->cov[i][i] = 0.1;
}

double neap_detect_line_predict(const neap_detect_line *l, const double x[N]) {
    double y = 0;
    for (int i = 0; i < N; i++) y += l->w[i] * x[i];
    return y;
}

void neap_detect_line_learn(neap_detect_line *l, const double x[N], double y, double forget) {
    double cx[N], power = 0, trace = 0, e = y - neap_detect_line_predict(l, x);
    for (int i = 0; i < N; i++) {
        cx[i] = 0;
        for (int j = 0; j < N; j++) cx[i] += l->cov[i][j] * x[j];
        power += x[i] * cx[i];
        trace += l->cov[i][i];
    }
    if (!(power >= 0) || !(trace < 1e12)) return neap_detect_line_init(l); /* lost to rounding: begin anew */
    if (trace > 1e3) forget = 1;                                           /* inputs that stand still must not inflate it */
    double gain = 1 / (forget + power);
    e = fmax(-1, fmin(1, e));
    for (int i = 0; i < N; i++) l->w[i] += gain * cx[i] * e;
    for (int i = 0; i < N; i++)
        for (int j = 0; j <= i; j++) l->cov[i][j] = l->cov[j][i] = (l->cov[i][j] - gain * cx[i] * cx[j]) / forget;
}

void neap_detect_line_io(neap_detect_io *io, neap_detect_line *l) {
    detect_io(io, l->w, sizeof l->w);
    detect_io(io, l->cov, sizeof l->cov);
}
