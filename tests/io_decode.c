/* io_decode.c - see io_decode.h. The rules are those of templates/formats, brought to a descriptor by the generator of
 * this source tree and evaluated by the reference: computed in double, rounded once to float. */
#include "io_decode.h"
#include "desc_json.h"
#include "fail.h"
#include <lauxlib.h>
#include <lualib.h>
#include <stdlib.h>

static const char generator[] =
    "package.path = SOURCE .. '/?.lua;' .. SOURCE .. '/?/init.lua'\n"
    "local gen = require 'gen.init' { read = function(path)\n"
    "  local f <close> = assert(io.open(SOURCE .. '/' .. path))\n"
    "  return f:read 'a'\n"
    "end }\n"
    "local list <close> = io.popen('ls ' .. SOURCE .. '/templates/formats')\n"
    "for name in list:lines() do gen.load('templates/formats/' .. name) end\n"
    "function descriptor(name) return gen.json(gen.format.descriptor(gen.format.resolve(name))) end\n";

/* The generator's answer for a spelling, or the error, on the stack of a state that is made once. */
static bool describe(const char *format, const char **text) {
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
    lua_getglobal(L, "descriptor"), lua_pushstring(L, format);
    ok = !lua_pcall(L, 1, 1, 0);
  }
  *text = lua_tostring(L, -1);
  return ok;
}

const char *io_decode(const qn_planes *p, float *out) {
  const char *text;
  qn_format f;
  if (!describe(p->format, &text)) return text;
  cJSON *j = cJSON_Parse(text);
  qn_status s = qn__format_from_json(j, &f);
  cJSON_Delete(j);
  double *x = malloc((size_t)(p->n * p->k) * sizeof *x);
  if (!s) s = qn__format_check(&f);
  if (!s) s = qn__dequantize(&f, p, 0, p->n, x);
  for (int64_t i = 0; !s && i < p->n * p->k; i++)
    out[i - i % p->k + (p->perm ? p->perm[i % p->k] : i % p->k)] = (float)x[i];
  free(x);
  return s ? qn__errmsg() : NULL;
}
