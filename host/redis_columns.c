/* redis_columns.c: the sink that turns XRANGE's reply into columns while hiredis parses it:
     depth 0 the list, depth 1 an entry, depth 2 its id (index 0) and its fields (index 1), depth 3 field, value, field, value ... */
#include <stdlib.h>
#include <string.h>
#include "host/chunk.h"
#include "host/err.h"
#include "host/num.h"
#include "host/redis_columns.h"

static bool grow(neap_redis_columns *c, size_t want) {
    if (want <= c->cap) return true;
    size_t cap = c->cap ? c->cap * 2 : 256;
    if (cap < want) cap = want;
    int64_t *t = realloc(c->time, cap * sizeof *t);
    if (t) c->time = t;
    double *v = t ? realloc(c->value, cap * sizeof *v) : NULL;
    if (v) c->value = v;
    if (!v) {
        c->memory = true;
        return false;
    }
    c->cap = cap;
    return true;
}

static void turn_round(neap_redis_columns *c, size_t from, size_t to) {
    while (from + 1 < to) {
        int64_t t = c->time[from];
        double v = c->value[from];
        to--;
        c->time[from] = c->time[to];
        c->value[from++] = c->value[to];
        c->time[to] = t;
        c->value[to] = v;
    }
}

void neap_redis_columns_finish(neap_redis_columns *c) {
    if (!c->reverse) return;
    turn_round(c, c->entry, c->n); /* each entry's pairs, so that turning the whole round leaves them in order */
    turn_round(c, 0, c->n);
    c->reverse = false;
}

static void take_chunk(neap_redis_columns *c, const char *s, size_t len) {
    neap_chunk_reader r;
    neap_num x;
    if (c->bad) {
        c->skipped++;
        return;
    }
    for (neap_chunk_read(&r, c->first_us, s, len); neap_chunk_next(&r);) {
        if (!neap_num_text(r.text, r.text_len, &x)) {
            c->skipped++; /* somebody else's field: its words count once */
            return;
        }
        if (grow(c, c->n + 1)) {
            c->time[c->n] = r.time_us;
            c->value[c->n++] = x.d;
        }
    }
}

static void keep_id(char out[48], const char *s, size_t n) {
    if (n >= 48) return;
    memcpy(out, s, n);
    out[n] = 0;
}

static void on_node(void *ud, int depth, int index, int type, const char *s, size_t len, int64_t integer) {
    neap_redis_columns *c = ud;
    if (depth == 3 && type == NEAP_REPLY_STRING) {
        if (index % 2 == 0) c->bad = !neap_chunk_time(s, len, &c->first_us);
        else take_chunk(c, s, len);
    } else if (depth == 2 && index == 0 && type == NEAP_REPLY_STRING) {
        if (c->reverse) turn_round(c, c->entry, c->n);
        c->entry = c->n;
        if (!c->reverse || !c->entries) keep_id(c->last_id, s, len);
        if (c->reverse || !c->entries) keep_id(c->first_id, s, len);
        c->entries++;
    } else if (depth == 0 && type == NEAP_REPLY_ARRAY) {
        grow(c, c->n + len);
    }
}

void neap_redis_columns_init(neap_redis_columns *c) { *c = (neap_redis_columns){.sink = {on_node, c}}; }

void neap_redis_columns_free(neap_redis_columns *c) {
    free(c->time);
    free(c->value);
    neap_redis_columns_init(c);
}

/* Readings come nearly in order, so: find the ordered start, insert the few late ones; a real mess is merged. */
struct row {
    int64_t time;
    size_t at;
};

static int by_time(const void *a, const void *b) {
    const struct row *x = a, *y = b;
    if (x->time != y->time) return x->time < y->time ? -1 : 1;
    return x->at < y->at ? -1 : 1;
}

int neap_redis_columns_sort(neap_redis_columns *c) {
    size_t moves = 0, limit = 8 * c->n + 64;
    for (size_t i = 1; i < c->n && moves <= limit; i++) {
        int64_t t = c->time[i];
        double v = c->value[i];
        size_t j = i;
        for (; j > 0 && c->time[j - 1] > t && moves <= limit; j--, moves++) {
            c->time[j] = c->time[j - 1];
            c->value[j] = c->value[j - 1];
        }
        c->time[j] = t;
        c->value[j] = v;
        if (moves > limit) { /* put it back where it came from: the merge must see equal times in their order of arrival */
            for (; j < i; j++) {
                c->time[j] = c->time[j + 1];
                c->value[j] = c->value[j + 1];
            }
            c->time[i] = t;
            c->value[i] = v;
        }
    }
    if (moves <= limit) return 0;
    struct row *rows = malloc(c->n * sizeof *rows);
    double *values = malloc(c->cap * sizeof *values);
    if (!rows || !values) {
        free(rows);
        free(values);
        return NEAP_ERR_MEMORY;
    }
    for (size_t i = 0; i < c->n; i++) rows[i] = (struct row){c->time[i], i};
    qsort(rows, c->n, sizeof *rows, by_time);
    for (size_t i = 0; i < c->n; i++) {
        c->time[i] = rows[i].time;
        values[i] = c->value[rows[i].at];
    }
    free(rows);
    free(c->value);
    c->value = values;
    return 0;
}

size_t neap_redis_columns_unique(neap_redis_columns *c) {
    size_t out = 0;
    for (size_t i = 0; i < c->n; i++) {
        if (out && c->time[out - 1] == c->time[i]) out--;
        c->time[out] = c->time[i];
        c->value[out++] = c->value[i];
    }
    size_t dropped = c->n - out;
    c->n = out;
    return dropped;
}
