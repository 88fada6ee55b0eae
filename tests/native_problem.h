/* native_problem.h - the grammar of problems for a generator that runs without the module `quernel`. */
#ifndef NATIVE_PROBLEM_H
#define NATIVE_PROBLEM_H
#include "desc.h"
#include "fail.h"
#include <lua.h>

/* problem(spelling) -> its parts, as lua/lua_gen.c gives them; or nil, message */
static inline int native_problem(lua_State *L) {
  qn_problem p;
  if (qn__problem_parse(lua_tostring(L, 1), &p)) return lua_pushnil(L), lua_pushstring(L, qn__errmsg()), 2;
  lua_newtable(L);
  lua_pushstring(L, p.format), lua_setfield(L, -2, "format");
  lua_pushinteger(L, p.n), lua_setfield(L, -2, "n");
  lua_pushinteger(L, p.k), lua_setfield(L, -2, "k");
  lua_pushboolean(L, (int)p.bias), lua_setfield(L, -2, "bias");
  if (p.act) lua_pushstring(L, qn_type_name((qn_type)p.act)), lua_setfield(L, -2, "act");
  if (p.out) lua_pushstring(L, qn_type_name((qn_type)p.out)), lua_setfield(L, -2, "out");
  return 1;
}
#endif
