/* lua_calibrate.c - calibration from Lua: what each linear layer sees on windows of a text. */
#include "bind.h"
#include "calibrate.h"
#include "quantize.h"
#include "windows.h"

static const char calibration_class[] = "quernel.calibration";

/* The user value keeps decoders and windows. */
typedef struct calibration {
  qn__calibration *c;
  const qn__inputs *seen; /* by the site that was given out last */
} calibration;

static calibration *check_calibration(lua_State *L, int index) {
  calibration *c = luaL_checkudata(L, index, calibration_class);
  luaL_argcheck(L, c->c, index, "the calibration is closed");
  return c;
}

const qn__inputs *qn__lua_inputs_at(lua_State *L, int index) { return check_calibration(L, index)->seen; }

/* method_sees(name) -> what its calibration takes: a number for `see` below; nil: it needs none. Raises if there is no
 * such method. */
static int method_sees(lua_State *L) {
  int see;
  if (qn__quantize_sees(luaL_checkstring(L, 1), &see)) return luaL_error(L, "%s", qn__errmsg());
  if (see >= 0) lua_pushinteger(L, see);
  else lua_pushnil(L);
  return 1;
}

/* calibration(decoder, the unquantized one or nil, windows, { see =, threads =, known = }, { site… }: those that are
 * wanted) -> calibration, or nil, message, code */
static int calibration_new(lua_State *L) {
  qn__decoder *quantized = qn__lua_decoder_at(L, 1);
  qn__decoder *original = lua_isnil(L, 2) ? NULL : qn__lua_decoder_at(L, 2);
  const qn__windows *w = qn__lua_windows_at(L, 3);
  const qn__site *site;
  int n = qn__decoder_sites(quantized, &site);
  luaL_checktype(L, 4, LUA_TTABLE);
  luaL_checktype(L, 5, LUA_TTABLE);
  lua_settop(L, 5);
  bool *wanted = qn__lua_block(L, (size_t)n * sizeof *wanted);
  for (lua_Integer i = 1; i <= luaL_len(L, 5); i++) {
    lua_rawgeti(L, 5, i);
    lua_Integer at = luaL_checkinteger(L, -1);
    luaL_argcheck(L, at >= 1 && at <= n, 5, "no such site");
    wanted[at - 1] = true;
    lua_pop(L, 1);
  }
  const qn__calibration_options o = {.ids = w->ids,
                                     .windows = w->n,
                                     .length = w->length,
                                     .see = (int)qn__lua_integer(L, 4, "see", 0),
                                     .wanted = wanted,
                                     .known = (int)qn__lua_integer(L, 4, "known", 0),
                                     .threads = (int)qn__lua_integer(L, 4, "threads", 0)};
  luaL_argcheck(L, original || !(o.see & QN__SEE_CROSS), 2, "the unquantized model is needed");
  calibration *c = lua_newuserdatauv(L, sizeof *c, 1);
  *c = (calibration){0};
  luaL_setmetatable(L, calibration_class);
  lua_createtable(L, 3, 0);
  for (int i = 1; i <= 3; i++) lua_pushvalue(L, i), lua_rawseti(L, -2, i);
  lua_setiuservalue(L, -2, 1);
  qn_status s = qn__calibration_new(quantized, original, &o, &c->c);
  return s == QN_OK ? 1 : qn__lua_fail(L, s);
}

/* calibration:next() -> site, tokens that it saw (0 if it is known); site 0: all are done; or nil, message, code */
static int calibration_next(lua_State *L) {
  calibration *c = check_calibration(L, 1);
  int site;
  qn__lua_check_decoders(L, 1, 2);
  qn_status s = qn__calibration_next(c->c, &site, &c->seen);
  if (s != QN_OK) return qn__lua_fail(L, s);
  lua_pushinteger(L, site + 1);
  lua_pushinteger(L, c->seen ? c->seen->tokens : 0);
  return 2;
}

static int calibration_gc(lua_State *L) {
  calibration *c = luaL_checkudata(L, 1, calibration_class);
  qn__calibration_free(c->c);
  *c = (calibration){0};
  return 0;
}

void qn__lua_calibrate(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"next", calibration_next},
      {"__gc", calibration_gc},
      {"__close", calibration_gc},
      {NULL, NULL},
  };
  static const luaL_Reg functions[] = {{"calibration", calibration_new}, {"method_sees", method_sees}, {NULL, NULL}};
  qn__lua_class(L, calibration_class, methods);
  luaL_setfuncs(L, functions, 0);
  qn__lua_set_integer(L, "see_cross", QN__SEE_CROSS);
}
