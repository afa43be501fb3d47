/* journal_test.c: the journal under everything that happens to it: restarts, torn writes, flipped bits, a full disk, kill -9, two threads. */
#include "host/crc32c.h"
#include "host/err.h"
#include "host/journal.h"
#include "spec/c/test.h"
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[64];
static uint64_t seed = 88172645463325252ull;

static uint64_t rnd(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

static void wipe(void) {
    char cmd[128];
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    if (system(cmd)) exit(2);
}

/* ---- a loop with one client ------------------------------------------------------------------------------------------- */
typedef struct bench {
    uv_loop_t loop;
    neap_journal *j;
    neap_journal_client *c;
    int acked, failed, last_status;
    uint64_t last_end;
} bench;

static void on_ack(void *ud, int status, uint64_t end) {
    bench *b = ud;
    b->last_status = status;
    if (status) b->failed++;
    else b->acked++;
    if (!status) {
        CHECK(end > b->last_end, "acks come in order");
        b->last_end = end;
    }
}

static int start(bench *b, uint64_t max_bytes, uint64_t segment_bytes) {
    char why[300];
    memset(b, 0, sizeof *b);
    uv_loop_init(&b->loop);
    int err = neap_journal_open(&(neap_journal_opts){.dir = dir, .max_bytes = max_bytes, .segment_bytes = segment_bytes}, &b->j, why, sizeof why);
    CHECK(err == 0, "%s", why);
    if (!err) err = neap_journal_attach(b->j, &b->loop, &b->c);
    return err;
}

static void stop(bench *b) {
    neap_journal_detach(b->c);
    uv_run(&b->loop, UV_RUN_DEFAULT);
    CHECK(uv_loop_close(&b->loop) == 0);
    neap_journal_close(b->j);
}

/* Record i: its number and some bytes that follow from it. */
static size_t make(uint32_t i, char *out) {
    size_t n = 4 + i % 300;
    memcpy(out, &i, 4);
    for (size_t k = 4; k < n; k++) out[k] = (char)(i * 7 + k);
    return n;
}

static void append(bench *b, uint32_t from, uint32_t to) {
    char rec[400];
    for (uint32_t i = from; i < to; i++) {
        CHECK(neap_journal_append(b->c, rec, make(i, rec), on_ack, b) == 0);
        if (i % 20 == 19) uv_run(&b->loop, UV_RUN_DEFAULT); /* a group is never split, so segments need several */
    }
    uv_run(&b->loop, UV_RUN_DEFAULT);
}

/* ---- reading ------------------------------------------------------------------------------------------------------------ */
typedef struct tally {
    uint32_t seen[20000], count, wrong, last;
} tally;

static int count(void *ud, uint64_t end, const char *data, size_t n) {
    tally *t = ud;
    char want[400];
    uint32_t i;
    memcpy(&i, data, 4);
    if (i >= 20000 || make(i, want) != n || memcmp(want, data, n) != 0) {
        t->wrong++;
        return 0;
    }
    t->wrong += t->count && i < t->last; /* in order */
    t->last = i;
    t->count += !t->seen[i];
    t->wrong += t->seen[i]++;
    return 0;
}

static tally t;
static uint64_t read_all(neap_journal *j, size_t chunk, bool release) {
    neap_journal_log logs[16];
    uint64_t skipped = 0;
    memset(&t, 0, sizeof t);
    size_t n = neap_journal_logs(j, logs, 16);
    CHECK(n >= 1 && n <= 16 && logs[n - 1].own);
    for (size_t i = 0; i < n; i++) {
        uint64_t pos = logs[i].first, next = pos, s;
        int err;
        while (pos < logs[i].end && !(err = neap_journal_read(j, logs[i].uuid, pos, chunk, count, &t, &next, &s)) && next > pos) {
            skipped += s;
            pos = next;
            if (release) neap_journal_release(j, logs[i].uuid, pos);
        }
        CHECK(pos == logs[i].end, "log %zu: stopped at %llu of %llu", i, (unsigned long long)pos, (unsigned long long)logs[i].end);
    }
    return skipped;
}

/* The n-th segment file of the only log in dir; false if there are fewer. */
static bool segment(int n, char *path, size_t size) {
    char cmd[200];
    snprintf(cmd, sizeof cmd, "ls '%s'/*/*.seg 2>/dev/null | sed -n %dp", dir, n);
    FILE *p = popen(cmd, "r");
    bool ok = fgets(path, (int)size, p) != NULL;
    pclose(p);
    if (ok) path[strcspn(path, "\n")] = 0;
    return ok;
}

/* The child's own checks have passed. */
static void check_child(pid_t pid) {
    int status;
    waitpid(pid, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%d", status);
}

/* Of logs, that is: besides what is told of the last that went. */
static int entries(void) {
    DIR *d = opendir(dir);
    int n = 0;
    for (struct dirent *e; d && (e = readdir(d));) n += e->d_name[0] != '.' && strcmp(e->d_name, "done") != 0;
    if (d) closedir(d);
    return n;
}

/* ---- tests ---------------------------------------------------------------------------------------------------------------- */

static void test_crc(void) {
    char data[100];
    for (int i = 0; i < 100; i++) data[i] = (char)rnd();
    CHECK(neap_crc32c(0, "123456789", 9) == 0xE3069283 && neap_crc32c_portable(0, "123456789", 9) == 0xE3069283);
    for (size_t n = 0; n < 100; n++) CHECK(neap_crc32c(7, data, n) == neap_crc32c_portable(7, data, n));
    CHECK(neap_crc32c(neap_crc32c(0, data, 33), data + 33, 67) == neap_crc32c(0, data, 100));
}

static void test_restart(void) {
    bench b;
    start(&b, 0, 16384);
    append(&b, 0, 1000);
    CHECK(b.acked == 1000 && b.failed == 0);
    CHECK(read_all(b.j, 1000, false) == 0 && t.count == 1000 && t.wrong == 0);
    CHECK(read_all(b.j, 1 << 20, false) == 0 && t.count == 1000 && t.wrong == 0);
    stop(&b);
    start(&b, 0, 16384);
    append(&b, 1000, 1500);
    neap_journal_log logs[4];
    CHECK(neap_journal_logs(b.j, logs, 4) == 2 && !logs[0].own && logs[1].own && strcmp(logs[0].uuid, logs[1].uuid) != 0);
    uint64_t next, skipped;
    CHECK(neap_journal_read(b.j, logs[0].uuid, logs[0].end + 1, 100, count, &t, &next, &skipped) == NEAP_ERR_INVALID);
    CHECK(neap_journal_read(b.j, "00000000-0000-0000-0000-000000000000", 0, 100, count, &t, &next, &skipped) == NEAP_ERR_CLOSED);
    CHECK(read_all(b.j, 5000, true) == 0 && t.count == 1500 && t.wrong == 0);
    CHECK(neap_journal_logs(b.j, logs, 4) == 1);
    CHECK(neap_journal_read(b.j, logs[0].uuid, 0, 100, count, &t, &next, &skipped) == NEAP_ERR_INVALID, "released bytes are not there");
    neap_journal_stats s;
    neap_journal_get_stats(b.j, &s);
    CHECK(s.retained < 16384 * 2 && s.records == 500 && s.durable == logs[0].end, "%llu", (unsigned long long)s.retained);
    stop(&b);
    CHECK(entries() == 0, "a log that is all released leaves nothing behind");
}

/* Cuts and rubbish at the end cost only what was not whole; every cut length around the last record is tried. */
static void test_torn(void) {
    for (int cut = 0; cut < 40; cut++) {
        wipe();
        bench b;
        char path[300];
        start(&b, 0, 1 << 20);
        append(&b, 0, 20);
        stop(&b);
        struct stat st;
        if (!segment(1, path, sizeof path) || stat(path, &st)) exit(2);
        if (cut < 30) {
            if (truncate(path, st.st_size - cut)) exit(2);
        } else { /* a write that got half way, or zeros that the file system put there */
            int fd = open(path, O_WRONLY | O_APPEND);
            char junk[100];
            for (int i = 0; i < 100; i++) junk[i] = cut & 1 ? (char)rnd() : 0;
            if (write(fd, junk, (size_t)cut) != cut) exit(2);
            close(fd);
        }
        start(&b, 0, 1 << 20);
        CHECK(read_all(b.j, 1 << 20, true) == 0);
        CHECK(t.wrong == 0 && t.count == (cut == 0 || cut >= 30 ? 20u : 19u), "cut %d: %u", cut, t.count);
        stop(&b);
    }
    wipe();
}

static void test_flips(void) {
    for (int round = 0; round < 60; round++) {
        bench b;
        char path[300];
        start(&b, 0, 20000);
        append(&b, 0, 500);
        stop(&b);
        struct stat st;
        if (!segment(1 + (int)(rnd() % 3), path, sizeof path) || stat(path, &st)) exit(2);
        int fd = open(path, O_RDWR);
        off_t at = (off_t)(rnd() % (uint64_t)(st.st_size < 20000 ? st.st_size : 20000)); /* a file made ahead goes on behind its records */
        char c;
        if (pread(fd, &c, 1, at) != 1) exit(2);
        c ^= (char)(1 << rnd() % 8);
        if (pwrite(fd, &c, 1, at) != 1) exit(2);
        close(fd);
        start(&b, 0, 20000);
        uint64_t skipped = read_all(b.j, 1 + rnd() % 9000, true);
        if (at >= 64)
            CHECK(t.count == 499 && t.wrong == 0 && skipped >= 16 && skipped <= 316, "round %d: %u read, %llu skipped", round, t.count,
                  (unsigned long long)skipped);
        else CHECK(t.count == 500 && t.wrong == 0 && skipped == 0, "a segment's head is not needed to read it");
        stop(&b);
        CHECK(entries() == 0);
    }
    /* A whole segment gone: the rest is read, the gap is counted. */
    bench b;
    char path[300];
    start(&b, 0, 20000);
    append(&b, 0, 500);
    stop(&b);
    if (!segment(2, path, sizeof path) || unlink(path)) exit(2);
    start(&b, 0, 20000);
    uint64_t gap = read_all(b.j, 4000, true);
    CHECK(gap > 19000 && t.count > 300 && t.count < 450 && t.wrong == 0, "%llu skipped, %u read, %u wrong", (unsigned long long)gap, t.count,
          t.wrong);
    stop(&b);
    wipe();
}

static void test_bound(void) {
    bench b;
    char rec[400];
    start(&b, 30000, 5000);
    int i = 0;
    while (neap_journal_append(b.c, rec, make((uint32_t)i, rec), on_ack, &b) == 0) {
        if (i++ % 10 == 9) uv_run(&b.loop, UV_RUN_DEFAULT);
    }
    uv_run(&b.loop, UV_RUN_DEFAULT);
    CHECK(b.acked == i && i > 50);
    CHECK(neap_journal_append(b.c, rec, 300, on_ack, &b) == NEAP_ERR_FULL);
    CHECK(neap_journal_append(b.c, rec, 0, on_ack, &b) == NEAP_ERR_INVALID);
    neap_journal_stats s;
    neap_journal_get_stats(b.j, &s);
    CHECK(s.retained <= 30000 + 8 * 64 && s.refused >= 2);
    read_all(b.j, 1 << 20, true);
    append(&b, (uint32_t)i, (uint32_t)i + 10);
    CHECK(b.acked == i + 10);
    stop(&b);
    wipe();
}

/* A file size limit stands for a full disk: refused, nothing torn, and taken again when there is room. In a child: the limit is the process'. */
static void test_full(void) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        bench b;
        struct rlimit r;
        getrlimit(RLIMIT_FSIZE, &r);
        start(&b, 0, 1 << 20);
        append(&b, 0, 100);
        rlim_t old = r.rlim_cur;
        r.rlim_cur = 20000;
        setrlimit(RLIMIT_FSIZE, &r);
        for (uint32_t i = 100; i < 300 && !b.failed; i++) append(&b, i, i + 1);
        CHECK(b.failed > 0 && b.last_status == NEAP_ERR_FULL, "%d", b.last_status);
        neap_journal_stats s;
        neap_journal_get_stats(b.j, &s);
        CHECK(s.failures > 0 && s.last_errno != 0);
        r.rlim_cur = 30; /* not even a segment's head */
        setrlimit(RLIMIT_FSIZE, &r);
        int failed = b.failed;
        append(&b, 300, 305);
        CHECK(b.failed == failed + 5);
        r.rlim_cur = old;
        setrlimit(RLIMIT_FSIZE, &r);
        append(&b, 400, 500);
        neap_journal_get_stats(b.j, &s);
        CHECK(s.last_errno == 0 && b.last_status == 0);
        CHECK(read_all(b.j, 3000, false) == 0 && t.wrong == 0 && (int)t.count == b.acked, "%u of %d", t.count, b.acked);
        stop(&b);
        start(&b, 0, 1 << 20);
        uint32_t before = t.count;
        CHECK(read_all(b.j, 3000, true) == 0 && t.wrong == 0 && t.count == before, "%u of %u", t.count, before);
        stop(&b);
        fflush(stdout);
        _exit(test_failed != 0);
    }
    check_child(pid);
    wipe();
}

static int pipe_fd;
static uint32_t next_record;
static bench victim;
static void on_kill_ack(void *ud, int status, uint64_t end) {
    uint32_t i = (uint32_t)(uintptr_t)ud;
    char rec[400];
    if (status == 0 && write(pipe_fd, &i, 4) != 4) _exit(3);
    if (next_record >= 20000) return;
    uint32_t mine = next_record++;
    neap_journal_append(victim.c, rec, make(mine, rec), on_kill_ack, (void *)(uintptr_t)mine);
}

/* kill -9 at any moment: whatever was acknowledged is there afterwards. */
static void test_kill(void) {
    for (int round = 0; round < 5; round++) {
        int fds[2];
        if (pipe(fds)) exit(2);
        fflush(stdout);
        pid_t pid = fork();
        if (pid == 0) {
            close(fds[0]);
            pipe_fd = fds[1];
            if (start(&victim, 0, 100000)) _exit(3);
            for (uint32_t i = 0; i < 8; i++) on_kill_ack(NULL, -1, 0);
            uv_run(&victim.loop, UV_RUN_DEFAULT);
            pause();
        }
        close(fds[1]);
        static bool acked[20000];
        memset(acked, 0, sizeof acked);
        uint32_t n = 0, i, until = 50 + (uint32_t)(rnd() % 2000);
        while (n < until && read(fds[0], &i, 4) == 4) acked[i] = true, n++;
        kill(pid, SIGKILL);
        while (read(fds[0], &i, 4) == 4) acked[i] = true, n++;
        close(fds[0]);
        waitpid(pid, NULL, 0);
        bench b;
        start(&b, 0, 100000);
        CHECK(read_all(b.j, 1 << 20, true) == 0 && t.wrong == 0);
        uint32_t lost = 0;
        for (i = 0; i < 20000; i++) lost += acked[i] && !t.seen[i];
        CHECK(lost == 0 && n >= 50, "round %d: %u of %u acknowledged lost", round, lost, n);
        stop(&b);
    }
    wipe();
}

/* How many files of dir's only log are called so, and whether one of them is one of the n files with these inode numbers. */
static int files(const char *like, const ino_t *inodes, int n_inodes, bool *found) {
    char cmd[200], path[300];
    int n = 0;
    struct stat st;
    snprintf(cmd, sizeof cmd, "ls '%s'/*/%s 2>/dev/null", dir, like);
    FILE *p = popen(cmd, "r");
    for (*found = false; fgets(path, sizeof path, p); n++) {
        path[strcspn(path, "\n")] = 0;
        for (int i = 0; i < n_inodes; i++) *found |= stat(path, &st) == 0 && st.st_ino == inodes[i];
    }
    pclose(p);
    return n;
}

/* Segments are written over files of earlier ones. A crash leaves old records behind the end of the new: they are not taken for new ones, nor
   for damage; a file that a power cut gave its old name back is passed over too. */
static void test_spares(void) {
    enum { LAST = 4000, BACK = 150 };
    char path[300], old[700];
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        bench b;
        neap_journal_log logs[2];
        struct stat st;
        bool found, again = false;
        if (start(&b, 0, 5000)) _exit(3);
        ino_t early[LAST / 200];
        int n = 0;
        for (uint32_t i = 0; i < LAST; i += 100) {
            append(&b, i, i + 100);
            if (i < LAST / 2 && segment(1, path, sizeof path) && stat(path, &st) == 0) early[n++] = st.st_ino;
            neap_journal_logs(b.j, logs, 2);
            if (logs[0].end > BACK * 160) neap_journal_release(b.j, logs[0].uuid, logs[0].end - BACK * 160);
            CHECK(files("spare*", NULL, 0, &found) <= 4);
            files("*.seg", early, n, &found);
            again |= i > LAST * 3 / 4 && found; /* by then the segments of the first half are let go of */
        }
        CHECK(again, "an early segment's file is in use again");
        fflush(stdout);
        _exit(test_failed != 0);
    }
    check_child(pid);
    if (!segment(1, path, sizeof path)) exit(2);
    snprintf(old, sizeof old, "cp '%s' \"$(dirname '%s')/0000000000000010.seg\"", path, path);
    if (system(old)) exit(2);
    bench b;
    neap_journal_log logs[2];
    start(&b, 0, 5000);
    neap_journal_logs(b.j, logs, 2);
    CHECK(logs[0].first > 16, "the copy under another name is not taken");
    CHECK(read_all(b.j, 1 << 20, true) == 0 && t.wrong == 0 && t.last == LAST - 1 && t.count >= BACK, "%u up to %u", t.count, t.last);
    stop(&b);
    CHECK(entries() == 0, "spares go with their log");
    start(&b, 20000, 5000); /* no room for spares within the bound */
    for (uint32_t i = 0; i < 300; i += 20) {
        bool found;
        append(&b, i, i + 20);
        read_all(b.j, 1 << 20, true);
        CHECK(files("spare*", NULL, 0, &found) == 0);
    }
    stop(&b);
    wipe();
}

static void *worker(void *arg) {
    bench *b = arg;
    start(b, 0, 50000);
    for (uint32_t i = 0; i < 40; i++) append(b, (uint32_t)(b->failed + (int)i * 10), (uint32_t)i * 10 + 10);
    neap_journal_detach(b->c);
    uv_run(&b->loop, UV_RUN_DEFAULT);
    uv_loop_close(&b->loop);
    return NULL;
}

/* Where no applied segment left a file to write over, one is made ahead: the next segment is the file of the spare that was there before. */
static void test_ahead(void) {
    enum { SEGMENT = 150000, LAST = 6000 };
    char path[300], cmd[400];
    struct stat st;
    bool found;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        bench b;
        neap_journal_log logs[2];
        ino_t made = 0;
        bool used = false;
        if (start(&b, 0, SEGMENT)) _exit(3);
        for (uint32_t i = 0; i < LAST; i += 100) {
            append(&b, i, i + 100);
            neap_journal_logs(b.j, logs, 2);
            if (logs[0].end < SEGMENT / 2)
                CHECK(files("ahead", NULL, 0, &found) + files("spare*", NULL, 0, &found) == 0, "a short log costs no file");
            if (made && segment(2, path, sizeof path) && stat(path, &st) == 0 && !used) {
                used = st.st_ino == made;
                CHECK(used && st.st_size >= SEGMENT, "the second segment is the file that was made ahead, and has its blocks");
            }
            snprintf(cmd, sizeof cmd, "ls '%s'/*/spare0 2>/dev/null", dir);
            FILE *p = popen(cmd, "r");
            if (!made && fgets(path, sizeof path, p)) {
                path[strcspn(path, "\n")] = 0;
                made = stat(path, &st) == 0 ? st.st_ino : 0;
            }
            pclose(p);
            CHECK(files("spare*", NULL, 0, &found) <= 1, "one at a time");
        }
        CHECK(used, "a file was made ahead");
        fflush(stdout);
        _exit(test_failed != 0);
    }
    check_child(pid);
    bench b;
    start(&b, 0, SEGMENT);
    CHECK(read_all(b.j, 1 << 20, true) == 0 && t.wrong == 0 && t.count == LAST, "%u: the zeros behind the last record are no damage", t.count);
    stop(&b);
    CHECK(entries() == 0, "a file made ahead goes with its log");
    wipe();
}

static atomic_int appending;

static void *releaser(void *arg) {
    neap_journal *j = arg;
    neap_journal_log log;
    while (atomic_load(&appending))
        if (neap_journal_logs(j, &log, 1) == 1 && log.end > log.first + 40000) neap_journal_release(j, log.uuid, log.end - 20000);
    return NULL;
}

/* Another thread lets go of segments, whose files become spares, while the writer takes spares: no file has two masters. After a crash all that was
   not released is there. */
static void test_release_while_rolling(void) {
    enum { LAST = 19000 };
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        bench b;
        pthread_t th;
        neap_journal_log log;
        if (start(&b, 0, 3000)) _exit(3);
        atomic_store(&appending, 1);
        pthread_create(&th, NULL, releaser, b.j);
        append(&b, 0, LAST);
        atomic_store(&appending, 0);
        pthread_join(th, NULL);
        CHECK(b.acked == LAST && neap_journal_logs(b.j, &log, 1) == 1 && log.end - log.first >= 20000, "%d acknowledged", (int)b.acked);
        fflush(stdout);
        _exit(test_failed != 0);
    }
    check_child(pid);
    bench b;
    start(&b, 0, 3000);
    CHECK(read_all(b.j, 1 << 20, true) == 0 && t.wrong == 0 && t.last == LAST - 1, "up to %u", t.last);
    uint32_t first = 0;
    while (first < LAST && !t.seen[first]) first++;
    CHECK(t.count >= 100 && t.count == LAST - first, "%u from %u on", t.count, first);
    stop(&b);
    CHECK(entries() == 0);
    wipe();
}

static void test_threads(void) {
    bench b[3];
    pthread_t th[2];
    start(&b[2], 0, 50000);
    for (int i = 0; i < 2; i++) pthread_create(&th[i], NULL, worker, &b[i]);
    for (int i = 0; i < 2; i++) pthread_join(th[i], NULL);
    CHECK(b[0].acked == 400 && b[1].acked == 400 && b[0].j == b[2].j, "one journal for the process");
    neap_journal_stats s;
    neap_journal_get_stats(b[2].j, &s);
    CHECK(s.records == 800 && s.commits <= 800);
    fflush(stdout);
    pid_t pid = fork(); /* another process makes a log of its own and leaves ours alone */
    if (pid == 0) {
        execl("/proc/self/exe", "journal_test", dir, (char *)NULL);
        _exit(9);
    }
    check_child(pid);
    neap_journal_close(b[0].j);
    neap_journal_close(b[1].j);
    stop(&b[2]);
    wipe();
}

static uint64_t behind(neap_journal *j) {
    neap_journal_stats s;
    neap_journal_get_stats(j, &s);
    return s.behind;
}

static void on_applied(void *ud, int status, uint64_t end) { *(int *)ud += status == 0 ? 1 : 100; }

static void test_applied(void) {
    bench b;
    int first = 0, second = 0, gone = 0;
    start(&b, 0, 0);
    append(&b, 0, 3);
    uint64_t end = b.last_end;
    CHECK(neap_journal_wait_applied(b.c, end, on_applied, &first) == 0);
    CHECK(neap_journal_wait_applied(b.c, end + 1, on_applied, &second) == 0);
    CHECK(neap_journal_wait_applied(b.c, end, on_applied, &gone) == 0);
    neap_journal_unwait(b.c, &gone);
    neap_journal_log own;
    CHECK(neap_journal_logs(b.j, &own, 1) == 1 && behind(b.j) == end, "nothing is known to be applied");
    neap_journal_set_applied(b.j, own.uuid, end - 1);
    CHECK(behind(b.j) == 1);
    uv_run(&b.loop, UV_RUN_NOWAIT);
    CHECK(first == 0);
    neap_journal_set_applied(b.j, own.uuid, end);
    while (!first) uv_run(&b.loop, UV_RUN_ONCE);
    CHECK(first == 1 && second == 0 && gone == 0);
    CHECK(neap_journal_wait_applied(b.c, end, on_applied, &gone) == 0); /* already there: in the next turn */
    CHECK(gone == 0);
    while (!gone) uv_run(&b.loop, UV_RUN_ONCE);
    CHECK(behind(b.j) == 0);
    neap_journal_set_applied(b.j, own.uuid, end - 2);
    CHECK(behind(b.j) == 2, "Redis went back");
    neap_journal_doubt(b.j);
    CHECK(behind(b.j) == end, "who knows");
    char rec[400];
    for (uint32_t i = 0; i < 50; i++) neap_journal_append(b.c, rec, make(i, rec), on_ack, &b);
    stop(&b); /* with appends and a wait still out: each is called back once */
    CHECK(b.acked + b.failed == 53 && second == 100, "%d %d %d", b.acked, b.failed, second);
    start(&b, 0, 0);
    neap_journal_log logs[2];
    CHECK(neap_journal_logs(b.j, logs, 2) == 2 && behind(b.j) == logs[0].end, "an older log counts too");
    neap_journal_set_applied(b.j, logs[0].uuid, logs[0].end);
    CHECK(behind(b.j) == 0);
    stop(&b);
    wipe();
}

/* What a turn appends is one group, and nothing is lost when the client goes before the turn's end. */
static void test_turn(void) {
    bench b;
    char rec[400];
    neap_journal_stats s;
    start(&b, 0, 0);
    neap_journal_by_turn(b.c);
    CHECK(neap_journal_turn(b.c) == 0, "nothing to tell");
    for (int round = 1; round <= 3; round++) {
        for (uint32_t i = 0; i < 20; i++) CHECK(neap_journal_append(b.c, rec, make(i, rec), on_ack, &b) == 0);
        neap_journal_get_stats(b.j, &s);
        CHECK(s.commits == (uint64_t)round - 1 && b.acked == 20 * (round - 1), "the writer waits for the turn's end: %d", (int)s.commits);
        CHECK(neap_journal_turn(b.c) == 1 && neap_journal_turn(b.c) == 0);
        while (b.acked < 20 * round) uv_run(&b.loop, UV_RUN_ONCE);
        neap_journal_get_stats(b.j, &s);
        CHECK(s.commits == (uint64_t)round, "one sync for a turn: %d", (int)s.commits);
    }
    for (uint32_t i = 0; i < 300; i++) neap_journal_append(b.c, rec, make(299, rec), on_ack, &b); /* much: not all waits for the end */
    while (b.acked < 61) uv_run(&b.loop, UV_RUN_ONCE);
    neap_journal_turn(b.c);
    while (b.acked < 360) uv_run(&b.loop, UV_RUN_ONCE);
    for (uint32_t i = 0; i < 5; i++) neap_journal_append(b.c, rec, make(i, rec), on_ack, &b);
    stop(&b);
    CHECK(b.acked + b.failed == 365, "%d %d", b.acked, b.failed);
    wipe();
}

int main(int argc, char **argv) {
    if (argc > 1) { /* the other process of test_threads */
        bench b;
        snprintf(dir, sizeof dir, "%s", argv[1]);
        start(&b, 0, 0);
        neap_journal_log logs[4];
        CHECK(neap_journal_logs(b.j, logs, 4) == 1 && logs[0].own);
        append(&b, 0, 10);
        read_all(b.j, 1 << 20, true);
        CHECK(t.count == 10);
        stop(&b);
        return test_failed != 0;
    }
    snprintf(dir, sizeof dir, "/tmp/neap-journal-%d", (int)getpid());
    wipe();
    test_crc();
    test_restart();
    test_torn();
    test_flips();
    test_bound();
    test_full();
    test_kill();
    test_spares();
    test_ahead();
    test_release_while_rolling();
    test_threads();
    test_applied();
    test_turn();
    wipe();
    return test_end("journal");
}
