/* journal_release.c: letting go of what is applied. A few of the own log's files become spares, over which the next segments are written: their
   blocks stay where they are, so that a sync has no metadata to write and the disk nothing to discard (a file of 16 MiB deleted on a file
   system mounted with `discard` held up every fdatasync for 6 ms). What an old record left behind the end of a new one is no sound record
   there: its CRC covers its position. */
#include "host/journal_priv.h"
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static void spare_path(const jlog *g, size_t i, char *out, size_t size) { snprintf(out, size, "%s/spare%zu", g->dir, i); }

int journal_take_spare(neap_journal *j, jlog *g, char *path, size_t size) {
    int fd = -1;
    pthread_mutex_lock(&j->mutex);
    for (size_t i = 0; fd < 0 && i < JOURNAL_SPARES; i++) {
        if (g->spare[i] < 0) continue;
        fd = g->spare[i];
        g->spare[i] = -1;
        spare_path(g, i, path, size);
    }
    pthread_mutex_unlock(&j->mutex);
    if (fd >= 0) posix_fadvise(fd, 0, 0, POSIX_FADV_WILLNEED); /* a page written in part has to be there */
    return fd;
}

/* Keeps the file of a segment that has left the list as a spare, or deletes it. */
static void let_go(neap_journal *j, jlog *g, const jsegment *s) {
    char path[4096], spare[4096];
    size_t i = JOURNAL_SPARES;
    journal_segment_path(g, s->start, path, sizeof path);
    pthread_mutex_lock(&j->mutex);
    if (g->own && j->stats.retained + (JOURNAL_SPARES + 1) * j->segment_bytes <= j->max_bytes)
        for (i = 0; i < JOURNAL_SPARES && g->spare[i] >= 0;) i++;
    if (i < JOURNAL_SPARES) {
        spare_path(g, i, spare, sizeof spare);
        if (rename(path, spare) == 0) g->spare[i] = s->fd;
        else i = JOURNAL_SPARES;
    }
    pthread_mutex_unlock(&j->mutex);
    if (i < JOURNAL_SPARES) return;
    unlink(path);
    close(s->fd);
}

void journal_free_log(jlog *g, bool delete_files) {
    char path[4096];
    if (!g) return;
    for (size_t i = 0; i < JOURNAL_SPARES; i++) {
        if (g->spare[i] >= 0) close(g->spare[i]);
        if (g->dir && (g->own || delete_files)) {
            spare_path(g, i, path, sizeof path);
            unlink(path);
        }
    }
    for (size_t i = 0; i < g->seg_count; i++) {
        close(g->segs[i].fd);
        journal_segment_path(g, g->segs[i].start, path, sizeof path);
        if (delete_files) unlink(path);
    }
    if (delete_files && g->dir) {
        snprintf(path, sizeof path, "%s/lock", g->dir);
        unlink(path);
        rmdir(g->dir);
    }
    if (g->lock_fd >= 0) close(g->lock_fd);
    free(g->segs);
    free(g->dir);
    free(g);
}

/* Takes from log g what is applied up to upto: first whole segments, at most max, into gone. How many. With the mutex held. */
static size_t take_segments(neap_journal *j, jlog *g, uint64_t upto, jsegment *gone, size_t max) {
    size_t n = 0;
    while (n < max && n + 1 < g->seg_count && g->segs[n].end <= upto && g->segs[n + 1].start <= upto) {
        gone[n] = g->segs[n];
        j->stats.retained -= JOURNAL_HEAD + gone[n].end - gone[n].start;
        n++;
    }
    memmove(g->segs, g->segs + n, (g->seg_count - n) * sizeof *g->segs);
    g->seg_count -= n;
    return n;
}

/* Files are deleted after the mutex is given back: the kernel takes 20 ms to let go of 100 MB, and everyone who appends would wait. */
void neap_journal_release(neap_journal *j, const char *uuid, uint64_t upto) {
    enum { MOST = 16 };
    jsegment gone[MOST];
    jlog *log = NULL, *whole = NULL;
    size_t n;
    do {
        n = 0;
        pthread_mutex_lock(&j->mutex);
        for (size_t i = 0; i < j->log_count; i++) {
            jlog *g = j->logs[i];
            if (strcmp(g->uuid, uuid) != 0) continue;
            if (upto > g->end) upto = g->end;
            if (upto > g->released) g->released = upto;
            if (!g->own && upto == g->end) { /* all of it: the log goes */
                j->stats.retained -= journal_log_bytes(g);
                memmove(&j->logs[i], &j->logs[i + 1], (j->log_count - i - 1) * sizeof *j->logs);
                j->log_count--;
                whole = g;
                break;
            }
            n = take_segments(j, g, upto, gone, MOST);
            log = g;
            break;
        }
        pthread_mutex_unlock(&j->mutex);
        for (size_t k = 0; k < n; k++) let_go(j, log, &gone[k]);
    } while (n == MOST);
    journal_free_log(whole, true);
}
