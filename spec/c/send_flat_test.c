/* send_flat_test.c: the program's own sendmsg(): small pieces, pieces beyond what it copies, none, datagrams, descriptors. */
#include "spec/c/test.h"
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static char text[8192];

/* Sends `n` pieces of these lengths and reads until all is there; 1 if what arrives is the pieces one behind the other. */
static int arrives(int pair[2], const size_t *lens, size_t n) {
    struct iovec piece[4];
    char got[sizeof text];
    size_t all = 0, have = 0;
    for (size_t i = 0; i < n; i++) {
        piece[i] = (struct iovec){text + all, lens[i]};
        all += lens[i];
    }
    if (sendmsg(pair[0], &(struct msghdr){.msg_iov = piece, .msg_iovlen = n}, MSG_NOSIGNAL) != (ssize_t)all) return 0;
    for (ssize_t k; have < all && (k = read(pair[1], got + have, sizeof got - have)) > 0;) have += (size_t)k;
    return have == all && !memcmp(got, text, all);
}

static void test_pieces(int type) {
    static const size_t cases[][4] = {{10}, {3, 5}, {0, 7}, {180, 64, 0, 1}, {2000, 48}, {2000, 49}, {2048}, {2049}, {100, 6000}, {1, 1, 1, 4000}};
    int pair[2];
    CHECK(socketpair(AF_UNIX, type, 0, pair) == 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) CHECK(arrives(pair, cases[i], 4), "type %d, case %zu", type, i);
    CHECK(sendmsg(pair[0], &(struct msghdr){0}, 0) == 0); /* nothing at all */
    close(pair[1]);
    CHECK(sendmsg(pair[0], &(struct msghdr){.msg_iov = &(struct iovec){text, 5}, .msg_iovlen = 1}, MSG_NOSIGNAL) == -1);
    close(pair[0]);
}

/* A descriptor that travels with the bytes. */
static void test_descriptor(void) {
    int pair[2], through[2], got = -1;
    char room[CMSG_SPACE(sizeof(int))] = {0}, byte = 'x';
    struct iovec piece = {&byte, 1};
    struct msghdr m = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 && pipe(through) == 0);
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    *c = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(c), &through[1], sizeof(int));
    CHECK(sendmsg(pair[0], &m, 0) == 1);
    memset(room, 0, sizeof room);
    CHECK(recvmsg(pair[1], &m, 0) == 1 && (c = CMSG_FIRSTHDR(&m)) && c->cmsg_type == SCM_RIGHTS);
    if (c) memcpy(&got, CMSG_DATA(c), sizeof got);
    CHECK(write(got, "y", 1) == 1 && read(through[0], &byte, 1) == 1 && byte == 'y');
    close(got), close(through[0]), close(through[1]), close(pair[0]), close(pair[1]);
}

int main(void) {
    for (size_t i = 0; i < sizeof text; i++) text[i] = (char)(i * 31 + i / 251);
    test_pieces(SOCK_STREAM);
    test_pieces(SOCK_SEQPACKET);
    test_descriptor();
    return test_end("send_flat");
}
