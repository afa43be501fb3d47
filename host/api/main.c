/* main.c: the neap binary. Everything else is in libneap. */
#include <string.h>
#include "host/api/cli.h"
#include "host/redis_server.h"

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "--redis-guard")) return neap_redis_guard_main(argc, argv); /* started by ourselves: redis_server.h */
    return cli_main(argc, argv);
}
