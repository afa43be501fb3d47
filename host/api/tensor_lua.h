/* tensor_lua.h: tensors between C modules of host/api. A tensor in Lua is a full userdata that holds one neap_tensor; its bytes are accounted to the
   state, so that the collector runs by pressure of tensor memory, which Lua itself does not see. */
#ifndef NEAP_TENSOR_LUA_H
#define NEAP_TENSOR_LUA_H
#include "host/api/rt.h"
#include "host/tensor.h"
#include "host/safetensors.h"

#define TENSOR_META "neap.tensor"

/* The tensor at idx; raises if it is none, was freed, or is not the cpu's. Valid while the value stays on the stack. */
neap_tensor *tensor_check(lua_State *L, int idx);
neap_tensor *tensor_test(lua_State *L, int idx); /* NULL if it is no tensor */
/* The same on any device: for code that goes through neap_tensor_* and leaves the memory alone. */
neap_tensor *tensor_check_any(lua_State *L, int idx);
neap_tensor *tensor_test_any(lua_State *L, int idx);

/* A device by name: NULL for cpu and auto; raises. */
const neap_device *tensor_device(lua_State *L, const char *name);

/* t, or its copy on the device, which is then pushed. */
neap_tensor *tensor_move(lua_State *L, neap_tensor *t, const neap_device *device, const char *op);

/* Pushes an empty tensor userdata and returns its handle: fill it with a neap_tensor_* call, then tensor_filled. Nothing leaks if that raises. */
neap_tensor *tensor_slot(lua_State *L);
void tensor_filled(lua_State *L, neap_tensor *t); /* accounts the bytes; t is a slot on the stack */

/* Bytes that Lua does not see, held by something else than a tensor (a model): counted with the tensors', so that the collector runs for them too. */
size_t tensor_account(lua_State *L, size_t bytes); /* returns what to give to tensor_discount later */
void tensor_discount(lua_State *L, size_t bytes);

/* Runs a call that may lack memory: on NEAP_ERR_MEMORY a full collection, then once more. `rc` gets the result. */
#define TENSOR_RETRY(L, rc, call)                                                                                                                    \
    do {                                                                                                                                             \
        rc = (call);                                                                                                                                 \
        if (rc == NEAP_ERR_MEMORY) {                                                                                                                 \
            lua_gc(L, LUA_GCCOLLECT);                                                                                                                \
            rc = (call);                                                                                                                             \
        }                                                                                                                                            \
    } while (0)

/* Raises for a failed tensor call: names the operation and the shapes of a and b (either may be NULL). Returns only if rc is 0. */
void tensor_must(lua_State *L, int rc, const char *op, const neap_tensor *a, const neap_tensor *b);

/* A tensor from the value at idx: a tensor as it is, a number as a 0-d f64, a (nested) list of numbers as f32 or `dtype` (-1: f32). Pushes the
   userdata that owns it. A tensor must be the cpu's; _any takes all. */
neap_tensor *tensor_from(lua_State *L, int idx, int dtype, const char *op);
neap_tensor *tensor_from_any(lua_State *L, int idx, int dtype, const char *op);

/* Dimension (1-based, negative from the end) at idx as 0-based; raises. */
int tensor_dim(lua_State *L, int idx, const neap_tensor *t, const char *op);

/* Raises if the options table at idx has a key that is not in `names` (NULL-terminated), with the nearest valid one. nil or none is fine. */
void options_check(lua_State *L, int idx, const char *const *names);

/* A dtype by name; raises. */
int tensor_dtype(lua_State *L, const char *name);

/* Dimensions from arguments first.. (numbers, or one list) into shape[NEAP_MAX_DIMS]; *after is the index of what follows. */
int tensor_dims(lua_State *L, int first, int64_t *shape, int *after);

/* __gc, __close and :free(). */
int tensor_close(lua_State *L);
int tensor_live_bytes(lua_State *L); /* tensor.live_bytes() -> bytes accounted to this state */
void tensor_open_pressure(lua_State *L);

/* The parts of the module, added by luaopen_neap_tensor; tensor_add_views leaves the metatable on the stack. */
void tensor_add_views(lua_State *L, int method_table);
void tensor_add_ops(lua_State *L, int method_table, int module);
void tensor_add_long(lua_State *L, int method_table, int module);
void tensor_add_files(lua_State *L, int module);

/* ---- files (mod_tensor_file.c) ---- */
neap_safe *tensor_safe_new(lua_State *L);                     /* pushes a collected, empty container */
void tensor_safe_meta(lua_State *L, neap_safe *s, int idx);   /* adds a metadata table; raises */
void tensor_safe_push_meta(lua_State *L, const neap_safe *s); /* pushes the user's metadata as a table of strings */
int tensor_safe_failed(lua_State *L, int rc, const neap_safe *s, const char *op, const char *path); /* raises */
#endif
