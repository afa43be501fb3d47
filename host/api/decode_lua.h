/* decode_lua.h: the batch and sensor-table userdata, for bindings that take a decoded batch (journal, store). */
#ifndef NEAP_DECODE_LUA_H
#define NEAP_DECODE_LUA_H
#include <lua.h>
#include <lauxlib.h>
#include "host/http.h"
#include "host/readings.h"

#define DECODE_BATCH   "neap.decode.batch"
#define DECODE_SENSORS "neap.decode.sensors"

/* A batch as Lua holds it. Its slices point into the body of `lender`, or into the string that user value 1 anchors. */
typedef struct decode_batch {
    neap_readings readings;
    neap_http_req *lender;
    int kb; /* what the collector was told of */
} decode_batch;

/* Gives back what a batch holds; it is empty then. */
void decode_batch_free(decode_batch *d);
/* The batch at idx; raises if it is none. */
neap_readings *decode_check_batch(lua_State *L, int idx);
neap_sensors *decode_check_sensors(lua_State *L, int idx);

/* Fills the two metatables; called once by luaopen_neap_decode. */
void decode_open_batch(lua_State *L);
/* decode_chunk.c */
int decode_pack(lua_State *L);
int decode_unpack(lua_State *L);
int decode_run(lua_State *L);
#endif
