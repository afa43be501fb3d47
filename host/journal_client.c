/* journal_client.c: a loop's end of the journal: appends go in under the journal's mutex, finished ones come back through a wake-up.
   A client outlives its detaching until the writer has let go of its last append. */
#include <stdatomic.h>
#include "host/journal_priv.h"
#include "host/wake.h"

enum { ENOUGH = 16 * 1024 }; /* bytes that go to the disk while the turn goes on */

typedef struct waiter {
    struct waiter *next;
    uint64_t end;
    neap_journal_cb cb;
    void *ud;
} waiter;

struct neap_journal_client {
    neap_journal *j;
    neap_journal_client *next; /* in j->clients, under j's mutex */
    neap_wake wake;
    pthread_mutex_t mutex; /* guards done, done_last, closed, refs */
    jappend *done, **done_last;
    bool closed;
    int refs; /* appends that the writer has, and one for the loop */
    /* the loop's thread only */
    jappend *outstanding;
    waiter *waiters, **last_waiter;
    bool by_turn, told; /* the writer is told of appends at the end of a turn; it was not yet told of some: !told */
    atomic_int waiting; /* number of waiters, read by whoever moves the applied position */
};

static void unref(neap_journal_client *c) {
    pthread_mutex_lock(&c->mutex);
    bool last = --c->refs == 0;
    pthread_mutex_unlock(&c->mutex);
    if (!last) return;
    pthread_mutex_destroy(&c->mutex);
    free(c);
}

/* Any thread: an append is over. */
void journal_client_done(neap_journal_client *c, jappend *a) {
    pthread_mutex_lock(&c->mutex);
    bool orphan = a->orphan;
    if (!orphan) {
        a->over = true;
        *c->done_last = a;
        c->done_last = &a->next;
        if (!c->closed && c->done == a) neap_wake_send(&c->wake); /* detach closes the handle under this mutex too */
    }
    pthread_mutex_unlock(&c->mutex);
    if (!orphan) return;
    free(a);
    unref(c);
}

/* Takes one finished append out of the list, or NULL. */
static jappend *take_done(neap_journal_client *c) {
    pthread_mutex_lock(&c->mutex);
    jappend *a = c->done;
    if (a && !(c->done = a->next)) c->done_last = &c->done;
    pthread_mutex_unlock(&c->mutex);
    return a;
}

/* An idle client does not keep the loop alive. */
static void keep_loop(neap_journal_client *c) {
    if (c->outstanding || c->waiters) uv_ref((uv_handle_t *)&c->wake.poll);
    else uv_unref((uv_handle_t *)&c->wake.poll);
}

static void forget(neap_journal_client *c, jappend *a) {
    if (a->prev_out) a->prev_out->next_out = a->next_out;
    else c->outstanding = a->next_out;
    if (a->next_out) a->next_out->prev_out = a->prev_out;
}

static uint64_t applied_position(neap_journal *j) {
    pthread_mutex_lock(&j->mutex);
    uint64_t p = j->stats.applied;
    pthread_mutex_unlock(&j->mutex);
    return p;
}

static void drop_waiter(neap_journal_client *c, waiter **p) {
    waiter *w = *p;
    *p = w->next;
    if (!*p) c->last_waiter = p;
    atomic_fetch_sub(&c->waiting, 1);
    free(w);
}

static void on_wake(neap_wake *w) {
    neap_journal_client *c = w->poll.data;
    for (jappend *list; (list = take_done(c));) {
        jappend a = *list;
        forget(c, list);
        free(list);
        if (a.cb) a.cb(a.ud, a.status, a.end);
        unref(c); /* never the last: the loop's own is dropped in the close callback */
    }
    uint64_t applied = atomic_load(&c->waiting) ? applied_position(c->j) : 0;
    for (waiter **p = &c->waiters; *p;) {
        if ((*p)->end > applied) {
            p = &(*p)->next;
            continue;
        }
        neap_journal_cb cb = (*p)->cb;
        void *ud = (*p)->ud;
        drop_waiter(c, p);
        cb(ud, 0, applied);
        p = &c->waiters; /* the callback may have changed the list */
    }
    if (!c->closed) keep_loop(c);
}

int neap_journal_attach(neap_journal *j, uv_loop_t *loop, neap_journal_client **out) {
    neap_journal_client *c = calloc(1, sizeof *c);
    *out = NULL;
    if (!c) return NEAP_ERR_MEMORY;
    c->j = j;
    c->refs = 1;
    c->done_last = &c->done;
    c->last_waiter = &c->waiters;
    if (neap_wake_init(loop, &c->wake, on_wake)) {
        free(c);
        return NEAP_ERR_IO;
    }
    c->wake.poll.data = c;
    pthread_mutex_init(&c->mutex, NULL);
    uv_unref((uv_handle_t *)&c->wake.poll);
    pthread_mutex_lock(&j->mutex);
    c->next = j->clients;
    j->clients = c;
    pthread_mutex_unlock(&j->mutex);
    *out = c;
    return 0;
}

static void on_closed(uv_handle_t *h) { unref(h->data); }

void neap_journal_detach(neap_journal_client *c) {
    if (!c || c->closed) return;
    neap_journal *j = c->j;
    neap_journal_turn(c);
    pthread_mutex_lock(&j->mutex);
    neap_journal_client **p = &j->clients;
    while (*p != c) p = &(*p)->next;
    *p = c->next;
    pthread_mutex_unlock(&j->mutex);
    pthread_mutex_lock(&c->mutex);
    c->closed = true;
    neap_wake_close(&c->wake, on_closed);
    pthread_mutex_unlock(&c->mutex);
    for (;;) {
        for (jappend *a; (a = take_done(c)); unref(c)) { /* those that are over, in order */
            jappend copy = *a;
            forget(c, a);
            free(a);
            if (copy.cb) copy.cb(copy.ud, copy.status, copy.end);
        }
        pthread_mutex_lock(&c->mutex);
        jappend *a = c->outstanding;
        bool over = a && a->over;
        neap_journal_cb cb = a ? a->cb : NULL;
        void *ud = a ? a->ud : NULL;
        if (a && !over) {
            forget(c, a);
            a->orphan = true; /* from here it is the writer's */
        }
        pthread_mutex_unlock(&c->mutex);
        if (!a) break;
        if (!over && cb) cb(ud, NEAP_ERR_CLOSED, 0);
    }
    while (c->waiters) {
        neap_journal_cb cb = c->waiters->cb;
        void *ud = c->waiters->ud;
        drop_waiter(c, &c->waiters);
        cb(ud, NEAP_ERR_CLOSED, 0);
    }
}

int neap_journal_append(neap_journal_client *c, const void *data, size_t n, neap_journal_cb cb, void *ud) {
    neap_journal *j = c->j;
    if (n == 0 || n > NEAP_JOURNAL_RECORD_MAX) return NEAP_ERR_INVALID;
    if (c->closed) return NEAP_ERR_CLOSED;
    jappend *a = calloc(1, sizeof *a);
    if (!a) return NEAP_ERR_MEMORY;
    *a = (jappend){.client = c, .cb = cb, .ud = ud, .len = n};
    uint32_t head[3] = {JOURNAL_RECORD_MAGIC, (uint32_t)n, 0};
    int err = 0;
    pthread_mutex_lock(&j->mutex);
    size_t more = sizeof head + n;
    bool old = j->mark_count && journal_age_ms(j) > j->max_age_ms;
    if (j->closing) err = NEAP_ERR_CLOSED;
    else if (old || j->stats.retained + j->pending.len + more > j->max_bytes || j->pending.len + more > JOURNAL_PENDING_MAX + NEAP_JOURNAL_RECORD_MAX)
        err = NEAP_ERR_FULL;
    else if (buf_reserve(&j->pending, more)) err = NEAP_ERR_MEMORY;
    if (err) {
        j->stats.refused += err == NEAP_ERR_FULL;
        j->stats.refused_old += err == NEAP_ERR_FULL && old;
        pthread_mutex_unlock(&j->mutex);
        free(a);
        return err;
    }
    buf_add(&j->pending, head, sizeof head);
    buf_add(&j->pending, data, n);
    *j->last = a;
    j->last = &a->next;
    pthread_mutex_lock(&c->mutex); /* order: journal, then client */
    c->refs++;
    pthread_mutex_unlock(&c->mutex);
    size_t before = j->pending.len - more;
    if (c->by_turn) c->told = false;
    if (c->by_turn ? before < ENOUGH && j->pending.len >= ENOUGH : !before) pthread_cond_signal(&j->work);
    pthread_mutex_unlock(&j->mutex);
    a->next_out = c->outstanding;
    if (c->outstanding) c->outstanding->prev_out = a;
    c->outstanding = a;
    keep_loop(c);
    return 0;
}

void neap_journal_by_turn(neap_journal_client *c) { c->by_turn = c->told = true; }

int neap_journal_turn(neap_journal_client *c) {
    if (c->told) return 0;
    c->told = true;
    pthread_mutex_lock(&c->j->mutex);
    pthread_cond_signal(&c->j->work);
    pthread_mutex_unlock(&c->j->mutex);
    return 1;
}

int neap_journal_wait_applied(neap_journal_client *c, uint64_t end, neap_journal_cb cb, void *ud) {
    if (c->closed) return NEAP_ERR_CLOSED;
    waiter *w = malloc(sizeof *w);
    if (!w) return NEAP_ERR_MEMORY;
    *w = (waiter){NULL, end, cb, ud};
    *c->last_waiter = w;
    c->last_waiter = &w->next;
    atomic_fetch_add(&c->waiting, 1);
    keep_loop(c);
    if (applied_position(c->j) >= end) neap_wake_send(&c->wake);
    return 0;
}

void neap_journal_unwait(neap_journal_client *c, void *ud) {
    for (waiter **p = &c->waiters; *p; p = &(*p)->next)
        if ((*p)->ud == ud) {
            drop_waiter(c, p);
            break;
        }
    if (!c->closed) keep_loop(c);
}

void neap_journal_set_applied(neap_journal *j, const char *uuid, uint64_t end) {
    pthread_mutex_lock(&j->mutex);
    for (size_t i = 0; i < j->log_count; i++)
        if (strcmp(j->logs[i]->uuid, uuid) == 0) j->logs[i]->applied = end;
    uint64_t own = journal_own(j)->applied;
    bool more = own > j->stats.applied;
    if (more) j->stats.applied = own;
    for (neap_journal_client *c = j->clients; more && c; c = c->next)
        if (atomic_load(&c->waiting)) neap_wake_send(&c->wake);
    pthread_mutex_unlock(&j->mutex);
}

void neap_journal_doubt(neap_journal *j) {
    pthread_mutex_lock(&j->mutex);
    for (size_t i = 0; i < j->log_count; i++) j->logs[i]->applied = 0;
    pthread_mutex_unlock(&j->mutex);
}

void neap_journal_set_live(neap_journal *j, bool live) {
    pthread_mutex_lock(&j->mutex);
    j->live = live;
    pthread_mutex_unlock(&j->mutex);
}

bool neap_journal_is_live(neap_journal *j) {
    pthread_mutex_lock(&j->mutex);
    bool live = j->live;
    pthread_mutex_unlock(&j->mutex);
    return live;
}

void neap_journal_set_hurry(neap_journal *j, bool hurry) {
    pthread_mutex_lock(&j->mutex);
    j->hurry = hurry;
    pthread_mutex_unlock(&j->mutex);
}

bool neap_journal_in_hurry(neap_journal *j) {
    pthread_mutex_lock(&j->mutex);
    bool hurry = j->hurry;
    pthread_mutex_unlock(&j->mutex);
    return hurry;
}

/* ---- age ------------------------------------------------------------------------------------------------------------- */

/* Marks are as far apart as a fortieth of what the oldest has waited, 20 ms at least: enough of them for a day. */
void journal_mark(neap_journal *j, uint64_t pos) {
    uint64_t now = uv_hrtime() / 1000000, apart = j->mark_count ? (now - j->marks[0].ms) / 40 : 0;
    if (j->mark_count && now - j->marks[j->mark_count - 1].ms < (apart < 20 ? 20 : apart)) return;
    if (j->mark_count == JOURNAL_MARKS) { /* a longer time behind: half of them will do */
        for (size_t i = 1; i < JOURNAL_MARKS / 2; i++) j->marks[i] = j->marks[2 * i];
        j->mark_count = JOURNAL_MARKS / 2;
    }
    j->marks[j->mark_count++] = (jmark){pos, now};
}

uint64_t journal_age_ms(neap_journal *j) {
    size_t done = 0;
    if (j->stats.applied >= j->stats.durable) done = j->mark_count;
    while (done + 1 < j->mark_count && j->marks[done + 1].pos <= j->stats.applied) done++;
    if (done) memmove(j->marks, j->marks + done, (j->mark_count - done) * sizeof *j->marks);
    j->mark_count -= done;
    return j->mark_count ? uv_hrtime() / 1000000 - j->marks[0].ms : 0;
}
