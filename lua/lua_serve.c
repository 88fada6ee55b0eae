/* lua_serve.c - the four calls of quernel.h from Lua: open, bind, prepack, run.
 *
 * On the host, X and Y are the script's own buffers. On a GPU they are copied there and back at each call: right for
 * trying and comparing, not for timing. */
#include "bind.h"
#include "serve.h"
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

static const char context_class[] = "quernel.context", gemm_class[] = "quernel.gemm", weight_class[] = "quernel.weight";

/* What each holds; a user value keeps what it was made from. */
typedef struct context {
  qn_context *ctx;
  qn_device *gpu; /* for copies, the context's; NULL on the host */
} context;
typedef struct gemm {
  qn_gemm *gemm;
  qn_device *gpu;
  qn_problem problem;
} gemm;
typedef struct weight {
  qn_weight *weight;
} weight;

static void *new_object(lua_State *L, size_t size, const char *class, int keep) {
  void *p = lua_newuserdatauv(L, size, 1);
  memset(p, 0, size);
  luaL_setmetatable(L, class);
  if (keep) {
    lua_pushvalue(L, keep);
    lua_setiuservalue(L, -2, 1);
  }
  return p;
}

static context *check_context(lua_State *L) {
  context *c = luaL_checkudata(L, 1, context_class);
  luaL_argcheck(L, c->ctx, 1, "the context is closed");
  return c;
}

static gemm *check_gemm(lua_State *L, int index) {
  gemm *g = luaL_checkudata(L, index, gemm_class);
  luaL_argcheck(L, g->gemm, index, "the gemm is closed");
  return g;
}

const qn_gemm *qn__lua_gemm_at(lua_State *L, int index) { return check_gemm(L, index)->gemm; }

const qn_weight *qn__lua_weight_at(lua_State *L, int index) {
  weight *w = luaL_checkudata(L, index, weight_class);
  luaL_argcheck(L, w->weight, index, "the weight is closed");
  return w->weight;
}

/* serve(path, { device=, threads=, deterministic=, batch_invariant= }) -> context, or nil, message, code */
static int serve(lua_State *L) {
  char why[1024];
  const char *path = luaL_checkstring(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  int64_t threads = qn__lua_integer(L, 2, "threads", 0);
  if (threads < 0 || threads > 1 << 16)
    return luaL_error(L, "threads = %I is outside 0 .. 65536", (lua_Integer)threads);
  qn_open_options o = {.device = qn__lua_text(L, 2, "device", NULL),
                       .threads = (int)threads,
                       .deterministic = qn__lua_flag(L, 2, "deterministic"),
                       .batch_invariant = qn__lua_flag(L, 2, "batch_invariant")};
  context *c = new_object(L, sizeof *c, context_class, 0);
  qn_status s = qn_open(path, &o, &c->ctx, why, sizeof why);
  if (s != QN_OK) return qn__lua_fail(L, qn__fail(s, "%s", why));
  qn_device *d = qn__context_device(c->ctx);
  c->gpu = d->target->host_memory ? NULL : d;
  return 1;
}

static int context_gc(lua_State *L) {
  context *c = luaL_checkudata(L, 1, context_class);
  qn_close(c->ctx);
  *c = (context){0};
  return 0;
}

/* context:problems() -> list of spellings */
static int context_problems(lua_State *L) {
  context *c = check_context(L);
  const char *p;
  lua_newtable(L);
  for (int i = 0; (p = qn_problem_at(c->ctx, i)); i++) {
    lua_pushstring(L, p);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

/* context:device() -> a name that opens the device again */
static int context_device(lua_State *L) {
  lua_pushstring(L, qn__context_device(check_context(L)->ctx)->info.name);
  return 1;
}

/* context:bind(problem) -> gemm, or nil, message, code */
static int context_bind(lua_State *L) {
  context *c = check_context(L);
  const char *problem = luaL_checkstring(L, 2);
  gemm *g = new_object(L, sizeof *g, gemm_class, 1);
  qn_status s = qn_bind(c->ctx, problem, &g->gemm);
  g->gpu = c->gpu;
  if (s != QN_OK) return qn__lua_fail(L, s);
  g->problem = *qn__gemm_problem(g->gemm);
  return 1;
}

static int gemm_gc(lua_State *L) {
  gemm *g = luaL_checkudata(L, 1, gemm_class);
  qn_gemm_free(g->gemm);
  g->gemm = NULL;
  return 0;
}

/* gemm:kernel(m) -> name */
static int gemm_kernel(lua_State *L) {
  gemm *g = check_gemm(L, 1);
  lua_pushstring(L, qn_gemm_kernel(g->gemm, luaL_checkinteger(L, 2)));
  return 1;
}

/* gemm:problem() -> spelling that serves, "exact", "nearest" or "generic" */
static int gemm_problem(lua_State *L) {
  static const char *const levels[] = {"exact", "nearest", "generic"};
  gemm *g = check_gemm(L, 1);
  lua_pushstring(L, qn_gemm_problem(g->gemm));
  lua_pushstring(L, levels[qn_gemm_level(g->gemm)]);
  return 2;
}

/* gemm:workspace(max_m), gemm:counters(max_m) -> bytes that a call with up to max_m tokens needs; ask after the weights
 * are prepacked */
static int gemm_workspace(lua_State *L) {
  gemm *g = check_gemm(L, 1);
  lua_pushinteger(L, (lua_Integer)qn_gemm_workspace(g->gemm, luaL_checkinteger(L, 2)));
  return 1;
}

static int gemm_counters(lua_State *L) {
  gemm *g = check_gemm(L, 1);
  lua_pushinteger(L, (lua_Integer)qn_gemm_counters(g->gemm, luaL_checkinteger(L, 2)));
  return 1;
}

/* gemm:prepack(planes) -> weight, or nil, message, code */
static int gemm_prepack(lua_State *L) {
  gemm *g = check_gemm(L, 1);
  const qn_planes *p = qn__lua_planes(L, 2);
  weight *w = new_object(L, sizeof *w, weight_class, 1);
  qn_status s = qn_prepack(g->gemm, p, &w->weight);
  return s == QN_OK ? 1 : qn__lua_fail(L, s);
}

/* gemm:prepack_expert(number, from 1, planes [, stack]) -> stack, or nil, message, code */
static int gemm_prepack_expert(lua_State *L) {
  gemm *g = check_gemm(L, 1);
  lua_Integer expert = luaL_checkinteger(L, 2);
  const qn_planes *p = qn__lua_planes(L, 3);
  lua_settop(L, 4);
  bool first = lua_isnil(L, 4);
  if (!first) qn__lua_weight_at(L, 4);
  weight *w = first ? new_object(L, sizeof *w, weight_class, 1) : lua_touserdata(L, 4);
  qn_status s = qn_prepack_expert(g->gemm, expert - 1, p, &w->weight);
  if (s != QN_OK) return qn__lua_fail(L, s);
  if (!first) lua_pushvalue(L, 4);
  return 1;
}

static int weight_gc(lua_State *L) {
  weight *w = luaL_checkudata(L, 1, weight_class);
  qn_weight_free(w->weight);
  w->weight = NULL;
  return 0;
}

/* ---- Running ----------------------------------------------------------------------------------------------------- */

/* One operand: the script's buffer, and on a GPU its copy there, in a userdata that frees it. */
typedef struct operand {
  void *data;
  size_t bytes;
  qn_device *gpu;
  void *copy;
} operand;

static const char operand_class[] = "quernel.operand";

static int operand_gc(lua_State *L) {
  operand *o = luaL_checkudata(L, 1, operand_class);
  if (o->copy) o->gpu->ops->free(o->gpu, o->copy);
  o->copy = NULL;
  return 0;
}

/* Push field `name` of the argument table, which alone holds it while it is in use: no metamethod may make it up. */
static int raw_field(lua_State *L, const char *name) {
  lua_pushstring(L, name);
  return lua_rawget(L, 2);
}

/* Push the operand `name` of the argument table: a buffer of `type` with at least `count` elements. */
static operand *push_operand(lua_State *L, const gemm *g, const char *name, qn_type type, size_t count) {
  operand *o = lua_newuserdatauv(L, sizeof *o, 0);
  *o = (operand){.gpu = g->gpu};
  luaL_setmetatable(L, operand_class);
  if (raw_field(L, name) == LUA_TNIL) luaL_error(L, "run: %s is missing", name);
  qn_span s = qn__lua_span(L, -1);
  lua_pop(L, 1);
  if (s.type != type)
    luaL_error(L, "run: %s holds %s, the problem wants %s", name, qn_type_name(s.type), qn_type_name(type));
  if (s.count < count)
    luaL_error(L, "run: %s holds %I elements, %I are needed", name, (lua_Integer)s.count, (lua_Integer)count);
  o->data = s.data;
  o->bytes = s.bytes;
  return o;
}

static qn_status place(operand *o, void **out) {
  *out = o->data;
  if (!o->gpu) return QN_OK;
  QN_TRY(o->gpu->ops->alloc(o->gpu, o->bytes, &o->copy));
  *out = o->copy;
  return o->gpu->ops->upload(o->gpu, o->copy, o->data, o->bytes);
}

static int64_t stride(lua_State *L, const char *name, int64_t dense) {
  int64_t ld = qn__lua_integer(L, 2, name, dense);
  if (ld < dense) luaL_error(L, "run: %s = %I is less than %I", name, (lua_Integer)ld, (lua_Integer)dense);
  if (ld > INT32_MAX) luaL_error(L, "run: %s = %I is beyond 2^31", name, (lua_Integer)ld);
  return ld;
}

static size_t extent(int64_t m, int64_t ld, int64_t width) { return (size_t)((m - 1) * ld + width); }

enum { ALIGN = 256 };
static void *aligned(void *p) { return (void *)(((uintptr_t)p + ALIGN - 1) / ALIGN * ALIGN); }

/* Workspace or counters: the script's buffer of bytes, or a new one of zeros; with room to align it to 256 bytes. */
static operand *push_bytes(lua_State *L, const gemm *g, const char *name, size_t bytes) {
  bytes += ALIGN;
  if (raw_field(L, name) != LUA_TNIL) return push_operand(L, g, name, QN_T_U8, bytes);
  qn__lua_buffer(L, QN_T_U8, bytes); /* stays on the stack, the caller's table as it is */
  operand own = {.data = qn__lua_span(L, -1).data, .bytes = bytes, .gpu = g->gpu};
  operand *o = lua_newuserdatauv(L, sizeof *o, 0);
  *o = own;
  luaL_setmetatable(L, operand_class);
  return o;
}

/* Copy an operand back. */
static qn_status fetch(const operand *o) {
  return o->gpu ? o->gpu->ops->download(o->gpu, o->data, o->copy, o->bytes) : QN_OK;
}

/* Rows of an operand: of X there is one for so many of Y, of what is not of tokens one for each expert. */
static int64_t rows_of(const gemm *g, qn_arg i, const qn_operand *o, const qn_args *a, int64_t topk) {
  if (!o->tokens) return g->problem.experts ? g->problem.experts : 1;
  return i == QN_ARG_X || i == QN_ARG_X_SCALE ? a->m / topk : a->m;
}

/* Push the operands that the problem has, by number in `to`, and set their strides in *a. */
static void push_operands(lua_State *L, const gemm *g, qn_args *a, int64_t topk, operand *to[QN_OPERANDS]) {
  for (qn_arg i = 0; i < QN_OPERANDS; i++) {
    qn_operand o = qn__operand(&g->problem, i);
    if (!o.has) continue;
    int64_t ld = o.stride < QN_ARG_COUNT ? stride(L, qn__arg[o.stride].name, o.cols) : o.cols;
    if (o.stride < QN_ARG_COUNT) memcpy((char *)a + qn__arg[o.stride].given, &ld, sizeof ld);
    to[i] = push_operand(L, g, qn__arg[i].name, o.type, extent(rows_of(g, i, &o, a, topk), ld, o.cols));
  }
}

/* Which experts the rows of a stack meet: push the list, and set all of *r but where it is. NULL: one weight. */
static operand *push_rows(lua_State *L, const gemm *g, int64_t m, qn_rows *r) {
  const char *spelling = g->problem.spelling;
  bool ids = raw_field(L, "ids") != LUA_TNIL, offsets = raw_field(L, "offsets") != LUA_TNIL;
  bool stack = g->problem.experts, wanted = ids != offsets;
  lua_pop(L, 2);
  r->topk = qn__lua_integer(L, 2, "topk", 1);
  if (!stack && (ids || offsets || r->topk != 1))
    luaL_error(L, "run: '%s' has one weight; ids, offsets and topk are for stacks", spelling);
  if (stack && !wanted) luaL_error(L, "run: '%s' is a stack: ids or offsets, one of them, is wanted", spelling);
  if (r->topk < 1 || m % r->topk)
    luaL_error(L, "run: topk = %I, of which m = %I must be a multiple", (lua_Integer)r->topk, (lua_Integer)m);
  if (!stack) return NULL;
  operand *o = push_operand(L, g, ids ? "ids" : "offsets", QN_T_I32, ids ? (size_t)m : 1);
  r->n_offsets = ids ? 0 : (int64_t)(o->bytes / sizeof(int32_t));
  return o;
}

static qn_status place_rows(operand *o, qn_rows *r) {
  void *at;
  if (!o) return QN_OK;
  QN_TRY(place(o, &at));
  if (r->n_offsets) r->offsets = at;
  else r->ids = at;
  return QN_OK;
}

/* Place them, and say in *a where. */
static qn_status place_operands(operand *const o[QN_OPERANDS], qn_args *a) {
  for (qn_arg i = 0; i < QN_OPERANDS; i++) {
    void *at;
    if (!o[i]) continue;
    QN_TRY(place(o[i], &at));
    memcpy((char *)a + qn__arg[i].given, &at, sizeof at);
  }
  return QN_OK;
}

/* Raise for a field that is no argument: operands and their strides, and what stands here. */
static void check_fields(lua_State *L) {
  char known[256] = "weight m workspace counters ids offsets topk";
  for (qn_arg i = 0; i < QN_ARG_COUNT; i++) {
    size_t n = strlen(known);
    if (i < QN_OPERANDS || i > QN_ARG_TOPK) snprintf(known + n, sizeof known - n, " %s", qn__arg[i].name);
  }
  qn__lua_known(L, 2, "run", known);
}

/* gemm:run{ weight=, x=, y=, m= [, ldx=, ldy=, x_scale=, bias=, workspace=, counters=, ids=, offsets=,
 * topk=] } -> true, or nil, message, code. Operands are buffers of the types and shapes that the problem has them in
 * (quernel.h); workspace and counters are buffers of u8, 256 more than gemm:workspace(m) and gemm:counters(m), the
 * counters zero at first, and are made if there are none. */
static int gemm_run(lua_State *L) {
  gemm *g = check_gemm(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  check_fields(L);
  raw_field(L, "weight");
  weight *w = luaL_checkudata(L, -1, weight_class);
  if (!w->weight) return luaL_error(L, "run: the weight is closed");
  qn_args a = {.m = qn__lua_integer(L, 2, "m", 1)};
  if (a.m < 1 || a.m > 1 << 24) return luaL_error(L, "run: m = %I is outside 1 .. 2^24", (lua_Integer)a.m);
  luaL_checkstack(L, 2 * QN_OPERANDS, NULL);
  operand *o[QN_OPERANDS] = {0};
  qn_rows rows = {0};
  operand *list = push_rows(L, g, a.m, &rows);
  push_operands(L, g, &a, rows.topk, o);
  operand *workspace = push_bytes(L, g, "workspace", qn_gemm_workspace(g->gemm, a.m));
  operand *counters = push_bytes(L, g, "counters", qn_gemm_counters(g->gemm, a.m));

  void *at[2] = {0};
  qn_status s = place_operands(o, &a);
  if (s == QN_OK) s = place(workspace, &at[0]);
  if (s == QN_OK) s = place(counters, &at[1]);
  a.workspace = aligned(at[0]);
  a.counters = aligned(at[1]);
  if (s == QN_OK) s = place_rows(list, &rows);
  if (s == QN_OK) s = list ? qn_run_grouped(g->gemm, w->weight, &a, &rows) : qn_run(g->gemm, w->weight, &a);
  if (s == QN_OK && g->gpu) s = g->gpu->ops->sync(g->gpu, NULL);
  if (s == QN_OK) s = fetch(o[QN_ARG_Y]);
  if (s == QN_OK) s = fetch(workspace);
  if (s == QN_OK) s = fetch(counters);
  return qn__lua_outcome(L, s);
}

/* function_register(name, library, symbol) -> true, or nil, message, code. The library stays: what is bound uses it. */
static int function_register(lua_State *L) {
  const char *name = luaL_checkstring(L, 1), *path = luaL_checkstring(L, 2), *symbol = luaL_checkstring(L, 3);
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL), *at = library ? dlsym(library, symbol) : NULL;
  qn_function fn;
  if (!at) {
    qn_status missing = qn__fail(QN_E_IO, "%s", dlerror());
    if (library) dlclose(library);
    return qn__lua_fail(L, missing);
  }
  memcpy(&fn, &at, sizeof fn);
  return qn__lua_outcome(L, qn_function_register(name, fn));
}

void qn__lua_serve(lua_State *L) {
  static const luaL_Reg context_methods[] = {{"problems", context_problems},
                                             {"device", context_device},
                                             {"bind", context_bind},
                                             {"__gc", context_gc},
                                             {NULL, NULL}};
  static const luaL_Reg gemm_methods[] = {{"kernel", gemm_kernel},
                                          {"problem", gemm_problem},
                                          {"run", gemm_run},
                                          {"prepack", gemm_prepack},
                                          {"workspace", gemm_workspace},
                                          {"counters", gemm_counters},
                                          {"prepack_expert", gemm_prepack_expert},
                                          {"__gc", gemm_gc},
                                          {NULL, NULL}};
  static const luaL_Reg weight_methods[] = {{"__gc", weight_gc}, {NULL, NULL}};
  static const luaL_Reg operand_methods[] = {{"__gc", operand_gc}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"serve", serve}, {"function_register", function_register}, {NULL, NULL}};
  qn__lua_class(L, context_class, context_methods);
  qn__lua_class(L, gemm_class, gemm_methods);
  qn__lua_class(L, weight_class, weight_methods);
  qn__lua_class(L, operand_class, operand_methods);
  luaL_setfuncs(L, functions, 0);
}
