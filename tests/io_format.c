/* io_format.c - see io_format.h. */
#include "io_format.h"
#include "generator.h"
#include <stdio.h>

static const char spellings_text[] =
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
    "function spelling(i) return spellings[tonumber(i)] end\n";

const char *io_format_spelling(int i) {
  static bool made;
  const char *why = "";
  char number[16];
  lua_State *L = made ? NULL : generator(&why);
  if (L && luaL_dostring(L, spellings_text)) return NULL;
  made = true;
  snprintf(number, sizeof number, "%d", i + 1);
  return generator_call("spelling", number, &why);
}
