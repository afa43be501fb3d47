/* readings.c: the batch itself and the table of known sensors. */
#include "host/readings.h"
#include "host/err.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct neap_readings_chunk {
    struct neap_readings_chunk *next;
    size_t used, cap;
    char data[];
} chunk;

void neap_readings_init(neap_readings *b) {
    memset(b, 0, sizeof *b);
    b->at = b->few;
    b->cap = NEAP_READINGS_INLINE;
}

void neap_readings_free(neap_readings *b) {
    for (chunk *c = b->arena, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    if (b->at != b->few) free(b->at);
    free(b->refused);
    neap_readings_init(b);
}

char *neap_readings_alloc(neap_readings *b, size_t n) {
    chunk *c = b->arena;
    if (!c || c->cap - c->used < n) {
        size_t cap = c ? c->cap * 2 : 1024;
        if (cap > 1 << 18) cap = 1 << 18;
        if (cap < n) cap = n;
        if (!(c = malloc(sizeof *c + cap))) {
            b->memory = true;
            return NULL;
        }
        c->next = b->arena;
        c->used = 0;
        c->cap = cap;
        b->arena = c;
    }
    char *p = c->data + c->used;
    c->used += n;
    return p;
}

char *neap_readings_copy(neap_readings *b, const char *s, size_t n) {
    char *p = neap_readings_alloc(b, n + 1);
    if (!p) return NULL;
    memcpy(p, s, n);
    p[n] = 0;
    return p;
}

neap_reading *neap_readings_add(neap_readings *b, const char *name, size_t name_len, double value, uint32_t item) {
    static _Thread_local neap_reading nowhere; /* so that callers need no check of their own */
    if (b->count == b->cap) {
        size_t cap = b->cap * 2 < 64 ? 64 : b->cap * 2;
        neap_reading *p = b->at == b->few ? malloc(cap * sizeof *p) : realloc(b->at, cap * sizeof *p);
        if (!p) {
            b->memory = true;
            return &nowhere;
        }
        if (b->at == b->few) memcpy(p, b->few, sizeof b->few);
        b->at = p;
        b->cap = cap;
    }
    neap_reading *r = &b->at[b->count++];
    *r = (neap_reading){.name = name, .name_len = (uint16_t)name_len, .value = value, .time_us = NEAP_NO_TIME, .item = item};
    return r;
}

void neap_readings_refuse(neap_readings *b, uint32_t item, const char *name, size_t name_len, const char *reason) {
    b->refused_count++;
    if (b->refused_kept == NEAP_REFUSALS_KEPT) return;
    if (b->refused_kept == b->refused_cap) {
        size_t cap = b->refused_cap ? b->refused_cap * 2 : 8;
        neap_refusal *p = realloc(b->refused, cap * sizeof *p);
        if (!p) {
            b->memory = true;
            return;
        }
        b->refused = p;
        b->refused_cap = cap;
    }
    b->refused[b->refused_kept++] = (neap_refusal){.item = item, .name = name, .name_len = (uint32_t)name_len, .reason = reason};
}

void neap_readings_drop(neap_readings *b, size_t i, const char *reason) {
    neap_reading *r = &b->at[i];
    if (r->flags & NEAP_READING_REFUSED) return;
    const char *copy = neap_readings_copy(b, reason, strlen(reason));
    r->flags |= NEAP_READING_REFUSED;
    b->dropped++;
    neap_readings_refuse(b, r->item, r->name, r->name_len, copy ? copy : "refused");
}

const char *neap_readings_bad_name(const char *name, size_t n) {
    if (n == 0) return "the sensor name is empty";
    if (n > NEAP_NAME_MAX) return "the sensor name is longer than 500 bytes";
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7F || /* and C1, which terminals obey too */
            ((unsigned char)name[i] == 0xC2 && i + 1 < n && (unsigned char)name[i + 1] >= 0x80 && (unsigned char)name[i + 1] < 0xA0))
            return "the sensor name has a control character";
    return NULL;
}

static bool is_word(const char *s, size_t n, const char *word) { return n == strlen(word) && strncasecmp(s, word, n) == 0; }

bool neap_readings_nan(const char *s, size_t n) {
    if (n && (*s == '+' || *s == '-')) s++, n--;
    return is_word(s, n, "nan");
}

const char *neap_readings_number(const char *s, size_t n, neap_num *out) {
    if (neap_num_text(s, n, out)) return isinf(out->d) ? NEAP_TOO_LARGE : NULL;
    while (n && *s == ' ') s++, n--;
    while (n && s[n - 1] == ' ') n--;
    size_t sign = n && (*s == '+' || *s == '-');
    if (neap_readings_nan(s, n) || is_word(s + sign, n - sign, "inf") || is_word(s + sign, n - sign, "infinity"))
        return "NaN and infinity are no values: the sensor has none now";
    return "the value is not a number";
}

/* ---- known sensors: open addressing over an array in order of arrival ------------------------------------------------- */

typedef struct sensor {
    char *name;
    size_t len;
    double min, max;
    uint32_t hash;
    bool special, touched;
} sensor;

struct neap_sensors {
    sensor *at;
    uint32_t count, cap;
    uint32_t *slots; /* place in `at`, 1-based; 0 = free */
    uint32_t mask;
    uint32_t *touched; /* places */
    uint32_t touched_count, touched_cap;
};

/* FNV-1a, eight bytes at a time: names come from the network, but the table holds only what Lua put there, so chains cannot be attacked. */
static uint32_t hash_name(const char *s, size_t n) {
    uint64_t h = 0xcbf29ce484222325ull ^ n, x;
    for (; n >= 8; s += 8, n -= 8) {
        memcpy(&x, s, 8);
        h = (h ^ x) * 0x9E3779B97F4A7C15ull;
        h ^= h >> 29;
    }
    x = 0;
    memcpy(&x, s, n);
    h = (h ^ x) * 0x9E3779B97F4A7C15ull;
    return (uint32_t)(h >> 32);
}

neap_sensors *neap_sensors_new(void) { return calloc(1, sizeof(neap_sensors)); }

void neap_sensors_free(neap_sensors *t) {
    if (!t) return;
    for (uint32_t i = 0; i < t->count; i++) free(t->at[i].name);
    free(t->at);
    free(t->slots);
    free(t->touched);
    free(t);
}

static uint32_t find_hashed(const neap_sensors *t, const char *name, size_t n, uint32_t h) {
    if (!t->slots) return 0;
    for (uint32_t i = h & t->mask; t->slots[i]; i = (i + 1) & t->mask) {
        const sensor *s = &t->at[t->slots[i] - 1];
        if (s->hash == h && s->len == n && memcmp(s->name, name, n) == 0) return t->slots[i];
    }
    return 0;
}

uint32_t neap_sensors_find(const neap_sensors *t, const char *name, size_t n) { return find_hashed(t, name, n, hash_name(name, n)); }

static bool is_at(const neap_sensors *t, uint32_t place, const char *name, size_t n) {
    const sensor *s = &t->at[place - 1];
    return s->len == n && memcmp(s->name, name, n) == 0;
}

uint32_t neap_sensors_find_after(const neap_sensors *t, uint32_t before, const char *name, size_t n) {
    uint32_t next = before < t->count ? before + 1 : 1;
    if (t->count && is_at(t, next, name, n)) return next;
    if (before && is_at(t, before, name, n)) return before;
    return neap_sensors_find(t, name, n);
}

const char *neap_sensors_name(const neap_sensors *t, uint32_t place, size_t *n) {
    *n = t->at[place - 1].len;
    return t->at[place - 1].name;
}

static bool grow(neap_sensors *t) {
    uint32_t cap = t->cap ? t->cap * 2 : 32, mask = cap * 2 - 1;
    uint32_t *slots = calloc(mask + 1u, sizeof *slots);
    sensor *at = slots ? realloc(t->at, cap * sizeof *at) : NULL;
    if (!at) {
        free(slots);
        return false;
    }
    free(t->slots);
    t->at = at;
    t->cap = cap;
    t->slots = slots;
    t->mask = mask;
    for (uint32_t k = 0; k < t->count; k++) {
        uint32_t i = at[k].hash & mask;
        while (slots[i]) i = (i + 1) & mask;
        slots[i] = k + 1;
    }
    return true;
}

uint32_t neap_sensors_add(neap_sensors *t, const char *name, size_t n, double min, double max) {
    uint32_t h = hash_name(name, n), place = find_hashed(t, name, n, h);
    if (!place) {
        if (t->count == t->cap && !grow(t)) return 0;
        char *copy = malloc(n + 1);
        if (!copy) return 0;
        memcpy(copy, name, n);
        copy[n] = 0;
        t->at[t->count] = (sensor){.name = copy, .len = n, .hash = h};
        place = ++t->count;
        uint32_t i = h & t->mask;
        while (t->slots[i]) i = (i + 1) & t->mask;
        t->slots[i] = place;
    }
    t->at[place - 1].min = min;
    t->at[place - 1].max = max;
    return place;
}

size_t neap_sensors_check(const neap_sensors *t, neap_readings *b) {
    size_t marked = 0;
    uint32_t place = 0;
    for (size_t i = 0; i < b->count; i++) {
        neap_reading *r = &b->at[i];
        r->flags &= (uint32_t) ~(NEAP_READING_UNKNOWN | NEAP_READING_LOW | NEAP_READING_HIGH);
        r->sensor = place = neap_sensors_find_after(t, place, r->name, r->name_len);
        if (!r->sensor) {
            r->flags |= NEAP_READING_UNKNOWN;
        } else {
            if (r->value < t->at[r->sensor - 1].min) r->flags |= NEAP_READING_LOW;
            if (r->value > t->at[r->sensor - 1].max) r->flags |= NEAP_READING_HIGH;
        }
        marked += (r->flags & (NEAP_READING_UNKNOWN | NEAP_READING_LOW | NEAP_READING_HIGH)) != 0;
    }
    return marked;
}

void neap_sensors_set_special(neap_sensors *t, uint32_t place, bool special) {
    if (place && place <= t->count) t->at[place - 1].special = special;
}

int neap_sensors_touch(neap_sensors *t, uint32_t place) {
    if (!place || place > t->count || t->at[place - 1].touched) return 0;
    if (t->touched_count == t->touched_cap) {
        uint32_t cap = t->touched_cap ? t->touched_cap * 2 : 64, *p = realloc(t->touched, cap * sizeof *p);
        if (!p) return NEAP_ERR_MEMORY;
        t->touched = p;
        t->touched_cap = cap;
    }
    t->at[place - 1].touched = true;
    t->touched[t->touched_count++] = place;
    return 0;
}

int neap_sensors_touch_all(neap_sensors *t, const neap_readings *b) {
    int err = 0;
    for (size_t i = 0; !err && i < b->count; i++)
        if (!(b->at[i].flags & NEAP_READING_REFUSED)) err = neap_sensors_touch(t, b->at[i].sensor);
    return err;
}

const char *neap_sensors_next_touched(neap_sensors *t, size_t *len) {
    if (!t->touched_count) return NULL;
    sensor *s = &t->at[t->touched[--t->touched_count] - 1];
    s->touched = false;
    *len = s->len;
    return s->name;
}

bool neap_sensors_plain(const neap_sensors *t, neap_readings *b, int64_t oldest_us, int64_t newest_us) {
    if (neap_sensors_check(t, b) || b->dropped) return false;
    for (size_t i = 0; i < b->count; i++) {
        const neap_reading *r = &b->at[i];
        bool timed = r->time_us != NEAP_NO_TIME;
        if (r->flags || t->at[r->sensor - 1].special || (timed && (r->time_us < oldest_us || r->time_us > newest_us))) return false;
    }
    return true;
}
