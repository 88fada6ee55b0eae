/* lua_gen.c - what the generator wants of C: compiling many sources on all cores, and what the compiler said of each;
 * the grammar of problems. */
#include "bind.h"
#include "compile.h"
#include "lua_problem.h"
#include <stdlib.h>
#include <string.h>

/* One call of compile(): sources point into Lua strings that the argument table keeps alive. */
typedef struct batch {
  lua_State *L;
  int progress;       /* stack index of the callback, 0: none */
  size_t n, done, at; /* at: the one that ended last */
  qn_source *source;
  struct outcome {
    qn_status status;
    qn_artifact artifact;
    char *why;
  } * outcome;
  bool raised; /* the callback raised; its error is on the stack */
} batch;

static const char batch_class[] = "quernel.batch";

static int batch_gc(lua_State *L) {
  batch *b = luaL_checkudata(L, 1, batch_class);
  for (size_t i = 0; b->outcome && i < b->n; i++) {
    qn__artifact_free(&b->outcome[i].artifact);
    free(b->outcome[i].why);
  }
  free(b->outcome);
  free(b->source);
  b->outcome = NULL;
  b->source = NULL;
  return 0;
}

/* Call the script's function: progress(done, total, name of the one that ended). */
static int tell(lua_State *L) {
  const batch *b = lua_touserdata(L, 2);
  lua_settop(L, 1);
  lua_pushinteger(L, (lua_Integer)b->done);
  lua_pushinteger(L, (lua_Integer)b->n);
  lua_pushstring(L, b->source[b->at].name);
  lua_call(L, 3, 0);
  return 0;
}

/* One compilation ended: keep it, and tell the script. Called on a thread of the pool while the script's own thread
 * waits, one call at a time. */
static int compiled(void *ud, size_t i, qn_status status, const char *detail, qn_artifact *a) {
  batch *b = ud;
  struct outcome *o = &b->outcome[i];
  o->status = status;
  o->artifact = *a;
  *a = (qn_artifact){0};
  if (status != QN_OK) o->why = strdup(detail ? detail : "");
  b->done++;
  if (!b->progress) return 0;
  b->at = i;
  b->raised = qn__lua_protected(b->L, tell, b->progress, b);
  return b->raised;
}

/* Push { status =, why =, hash =, registers =, shared =, spills =, seconds =, size =, log =, image =, ptx = }, and of a
 * cubin whose main loop multiplies on tensor cores loop = { instructions =, products = }. */
static void push_outcome(lua_State *L, const qn_source *source, const struct outcome *o) {
  const qn_artifact *a = &o->artifact;
  qn_cubin_loop loop;
  lua_newtable(L);
  qn__lua_set_text(L, "status", qn_status_name(o->status));
  qn__lua_set_flag(L, "ok", o->status == QN_OK);
  qn__lua_set_text(L, "why", o->why);
  qn__lua_set_text(L, "log", a->log);
  qn__lua_set_number(L, "seconds", a->seconds);
  if (o->status != QN_OK) return;
  qn__lua_set_text(L, "hash", a->hash);
  qn__lua_set_integer(L, "registers", a->registers);
  qn__lua_set_integer(L, "shared", a->shared);
  qn__lua_set_integer(L, "spills", a->spills);
  qn__lua_set_integer(L, "size", (int64_t)a->size);
  qn__lua_set_text(L, "ptx", a->ptx);
  lua_pushlstring(L, (const char *)a->image, a->size);
  lua_setfield(L, -2, "image");
  if (strncmp(source->arch, "sm_", 3) || qn__cubin_loop(a->image, a->size, atoi(source->arch + 3), &loop)) return;
  if (!loop.products) return;
  lua_newtable(L);
  qn__lua_set_integer(L, "instructions", loop.instructions);
  qn__lua_set_integer(L, "products", loop.products);
  lua_setfield(L, -2, "loop");
}

/* compile({ {name=, target=, arch=, flags=, text=}… }, threads, progress(done, total, name)) -> list of outcomes */
static int compile(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_Integer threads = luaL_optinteger(L, 2, 0), count = luaL_len(L, 1);
  luaL_argcheck(L, count >= 0 && count <= 1 << 24, 1, "a list of sources");
  luaL_argcheck(L, threads >= 0 && threads <= 1 << 16, 2, "threads from 0 to 65536");
  lua_settop(L, 3);
  size_t n = (size_t)count;
  batch *b = lua_newuserdatauv(L, sizeof *b, 0);
  *b = (batch){.L = L, .n = n, .progress = lua_isnil(L, 3) ? 0 : 3};
  luaL_setmetatable(L, batch_class);
  b->source = calloc(n + 1, sizeof *b->source);
  b->outcome = calloc(n + 1, sizeof *b->outcome);
  if (!b->source || !b->outcome) return qn__lua_fail(L, qn__fail(QN_E_NOMEM, "no memory for %zu compilations", n));
  for (size_t i = 0; i < n; i++) {
    lua_geti(L, 1, (lua_Integer)i + 1);
    luaL_checktype(L, -1, LUA_TTABLE);
    int at = lua_gettop(L);
    b->source[i] = (qn_source){.name = qn__lua_text(L, at, "name", "kernel"),
                               .target = qn__lua_text(L, at, "target", "host"),
                               .arch = qn__lua_text(L, at, "arch", ""),
                               .flags = qn__lua_text(L, at, "flags", ""),
                               .text = qn__lua_text(L, at, "text", "")};
    lua_pop(L, 1);
  }
  luaL_checkstack(L, 16, NULL);
  qn_status s = qn__compile_all(b->source, n, (int)threads, compiled, b);
  if (b->raised) return lua_error(L);
  if (s != QN_OK) return qn__lua_fail(L, s);
  lua_createtable(L, (int)n, 0);
  for (size_t i = 0; i < n; i++) {
    push_outcome(L, &b->source[i], &b->outcome[i]);
    lua_seti(L, -2, (lua_Integer)i + 1);
  }
  lua_pushvalue(L, 4); /* free the batch now, not at some collection */
  lua_pushcfunction(L, batch_gc);
  lua_insert(L, -2);
  lua_call(L, 1, 0);
  return 1;
}

/* compiler(target) -> "gcc 12.2.0", or nil, message, code */
static int compiler(lua_State *L) {
  char text[128];
  qn_status s = qn__compiler_version(luaL_checkstring(L, 1), text, sizeof text);
  if (s != QN_OK) return qn__lua_fail(L, s);
  lua_pushstring(L, text);
  return 1;
}

void qn__lua_gen(lua_State *L) {
  static const luaL_Reg batch_methods[] = {{"__gc", batch_gc}, {NULL, NULL}};
  static const luaL_Reg functions[] = {
      {"compile", compile}, {"compiler", compiler}, {"problem", qn__lua_problem}, {NULL, NULL}};
  qn__lua_class(L, batch_class, batch_methods);
  luaL_setfuncs(L, functions, 0);
  qn__lua_set_text(L, "types", QN_TYPES_TEXT);
}
