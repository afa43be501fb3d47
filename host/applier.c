/* applier.c: the applier's state machine (see applier.h): greet the store, take the stored position of the oldest log, then keep up to two
   steps under way; whatever goes wrong ends in waiting for the steps that are out and beginning again with the greeting. */
#include "host/applier_priv.h"
#include "host/err.h"
#include <stdarg.h>
#include <stdlib.h>

enum { TICK_MS = 500, PAUSE_MS = 100 };

void applier_say(neap_applier *a, enum neap_applier_state s, const char *fmt, ...) {
    char text[sizeof a->status.text];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    bool news = s != a->status.state || strcmp(text, a->status.text) != 0;
    a->status.state = s;
    memcpy(a->status.text, text, sizeof text);
    neap_journal_set_live(a->j, s == NEAP_APPLIER_RUNNING);
    if (news && a->report) a->report(a->ud, s, text);
}

static void ask_position(neap_applier *a);

/* ---- steps -------------------------------------------------------------------------------------------------------------- */

static bool starts(const neap_reply *r, const char *word) { return strncmp(r->str, word, strlen(word)) == 0; }

/* All steps are back after one of them failed. */
static void drained(neap_applier *a) {
    a->drain = false;
    applier_distrust(a);
    if (a->greeted) ask_position(a);
    else applier_later(a);
}

static void step_done(neap_applier *a, const flight *f, const neap_reply *r) {
    a->status.steps++;
    if (r->len >= 4) {
        a->status.readings += (uint64_t)r->item[1].integer;
        a->status.duplicates += (uint64_t)r->item[2].integer;
        a->status.dead += (uint64_t)r->item[3].integer;
    }
    a->took_ms = uv_now(a->loop) - f->sent_ms;
    if (f->own) neap_journal_set_applied(a->j, f->to);
    applier_applied(a, f->uuid, f->to);
    if (a->status.state != NEAP_APPLIER_RUNNING) applier_say(a, NEAP_APPLIER_RUNNING, "%s", "");
}

static void step_refused(neap_applier *a, int status, const neap_reply *r) {
    const char *text = r && r->type == NEAP_REPLY_ERROR ? r->str : neap_err_kind(status);
    a->drain = true;
    a->greeted = false;
    a->generation++;                                                    /* what was registered in a step that failed may not be */
    if (status == NEAP_ERR_REPLY && r && starts(r, "NOSCRIPT")) return; /* loaded again by the greeting */
    bool person = status == NEAP_ERR_REPLY && r &&
                  (starts(r, "NEAP") || starts(r, "WRONGTYPE") || starts(r, "CROSSSLOT") || starts(r, "MOVED") || starts(r, "NOPERM"));
    applier_say(a, person ? NEAP_APPLIER_STOPPED : NEAP_APPLIER_AWAY, "%s", text);
}

static void on_step(void *ud, int status, neap_reply *r) {
    flight *f = ud;
    neap_applier *a = f->a;
    if (!a->stopped) {
        const neap_reply *word = status == 0 && r && r->type == NEAP_REPLY_ARRAY && r->len >= 2 ? &r->item[0] : NULL;
        a->flying--;
        a->first_flight = (a->first_flight + 1) % APPLIER_FLIGHTS;
        if (word && strcmp(word->str, "ok") == 0) {
            step_done(a, f, r);
        } else if (word && strcmp(word->str, "at") == 0) {
            if (!a->drain) a->status.rewinds++;
            a->drain = true;
            a->generation++;
        } else if (word) { /* "store": it changed under us */
            a->drain = true;
            a->greeted = false;
        } else {
            step_refused(a, status, r);
        }
        if (!a->drain) applier_pump(a);
        else if (!a->flying) drained(a);
    }
    neap_reply_free(r);
}

/* After a step: longer if its entries were thin, shorter if they were full; by half or twice at most. */
static void adapt_wait(neap_applier *a) {
    const step *s = &a->step;
    if (!s->entries) return;
    uint64_t full = s->readings / s->entries, wait = full ? a->wait_ms * APPLIER_DENSE / full : 2 * a->wait_ms;
    uint64_t most = a->took_ms < APPLIER_LAG_MS ? APPLIER_LAG_MS - a->took_ms : 0;
    if (wait < a->wait_ms / 2) wait = a->wait_ms / 2;
    if (wait > 2 * a->wait_ms) wait = 2 * a->wait_ms;
    if (wait > most) wait = most;
    a->wait_ms = wait < APPLIER_GATHER_MIN_MS ? APPLIER_GATHER_MIN_MS : wait;
}

/* Builds and sends one step. False if there is nothing to do, or it has to wait. */
static bool send_step(neap_applier *a) {
    uint64_t to, damaged = 0;
    size_t readings;
    int err = applier_build(a, a->pos, &to, &damaged, &readings);
    if (err) {
        applier_say(a, err == NEAP_ERR_MEMORY ? NEAP_APPLIER_AWAY : NEAP_APPLIER_STOPPED, "cannot read the journal %s at %llu: %s", a->uuid,
                    (unsigned long long)a->pos, neap_err_kind(err));
        a->greeted = false;
        a->drain = a->flying > 0;
        if (!a->flying) applier_later(a);
        return false;
    }
    if (to == a->pos) return false;
    if (damaged) {
        a->status.damaged_bytes += damaged;
        applier_say(a, a->status.state, "%llu bytes of the journal %s before %llu are damaged and were passed over", (unsigned long long)damaged,
                    a->uuid, (unsigned long long)to);
    }
    flight *f = &a->flights[(a->first_flight + a->flying) % APPLIER_FLIGHTS];
    *f = (flight){.a = a, .own = a->own, .from = a->pos, .to = to, .readings = readings};
    memcpy(f->uuid, a->uuid, 37);
    neap_redis_req q = {.bytes = a->step.wire.data, .len = a->step.wire.len, .count = 1, .cb = on_step, .ud = f};
    if ((err = neap_redis_send(a->redis, &q))) {
        step_refused(a, err, NULL);
        if (!a->flying) drained(a);
        return false;
    }
    a->flying++;
    adapt_wait(a);
    a->sent_ms = f->sent_ms = uv_now(a->loop);
    a->pos = to;
    a->stored = true;
    return true;
}

static void on_gathered(uv_timer_t *t) { applier_pump(t->data); }

/* How fast the own log grows, over APPLIER_MEASURE_MS and more: up to a point readings are moved at once, beyond it they are gathered. */
static void measure(neap_applier *a, uint64_t end) {
    uint64_t now = uv_now(a->loop), took = now - a->grown_ms;
    if (took < APPLIER_MEASURE_MS) return;
    bool hurry = (end - a->grown_to) / took > (uint64_t)(a->hurry ? APPLIER_HURRY * 2 / 3 : APPLIER_HURRY);
    if (hurry != a->hurry) neap_journal_set_hurry(a->j, hurry);
    a->hurry = hurry;
    a->grown_ms = now;
    a->grown_to = end;
}

/* More is worth waiting for before the next step. */
static bool gathering(neap_applier *a) {
    neap_journal_stats s;
    if (!a->own) return false;
    neap_journal_get_stats(a->j, &s);
    measure(a, s.durable);
    uint64_t waited = uv_now(a->loop) - a->sent_ms;
    if (!a->hurry || s.durable - a->pos >= APPLIER_STEP_BYTES || waited >= a->wait_ms) return false;
    if (!uv_is_active((uv_handle_t *)&a->gather)) uv_timer_start(&a->gather, on_gathered, a->wait_ms - waited, 0);
    return true;
}

void applier_pump(neap_applier *a) {
    if (a->stopped || a->drain || !a->greeted) return;
    if (!a->have_log) {
        ask_position(a);
        return;
    }
    while (a->flying < APPLIER_FLIGHTS && !gathering(a) && send_step(a)) {}
    if (a->flying == 0 && !a->own && a->have_log && a->greeted && !a->drain) ask_position(a); /* this older log is done: the next one */
}

/* ---- the stored position ------------------------------------------------------------------------------------------------ */

static void on_position(void *ud, int status, neap_reply *r) {
    neap_applier *a = ud;
    neap_journal_log logs[64];
    if (a->stopped) {
        neap_reply_free(r);
        return;
    }
    a->greeting = false;
    if (status || !r || (r->type != NEAP_REPLY_STRING && r->type != NEAP_REPLY_NIL)) {
        step_refused(a, status ? status : NEAP_ERR_REPLY, r);
        neap_reply_free(r);
        drained(a);
        return;
    }
    size_t n = neap_journal_logs(a->j, logs, 64), i = 0;
    while (i < n && i < 64 && strcmp(logs[i].uuid, a->uuid) != 0) i++;
    if (i == n || i == 64) { /* released in the meantime: look again */
        neap_reply_free(r);
        a->uuid[0] = 0;
        applier_later(a);
        return;
    }
    a->stored = r->type == NEAP_REPLY_STRING;
    uint64_t at = a->stored ? strtoull(r->str, NULL, 10) : logs[i].first;
    neap_reply_free(r);
    bool lost = !a->stored && logs[i].first > 0 && logs[i].first != logs[i].end;
    if (at > logs[i].end && logs[i].loose && !logs[i].own) { /* Redis' disk was ahead of this one: nothing of the log is left to apply */
        applier_say(a, a->status.state,
                    "a power cut took the end of the journal %s, which did not wait for the disk: Redis has it up to %llu, it ends at %llu", a->uuid,
                    (unsigned long long)at, (unsigned long long)logs[i].end);
        at = logs[i].end;
    }
    if (at > logs[i].end || at < logs[i].first || lost) {
        applier_say(a, NEAP_APPLIER_STOPPED,
                    "Redis has position %s%llu of the journal %s, which holds %llu to %llu: one of them is an old copy. Nothing is applied until "
                    "that is put right",
                    lost ? "nothing, not even " : "", (unsigned long long)at, a->uuid, (unsigned long long)logs[i].first,
                    (unsigned long long)logs[i].end);
        applier_later(a);
        return;
    }
    int err = neap_journal_check(a->j, a->uuid, at);
    if (err) {
        bool across = err == NEAP_ERR_CORRUPT;
        applier_say(
            a, err == NEAP_ERR_MEMORY ? NEAP_APPLIER_AWAY : NEAP_APPLIER_STOPPED,
            across ? "Redis has position %llu of the journal %s, which is in the middle of a record: it was not written by this journal. Nothing "
                     "is applied until that is put right%s"
                   : "cannot read the journal at %llu of %s: %s",
            (unsigned long long)at, a->uuid, across ? "" : neap_err_kind(err));
        applier_later(a);
        return;
    }
    a->pos = at;
    a->have_log = true;
    if (a->stored) applier_applied(a, a->uuid, at);
    if (a->own) neap_journal_set_applied(a->j, at);
    applier_say(a, NEAP_APPLIER_RUNNING, "%s", "");
    applier_pump(a);
}

static void ask_position(neap_applier *a) {
    if (a->greeting || a->flying) return;
    if (!applier_pick_log(a)) return;
    const char *argv[] = {"HGET", a->state_key, a->uuid};
    a->have_log = false;
    a->greeting = true;
    if (neap_redis_command(a->redis, 3, argv, NULL, NEAP_REDIS_RETRY, on_position, a)) {
        a->greeting = false;
        applier_later(a);
    }
}

/* ---- life ----------------------------------------------------------------------------------------------------------------- */

static void on_tick(uv_timer_t *t) {
    neap_applier *a = t->data;
    if (!a->greeted && !a->greeting && !a->flying) applier_greet(a);
    else if (a->greeted && !a->have_log && !a->greeting && !a->flying) ask_position(a);
    else if (a->greeted && a->have_log) applier_pump(a);
    if (a->greeted) applier_probe(a);
    uv_timer_start(t, on_tick, TICK_MS, 0);
}

void applier_later(neap_applier *a) {
    if (a->stopped) return;
    a->greeted = false;
    uv_timer_start(&a->tick, on_tick, PAUSE_MS, 0);
}

static void wake(void *ud) { neap_wake_send(&((neap_applier *)ud)->grown); }
static void on_grown(neap_wake *w) { applier_pump(w->poll.data); }

static void free_applier(neap_applier *a) {
    free(a->stream_prefix);
    free(a->stream_suffix);
    free(a->synthetic_suffix);
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
    int err = !o->addr || !o->stream_prefix || !o->stream_suffix || !o->synthetic_suffix || !o->sensors_key || !o->state_key || !o->dead_key ||
                      !o->once_prefix
                  ? NEAP_ERR_INVALID
                  : 0;
    if (!err && !((a->stream_prefix = strdup(o->stream_prefix)) && (a->stream_suffix = strdup(o->stream_suffix)) &&
                  (a->synthetic_suffix = strdup(o->synthetic_suffix)) && (a->sensors_key = strdup(o->sensors_key)) &&
                  (a->state_key = strdup(o->state_key)) && (a->dead_key = strdup(o->dead_key)) && (a->once_prefix = strdup(o->once_prefix)) &&
                  (a->names = neap_sensors_new()) && (a->applied = malloc(APPLIER_DURABLE_MAX * sizeof *a->applied))))
        err = NEAP_ERR_MEMORY;
    snprintf(a->store_file, sizeof a->store_file, "%s/store", neap_journal_dir(j));
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
    uv_timer_start(&a->tick, on_tick, TICK_MS, 0);
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

void neap_applier_get_status(neap_applier *a, neap_applier_status *out) {
    neap_journal_log logs[64];
    size_t n = neap_journal_logs(a->j, logs, 64);
    *out = a->status;
    out->behind = 0;
    bool before = true; /* logs up to the present one are applied, or being applied */
    uint64_t pos = a->flying ? a->flights[a->first_flight].from : a->pos;
    for (size_t i = 0; i < n && i < 64; i++) {
        bool present = a->have_log && strcmp(logs[i].uuid, a->uuid) == 0;
        if (present) out->behind += logs[i].end - pos;
        else if (!a->have_log || !before) out->behind += logs[i].end - logs[i].first;
        if (present) before = false;
    }
}
