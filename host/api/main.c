/* main.c: the neap binary. Everything else is in libneap. */
#include <string.h>
#include "host/api/cli.h"
#include "host/redis_server.h"
#if __has_include(<mimalloc.h>)
#include <mimalloc.h>
#pragma weak mi_option_set /* whether mimalloc is there is seen at the start (the Makefile links it if it can) */
#endif

/* mimalloc keeps what was freed for 25 ms: long enough for the buffers of a flood of ten thousand sensors to stand beside those of the next step. */
static void give_back_soon(void) {
#ifdef MI_MALLOC_VERSION
#if MI_MALLOC_VERSION >= 210
    if (mi_option_set) mi_option_set(mi_option_purge_delay, 1);
#else
    if (mi_option_set) mi_option_set(mi_option_decommit_delay, 1);
#endif
#endif
}

int main(int argc, char **argv) {
    give_back_soon();
    if (argc > 1 && !strcmp(argv[1], "--redis-guard")) return neap_redis_guard_main(argc, argv); /* started by ourselves: redis_server.h */
    return cli_main(argc, argv);
}
