/* collectd.c: collectd's write_http bodies, JSON and Command, to readings named host/plugin[-instance]/type[-instance][.dsname],
   where the data source name "value" is dropped. An unknown value (null, U, nan) is a missing one, not a fault. */
#include "host/err.h"
#include "host/json.h"
#include "host/readings.h"
#include <math.h>

typedef struct slice {
    const char *s;
    size_t n;
} slice;

enum { HOST, PLUGIN, PLUGIN_INSTANCE, TYPE, TYPE_INSTANCE, NAME_PARTS };
enum { MAX_VALUES = 64 };

typedef struct list { /* one element of the JSON array, before its parts are put together */
    slice part[NAME_PARTS], ds[MAX_VALUES], raw[MAX_VALUES];
    double value[MAX_VALUES];
    size_t values, names;
    const char *bad;
    int64_t time_us;
} list;

static slice text_of(neap_readings *b, const neap_json *j) {
    if (!j->escaped) return (slice){j->text, j->len};
    char *p = neap_readings_alloc(b, j->len + 1);
    return p ? (slice){p, neap_json_unescape(j->text, j->len, p)} : (slice){"", 0};
}

/* Adds one value under base[.ds]. */
static void add(neap_readings *b, uint32_t item, slice base, slice ds, double v, slice raw, int64_t us) {
    slice name = base;
    if (ds.n && !(ds.n == 5 && memcmp(ds.s, "value", 5) == 0)) {
        char *p = neap_readings_alloc(b, base.n + ds.n + 1);
        if (!p) return;
        memcpy(p, base.s, base.n);
        p[base.n] = '.';
        memcpy(p + base.n + 1, ds.s, ds.n);
        name = (slice){p, base.n + 1 + ds.n};
    }
    const char *bad = isinf(v)                                  ? NEAP_TOO_LARGE
                      : neap_json_utf8(name.s, name.n) < name.n ? "the sensor name is not UTF-8"
                                                                : neap_readings_bad_name(name.s, name.n);
    if (bad) {
        neap_readings_refuse(b, item, name.s, name.n < NEAP_NAME_MAX ? name.n : NEAP_NAME_MAX, bad);
        return;
    }
    neap_reading *r = neap_readings_add(b, name.s, name.n, v, item);
    r->time_us = us;
    if (raw.n && raw.n < 64) {
        r->raw = raw.s;
        r->raw_len = (uint16_t)raw.n;
    }
}

/* ---- JSON ----------------------------------------------------------------------------------------------------------- */

/* The array behind "values" or "dsnames". False after a syntax error. */
static bool read_array(neap_readings *b, neap_json *j, list *l, bool names) {
    neap_json_token t;
    for (size_t n = 0; (t = neap_json_next(j)) != NEAP_JSON_ARRAY_END; n++) {
        if (n == MAX_VALUES) l->bad = "more than 64 values in one list";
        size_t i = n < MAX_VALUES ? n : MAX_VALUES - 1;
        if (names && t == NEAP_JSON_STRING) {
            l->ds[i] = text_of(b, j);
            l->names = i + 1;
        } else if (!names && (t == NEAP_JSON_INT || t == NEAP_JSON_FLOAT || t == NEAP_JSON_NULL)) {
            l->value[i] = t == NEAP_JSON_NULL ? NAN : j->d;
            l->raw[i] = t == NEAP_JSON_NULL ? (slice){NULL, 0} : (slice){j->text, j->len};
            l->values = i + 1;
        } else {
            l->bad = names ? "dsnames has something that is no text" : "values has something that is neither a number nor null";
            if (neap_json_skip(j, t)) return false;
        }
    }
    return true;
}

static bool read_member(neap_readings *b, neap_json *j, list *l) {
    static const char *const parts[NAME_PARTS] = {"host", "plugin", "plugin_instance", "type", "type_instance"};
    char key[20];
    size_t n = j->len < sizeof key ? j->len : 0;
    memcpy(key, j->text, n);
    key[n] = 0;
    neap_json_token t = neap_json_next(j);
    if (t == NEAP_JSON_ARRAY && (!strcmp(key, "values") || !strcmp(key, "dsnames"))) return read_array(b, j, l, key[0] == 'd');
    if (!strcmp(key, "time") && (t == NEAP_JSON_INT || t == NEAP_JSON_FLOAT)) {
        neap_num v = {.is_int = t == NEAP_JSON_INT, .i = j->i, .d = j->d};
        if (!neap_time_number(&v, &l->time_us)) l->time_us = NEAP_NO_TIME;
    }
    if (t == NEAP_JSON_STRING)
        for (int i = 0; i < NAME_PARTS; i++)
            if (!strcmp(key, parts[i])) l->part[i] = text_of(b, j);
    return neap_json_skip(j, t) == 0;
}

static slice base_name(neap_readings *b, const list *l, const neap_decode_opts *o) {
    static const char before[NAME_PARTS] = {0, '/', '-', '/', '-'};
    size_t n = o && o->prefix ? o->prefix_len : 0, at = 0;
    for (int i = 0; i < NAME_PARTS; i++) n += l->part[i].n + 1;
    char *p = neap_readings_alloc(b, n + 1);
    if (!p) return (slice){"", 0};
    if (o && o->prefix) memcpy(p, o->prefix, at = o->prefix_len);
    for (int i = 0; i < NAME_PARTS; i++) {
        if (before[i] == '-' && !l->part[i].n) continue; /* an empty instance leaves no trace */
        if (before[i]) p[at++] = before[i];
        memcpy(p + at, l->part[i].s, l->part[i].n);
        at += l->part[i].n;
    }
    return (slice){p, at};
}

static void add_list(neap_readings *b, uint32_t item, const list *l, const neap_decode_opts *o) {
    const char *bad = l->bad                                                       ? l->bad
                      : !l->part[HOST].n || !l->part[PLUGIN].n || !l->part[TYPE].n ? "host, plugin or type is missing"
                      : !l->values                                                 ? "values is missing"
                                                                                   : NULL;
    if (bad) {
        neap_readings_refuse(b, item, NULL, 0, bad);
        return;
    }
    slice base = base_name(b, l, o);
    for (size_t i = 0; i < l->values; i++) {
        char number[8];
        slice ds = i < l->names ? l->ds[i] : (slice){"value", 5};
        if (i >= l->names && i > 0) { /* no names given: number them, so that they stay apart */
            ds.n = (size_t)snprintf(number, sizeof number, "%zu", i);
            ds.s = number; /* copied by add */
        }
        if (isnan(l->value[i])) b->skipped++;
        else add(b, item, base, ds, l->value[i], l->raw[i], l->time_us);
    }
}

int neap_readings_collectd(neap_readings *b, const char *s, size_t n, const neap_decode_opts *o) {
    neap_json j;
    uint32_t item = 0;
    b->shape = "collectd";
    neap_json_init(&j, s, n, 0);
    j.lenient = true; /* one odd value is no reason to lose the others: collectd never sends again */
    neap_json_token t = neap_json_next(&j);
    if (t != NEAP_JSON_ARRAY && t != NEAP_JSON_ERROR) {
        snprintf(b->error, sizeof b->error, "expected collectd's list of objects");
        return NEAP_ERR_INVALID;
    }
    while (t != NEAP_JSON_ERROR && (t = neap_json_next(&j)) != NEAP_JSON_ARRAY_END) {
        b->items++;
        item++;
        if (t != NEAP_JSON_OBJECT) {
            neap_readings_refuse(b, item, NULL, 0, "expected an object");
            if (neap_json_skip(&j, t)) t = NEAP_JSON_ERROR;
            continue;
        }
        list l = {.time_us = NEAP_NO_TIME};
        while ((t = neap_json_next(&j)) == NEAP_JSON_KEY)
            if (!read_member(b, &j, &l)) break;
        if (t == NEAP_JSON_OBJECT_END) add_list(b, item, &l, o);
        else t = NEAP_JSON_ERROR;
    }
    if (t == NEAP_JSON_ERROR || neap_json_next(&j) != NEAP_JSON_END) {
        neap_json_explain(&j, b->error, sizeof b->error, &b->error_line, NULL);
        b->count = b->refused_count = b->refused_kept = b->items = b->skipped = 0;
        return NEAP_ERR_INVALID;
    }
    return b->memory ? NEAP_ERR_MEMORY : 0;
}

/* ---- Command: PUTVAL host/plugin/type interval=1.000 1700000000.658:2.48:1.13 ------------------------------------------- */

/* The next word of the line: up to a blank, or a quoted one with \" and \\. False at the end. */
static bool next_word(neap_readings *b, const char **p, const char *end, slice *out) {
    while (*p < end && (**p == ' ' || **p == '\t' || **p == '\r')) (*p)++;
    if (*p == end) return false;
    const char *s = *p;
    if (*s != '"') {
        while (*p < end && !strchr(" \t\r", **p)) (*p)++;
        *out = (slice){s, (size_t)(*p - s)};
        return true;
    }
    char *copy = neap_readings_alloc(b, (size_t)(end - s) + 1);
    size_t n = 0;
    if (!copy) return false;
    for (s++; s < end && *s != '"'; s++) {
        if (*s == '\\' && s + 1 < end) s++;
        copy[n++] = *s;
    }
    *p = s < end ? s + 1 : end;
    *out = (slice){copy, n};
    return true;
}

/* One "time:value:value" word. NULL or what is wrong. */
static const char *add_values(neap_readings *b, uint32_t line, slice name, slice w) {
    const char *p = w.s, *end = w.s + w.n, *colon = memchr(p, ':', w.n);
    neap_num v;
    int64_t us = NEAP_NO_TIME;
    if (!colon) return "expected time:value";
    if (!(colon - p == 1 && *p == 'N') && (!neap_num_text(p, (size_t)(colon - p), &v) || !neap_time_number(&v, &us)))
        return "the time is not a number (or N for now)";
    for (size_t i = 0; colon; i++) {
        p = colon + 1;
        colon = memchr(p, ':', (size_t)(end - p));
        size_t n = (size_t)((colon ? colon : end) - p);
        char number[24];
        slice ds = {number, i ? (size_t)snprintf(number, sizeof number, "%zu", i) : 0};
        const char *bad = neap_readings_number(p, n, &v);
        if (bad) {
            if ((n == 1 && *p == 'U') || neap_readings_nan(p, n)) b->skipped++; /* collectd writes nan for the first value of a rate */
            else neap_readings_refuse(b, line, name.s, name.n < NEAP_NAME_MAX ? name.n : NEAP_NAME_MAX, bad);
            continue;
        }
        bool plain = neap_num_scan(p, p + n, false, &v) == p + n;
        add(b, line, name, ds, v.d, plain ? (slice){p, n} : (slice){NULL, 0}, us);
    }
    return NULL;
}

int neap_readings_putval(neap_readings *b, const char *s, size_t n, const neap_decode_opts *o) {
    uint32_t line = 0;
    b->shape = "collectd";
    for (const char *end = s + n, *next; s < end; s = next) {
        const char *nl = memchr(s, '\n', (size_t)(end - s)), *stop = nl ? nl : end;
        next = nl ? nl + 1 : end;
        line++;
        slice word, name;
        if (!next_word(b, &s, stop, &word)) continue;
        b->items++;
        size_t count = b->count, words = 0;
        const char *bad = NULL;
        if (word.n != 6 || strncasecmp(word.s, "PUTVAL", 6) != 0) bad = "expected PUTVAL";
        else if (!next_word(b, &s, stop, &name)) bad = "expected host/plugin/type after PUTVAL";
        if (!bad && o && o->prefix) {
            char *p = neap_readings_alloc(b, o->prefix_len + name.n);
            if (!p) break;
            memcpy(p, o->prefix, o->prefix_len);
            memcpy(p + o->prefix_len, name.s, name.n);
            name = (slice){p, o->prefix_len + name.n};
        }
        while (!bad && next_word(b, &s, stop, &word)) {
            const char *eq = memchr(word.s, '=', word.n);
            if (eq) continue; /* interval=10 and the like */
            words++;
            bad = add_values(b, line, name, word);
        }
        if (!bad && !words) bad = "expected time:value";
        if (!bad) continue;
        b->count = count;
        neap_readings_refuse(b, line, NULL, 0, bad);
    }
    return b->memory ? NEAP_ERR_MEMORY : 0;
}
