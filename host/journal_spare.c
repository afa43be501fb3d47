/* journal_spare.c: files for the own log's next segments to be written over: a few that applied segments left behind, and one made ahead while there
   is none. Their blocks are there and written already, so that a sync has data to write and nothing else. In a file that grows it also waits for
   the file system to note the new blocks and the new size, one after the other and in threads of the kernel's that need a core of their own: twice
   the time on an idle machine, more on a busy one. And a file of 16 MiB deleted on a file system mounted with `discard` held up every fdatasync for
   6 ms. What an old record left behind the end of a new one is no sound record there: its CRC covers its position. */
#include "host/journal_priv.h"
#include <fcntl.h>
#include <unistd.h>

enum { PIECE = 64 * 1024 }; /* of the file made ahead, after each group: a tenth of a millisecond */

static void spare_path(const jlog *g, size_t i, char *out, size_t size) { snprintf(out, size, "%s/spare%zu", g->dir, i); }
static void ahead_path(const jlog *g, char *out, size_t size) { snprintf(out, size, "%s/ahead", g->dir); }
static void next_path(const jlog *g, char *out, size_t size) { snprintf(out, size, "%s/next", g->dir); } /* one that is to be a segment at once */

/* Spares are kept, or made, while they fit into the bound beside what is retained. With the mutex held. */
static bool has_room(const neap_journal *j) { return j->stats.retained + (JOURNAL_SPARES + 1) * j->segment_bytes <= j->max_bytes; }

/* Gives the file at `path` a place among the spares. With the mutex held. */
static bool keep(jlog *g, const char *path, int fd) {
    char spare[4096];
    size_t i = 0;
    while (i < JOURNAL_SPARES && g->spare[i] >= 0) i++;
    if (i == JOURNAL_SPARES) return false;
    spare_path(g, i, spare, sizeof spare);
    if (rename(path, spare)) return false;
    g->spare[i] = fd;
    return true;
}

bool journal_keep_spare(neap_journal *j, jlog *g, const jsegment *s) {
    char path[4096];
    journal_segment_path(g, s->start, path, sizeof path);
    pthread_mutex_lock(&j->mutex);
    bool kept = g->own && has_room(j) && keep(g, path, s->fd);
    pthread_mutex_unlock(&j->mutex);
    return kept;
}

int journal_take_spare(neap_journal *j, jlog *g, char *path, size_t size) {
    char spare[4096];
    int fd = -1;
    next_path(g, path, size);
    pthread_mutex_lock(&j->mutex);
    for (size_t i = 0; fd < 0 && i < JOURNAL_SPARES; i++) {
        if (g->spare[i] < 0) continue;
        fd = g->spare[i];
        g->spare[i] = -1;
        spare_path(g, i, spare, sizeof spare);
        if (rename(spare, path) == 0) continue; /* its place, and the name that goes with it, may be another file's from now on */
        close(fd);
        fd = -1;
    }
    pthread_mutex_unlock(&j->mutex);
    if (fd >= 0) posix_fadvise(fd, 0, 0, POSIX_FADV_WILLNEED); /* a page written in part has to be there */
    return fd;
}

/* One is made ahead when the present segment is half full and nothing else is there to follow it: a log that stays short costs nothing. Once a
   segment, whatever comes of it. */
static bool is_wanted(neap_journal *j, jlog *g) {
    pthread_mutex_lock(&j->mutex);
    uint64_t start = g->segs[g->seg_count - 1].start;
    bool wanted = start != g->ahead_for && g->end - start >= j->segment_bytes / 2 && has_room(j);
    for (size_t i = 0; i < JOURNAL_SPARES; i++) wanted = wanted && g->spare[i] < 0;
    if (wanted) g->ahead_for = start;
    pthread_mutex_unlock(&j->mutex);
    return wanted;
}

void journal_prepare_spare(neap_journal *j, jlog *g) {
    static const char zeros[PIECE];
    char path[4096];
    if (g->ahead < 0 && (j->loose || !is_wanted(j, g))) return;
    ahead_path(g, path, sizeof path);
    if (g->ahead < 0) {
        g->ahead = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        g->ahead_len = 0;
    }
    bool ok = g->ahead >= 0 && pwrite(g->ahead, zeros, PIECE, (off_t)g->ahead_len) == PIECE;
    if (ok) {
        sync_file_range(g->ahead, (off_t)g->ahead_len, PIECE, SYNC_FILE_RANGE_WRITE); /* else all of it would come with the first sync */
        g->ahead_len += PIECE;
        if (g->ahead_len < JOURNAL_HEAD + j->segment_bytes) return;
        pthread_mutex_lock(&j->mutex);
        ok = keep(g, path, g->ahead);
        pthread_mutex_unlock(&j->mutex);
    }
    if (!ok) journal_drop_ahead(g); /* no room, or not needed any more: the next segment has a file that grows */
    g->ahead = -1;
}

void journal_drop_ahead(jlog *g) {
    char path[4096];
    if (g->ahead < 0) return;
    close(g->ahead);
    g->ahead = -1;
    ahead_path(g, path, sizeof path);
    unlink(path);
}

void journal_free_spares(jlog *g, bool delete_files) {
    char path[4096];
    for (size_t i = 0; i < JOURNAL_SPARES; i++) {
        if (g->spare[i] >= 0) close(g->spare[i]);
        if (!g->dir || !delete_files) continue;
        spare_path(g, i, path, sizeof path);
        unlink(path);
    }
    if (g->ahead >= 0) close(g->ahead);
    if (!g->dir || !delete_files) return;
    ahead_path(g, path, sizeof path);
    unlink(path);
    next_path(g, path, sizeof path);
    unlink(path);
}
