/* applier_life.c: starting and stopping the applier, and what it says of itself. */
#include "host/applier_priv.h"
#include "host/err.h"
#include <stdlib.h>

static void wake(void *ud) { neap_wake_send(&((neap_applier *)ud)->grown); }
static void on_grown(neap_wake *w) { applier_pump(w->poll.data); }

static void free_applier(neap_applier *a) {
    free(a->stream_prefix);
    for (int i = 0; i < NEAP_SOURCES; i++) free(a->suffix[i]);
    free(a->position_suffix);
    free(a->dead_suffix);
    free(a->once_suffix);
    free(a->met);
    free(a->sensors_key);
    free(a->state_key);
    free(a->dead_key);
    free(a->once_prefix);
    neap_sensors_free(a->names);
    free(a->streams);
    free(a->applied);
    applier_free_step(&a->step);
    free(a);
}

static void on_closed(uv_handle_t *h) {
    neap_applier *a = h->data;
    if (--a->handles == 0) free_applier(a);
}

void neap_applier_stop(neap_applier *a) {
    if (!a || a->stopped) return;
    a->stopped = true;
    neap_journal_on_grow(a->j, NULL, NULL);
    neap_journal_set_live(a->j, false);
    neap_journal_set_hurry(a->j, false);
    neap_redis_close(a->redis); /* calls back what is out: stopped is set */
    neap_wake_close(&a->grown, on_closed);
    uv_close((uv_handle_t *)&a->tick, on_closed);
    uv_close((uv_handle_t *)&a->gather, on_closed);
}

int neap_applier_start(uv_loop_t *loop, neap_journal *j, const neap_applier_opts *o, neap_applier **out) {
    neap_applier *a = calloc(1, sizeof *a);
    *out = NULL;
    if (!a) return NEAP_ERR_MEMORY;
    a->loop = loop;
    a->j = j;
    a->keep = o->keep;
    a->once_s = o->once_s ? o->once_s : 3600;
    a->report = o->report;
    a->ud = o->ud;
    a->generation = 1;
    a->wait_ms = APPLIER_GATHER_MIN_MS;
    const struct {
        const char *from;
        char **to;
    } texts[] = {{o->stream_prefix, &a->stream_prefix},
                 {o->stream_suffix, &a->suffix[NEAP_REAL]},
                 {o->synthetic_suffix, &a->suffix[NEAP_SYNTHETIC]},
                 {o->quarantine_suffix, &a->suffix[NEAP_QUARANTINE]},
                 {o->position_suffix, &a->position_suffix},
                 {o->dead_suffix, &a->dead_suffix},
                 {o->once_suffix, &a->once_suffix},
                 {o->sensors_key, &a->sensors_key},
                 {o->state_key, &a->state_key},
                 {o->dead_key, &a->dead_key},
                 {o->once_prefix, &a->once_prefix}};
    int err = o->addr ? 0 : NEAP_ERR_INVALID;
    for (size_t i = 0; !err && i < sizeof texts / sizeof *texts; i++) {
        if (!texts[i].from) err = NEAP_ERR_INVALID;
        else if (!(*texts[i].to = strdup(texts[i].from))) err = NEAP_ERR_MEMORY;
    }
    if (!err && !((a->names = neap_sensors_new()) && (a->applied = malloc(APPLIER_DURABLE_MAX * sizeof *a->applied)))) err = NEAP_ERR_MEMORY;
    neap_redis_opts r = {.name = "neap-applier", .timeout_ms = o->timeout_ms ? o->timeout_ms : 5000, .self_turn = true};
    if (!err) r.addr = *o->addr;
    if (!err) err = neap_redis_open(loop, &r, &a->redis);
    if (!err && (neap_wake_init(loop, &a->grown, on_grown) || uv_timer_init(loop, &a->tick) || uv_timer_init(loop, &a->gather))) err = NEAP_ERR_IO;
    if (err) {
        if (a->redis) neap_redis_close(a->redis);
        free_applier(a);
        return err;
    }
    a->grown.poll.data = a->tick.data = a->gather.data = a;
    a->handles = 3;
    uv_unref((uv_handle_t *)&a->grown.poll);
    uv_timer_start(&a->tick, applier_tick, APPLIER_TICK_MS, 0);
    uv_unref((uv_handle_t *)&a->tick);
    uv_unref((uv_handle_t *)&a->gather);
    if ((err = neap_journal_on_grow(j, wake, a))) { /* somebody else's: it stays theirs */
        a->stopped = true;
        neap_redis_close(a->redis);
        neap_wake_close(&a->grown, on_closed);
        uv_close((uv_handle_t *)&a->tick, on_closed);
        uv_close((uv_handle_t *)&a->gather, on_closed);
        return err;
    }
    applier_greet(a);
    *out = a;
    return 0;
}

void neap_applier_get_status(neap_applier *a, neap_applier_status *out) { *out = a->status; }
