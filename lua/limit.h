/* limit.h - how much memory and processor time the code of templates may take.
 *
 * While a template runs, its Lua state may grow by 512 MiB, and each piece of work (a file, a candidate) may take 5
 * seconds of processor time. Memory that is refused raises "not enough memory". Lua's own loops are counted in
 * lua/quernel.lua; time is for what cannot be interrupted, a call of the C library that never comes back: it ends the
 * process. */
#ifndef QN_LIMIT_H
#define QN_LIMIT_H
#include <lua.h>
#include <stddef.h>

/* A new state that counts its memory in `m`, which is the caller's and outlives it; NULL: no memory. The states of
 * other programs are not counted, there only time is limited. */
typedef struct qn_lua_memory {
  size_t used, most;
} qn_lua_memory;
lua_State *qn__lua_state_new(qn_lua_memory *m);
#endif
