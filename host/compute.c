/* compute.c: see compute.h. One lock; a thread that finds no work for a second ends. */
#include "host/compute.h"
#include "host/err.h"
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

struct neap_compute {
    pthread_mutex_t lock;
    pthread_cond_t more, ended;
    neap_compute_job *queue, *running, *finished; /* lists; queue and finished in order */
    int most, threads, idle, closing;
    void (*wake)(void *ud);
    void *ud;
};

neap_compute *neap_compute_new(int threads, void (*wake)(void *ud), void *ud) {
    neap_compute *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->more, NULL);
    pthread_cond_init(&c->ended, NULL);
    c->most = threads < 1 ? 1 : threads;
    c->wake = wake;
    c->ud = ud;
    return c;
}

static void append(neap_compute_job **list, neap_compute_job *job) {
    job->next = NULL;
    while (*list) list = &(*list)->next;
    *list = job;
}

static void drop(neap_compute_job **list, neap_compute_job *job) {
    while (*list != job) list = &(*list)->next;
    *list = job->next;
}

static void *worker(void *arg) {
    neap_compute *c = arg;
    pthread_mutex_lock(&c->lock);
    for (;;) {
        int rc = 0;
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += 1;
        c->idle++;
        while (!c->queue && !c->closing && rc != ETIMEDOUT) rc = pthread_cond_timedwait(&c->more, &c->lock, &until);
        c->idle--;
        neap_compute_job *job = c->queue;
        if (!job) break;
        c->queue = job->next;
        job->next = c->running;
        c->running = job;
        pthread_mutex_unlock(&c->lock);
        job->run(job);
        pthread_mutex_lock(&c->lock);
        drop(&c->running, job);
        append(&c->finished, job);
        c->wake(c->ud); /* under the lock: the pool cannot close in between */
    }
    c->threads--;
    pthread_cond_signal(&c->ended);
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

int neap_compute_submit(neap_compute *c, neap_compute_job *job) {
    int rc = 0;
    atomic_store(&job->cancel, 0);
    job->pool = c;
    pthread_mutex_lock(&c->lock);
    if (c->idle == 0 && c->threads < c->most) {
        pthread_t thread;
        pthread_attr_t detached;
        pthread_attr_init(&detached);
        pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
        if (!pthread_create(&thread, &detached, worker, c)) c->threads++;
        else if (c->threads == 0) rc = NEAP_ERR_MEMORY;
        pthread_attr_destroy(&detached);
    }
    if (!rc) {
        append(&c->queue, job);
        pthread_cond_signal(&c->more);
    }
    pthread_mutex_unlock(&c->lock);
    return rc;
}

void neap_compute_cancel(neap_compute_job *job) { atomic_store(&job->cancel, 1); }

int neap_compute_drain(neap_compute *c) {
    int n = 0;
    pthread_mutex_lock(&c->lock);
    for (neap_compute_job *job; (job = c->finished); n++) {
        c->finished = job->next;
        pthread_mutex_unlock(&c->lock);
        job->done(job);
        pthread_mutex_lock(&c->lock);
    }
    pthread_mutex_unlock(&c->lock);
    return n;
}

void neap_compute_close(neap_compute *c) {
    pthread_mutex_lock(&c->lock);
    c->closing = 1;
    for (neap_compute_job *j = c->running; j; j = j->next) neap_compute_cancel(j);
    for (neap_compute_job *j = c->queue; j; j = j->next) neap_compute_cancel(j);
    pthread_cond_broadcast(&c->more);
    while (c->threads > 0) pthread_cond_wait(&c->ended, &c->lock);
    pthread_mutex_unlock(&c->lock);
    neap_compute_drain(c);
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->more);
    pthread_cond_destroy(&c->ended);
    free(c);
}
