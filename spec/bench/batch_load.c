/* batch_load.c: the load generator of `neap bench batch`. One thread, keep-alive connections; bodies are made once, only the digits of the
   event times are written anew for each request, so that a server which keeps one value for each time keeps them all. Why not wrk: making
   a body of 100 readings in its Lua costs more than storing it.
   ARGV: port path dialect(line|json) readings sensors connections seconds rate(requests/s, 0 = as fast as answers come) most(requests, 0 = no end)
   Request k has readings k*readings .. of the sensors s00000, s00001, .. in turn; each sensor's readings are a second apart, to the
   millisecond, from 1,000 days ago on: none may come to lie in the future, where a spec's policy for wrong clocks applies.
   Prints: requests seconds p50_us p99_us client_cpu_share failed. With a rate an answer's time counts from when its request was due, whether
   or not a connection was free then. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { DIGITS = 16, ANSWER_MAX = 1 << 20 };

typedef struct body { /* one request, whole; at[i]: where reading i's time stands */
    char *text;
    size_t len, *at;
    uint64_t used; /* how often it was sent: its sensors' next readings are so many later */
} body;

typedef struct connection {
    int fd;
    bool busy;
    double due; /* when the request under way should have left */
    const char *out;
    char *copy;
    size_t left, got;
    char answer[ANSWER_MAX];
} connection;

static struct {
    body *bodies;
    size_t body_count, readings, sensors, body_max;
    uint64_t sent, done, failed, most;
    uint64_t start_us;
    uint32_t *times;
    size_t time_cap;
} run;

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void put_digits(char *p, uint64_t v) {
    for (int i = DIGITS - 1; i >= 0; i--, v /= 10) p[i] = (char)('0' + v % 10);
}

static void make_bodies(const char *path, const char *dialect, size_t readings, size_t sensors) {
    bool json = strcmp(dialect, "json") == 0;
    run.body_count = sensors > readings ? sensors / readings : 1;
    run.bodies = calloc(run.body_count, sizeof *run.bodies);
    for (size_t k = 0; k < run.body_count; k++) {
        body *b = &run.bodies[k];
        char *text = malloc(readings * 96 + 8), head[512];
        size_t n = 0;
        b->at = malloc(readings * sizeof *b->at);
        if (json) text[n++] = '[';
        for (size_t i = 0; i < readings; i++) {
            size_t sensor = (k * readings + i) % sensors;
            double value = 20 + (double)(i % 10) / 4;
            if (json) n += (size_t)sprintf(text + n, "%s{\"sensor_name\":\"s%05zu\",\"sensor_output\":%.2f,\"time\":", i ? "," : "", sensor, value);
            else n += (size_t)sprintf(text + n, "s%05zu value=%.2f ", sensor, value);
            b->at[i] = n;
            n += (size_t)sprintf(text + n, "%016d%s", 0, json ? "}" : "000\n");
        }
        if (json) text[n++] = ']';
        int h = snprintf(head, sizeof head, "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n", path,
                         json ? "application/json" : "text/plain", n);
        b->len = (size_t)h + n;
        b->text = malloc(b->len);
        memcpy(b->text, head, (size_t)h);
        memcpy(b->text + h, text, n);
        for (size_t i = 0; i < readings; i++) b->at[i] += (size_t)h;
        if (b->len > run.body_max) run.body_max = b->len;
        free(text);
    }
}

static void next_request(connection *c) {
    body *b = &run.bodies[run.sent % run.body_count];
    size_t each = run.readings > run.sensors ? run.readings / run.sensors : 1; /* of one sensor in one request */
    for (size_t i = 0; i < run.readings; i++) {
        uint64_t k = b->used * each + i / run.sensors;
        put_digits(b->text + b->at[i], run.start_us + k * 1000000 + (k * 7 + i) % 10 * 1000);
    }
    b->used++;
    run.sent++;
    memcpy(c->copy, b->text, b->len);
    c->out = c->copy;
    c->left = b->len;
    c->got = 0;
    c->busy = true;
}

static void push_out(connection *c) {
    while (c->left) {
        ssize_t n = send(c->fd, c->out, c->left, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) die("send");
        c->out += n;
        c->left -= (size_t)n;
    }
}

/* True once the answer is whole. */
static bool take_in(connection *c) {
    ssize_t n = recv(c->fd, c->answer + c->got, ANSWER_MAX - 1 - c->got, 0);
    if (n < 0 && errno == EAGAIN) return false;
    if (n <= 0) die("the server closed a connection");
    c->got += (size_t)n;
    c->answer[c->got] = 0;
    char *end = strstr(c->answer, "\r\n\r\n");
    if (!end) return false;
    *end = 0;
    const char *length = strcasestr(c->answer, "\r\ncontent-length:");
    size_t want = (size_t)(end + 4 - c->answer) + (length ? strtoull(length + 17, NULL, 10) : 0);
    *end = '\r';
    if (c->got < want) return false;
    if (strncmp(c->answer + 9, "20", 2) != 0 && run.failed++ == 0) fprintf(stderr, "%.*s\n", 300, c->answer);
    return true;
}

static void finish(connection *c) {
    if (run.done == run.time_cap) {
        run.time_cap = run.time_cap ? run.time_cap * 2 : 65536;
        run.times = realloc(run.times, run.time_cap * sizeof *run.times);
        if (!run.times) die("realloc");
    }
    run.times[run.done++] = (uint32_t)((now_s() - c->due) * 1e6);
    c->busy = false;
}

static int by_size(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void open_all(connection *all, size_t n, int port, int poll) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    for (size_t i = 0; i < n; i++) {
        int one = 1;
        all[i].fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(all[i].fd, (struct sockaddr *)&to, sizeof to)) die("connect");
        setsockopt(all[i].fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        fcntl(all[i].fd, F_SETFL, O_NONBLOCK);
        all[i].copy = malloc(run.body_max);
        struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = &all[i]};
        if (epoll_ctl(poll, EPOLL_CTL_ADD, all[i].fd, &e)) die("epoll_ctl");
    }
}

int main(int argc, char **argv) {
    if (argc != 10) return fprintf(stderr, "batch_load: nine arguments, see its head\n"), 2;
    run.readings = strtoull(argv[4], NULL, 10);
    run.sensors = strtoull(argv[5], NULL, 10);
    size_t n = strtoull(argv[6], NULL, 10);
    double seconds = atof(argv[7]), rate = atof(argv[8]);
    run.most = strtoull(argv[9], NULL, 10);
    run.start_us = ((uint64_t)time(NULL) - 1000 * 86400) * 1000000;
    make_bodies(argv[2], argv[3], run.readings, run.sensors);
    connection *all = calloc(n, sizeof *all);
    int poll = epoll_create1(0), clock = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    open_all(all, n, atoi(argv[1]), poll);
    struct epoll_event tick = {.events = EPOLLIN};
    epoll_ctl(poll, EPOLL_CTL_ADD, clock, &tick);
    double start = now_s(), end = start + seconds;
    for (bool more = true;;) {
        double now = now_s();
        size_t busy = 0;
        if (now >= end || (run.most && run.sent >= run.most)) more = false;
        for (size_t i = 0; i < n; i++) {
            connection *c = &all[i];
            double due = rate > 0 ? start + (double)run.sent / rate : now;
            if (more && !c->busy && due <= now && !(run.most && run.sent >= run.most)) {
                c->due = due;
                next_request(c);
                push_out(c);
            }
            busy += c->busy;
        }
        if (!more && !busy) break;
        if (now > end + 30) return fprintf(stderr, "batch_load: no answer for 30 s\n"), 1;
        if (rate > 0 && more && busy < n) {
            double wait = start + (double)run.sent / rate - now;
            struct itimerspec in = {.it_value = {0, wait > 2e-6 ? (long)(wait < 0.5 ? wait * 1e9 : 5e8) : 2000}};
            timerfd_settime(clock, 0, &in, NULL);
        }
        struct epoll_event ev[64];
        int k = epoll_wait(poll, ev, 64, 1000);
        for (int i = 0; i < k; i++) {
            connection *c = ev[i].data.ptr;
            if (!c) {
                uint64_t times;
                if (read(clock, &times, sizeof times) < 0 && errno != EAGAIN) die("timerfd");
                continue;
            }
            if (c->left) push_out(c);
            if (c->busy && (ev[i].events & (EPOLLIN | EPOLLHUP)) && take_in(c)) finish(c);
        }
    }
    double took = now_s() - start;
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    double cpu = (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) + (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
    qsort(run.times, run.done, sizeof *run.times, by_size);
    printf("%llu %.6f %u %u %.3f %llu\n", (unsigned long long)run.done, took, run.done ? run.times[run.done / 2] : 0,
           run.done ? run.times[run.done * 99 / 100] : 0, cpu / took, (unsigned long long)run.failed);
    return 0;
}
