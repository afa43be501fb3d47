/* cli.h: the command line, in two files: cli.c (options, scripts, commands) and cli_repl.c (stock Lua's interactive
 * mode, for -i on a pipe). */
#ifndef NEAP_CLI_H
#define NEAP_CLI_H
#include "host/api/rt_internal.h"

int cli_main(int argc, char **argv);
int cli_call(lua_State *L, int nargs, int nres); /* protected call with traceback and Ctrl-C; the status */
int cli_report(lua_State *L, int status);        /* prints the error on top, if any, and pops it; the status */
void cli_stock_repl(lua_State *L);
#endif
