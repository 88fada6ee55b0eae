/* lua_tune.c - tuning from Lua: problems and candidates as one JSON text, the result as a handle that makes packs. */
#include "bind.h"
#include "call.h"
#include "desc_json.h"
#include "json.h"
#include "tuner.h"
#include <stdlib.h>
#include <string.h>

static const char result_class[] = "quernel.tuned";

/* All that a call of tune() owns; the result stays, the rest goes when the tuner is done. */
typedef struct tuned {
  lua_State *L;
  qn_tune_problem *problem;
  size_t n;
  int64_t *m;
  qn_tune_result result;
  bool raised; /* the progress function did; its error is on the stack */
} tuned;

static void free_problems(tuned *t) {
  for (size_t i = 0; i < t->n; i++) {
    free((void *)(uintptr_t)t->problem[i].candidate);
    free((void *)(uintptr_t)t->problem[i].share);
  }
  free(t->problem);
  free(t->m);
  t->problem = NULL;
  t->m = NULL;
  t->n = 0;
}

static int tuned_gc(lua_State *L) {
  tuned *t = luaL_checkudata(L, 1, result_class);
  free_problems(t);
  qn__tune_result_free(&t->result);
  t->result = (qn_tune_result){0};
  return 0;
}

/* ---- Reading the problems ---------------------------------------------------------------------------------------- */

static qn_status read_candidate(const cJSON *j, const qn_format *f, qn_candidate *out) {
  *out = (qn_candidate){.name = qn__json_text(j, "name", ""),
                        .hash = qn__json_text(j, "hash", ""),
                        .family = qn__json_text(j, "family", ""),
                        .source = qn__json_text(j, "source", ""),
                        .flags = qn__json_text(j, "flags", ""),
                        .arch = qn__json_text(j, "arch", ""),
                        .params = qn__json_text(j, "params", ""),
                        .library = qn__json_text(j, "library", NULL),
                        .symbol = qn__json_text(j, "symbol", NULL),
                        .m_min = (int64_t)qn__json_number(j, "m_min", 0),
                        .m_max = (int64_t)qn__json_number(j, "m_max", 0),
                        .m_tile = (int64_t)qn__json_number(j, "m_tile", 0),
                        .cost = (int64_t)qn__json_number(j, "cost", 0)};
  qn_status s = qn__layout_from_json(qn__json_get(j, "layout"), f, &out->layout);
  if (s == QN_OK) s = qn__recipe_from_json(qn__json_get(j, "recipe"), &out->recipe);
  return s == QN_OK ? s : qn__fail(s, "%s: %s", out->name, qn__errmsg());
}

/* One for each expert, as lua/tuning.lua has seen to. */
static qn_status read_share(const cJSON *list, qn_tune_problem *out) {
  const cJSON *x;
  if (!list) return QN_OK;
  double *share = calloc((size_t)cJSON_GetArraySize(list) + 1, sizeof *share);
  if (!share) return qn__fail(QN_E_NOMEM, "no memory for shares of experts");
  out->share = share;
  cJSON_ArrayForEach(x, list) *share++ = x->valuedouble;
  return QN_OK;
}

static qn_status read_problem(const cJSON *j, qn_tune_problem *out) {
  const cJSON *list = qn__json_get(j, "candidates"), *c;
  QN_TRY(qn__problem_parse(qn__json_text(j, "problem", ""), &out->problem));
  QN_TRY(qn__format_from_json(qn__json_get(j, "format"), &out->format));
  out->share_name = qn__json_text(j, "share_name", NULL);
  QN_TRY(read_share(qn__json_get(j, "share"), out));
  out->baseline = cJSON_IsTrue(qn__json_get(j, "baseline"));
  qn_candidate *candidate = calloc((size_t)cJSON_GetArraySize(list) + 1, sizeof *candidate);
  if (!candidate) return qn__fail(QN_E_NOMEM, "no memory for candidates");
  out->candidate = candidate;
  cJSON_ArrayForEach(c, list) QN_TRY(read_candidate(c, &out->format, &candidate[out->n_candidates++]));
  int generic = (int)qn__json_number(j, "generic", 0); /* counted from 1; 0: none */
  if (generic > 0 && (size_t)generic <= out->n_candidates) out->generic = &candidate[generic - 1];
  return QN_OK;
}

static qn_status read_problems(const cJSON *list, tuned *t) {
  const cJSON *p;
  t->problem = calloc((size_t)cJSON_GetArraySize(list) + 1, sizeof *t->problem);
  if (!t->problem) return qn__fail(QN_E_NOMEM, "no memory for problems");
  cJSON_ArrayForEach(p, list) QN_TRY(read_problem(p, &t->problem[t->n++]));
  return QN_OK;
}

/* ---- Progress ---------------------------------------------------------------------------------------------------- */

/* Call the script's function with a table of what an event says. */
static int tell(lua_State *L) {
  const qn_tune_event *e = lua_touserdata(L, 2);
  lua_settop(L, 1);
  lua_newtable(L);
  qn__lua_set_text(L, "phase", e->phase);
  qn__lua_set_text(L, "problem", e->problem);
  qn__lua_set_text(L, "variant", e->variant);
  qn__lua_set_text(L, "text", e->text);
  qn__lua_set_integer(L, "m", e->m);
  qn__lua_set_integer(L, "done", (int64_t)e->done);
  qn__lua_set_integer(L, "total", (int64_t)e->total);
  qn__lua_set_number(L, "best", e->best);
  qn__lua_set_number(L, "left", e->left);
  lua_call(L, 1, 0);
  return 0;
}

/* The function is at stack index 2. Its first error is kept. */
static void progress(void *ud, const qn_tune_event *e) {
  tuned *t = ud;
  if (t->raised || lua_isnoneornil(t->L, 2)) return;
  t->raised = qn__lua_protected(t->L, tell, 2, (void *)(uintptr_t)e);
}

/* ---- The result -------------------------------------------------------------------------------------------------- */

static const qn_kernel *find_kernel(void *ud, const char *hash) {
  const qn_tune_result *r = ud;
  for (size_t i = 0; i < r->n_kernels; i++)
    if (strcmp(r->kernel[i].hash, hash) == 0) return &r->kernel[i];
  return NULL;
}

static void push_counts(lua_State *L, const qn_tune_counts *c) {
  lua_newtable(L);
#define X(name) qn__lua_set_integer(L, #name, (int64_t)c->name);
  QN_TUNE_COUNT_MAP(X)
#undef X
}

static void push_result(lua_State *L, qn_tune_result *r) {
  lua_newtable(L);
  lua_newtable(L);
  for (size_t i = 0; i < r->n_plans; i++) {
    qn__lua_push_plan(L, &r->plan[i], find_kernel, r);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  lua_setfield(L, -2, "plans");
  push_counts(L, &r->counts);
  lua_setfield(L, -2, "counts");
  qn__lua_set_text(L, "remarks", r->remarks ? r->remarks : "");
  qn__lua_set_number(L, "bandwidth", r->peak_bandwidth);
  qn__lua_set_text(L, "device", r->device.name);
  qn__lua_set_text(L, "product", r->device.product);
  qn__lua_set_integer(L, "threads", r->device.threads);
}

/* tune(json, progress or nil) -> table with .handle, or nil, message, code */
static int tune(lua_State *L) {
  lua_settop(L, 2);
  const cJSON *job = qn__lua_json(L, 1); /* 3: keeps the texts alive */
  const cJSON *o = qn__json_get(job, "options"), *m = qn__json_get(o, "m"), *x;
  tuned *t = lua_newuserdatauv(L, sizeof *t, 0); /* 4 */
  *t = (tuned){.L = L};
  luaL_setmetatable(L, result_class);
  qn_tune_options options = {.effort = (int)qn__json_number(o, "effort", 0),
                             .budget = qn__json_number(o, "budget", 0),
                             .threads = (int)qn__json_number(o, "threads", 0),
                             .retime = cJSON_IsTrue(qn__json_get(o, "retime")),
                             .run = qn__json_text(o, "run", NULL),
                             .check_only = cJSON_IsTrue(qn__json_get(o, "check_only")),
                             .progress = progress,
                             .ud = t,
                             .device = qn__json_text(o, "device", NULL),
                             .store = qn__json_text(o, "store", NULL),
                             .worker = qn__json_text(o, "worker", NULL)};
  if (cJSON_GetArraySize(m) > 0) {
    t->m = calloc((size_t)cJSON_GetArraySize(m), sizeof *t->m);
    if (!t->m) return qn__lua_fail(L, qn__fail(QN_E_NOMEM, "no memory for M"));
    cJSON_ArrayForEach(x, m) t->m[options.n_m++] = (int64_t)x->valuedouble;
    options.m = t->m;
  }
  luaL_checkstack(L, 20, NULL);
  qn_status s = read_problems(qn__json_get(job, "problems"), t);
  if (s == QN_OK) s = qn__tune(t->problem, t->n, &options, &t->result);
  free_problems(t);
  if (t->raised) return lua_error(L);
  if (s != QN_OK) return qn__lua_fail(L, s);
  push_result(L, &t->result);
  lua_pushvalue(L, 4);
  lua_setfield(L, -2, "handle");
  return 1;
}

static qn_status add_result(qn_pack_builder *b, qn_tune_result *r, uint32_t device) {
  QN_TRY(qn__pack_add_device(b, r->device.target, r->device.arch, r->device.product, r->device.threads));
  for (size_t i = 0; i < r->n_kernels; i++) QN_TRY(qn__pack_add_kernel(b, &r->kernel[i]));
  for (size_t i = 0; i < r->n_plans; i++) {
    r->plan[i].device = device;
    QN_TRY(qn__pack_add_plan(b, &r->plan[i]));
  }
  return QN_OK;
}

/* pack_write({ handle… }, path) -> true, or nil, message, code: what was tuned, on one machine or several, in one
 * file */
static int pack_write(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  const char *path = luaL_checkstring(L, 2);
  lua_Integer count = luaL_len(L, 1);
  luaL_argcheck(L, count > 0 && count <= 1000, 1, "1 to 1000 results");
  int n = (int)count;
  luaL_checkstack(L, n, "too many results");
  for (int i = 1; i <= n; i++) { /* all that may raise comes first */
    lua_geti(L, 1, i);
    luaL_checkudata(L, 2 + i, result_class);
  }
  qn_pack_builder *b;
  qn_status s = qn__pack_builder_new(&b);
  for (int i = 0; s == QN_OK && i < n; i++)
    s = add_result(b, &((tuned *)lua_touserdata(L, 3 + i))->result, (uint32_t)i);
  if (s == QN_OK) s = qn__pack_write(b, path);
  qn__pack_builder_free(b);
  return qn__lua_outcome(L, s);
}

/* experts_met(m, experts [, { number of each… }]) -> how many of them have rows when m rows are timed */
static int experts_met(lua_State *L) {
  lua_Integer m = luaL_checkinteger(L, 1), experts = luaL_checkinteger(L, 2);
  luaL_argcheck(L, experts >= 1 && experts <= QN_EXPERTS, 2, "1 to 4096 experts");
  double number[QN_EXPERTS], *share = NULL;
  for (lua_Integer e = 0; e < experts && !lua_isnoneornil(L, 3); e++) {
    lua_geti(L, 3, e + 1);
    number[e] = luaL_checknumber(L, -1);
    lua_pop(L, 1);
  }
  qn_status s = lua_isnoneornil(L, 3) ? QN_OK : qn__share_make(number, experts, &share);
  if (s != QN_OK) return qn__lua_fail(L, s);
  lua_pushinteger(L, qn__share_met(share, experts, m));
  free(share);
  return 1;
}

void qn__lua_tune(lua_State *L) {
  static const luaL_Reg methods[] = {{"__gc", tuned_gc}, {NULL, NULL}};
  static const luaL_Reg functions[] = {
      {"tune", tune}, {"pack_write", pack_write}, {"experts_met", experts_met}, {NULL, NULL}};
  qn__lua_class(L, result_class, methods);
  luaL_setfuncs(L, functions, 0);
}
