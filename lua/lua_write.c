/* lua_write.c - files and folders from Lua: NumPy arrays, tensors as safetensors and GGUF, planes as other tools have
 * them, folders that are there whole or not at all. */
#include "bind.h"
#include "encode.h"
#include "file.h"
#include "pull.h"
#include "tokenizer.h"
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char writer_class[] = "quernel.writer", encoded_class[] = "quernel.encoded",
                  folder_class[] = "quernel.output_folder";

/* npy_write(path, buffer f32, n, k) -> true, or nil, message, code */
static int npy_write(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  qn_span x = qn__lua_span(L, 2);
  lua_Integer n = luaL_checkinteger(L, 3), k = luaL_checkinteger(L, 4);
  luaL_argcheck(L, x.type == QN_T_F32 && n > 0 && k > 0 && (size_t)k <= x.count / (size_t)n, 2, "f32 [n, k] expected");
  return qn__lua_outcome(L, qn_npy_write(path, x.data, n, k));
}

/* ---- Tensors ----------------------------------------------------------------------------------------------------- */

static qn_writer **check_writer(lua_State *L) {
  qn_writer **w = luaL_checkudata(L, 1, writer_class);
  luaL_argcheck(L, *w, 1, "the file is closed");
  return w;
}

/* The entry of a file that the table on top describes: { name=, dtype= or type=, dims= }. Texts belong to the table. */
static void read_entry(lua_State *L, qn_save *out) {
  int at = lua_gettop(L);
  luaL_checktype(L, at, LUA_TTABLE);
  const char *type = qn__lua_text(L, at, "type", "");
  out->name = qn__lua_text(L, at, "name", "");
  out->dtype = qn__lua_text(L, at, "dtype", qn__dtype_name(qn_type_from_name(type)));
  lua_getfield(L, at, "dims");
  luaL_checktype(L, -1, LUA_TTABLE);
  out->n_dims = (int)luaL_len(L, -1);
  if (out->n_dims > QN_MAX_DIMS) luaL_error(L, "tensor %s: %d dimensions", out->name, out->n_dims);
  for (int d = 0; d < out->n_dims; d++) {
    lua_rawgeti(L, -1, d + 1);
    out->dim[d] = luaL_checkinteger(L, -1);
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
}

/* Push a writer that keeps what the list at `index` says of its tensors. */
static qn_writer **push_writer(lua_State *L, int index, qn_save **save, size_t *n) {
  luaL_checktype(L, index, LUA_TTABLE);
  *n = (size_t)luaL_len(L, index);
  qn_writer **w = lua_newuserdatauv(L, sizeof *w, 2);
  *w = NULL;
  luaL_setmetatable(L, writer_class);
  *save = qn__lua_block(L, (*n + 1) * sizeof **save);
  lua_setiuservalue(L, -2, 1);
  lua_pushvalue(L, index); /* the table keeps the texts */
  lua_setiuservalue(L, -2, 2);
  for (size_t i = 0; i < *n; i++) {
    lua_geti(L, index, (lua_Integer)i + 1);
    read_entry(L, &(*save)[i]);
    lua_pop(L, 1);
  }
  return w;
}

/* writer(path, { {name=, dtype= or type=, dims=}… }, { key, value, … }) -> a file to be filled, or nil, message,
 * code */
static int writer_open(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  luaL_checktype(L, 3, LUA_TTABLE);
  size_t n, n_meta = (size_t)luaL_len(L, 3);
  const char **meta = qn__lua_block(L, (n_meta + 1) * sizeof *meta);
  for (size_t i = 0; i < n_meta; i++) {
    lua_geti(L, 3, (lua_Integer)i + 1);
    meta[i] = luaL_checkstring(L, -1);
    lua_pop(L, 1);
  }
  qn_save *save;
  qn_writer **w = push_writer(L, 2, &save, &n);
  qn_status s = qn_writer_open(path, save, n, meta, n_meta / 2, w);
  return s == QN_OK ? 1 : qn__lua_fail(L, s);
}

/* gguf_writer(path, entries as above, keys as the file has them, their number) -> the same for GGUF */
static int gguf_writer_open(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  qn__gguf_keys keys = {.count = (size_t)luaL_checkinteger(L, 4)};
  keys.data = luaL_checklstring(L, 3, &keys.bytes);
  qn_save *save;
  size_t n;
  qn_writer **w = push_writer(L, 2, &save, &n);
  qn_status s = qn__gguf_writer_open(path, save, n, &keys, w);
  return s == QN_OK ? 1 : qn__lua_fail(L, s);
}

/* What the object at 3 has under the name `what`: a stored tensor, a part of encoded planes, a plane. */
static const void *find_data(lua_State *L, const char *what, size_t *bytes) {
  const qn_model *m = luaL_testudata(L, 3, "quernel.model") ? qn__lua_model_at(L, 3) : NULL;
  const qn_raw *r = m ? qn_model_find_raw(m, what) : NULL;
  if (r) return *bytes = r->bytes, r->data;
  if (m) return NULL;
  qn__encoded **e = luaL_testudata(L, 3, encoded_class);
  for (int i = 0; e && *e && i < (*e)->count; i++)
    if (!strcmp((*e)->part[i].name, what)) return *bytes = (*e)->bytes[i], (*e)->part[i].data;
  if (e) return NULL;
  const qn_planes *p = qn__lua_planes(L, 3);
  const qn_plane *x = qn_planes_find(p, what);
  if (x) return *bytes = (size_t)(x->rows * x->cols) * ((size_t)qn_type_bits(x->type) / 8), x->data;
  return *bytes = (size_t)p->k * sizeof *p->perm, strcmp(what, "perm") ? NULL : p->perm;
}

/* writer:put(name, planes, plane or "perm"), writer:put(name, encoded, part), writer:put(name, model, stored name) or
 * writer:put(name, buffer) -> true, or nil, message, code */
static int writer_put(lua_State *L) {
  qn_writer *w = *check_writer(L);
  const char *name = luaL_checkstring(L, 2), *what = luaL_optstring(L, 4, NULL);
  size_t bytes = 0;
  qn_span span = {0};
  if (!what) span = qn__lua_span(L, 3);
  const void *data = what ? find_data(L, what, &bytes) : span.data;
  if (!data) return luaL_error(L, "no '%s' that can be written as %s", what, name);
  return qn__lua_outcome(L, qn_writer_put(w, name, data, what ? bytes : span.bytes));
}

/* writer:close() -> true, or nil, message, code */
static int writer_close(lua_State *L) {
  qn_writer **w = check_writer(L);
  qn_status s = qn_writer_close(*w);
  *w = NULL;
  return qn__lua_outcome(L, s);
}

static int writer_gc(lua_State *L) {
  qn_writer **w = luaL_checkudata(L, 1, writer_class);
  qn_writer_abandon(*w);
  *w = NULL;
  return 0;
}

/* ---- Planes as other tools have them ----------------------------------------------------------------------------- */

/* encode(target, planes, data, heads or nil) -> encoded, or nil, message, code; without data it has only parts. With
 * heads the rows of a GGUF are in the order that llama.cpp wants of q and k. */
static int encode(lua_State *L) {
  const char *to = luaL_checkstring(L, 1);
  const qn_planes *p = qn__lua_planes(L, 2);
  bool data = lua_toboolean(L, 3);
  int64_t heads = luaL_optinteger(L, 4, 0);
  qn__encoded **e = lua_newuserdatauv(L, sizeof *e, 0);
  *e = NULL;
  luaL_setmetatable(L, encoded_class);
  qn_status s = qn__encode(to, p, data, e);
  if (s == QN_OK && heads) s = qn__encoded_rotate(*e, heads);
  return s == QN_OK ? 1 : qn__lua_fail(L, s);
}

static int encoded_gc(lua_State *L) {
  qn__encoded **e = luaL_checkudata(L, 1, encoded_class);
  qn__encoded_free(*e);
  *e = NULL;
  return 0;
}

/* encoded:parts() -> { { name=, dtype=, dims= }… }, the dialect that reads them */
static int encoded_parts(lua_State *L) {
  const qn__encoded *e = *(qn__encoded **)luaL_checkudata(L, 1, encoded_class);
  lua_newtable(L);
  for (int i = 0; i < e->count; i++) {
    const qn_save *part = &e->part[i];
    lua_newtable(L);
    qn__lua_set_text(L, "name", part->name);
    qn__lua_set_text(L, "dtype", part->dtype);
    lua_newtable(L);
    for (int d = 0; d < part->n_dims; d++) {
      lua_pushinteger(L, part->dim[d]);
      lua_seti(L, -2, d + 1);
    }
    lua_setfield(L, -2, "dims");
    lua_seti(L, -2, i + 1);
  }
  lua_pushstring(L, e->dialect);
  return 2;
}

/* encode_targets() -> { what encode takes… } */
static int encode_targets(lua_State *L) {
  const char *to;
  lua_newtable(L);
  for (size_t i = 0; (to = qn__encode_target(i)); i++) {
    lua_pushstring(L, to);
    lua_seti(L, -2, (lua_Integer)i + 1);
  }
  return 1;
}

/* ---- Folders ----------------------------------------------------------------------------------------------------- */

typedef struct folder {
  qn_output_folder o;
  bool open;
} folder;

/* output_folder(path, replace) -> folder, or nil, message, code */
static int folder_open(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  bool replace = lua_toboolean(L, 2);
  folder *f = lua_newuserdatauv(L, sizeof *f, 0);
  f->open = false;
  luaL_setmetatable(L, folder_class);
  qn_status s = qn__output_folder_open(&f->o, path, replace);
  if (s != QN_OK) return qn__lua_fail(L, s);
  f->open = true;
  return 1;
}

/* folder:path() -> where its files are put */
static int folder_path(lua_State *L) {
  lua_pushstring(L, ((folder *)luaL_checkudata(L, 1, folder_class))->o.temporary);
  return 1;
}

/* folder:close() -> true, or nil, message, code */
static int folder_close(lua_State *L) {
  folder *f = luaL_checkudata(L, 1, folder_class);
  luaL_argcheck(L, f->open, 1, "the folder is closed");
  f->open = false;
  return qn__lua_outcome(L, qn__output_folder_close(&f->o));
}

/* folder:abandon(): what was not closed is removed */
static int folder_gc(lua_State *L) {
  folder *f = luaL_checkudata(L, 1, folder_class);
  if (f->open) qn__output_folder_abandon(&f->o);
  f->open = false;
  return 0;
}

/* is_folder(path) -> is there a folder */
static int is_folder(lua_State *L) {
  struct stat st;
  lua_pushboolean(L, !stat(luaL_checkstring(L, 1), &st) && S_ISDIR(st.st_mode));
  return 1;
}

/* same_file(path, path) -> are they one file or folder, by whatever names */
static int same_file(lua_State *L) {
  struct stat a, b;
  lua_pushboolean(L, !stat(luaL_checkstring(L, 1), &a) && !stat(luaL_checkstring(L, 2), &b) && a.st_dev == b.st_dev &&
                         a.st_ino == b.st_ino);
  return 1;
}

/* file_write(path, text) -> true, or nil, message, code */
static int file_write(lua_State *L) {
  size_t size;
  const char *text = luaL_checklstring(L, 2, &size);
  return qn__lua_outcome(L, qn__file_replace(luaL_checkstring(L, 1), text, size));
}

/* file_lock(file of Lua, path) -> true, or nil, message, code: another one has it, or has removed it in the meantime */
static int file_lock(lua_State *L) {
  luaL_Stream *s = luaL_checkudata(L, 1, LUA_FILEHANDLE);
  const char *path = luaL_checkstring(L, 2);
  struct stat st;
  luaL_argcheck(L, s->closef, 1, "the file is closed");
  qn_status locked = qn__file_lock(fileno(s->f), path);
  if (!locked && !fstat(fileno(s->f), &st) && !st.st_nlink) locked = qn__fail(QN_E_IO, "%s: removed", path);
  return qn__lua_outcome(L, locked);
}

/* file_read(path) -> text, or nil, message, code */
static int file_read(lua_State *L) {
  char **text = qn__lua_block(L, sizeof *text); /* leaks if pushing raises for lack of memory, which ends the run */
  size_t size;
  qn_status s = qn__file_read(luaL_checkstring(L, 1), text, &size);
  if (s != QN_OK) return qn__lua_fail(L, s);
  lua_pushlstring(L, *text, size);
  free(*text);
  return 1;
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

/* json_members(text of an object) -> { { name=, from=, to= }… }: where each member's value lies; nil, message: it is
 * none. Python's NaN and Infinity are values, too. */
static int json_members(lua_State *L) {
  size_t size;
  const char *text = luaL_checklstring(L, 1, &size);
  char name[4096];
  qn__pull j = {text, text, text + size, NULL};
  lua_newtable(L);
  if (!qn__pull_need(&j, '{')) goto bad;
  if (qn__pull_take(&j, '}')) return 1;
  for (lua_Integer i = 1;; i++) {
    if (!qn__pull_string(&j, name, sizeof name, NULL) || !qn__pull_need(&j, ':')) goto bad;
    lua_newtable(L);
    qn__lua_set_text(L, "name", name);
    qn__lua_set_integer(L, "from", j.p - text + 1);
    if (!qn__pull_skip(&j)) goto bad;
    qn__lua_set_integer(L, "to", j.p - text);
    lua_seti(L, 2, i);
    if (qn__pull_take(&j, ',')) continue;
    if (qn__pull_need(&j, '}')) return lua_settop(L, 2), 1;
    goto bad;
  }
bad:
  return qn__lua_fail(L, qn__fail(QN_E_FORMAT, "byte %d: %s expected", (int)(j.p - text), j.bad));
}

/* gguf_pre({ expressions that text is split by; "gpt2": GPT-2's }, ignore merges?) -> how a GGUF calls that, or nil */
static int gguf_pre(lua_State *L) {
  enum { MOST = 8 };
  const char *pattern[MOST];
  char out[32];
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_Integer n = luaL_len(L, 1);
  if (n > MOST) return 0;
  for (int i = 0; i < (int)n; i++) {
    lua_geti(L, 1, i + 1); /* the table keeps it */
    const char *text = luaL_checkstring(L, -1);
    pattern[i] = strcmp(text, "gpt2") ? text : qn__gpt2_pattern;
    lua_pop(L, 1);
  }
  lua_pushstring(L, qn__tokenizer_pre(pattern, (size_t)n, lua_toboolean(L, 2), out));
  return 1;
}

void qn__lua_write(lua_State *L) {
  static const luaL_Reg writer_methods[] = {
      {"put", writer_put}, {"close", writer_close}, {"__gc", writer_gc}, {"__close", writer_gc}, {NULL, NULL},
  };
  static const luaL_Reg encoded_methods[] = {{"parts", encoded_parts}, {"__gc", encoded_gc}, {NULL, NULL}};
  static const luaL_Reg folder_methods[] = {
      {"path", folder_path}, {"close", folder_close}, {"abandon", folder_gc}, {"__gc", folder_gc}, {NULL, NULL},
  };
  static const luaL_Reg functions[] = {
      {"npy_write", npy_write},
      {"writer", writer_open},
      {"encode", encode},
      {"encode_targets", encode_targets},
      {"file_lock", file_lock},
      {"file_read", file_read},
      {"file_write", file_write},
      {"is_folder", is_folder},
      {"same_file", same_file},
      {"output_folder", folder_open},
      {"json_members", json_members},
      {"gguf_writer", gguf_writer_open},
      {"gguf_pre", gguf_pre},
      {NULL, NULL},
  };
  qn__lua_class(L, writer_class, writer_methods);
  qn__lua_class(L, encoded_class, encoded_methods);
  qn__lua_class(L, folder_class, folder_methods);
  luaL_setfuncs(L, functions, 0);
}
