/* main.c: the neap binary. Everything else is in libneap. */
#include <string.h>
#include "host/api/cli.h"
#include "host/redis_server.h"
#ifdef NEAP_MIMALLOC
#include <mimalloc.h>
#endif

/* mimalloc keeps what was freed for 25 ms: long enough for the buffers of a flood of ten thousand sensors to stand beside those of the next step. */
static void give_back_soon(void) {
#if defined(NEAP_MIMALLOC) && MI_MALLOC_VERSION >= 210
    mi_option_set(mi_option_purge_delay, 1);
#elif defined(NEAP_MIMALLOC)
    mi_option_set(mi_option_decommit_delay, 1);
#endif
}

int main(int argc, char **argv) {
    give_back_soon();
    if (argc > 1 && !strcmp(argv[1], "--redis-guard")) return neap_redis_guard_main(argc, argv); /* started by ourselves: redis_server.h */
    return cli_main(argc, argv);
}
