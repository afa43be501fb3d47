/* score.c: a program of its own, with readings of its own, that has neap judge them. Build it against an installed neap:

       cc score.c $(pkg-config --cflags --libs neap) -lm -lpthread -o score && ./score judge.lua

   Three threads: a sampler takes readings and posts them; the main thread owns the host and calls Lua with each; an instrument's thread answers when
   Lua asks for a reading once more. `./score judge.lua --exhaust` does all of it again and again, with the first allocation failing, then the second,
   and so on (`--exhaust 10`: the tenth, the twentieth): an embedded host returns an error code and leaves nothing behind, whatever it could not get.
 */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <neap.h>

enum { HISTORY = 400, COUNT = 200, INSTRUMENTS = 16 };

/* ---- the readings: a slow cycle and a little noise; one real fault, and one glitch that a second look does not confirm ---- */
static double clean(int i) { return 20 + 3 * sin(i * 0.12) + 0.05 * sin(i * 12.9898) * cos(i * 78.233); }
static double reading(int i) { return clean(i) + (i == HISTORY + 60 || i == HISTORY + 130 ? 2.5 : 0); }
static double reading_again(int i) { return clean(i) + (i == HISTORY + 60 ? 2.5 : 0); }

/* ---- an allocator of ours: counts what Lua holds; from allocation `fail_at` on it refuses twice (Lua collects garbage and asks once more) or,
   if `for_good`, for ever ---- */
typedef struct meter {
    long blocks, asked, fail_at;
    int for_good;
} meter;

static void *metered(void *ud, void *ptr, size_t old_size, size_t new_size) {
    meter *m = ud;
    if (new_size == 0) {
        m->blocks -= ptr != NULL;
        free(ptr);
        return NULL;
    }
    if (!ptr || new_size > old_size) {
        long n = ++m->asked;
        if (m->fail_at && n >= m->fail_at && (m->for_good || n < m->fail_at + 2)) return NULL;
    }
    m->blocks += ptr == NULL;
    return realloc(ptr, new_size);
}

/* ---- the program ---- */
typedef struct program {
    neap *host;
    int quiet, judged, flagged, failed;
    pthread_t instruments[INSTRUMENTS];
    int ninstruments;
} program;

typedef struct sample { /* one reading on its way from thread to thread */
    program *p;
    int index;
    double value;
    neap_ticket ticket;
} sample;

static void fail(program *p, const char *what) {
    p->failed++;
    if (!p->quiet) fprintf(stderr, "score: %s\n", what);
}

/* Lua has judged a reading, or raised. Main thread. */
static void on_judged(neap *h, int status, const neap_value *values, int n, void *ud) {
    sample *s = ud;
    program *p = s->p;
    p->judged++;
    if (status) {
        fail(p, n ? values[0].as.string.data : "no memory for a message");
    } else if (n == 2 && values[0].as.boolean) {
        p->flagged++;
        if (!p->quiet) printf("reading %d: %.2f is unusual, expected about %.1f\n", s->index, s->value, values[1].as.number);
    }
    free(s);
    if (p->judged == COUNT) neap_stop(h);
}

/* A reading has come from the sampler. Main thread. */
static void on_reading(neap *h, void *ud) {
    sample *s = ud;
    neap_value args[] = {{.type = NEAP_INTEGER, .as.integer = s->index}, {.type = NEAP_NUMBER, .as.number = s->value}};
    if (neap_call(h, "judge", args, 2, on_judged, s)) on_judged(h, -1, NULL, 0, s);
}

static void *sampler(void *ud) {
    program *p = ud;
    for (int i = HISTORY; i < HISTORY + COUNT; i++) {
        sample *s = malloc(sizeof *s);
        if (!s) break;
        *s = (sample){p, i, reading(i), 0};
        if (neap_post(p->host, on_reading, s)) {
            free(s);
            break;
        }
        if (i == HISTORY + COUNT - 1) return NULL; /* on_judged stops the loop when it has seen them all */
    }
    neap_stop(p->host);
    return NULL;
}

/* device.history(): at once. */
static void history(neap *h, neap_args *a, void *ud) {
    float values[HISTORY];
    for (int i = 0; i < HISTORY; i++) values[i] = (float)reading(i);
    neap_return(a, &(neap_value){.type = NEAP_STRING, .as.string = {(char *)values, sizeof values}});
}

/* device.again(index): the instrument answers from its own thread. */
static void *instrument(void *ud) {
    sample *s = ud;
    neap_complete(s->p->host, s->ticket, &(neap_value){.type = NEAP_NUMBER, .as.number = reading_again(s->index)}, 1, NULL);
    free(s);
    return NULL;
}

static void again(neap *h, neap_ticket ticket, neap_args *a, void *ud) {
    program *p = ud;
    sample *s = malloc(sizeof *s);
    if (s) *s = (sample){p, (int)neap_arg(a, 1).as.integer, 0, ticket};
    if (!s || p->ninstruments == INSTRUMENTS || pthread_create(&p->instruments[p->ninstruments], NULL, instrument, s)) {
        free(s);
        neap_fail(a, "device.again: no instrument is free");
        return;
    }
    p->ninstruments++;
}

/* One life of a host. 0, or the first error's code; `p` says what happened. */
static int run(program *p, meter *m, const char *script) {
    neap_options o;
    neap_options_init(&o);
    o.name = "score";
    o.alloc = metered;
    o.alloc_ud = m;
    int err = neap_create(&p->host, &o);
    if (err) {
        fail(p, "cannot create a host");
        return err;
    }
    pthread_t thread;
    if (!(err = neap_register(p->host, "device.history", history, NULL)) && !(err = neap_register_async(p->host, "device.again", again, p)) &&
        !(err = neap_run_file(p->host, script))) {
        if (pthread_create(&thread, NULL, sampler, p) == 0) {
            neap_hold(p->host, 1); /* whatever comes will come from the sampler */
            neap_loop(p->host);
            pthread_join(thread, NULL);
        } else {
            fail(p, "cannot start the sampler");
        }
    } else {
        fail(p, neap_error(p->host));
    }
    for (int i = 0; i < p->ninstruments; i++) pthread_join(p->instruments[i], NULL);
    neap_close(p->host); /* only now: no other thread may call into it any more */
    return err ? err : p->failed ? -1 : 0;
}

/* Every allocation, or every `step`-th, fails once. Returns the exit code. */
static int exhaust(const char *script, long step) {
    long errors = 0, lives = 0;
    int touched = 1;
    for (long n = step; touched; n += step) {
        touched = 0;
        for (int for_good = 0; for_good < 2; for_good++) {
            meter m = {.fail_at = n, .for_good = for_good};
            program p = {.quiet = 1};
            errors += run(&p, &m, script) != 0;
            lives++;
            if (m.blocks) { /* neap_close gives all of Lua's memory back */
                fprintf(stderr, "score: allocation %ld failed: %ld blocks are left\n", m.fail_at, m.blocks);
                return 1;
            }
            touched |= m.asked >= m.fail_at;
        }
    }
    printf("%ld lives, %ld ended with an error, nothing left behind\n", lives, errors);
    return 0;
}

int main(int argc, char **argv) {
    const char *script = argc > 1 ? argv[1] : "judge.lua";
    if (argc > 2 && !strcmp(argv[2], "--exhaust")) return exhaust(script, argc > 3 && atol(argv[3]) > 0 ? atol(argv[3]) : 1);
    meter m = {0};
    program p = {0};
    int err = run(&p, &m, script);
    printf("%d readings judged, %d flagged, %d failed; %ld allocations\n", p.judged, p.flagged, p.failed, m.asked);
    return err ? 1 : 0;
}
