/* lua_model.c - checkpoints from Lua: the weights in a file, and one of them as numbers. */
#include "bind.h"
#include "desc_json.h"
#include "io.h"
#include <stdlib.h>

static const char model_class[] = "quernel.model";

static qn_model *check_model(lua_State *L, int index) {
  qn_model **m = luaL_checkudata(L, index, model_class);
  luaL_argcheck(L, *m != NULL, index, "the model is closed");
  return *m;
}

static int model_close(lua_State *L) {
  qn_model **m = luaL_checkudata(L, 1, model_class);
  qn_model_close(*m);
  *m = NULL;
  return 0;
}

static void push_tensor(lua_State *L, const qn_tensor *t) {
  lua_newtable(L);
  qn__lua_set_text(L, "name", t->name);
  qn__lua_set_text(L, "dialect", t->dialect);
  qn__lua_set_text(L, "format", t->format);
  qn__lua_set_text(L, "refusal", t->refusal);
  qn__lua_set_integer(L, "n", t->n);
  qn__lua_set_integer(L, "k", t->k);
  qn__lua_set_integer(L, "slices", t->slices);
  qn__lua_set_integer(L, "bytes", (int64_t)t->bytes);
  qn__lua_set_number(L, "bpw", qn_tensor_bpw(t));
  qn__lua_set_flag(L, "quantized", t->quantized);
  qn__lua_set_flag(L, "linear", t->linear);
}

/* model:tensors() -> list */
static int model_tensors(lua_State *L) {
  const qn_model *m = check_model(L, 1);
  const qn_tensor *t;
  lua_newtable(L);
  for (size_t i = 0; (t = qn_model_tensor(m, i)); i++) push_tensor(L, t), lua_rawseti(L, -2, (lua_Integer)i + 1);
  return 1;
}

/* model:write_npy(name, format descriptor as JSON, path) -> true, or nil, message, code */
static int model_write_npy(lua_State *L) {
  const qn_model *m = check_model(L, 1);
  const char *name = luaL_checkstring(L, 2), *path = luaL_checkstring(L, 4);
  const cJSON *j = qn__lua_json(L, 3);
  const qn_tensor *t = qn_model_find(m, name);
  if (!t) return qn__lua_fail(L, qn__fail(QN_E_ARG, "the model has no weight %s; see quernel inspect", name));
  qn_planes *p = NULL;
  qn_format *f = malloc(sizeof *f);
  size_t count = (size_t)t->n * (size_t)t->k;
  double *row = malloc((size_t)t->k * sizeof *row + 1);
  float *x = malloc(count * sizeof *x + 1);
  qn_status s = f && row && x ? qn__format_from_json(j, f) : qn__fail(QN_E_NOMEM, "no memory for %zu weights", count);
  if (s == QN_OK) s = qn_model_planes(m, t, 0, &p);
  if (s == QN_OK) s = qn__planes_check(f, p);
  for (int64_t n = 0; s == QN_OK && n < t->n; n++) {
    s = qn__dequantize(f, p, n, n + 1, row);
    for (int64_t k = 0; k < t->k; k++) x[n * t->k + (p->perm ? p->perm[k] : k)] = (float)row[k];
  }
  if (s == QN_OK) s = qn_npy_write(path, x, t->n, t->k);
  free(f), free(row), free(x);
  qn_planes_free(p);
  if (s != QN_OK) return qn__lua_fail(L, s);
  lua_pushboolean(L, 1);
  return 1;
}

/* model:check(name, format descriptor as JSON) -> true, or nil, message, code: are its planes fit to be used? */
static int model_check(lua_State *L) {
  const qn_model *m = check_model(L, 1);
  const qn_tensor *t = qn_model_find(m, luaL_checkstring(L, 2));
  const cJSON *j = qn__lua_json(L, 3);
  if (!t) return qn__lua_fail(L, qn__fail(QN_E_ARG, "the model has no weight %s", lua_tostring(L, 2)));
  qn_planes *p = NULL;
  qn_format *f = malloc(sizeof *f);
  qn_status s = f ? qn__format_from_json(j, f) : qn__fail(QN_E_NOMEM, "no memory for a format");
  if (s == QN_OK) s = qn_model_planes(m, t, 0, &p);
  if (s == QN_OK && qn__planes_check(f, p) != QN_OK) s = qn__fail(QN_E_ARG, "%s: %s", t->name, qn__errmsg());
  free(f);
  qn_planes_free(p);
  if (s != QN_OK) return qn__lua_fail(L, s);
  lua_pushboolean(L, 1);
  return 1;
}

/* model(path) -> handle, or nil, message, code */
static int model_open(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  qn_model **m = lua_newuserdatauv(L, sizeof *m, 0);
  *m = NULL;
  luaL_setmetatable(L, model_class);
  qn_status s = qn_model_open(path, m);
  return s == QN_OK ? 1 : qn__lua_fail(L, s);
}

void qn__lua_model(lua_State *L) {
  static const luaL_Reg methods[] = {{"__gc", model_close}, {"__close", model_close}, {"close", model_close}, {"tensors", model_tensors},
                                     {"write_npy", model_write_npy}, {"check", model_check}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"model", model_open}, {NULL, NULL}};
  qn__lua_class(L, model_class, methods);
  luaL_setfuncs(L, functions, 0);
}
