/* io_format.c - see io_format.h. */
#include "io_format.h"
#include "desc_json.h"
#include "fail.h"
#include <lauxlib.h>
#include <lualib.h>

static const char generator[] =
    "package.path = SOURCE .. '/?.lua;' .. SOURCE .. '/?/init.lua'\n"
    "local gen = require 'gen.init' { read = function(path)\n"
    "  local f <close> = assert(io.open(SOURCE .. '/' .. path))\n"
    "  return f:read 'a'\n"
    "end }\n"
    "local list <close> = io.popen('ls ' .. SOURCE .. '/templates/formats')\n"
    "for name in list:lines() do gen.load('templates/formats/' .. name) end\n"
    "function descriptor(name) return gen.json(gen.format.descriptor(gen.format.resolve(name))) end\n"
    "\n"
    "local function grains(def)\n"
    "  if type(def.group) ~= 'table' then return { '' } end\n"
    "  local out = {}\n"
    "  for i, g in ipairs(def.group) do\n"
    "    g = math.type(g) and 'g' .. g or g\n"
    "    out[i] = '.' .. g:gsub('^g%*$', 'g24'):gsub('^b%*$', 'b5x24')\n"
    "  end\n"
    "  return out\n"
    "end\n"
    "local words = { zero = function(o) return o == 'f16' and 'zf' or 'z' end, min = function() return 'm' end }\n"
    "local spellings = {}\n"
    "for _, name in ipairs(gen.format.sorted_keys(gen.format.registry)) do\n"
    "  local def = gen.format.registry[name]\n"
    "  local all = grains(def)\n"
    "  for _, g in ipairs(all) do spellings[#spellings + 1] = name .. g end\n"
    "  for _, plane in ipairs(gen.format.sorted_keys(def.planes)) do\n"
    "    for i = 2, #def.planes[plane] do\n"
    "      local o = def.planes[plane][i]\n"
    "      spellings[#spellings + 1] = name .. all[1] .. '.' .. (words[plane] and words[plane](o) or o)\n"
    "    end\n"
    "  end\n"
    "end\n"
    "function spelling(i) return spellings[i] end\n";

/* The generator's answer, or its error, on the stack of a state that is made once. */
static bool ask(const char *function, void (*push)(lua_State *, const void *), const void *argument,
                const char **text) {
  static lua_State *L;
  bool ok = true;
  if (!L) {
    L = luaL_newstate();
    luaL_openlibs(L);
    lua_pushstring(L, QN_TESTS "/.."), lua_setglobal(L, "SOURCE");
    ok = !luaL_dostring(L, generator);
  }
  if (ok) {
    lua_settop(L, 0);
    lua_getglobal(L, function);
    push(L, argument);
    ok = !lua_pcall(L, 1, 1, 0);
  }
  *text = lua_tostring(L, -1);
  return ok;
}

static void push_text(lua_State *L, const void *text) { lua_pushstring(L, text); }
static void push_index(lua_State *L, const void *i) { lua_pushinteger(L, *(const int *)i + 1); }

const char *io_format(const char *spelling, qn_format *out) {
  const char *text;
  if (!ask("descriptor", push_text, spelling, &text)) return text;
  cJSON *j = cJSON_Parse(text);
  qn_status s = qn__format_from_json(j, out);
  cJSON_Delete(j);
  return s ? qn__errmsg() : NULL;
}

const char *io_format_spelling(int i) {
  const char *text;
  return ask("spelling", push_index, &i, &text) ? text : NULL;
}
