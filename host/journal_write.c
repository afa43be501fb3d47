/* journal_write.c: the writer thread: groups of records into segment files, one fdatasync a group. */
#include "host/journal_priv.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>
#include "host/crc32c.h"

enum { PROBE = 128 * 1024 };

static int write_all(int fd, const char *p, size_t n, off_t at) {
    while (n) {
        ssize_t k = pwrite(fd, p, n, at);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) {
            if (k == 0) errno = ENOSPC;
            return -1;
        }
        p += k;
        n -= (size_t)k;
        at += k;
    }
    return 0;
}

static int sync_dir(const char *dir) {
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = fd < 0 ? -1 : fsync(fd);
    if (fd >= 0) close(fd);
    return r;
}

/* Starts a segment at the log's end, in a file of its own or in a spare one; its name is on disk only with its head. 0 or -1 with errno.
   Mutex not held: only the writer adds to the own log's list. */
static int new_segment(neap_journal *j, jlog *g) {
    char path[4096], spare[4096], head[JOURNAL_HEAD] = JOURNAL_SEGMENT_MAGIC;
    journal_segment_path(g, g->end, path, sizeof path);
    pthread_mutex_lock(&j->mutex);
    jsegment *last = g->seg_count ? &g->segs[g->seg_count - 1] : NULL;
    if (last && last->start == g->end) { /* given up while still empty: its name is needed again */
        close(last->fd);
        g->seg_count--;
    }
    pthread_mutex_unlock(&j->mutex);
    unlink(path);
    int fd = journal_take_spare(j, g, spare, sizeof spare);
    bool again = fd >= 0;
    if (!again) fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) return -1;
    memcpy(head + 8, g->id, 16);
    memcpy(head + 24, &g->end, 8);
    uint32_t crc = neap_crc32c(0, head, 32);
    memcpy(head + 32, &crc, 4);
    if (write_all(fd, head, sizeof head, 0) || fdatasync(fd) || (again && rename(spare, path)) || sync_dir(g->dir)) {
        int e = errno;
        close(fd);
        unlink(path);
        if (again) unlink(spare);
        errno = e;
        return -1;
    }
    pthread_mutex_lock(&j->mutex);
    int err = journal_add_segment(g, g->end, g->end, fd);
    j->stats.retained += err ? 0 : JOURNAL_HEAD;
    pthread_mutex_unlock(&j->mutex);
    if (err) {
        close(fd);
        unlink(path);
        errno = ENOMEM;
        return -1;
    }
    g->broken = false;
    return 0;
}

/* Fills in the heads, now that the positions are known. */
static void seal(const jlog *g, neap_buf *work) {
    uint64_t pos = g->end;
    for (char *p = work->data, *end = p + work->len; p < end;) {
        uint32_t n, crc;
        memcpy(&n, p + 4, 4);
        crc = journal_crc(g, pos, p + JOURNAL_RECORD_HEAD, n);
        memcpy(p + 8, &crc, 4);
        p += JOURNAL_RECORD_HEAD + n;
        pos += JOURNAL_RECORD_HEAD + n;
    }
}

/* A copy: the reader's thread may move the list, but never closes the last segment. fd -1: there is none. */
static jsegment last_segment(neap_journal *j, const jlog *g) {
    pthread_mutex_lock(&j->mutex);
    jsegment s = g->seg_count ? g->segs[g->seg_count - 1] : (jsegment){.fd = -1};
    pthread_mutex_unlock(&j->mutex);
    return s;
}

/* One group: 0, or -1 with errno; then nothing of it counts as written. */
static int commit(neap_journal *j, jlog *g, neap_buf *work) {
    jsegment s = last_segment(j, g);
    if (s.fd < 0 || g->broken || s.end - s.start >= j->segment_bytes) {
        if (j->loose && s.fd >= 0 && !g->broken && fdatasync(s.fd)) return -1; /* no hole in the middle of a log */
        if (new_segment(j, g)) return -1;
        s = last_segment(j, g);
    }
    seal(g, work);
    off_t at = JOURNAL_HEAD + (off_t)(s.end - s.start);
    if (write_all(s.fd, work->data, work->len, at) == 0 && (j->loose || fdatasync(s.fd) == 0)) return 0;
    int e = errno;
    /* After a failed sync nobody knows what is on disk: give the segment up at its last good byte. A reader stops there, because the next
       segment starts there; cutting the file only saves room. */
    g->broken = true;
    if (ftruncate(s.fd, at)) {}
    errno = e;
    return -1;
}

void journal_deliver(jappend *list) {
    while (list) {
        jappend *a = list;
        list = a->next;
        a->next = NULL;
        journal_client_done(a->client, a);
    }
}

static void finish_group(neap_journal *j, jlog *g, const neap_buf *work, jappend *list, int failed) {
    uint64_t pos = g->end, records = 0;
    int status = !failed ? 0 : failed == ENOSPC || failed == EDQUOT || failed == EFBIG ? NEAP_ERR_FULL : NEAP_ERR_IO;
    for (jappend *a = list; a; a = a->next, records++) {
        pos += JOURNAL_RECORD_HEAD + a->len;
        a->end = pos;
        a->status = status;
    }
    pthread_mutex_lock(&j->mutex);
    j->stats.last_errno = failed;
    if (failed) {
        j->stats.failures++;
    } else {
        journal_mark(j, g->end);
        g->end += work->len;
        g->segs[g->seg_count - 1].end = g->end;
        j->stats.retained += work->len;
        j->stats.bytes += work->len;
        j->stats.records += records;
        j->stats.commits++;
        j->stats.durable = g->end;
    }
    if (j->wake && !failed) j->wake(j->wake_ud);
    pthread_mutex_unlock(&j->mutex);
    journal_deliver(list);
}

/* Waits for work. A loose log is synced a second after it was written, so that a power cut costs no more than that; after a failure it is tried each
   second whether writing works again. True: that time has come. */
static bool wait_for_work(neap_journal *j, bool timed, const struct timespec *due) {
    while (!j->pending.len && !j->closing) {
        if (!timed) pthread_cond_wait(&j->work, &j->mutex);
        else if (pthread_cond_timedwait(&j->work, &j->mutex, due) == ETIMEDOUT) return true;
    }
    return false;
}

static bool is_past(const struct timespec *due) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec > due->tv_sec || (now.tv_sec == due->tv_sec && now.tv_nsec >= due->tv_nsec);
}

/* A failure is told to nobody: who appended was promised no more. The next group's write will most likely fail too, and that is told. */
static void sync_last(neap_journal *j) {
    jsegment s = last_segment(j, journal_own(j));
    if (s.fd >= 0 && fdatasync(s.fd)) {
        pthread_mutex_lock(&j->mutex);
        j->stats.last_errno = errno;
        j->stats.failures++;
        pthread_mutex_unlock(&j->mutex);
    }
}

/* After a failure, while nobody sends: does the disk take as much as a group again? Whoever was told to stay away would not find out. */
static void try_again(neap_journal *j) {
    static const char zeros[PROBE];
    char path[4096];
    int n = snprintf(path, sizeof path, "%s/probe", journal_own(j)->dir);
    int fd = n > 0 && (size_t)n < sizeof path ? open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
    if (fd >= 0) unlink(path); /* nothing stays, whatever happens */
    bool works = fd >= 0 && write_all(fd, zeros, sizeof zeros, 0) == 0 && fdatasync(fd) == 0;
    if (fd >= 0) close(fd);
    if (!works) return;
    pthread_mutex_lock(&j->mutex);
    j->stats.last_errno = 0;
    pthread_mutex_unlock(&j->mutex);
}

static void in_a_second(struct timespec *due) {
    clock_gettime(CLOCK_REALTIME, due);
    due->tv_sec++;
}

void *journal_writer(void *arg) {
    neap_journal *j = arg;
    sigset_t all;
    sigfillset(&all); /* signals are the main thread's; SIGXFSZ blocked turns a file size limit into EFBIG */
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    neap_buf work = {0};
    bool unsynced = false;
    struct timespec due = {0};
    for (;;) {
        pthread_mutex_lock(&j->mutex);
        bool failing = j->stats.last_errno != 0;
        if (failing && !unsynced) in_a_second(&due);
        bool now = wait_for_work(j, unsynced || failing, &due);
        if (now || !j->pending.len) {
            pthread_mutex_unlock(&j->mutex);
            if (unsynced) sync_last(j);
            else if (now) try_again(j);
            unsynced = false;
            if (now) continue;
            break;
        }
        neap_buf swap = work;
        work = j->pending;
        j->pending = swap;
        jappend *list = j->first;
        j->first = NULL;
        j->last = &j->first;
        jlog *own = journal_own(j);
        pthread_mutex_unlock(&j->mutex);
        int failed = commit(j, own, &work) ? errno : 0;
        finish_group(j, own, &work, list, failed);
        if (failed) journal_drop_ahead(own);
        else journal_prepare_spare(j, own);
        if (j->loose && !failed) {
            if (!unsynced) {
                in_a_second(&due);
            } else if (is_past(&due)) {
                sync_last(j);
                unsynced = false;
                buf_clear(&work);
                continue;
            }
            unsynced = true;
        }
        buf_clear(&work);
        if (work.cap > 4 << 20) buf_free(&work);
    }
    buf_free(&work);
    return NULL;
}
