/* lua_worker.c - a worker process from Lua: kernels are run where they can crash and hang without harm.
 *
 * The requests are those of tuner/protocol.h, as JSON text. */
#include "bind.h"
#include "supervise.h"
#include <string.h>

static const char worker_class[] = "quernel.worker";

/* worker(program, device) -> worker, or nil, message, code */
static int worker_start(lua_State *L) {
  const char *program = luaL_checkstring(L, 1), *device = luaL_checkstring(L, 2);
  qn_supervisor *w = lua_newuserdatauv(L, sizeof *w, 2);
  memset(w, 0, sizeof *w);
  luaL_setmetatable(L, worker_class);
  for (int i = 1; i <= 2; i++) { /* it borrows both texts */
    lua_pushvalue(L, i);
    lua_setiuservalue(L, -2, i);
  }
  qn_status s = qn__supervisor_init(w, program, device);
  return s == QN_OK ? 1 : qn__lua_fail(L, s);
}

static int worker_close(lua_State *L) {
  qn_supervisor *w = luaL_checkudata(L, 1, worker_class);
  if (w->program) qn__supervisor_fini(w);
  return 0;
}

/* worker:ask(request, seconds) -> answer, or nil, message, code. A worker that dies, does not answer in time or has met
 * a wrong kernel is replaced at the next request. */
static int worker_ask(lua_State *L) {
  qn_supervisor *w = luaL_checkudata(L, 1, worker_class);
  const char *text = luaL_checkstring(L, 2);
  double seconds = luaL_optnumber(L, 3, 60);
  luaL_argcheck(L, w->program, 1, "the worker is closed");
  luaL_argcheck(L, seconds > 0, 3, "seconds above 0");
  cJSON **answer = qn__lua_json_box(L), *request = cJSON_Parse(text);
  luaL_argcheck(L, request, 2, "not JSON");
  qn_status s = qn__supervisor_ask(w, request, seconds, answer);
  if (s != QN_OK) return qn__lua_fail(L, s);
  qn__lua_push_json(L, *answer);
  return 1;
}

void qn__lua_worker(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"ask", worker_ask}, {"close", worker_close}, {"__gc", worker_close}, {"__close", worker_close}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"worker", worker_start}, {NULL, NULL}};
  qn__lua_class(L, worker_class, methods);
  luaL_setfuncs(L, functions, 0);
}
