/* readings_lp.c: line protocol to readings. Each numeric field is a sensor named measurement[,tag=value..].field, tags in key order;
   the field name "value" is dropped, as most devices call their only field so. Texts and switches are no readings. */
#include "host/err.h"
#include "host/lineproto.h"
#include "host/readings.h"
#include <string.h>

/* "measurement,tag=value": a slice of the body where the client already wrote it so, else built in the arena. */
static neap_lp_slice series(neap_readings *b, const neap_lp *l, const neap_decode_opts *o) {
    size_t prefix = o && o->prefix ? o->prefix_len : 0, n = prefix + l->measurement.n;
    const char *end = l->measurement.s + l->measurement.n;
    bool as_written = !prefix && !l->measurement.escaped;
    for (size_t i = 0; i < l->tag_count; i++) {
        const neap_lp_tag *t = &l->tags[i];
        as_written &= !t->key.escaped && !t->value.escaped && t->key.s == end + 1;
        end = t->value.s + t->value.n;
        n += 2 + t->key.n + t->value.n;
    }
    if (as_written) return (neap_lp_slice){l->measurement.s, (uint32_t)n, false};
    char *out = neap_readings_alloc(b, n + 1), *p = out;
    if (!out) return (neap_lp_slice){"", 0, false};
    if (prefix) memcpy(p, o->prefix, prefix);
    p += prefix;
    p += neap_lp_unescape_name(l->measurement, true, p);
    for (size_t i = 0; i < l->tag_count; i++) {
        *p++ = ',';
        p += neap_lp_unescape_name(l->tags[i].key, false, p);
        *p++ = '=';
        p += neap_lp_unescape_name(l->tags[i].value, false, p);
    }
    return (neap_lp_slice){out, (uint32_t)(p - out), false};
}

static void add_field(neap_readings *b, const neap_lp *l, const neap_lp_field *f, neap_lp_slice base, int64_t time_us, const neap_decode_opts *o) {
    if (f->type >= NEAP_LP_BOOL) {
        b->skipped++;
        return;
    }
    const char *name = base.s;
    size_t n = base.n;
    if (f->key.n != 5 || memcmp(f->key.s, "value", 5) != 0) {
        char *p = neap_readings_alloc(b, n + 2 + f->key.n);
        if (!p) return;
        memcpy(p, base.s, n);
        p[n++] = '.';
        n += neap_lp_unescape_name(f->key, false, p + n);
        name = p;
    }
    /* what the grammar lets through: too long, and C1 controls, which begin with 0xC2 */
    const char *why = n > NEAP_NAME_MAX || memchr(name, 0xC2, n) || (o && o->prefix) ? neap_readings_bad_name(name, n) : NULL;
    if (why) {
        neap_readings_refuse(b, l->line, name, n < NEAP_NAME_MAX ? (uint32_t)n : NEAP_NAME_MAX, why);
        return;
    }
    neap_reading *r = neap_readings_add(b, name, n, f->d, l->line);
    r->time_us = time_us;
    if (f->text.n < 64 && neap_num_strict(f->text.s, f->text.n)) {
        r->raw = f->text.s;
        r->raw_len = (uint16_t)f->text.n;
    }
}

int neap_readings_lines(neap_readings *b, const char *s, size_t n, const neap_decode_opts *o) {
    neap_lp l;
    int got;
    b->shape = "line protocol";
    neap_lp_init(&l, s, n, o ? o->unit_ns : 0);
    while ((got = neap_lp_next(&l)) != 0 && got != NEAP_ERR_MEMORY) {
        b->items++;
        if (got < 0) {
            neap_readings_refuse(b, l.line, NULL, 0, l.error);
            continue;
        }
        int64_t us = NEAP_NO_TIME;
        if (l.has_time) us = l.time_ns / 1000 - (l.time_ns % 1000 < 0); /* towards the past, so that order is kept */
        neap_lp_slice base = series(b, &l, o);
        for (size_t i = 0; i < l.field_count; i++) add_field(b, &l, &l.fields[i], base, us, o);
    }
    neap_lp_free(&l);
    return got || b->memory ? NEAP_ERR_MEMORY : 0;
}
