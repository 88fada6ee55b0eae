/* test_gen.c - the generator's Lua: decode rules, spellings, layouts, the emitter, the sandbox.
 *
 * Each case is a chunk of Lua run on the generator of this source tree; it passes if it returns true. A failing case
 * prints its name and the command that runs it again. */
#include "native_problem.h"
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
    "gen = require 'gen.init' { hash = native_hash, problem = native_problem, read = native_read, list = function() "
    "return {} end }\n"
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
    /* ---- formats ------------------------------------------------------------------------------------------------- */
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
     "return fails('x.lua:1: format bad: per: plane d has an unknown grain \"h2\"', gen.format.define, { name = 'bad', "
     "bits = 4, "
     "planes = { d = { 'f16' } }, per = { d = 'h2' }, decode = print }, 'x.lua', 'x.lua:1')"},
    {"undeclared plane is named",
     "gen.format.define({ name = 'bad', bits = 4, group = { 32 }, planes = { scale = { 'f16' } },\n"
     "  decode = function(q, p) return q * p.scal end }, 'bad.lua', 'bad.lua:1')\n"
     "return fails('bad.lua:1: decode uses plane \"scal\"', gen.format.resolve, 'bad')"},
    {"two scales for one code are refused",
     "gen.format.define({ name = 'bad', bits = 4, group = { 32 }, planes = { a = { 'f16' }, b = { 'f16' } },\n"
     "  decode = function(q, p) return q * p.a + gen.expr.bits(q, 0, 1) * p.b end }, 'bad.lua')\n"
     "return fails('different scales', gen.format.resolve, 'bad')"},
    {"a format without decode is refused by file",
     "return fails('x.lua:1: format bad needs the field \"decode\"', gen.format.define, { name = 'bad', bits = 4 }, "
     "'x.lua', 'x.lua:1')"},
    {"descriptor holds the rule as it was written",
     "return equal(gen.json(gen.format.descriptor(gen.format.resolve 'int8.row')),\n"
     "  "
     "'{\"bits\":8,\"codes\":\"u8\",\"decode\":[\"q\",128,\"-\",\"scale\",\"*\"],\"float\":\"none\",\"implied\":"
     "\"f16\",\"name\":\"int8."
     "row\",'\n"
     "  .. '\"planes\":[{\"cols\":0,\"max\":0,\"name\":\"scale\",\"rows\":1,\"type\":\"f16\"}],\"tables\":[]}')"},
    /* ---- problems ------------------------------------------------------------------------------------------------ */
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
    {"malformed problem", "return fails('the form is FORMAT:NxK', gen.kernel.problem, 'int4.g128')"},
    {"unknown activation", "return fails('activations are f16', gen.kernel.problem, 'int4.g128:8x8:f8')"},
    {"unknown text behind the types", "return fails('unknown text', gen.kernel.problem, 'int4.g128:8x8+relu')"},
    {"eight bits as an output", "return fails('outputs are f16', gen.kernel.problem, 'int4.g128:8x8:i8-i8')"},
    {"words that say what is so anyway",
     "return equal(gen.format.resolve('int4').implied, 'g128.f16') and "
     "equal(gen.format.resolve('int4.g64.z.bf16').implied, nil) and equal(gen.format.resolve('f16').implied, nil)"},
    /* ---- expressions --------------------------------------------------------------------------------------------- */
    {"postfix and C text agree",
     "local e = gen.expr\n"
     "local x = e.ceildiv(e.var 'N', 32) * (e.var 'K' + 1)\n"
     "return equal(gen.json(e.postfix(x, {})), '[\"N\",32,\"ceildiv\",\"K\",1,\"+\",\"*\"]') and equal(e.c(x), '(((N + "
     "32 - 1) / 32) * (K + 1))')"},
    {"constants fold", "return equal(gen.json(gen.expr.postfix(gen.expr.const(3) * 4 + 5, {})), '[17]')"},
    /* ---- layouts ------------------------------------------------------------------------------------------------- */
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
    /* ---- emitter ------------------------------------------------------------------------------------------------- */
    {"blocks are dedented, values placed, depth followed",
     "local w = require 'gen.emit'.new { N = 4, BODY = 'a;\\nb;' }\n"
     "w.push 'for (;;) {'\n"
     "w [[\n      int x = ${N};\n        ${BODY}\n    ]]\n"
     "w.pop '}'\n"
     "return equal(w.text(false), 'for (;;) {\\n  int x = 4;\\n    a;\\n    b;\\n}\\n')"},
    {"a missing value is named",
     "return fails('${M} has no value', function() require 'gen.emit'.new {} 'x = ${M};' end)"},
    /* ---- sandbox ------------------------------------------------------------------------------------------------- */
    {"templates cannot open files",
     "files['templates/t.lua'] = 'return io.open \"x\"'\n"
     "return fails('templates/t.lua:1: unknown name \"io\"', gen.load, 'templates/t.lua')"},
    {"templates cannot load code", "files['templates/t.lua'] = 'return load \"return 1\"'\n"
                                   "return fails('unknown name \"load\"', gen.load, 'templates/t.lua')"},
    {"templates cannot set globals", "files['templates/t.lua'] = 'x = 1'\n"
                                     "return fails('assignment to global \"x\"', gen.load, 'templates/t.lua')"},
    {"a syntax error names file and line", "files['templates/t.lua'] = 'local a = 1\\nlocal = 2'\n"
                                           "return fails('templates/t.lua:2:', gen.load, 'templates/t.lua')"},
    {"a template's changes of libraries, expressions and what it uses are its own",
     "files['templates/lib.lua'] = 'return { list = { 1 }, f = function() return 2 end }'\n"
     "files['templates/poison.lua'] = [[string.rep, string.format, table.concat, math.max, expr.postfix, layout.make = "
     "1\n"
     "  local lib = use 'lib' lib.list[1], lib.f = 7 return (M.__index or M.__add) or 'nothing']]\n"
     "files['templates/after.lua'] = [[local lib = use 'lib'\n"
     "  return ('x'):rep(2) .. string.format('%d', math.max(1, 2)) .. table.concat { lib.list[1], lib.f() }]]\n"
     "return equal(gen.load 'templates/poison.lua', 'nothing') and equal(gen.load 'templates/after.lua', 'xx212')\n"
     "  and equal(#gen.expr.postfix(gen.expr.var 'N', {}), 1)"},
    {"what is registered is neither replaced unasked nor changed afterwards",
     "local text = [[local f = format { name = 'int4', REPLACE bits = 3, doc = 'mine', decode = function(q) return q "
     "end "
     "}\n  f.bits = 9 return f]]\n"
     "files['templates/t.lua'], files['templates/u.lua'] = text:gsub('REPLACE', ''), text:gsub('REPLACE', 'replace = "
     "true,')\n"
     "fails('templates/t.lua:1: format int4 is there already, from templates/formats/int.lua:3; with replace = true', "
     "gen.load, 'templates/t.lua')\n"
     "gen.load 'templates/u.lua'\n"
     "return equal(gen.format.resolve('int4').doc, 'mine') and equal(gen.format.resolve('int4').bits, 3)"},
    {"templates stay below their folder", "files['templates/t.lua'] = 'return use \"../gen/json\"'\n"
                                          "return fails('no path below templates/', gen.load, 'templates/t.lua')"},
    {"a missing template is named",
     "return fails('templates/none.lua: no such template', gen.load, 'templates/none.lua')"},
};

/* What a person may write wrong: the field, its value, and what the message says of it. */
static const struct {
  const char *definition, *message;
} mistakes[] = {
    {"format { name = 'x', bits = 4, groups = { 32 }, decode = f }",
     "format x has no field \"groups\"; did you mean \"group\"? known: bits, codes"},
    {"format { name = 'x', bits = 4, decode = f, 7 }", "format x has no field \"1\""},
    {"format(7)", "format must be a table, not the number 7"},
    {"format { bits = 4, decode = f }", "format needs the field \"name\""},
    {"format { name = 'a b', bits = 4, decode = f }",
     "a format's name is a word of small letters, digits and _, not \"a b\""},
    {"format { name = 'x', bits = '4', decode = f }", "format x: bits must be a whole number, not text \"4\""},
    {"format { name = 'x', bits = 16, decode = f }",
     "format x: bits must be 1 to 8, not 16; codes that are floats say their type"},
    {"format { name = 'x', bits = 8, codes = 'fp16', decode = f }",
     "format x: codes \"fp16\" is not known; did you mean \"f16\"?"},
    {"format { name = 'x', bits = 8, codes = 'f16', decode = f }", "format x: codes of type f16 have 16 bits, not 8"},
    {"format { name = 'x', bits = 4, decode = 'q' }", "format x: decode must be a function, not text \"q\""},
    {"format { name = 'x', bits = 4, group = 32, decode = f }",
     "format x: group must be text or a list, not the number 32"},
    {"format { name = 'x', bits = 4, group = { 0 }, decode = f }",
     "format x: group \"0\": a group is a number of weights along K"},
    {"format { name = 'x', bits = 4, group = { 'g*', 32 }, decode = f }", "format x: group \"g*\": a group is"},
    {"format { name = 'x', bits = 4, group = {}, decode = f }", "format x: the list of groups is empty"},
    {"format { name = 'x', bits = 4, planes = { scale = 'f16' }, decode = f }",
     "format x: plane scale must be a list, not text \"f16\""},
    {"format { name = 'x', bits = 4, planes = { scale = { 'f17' } }, decode = f }",
     "format x: plane scale: unknown type \"f17\"; known: none, u1 to u8"},
    {"format { name = 'x', bits = 4, planes = { ['a b'] = { 'f16' } }, decode = f }",
     "format x: a plane's name is a word"},
    {"format { name = 'x', bits = 4, planes = { scale = { 'f16' } }, per = { scal = 'row' }, decode = f }",
     "format x: per: plane \"scal\" is not known; did you mean \"scale\"?"},
    {"format { name = 'x', bits = 4, planes = { scale = { 'f16' } }, per = { scale = 64 }, decode = f }",
     "format x: per: plane scale has an unknown grain \"64\""},
    {"rule(function(q) return cond(q > 3, q, 0) end)", "compare symbols by lt(a, b)"},
    {"rule(function(q) return q // 2 end)", "operator // is not for decode rules"},
    {"rule(function(q) return q & 1 end)", "take bits of a symbol by bits("},
    {"rule(function(q) return q ^ 2 end)", "write the power of a symbol as a product"},
    {"rule(function(q) return bits(q, 1.5, 1) end)", "bits(x, lowest, how many): whole numbers"},
    {"rule(function(q) return lookup({ 1, 'x' }, q) end)", "lookup: element 2 of the table is a string, not a number"},
    {"rule(function(q) return lookup({ 1 }, q) end)", "lookup of index 1 in a table of 1"},
    {"rule(function(q) return 1 / q end)", "the rule gives inf for code 0"},
    {"rule(function(q) return 3 end)", "must return an expression of q"},
    {"family { m = 1 }", "kernel host.x: m must be a function, not the number 1"},
    {"family { batch_invarient = true }", "kernel host.x has no field \"batch_invarient\""},
    {"family { name = 'host x' }", "a kernel's name is words with dots between, not \"host x\""},
    {"family { target = 'gpu' }", "kernel host.x: target \"gpu\" is not known; known: cuda, host"},
    {"family { params = { { name = 'A B', values = { 1 } } } }", "kernel host.x: parameter A B: a name is a word"},
    {"family { params = { { name = 'act', values = { 1 } } } }", "kernel host.x: parameter act: the name is taken"},
    {"family { params = { { name = 'A', value = { 1 } } } }",
     "kernel host.x: parameter A has no field \"value\"; did you mean \"values\"?"},
    {"family { params = { { name = 'A', values = {} } } }", "kernel host.x: parameter A: the list of values is empty"},
    {"family { params = { { name = 'A', values = { 1, 1 } } } }",
     "kernel host.x: parameter A: the value 1 is there twice"},
    {"family { params = { { name = 'A', values = { 'a/b' } } } }",
     "kernel host.x: parameter A: a value is a whole number or a word, not \"a/b\""},
    {"family { rules = { { name = 'r', why = 'w', ok = true } } }",
     "kernel host.x: rule r: ok must be a function, not a boolean"},
    {"family { outline = { 7 } }", "kernel host.x: outline[1] must be a function, not the number 7"},
    {"variant { m = function() return 2, 1 end }", "kernel host.x: m returns 2, 1: it serves no M"},
    {"variant { m = function() return 0, 1 end }",
     "kernel host.x: what m returns must be a whole number from 1 to 2147483647, not the number 0"},
    {"variant { cost = function() end }", "kernel host.x: what cost returns must be a finite number, not nothing"},
    {"variant { flags = function() return 1 end }", "kernel host.x: what flags returns must be text, not the number 1"},
    {"variant { launch = function() end }", "kernel host.x: what launch returns must be a table, not nothing"},
    {"variant { launch = function() return { steps = {}, batch_invarient = true } end }",
     "kernel host.x: launch has no field \"batch_invarient\"; did you mean \"batch_invariant\"?"},
    {"variant { launch = function() return { steps = { { grid = { 1 }, blok = { 32 } } } } end }",
     "kernel host.x: launch: steps[1] has no field \"blok\"; did you mean \"block\"?"},
    {"variant { launch = function() return { steps = { { grid = { 'N' } } } } end }",
     "kernel host.x: launch: steps[1]: grid[1] must be a whole number or an expression, not text \"N\""},
    {"variant { launch = function() return { steps = { { grid = { N / 2 } } } } end }",
     "divide by // or by ceildiv(a, b)"},
    {"variant { layout = function() return {} end }", "kernel host.x: layout must return what layout.make returned"},
    {"layout.n('x')", "n(size, stride): whole numbers from 0 on, not text \"x\""},
    {"layout.make { name = 't', tile = { 32, 8 }, format = gen.format.resolve 'int4', section = {} }",
     "layout t has no field \"section\"; did you mean \"sections\"?"},
};

/* The names that those definitions use. */
static const char shorthand[] =
    "gen.kernel.hash = function() return '' end\n"
    "f, N, cond, lookup, bits, layout = function(q) return q end, gen.expr.var 'N', gen.expr.select, gen.expr.lookup, "
    "gen.expr.bits, gen.layout\n"
    "function format(def) return gen.format.define(def, 'x.lua', 'x.lua:1') end\n"
    "function rule(fn) format { name = 'x', bits = 4, decode = fn } return gen.format.resolve 'x' end\n"
    "function family(changes)\n"
    "  local def = { name = 'host.x', target = 'host', doc = '', params = {}, rules = {}, outline = { function(w) w "
    "'x' "
    "end },\n"
    "    launch = function() return { steps = { { grid = { 1 } } } } end,\n"
    "    layout = function(v) return layout.make { name = 't', tile = { 1, 2 }, format = v.format, sections = { { "
    "outer "
    "= { layout.n(0, 1), layout.k(0, 2) }, layout.codes(0, 4, { layout.k(2) }) } } } end }\n"
    "  for key, x in pairs(changes) do def[key] = x end\n"
    "  return gen.kernel.define(def, 'x.lua', 'x.lua:1')\n"
    "end\n"
    "function variant(changes)\n"
    "  format { name = 'y', bits = 4, decode = f }\n"
    "  family(changes)\n"
    "  return gen.kernel.variants(gen.kernel.problem('y:4x4'), { target = 'host', arch = '' }, {})\n"
    "end\n";

/* A state with what the generator is given by its host, and with the prelude. */
static lua_State *generator(void) {
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  lua_pushstring(L, QN_SOURCE), lua_setglobal(L, "SOURCE");
  lua_register(L, "native_hash", hash);
  lua_register(L, "native_problem", native_problem);
  lua_register(L, "native_read", read_file);
  ck_assert_msg(!luaL_dostring(L, prelude), "%s", lua_tostring(L, -1));
  return L;
}

START_TEST(mistake) {
  char chunk[4096];
  lua_State *L = generator();
  ck_assert_msg(!luaL_dostring(L, shorthand), "%s", lua_tostring(L, -1));
  snprintf(chunk, sizeof chunk, "return fails([[%s]], function() return %s end)", mistakes[_i].message,
           mistakes[_i].definition);
  ck_assert_msg(!luaL_dostring(L, chunk),
                "%s: %s\n  again: ctest --test-dir %s -R '^gen$' --output-on-failure (mistake %d)",
                mistakes[_i].definition, lua_tostring(L, -1), QN_BUILD, _i);
  lua_close(L);
}
END_TEST

START_TEST(generator_case) {
  lua_State *L = generator();
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
  tcase_add_loop_test(t, mistake, 0, (int)(sizeof mistakes / sizeof *mistakes));
  suite_add_tcase(s, t);
  return run_suite(s, argv[0]);
}
