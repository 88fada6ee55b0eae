/* lua_tokens.c - tokenizers and token ids from Lua. Ids are buffers of i32. */
#include "bind.h"
#include "text.h"
#include <stdlib.h>
#include <string.h>

static const char tokenizer_class[] = "quernel.tokenizer", ids_class[] = "quernel.ids", text_class[] = "quernel.text";

/* ---- What C made, until Lua has its own -------------------------------------------------------------------------- */

static int ids_gc(lua_State *L) {
  qn__ids_free(luaL_checkudata(L, 1, ids_class));
  return 0;
}

static qn__ids *new_ids(lua_State *L) {
  qn__ids *ids = qn__lua_block(L, sizeof *ids);
  luaL_setmetatable(L, ids_class);
  return ids;
}

static int text_gc(lua_State *L) {
  char **text = luaL_checkudata(L, 1, text_class);
  free(*text);
  *text = NULL;
  return 0;
}

/* Push a buffer (nil: there are no ids), then { n=, bytes=, dropped= } with rows= and cols= of windows. */
static int push_ids(lua_State *L, const qn__ids *ids) {
  if (ids->n) memcpy(qn__lua_buffer(L, QN_T_I32, (size_t)ids->n), ids->id, (size_t)ids->n * sizeof *ids->id);
  else lua_pushnil(L);
  lua_newtable(L);
  qn__lua_set_integer(L, "n", ids->n);
  qn__lua_set_integer(L, "bytes", ids->bytes);
  qn__lua_set_integer(L, "dropped", ids->dropped);
  if (ids->rows) qn__lua_set_integer(L, "rows", ids->rows), qn__lua_set_integer(L, "cols", ids->cols);
  return 2;
}

/* The ids in the buffer at `index`. */
static qn__ids ids_at(lua_State *L, int index) {
  qn_span s = qn__lua_span(L, index);
  luaL_argcheck(L, s.type == QN_T_I32, index, "a buffer of i32 expected");
  return (qn__ids){.id = s.data, .n = (int64_t)s.count};
}

/* ---- Tokenizers -------------------------------------------------------------------------------------------------- */

static int tokenizer_gc(lua_State *L) {
  qn__tokenizer **t = luaL_checkudata(L, 1, tokenizer_class);
  qn__tokenizer_close(*t);
  *t = NULL;
  return 0;
}

static const qn__tokenizer *tokenizer_at(lua_State *L, int index) {
  qn__tokenizer **t = luaL_checkudata(L, index, tokenizer_class);
  return *t;
}

/* tokenizer(model [, path of a tokenizer.json]) -> tokenizer, { about=, refusal=, size=, bos=, add_bos= }, or nil,
 * message, code. The user value keeps the model. */
static int tokenizer_open(lua_State *L) {
  const qn_model *m = qn__lua_model_at(L, 1);
  const char *path = luaL_optstring(L, 2, NULL);
  qn__tokenizer **t = lua_newuserdatauv(L, sizeof *t, 1);
  *t = NULL;
  luaL_setmetatable(L, tokenizer_class);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, 1);
  qn_status s = qn__tokenizer_open(m, path, t);
  if (s != QN_OK) return qn__lua_fail(L, s);
  qn__bos bos = qn__tokenizer_bos(*t);
  lua_newtable(L);
  qn__lua_set_text(L, "about", qn__tokenizer_about(*t));
  qn__lua_set_text(L, "refusal", qn__tokenizer_refusal(*t));
  qn__lua_set_integer(L, "size", qn__tokenizer_size(*t));
  qn__lua_set_integer(L, "vocabulary", qn__model_vocabulary(m));
  if (bos.id >= 0) qn__lua_set_integer(L, "bos", bos.id);
  qn__lua_set_flag(L, "add_bos", bos.add);
  return 2;
}

/* tokenizer:encode(text) -> ids (nil: none), { n=, bytes=, dropped= }; or nil, message, code */
static int tokenizer_encode(lua_State *L) {
  size_t size;
  const qn__tokenizer *t = tokenizer_at(L, 1);
  const char *text = luaL_checklstring(L, 2, &size);
  qn__ids *ids = new_ids(L);
  qn_status s = qn__tokenizer_encode(t, text, size, ids);
  return s == QN_OK ? push_ids(L, ids) : qn__lua_fail(L, s);
}

/* tokenizer:read(path, vocabulary) -> ids of a file, as encode gives them; or nil, message, code */
static int tokenizer_read(lua_State *L) {
  const qn__tokenizer *t = tokenizer_at(L, 1);
  const char *path = luaL_checkstring(L, 2);
  lua_Integer vocabulary = luaL_checkinteger(L, 3);
  qn__ids *ids = new_ids(L);
  qn_status s = qn__ids_read(path, t, vocabulary, ids);
  return s == QN_OK ? push_ids(L, ids) : qn__lua_fail(L, s);
}

/* tokenizer:decode(ids) -> text, or nil, message, code */
static int tokenizer_decode(lua_State *L) {
  const qn__tokenizer *t = tokenizer_at(L, 1);
  qn__ids ids = ids_at(L, 2);
  size_t size;
  char **text = qn__lua_block(L, sizeof *text);
  luaL_setmetatable(L, text_class);
  qn_status s = qn__tokenizer_decode(t, ids.id, ids.n, text, &size);
  if (s != QN_OK) return qn__lua_fail(L, s);
  lua_pushlstring(L, *text, size);
  return 1;
}

/* ---- Ids --------------------------------------------------------------------------------------------------------- */

/* ids_write(path, ids) -> true, or nil, message, code */
static int ids_write(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  qn__ids ids = ids_at(L, 2);
  return qn__lua_outcome(L, qn__ids_write(path, &ids));
}

/* overlap(before, ids) -> { run=, runs=, seen=, at=, from= }, or nil, message, code */
static int overlap(lua_State *L) {
  qn__ids before = ids_at(L, 1), ids = ids_at(L, 2);
  qn__overlap o;
  qn_status s = qn__overlap_measure(&before, &ids, &o);
  if (s != QN_OK) return qn__lua_fail(L, s);
  lua_newtable(L);
  qn__lua_set_integer(L, "run", QN_RUN);
  qn__lua_set_integer(L, "runs", o.runs);
  qn__lua_set_integer(L, "seen", o.seen);
  qn__lua_set_integer(L, "at", o.at);
  qn__lua_set_integer(L, "from", o.from);
  return 1;
}

static const luaL_Reg functions[] = {
    {"tokenizer", tokenizer_open}, {"ids_write", ids_write}, {"overlap", overlap}, {NULL, NULL}};

void qn__lua_tokens(lua_State *L) {
  static const luaL_Reg tokenizer[] = {{"encode", tokenizer_encode},
                                       {"read", tokenizer_read},
                                       {"decode", tokenizer_decode},
                                       {"__gc", tokenizer_gc},
                                       {NULL, NULL}};
  static const luaL_Reg ids[] = {{"__gc", ids_gc}, {NULL, NULL}}, text[] = {{"__gc", text_gc}, {NULL, NULL}};
  qn__lua_class(L, tokenizer_class, tokenizer);
  qn__lua_class(L, ids_class, ids);
  qn__lua_class(L, text_class, text);
  luaL_setfuncs(L, functions, 0);
}
