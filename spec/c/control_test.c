/* control_test.c: both ends of the control socket in one loop. */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "host/control.h"
#include "spec/c/test.h"

static uv_loop_t loop;
static char dir[] = "/tmp/neap_control_XXXXXX", path[100];

/* The server answers each message with its reverse; "bye" closes. */
static int connections, ended;
static void server_event(neap_conn *c, void *ud) {
    const char *data;
    size_t n;
    int got;
    while ((got = neap_conn_next(c, &data, &n)) == 1) {
        char *copy = malloc(n + 1);
        for (size_t i = 0; i < n; i++) copy[i] = data[n - 1 - i];
        int bye = n == 3 && !memcmp(data, "bye", 3);
        if (!bye) neap_conn_send(c, copy, n);
        free(copy);
        if (bye) {
            ended++;
            neap_conn_close(c);
            return;
        }
    }
    if (got == NEAP_ERR_CLOSED) {
        ended++;
        neap_conn_close(c);
    }
}

static void server_conn(neap_conn *c, void *ud) {
    connections++;
    neap_conn_watch(c, server_event, NULL);
}

static int events;
static void client_event(neap_conn *c, void *ud) { events++; }

static int receive(neap_conn *c, const char **data, size_t *n) {
    int got;
    while ((got = neap_conn_next(c, data, n)) == 0) uv_run(&loop, UV_RUN_ONCE);
    return got;
}

static void messages(void) {
    neap_conn *c;
    const char *data;
    size_t n;
    CHECK(neap_conn_open(&loop, path, &c) == 0);
    neap_conn_watch(c, client_event, NULL);
    CHECK(neap_conn_send(c, "abc", 3) == 0 && neap_conn_send(c, "", 0) == 0 && neap_conn_send(c, "\0xy", 3) == 0);
    CHECK(receive(c, &data, &n) == 1 && n == 3 && !memcmp(data, "cba", 3));
    CHECK(receive(c, &data, &n) == 1 && n == 0);
    CHECK(receive(c, &data, &n) == 1 && n == 3 && !memcmp(data, "yx\0", 3));
    size_t big = 5u << 20; /* longer than the read-ahead and any socket buffer */
    char *text = malloc(big);
    for (size_t i = 0; i < big; i++) text[i] = (char)(i * 31 % 251);
    CHECK(neap_conn_send(c, text, big) == 0);
    CHECK(receive(c, &data, &n) == 1 && n == big);
    int same = 1;
    for (size_t i = 0; i < big && same; i++) same = data[i] == text[big - 1 - i];
    CHECK(same);
    for (int i = 0; i < 1000; i++) CHECK(neap_conn_send(c, text, (size_t)i * 7) == 0);
    int right = 0;
    for (int i = 0; i < 1000; i++) right += receive(c, &data, &n) == 1 && n == (size_t)i * 7;
    CHECK(right == 1000);
    CHECK(neap_conn_send(c, "bye", 3) == 0);
    CHECK(receive(c, &data, &n) == NEAP_ERR_CLOSED);
    CHECK(neap_conn_send(c, "x", 1) == NEAP_ERR_CLOSED);
    neap_conn_close(c);
    free(text);
}

static void a_flood_is_refused(void) {
    neap_conn *c;
    neap_conn_open(&loop, path, &c); /* nobody turns the loop, so nobody reads */
    char *text = calloc(1, 1 << 20);
    int err = 0;
    for (int i = 0; i < 40 && !err; i++) err = neap_conn_send(c, text, 1 << 20);
    CHECK(err == NEAP_ERR_FULL);
    neap_conn_close(c);
    free(text);
}

static void a_broken_peer(void) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0), before = ended;
    CHECK(connect(fd, (struct sockaddr *)&a, sizeof a) == 0);
    CHECK(write(fd, "\xff\xff\xff\xff", 4) == 4); /* a message of 4 GiB */
    while (ended == before) uv_run(&loop, UV_RUN_ONCE);
    close(fd);
    fd = socket(AF_UNIX, SOCK_STREAM, 0), before = ended;
    CHECK(connect(fd, (struct sockaddr *)&a, sizeof a) == 0);
    CHECK(write(fd, "\0\0\0\5ab", 6) == 6); /* leaves in the middle */
    close(fd);
    while (ended == before) uv_run(&loop, UV_RUN_ONCE);
    CHECK(1);
}

static void places(void) {
    char where[128];
    struct stat st;
    CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600);
    neap_control *other;
    CHECK(neap_control_listen(&loop, path, server_conn, NULL, &other) == NEAP_ERR_FULL, "a living socket is not taken over");
    char longer[300];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    CHECK(neap_control_listen(&loop, longer, server_conn, NULL, &other) == NEAP_ERR_INVALID);
    neap_conn *c;
    CHECK(neap_conn_open(&loop, "/tmp/neap-no-such-socket", &c) == NEAP_ERR_CONNECTION);
    setenv("XDG_RUNTIME_DIR", dir, 1);
    CHECK(neap_control_dir(where, sizeof where, 1) == 0 && strstr(where, dir) == where);
    CHECK(stat(where, &st) == 0 && (st.st_mode & 0777) == 0700);
    chmod(where, 0755);
    CHECK(neap_control_dir(where, sizeof where, 1) == NEAP_ERR_AUTH, "a directory that others can enter is refused");
    rmdir(where);
    CHECK(neap_control_dir(where, sizeof where, 0) == NEAP_ERR_IO);
}

static void a_dead_socket_is_replaced(void) {
    char dead[100];
    snprintf(dead, sizeof dead, "%s/dead", dir);
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%s", dead);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(bind(fd, (struct sockaddr *)&a, sizeof a) == 0);
    close(fd); /* the file stays, as after kill -9 */
    neap_control *s;
    CHECK(neap_control_listen(&loop, dead, server_conn, NULL, &s) == 0);
    neap_control_close(s);
    CHECK(access(dead, F_OK) != 0);
}

int main(void) {
    uv_loop_init(&loop);
    CHECK(mkdtemp(dir) != NULL);
    snprintf(path, sizeof path, "%s/control", dir);
    neap_control *s;
    CHECK(neap_control_listen(&loop, path, server_conn, NULL, &s) == 0);
    messages();
    a_flood_is_refused();
    a_broken_peer();
    places();
    a_dead_socket_is_replaced();
    neap_control_close(s);
    uv_run(&loop, UV_RUN_DEFAULT);
    CHECK(connections == ended, "%d connections, %d ended", connections, ended);
    CHECK(uv_loop_close(&loop) == 0, "no handle is left");
    rmdir(dir);
    return test_end("control");
}
