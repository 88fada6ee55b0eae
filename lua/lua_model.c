/* lua_model.c - checkpoints from Lua: what is in them, their weights as planes and as numbers. */
#include "bind.h"
#include "desc_json.h"
#include "model.h"
#include "names.h"
#include "quantize.h"
#include <string.h>
#include <sys/stat.h>

static const char model_class[] = "quernel.model", planes_class[] = "quernel.planes";

/* ---- Models ------------------------------------------------------------------------------------------------------ */

/* model(path) -> model, or nil, message, code */
static int model_open(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  qn_model **m = lua_newuserdatauv(L, sizeof *m, 0);
  *m = NULL;
  luaL_setmetatable(L, model_class);
  qn_status s = qn_model_open(path, m);
  return s == QN_OK ? 1 : qn__lua_fail(L, s);
}

static int model_gc(lua_State *L) {
  qn_model **m = luaL_checkudata(L, 1, model_class);
  qn_model_close(*m);
  *m = NULL;
  return 0;
}

const qn_model *qn__lua_model_at(lua_State *L, int index) {
  qn_model **m = luaL_checkudata(L, index, model_class);
  return *m;
}

/* model:holds(path) -> is that one of the files that are read? By any of its names. */
static int model_holds(lua_State *L) {
  const qn_model *m = qn__lua_model_at(L, 1);
  struct stat asked, st;
  bool found = false;
  int there = !stat(luaL_checkstring(L, 2), &asked);
  for (int i = 0; there && i < m->n_files && !found; i++)
    found = !stat(m->file[i].path, &st) && st.st_dev == asked.st_dev && st.st_ino == asked.st_ino;
  lua_pushboolean(L, found);
  return 1;
}

static void push_tensor(lua_State *L, const qn_tensor *t) {
  lua_newtable(L);
  qn__lua_set_text(L, "name", t->name);
  qn__lua_set_text(L, "dialect", t->dialect);
  qn__lua_set_text(L, "format", t->format);
  qn__lua_set_text(L, "refusal", t->refusal);
  qn__lua_set_text(L, "activation", t->activation);
  qn__lua_set_text(L, "activation_tensor", t->activation_raw ? t->activation_raw->name : NULL);
  qn__lua_set_text(L, "tied_to", t->tied_to);
  qn__lua_set_text(L, "role", t->role);
  qn__lua_set_text(L, "same_x", t->same_x);
  qn__lua_set_text(L, "raw", t->raw ? t->raw->name : NULL);
  qn__lua_set_integer(L, "slices", t->slices);
  qn__lua_set_integer(L, "n", t->n);
  qn__lua_set_integer(L, "k", t->k);
  qn__lua_set_integer(L, "bytes", (int64_t)t->bytes);
  qn__lua_set_number(L, "bpw", qn_tensor_bpw(t));
  qn__lua_set_flag(L, "quantized", t->quantized);
  qn__lua_set_flag(L, "linear", t->linear);
}

/* model:tensors() -> list of weights */
static int model_tensors(lua_State *L) {
  const qn_model *m = qn__lua_model_at(L, 1);
  const qn_tensor *t;
  lua_newtable(L);
  for (size_t i = 0; (t = qn_model_tensor(m, i)); i++) {
    push_tensor(L, t);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  return 1;
}

/* model:stacks() -> list of { name =, format =, refusal =, experts =, n =, k =, tensors = { name of each expert, or the
 * one that has them as slices } } */
static int model_stacks(lua_State *L) {
  const qn_model *m = qn__lua_model_at(L, 1);
  const qn_stack *s;
  lua_newtable(L);
  for (size_t i = 0; (s = qn_model_stack(m, i)); i++) {
    lua_newtable(L);
    qn__lua_set_text(L, "name", s->name);
    qn__lua_set_text(L, "format", s->format);
    qn__lua_set_text(L, "refusal", s->refusal);
    qn__lua_set_integer(L, "experts", s->experts);
    qn__lua_set_integer(L, "n", s->n);
    qn__lua_set_integer(L, "k", s->k);
    lua_newtable(L);
    for (int64_t e = 0; e < (s->tensor[0]->slices > 1 ? 1 : s->experts); e++) {
      lua_pushstring(L, s->tensor[e]->name);
      lua_rawseti(L, -2, (lua_Integer)e + 1);
    }
    lua_setfield(L, -2, "tensors");
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  return 1;
}

/* model:stored() -> list of { name, weight, dtype, bytes, dims } as they lie in the files. weight: of which it is a
 * part. blocks: its type is one of GGUF alone. */
static int model_stored(lua_State *L) {
  const qn_model *m = qn__lua_model_at(L, 1);
  const qn_raw *r;
  lua_newtable(L);
  for (size_t i = 0; (r = qn_model_raw(m, i)); i++) {
    lua_newtable(L);
    qn__lua_set_text(L, "name", r->name);
    qn__lua_set_text(L, "weight", r->weight);
    qn__lua_set_text(L, "dtype", r->dtype);
    qn__lua_set_flag(L, "blocks", !qn__safetensors_dtype(r->dtype, strlen(r->dtype)));
    qn__lua_set_integer(L, "bytes", (int64_t)r->bytes);
    lua_createtable(L, r->n_dims, 0);
    for (int d = 0; d < r->n_dims; d++) {
      lua_pushinteger(L, r->dim[d]);
      lua_rawseti(L, -2, d + 1);
    }
    lua_setfield(L, -2, "dims");
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  return 1;
}

/* model:config() -> text of config.json, or nil */
static int model_config(lua_State *L) {
  size_t length;
  const char *text = qn_model_config(qn__lua_model_at(L, 1), &length);
  if (!text) return 0;
  lua_pushlstring(L, text, length);
  return 1;
}

/* model:is_gguf() */
static int model_is_gguf(lua_State *L) {
  lua_pushboolean(L, qn__lua_model_at(L, 1)->gguf);
  return 1;
}

/* model:gguf_keys() -> keys of the GGUF that it is or was made of, as its header has them, and their number; or nil */
static int model_gguf_keys(lua_State *L) {
  const qn_model *m = qn__model_settings(qn__lua_model_at(L, 1));
  if (!m->gguf) return 0;
  lua_pushlstring(L, m->keys.data, m->keys.bytes);
  lua_pushinteger(L, (lua_Integer)m->keys.count);
  return 2;
}

/* model:numbers(stored name) -> buffer f32 of all its elements, or nil, message, code if it is not of floats */
static int model_numbers(lua_State *L) {
  const char *name = luaL_checkstring(L, 2);
  const qn_raw *r = qn_model_find_raw(qn__lua_model_at(L, 1), name);
  bool is_read = r && (r->type == QN_T_F32 || r->type == QN_T_F16 || r->type == QN_T_BF16);
  if (!is_read)
    return qn__lua_fail(
        L, qn__fail(QN_E_SHAPE, "%s: %s; F32, F16 and BF16 are read", name, r ? r->dtype : "is not there"));
  size_t n = r->bytes * 8 / (size_t)qn_type_bits(r->type);
  float *to = qn__lua_buffer(L, QN_T_F32, n);
  for (size_t i = 0; i < n; i++) to[i] = qn__load_float(r->data, r->type, i);
  return 1;
}

/* model:remark() -> what should be told of it as a whole, or nil */
static int model_remark(lua_State *L) {
  lua_pushstring(L, qn_model_remark(qn__lua_model_at(L, 1)));
  return 1;
}

/* model:architecture() -> the name of what eval/decoder takes it for; or nil, why it cannot be evaluated */
static int model_architecture(lua_State *L) {
  const qn_model *m = qn__lua_model_at(L, 1);
  qn__config *c = NULL;
  qn__params *p = NULL;
  qn_status s = qn__config_read(m, &c);
  if (!s) s = qn__params_open(m, c, &p);
  const char *name = s ? NULL : c->architecture; /* static */
  qn__params_close(p);
  qn__config_free(c);
  if (s) return qn__lua_fail(L, s);
  lua_pushstring(L, name);
  return 1;
}

/* ---- Planes ------------------------------------------------------------------------------------------------------ */

/* Planes of a model (read) or of a script's buffers (made). The user value keeps what they point into: the model, or
 * a table with buffers and names of our own. */
typedef struct planes {
  qn_planes *read;
  qn_planes made;
} planes;

static int planes_gc(lua_State *L) {
  planes *p = luaL_checkudata(L, 1, planes_class);
  qn_planes_free(p->read);
  p->read = NULL;
  p->made.n_planes = 0;
  return 0;
}

static planes *push_planes(lua_State *L, int keep) {
  planes *p = lua_newuserdatauv(L, sizeof *p, 1);
  memset(p, 0, sizeof *p);
  luaL_setmetatable(L, planes_class);
  lua_pushvalue(L, keep);
  lua_setiuservalue(L, -2, 1);
  return p;
}

const qn_planes *qn__lua_planes(lua_State *L, int index) {
  planes *p = luaL_checkudata(L, index, planes_class);
  luaL_argcheck(L, p->read || p->made.n_planes, index, "the planes are closed");
  lua_getiuservalue(L, index, 1);
  for (int i = 0; i < p->made.n_planes; i++) {
    lua_rawgeti(L, -1, i + 1);
    if (!luaL_len(L, -1)) luaL_error(L, "plane %s: its buffer is closed", p->made.plane[i].name);
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  return p->read ? p->read : &p->made;
}

/* model:planes(name [, slice, from 1]) -> planes, or nil, message, code */
static int model_planes(lua_State *L) {
  const qn_model *m = qn__lua_model_at(L, 1);
  const char *name = luaL_checkstring(L, 2);
  lua_Integer slice = luaL_optinteger(L, 3, 1);
  const qn_tensor *t = qn_model_find(m, name);
  if (!t) return qn__lua_fail(L, qn__fail(QN_E_ARG, "the model has no weight '%s'; inspect lists them", name));
  planes *p = push_planes(L, 1);
  qn_status s = qn_model_planes(m, t, slice - 1, &p->read);
  return s == QN_OK ? 1 : qn__lua_fail(L, s);
}

/* Plane number i of the list, from the table on top; its name and its buffer are put into the table at `held`. */
static void read_plane(lua_State *L, int held, int i, int64_t n, int64_t k, qn_plane *out) {
  int at = lua_gettop(L);
  luaL_checktype(L, at, LUA_TTABLE);
  qn__lua_known(L, at, "plane", "name data rows cols");
  out->name = lua_pushstring(L, qn__lua_text(L, at, "name", "codes"));
  lua_rawseti(L, held, -i - 1);
  out->rows = qn__lua_integer(L, at, "rows", n);
  out->cols = qn__lua_integer(L, at, "cols", k);
  lua_getfield(L, at, "data");
  qn_span s = qn__lua_span(L, -1);
  lua_rawseti(L, held, i + 1);
  if (out->rows < 1 || out->cols < 1 || (size_t)out->cols > s.count / (size_t)out->rows)
    luaL_error(L, "plane %s: %I x %I elements, its buffer holds %I", out->name, (lua_Integer)out->rows,
               (lua_Integer)out->cols, (lua_Integer)s.count);
  out->type = s.type;
  out->data = s.data;
}

/* planes(format, n, k, { {name=, data=buffer, rows=, cols=}… }): a weight of the script's own. The buffers must stay
 * open. */
static int planes_make(lua_State *L) {
  const char *format = luaL_checkstring(L, 1);
  lua_Integer n = luaL_checkinteger(L, 2), k = luaL_checkinteger(L, 3);
  luaL_checktype(L, 4, LUA_TTABLE);
  lua_Integer count = luaL_len(L, 4);
  luaL_argcheck(L, count >= 1 && count <= QN_MAX_PLANES, 4, "1 to 8 planes are needed");
  lua_settop(L, 4);
  lua_newtable(L); /* 5: keeps buffers by their numbers, and texts */
  lua_pushvalue(L, 1);
  lua_rawseti(L, 5, 0);
  planes *p = push_planes(L, 5);
  p->made = (qn_planes){.format = format, .n = n, .k = k};
  for (int i = 0; i < count; i++) {
    lua_geti(L, 4, i + 1);
    read_plane(L, 5, i, n, k, &p->made.plane[i]);
    lua_pop(L, 1);
  }
  p->made.n_planes = (int)count;
  return 1;
}

/* planes:info() -> { format=, n=, k=, perm=, planes={ {name=, type=, rows=, cols=}… } } */
static int planes_info(lua_State *L) {
  const qn_planes *p = qn__lua_planes(L, 1);
  lua_newtable(L);
  qn__lua_set_text(L, "format", p->format);
  qn__lua_set_integer(L, "n", p->n);
  qn__lua_set_integer(L, "k", p->k);
  qn__lua_set_flag(L, "perm", p->perm != NULL);
  lua_newtable(L);
  for (int i = 0; i < p->n_planes; i++) {
    lua_newtable(L);
    qn__lua_set_text(L, "name", p->plane[i].name);
    qn__lua_set_text(L, "type", qn_type_name(p->plane[i].type));
    qn__lua_set_integer(L, "rows", p->plane[i].rows);
    qn__lua_set_integer(L, "cols", p->plane[i].cols);
    lua_rawseti(L, -2, i + 1);
  }
  lua_setfield(L, -2, "planes");
  return 1;
}

/* Read the format at `index` (JSON) into a block that is left on the stack, and hold the planes against it. */
static qn_status check_planes(lua_State *L, const qn_planes *p, int index, const qn_format **out) {
  const cJSON *j = qn__lua_json(L, index);
  qn_format *f = qn__lua_block(L, sizeof *f);
  *out = f;
  QN_TRY(qn__format_from_json(j, f));
  return qn__planes_check(NULL, f, p);
}

/* planes:check(format) -> true, or nil, message, code: types, shapes, codes in range, scales finite? */
static int planes_check(lua_State *L) {
  const qn_format *f;
  return qn__lua_outcome(L, check_planes(L, qn__lua_planes(L, 1), 2, &f));
}

/* Column c of the decoded rows is column perm[c] of the weight. */
static void place_rows(const qn_planes *p, const double *rows, int64_t n, float *out) {
  for (int64_t r = 0; r < n; r++)
    for (int64_t c = 0; c < p->k; c++) out[r * p->k + (p->perm ? p->perm[c] : c)] = (float)rows[r * p->k + c];
}

/* The weight as f32 [N, K], act-order undone: pushes a buffer, and whatever else it needed below it. */
static qn_status dequantize(lua_State *L, const qn_planes *p, const qn_format *f, float **out) {
  enum { ROWS = 16 };
  double *rows = qn__lua_block(L, sizeof *rows * ROWS * (size_t)p->k);
  *out = qn__lua_buffer(L, QN_T_F32, (size_t)p->n * (size_t)p->k);
  for (int64_t n = 0; n < p->n; n += ROWS) {
    int64_t end = n + ROWS < p->n ? n + ROWS : p->n;
    QN_TRY(qn__dequantize(f, p, n, end, rows));
    place_rows(p, rows, end - n, *out + n * p->k);
  }
  return QN_OK;
}

/* planes:dequantize(format) -> buffer f32 [N, K], act-order undone; or nil, message, code */
static int planes_dequantize(lua_State *L) {
  const qn_planes *p = qn__lua_planes(L, 1);
  const qn_format *f;
  float *out;
  qn_status s = check_planes(L, p, 2, &f);
  if (s == QN_OK) s = dequantize(L, p, f, &out);
  return s == QN_OK ? 1 : qn__lua_fail(L, s);
}

/* quantize(buffer f32, n, k, format, { method =, scales =, threads = }, calibration or nil) -> planes, { error2 =,
 * weight2 =, largest =, output2 =, output_error2 =, nearest_error2 = } (eval/quantize/loss.h); or nil, message, code */
static int quantize(lua_State *L) {
  qn_span x = qn__lua_span(L, 1);
  lua_Integer n = luaL_checkinteger(L, 2), k = luaL_checkinteger(L, 3);
  luaL_argcheck(L, x.type == QN_T_F32 && n > 0 && k > 0 && (size_t)k <= x.count / (size_t)n, 1, "f32 [n, k] expected");
  luaL_checktype(L, 5, LUA_TTABLE);
  const qn__quantize_options options = {qn__lua_text(L, 5, "method", NULL), qn__lua_text(L, 5, "scales", NULL),
                                        (int)qn__lua_integer(L, 5, "threads", 0),
                                        lua_isnoneornil(L, 6) ? NULL : qn__lua_inputs_at(L, 6)};
  const cJSON *j = qn__lua_json(L, 4);
  qn_format *f = qn__lua_block(L, sizeof *f);
  planes *p = push_planes(L, lua_gettop(L)); /* their names are the format's */
  qn__quantize_error e;
  qn_status s = qn__format_from_json(j, f);
  if (s == QN_OK) s = qn__quantize(f, x.data, n, k, &options, &p->read, &e);
  if (s != QN_OK) return qn__lua_fail(L, s);
  const struct {
    const char *name;
    double value;
  } fields[] = {{"error2", e.error2},
                {"weight2", e.weight2},
                {"largest", e.largest},
                {"output2", e.output2},
                {"output_error2", e.output_error2},
                {"nearest_error2", e.nearest_error2}};
  lua_newtable(L);
  for (size_t i = 0; i < QN_COUNT(fields); i++) qn__lua_set_number(L, fields[i].name, fields[i].value);
  return 2;
}

/* type_bits(name) -> bits of an element, 0 for an unknown type */
static int type_bits(lua_State *L) {
  lua_pushinteger(L, qn_type_bits(qn_type_from_name(luaL_checkstring(L, 1))));
  return 1;
}

void qn__lua_model(lua_State *L) {
  static const luaL_Reg model_methods[] = {
      {"tensors", model_tensors},
      {"stacks", model_stacks},
      {"stored", model_stored},
      {"config", model_config},
      {"remark", model_remark},
      {"architecture", model_architecture},
      {"planes", model_planes},
      {"holds", model_holds},
      {"numbers", model_numbers},
      {"is_gguf", model_is_gguf},
      {"gguf_keys", model_gguf_keys},
      {"__gc", model_gc},
      {NULL, NULL},
  };
  static const luaL_Reg planes_methods[] = {
      {"info", planes_info}, {"check", planes_check}, {"dequantize", planes_dequantize},
      {"__gc", planes_gc},   {"__close", planes_gc},  {NULL, NULL},
  };
  static const luaL_Reg functions[] = {
      {"model", model_open}, {"planes", planes_make}, {"quantize", quantize}, {"type_bits", type_bits}, {NULL, NULL},
  };
  qn__lua_class(L, model_class, model_methods);
  qn__lua_class(L, planes_class, planes_methods);
  luaL_setfuncs(L, functions, 0);
}
