/* bare_mhd.c: the ceiling of `neap bench post`: libmicrohttpd alone, one epoll thread, reads the body and answers a
 * static 202. */
#include <microhttpd.h>
#include <arpa/inet.h>
#include <stdlib.h>
#include <unistd.h>

static enum MHD_Result answer(void *cls, struct MHD_Connection *c, const char *url, const char *method, const char *version, const char *body,
                              size_t *size, void **ctx) {
    static int seen;
    if (!*ctx) {
        *ctx = &seen;
        return MHD_YES;
    }
    if (*size) {
        *size = 0;
        return MHD_YES;
    }
    return MHD_queue_response(c, 202, cls);
}

int main(int argc, char **argv) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct MHD_Response *r = MHD_create_response_from_buffer(2, "{}", MHD_RESPMEM_PERSISTENT);
    struct MHD_Daemon *d = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD, 0, NULL, NULL, answer, r, MHD_OPTION_SOCK_ADDR, &a, MHD_OPTION_END);
    if (!d) return 1;
    pause();
    return 0;
}
