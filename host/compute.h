/* compute.h: threads for long computations, so that the loop keeps serving. Jobs run in order of submission on at most `threads` threads, started
   when needed; `run` is called on one of them and must look at neap_compute_stopping now and then; `done` is called on the loop thread, from
   neap_compute_drain, exactly once for every submitted job, also when the pool closes. */
#ifndef NEAP_COMPUTE_H
#define NEAP_COMPUTE_H
#include <stdatomic.h>

typedef struct neap_compute neap_compute;

typedef struct neap_compute_job {
    void (*run)(struct neap_compute_job *job);
    void (*done)(struct neap_compute_job *job); /* may free the job */
    atomic_int cancel;                          /* set by neap_compute_cancel and when the pool closes */
    neap_compute *pool;
    struct neap_compute_job *next;
} neap_compute_job;

/* wake(ud) is called on a compute thread when something is done: it must lead to neap_compute_drain on the loop thread. NULL: no memory. */
neap_compute *neap_compute_new(int threads, void (*wake)(void *ud), void *ud);

/* 0, or NEAP_ERR_MEMORY if no thread could be started (done is then never called). */
int neap_compute_submit(neap_compute *pool, neap_compute_job *job);

/* Asks a job to end early; it still completes through `done`. Any thread. */
void neap_compute_cancel(neap_compute_job *job);

/* Calls `done` of what is finished; returns how many. */
int neap_compute_drain(neap_compute *pool);

/* Cancels all jobs, waits for the threads, completes everything, frees the pool. */
void neap_compute_close(neap_compute *pool);
#endif
