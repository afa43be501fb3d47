/* compute_lua.h: long computations of Lua code, on the compute threads of its state (host/compute.h). */
#ifndef NEAP_COMPUTE_LUA_H
#define NEAP_COMPUTE_LUA_H
#include "host/api/rt.h"
#include "host/compute.h"

/* As neap_compute_submit, into the state's own pool; `done` is called on the loop thread. Raises if there can be no pool. */
int compute_submit(lua_State *L, neap_compute_job *job);

/* Processors of this machine, 1 to 64: how many threads a job gets unless told otherwise. */
int compute_cores(void);
#endif
