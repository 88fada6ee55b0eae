/* generator.h - the generator of this source tree in a Lua state: the formats and kernel families of templates/, and
 * descriptors from it. Hashes of variants are their texts. */
#ifndef GENERATOR_H
#define GENERATOR_H
#include "desc_json.h"
#include "lua_problem.h"
#include <lauxlib.h>
#include <lualib.h>
#include <stdbool.h>

static const char generator_text[] =
    "package.path = SOURCE .. '/?.lua;' .. SOURCE .. '/?/init.lua'\n"
    "gen = require 'gen.init' {\n"
    "  types = native_types, hash = function(text) return text end, problem = native_problem,\n"
    "  read = function(path) local f <close> = assert(io.open(SOURCE .. '/' .. path)) return f:read 'a' end,\n"
    "  list = function(folder)\n"
    "    local names, list <close> = {}, io.popen('ls ' .. SOURCE .. '/' .. folder)\n"
    "    for name in list:lines() do names[#names + 1] = name end\n"
    "    return names\n"
    "  end,\n"
    "}.load_formats()\n"
    "function descriptor(name) return gen.json(gen.format.descriptor(gen.format.resolve(name))) end\n";

/* The state, made once; NULL, and the reason in *why, if the generator does not load. */
static inline lua_State *generator(const char **why) {
  static lua_State *L;
  if (L) return lua_settop(L, 0), L;
  L = luaL_newstate();
  luaL_openlibs(L);
  lua_pushstring(L, QN_TESTS "/.."), lua_setglobal(L, "SOURCE");
  lua_register(L, "native_problem", qn__lua_problem);
  lua_pushstring(L, QN_TYPES_TEXT), lua_setglobal(L, "native_types");
  if (!luaL_dostring(L, generator_text)) return L;
  *why = lua_tostring(L, -1);
  return NULL;
}

/* Call the global function `name` of one text; its text, valid until the next call, or NULL and the reason. */
static inline const char *generator_call(const char *name, const char *text, const char **why) {
  lua_State *L = generator(why);
  if (!L) return NULL;
  lua_getglobal(L, name), lua_pushstring(L, text);
  bool ok = !lua_pcall(L, 1, 1, 0);
  if (!ok) *why = lua_tostring(L, -1);
  return ok ? lua_tostring(L, -1) : NULL;
}

/* The descriptor of a format. Returns NULL, or what is wrong. */
static inline const char *generator_format(const char *spelling, qn_format *f) {
  const char *why = NULL, *text = generator_call("descriptor", spelling, &why);
  if (!text) return why;
  cJSON *j = cJSON_Parse(text);
  qn_status s = qn__format_from_json(j, f);
  cJSON_Delete(j);
  return s ? text : NULL;
}
#endif
