/* main.c: the neap binary. Everything else is in libneap. */
#include "host/api/cli.h"

int main(int argc, char **argv) { return cli_main(argc, argv); }
