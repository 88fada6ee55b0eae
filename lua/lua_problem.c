/* lua_problem.c - problems as tables. */
#include "lua_problem.h"
#include "desc.h"
#include "fail.h"
#include <lauxlib.h>
#include <stddef.h>
#include <stdio.h>

static void set_text(lua_State *L, const char *name, const char *value) {
  lua_pushstring(L, value);
  lua_setfield(L, -2, name);
}

static void set_type(lua_State *L, const char *name, uint32_t type) {
  if (type) set_text(L, name, qn_type_name((qn_type)type));
}

static void set_flag(lua_State *L, const char *name, bool value) {
  lua_pushboolean(L, value);
  lua_setfield(L, -2, name);
}

/* The table on top becomes the next element of the list below it. */
static void append(lua_State *L) { lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1); }

static void push_steps(lua_State *L, const qn_problem *p) {
  static const char *const text[QN_EPILOGUE_COUNT] = {
#define QN_X(NAME, spelling, operand, value, turn, roundings, text) [QN_EPILOGUE_##NAME] = text,
      QN_EPILOGUE_MAP(QN_X)
#undef QN_X
  };
  lua_newtable(L);
  for (int i = 0; i < QN_EPILOGUE_STEPS && p->epilogue[i]; i++) {
    const qn_epilogue_step *s = &qn__epilogue_step[p->epilogue[i]];
    lua_newtable(L);
    set_text(L, "spelling", s->spelling);
    set_text(L, "text", text[p->epilogue[i]]);
    if (s->operand < QN_ARG_COUNT) set_text(L, "operand", qn__arg[s->operand].name);
    set_flag(L, "pairs", s->operand == QN_ARG_UP);
    append(L);
  }
}

static void push_operands(lua_State *L, const qn_problem *p) {
  qn_problem wide = *p;
  wide.n = wide.k = 4;
  lua_newtable(L);
  for (qn_arg i = 0; i < QN_OPERANDS; i++) {
    qn_operand o = qn__operand(p, i);
    if (!o.has) continue;
    lua_newtable(L);
    set_text(L, "name", qn__arg[i].name);
    set_type(L, "type", o.type);
    set_flag(L, "tokens", o.tokens);
    set_flag(L, "columns", qn__operand(&wide, i).cols > 1);
    if (o.stride < QN_ARG_COUNT) set_text(L, "stride", qn__arg[o.stride].name);
    append(L);
  }
}

/* The last ones are of stacks alone. */
static void push_fields(lua_State *L, const qn_problem *p) {
  size_t end = p->experts ? offsetof(qn_function_args, reserved) : offsetof(qn_function_args, ids);
  lua_newtable(L);
  for (size_t at = 0; at < end; at += 8)
    for (qn_arg i = 0; i < QN_ARG_COUNT; i++) {
      if (qn__arg[i].at != at) continue;
      lua_newtable(L);
      set_text(L, "name", qn__arg[i].name);
      set_flag(L, "number", i >= QN_POINTERS);
      append(L);
    }
}

/* The part of the spelling that is the epilogue. */
static const char *push_epilogue(lua_State *L, const qn_problem *p) {
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (int i = 0; i < QN_EPILOGUE_STEPS && p->epilogue[i]; i++)
    luaL_addstring(&b, qn__epilogue_step[p->epilogue[i]].spelling);
  luaL_pushresult(&b);
  return lua_tostring(L, -1);
}

/* The part of the spelling that is X and ACT. */
static const char *push_act(lua_State *L, const qn_problem *p) {
  const char *act = qn_type_name((qn_type)p->act);
  return p->x ? lua_pushfstring(L, "%s~%s", qn_type_name((qn_type)p->x), act) : lua_pushstring(L, act);
}

static void push_problem(lua_State *L, const qn_problem *p) {
  lua_newtable(L);
  set_text(L, "spelling", p->spelling);
  set_text(L, "format", p->format);
  if (p->experts) lua_pushinteger(L, p->experts), lua_setfield(L, -2, "experts");
  lua_pushinteger(L, p->n), lua_setfield(L, -2, "n");
  lua_pushinteger(L, p->k), lua_setfield(L, -2, "k");
  set_type(L, "act", p->act);
  set_type(L, "out", p->out);
  if (p->act) push_act(L, p), lua_setfield(L, -2, "activations");
  set_type(L, "x", qn__x_type(p));
  push_epilogue(L, p), lua_setfield(L, -2, "epilogue");
  set_flag(L, "gated", qn__gated(p));
  push_steps(L, p), lua_setfield(L, -2, "steps");
  push_operands(L, p), lua_setfield(L, -2, "operands");
  push_fields(L, p), lua_setfield(L, -2, "fields");
}

/* Spell the problem with what is given in place of its parts, and parse that. */
static qn_status respell(lua_State *L, qn_problem *p) {
  const char *act = luaL_checkstring(L, 3);
  const char *out = luaL_optstring(L, 4, qn_type_name((qn_type)p->out));
  char text[512], stack[24] = "";
  if (p->experts) snprintf(stack, sizeof stack, "%lldx", (long long)p->experts);
  bool has_out = p->out || !lua_isnoneornil(L, 4);
  snprintf(text, sizeof text, "%s:%s%lldx%lld:%s%s%s%s", luaL_optstring(L, 2, p->format), stack, (long long)p->n,
           (long long)p->k, act, has_out ? "-" : "", has_out ? out : "", push_epilogue(L, p));
  return qn__problem_parse(text, p);
}

int qn__lua_problem(lua_State *L) {
  qn_problem p;
  qn_status s = qn__problem_parse(luaL_checkstring(L, 1), &p);
  if (!s && !lua_isnoneornil(L, 3)) s = respell(L, &p);
  if (!s) return push_problem(L, &p), 1;
  lua_pushnil(L);
  lua_pushstring(L, qn__errmsg());
  lua_pushstring(L, qn_status_name(s));
  return 3;
}
