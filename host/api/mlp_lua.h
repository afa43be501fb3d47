/* mlp_lua.h: models and data sets between the C files of neap.mlp.core. Option tables, defaults and texts are Lua (lua/neap/mlp.lua); here arguments
   are decided already. */
#ifndef NEAP_MLP_LUA_H
#define NEAP_MLP_LUA_H
#include "host/api/tensor_lua.h"
#include "host/mlp.h"

#define MLP_META  "neap.mlp"
#define DATA_META "neap.mlp.data"

neap_mlp *mlp_check(lua_State *L, int idx);                      /* raises if it is no model */
neap_mlp *mlp_free_check(lua_State *L, int idx, const char *op); /* also raises if another task's job is using it */
neap_mlp_data *data_check(lua_State *L, int idx);
neap_mlp_data *data_test(lua_State *L, int idx); /* NULL if it is none */

/* Raises unless data set d fits model m: inputs, and outputs where targets are needed. */
void mlp_fits(lua_State *L, const neap_mlp *m, const neap_mlp_data *d, int targets, const char *op);

/* Optimiser and loss options of the table at idx over the given ones; other keys are ignored. nil: nothing. */
void mlp_read_hyper(lua_State *L, int idx, neap_hyper *h);

/* The parts of neap.mlp.core; each adds functions to the module and methods to the two method tables. */
void mlp_add_data(lua_State *L, int module, int data_methods);
void mlp_add_jobs(lua_State *L, int module, int mlp_methods);
#endif
