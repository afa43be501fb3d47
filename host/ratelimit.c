/* ratelimit.c: see ratelimit.h. A lock for the table: it is held for some nanoseconds, and only requests that are counted take it. */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "host/err.h"
#include "host/ratelimit.h"
#include "host/secret.h"

enum { WAYS = 8 }; /* places that a key may have */

typedef struct {
    uint64_t key; /* hash; 0: nobody's */
    double whole;
} place;

struct neap_ratelimit {
    neap_ratelimit *next;
    char *name;
    int openings;
    pthread_mutex_t mutex;
    uint64_t seed;
    size_t sets, ways;
    double shared; /* of those who found no place */
    place places[];
};

/* The named tables of the process, as with journals: the workers of a server must get the same one. */
static pthread_mutex_t naming = PTHREAD_MUTEX_INITIALIZER;
static neap_ratelimit *named;

static neap_ratelimit *table_new(const char *name, size_t keys) {
    size_t ways = keys < WAYS ? (keys ? keys : 1) : WAYS, sets = (keys + ways - 1) / ways;
    if (!sets) sets = 1;
    neap_ratelimit *t = calloc(1, sizeof *t + sets * ways * sizeof(place));
    if (!t) return NULL;
    if ((name && !(t->name = strdup(name))) || neap_secret_random(&t->seed, sizeof t->seed)) {
        free(t->name);
        free(t);
        return NULL;
    }
    pthread_mutex_init(&t->mutex, NULL);
    t->sets = sets;
    t->ways = ways;
    t->openings = 1;
    return t;
}

int neap_ratelimit_open(const char *name, size_t keys, neap_ratelimit **out) {
    neap_ratelimit *t = NULL;
    pthread_mutex_lock(&naming);
    if (name)
        for (t = named; t && strcmp(t->name, name) != 0;) t = t->next;
    if (t) t->openings++;
    else if ((t = table_new(name, keys)) && name) {
        t->next = named;
        named = t;
    }
    pthread_mutex_unlock(&naming);
    *out = t;
    return t ? 0 : NEAP_ERR_MEMORY;
}

void neap_ratelimit_close(neap_ratelimit *t) {
    if (!t) return;
    pthread_mutex_lock(&naming);
    int last = --t->openings == 0;
    if (last)
        for (neap_ratelimit **p = &named; *p; p = &(*p)->next)
            if (*p == t) {
                *p = t->next;
                break;
            }
    pthread_mutex_unlock(&naming);
    if (!last) return;
    pthread_mutex_destroy(&t->mutex);
    free(t->name);
    free(t);
}

static uint64_t mix(uint64_t h) {
    h = (h ^ h >> 30) * 0xBF58476D1CE4E5B9u;
    h = (h ^ h >> 27) * 0x94D049BB133111EBu;
    return h ^ h >> 31;
}

static uint64_t hash(const neap_ratelimit *t, const char *key, size_t n) {
    uint64_t h = mix(t->seed ^ n), w;
    for (; n >= 8; key += 8, n -= 8) {
        memcpy(&w, key, 8);
        h = mix(h ^ mix(w ^ t->seed));
    }
    w = 0;
    memcpy(&w, key, n);
    h = mix(h ^ mix(w ^ t->seed));
    return h ? h : 1;
}

double neap_ratelimit_take(neap_ratelimit *t, const char *key, size_t n, double now, double interval, double slack) {
    uint64_t h = hash(t, key, n);
    place *p = &t->places[h % t->sets * t->ways], *mine = NULL, *spare = NULL;
    pthread_mutex_lock(&t->mutex);
    for (size_t i = 0; i < t->ways && !mine; i++) {
        if (p[i].key == h) mine = &p[i];
        else if (!spare && (!p[i].key || p[i].whole <= now)) spare = &p[i];
    }
    if (!mine && (mine = spare)) *mine = (place){h, now};
    double *whole = mine ? &mine->whole : &t->shared, from = *whole > now ? *whole : now, wait = from - now - slack;
    if (wait > 1e-9) {
        pthread_mutex_unlock(&t->mutex);
        return wait;
    }
    *whole = from + interval;
    pthread_mutex_unlock(&t->mutex);
    return 0;
}
