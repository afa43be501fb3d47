/* journal_release.c: letting go of what is applied: whole segments, whose files become spares (see journal_spare.c) or are deleted. Of the last log
   that went as a whole the file "done" keeps the UUID and the end: a Redis that does not know it is an older copy of itself. */
#include "host/journal_priv.h"
#include <fcntl.h>
#include <inttypes.h>
#include <unistd.h>

/* Keeps the file of a segment that has left the list as a spare, or deletes it. */
static void let_go(neap_journal *j, jlog *g, const jsegment *s) {
    char path[4096];
    if (journal_keep_spare(j, g, s)) return;
    journal_segment_path(g, s->start, path, sizeof path);
    unlink(path);
    close(s->fd);
}

void journal_free_log(jlog *g, bool delete_files) {
    char path[4096];
    if (!g) return;
    journal_free_spares(g, g->own || delete_files);
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

void journal_let_go(const neap_journal *j, jlog *g) {
    char path[4096], tmp[4100];
    snprintf(path, sizeof path, "%s/done", j->path);
    snprintf(tmp, sizeof tmp, "%s.new", path);
    int fd = g->end ? open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
    bool ok = fd >= 0 && dprintf(fd, "%s %" PRIu64 "\n", g->uuid, g->end) > 0 && fdatasync(fd) == 0;
    if (fd >= 0) close(fd);
    if (!ok || rename(tmp, path)) unlink(tmp); /* an older one stays, which is true too */
    journal_free_log(g, true);
}

bool neap_journal_last_done(const neap_journal *j, char uuid[37], uint64_t *end) {
    char path[4096], text[64] = "";
    snprintf(path, sizeof path, "%s/done", j->path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    return n > 37 && sscanf(text, "%36[0-9a-f-] %" SCNu64 "\n", uuid, end) == 2;
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
    if (whole) journal_let_go(j, whole);
}
