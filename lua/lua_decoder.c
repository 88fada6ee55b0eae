/* lua_decoder.c - decoders from Lua: a model as a function, its linear layers exchanged one by one. */
#include "bind.h"
#include "config.h"
#include "decoder.h"
#include "desc_json.h"
#include "timing.h"

static const char decoder_class[] = "quernel.decoder";

/* The user value is a table: at 0 the model, at i what serves site i. */
typedef struct decoder {
  qn__decoder *d;
} decoder;

qn__decoder *qn__lua_decoder_at(lua_State *L, int index) {
  decoder *d = luaL_checkudata(L, index, decoder_class);
  luaL_argcheck(L, d->d, index, "the decoder is closed");
  return d->d;
}

void qn__lua_check_decoders(lua_State *L, int owner, int count) {
  lua_getiuservalue(L, owner, 1);
  for (int i = 1; i <= count; i++) {
    lua_rawgeti(L, -1, i);
    const decoder *d = luaL_testudata(L, -1, decoder_class);
    luaL_argcheck(L, !d || d->d, owner, "its decoder is closed");
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
}

/* ---- Opening ----------------------------------------------------------------------------------------------------- */

typedef struct asked {
  lua_State *L;
  const char *spelling;
  qn_format *out;
  bool raised; /* the error is on the stack */
} asked;

/* The script's function turns a spelling into a descriptor. */
static int describe(lua_State *L) {
  asked *a = lua_touserdata(L, 2);
  lua_settop(L, 1);
  lua_pushstring(L, a->spelling);
  lua_call(L, 1, 1);
  qn_status s = qn__format_from_json(qn__lua_json(L, 1), a->out);
  return s == QN_OK ? 0 : luaL_error(L, "%s", qn__errmsg());
}

static qn_status find_format(void *ud, const char *spelling, qn_format *out) {
  asked *a = ud;
  a->spelling = spelling;
  a->out = out;
  a->raised = a->raised || qn__lua_protected(a->L, describe, 3, a);
  return a->raised ? qn__fail(QN_E_ARG, "format %s", spelling) : QN_OK;
}

/* decoder(model, { threads =, bf16 =, hold = }, descriptor(spelling) -> JSON) -> decoder, or nil, message, code */
static int decoder_open(lua_State *L) {
  const qn_model *m = qn__lua_model_at(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  luaL_checktype(L, 3, LUA_TFUNCTION);
  asked a = {.L = L};
  const qn__decoder_options o = {.format = find_format,
                                 .ud = &a,
                                 .threads = (int)qn__lua_integer(L, 2, "threads", 0),
                                 .bf16 = qn__lua_flag(L, 2, "bf16"),
                                 .hold = qn__lua_integer(L, 2, "hold", 0)};
  decoder *d = lua_newuserdatauv(L, sizeof *d, 1);
  d->d = NULL;
  luaL_setmetatable(L, decoder_class);
  lua_newtable(L);
  lua_pushvalue(L, 1);
  lua_rawseti(L, -2, 0);
  lua_setiuservalue(L, -2, 1);
  luaL_checkstack(L, 20, NULL);
  qn_status s = qn__decoder_open(m, &o, &d->d);
  if (a.raised) return lua_error(L);
  return s == QN_OK ? 1 : qn__lua_fail(L, s);
}

static int decoder_close(lua_State *L) {
  decoder *d = luaL_checkudata(L, 1, decoder_class);
  qn__decoder_close(d->d);
  d->d = NULL;
  return 0;
}

/* ---- Linear layers ----------------------------------------------------------------------------------------------- */

/* decoder:sites() -> { name =, layer =, slice =, n =, k =, input = }…: layers and slices from 1, the head last */
static int decoder_sites(lua_State *L) {
  const qn__site *site;
  int n = qn__decoder_sites(qn__lua_decoder_at(L, 1), &site);
  lua_createtable(L, n, 0);
  for (int i = 0; i < n; i++) {
    lua_newtable(L);
    qn__lua_set_text(L, "name", site[i].name);
    qn__lua_set_integer(L, "layer", site[i].layer + 1);
    qn__lua_set_integer(L, "slice", site[i].slice + 1);
    qn__lua_set_integer(L, "n", site[i].n);
    qn__lua_set_integer(L, "k", site[i].k);
    qn__lua_set_integer(L, "input", site[i].input);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static const qn__site *check_site(lua_State *L, int *number) {
  const qn__site *site;
  int n = qn__decoder_sites(qn__lua_decoder_at(L, 1), &site);
  lua_Integer i = luaL_checkinteger(L, 2);
  luaL_argcheck(L, i >= 1 && i <= n, 2, "no such site");
  *number = (int)i - 1;
  return &site[i - 1];
}

/* decoder:weight(site) -> buffer f32 [n, k], or nil, message, code */
static int decoder_weight(lua_State *L) {
  int i;
  const qn__site *site = check_site(L, &i);
  float *w = qn__lua_buffer(L, QN_T_F32, (size_t)site->n * (size_t)site->k);
  qn_status s = qn__decoder_weight(qn__lua_decoder_at(L, 1), i, w);
  return s == QN_OK ? 1 : qn__lua_fail(L, s);
}

/* decoder:replace(site, buffer f32 [n, k], or nil: the checkpoint's again) -> true, or nil, message, code */
static int decoder_replace(lua_State *L) {
  int i;
  const qn__site *site = check_site(L, &i);
  const float *w = NULL;
  if (!lua_isnoneornil(L, 3)) {
    qn_span x = qn__lua_span(L, 3);
    luaL_argcheck(L, x.type == QN_T_F32 && x.count == (size_t)site->n * (size_t)site->k, 3, "f32 [n, k] expected");
    w = x.data;
  }
  return qn__lua_outcome(L, qn__decoder_replace(qn__lua_decoder_at(L, 1), i, w));
}

/* decoder:activate(site, "i8.row", or nil: the input as it is) -> true, or nil, message, code */
static int decoder_activate(lua_State *L) {
  int i;
  check_site(L, &i);
  return qn__lua_outcome(L, qn__decoder_activate(qn__lua_decoder_at(L, 1), i, luaL_optstring(L, 3, NULL)));
}

/* decoder:forget(): what can be made again is given up */
static int decoder_forget(lua_State *L) {
  qn__decoder_forget(qn__lua_decoder_at(L, 1), -1);
  return 0;
}

/* decoder:serve(site, gemm, weight, or nil: the dense product again) -> true, or nil, message, code */
static int decoder_serve(lua_State *L) {
  int i;
  check_site(L, &i);
  lua_settop(L, 4);
  bool dense = lua_isnil(L, 3);
  qn_status s = qn__decoder_serve(qn__lua_decoder_at(L, 1), i, dense ? NULL : qn__lua_gemm_at(L, 3),
                                  dense ? NULL : qn__lua_weight_at(L, 4));
  if (s != QN_OK) return qn__lua_fail(L, s);
  lua_getiuservalue(L, 1, 1);
  lua_createtable(L, 2, 0);
  lua_pushvalue(L, 3), lua_rawseti(L, -2, 1);
  lua_pushvalue(L, 4), lua_rawseti(L, -2, 2);
  lua_rawseti(L, -2, i + 1);
  return qn__lua_outcome(L, s);
}

/* decoder:serve_stack({ site of each expert… }, gemm, weight) -> true, or nil, message, code */
static int decoder_serve_stack(lua_State *L) {
  const qn__site *site;
  int all = qn__decoder_sites(qn__lua_decoder_at(L, 1), &site);
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 4);
  lua_Integer n = luaL_len(L, 2);
  luaL_argcheck(L, n >= 1 && n <= all, 2, "a site for each expert");
  int *list = qn__lua_block(L, (size_t)n * sizeof *list); /* 5 */
  for (lua_Integer e = 0; e < n; e++) {
    lua_geti(L, 2, e + 1);
    lua_Integer i = luaL_checkinteger(L, -1);
    luaL_argcheck(L, i >= 1 && i <= all, 2, "no such site");
    list[e] = (int)i - 1;
    lua_pop(L, 1);
  }
  qn_status s =
      qn__decoder_serve_stack(qn__lua_decoder_at(L, 1), list, n, qn__lua_gemm_at(L, 3), qn__lua_weight_at(L, 4));
  if (s != QN_OK) return qn__lua_fail(L, s);
  lua_getiuservalue(L, 1, 1); /* 6 */
  lua_createtable(L, 2, 0);   /* 7 */
  lua_pushvalue(L, 3), lua_rawseti(L, 7, 1);
  lua_pushvalue(L, 4), lua_rawseti(L, 7, 2);
  for (lua_Integer e = 0; e < n; e++) lua_pushvalue(L, 7), lua_rawseti(L, 6, list[e] + 1);
  return qn__lua_outcome(L, s);
}

/* ---- Scaled inputs ----------------------------------------------------------------------------------------------- */

/* The input at 2: its number, and its k. */
static int check_input(lua_State *L, int64_t *k) {
  const qn__site *site;
  int n = qn__decoder_sites(qn__lua_decoder_at(L, 1), &site);
  lua_Integer input = luaL_checkinteger(L, 2);
  for (int i = 0; i < n; i++)
    if (site[i].input == input) return *k = site[i].k, (int)input;
  return luaL_argerror(L, 2, "no such input");
}

/* decoder:giver(input) -> { norm = stored name } or { site = }: what gives it; or nil, why it cannot be scaled, code */
static int decoder_giver(lua_State *L) {
  int64_t k;
  int input = check_input(L, &k);
  qn__giver g;
  qn_status s = qn__decoder_giver(qn__lua_decoder_at(L, 1), input, &g);
  if (s != QN_OK) return qn__lua_fail(L, s);
  lua_newtable(L);
  if (g.norm) qn__lua_set_text(L, "norm", g.norm->name);
  else qn__lua_set_integer(L, "site", g.site + 1);
  return 1;
}

/* decoder:scale(input, buffer f32 [k]) -> true, or nil, message, code; the buffer holds what was taken */
static int decoder_scale(lua_State *L) {
  int64_t k;
  int input = check_input(L, &k);
  qn_span x = qn__lua_span(L, 3);
  luaL_argcheck(L, x.type == QN_T_F32 && x.count == (size_t)k, 3, "f32 [k] expected");
  return qn__lua_outcome(L, qn__decoder_scale(qn__lua_decoder_at(L, 1), input, x.data));
}

/* decoder:norm(input) -> buffer of its norm's weights, in the type and the form in which they are stored; or nil,
 * message, code */
static int decoder_norm(lua_State *L) {
  int64_t k;
  int input = check_input(L, &k);
  qn__decoder *d = qn__lua_decoder_at(L, 1);
  qn__giver g;
  qn_status s = qn__decoder_giver(d, input, &g);
  if (s == QN_OK && !g.norm) return luaL_argerror(L, 2, "no norm gives it");
  if (s == QN_OK) s = qn__decoder_norm(d, input, qn__lua_buffer(L, g.norm->type, (size_t)k));
  return s == QN_OK ? 1 : qn__lua_fail(L, s);
}

/* decoder:config() -> { architecture =, vocab =, hidden =, context =, layers = } */
static int decoder_config(lua_State *L) {
  const qn__config *c = qn__decoder_config(qn__lua_decoder_at(L, 1));
  lua_newtable(L);
  qn__lua_set_text(L, "architecture", c->architecture);
  qn__lua_set_integer(L, "vocab", c->vocab);
  qn__lua_set_integer(L, "hidden", c->hidden);
  qn__lua_set_integer(L, "context", c->context);
  qn__lua_set_integer(L, "layers", c->n_layers);
  return 1;
}

/* ---- Timing ------------------------------------------------------------------------------------------------------ */

/* decoder:time(batch, before, n) -> { seconds =, linear =, sites = { seconds of each… } } of a pass (eval/timing.h), or
 * nil, message, code */
static int decoder_time(lua_State *L) {
  qn__decoder *d = qn__lua_decoder_at(L, 1);
  const qn__site *site;
  int n = qn__decoder_sites(d, &site);
  double *each = lua_newuserdatauv(L, (size_t)n * sizeof *each, 0);
  qn__timing t;
  qn_status s = qn__time_pass(d, luaL_checkinteger(L, 2), luaL_checkinteger(L, 3), luaL_checkinteger(L, 4), &t, each);
  if (s != QN_OK) return qn__lua_fail(L, s);
  lua_newtable(L);
  qn__lua_set_number(L, "seconds", t.seconds);
  qn__lua_set_number(L, "linear", t.linear);
  lua_createtable(L, n, 0);
  for (int i = 0; i < n; i++) {
    lua_pushnumber(L, each[i]);
    lua_rawseti(L, -2, i + 1);
  }
  lua_setfield(L, -2, "sites");
  return 1;
}

/* decoder:session_bytes(batch, context) -> bytes of keys, values and states */
static int decoder_session_bytes(lua_State *L) {
  int64_t bytes;
  if (qn__session_bytes(qn__lua_decoder_at(L, 1), luaL_checkinteger(L, 2), luaL_checkinteger(L, 3), &bytes))
    return luaL_error(L, "%s", qn__errmsg());
  lua_pushinteger(L, bytes);
  return 1;
}

void qn__lua_decoder(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"sites", decoder_sites},
      {"weight", decoder_weight},
      {"replace", decoder_replace},
      {"serve", decoder_serve},
      {"serve_stack", decoder_serve_stack},
      {"activate", decoder_activate},
      {"config", decoder_config},
      {"time", decoder_time},
      {"session_bytes", decoder_session_bytes},
      {"giver", decoder_giver},
      {"scale", decoder_scale},
      {"norm", decoder_norm},
      {"forget", decoder_forget},
      {"close", decoder_close},
      {"__gc", decoder_close},
      {"__close", decoder_close},
      {NULL, NULL},
  };
  static const luaL_Reg functions[] = {{"decoder", decoder_open}, {NULL, NULL}};
  qn__lua_class(L, decoder_class, methods);
  luaL_setfuncs(L, functions, 0);
}
