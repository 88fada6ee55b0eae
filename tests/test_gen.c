/* test_gen.c - the generator's Lua: decode rules, spellings, layouts, the emitter, the sandbox.
 *
 * Each case is a chunk of Lua run on the generator of this source tree; it passes if it returns true. A failing case
 * prints its name and the command that runs it again. */
#include "suite.h"
#include <check.h>
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

/* native.hash(text) */
static int hash(lua_State *L) {
  size_t n;
  const char *text = luaL_checklstring(L, 1, &n);
  XXH128_hash_t h = XXH3_128bits(text, n);
  char hex[33];
  snprintf(hex, sizeof hex, "%016llx%016llx", (unsigned long long)h.high64, (unsigned long long)h.low64);
  lua_pushstring(L, hex);
  return 1;
}

/* native.read(path): the source tree, and texts that a case has put into the global table `files`. */
static int read_file(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  lua_getglobal(L, "files");
  if (lua_getfield(L, -1, path) == LUA_TSTRING) return 1;
  char full[1024];
  snprintf(full, sizeof full, "%s/%s", QN_SOURCE, path);
  FILE *f = fopen(full, "rb");
  if (!f) return 0;
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (int c; (c = getc(f)) != EOF;) luaL_addchar(&b, (char)c);
  fclose(f);
  luaL_pushresult(&b);
  return 1;
}

static const char prelude[] =
    "package.path = SOURCE .. '/?.lua;' .. SOURCE .. '/?/init.lua'\n"
    "files = {}\n"
    "gen = require 'gen.init' { hash = native_hash, read = native_read, list = function() return {} end }\n"
    "for _, name in ipairs { 'int', 'nf4', 'f16', 'bf16', 'f32', 'k_quants', 'mxfp4', 'fp8' } do "
    "gen.load('templates/formats/' .. name .. "
    "'.lua') end\n"
    "function fails(text, fn, ...)\n"
    "  local ok, why = pcall(fn, ...)\n"
    "  if ok then error('no error; expected: ' .. text, 2) end\n"
    "  if not tostring(why):find(text, 1, true) then error(('error was: %s\\n  expected: %s'):format(why, text), 2) "
    "end\n"
    "  return true\n"
    "end\n"
    "function equal(a, b)\n"
    "  if a ~= b then error(('got:\\n%s\\nexpected:\\n%s'):format(tostring(a), tostring(b)), 2) end\n"
    "  return true\n"
    "end\n";

static const struct {
  const char *name, *chunk;
} cases[] = {
    /* ---- formats ---- */
    {"midpoint folds into the code map", "local f = gen.format.resolve 'int4.g128'\n"
                                         "return equal(f.map.kind, 'int') and equal(f.map.bias, -8) and "
                                         "equal(#f.offset, 0) and equal(f.scale[1], 'scale')"},
    {"integer zero point becomes an offset",
     "local f = gen.format.resolve 'int4.g64.z'\n"
     "return equal(f.map.bias, 0) and equal(#f.offset, 1) and equal(f.offset[1].coefficient, -1)\n"
     "  and equal(table.concat(f.offset[1].planes, '*'), 'scale*zero') and equal(f.planes[f.planes.zero].max, 15)"},
    {"a table stays a table", "local f = gen.format.resolve 'nf4.g64'\n"
                              "return equal(f.map.kind, 'table') and equal(f.map.lo, -1.0) and equal(f.map.hi, 1.0) "
                              "and equal(f.map.values[8], 0.0)"},
    {"a dense format is a float without scale",
     "local f = gen.format.resolve 'bf16'\n"
     "return equal(f.map.kind, 'float') and equal(f.map.type, 'bf16') and equal(#f.scale, 0) and equal(#f.planes, 0)"},
    {"a rule with bits and select becomes one table",
     "gen.format.define({ name = 'sm3', bits = 3, group = { 32 }, planes = { scale = { 'f16' } }, decode = function(q, "
     "p)\n"
     "  return gen.expr.select(gen.expr.bits(q, 2, 1), 0 - gen.expr.bits(q, 0, 2), gen.expr.bits(q, 0, 2)) * p.scale "
     "end }, 'sm3.lua')\n"
     "return equal(table.concat(gen.format.resolve('sm3').map.values, ' '), '0 1 2 3 0 -1 -2 -3')"},
    {"a minimum instead of a zero point is an offset",
     "gen.format.define({ name = 'q41', bits = 4, group = { 32 }, planes = { scale = { 'f16' }, min = { 'f16' } },\n"
     "  decode = function(q, p) return q * p.scale + p.min end }, 'q41.lua')\n"
     "local f = gen.format.resolve 'q41.g32'\n"
     "return equal(f.map.bias, 0) and equal(f.offset[1].planes[1], 'min') and equal(f.offset[1].coefficient, 1)"},
    {"spelling is canonical", "return equal(gen.format.resolve('int4').name, 'int4.g128') and "
                              "equal(gen.format.resolve('int4.g32.bf16.z').name, 'int4.g32.z.bf16')"},
    {"unknown format names the known ones",
     "return fails('foo: unknown format; known: bf16, e4m3, e5m2, f16, f32, int1, int2', gen.format.resolve, 'foo')"},
    {"unknown group names the known ones",
     "return fails('int4 has no group \"b4x4\"; it has 128, 64, 32, 16, g*, row, tensor', gen.format.resolve, "
     "'int4.b4x4')"},
    {"groups of any size", "local f = gen.format.resolve 'int3.g20.zf.f32'\n"
                           "return equal(f.name, 'int3.g20.zf.f32') and equal(f.cols, 20) and equal(f.rows, 1)"},
    {"a group of none", "return fails('int4 does not know \"g0\"', gen.format.resolve, 'int4.g0')"},
    {"blocks of any size", "local f = gen.format.resolve 'e4m3.b2x4.bf16'\n"
                           "return equal(f.map.kind, 'float') and equal(f.map.type, 'e4m3') and equal(f.rows, 2) and "
                           "equal(f.cols, 4)"},
    {"planes of two grains, products of them as scale and offset",
     "local f = gen.format.resolve 'q4_k'\n"
     "return equal(f.name, 'q4_k') and equal(table.concat(f.scale, '*'), 'd*scale') and "
     "equal(table.concat(f.offset[1].planes, '*'), 'dmin*min')\n"
     "  and equal(f.planes[f.planes.d].cols, 256) and equal(f.planes[f.planes.scale].cols, 32) and "
     "equal(f.planes[f.planes.min].max, 63)"},
    {"a sign and a magnitude become one table",
     "local f = gen.format.resolve 'nvfp4'\n"
     "return equal(f.map.kind, 'table') and equal(f.map.hi, 6) and equal(f.map.values[16], -6) and "
     "equal(f.planes[f.planes.global].rows, 0)"},
    {"marks come before types", "return equal(gen.format.resolve('int4.bf16.m').name, 'int4.g128.m.bf16')"},
    {"a plane without a place in the rule",
     "return fails('the rule of int4 has no place for its plane zero', gen.format.resolve, 'int4.z.m')"},
    {"an unknown grain of a plane is refused by file",
     "return fails('x.lua: plane d of bad: unknown grain \"h2\"', gen.format.define, { name = 'bad', bits = 4, per = { "
     "d = 'h2' }, decode = print }, 'x.lua')"},
    {"undeclared plane is named",
     "gen.format.define({ name = 'bad', bits = 4, group = { 32 }, planes = { scale = { 'f16' } },\n"
     "  decode = function(q, p) return q * p.scal end }, 'bad.lua')\n"
     "return fails('bad.lua: decode uses plane \"scal\"', gen.format.resolve, 'bad')"},
    {"two scales for one code are refused",
     "gen.format.define({ name = 'bad', bits = 4, group = { 32 }, planes = { a = { 'f16' }, b = { 'f16' } },\n"
     "  decode = function(q, p) return q * p.a + gen.expr.bits(q, 0, 1) * p.b end }, 'bad.lua')\n"
     "return fails('different scales', gen.format.resolve, 'bad')"},
    {"a format without decode is refused by file",
     "return fails('x.lua: bad needs decode', gen.format.define, { name = 'bad', bits = 4 }, 'x.lua')"},
    {"descriptor holds the rule as it was written",
     "return equal(gen.json(gen.format.descriptor(gen.format.resolve 'int8.row')),\n"
     "  "
     "'{\"bits\":8,\"codes\":\"u8\",\"decode\":[\"q\",128,\"-\",\"scale\",\"*\"],\"float\":\"none\",\"name\":\"int8."
     "row\",'\n"
     "  .. '\"planes\":[{\"cols\":0,\"max\":0,\"name\":\"scale\",\"rows\":1,\"type\":\"f16\"}],\"tables\":[]}')"},
    /* ---- problems ---- */
    {"problem gets its types",
     "return equal(gen.kernel.problem('int4.g128:64x96').spelling, 'int4.g128:64x96:bf16-f32')\n"
     "  and equal(gen.kernel.problem('int4.g128:64x96', 'cuda').spelling, 'int4.g128:64x96:f16-f16')\n"
     "  and equal(gen.kernel.problem('nf4:64x96:i8+bias').spelling, 'nf4.g64:64x96:i8-f32+bias')"},
    {"activations left open go with the format",
     "return equal(gen.kernel.problem('f16:8x8').act, 'f32') and equal(gen.kernel.problem('bf16:8x8').act, 'bf16')\n"
     "  and equal(gen.kernel.problem('int4.g1.zf:8x8').act, 'f32') -- bf16 is multiplied in pairs of one group\n"
     "  and equal(gen.kernel.problem('int4.g2.zf:8x8').act, 'bf16') and equal(gen.kernel.problem('int4.row:8x9').act, "
     "'bf16')\n"
     "  and equal(gen.kernel.problem('int4.g1.zf:8x8', 'cuda').act, 'f16')"},
    {"N of zero", "return fails('N = 0 is outside 1 .. 2147483647', gen.kernel.problem, 'int4.g128:0x64')"},
    {"K beyond 2^31", "return fails('K = 2147483648 is outside', gen.kernel.problem, 'int4.g128:64x2147483648')"},
    {"malformed problem", "return fails('expected FORMAT:NxK', gen.kernel.problem, 'int4.g128')"},
    {"unknown activation", "return fails('unknown activation type \"f8\"', gen.kernel.problem, 'int4.g128:8x8:f8')"},
    /* ---- expressions ---- */
    {"postfix and C text agree",
     "local e = gen.expr\n"
     "local x = e.ceildiv(e.var 'N', 32) * (e.var 'K' + 1)\n"
     "return equal(gen.json(e.postfix(x, {})), '[\"N\",32,\"ceildiv\",\"K\",1,\"+\",\"*\"]') and equal(e.c(x), '(((N + "
     "32 - 1) / 32) * (K + 1))')"},
    {"constants fold", "return equal(gen.json(gen.expr.postfix(gen.expr.const(3) * 4 + 5, {})), '[17]')"},
    /* ---- layouts ---- */
    {"a bijection passes and knows its sizes",
     "local l = gen.layout\n"
     "local x = l.make { name = 't', tile = { 32, 128 }, format = gen.format.resolve 'int4.g128', sections = { { outer "
     "= { l.n(0, 32), l.k(0, 128) },\n"
     "  l.plane('scale', { l.n(32) }), l.codes(0, 4, { l.k(16, 8), l.n(32), l.k(8) }) } } }\n"
     "return equal(x.sections[1].record, 64 + 2048) and equal(x.sections[1].fields.codes.offset, 64)"},
    {"a digit with a wrong stride is refused",
     "local l = gen.layout\n"
     "return fails('digit k(8, 2) should have stride 1', l.make, { name = 't', tile = { 32, 128 }, format = "
     "gen.format.resolve 'int4.g128',\n"
     "  sections = { { outer = { l.n(0, 32), l.k(0, 128) }, l.plane('scale', { l.n(32) }), l.codes(0, 4, { l.k(16, 8), "
     "l.n(32), l.k(8, 2) }) } } })"},
    {"a missing plane is refused",
     "local l = gen.layout\n"
     "return fails('plane scale is stored 0 times', l.make, { name = 't', tile = { 32, 8 }, format = "
     "gen.format.resolve 'int4.g128',\n"
     "  sections = { { outer = { l.n(0, 32), l.k(0, 8) }, l.codes(0, 4, { l.n(32), l.k(8) }) } } })"},
    {"half the code bits are refused", "local l = gen.layout\n"
                                       "return fails('4 of 8 code bits', l.make, { name = 't', tile = { 32, 128 }, "
                                       "format = gen.format.resolve 'int8.g128',\n"
                                       "  sections = { { outer = { l.n(0, 32), l.k(0, 128) }, l.plane('scale', { "
                                       "l.n(32) }), l.codes(0, 4, { l.k(16, 8), l.n(32), l.k(8) }) } } })"},
    {"odd widths are cut into powers of two",
     "local t = {}\n"
     "for _, b in ipairs { 3, 5, 6, 7 } do for _, s in ipairs(gen.layout.slices(b)) do t[#t + 1] = s.lo .. '+' .. "
     "s.bits end end\n"
     "return equal(table.concat(t, ' '), '0+2 2+1 0+4 4+1 0+4 4+2 0+4 4+2 6+1')"},
    /* ---- emitter ---- */
    {"blocks are dedented, values placed, depth followed",
     "local w = require 'gen.emit'.new { N = 4, BODY = 'a;\\nb;' }\n"
     "w.push 'for (;;) {'\n"
     "w [[\n      int x = ${N};\n        ${BODY}\n    ]]\n"
     "w.pop '}'\n"
     "return equal(w.text(false), 'for (;;) {\\n  int x = 4;\\n    a;\\n    b;\\n}\\n')"},
    {"a missing value is named",
     "return fails('${M} has no value', function() require 'gen.emit'.new {} 'x = ${M};' end)"},
    /* ---- sandbox ---- */
    {"templates cannot open files",
     "files['templates/t.lua'] = 'return io.open \"x\"'\n"
     "return fails('templates/t.lua: unknown name \"io\"', gen.load, 'templates/t.lua')"},
    {"templates cannot load code", "files['templates/t.lua'] = 'return load \"return 1\"'\n"
                                   "return fails('unknown name \"load\"', gen.load, 'templates/t.lua')"},
    {"templates cannot set globals", "files['templates/t.lua'] = 'x = 1'\n"
                                     "return fails('assignment to global \"x\"', gen.load, 'templates/t.lua')"},
    {"a syntax error names file and line", "files['templates/t.lua'] = 'local a = 1\\nlocal = 2'\n"
                                           "return fails('templates/t.lua:2:', gen.load, 'templates/t.lua')"},
    {"a missing template is named",
     "return fails('templates/none.lua: no such template', gen.load, 'templates/none.lua')"},
};

START_TEST(generator_case) {
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  lua_pushstring(L, QN_SOURCE), lua_setglobal(L, "SOURCE");
  lua_register(L, "native_hash", hash);
  lua_register(L, "native_read", read_file);
  ck_assert_msg(!luaL_dostring(L, prelude), "%s", lua_tostring(L, -1));
  int bad = luaL_loadbuffer(L, cases[_i].chunk, strlen(cases[_i].chunk), "=case") || lua_pcall(L, 0, 1, 0);
  ck_assert_msg(!bad && lua_toboolean(L, -1),
                "%s: %s\n  again: ctest --test-dir %s -R '^gen$' --output-on-failure (case %d)", cases[_i].name,
                bad ? lua_tostring(L, -1) : "did not return true", QN_BUILD, _i);
  lua_close(L);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  Suite *s = suite_create("gen");
  TCase *t = tcase_create("generator");
  tcase_add_loop_test(t, generator_case, 0, (int)(sizeof cases / sizeof *cases));
  suite_add_tcase(s, t);
  return run_suite(s, argv[0]);
}
