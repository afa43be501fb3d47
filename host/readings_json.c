/* readings_json.c: every JSON shape that devices send, in one pass over the tokens, into a batch of readings.
   An item's members come in any order, so its numbers are added as if it were a flat object, and when the item ends it is known
   what it was: the flat readings are kept, or taken back in favour of the named one. Shapes, first match wins:
     {"sensor_name":"t","sensor_output":21.5}            the kit's item (also sensor|name with value); other keys are ignored
     {"ts":1700000000000,"values":{"t":21.5}}            telemetry; other keys are ignored
     {"sensordatavalues":[{"value_type":"t","value":"21.5"}]}   sensor.community
     {"t":21.5,"SHTC3":{"Humidity":40}}                  flat, one level of nesting: "t", "SHTC3.Humidity"
   An item's event time is its time, timestamp or ts. Tasmota's "Time" is local time without a zone, so it is not used. */
#include "host/err.h"
#include "host/json.h"
#include "host/readings.h"
#include <math.h>

#define INNER 0x80000000u /* temporary flag: came from `values` or `sensordatavalues` */

typedef struct slice {
    const char *s;
    size_t n;
} slice;

typedef struct item {
    uint32_t index;
    size_t first, refused, refused_kept; /* where the batch stood before */
    bool kit, inner, has_time, bad_time;
    int64_t time_us;
    slice name, alias; /* .s NULL: not seen */
    const char *bad;   /* why the kit's value is none; NULL if it is one */
    bool has_value, bad_name;
    neap_num value;
    slice raw;
} item;

typedef struct decoder {
    neap_readings *b;
    neap_json j;
    slice prefix;
    bool named; /* a list's items without a name are refused: the starter kit skipped them */
} decoder;

static bool is(slice a, const char *word) { return a.n == strlen(word) && memcmp(a.s, word, a.n) == 0; }

/* The text of the string or key token just read: a slice of the body, or resolved in the arena. */
static slice text_of(decoder *d) {
    slice t = {d->j.text, d->j.len};
    if (!d->j.escaped) return t;
    char *copy = neap_readings_alloc(d->b, t.n + 1);
    if (!copy) return (slice){"", 0};
    return (slice){copy, neap_json_unescape(t.s, t.n, copy)};
}

/* prefix [parent "."] key */
static slice full_name(decoder *d, slice parent, slice key) {
    size_t n = d->prefix.n + parent.n + (parent.n != 0) + key.n, at = 0;
    if (n == key.n) return key;
    char *p = neap_readings_alloc(d->b, n + 1);
    if (!p) return (slice){"", 0};
    if (d->prefix.n) memcpy(p, d->prefix.s, d->prefix.n);
    at += d->prefix.n;
    if (parent.n) {
        memcpy(p + at, parent.s, parent.n);
        at += parent.n;
        p[at++] = '.';
    }
    memcpy(p + at, key.s, key.n);
    return (slice){p, n};
}

static void add(decoder *d, item *it, slice name, neap_num v, slice raw, uint32_t flags) {
    const char *bad = isinf(v.d) ? NEAP_TOO_LARGE : neap_readings_bad_name(name.s, name.n);
    if (bad) {
        neap_readings_refuse(d->b, it->index, name.s, name.n < NEAP_NAME_MAX ? name.n : NEAP_NAME_MAX, bad);
        return;
    }
    neap_reading *r = neap_readings_add(d->b, name.s, name.n, v.d, it->index);
    r->flags = flags;
    if (raw.n && raw.n < UINT16_MAX) {
        r->raw = raw.s;
        r->raw_len = (uint16_t)raw.n;
    }
}

/* The scalar token t as a number. NULL, or the reason why it is none. */
static const char *number_of(decoder *d, neap_json_token t, neap_num *v, slice *raw) {
    *raw = (slice){NULL, 0};
    switch (t) {
    case NEAP_JSON_INT:
    case NEAP_JSON_FLOAT:
        *v = (neap_num){.is_int = t == NEAP_JSON_INT, .i = d->j.i, .d = d->j.d};
        *raw = (slice){d->j.text, d->j.len};
        return isinf(v->d) ? NEAP_TOO_LARGE : NULL;
    case NEAP_JSON_STRING: {
        slice s = text_of(d);
        const char *bad = neap_readings_number(s.s, s.n, v);
        neap_num strict;
        if (!bad && neap_num_scan(s.s, s.s + s.n, false, &strict) == s.s + s.n) *raw = s;
        return bad;
    }
    case NEAP_JSON_NULL: return "the value is null: the sensor has none now";
    case NEAP_JSON_BOOL: return "the value is true or false, not a number";
    default: return "the value is a list or an object, not a number";
    }
}

static bool read_time(decoder *d, item *it, neap_json_token t) {
    neap_num v;
    slice raw;
    if (t == NEAP_JSON_NULL) return true;
    if (t == NEAP_JSON_ARRAY || t == NEAP_JSON_OBJECT) {
        it->bad_time = true;
        return neap_json_skip(&d->j, t) == 0;
    }
    slice s = t == NEAP_JSON_STRING ? text_of(d) : (slice){"", 0};
    it->has_time = number_of(d, t, &v, &raw) == NULL ? neap_time_number(&v, &it->time_us) : neap_time_iso(s.s, s.n, &it->time_us);
    it->bad_time = !it->has_time;
    return true;
}

/* A member of a flat object (or of `values`). False after a syntax error. */
static bool read_flat(decoder *d, item *it, slice parent, slice key, neap_json_token t, uint32_t flags) {
    neap_num v;
    slice raw, name;
    switch (t) {
    case NEAP_JSON_INT:
    case NEAP_JSON_FLOAT:
        number_of(d, t, &v, &raw);
        add(d, it, full_name(d, parent, key), v, raw, flags);
        return true;
    case NEAP_JSON_STRING: {
        const char *bad = number_of(d, t, &v, &raw);
        if (!bad) add(d, it, full_name(d, parent, key), v, raw, flags);
        else if (strstr(bad, "not a number")) d->b->skipped++; /* a label, a unit, ON/OFF */
        else name = full_name(d, parent, key), neap_readings_refuse(d->b, it->index, name.s, name.n, bad);
        return true;
    }
    case NEAP_JSON_ARRAY:
        name = full_name(d, parent, key);
        neap_readings_refuse(d->b, it->index, name.s, name.n, "the value is a list, not a number");
        return neap_json_skip(&d->j, t) == 0;
    case NEAP_JSON_OBJECT:
        if (parent.n || flags) {
            name = full_name(d, parent, key);
            neap_readings_refuse(d->b, it->index, name.s, name.n, "nested more than one level deep");
            return neap_json_skip(&d->j, t) == 0;
        }
        while ((t = neap_json_next(&d->j)) == NEAP_JSON_KEY) {
            slice inner = text_of(d);
            if (!read_flat(d, it, key, inner, neap_json_next(&d->j), flags)) return false;
        }
        return t == NEAP_JSON_OBJECT_END;
    case NEAP_JSON_ERROR: return false;
    default: d->b->skipped++; return true; /* null, true, false */
    }
}

static bool read_values(decoder *d, item *it) {
    neap_json_token t;
    it->inner = true;
    while ((t = neap_json_next(&d->j)) == NEAP_JSON_KEY) {
        slice key = text_of(d);
        if (!read_flat(d, it, (slice){NULL, 0}, key, neap_json_next(&d->j), INNER)) return false;
    }
    return t == NEAP_JSON_OBJECT_END;
}

/* sensor.community's list of {"value_type":..,"value":..}. */
static bool read_community(decoder *d, item *it) {
    neap_json_token t;
    it->inner = true;
    while ((t = neap_json_next(&d->j)) != NEAP_JSON_ARRAY_END) {
        if (t != NEAP_JSON_OBJECT) {
            if (neap_json_skip(&d->j, t)) return false;
            neap_readings_refuse(d->b, it->index, NULL, 0, "expected an object with value_type and value");
            continue;
        }
        slice name = {NULL, 0}, raw = {NULL, 0};
        const char *bad = "value is missing";
        neap_num v = {0};
        while ((t = neap_json_next(&d->j)) == NEAP_JSON_KEY) {
            slice key = text_of(d);
            t = neap_json_next(&d->j);
            if (is(key, "value_type") && t == NEAP_JSON_STRING) name = text_of(d);
            else if (is(key, "value") && t != NEAP_JSON_ARRAY && t != NEAP_JSON_OBJECT) bad = number_of(d, t, &v, &raw);
            else if (neap_json_skip(&d->j, t)) return false;
        }
        if (t != NEAP_JSON_OBJECT_END) return false;
        if (!name.s) bad = "value_type is missing";
        else name = full_name(d, (slice){NULL, 0}, name);
        if (bad) neap_readings_refuse(d->b, it->index, name.s, name.n, bad);
        else add(d, it, name, v, raw, INNER);
    }
    return true;
}

static bool read_member(decoder *d, item *it, slice key, neap_json_token t) {
    bool kit_name = is(key, "sensor_name"), kit_value = is(key, "sensor_output");
    if (t == NEAP_JSON_ERROR) return false;
    if (is(key, "time") || is(key, "timestamp") || is(key, "ts")) return read_time(d, it, t);
    if (is(key, "Time") && t == NEAP_JSON_STRING) return true;
    if (is(key, "values") && t == NEAP_JSON_OBJECT) return read_values(d, it);
    if (is(key, "sensordatavalues") && t == NEAP_JSON_ARRAY) return read_community(d, it);
    if (kit_name) {
        it->kit = true;
        it->bad_name = t != NEAP_JSON_STRING;
        if (!it->bad_name) it->name = text_of(d);
        return neap_json_skip(&d->j, t) == 0;
    }
    if (kit_value || (is(key, "value") && !it->has_value)) {
        it->kit |= kit_value;
        it->has_value = true;
        it->bad = number_of(d, t, &it->value, &it->raw);
        if (kit_value && t == NEAP_JSON_BOOL) { /* the kit's server read it with Python's float(): true is 1 */
            it->bad = NULL;
            it->value = (neap_num){.is_int = true, .i = d->j.i, .d = (double)d->j.i};
        }
        if (kit_value) return neap_json_skip(&d->j, t) == 0;
    } else if (t == NEAP_JSON_STRING && (is(key, "sensor") || is(key, "name"))) {
        it->alias = text_of(d);
    }
    return read_flat(d, it, (slice){NULL, 0}, key, t, 0);
}

/* The item has ended: decide what it was. */
static void finish(decoder *d, item *it) {
    neap_readings *b = d->b;
    if (it->kit || (it->alias.s && it->has_value && !it->inner)) {
        b->count = it->first;
        b->refused_count = it->refused;
        b->refused_kept = it->refused_kept;
        slice name = it->name.s ? it->name : it->alias;
        const char *bad = it->bad_name     ? "sensor_name is not a text"
                          : !name.s        ? "sensor_name is missing"
                          : !it->has_value ? "sensor_output is missing"
                                           : it->bad;
        if (bad) neap_readings_refuse(b, it->index, name.s, name.n < NEAP_NAME_MAX ? name.n : NEAP_NAME_MAX, bad);
        else add(d, it, full_name(d, (slice){NULL, 0}, name), it->value, it->raw, 0);
    } else if (d->named && !it->inner && strcmp(b->shape, "array") == 0) {
        b->count = it->first;
        b->refused_count = it->refused;
        b->refused_kept = it->refused_kept;
        neap_readings_refuse(b, it->index, NULL, 0, "sensor_name is missing");
    } else if (it->inner) {
        size_t keep = it->first;
        for (size_t i = it->first; i < b->count; i++)
            if (b->at[i].flags & INNER) b->at[keep++] = b->at[i];
        b->count = keep;
    }
    for (size_t i = it->first; i < b->count; i++) {
        b->at[i].flags = it->bad_time ? NEAP_READING_BAD_TIME : 0;
        if (it->has_time) b->at[i].time_us = it->time_us;
    }
    if (b->count == it->first && b->refused_count == it->refused) neap_readings_refuse(b, it->index, NULL, 0, "there is no number in this item");
}

/* One item whose first token is t. False after a syntax error. */
static bool read_item(decoder *d, uint32_t index, neap_json_token t) {
    neap_readings *b = d->b;
    b->items++;
    if (t == NEAP_JSON_ERROR) return false;
    if (t != NEAP_JSON_OBJECT) {
        neap_readings_refuse(b, index, NULL, 0, "expected an object with sensor_name and sensor_output");
        return neap_json_skip(&d->j, t) == 0;
    }
    item it = {.index = index, .first = b->count, .refused = b->refused_count, .refused_kept = b->refused_kept};
    while ((t = neap_json_next(&d->j)) == NEAP_JSON_KEY) {
        slice key = text_of(d);
        if (!read_member(d, &it, key, neap_json_next(&d->j))) return false;
    }
    if (t != NEAP_JSON_OBJECT_END) return false;
    finish(d, &it);
    return true;
}

static int broken(neap_readings *b, const neap_json *j) {
    unsigned line, col;
    neap_json_explain(j, b->error, sizeof b->error, &line, &col);
    b->error_line = line;
    b->count = b->refused_count = b->refused_kept = b->items = b->skipped = 0;
    return NEAP_ERR_INVALID;
}

/* d->j is lenient: one odd value is no reason to lose the others of a batch. */
static void read_from(decoder *d, const char *s, size_t n) {
    neap_json_init(&d->j, s, n, 0);
    d->j.lenient = true;
}

static void begin(decoder *d, neap_readings *b, const neap_decode_opts *o) {
    d->b = b;
    d->named = o && o->named;
    d->prefix = o && o->prefix ? (slice){o->prefix, o->prefix_len} : (slice){NULL, 0};
}

int neap_readings_ndjson(neap_readings *b, const char *s, size_t n, const neap_decode_opts *o) {
    decoder d;
    begin(&d, b, o);
    b->shape = "lines";
    uint32_t line = 0;
    for (const char *end = s + n, *next; s < end && !b->memory; s = next) {
        const char *nl = memchr(s, '\n', (size_t)(end - s)), *stop = nl ? nl : end;
        next = nl ? nl + 1 : end;
        line++;
        while (s < stop && (*s == ' ' || *s == '\t' || *s == '\r')) s++;
        if (s == stop) continue;
        size_t count = b->count, refused = b->refused_count, kept = b->refused_kept;
        read_from(&d, s, (size_t)(stop - s));
        if (read_item(&d, line, neap_json_next(&d.j)) && neap_json_next(&d.j) == NEAP_JSON_END) continue;
        char why[200];
        neap_json_explain(&d.j, why, sizeof why, NULL, NULL);
        char *reason = neap_readings_copy(b, why, strlen(why));
        b->count = count;
        b->refused_count = refused;
        b->refused_kept = kept;
        if (reason) neap_readings_refuse(b, line, NULL, 0, strncmp(reason, "line 1 ", 7) == 0 ? reason + 7 : reason);
    }
    return b->memory ? NEAP_ERR_MEMORY : 0;
}

/* The text from s on is not one JSON text, as was seen at `at`: is it one object a line? If it went wrong in the first line, which is no list, and
   the next begins an object, or a second object follows on a later line. */
static bool is_lines(const char *s, const char *at, const char *end) {
    while (s < end && strchr(" \t\r\n", *s)) s++;
    const char *nl = s < end && *s != '[' ? memchr(s, '\n', (size_t)(end - s)) : NULL;
    while (nl && nl < end && strchr(" \t\r\n", *nl)) nl++;
    return nl && nl < end && at <= nl && *nl == '{';
}

int neap_readings_json(neap_readings *b, const char *s, size_t n, const neap_decode_opts *o) {
    decoder d;
    bool good = true; /* up to here */
    begin(&d, b, o);
    read_from(&d, s, n);
    neap_json_token first = neap_json_next(&d.j), t = first;
    const char *after = d.j.p;
    if (first == NEAP_JSON_ARRAY) {
        b->shape = "array";
        uint32_t index = 0;
        while (good && (t = neap_json_next(&d.j)) != NEAP_JSON_ARRAY_END) good = read_item(&d, ++index, t);
    } else if (first == NEAP_JSON_OBJECT) {
        b->shape = "object";
        good = read_item(&d, 1, first);
        after = d.j.p;
    } else {
        good = false;
    }
    if (good && (t = neap_json_next(&d.j)) == NEAP_JSON_END) return b->memory ? NEAP_ERR_MEMORY : 0;
    if ((good && first == NEAP_JSON_OBJECT && memchr(after, '\n', (size_t)(d.j.p - after))) || is_lines(s, d.j.p, s + n)) {
        b->count = b->refused_count = b->refused_kept = b->items = b->skipped = 0;
        return neap_readings_ndjson(b, s, n, o);
    }
    if (d.j.error) return broken(b, &d.j);
    snprintf(b->error, sizeof b->error, "Expected a list of JSON objects");
    return NEAP_ERR_INVALID;
}
