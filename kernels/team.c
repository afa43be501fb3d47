/* team.c: see team.h. A barrier is a counter and a round number; waiting spins and, after a while, yields, so that a machine with fewer cores than
   members still makes progress. */
#include "kernels/team.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

struct neap_team {
    int size;
    atomic_int arrived, round; /* the barrier */
    atomic_int job, done;      /* job number; members finished with it */
    int quit;                  /* read after `job` changed */
    void (*fn)(void *arg, int member, int size);
    void *arg;
    struct member {
        neap_team *team;
        int number;
        pthread_t thread;
    } member[64];
};

static void relax(int *spins) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
    if (++*spins > 2000) sched_yield();
}

static void *member_main(void *arg) {
    struct member *me = arg;
    neap_team *t = me->team;
    for (int seen = 0;; seen++) {
        int spins = 0;
        while (atomic_load_explicit(&t->job, memory_order_acquire) == seen) relax(&spins);
        if (t->quit) return NULL;
        t->fn(t->arg, me->number, t->size);
        atomic_fetch_add_explicit(&t->done, 1, memory_order_release);
    }
}

neap_team *neap_team_new(int threads) {
    neap_team *t = calloc(1, sizeof *t);
    if (!t) return NULL;
    if (threads > 64) threads = 64;
    t->size = 1;
    for (int i = 1; i < threads; i++) {
        t->member[i] = (struct member){t, i, 0};
        if (pthread_create(&t->member[i].thread, NULL, member_main, &t->member[i])) break;
        t->size++;
    }
    if (t->size > 1) return t;
    free(t);
    return NULL;
}

void neap_team_free(neap_team *t) {
    if (!t) return;
    t->quit = 1;
    atomic_fetch_add_explicit(&t->job, 1, memory_order_release);
    for (int i = 1; i < t->size; i++) pthread_join(t->member[i].thread, NULL);
    free(t);
}

int neap_team_size(const neap_team *t) { return t ? t->size : 1; }

void neap_team_run(neap_team *t, void (*fn)(void *arg, int member, int size), void *arg) {
    int spins = 0;
    t->fn = fn;
    t->arg = arg;
    atomic_store_explicit(&t->done, 0, memory_order_relaxed);
    atomic_fetch_add_explicit(&t->job, 1, memory_order_release);
    fn(arg, 0, t->size);
    while (atomic_load_explicit(&t->done, memory_order_acquire) < t->size - 1) relax(&spins);
}

void neap_team_barrier(neap_team *t) {
    int round = atomic_load_explicit(&t->round, memory_order_relaxed), spins = 0;
    if (atomic_fetch_add_explicit(&t->arrived, 1, memory_order_acq_rel) == t->size - 1) {
        atomic_store_explicit(&t->arrived, 0, memory_order_relaxed);
        atomic_fetch_add_explicit(&t->round, 1, memory_order_release);
        return;
    }
    while (atomic_load_explicit(&t->round, memory_order_acquire) == round) relax(&spins);
}
