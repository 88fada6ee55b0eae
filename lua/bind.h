/* bind.h - shared by the files that bind C to Lua.
 *
 * Each lua_*.c adds its functions to the table `native`, which only lua/quernel.lua sees and which it dresses up as the
 * module. A bad argument raises; a bad world returns nil, message, name of the status. Any call into Lua may jump, so a
 * binding keeps what it owns in userdata with a __gc, never in a C variable alone. */
#ifndef QN_BIND_H
#define QN_BIND_H
#include "fail.h"
#include "pack_format.h"
#include "quernel_io.h"
#include <cjson/cJSON.h>
#include <lauxlib.h>
#include <lua.h>
#include <stdbool.h>

/* Each adds functions to the table on top of the stack. [-0, +0, m] */
void qn__lua_gen(lua_State *L);
void qn__lua_device(lua_State *L);
void qn__lua_model(lua_State *L);
void qn__lua_write(lua_State *L);
void qn__lua_tune(lua_State *L);
void qn__lua_pack(lua_State *L);
void qn__lua_serve(lua_State *L);
void qn__lua_worker(lua_State *L);
void qn__lua_store(lua_State *L);
void qn__lua_ffi(lua_State *L);
void qn__lua_limit(lua_State *L);
void qn__lua_decoder(lua_State *L);
void qn__lua_eval(lua_State *L);
void qn__lua_calibrate(lua_State *L);
void qn__lua_tokens(lua_State *L);

/* Push nil, the thread's last failure (or the status' text), and the status' name; returns 3. [-0, +3, m] */
int qn__lua_fail(lua_State *L, qn_status s);
/* The same, or push true and return 1. [-0, +1/3, m] */
int qn__lua_outcome(lua_State *L, qn_status s);

/* Field `name` of the table at `index`: text or a whole number, with what is taken when it is absent. A field of
 * another type raises, naming it. Text belongs to the table. [-0, +0, v] */
const char *qn__lua_text(lua_State *L, int index, const char *name, const char *absent);
int64_t qn__lua_integer(lua_State *L, int index, const char *name, int64_t absent);
bool qn__lua_flag(lua_State *L, int index, const char *name);

/* Set a field of the table on top. [-0, +0, m] */
void qn__lua_set_text(lua_State *L, const char *name, const char *value); /* NULL: nothing is set */
void qn__lua_set_number(lua_State *L, const char *name, double value);
void qn__lua_set_integer(lua_State *L, const char *name, int64_t value);
void qn__lua_set_flag(lua_State *L, const char *name, bool value);

/* Raise if the table at `index` has a field that is not a word of `fields`; `what` names the table. [-0, +0, v] */
void qn__lua_known(lua_State *L, int index, const char *what, const char *fields);

/* Call fn(the script's function at `index`, light userdata ud) from C that no error may jump out of. True: it raised,
 * and the error is on top of the stack. Needs three free slots. [-0, +0/1, -] */
bool qn__lua_protected(lua_State *L, lua_CFunction fn, int index, void *ud);

/* Make the class `name` of a list of methods, "__gc" and the like among them; __index is the class. [-0, +0, m] */
void qn__lua_class(lua_State *L, const char *name, const luaL_Reg *methods);

/* Values and JSON: text at `index` parsed, kept in a userdata until collected. Raises if it is malformed. */
cJSON *qn__lua_json(lua_State *L, int index);         /* [-0, +1, v]: the userdata */
cJSON **qn__lua_json_box(lua_State *L);               /* [-0, +1, m]: an empty one, to be filled */
void qn__lua_push_json(lua_State *L, const cJSON *j); /* [-0, +1, v] */

/* Memory that lives until the userdata pushed is collected: `bytes`, zeroed. [-0, +1, m] */
void *qn__lua_block(lua_State *L, size_t bytes);

/* What the tool says when a signal ends it: what native.parting was given last. Async-signal-safe. */
const char *qn__lua_parting(void);

/* A plan as a table, with the names of its kernels as `find` knows them (NULL: not known). [-0, +1, m] */
typedef const qn_kernel *(*qn__lua_kernel)(void *ud, const char *hash);
void qn__lua_push_plan(lua_State *L, const qn_plan *p, qn__lua_kernel find, void *ud);

/* A buffer of lua_ffi.c at `index`, for bindings that take matrices: its memory, type and number of elements; raises
 * when it is no buffer. [-0, +0, v] */
typedef struct qn_span {
  void *data;
  qn_type type;
  size_t count, bytes;
} qn_span;
qn_span qn__lua_span(lua_State *L, int index);
/* The object at `index`; raises when it is none, or closed. It belongs to the userdata. [-0, +0, v] */
const qn_model *qn__lua_model_at(lua_State *L, int index);
const qn_gemm *qn__lua_gemm_at(lua_State *L, int index);
const qn_weight *qn__lua_weight_at(lua_State *L, int index);
struct qn__decoder *qn__lua_decoder_at(lua_State *L, int index);
/* Raises when a decoder is closed that the object at `owner` uses: its user value has them at 1 … count, or nil.
 * [-0, +0, v] */
void qn__lua_check_decoders(lua_State *L, int owner, int count);
const struct qn__windows *qn__lua_windows_at(lua_State *L, int index);
/* What the site that a calibration gave out last saw. */
const struct qn__inputs *qn__lua_inputs_at(lua_State *L, int index);
/* The planes at `index`; raises when they are none. [-0, +0, v] */
const qn_planes *qn__lua_planes(lua_State *L, int index);
/* A new zeroed buffer of `count` elements on the stack. [-0, +1, v] */
void *qn__lua_buffer(lua_State *L, qn_type type, size_t count);
#endif
