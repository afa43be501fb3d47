/* journal.c: opening and closing, and the loops' ends (clients). See journal.h for the whole picture. */
#include "host/journal_priv.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* The open journals of the process, by path: a second worker must get the first one's, and the file lock cannot tell threads apart.
   The one thing in the core that is shared by all hosts of a process. */
static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;
static neap_journal *open_journals;

__attribute__((format(printf, 3, 4))) static int explain(char *why, size_t size, const char *fmt, ...) {
    int e = errno;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(why, size, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < size) snprintf(why + n, size - (size_t)n, ": %s", strerror(e));
    errno = e;
    return e == ENOSPC || e == EDQUOT ? NEAP_ERR_FULL : NEAP_ERR_IO;
}

/* ---- logs ------------------------------------------------------------------------------------------------------------- */

static jlog *make_log(const char *dir, uint32_t sequence, const char *uuid) {
    jlog *g = calloc(1, sizeof *g);
    size_t n = strlen(dir) + 64;
    if (!g) return NULL;
    g->lock_fd = -1;
    memset(g->spare, -1, sizeof g->spare);
    g->ahead = -1;
    g->ahead_for = UINT64_MAX;
    g->sequence = sequence;
    snprintf(g->uuid, sizeof g->uuid, "%s", uuid);
    if (!(g->dir = malloc(n))) {
        free(g);
        return NULL;
    }
    snprintf(g->dir, n, "%s/%08x-%s", dir, sequence, uuid);
    for (int i = 0, k = 0; i < 16; i++) { /* the UUID's digits, dashes passed over */
        if (uuid[k] == '-') k++;
        unsigned byte;
        sscanf(uuid + k, "%2x", &byte);
        g->id[i] = (uint8_t)byte;
        k += 2;
    }
    return g;
}

/* Locks the log's directory. 0; 1 if another living process has it; -1 with errno. */
static int lock_log(jlog *g) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/lock", g->dir);
    g->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (g->lock_fd < 0) return -1;
    if (flock(g->lock_fd, LOCK_EX | LOCK_NB) == 0) return 0;
    return errno == EWOULDBLOCK ? 1 : -1;
}

static int add_log(neap_journal *j, jlog *g) {
    jlog **p = realloc(j->logs, (j->log_count + 1) * sizeof *p);
    if (!p) return NEAP_ERR_MEMORY;
    j->logs = p;
    p[j->log_count++] = g;
    return 0;
}

static int by_sequence(const void *a, const void *b) {
    const jlog *x = *(jlog *const *)a, *y = *(jlog *const *)b;
    return x->sequence != y->sequence ? (x->sequence > y->sequence) - (x->sequence < y->sequence) : strcmp(x->uuid, y->uuid);
}

/* Takes over the logs that nobody holds. *highest: the highest sequence number seen. */
static int adopt_logs(neap_journal *j, uint32_t *highest, char *why, size_t why_size) {
    DIR *d = opendir(j->path);
    if (!d) return explain(why, why_size, "cannot read the journal directory %s", j->path);
    int err = 0;
    for (struct dirent *e; !err && (e = readdir(d));) {
        unsigned sequence;
        char uuid[40];
        if (strlen(e->d_name) != 45 || sscanf(e->d_name, "%8x-%36[0-9a-f-]", &sequence, uuid) != 2 || strlen(uuid) != 36) continue;
        if (sequence > *highest) *highest = sequence;
        jlog *g = make_log(j->path, sequence, uuid);
        if (!g) {
            err = NEAP_ERR_MEMORY;
            break;
        }
        int held = lock_log(g);
        g->loose = held == 0 && lseek(g->lock_fd, 0, SEEK_END) > 0;
        if (held == 0) {
            err = journal_recover(g);
            if (!err && g->end == g->released) journal_let_go(j, g); /* nothing in it any more */
            else if (!err && (err = add_log(j, g)) == 0) j->stats.retained += journal_log_bytes(g);
            if (err) {
                explain(why, why_size, "cannot read the journal %s", g->dir);
                journal_free_log(g, false);
            }
        } else {
            if (held < 0) err = explain(why, why_size, "cannot lock the journal %s", g->dir);
            journal_free_log(g, false);
        }
    }
    closedir(d);
    if (j->log_count) qsort(j->logs, j->log_count, sizeof *j->logs, by_sequence);
    return err;
}

static int make_own_log(neap_journal *j, uint32_t sequence, char *why, size_t why_size) {
    uint8_t r[16];
    char uuid[37];
    if (getrandom(r, sizeof r, 0) != sizeof r) return explain(why, why_size, "cannot get random bytes");
    r[6] = (r[6] & 0x0F) | 0x40;
    r[8] = (r[8] & 0x3F) | 0x80;
    snprintf(uuid, sizeof uuid, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", r[0], r[1], r[2], r[3], r[4], r[5], r[6],
             r[7], r[8], r[9], r[10], r[11], r[12], r[13], r[14], r[15]);
    jlog *g = make_log(j->path, sequence, uuid);
    if (!g) return NEAP_ERR_MEMORY;
    g->own = true;
    g->loose = j->loose;
    int err = 0;
    if (mkdir(g->dir, 0700) || lock_log(g)) err = explain(why, why_size, "cannot make the journal %s", g->dir);
    if (!err && g->loose && write(g->lock_fd, "loose\n", 6) != 6) err = explain(why, why_size, "cannot write in the journal %s", g->dir);
    if (!err) err = add_log(j, g);
    if (err) journal_free_log(g, true);
    return err;
}

/* ---- open, close ------------------------------------------------------------------------------------------------------ */

static void free_journal(neap_journal *j) {
    for (size_t i = 0; i < j->log_count; i++) {
        jlog *g = j->logs[i];
        if (g->own && g->released == g->end) journal_let_go(j, g);
        else journal_free_log(g, false);
    }
    pthread_mutex_destroy(&j->mutex);
    pthread_cond_destroy(&j->work);
    buf_free(&j->pending);
    free(j->logs);
    free(j->path);
    free(j);
}

/* mkdir -p. */
static int make_dirs(char *path) {
    for (char *p = path + 1; *p; p++) {
        if (*p != '/') continue;
        *p = 0;
        int r = mkdir(path, 0700);
        *p = '/';
        if (r && errno != EEXIST) return -1;
    }
    return mkdir(path, 0700) && errno != EEXIST ? -1 : 0;
}

static int open_new(const neap_journal_opts *o, const char *path, neap_journal **out, char *why, size_t why_size) {
    neap_journal *j = calloc(1, sizeof *j);
    uint32_t highest = 0;
    if (!j) return NEAP_ERR_MEMORY;
    pthread_mutex_init(&j->mutex, NULL);
    pthread_cond_init(&j->work, NULL);
    j->openings = 1;
    j->last = &j->first;
    j->max_bytes = o->max_bytes ? o->max_bytes : 1ull << 30;
    j->segment_bytes = o->segment_bytes ? o->segment_bytes : 16 << 20;
    j->max_age_ms = o->max_age_ms ? o->max_age_ms : 24ull * 3600 * 1000;
    j->loose = o->loose;
    int err = (j->path = strdup(path)) ? 0 : NEAP_ERR_MEMORY;
    if (!err) err = adopt_logs(j, &highest, why, why_size);
    if (!err) err = make_own_log(j, highest + 1, why, why_size);
    if (!err && pthread_create(&j->writer, NULL, journal_writer, j)) err = explain(why, why_size, "cannot start the journal's thread");
    if (err) free_journal(j);
    else *out = j;
    return err;
}

int neap_journal_open(const neap_journal_opts *o, neap_journal **out, char *why, size_t why_size) {
    char path[PATH_MAX], real[PATH_MAX];
    int err = 0;
    *out = NULL;
    snprintf(why, why_size, "out of memory");
    snprintf(path, sizeof path, "%s", o->dir);
    if (make_dirs(path) || !realpath(path, real)) return explain(why, why_size, "cannot make the journal directory %s", o->dir);
    pthread_mutex_lock(&opening);
    neap_journal *j = open_journals;
    while (j && strcmp(j->path, real) != 0) j = j->next;
    if (j) {
        j->openings++;
    } else if (!(err = open_new(o, real, &j, why, why_size))) {
        j->next = open_journals;
        open_journals = j;
    }
    pthread_mutex_unlock(&opening);
    *out = err ? NULL : j;
    return err;
}

void neap_journal_close(neap_journal *j) {
    if (!j) return;
    pthread_mutex_lock(&opening);
    bool last = --j->openings == 0;
    neap_journal **p = &open_journals;
    while (last && *p != j) p = &(*p)->next;
    if (last) *p = j->next;
    pthread_mutex_unlock(&opening);
    if (!last) return;
    pthread_mutex_lock(&j->mutex);
    j->closing = true;
    pthread_cond_signal(&j->work);
    pthread_mutex_unlock(&j->mutex);
    pthread_join(j->writer, NULL); /* it commits what is pending first */
    free_journal(j);
}

size_t neap_journal_logs(neap_journal *j, neap_journal_log *out, size_t max) {
    pthread_mutex_lock(&j->mutex);
    size_t n = j->log_count;
    for (size_t i = 0; i < n && i < max; i++) {
        const jlog *g = j->logs[i];
        out[i] = (neap_journal_log){.first = g->seg_count ? g->segs[0].start : g->end, .end = g->end, .own = g->own, .loose = g->loose};
        memcpy(out[i].uuid, g->uuid, sizeof g->uuid);
    }
    pthread_mutex_unlock(&j->mutex);
    return n;
}

int neap_journal_on_grow(neap_journal *j, void (*wake)(void *), void *ud) {
    pthread_mutex_lock(&j->mutex);
    int err = wake && j->wake ? NEAP_ERR_FULL : 0;
    if (!err) {
        j->wake = wake;
        j->wake_ud = ud;
    }
    pthread_mutex_unlock(&j->mutex);
    return err;
}

const char *neap_journal_dir(const neap_journal *j) { return j->path; }

int64_t neap_journal_stamp(neap_journal *j, uint32_t n) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    pthread_mutex_lock(&j->mutex);
    int64_t us = (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
    if (us <= j->last_stamp) us = j->last_stamp + 1; /* a clock set back, or more than one reading a microsecond */
    j->last_stamp = us + n - 1;
    pthread_mutex_unlock(&j->mutex);
    return us;
}

void neap_journal_get_stats(neap_journal *j, neap_journal_stats *out) {
    pthread_mutex_lock(&j->mutex);
    *out = j->stats;
    for (size_t i = 0; i < j->log_count; i++) {
        const jlog *g = j->logs[i];
        uint64_t from = g->seg_count ? g->segs[0].start : g->end;
        if (g->applied > from) from = g->applied;
        out->behind += g->end > from ? g->end - from : 0;
    }
    out->max_bytes = j->max_bytes;
    out->max_age_ms = j->max_age_ms;
    out->age_ms = journal_age_ms(j);
    out->loose = j->loose;
    pthread_mutex_unlock(&j->mutex);
}
