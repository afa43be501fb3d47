/* compute_test.c: the compute pool: every job ends exactly once, on the draining thread, also when it is cancelled or the pool closes. Under TSan
 * too. */
#include "host/compute.h"
#include "spec/c/test.h"
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

typedef struct job {
    neap_compute_job c;
    pthread_t ran_on;
    int rounds, ran, done;
} job;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t woken = PTHREAD_COND_INITIALIZER;
static int wakes;

static void wake(void *ud) {
    pthread_mutex_lock(&lock);
    wakes++;
    pthread_cond_signal(&woken);
    pthread_mutex_unlock(&lock);
}

static void run(neap_compute_job *c) {
    job *j = (job *)c;
    j->ran_on = pthread_self();
    while (!atomic_load(&c->cancel) && j->rounds-- > 0) sched_yield();
    j->ran = 1;
}

static void done(neap_compute_job *c) { ((job *)c)->done++; }

static int drain_until(neap_compute *pool, int want) {
    int n = 0;
    while (n < want) {
        pthread_mutex_lock(&lock);
        while (!wakes) pthread_cond_wait(&woken, &lock);
        wakes = 0;
        pthread_mutex_unlock(&lock);
        n += neap_compute_drain(pool);
    }
    return n;
}

int main(void) {
    static job jobs[200];
    neap_compute *pool = neap_compute_new(3, wake, NULL);
    for (int i = 0; i < 100; i++) {
        jobs[i].c.run = run, jobs[i].c.done = done, jobs[i].rounds = i % 7;
        CHECK(neap_compute_submit(pool, &jobs[i].c) == 0);
    }
    CHECK(drain_until(pool, 100) == 100);
    for (int i = 0; i < 100; i++) CHECK(jobs[i].ran == 1 && jobs[i].done == 1 && !pthread_equal(jobs[i].ran_on, pthread_self()));
    jobs[100].c.run = run, jobs[100].c.done = done, jobs[100].rounds = 2000000000; /* ends only by cancelling */
    CHECK(neap_compute_submit(pool, &jobs[100].c) == 0);
    neap_compute_cancel(&jobs[100].c);
    CHECK(drain_until(pool, 1) == 1 && jobs[100].done == 1);
    for (int i = 101; i < 200; i++) {
        jobs[i].c.run = run, jobs[i].c.done = done, jobs[i].rounds = 2000000000;
        CHECK(neap_compute_submit(pool, &jobs[i].c) == 0);
    }
    neap_compute_close(pool);
    for (int i = 101; i < 200; i++) CHECK(jobs[i].done == 1);
    return test_end("compute");
}
