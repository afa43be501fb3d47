/* detect_test.c: the parts of the online detector against oracles (sorted copies, numeric gradients, known
   distributions), and the whole: causal to the bit, restorable to the bit at any row, indifferent to gaps, missing
   values and constants. */
#include <math.h>
#include <stdlib.h>
#include "host/detect.h"
#include "host/detect_calib.h"
#include "host/detect_clock.h"
#include "host/detect_io.h"
#include "host/detect_line.h"
#include "host/detect_net.h"
#include "host/detect_scale.h"
#include "spec/c/test.h"

static uint64_t stream = 7;
static double uniform(void) { return (double)(neap_detect_random(&stream) >> 11) * 0x1p-53; }
static double normal(void) { return sqrt(-2 * log(1 - uniform())) * cos(6.283185307179586 * uniform()); }

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void test_scale(void) {
    static neap_detect_scale s;
    static float all[5000];
    float loc, spread;
    memset(&s, 0, sizeof s);
    for (int i = 0; i < 5000; i++) {
        all[i] = (float)(10 + 2 * normal());
        neap_detect_scale_add(&s, all[i]);
        if (i == 700) { /* still exact */
            float sorted[701];
            memcpy(sorted, all, sizeof sorted);
            qsort(sorted, 701, sizeof(float), by_value);
            CHECK(neap_detect_scale_quantile(&s, 0.5) == sorted[350]);
            CHECK(neap_detect_scale_quantile(&s, 0) == sorted[0] && neap_detect_scale_quantile(&s, 1) == sorted[700]);
            CHECK(neap_detect_scale_below(&s, sorted[100]) == 100);
        }
    }
    neap_detect_scale_get(&s, 0.02f, &loc, &spread);
    CHECK(fabsf(loc - 10) < 0.3f && fabsf(spread - 2) < 0.3f, "loc %f spread %f", loc, spread);
    qsort(all, 5000, sizeof(float), by_value);
    CHECK(s.lo == all[0] && s.hi == all[4999], "the range is of all values, not of the sample");
}

static void test_tail_and_calibration(void) {
    static neap_detect_calib c;
    memset(&c, 0, sizeof c);
    CHECK(neap_detect_calib_p(&c, 1) == 1, "nothing known, nothing claimed");
    for (int i = 0; i < 99; i++) neap_detect_calib_add(&c, (float)i);
    CHECK(fabs(neap_detect_calib_p(&c, 98.5f) - 1.0 / 100) < 1e-6, "beyond 99 scores: 1 in 100, no less");
    CHECK(fabs(neap_detect_calib_p(&c, 1e9f) - 1.0 / 100) < 1e-6);
    CHECK(fabs(neap_detect_calib_p(&c, 89) - 11.0 / 100) < 1e-6, "ties count as at least as high");

    memset(&c, 0, sizeof c);
    int hits[3] = {0, 0, 0}, asked = 0;
    for (int i = 0; i < 60000; i++) {
        float x = (float)-log(1 - uniform()); /* exponential: p of x is exp(-x) */
        if (i > 5000) {
            double p = neap_detect_calib_p(&c, x);
            asked++;
            hits[0] += p <= 0.1;
            hits[1] += p <= 0.01;
            hits[2] += p <= 0.001;
        }
        neap_detect_calib_add(&c, x);
    }
    CHECK(fabs(hits[0] / (double)asked - 0.1) < 0.02, "0.1: %f", hits[0] / (double)asked);
    CHECK(fabs(hits[1] / (double)asked - 0.01) < 0.002, "0.01: %f", hits[1] / (double)asked);
    CHECK(fabs(hits[2] / (double)asked - 0.001) < 0.0005, "0.001: %f", hits[2] / (double)asked);
    double far = neap_detect_calib_p(&c, 1e6f);
    CHECK(far >= 1 / (10.0 * 60001) * 0.999, "never below a tenth of 1 / (n + 1): %g", far);
    double last = 2;
    int falls = 1;
    for (float x = 0; x < 15; x += 0.01f) {
        double p = neap_detect_calib_p(&c, x);
        falls = falls && p <= last * 1.35 && p > 0 && p <= 1; /* list and fit may meet with a small step */
        last = p;
    }
    CHECK(falls, "p falls as scores rise");

    memset(&c, 0, sizeof c); /* ten thousand equal scores are no reason for surprise */
    for (int i = 0; i < 10000; i++) neap_detect_calib_add(&c, 0);
    CHECK(neap_detect_calib_p(&c, 0) > 0.99 && fabs(neap_detect_calib_p(&c, 1) - 1.0 / 10001) < 1e-7);
}

/* One Adam step with decay 0 moves a weight by lr * sign(gradient): compare with the sign and size of numeric
 * gradients. */
static double loss(const neap_detect_net *net, const float x[][NEAP_DETECT_NIN], const float *y, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) {
        double e = fabs(neap_detect_net_predict(net, x[i]) - y[i]);
        sum += e < 1 ? e * e / 2 : e - 0.5;
    }
    return sum / n;
}

static void test_net(void) {
    static neap_detect_net net, after;
    float x[8][NEAP_DETECT_NIN], y[8];
    neap_detect_net_init(&net, 3);
    for (int b = 0; b < 8; b++) {
        x[b][0] = 1;
        for (int i = 1; i < NEAP_DETECT_NIN; i++) x[b][i] = (float)normal();
        y[b] = (float)normal();
    }
    for (int i = 0; i < 20; i++) neap_detect_net_step(&net, 8, x, y, 0.01f, 0); /* away from the zero output layer */
    after = net;
    memset(&after.m, 0, sizeof after.m);
    memset(&after.v, 0, sizeof after.v);
    neap_detect_net_step(&after, 8, x, y, 0, 0); /* lr 0: only the moments move; m = 0.1 * gradient */
    float *w = (float *)&net.par, *m = (float *)&after.m;
    int checked = 0, wrong = 0;
    for (size_t i = 0; i < sizeof net.par / sizeof(float); i += 7) {
        float keep = w[i], h = 2e-3f;
        w[i] = keep + h;
        double up = loss(&net, x, y, 8);
        w[i] = keep - h;
        double down = loss(&net, x, y, 8);
        w[i] = keep;
        double numeric = (up - down) / (2 * h), ours = m[i] / 0.1;
        checked++;
        wrong += fabs(numeric - ours) > 2e-3 + 0.03 * fabs(numeric);
    }
    CHECK(checked > 150 && wrong <= 3, "%d of %d gradients differ (kinks may)", wrong, checked);
    double before = loss(&net, x, y, 8);
    for (int i = 0; i < 500; i++) neap_detect_net_step(&net, 8, x, y, 0.003f, 0);
    CHECK(loss(&net, x, y, 8) < before / 5, "it learns eight samples by heart");
}

static void test_line(void) {
    static neap_detect_line l;
    double truth[NEAP_DETECT_LINE_IN] = {0.3, -0.2, 0.5, 0, 0.1, -0.4, 0.2, 0, 0.25, -0.1};
    neap_detect_line_init(&l);
    for (int i = 0; i < 3000; i++) {
        double x[NEAP_DETECT_LINE_IN] = {1}, y = truth[0];
        for (int j = 1; j < NEAP_DETECT_LINE_IN; j++) y += truth[j] * (x[j] = normal());
        neap_detect_line_learn(&l, x, y + 0.05 * normal(), 0.999);
    }
    for (int j = 0; j < NEAP_DETECT_LINE_IN; j++) CHECK(fabs(l.w[j] - truth[j]) < 0.02, "%d: %f", j, l.w[j]);
    double still[NEAP_DETECT_LINE_IN] = {1};
    for (int i = 0; i < 100000; i++) neap_detect_line_learn(&l, still, 0, 0.99); /* inputs that never move */
    CHECK(isfinite(l.w[3]) && fabs(l.w[3] - truth[3]) < 0.1, "and forgets nothing it is not told about");
}

static void test_clock(void) {
    neap_detect_clock c;
    memset(&c, 0, sizeof c);
    int lost = 0;
    double t = 1e9;
    for (int i = 0; i < 500; i++) {
        t += i % 20 == 7 ? 600 : 300 + (i % 3 - 1);
        lost += neap_detect_clock_tick(&c, t, 3.5);
    }
    CHECK(lost == 0 && neap_detect_clock_day_rows(&c) == 288, "interval %f", c.interval);
    CHECK(neap_detect_clock_tick(&c, t + 86400, 3.5) == 1);
    CHECK(neap_detect_clock_tick(&c, t, 3.5) == 0, "a clock that runs back is no gap");
    CHECK(neap_detect_clock_tick(&c, NAN, 3.5) == 0 && neap_detect_clock_day(NAN) < 0);
    CHECK(fabs(neap_detect_clock_day(-21600) - 0.75) < 1e-12, "18:00 on the last day of 1969");
}

/* ---- the whole
 * ------------------------------------------------------------------------------------------------------- */

static neap_detect_config config(void) {
    neap_detect_config c = {.seed = 1,
                            .ahead = {{1e-3f, 1e-4f}, 1e-4f, 1, 6, 300, 2800, 0.999f, {15, 2}, 0.02f, 0.05f},
                            .spread_floor = 0.02f,
                            .slack = 0.05f,
                            .range_margin = 0.05f,
                            .power = 1,
                            .cap = 5,
                            .mix = 0.3f,
                            .gap = 3.5f,
                            .band = 0.02f};
    for (int i = 0; i < NEAP_DETECT_PARTS; i++) c.weight[i] = 1;
    return c;
}

/* A daily cycle with noise, a spike, a hole, missing values and a constant stretch. */
static double series(int i, double *time) {
    *time = 1.6e9 + 300.0 * i + (i > 900 ? 7200 : 0);
    if (i % 97 == 50 || (i >= 700 && i < 706)) return NAN;
    if (i >= 1000 && i < 1100) return 21;
    uint64_t noise = (uint64_t)i;
    double n = (double)(neap_detect_random(&noise) >> 11) * 0x1p-53 - 0.5;
    return 20 + 3 * sin(i * 6.283185307179586 / 288) + n + (i == 600 ? 25 : 0);
}

static int same_row(const neap_detect_row *a, const neap_detect_row *b) { return memcmp(a, b, sizeof *a) == 0; }

static void test_whole(void) {
    enum { N = 4000, CUT = 1234 };
    static neap_detect_row rows[N];
    neap_detect_config c = config();
    neap_detect *d = neap_detect_new(&c), *other = neap_detect_new(&c), *restored = neap_detect_new(&c);
    neap_buf saved = {0}, again = {0};
    CHECK(neap_detect_size() < 300 * 1024, "%zu bytes", neap_detect_size());
    CHECK(isnan(neap_detect_next(d)));
    double time, err = 0, naive = 0, last = NAN;
    int scored = 0, inside = 0, banded = 0, rare = 0;
    for (int i = 0; i < N; i++) {
        double v = series(i, &time), next = neap_detect_next(d);
        int ok = neap_detect_update(d, time, v, NAN, &rows[i]);
        CHECK(ok == !isnan(v) && isfinite(rows[i].s) && rows[i].s >= 0 && (ok ? rows[i].p > 0 && rows[i].p <= 1 : isnan(rows[i].p)), "row %d", i);
        CHECK(memcmp(&next, &rows[i].forecast, sizeof next) == 0 || (isnan(next) && isnan(rows[i].forecast)));
        if (i == CUT) CHECK(neap_detect_save(d, &saved) == 0);
        if (ok && i > 1200 && isfinite(last)) {
            scored++;
            err += fabs(v - rows[i].forecast);
            naive += fabs(v - last);
            banded += isfinite(rows[i].lower);
            inside += v >= rows[i].lower && v <= rows[i].upper;
            rare += rows[i].p < 0.001;
        }
        last = v;
    }
    CHECK(err < 0.85 * naive, "forecast %f, last value %f", err / scored, naive / scored);
    CHECK(banded == scored && fabs(inside / (double)scored - 0.98) < 0.01, "inside the band: %f", inside / (double)scored);
    CHECK(rare <= 0.01 * scored, "%d of %d below 0.001", rare, scored);
    CHECK(rows[600].p < 0.01 && rows[600].part[0] > 2, "the spike stands out: p %f", rows[600].p);
    CHECK(rows[901].gap == 1 && rows[706].gap == 1 && rows[500].gap == 0);
    CHECK(neap_detect_interval(d) == 300);

    /* a prefix of the series gives a prefix of the rows, to the bit */
    neap_detect_row r;
    for (int i = 0; i < 1500; i++) {
        double v = series(i, &time);
        neap_detect_update(other, time, v, NAN, &r);
        CHECK(same_row(&r, &rows[i]), "row %d", i);
    }
    /* a restored state goes on where it was, to the bit, and saves to the same bytes */
    CHECK(neap_detect_load(restored, saved.data, saved.len) == 0);
    CHECK(neap_detect_save(restored, &again) == 0 && again.len == saved.len && memcmp(again.data, saved.data, saved.len) == 0);
    for (int i = CUT + 1; i < N; i++) {
        double v = series(i, &time);
        neap_detect_update(restored, time, v, NAN, &r);
        CHECK(same_row(&r, &rows[i]), "row %d", i);
    }
    /* damage is noticed wherever it is, and leaves a usable detector */
    for (size_t at = 0; at < saved.len; at += saved.len / 50) {
        saved.data[at] ^= 0x10;
        CHECK(neap_detect_load(restored, saved.data, saved.len) == NEAP_ERR_CORRUPT);
        saved.data[at] ^= 0x10;
    }
    for (size_t n = 0; n < saved.len; n += saved.len / 20) CHECK(neap_detect_load(restored, saved.data, n) == NEAP_ERR_CORRUPT);
    CHECK(neap_detect_load(restored, saved.data, saved.len) == 0 && neap_detect_rows(restored) > 0);
    buf_free(&saved);
    buf_free(&again);
    neap_detect_free(d);
    neap_detect_free(other);
    neap_detect_free(restored);
}

static void test_odd_series(void) {
    neap_detect_config c = config();
    neap_detect_row r;
    neap_detect *d = neap_detect_new(&c);
    double worst = 0;
    for (int i = 0; i < 2000; i++) { /* constant */
        neap_detect_update(d, 300.0 * i, 42, NAN, &r);
        if (i > 100) worst = fmax(worst, r.s);
    }
    CHECK(worst < 0.5 && r.forecast == 42 && r.lower <= 42 && r.upper >= 42, "s %f, forecast %f", worst, r.forecast);
    neap_detect_update(d, 300.0 * 2000, 43, NAN, &r);
    CHECK(r.s > 1.5 && r.p < 0.001, "a constant that moves is news: s %f p %f", r.s, r.p);
    neap_detect_free(d);

    d = neap_detect_new(&c); /* no times at all, huge and tiny numbers, steps of 1e25 */
    for (int i = 0; i < 1500; i++) {
        double v = i % 500 == 499 ? 1e25 : i % 250 == 249 ? -1e29 : 1e-9 * normal();
        CHECK(neap_detect_update(d, NAN, i % 100 == 7 ? INFINITY : v, NAN, &r) == (i % 100 != 7));
        CHECK(isfinite(r.s) && (i == 0 || isfinite(r.forecast)), "row %d", i);
    }
    neap_detect_free(d);

    d = neap_detect_new(&c); /* a big offset does not eat the digits */
    double err = 0, size = 0;
    for (int i = 0; i < 3000; i++) {
        double v = 1.7e9 + sin(i / 20.0);
        neap_detect_update(d, 60.0 * i, v, NAN, &r);
        if (i > 1500) err += fabs(v - r.forecast), size += fabs(sin(i / 20.0) - sin((i - 1) / 20.0));
    }
    CHECK(err < 0.5 * size, "%g of %g", err, size);
    neap_detect_free(d);

    d = neap_detect_new(&c); /* another model's forecast takes the place of ours */
    for (int i = 0; i < 1000; i++) neap_detect_update(d, 60.0 * i, sin(i / 20.0), sin(i / 20.0), &r);
    CHECK(r.forecast == sin(999 / 20.0));
    neap_detect_update(d, 60000, sin(1000 / 20.0), sin(1000 / 20.0) + 0.5, &r);
    CHECK(r.part[0] > 2, "and an error of it counts: %f", r.part[0]);
    neap_detect_free(d);
}

int main(void) {
    test_scale();
    test_tail_and_calibration();
    test_net();
    test_line();
    test_clock();
    test_whole();
    test_odd_series();
    return test_end("detect");
}
