/* mlp_data.c: data sets: what the kernels' neap_data points into, kept alive and checked once, so that gathering needs no checks. */
#include "host/mlp.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

neap_mlp_data *neap_mlp_data_ref(neap_mlp_data *d) {
    atomic_fetch_add(&d->refs, 1);
    return d;
}

void neap_mlp_data_unref(neap_mlp_data *d) {
    if (!d || atomic_fetch_sub(&d->refs, 1) != 1) return;
    neap_tensor_unref(&d->series), neap_tensor_unref(&d->target), neap_tensor_unref(&d->starts);
    neap_tensor_unref(&d->extra), neap_tensor_unref(&d->x), neap_tensor_unref(&d->y);
    free(d);
}

int neap_mlp_data_inputs(const neap_mlp_data *d) { return d->d.x ? (int)d->x.shape[1] : d->d.window + (d->d.level != 0) + d->d.extras; }

/* float32 [n x k] whose rows are contiguous: a reference, or a converted copy */
static int as_rows(neap_tensor *out, const neap_tensor *t) {
    if (t->dtype == NEAP_F32 && t->dims == 2 && (t->stride[1] == 1 || t->shape[1] == 1)) {
        *out = neap_tensor_ref(t);
        return 0;
    }
    return neap_tensor_cast(out, t, NEAP_F32);
}

int neap_mlp_rows(neap_mlp_data **out, const neap_tensor *x, const neap_tensor *y) {
    if (x->dims != 2 || (y->storage && (y->dims != 2 || y->shape[0] != x->shape[0]))) return NEAP_ERR_SHAPE;
    neap_mlp_data *d = calloc(1, sizeof *d);
    if (!d) return NEAP_ERR_MEMORY;
    atomic_init(&d->refs, 1);
    int rc = as_rows(&d->x, x);
    if (!rc && y->storage) rc = as_rows(&d->y, y);
    if (rc) {
        neap_mlp_data_unref(d);
        return rc;
    }
    d->d.n = d->x.shape[0];
    d->d.x = neap_tensor_data(&d->x);
    d->d.ldx = d->x.stride[0];
    if (d->y.storage) {
        d->d.y = neap_tensor_data(&d->y);
        d->d.ldy = d->y.stride[0];
        d->outputs = (int)d->y.shape[1];
    }
    *out = d;
    return 0;
}

/* The checks of neap_mlp_windows, and d->d.n. */
static int check(neap_mlp_data *d, int outputs, char *why, size_t size) {
    neap_data *w = &d->d;
    int64_t span = (int64_t)(w->window - 1) * w->dilation, need = span + w->horizon + outputs - 1;
    long long length = (long long)w->length;
    int rc = NEAP_ERR_INVALID;
    if (w->window < 1 || w->window > 65536) return snprintf(why, size, "window is %d, it must be 1 to 65536", w->window), rc;
    if (w->dilation < 1 || w->dilation > (1 << 24)) return snprintf(why, size, "dilation must be at least 1"), rc;
    if (w->horizon < 0 || w->horizon > (1 << 24)) return snprintf(why, size, "horizon is %d, it must be 0 or more", w->horizon), rc;
    if (w->stride < 1) return snprintf(why, size, "stride must be at least 1"), rc;
    if (d->target.storage && d->target.shape[0] != w->length)
        return snprintf(why, size, "target has %lld readings, the series %lld", (long long)d->target.shape[0], length), rc;
    if (d->extra.storage && d->extra.shape[0] != w->length)
        return snprintf(why, size, "extra has %lld rows, the series %lld readings", (long long)d->extra.shape[0], length), rc;
    if (!d->starts.storage) {
        w->n = w->length > need ? (w->length - 1 - need) / w->stride + 1 : 0;
        return 0;
    }
    w->n = d->starts.shape[0];
    w->starts = neap_tensor_data(&d->starts);
    for (int64_t i = 0; i < w->n; i++)
        if (w->starts[i] < 0 || w->starts[i] > w->length - 1 - need || w->length <= need)
            return snprintf(why, size,
                            "start %lld (number %lld) leaves the series: window, horizon and outputs need %lld readings, the series has %lld",
                            (long long)w->starts[i] + 1, (long long)i + 1, (long long)need + 1, length),
                   rc;
    return 0;
}

int neap_mlp_windows(neap_mlp_data **out, const neap_data *spec, int outputs, const neap_tensor *series, const neap_tensor *target,
                     const neap_tensor *starts, const neap_tensor *extra, char *why, size_t size) {
    snprintf(why, size, "out of memory");
    if (series->dims != 1 || (target->storage && target->dims != 1) || (starts->storage && starts->dims != 1) || (extra->storage && extra->dims != 2))
        return snprintf(why, size, "series, target and starts must be vectors, extra a matrix [readings x features]"), NEAP_ERR_SHAPE;
    neap_mlp_data *d = calloc(1, sizeof *d);
    if (!d) return NEAP_ERR_MEMORY;
    atomic_init(&d->refs, 1);
    int rc = neap_tensor_cast(&d->series, series, NEAP_F32);
    if (!rc && target->storage) rc = neap_tensor_cast(&d->target, target, NEAP_F32);
    if (!rc && starts->storage) rc = neap_tensor_cast(&d->starts, starts, NEAP_I64);
    if (!rc && extra->storage) rc = as_rows(&d->extra, extra);
    if (!rc) {
        neap_data *w = &d->d;
        w->window = spec->window, w->horizon = spec->horizon, w->stride = spec->stride, w->dilation = spec->dilation;
        w->norm = spec->norm, w->loc = spec->loc, w->inv = spec->inv, w->level = spec->level, w->level_inv = spec->level_inv;
        w->series = neap_tensor_data(&d->series);
        w->length = d->series.shape[0];
        if (d->target.storage) w->target = neap_tensor_data(&d->target);
        if (d->extra.storage) {
            w->extra = neap_tensor_data(&d->extra);
            w->extras = (int)d->extra.shape[1];
            w->ldextra = d->extra.stride[0];
        }
        d->outputs = outputs;
        rc = check(d, outputs, why, size);
    }
    if (rc) neap_mlp_data_unref(d);
    else *out = d;
    return rc;
}
