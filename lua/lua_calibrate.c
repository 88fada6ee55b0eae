/* lua_calibrate.c - calibration from Lua: what each linear layer sees on windows of a text. */
#include "awq.h"
#include "bind.h"
#include "calibrate.h"
#include "desc_json.h"
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

static void push_see(lua_State *L, int see) {
  if (see >= 0) lua_pushinteger(L, see);
  else lua_pushnil(L);
}

/* method_sees(name) -> what its calibration takes: a number for `see` below; nil: it needs none; and whether the
 * model's inputs are scaled before. Raises if there is no such method. */
static int method_sees(lua_State *L) {
  int see;
  bool scaled;
  if (qn__quantize_sees(luaL_checkstring(L, 1), &see, &scaled)) return luaL_error(L, "%s", qn__errmsg());
  push_see(L, see);
  lua_pushboolean(L, scaled);
  return 2;
}

/* scales_see(name) -> the same for a rule of scales, but for the last. */
static int scales_see(lua_State *L) {
  int see;
  if (qn__quantize_scales_see(luaL_checkstring(L, 1), &see)) return luaL_error(L, "%s", qn__errmsg());
  push_see(L, see);
  return 1;
}

/* The names that a function counts up. */
static int push_names(lua_State *L, const char *(*name)(size_t i)) {
  lua_newtable(L);
  for (size_t i = 0; name(i); i++) lua_pushstring(L, name(i)), lua_rawseti(L, -2, (lua_Integer)i + 1);
  return 1;
}

/* methods(), scale_rules() -> lists of what `quantize` takes */
static int methods(lua_State *L) { return push_names(L, qn__quantize_method); }
static int scale_rules(lua_State *L) { return push_names(L, qn__quantize_scales); }

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

/* The weight at the top of the stack, { buffer f32 [n, k], n, format }; the format is pushed. */
static void read_weight(lua_State *L, int64_t k, qn__awq_weight *out) {
  int at = lua_gettop(L);
  luaL_checktype(L, at, LUA_TTABLE);
  lua_rawgeti(L, at, 1), lua_rawgeti(L, at, 2), lua_rawgeti(L, at, 3);
  qn_span x = qn__lua_span(L, at + 1);
  *out = (qn__awq_weight){.w = x.data, .n = luaL_checkinteger(L, at + 2)};
  if (x.type != QN_T_F32 || out->n < 1 || k > (int64_t)x.count / out->n) luaL_error(L, "f32 [n, k] expected");
  const cJSON *j = qn__lua_json(L, at + 3);
  qn_format *f = qn__lua_block(L, sizeof *f);
  if (qn__format_from_json(j, f)) luaL_error(L, "%s", qn__errmsg());
  out->f = f;
}

/* awq_search(calibration, { { buffer f32 [n, k], n, format }… that read the input of the site given out last },
 * { scales =, threads = }) -> buffer f32 [k], { exponent =, output2 =, before2 =, scaled2 = } (eval/quantize/awq.h); or
 * nil, message, code */
static int awq_search(lua_State *L) {
  const qn__inputs *seen = check_calibration(L, 1)->seen;
  luaL_checktype(L, 2, LUA_TTABLE);
  luaL_checktype(L, 3, LUA_TTABLE);
  luaL_argcheck(L, seen && seen->h && seen->tokens, 1, "no site was given out, or its products were not seen");
  int n = (int)luaL_len(L, 2);
  qn__awq_weight *weights = qn__lua_block(L, (size_t)(n + 1) * sizeof *weights);
  luaL_checkstack(L, 6 * n + 20, NULL);
  for (int i = 0; i < n; i++) lua_rawgeti(L, 2, i + 1), read_weight(L, seen->k, &weights[i]);
  float *scale = qn__lua_buffer(L, QN_T_F32, (size_t)seen->k);
  qn__awq_found found;
  qn_status s = qn__awq_search(weights, n, seen, qn__lua_text(L, 3, "scales", NULL),
                               (int)qn__lua_integer(L, 3, "threads", 0), scale, &found);
  if (s != QN_OK) return qn__lua_fail(L, s);
  lua_createtable(L, 0, 4);
  qn__lua_set_number(L, "exponent", found.exponent);
  qn__lua_set_number(L, "output2", found.output2);
  qn__lua_set_number(L, "before2", found.before2);
  qn__lua_set_number(L, "scaled2", found.scaled2);
  return 2;
}

static int calibration_gc(lua_State *L) {
  calibration *c = luaL_checkudata(L, 1, calibration_class);
  qn__calibration_free(c->c);
  *c = (calibration){0};
  return 0;
}

void qn__lua_calibrate(lua_State *L) {
  static const luaL_Reg class[] = {
      {"next", calibration_next},
      {"__gc", calibration_gc},
      {"__close", calibration_gc},
      {NULL, NULL},
  };
  static const luaL_Reg functions[] = {{"calibration", calibration_new},
                                       {"method_sees", method_sees},
                                       {"scales_see", scales_see},
                                       {"methods", methods},
                                       {"scale_rules", scale_rules},
                                       {"awq_search", awq_search},
                                       {NULL, NULL}};
  qn__lua_class(L, calibration_class, class);
  luaL_setfuncs(L, functions, 0);
  qn__lua_set_integer(L, "see_products", QN__SEE_PRODUCTS);
  qn__lua_set_integer(L, "see_cross", QN__SEE_CROSS);
}
