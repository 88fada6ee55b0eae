-- The generator: decode rules, spellings, problems, expressions, layouts, the emitter, the sandbox, and what people
-- write wrong.
local q = require "quernel"
local gen = q.gen
local format, expr, layout = gen.format, gen.expr, gen.layout
local resolve = format.resolve

-- A decode rule of the test's own.
local function define(def)
  def.planes = def.planes or { scale = { "f16" } }
  return format.define(def, "x.lua", "x.lua:1")
end

-- ---- Templates that are not files -----------------------------------------------------------------------------------

-- A second generator, over the same registries, that finds these texts before the templates inside: { name = text }.
-- It sees no folders; so the families are loaded before it comes.
gen.kernel.families()
local function sandbox(texts)
  local files = {}
  for name, text in pairs(texts) do files["templates/" .. name .. ".lua"] = text end
  local other = q.import "gen.init" {
    types = q.native.types, hash = q.native.hash, problem = q.native.problem, list = function() return {} end,
    read = function(path) return files[path] or q.native.read(path) end,
  }
  return function(name) return other.load("templates/" .. name .. ".lua") end
end

-- The sandbox refuses the text of t.lua with this message.
local function refused(message, text)
  return function(t) t.says(message, sandbox { t = text }, "t") end
end

-- ---- Descriptions with a fault --------------------------------------------------------------------------------------

-- A format, a decode rule, and a kernel family that are right but for what is changed.
local function identity(codes) return codes end
local function broken_format(changes)
  local def = { name = "x", bits = 4, decode = identity }
  for key, x in pairs(changes) do def[key] = x end
  format.define(def, "x.lua", "x.lua:1")
end
local function broken_rule(decode)
  broken_format { decode = decode }
  resolve "x"
end
local function family(changes)
  local def = {
    name = "host.x", target = "host", doc = "", params = {}, rules = {}, outline = { function(w) w "x" end },
    launch = function() return { steps = { { grid = { 1 } } } } end,
    layout = function(v)
      return layout.make { name = "t", tile = { 1, 2 }, format = v.format, sections = {
        { outer = { layout.n(0, 1), layout.k(0, 2) }, layout.codes(0, 4, { layout.k(2) }) } } }
    end,
  }
  for key, x in pairs(changes) do def[key] = x end
  gen.kernel.define(def, "x.lua", "x.lua:1")
end
local function variant(changes)
  broken_format { name = "y" }
  family(changes)
  gen.kernel.variants(gen.kernel.problem "y:4x4", { target = "host", arch = "" }, { family = "host.x" })
end
local function launched(recipe) variant { launch = function() return recipe end } end

local N = expr.var "N"

-- What a person may write wrong, what the message says of it, and who is told.
local mistakes = {
  { broken_format, { groups = { 32 } }, 'format x has no field "groups"; did you mean "group"? known: bits, codes' },
  { broken_format, { 7 }, 'format x has no field "1"' },
  { broken_format, { name = "a b" }, "a format's name is a word of small letters, digits and _, not \"a b\"" },
  { broken_format, { bits = "4" }, 'format x: bits must be a whole number, not text "4"' },
  { broken_format, { bits = 16 }, "format x: bits must be 1 to 8, not 16; codes that are floats say their type" },
  { broken_format, { bits = 8, codes = "fp16" }, 'format x: codes "fp16" is not known; did you mean "f16"?' },
  { broken_format, { bits = 8, codes = "f16" }, "format x: codes of type f16 have 16 bits, not 8" },
  { broken_format, { decode = "q" }, 'format x: decode must be a function, not text "q"' },
  { broken_format, { group = 32 }, "format x: group must be text or a list, not the number 32" },
  { broken_format, { group = { 0 } }, 'format x: group "0": a group is a number of weights along K' },
  { broken_format, { group = { "g*", 32 } }, 'format x: group "g*": a group is' },
  { broken_format, { group = {} }, "format x: the list of groups is empty" },
  { broken_format, { planes = { scale = "f16" } }, 'format x: plane scale must be a list, not text "f16"' },
  { broken_format, { planes = { scale = { "f17" } } },
    'format x: plane scale: unknown type "f17"; known: none, u1 to u8' },
  { broken_format, { planes = { ["a b"] = { "f16" } } }, "format x: a plane's name is a word" },
  { broken_format, { planes = { scale = { "f16" } }, per = { scal = "row" } },
    'format x: per: plane "scal" is not known; did you mean "scale"?' },
  { broken_format, { planes = { scale = { "f16" } }, per = { scale = 64 } },
    'format x: per: plane scale has an unknown grain "64"' },
  { function(def) format.define(def, "x.lua", "x.lua:1") end, 7, "format must be a table, not the number 7" },
  { function(def) format.define(def, "x.lua", "x.lua:1") end, { bits = 4, decode = identity },
    'format needs the field "name"' },

  { broken_rule, function(c) return expr.select(c > 3, c, 0) end, "compare symbols by lt(a, b)" },
  { broken_rule, function(c) return c == 2 and c * 3 or c end, "another value for q = 2 than for the symbol q" },
  { broken_rule, function(c) return c == expr.const(2) and c * 3 or c end, "compare symbols by lt(a, b) and eq(a, b)" },
  { broken_rule, function(c) return c // 2 end, "operator // is not for decode rules" },
  { broken_rule, function(c) return c & 1 end, "take bits of a symbol by bits(" },
  { broken_rule, function(c) return c ^ 2 end, "write the power of a symbol as a product" },
  { broken_rule, function(c) return expr.bits(c, 1.5, 1) end, "bits(x, lowest, how many): whole numbers" },
  { broken_rule, function(c) return expr.lookup({ 1, "x" }, c) end,
    "lookup: element 2 of the table is a string, not a number" },
  { broken_rule, function(c) return expr.lookup({ 1 }, c) end, "lookup of index 1 in a table of 1" },
  { broken_rule, function(c) return 1 / c end, "the rule gives inf for code 0" },
  { broken_rule, function() return 3 end, "must return an expression of q" },

  { family, { m = 1 }, "kernel host.x: m must be a function, not the number 1" },
  { family, { batch_invarient = true }, 'kernel host.x has no field "batch_invarient"' },
  { family, { name = "host x" }, 'a kernel\'s name is words with dots between, not "host x"' },
  { family, { target = "gpu" }, 'kernel host.x: target "gpu" is not known; known: cuda, host' },
  { family, { params = { { name = "A B", values = { 1 } } } }, "kernel host.x: parameter A B: a name is a word" },
  { family, { params = { { name = "act", values = { 1 } } } }, "kernel host.x: parameter act: the name is taken" },
  { family, { params = { { name = "A", value = { 1 } } } },
    'kernel host.x: parameter A has no field "value"; did you mean "values"?' },
  { family, { params = { { name = "A", values = {} } } }, "kernel host.x: parameter A: the list of values is empty" },
  { family, { params = { { name = "A", values = { 1, 1 } } } },
    "kernel host.x: parameter A: the value 1 is there twice" },
  { family, { params = { { name = "A", values = { "a/b" } } } },
    'kernel host.x: parameter A: a value is a whole number or a word, not "a/b"' },
  { family, { rules = { { name = "r", why = "w", ok = true } } },
    "kernel host.x: rule r: ok must be a function, not a boolean" },
  { family, { outline = { 7 } }, "kernel host.x: outline[1] must be a function, not the number 7" },

  { variant, { m = function() return 2, 1 end }, "kernel host.x: m returns 2, 1: it serves no M" },
  { variant, { m = function() return 0, 1 end },
    "kernel host.x: what m returns must be a whole number from 1 to 2147483647, not the number 0" },
  { variant, { cost = identity }, "kernel host.x: what cost returns must be a finite number, not a table" },
  { variant, { cost = function() end }, "kernel host.x: what cost returns must be a finite number, not nothing" },
  { variant, { flags = function() return 1 end }, "kernel host.x: what flags returns must be text, not the number 1" },
  { variant, { launch = function() end }, "kernel host.x: what launch returns must be a table, not nothing" },
  { variant, { layout = function() return {} end }, "kernel host.x: layout must return what layout.make returned" },

  { launched, { steps = {}, batch_invarient = true },
    'kernel host.x: launch has no field "batch_invarient"; did you mean "batch_invariant"?' },
  { launched, { steps = { { grid = { 1 }, blok = { 32 } } } },
    'kernel host.x: launch: steps[1] has no field "blok"; did you mean "block"?' },
  { launched, { steps = { { grid = { "N" } } } },
    'kernel host.x: launch: steps[1]: grid[1] must be a whole number or an expression, not text "N"' },
  { launched, { steps = { { grid = { N / 2 } } } }, "divide by // or by ceildiv(a, b)" },

  { layout.n, "x", 'n(size, stride): whole numbers from 0 on, not text "x"' },
  { layout.make, { name = "t", tile = { 32, 8 }, format = resolve "int4", section = {} },
    'layout t has no field "section"; did you mean "sections"?' },
}

-- ---- Layouts of int4.g128 and the like ------------------------------------------------------------------------------

-- 32 rows of 128 codes, in words of 8; what is changed in the codes, and sections that take their place.
local function make(spelling, tile_k, section)
  return layout.make { name = "t", tile = { 32, tile_k }, format = resolve(spelling), sections = { section } }
end

local n, k = layout.n, layout.k

-- ---- Cases ----------------------------------------------------------------------------------------------------------

local cases = {
  { "midpoint folds into the code map", function(t)
    local f = resolve "int4.g128"
    t.equal(f.map.kind, "int")
    t.equal(f.map.bias, -8)
    t.equal(#f.offset, 0)
    t.equal(f.scale[1], "scale")
  end },
  { "integer zero point becomes an offset", function(t)
    local f = resolve "int4.g64.z"
    t.equal(f.map.bias, 0)
    t.equal(#f.offset, 1)
    t.equal(f.offset[1].coefficient, -1)
    t.equal(table.concat(f.offset[1].planes, "*"), "scale*zero")
    t.equal(f.planes[f.planes.zero].max, 15)
  end },
  { "a table stays a table", function(t)
    local map = resolve("nf4.g64").map
    t.equal(map.kind, "table")
    t.equal(map.lo, -1.0)
    t.equal(map.hi, 1.0)
    t.equal(map.values[8], 0.0)
  end },
  { "a dense format is a float without scale", function(t)
    local f = resolve "bf16"
    t.equal(f.map.kind, "float")
    t.equal(f.map.type, "bf16")
    t.equal(#f.scale, 0)
    t.equal(#f.planes, 0)
  end },
  { "a rule with bits and select becomes one table", function(t)
    define { name = "sm3", bits = 3, group = { 32 }, decode = function(code, p)
      local magnitude = expr.bits(code, 0, 2)
      return expr.select(expr.bits(code, 2, 1), 0 - magnitude, magnitude) * p.scale
    end }
    t.equal(table.concat(resolve("sm3").map.values, " "), "0 1 2 3 0 -1 -2 -3")
  end },
  { "a minimum instead of a zero point is an offset", function(t)
    define { name = "q41", bits = 4, group = { 32 }, planes = { scale = { "f16" }, min = { "f16" } },
      decode = function(code, p) return code * p.scale + p.min end }
    local f = resolve "q41.g32"
    t.equal(f.map.bias, 0)
    t.equal(f.offset[1].planes[1], "min")
    t.equal(f.offset[1].coefficient, 1)
  end },
  { "spelling is canonical", function(t)
    t.equal(resolve("int4").name, "int4.g128")
    t.equal(resolve("int4.g32.bf16.z").name, "int4.g32.z.bf16")
  end },
  { "unknown format names the known ones", function(t)
    t.says("foo: unknown format; known: bf16, e4m3, e5m2, f16, f32, fp4", resolve, "foo")
  end },
  { "unknown group names the known ones", function(t)
    t.says('int4 has no group "b4x4"; it has 128, 64, 32, 16, g*, row, tensor', resolve, "int4.b4x4")
  end },
  { "groups of any size", function(t)
    local f = resolve "int3.g20.zf.f32"
    t.equal(f.name, "int3.g20.zf.f32")
    t.equal(f.cols, 20)
    t.equal(f.rows, 1)
  end },
  { "a group of none", function(t) t.says('int4 does not know "g0"', resolve, "int4.g0") end },
  { "blocks of any size", function(t)
    local f = resolve "e4m3.b2x4.bf16"
    t.equal(f.map.kind, "float")
    t.equal(f.map.type, "e4m3")
    t.equal(f.rows, 2)
    t.equal(f.cols, 4)
  end },
  { "planes of two grains, products of them as scale and offset", function(t)
    local f = resolve "q4_k"
    t.equal(f.name, "q4_k")
    t.equal(table.concat(f.scale, "*"), "d*scale")
    t.equal(table.concat(f.offset[1].planes, "*"), "dmin*min")
    t.equal(f.planes[f.planes.d].cols, 256)
    t.equal(f.planes[f.planes.scale].cols, 32)
    t.equal(f.planes[f.planes.min].max, 63)
  end },
  { "a sign and a magnitude become one table", function(t)
    local f = resolve "nvfp4"
    t.equal(f.map.kind, "table")
    t.equal(f.map.hi, 6)
    t.equal(f.map.values[16], -6)
    t.equal(f.planes[f.planes.global].rows, 0)
  end },
  { "marks come before types", function(t) t.equal(resolve("int4.bf16.m").name, "int4.g128.m.bf16") end },
  { "a plane without a place in the rule", function(t)
    t.says("the rule of int4 has no place for its plane zero", resolve, "int4.z.m")
  end },
  { "an unknown grain of a plane is refused by file", function(t)
    t.says('x.lua:1: format bad: per: plane d has an unknown grain "h2"', define,
      { name = "bad", bits = 4, planes = { d = { "f16" } }, per = { d = "h2" }, decode = print })
  end },
  { "undeclared plane is named", function(t)
    define { name = "bad", bits = 4, group = { 32 }, decode = function(code, p) return code * p.scal end }
    t.says('x.lua:1: decode uses plane "scal"', resolve, "bad")
  end },
  { "two scales for one code are refused", function(t)
    define { name = "bad", bits = 4, group = { 32 }, planes = { a = { "f16" }, b = { "f16" } },
      decode = function(code, p) return code * p.a + expr.bits(code, 0, 1) * p.b end }
    t.says("different scales", resolve, "bad")
  end },
  { "a format without decode is refused by file", function(t)
    t.says('x.lua:1: format bad needs the field "decode"', define, { name = "bad", bits = 4 })
  end },
  { "descriptor holds the rule as it was written", function(t)
    t.equal(gen.json(format.descriptor(resolve "int8.row")),
      '{"bits":8,"codes":"u8","decode":["q",128,"-","scale","*"],"float":"none","implied":"f16","name":"int8.row",' ..
      '"planes":[{"cols":0,"max":0,"name":"scale","rows":1,"type":"f16"}],"tables":[]}')
  end },
  { "words that say what is so anyway", function(t)
    t.equal(resolve("int4").implied, "g128.f16")
    t.equal(resolve("int4.g64.z.bf16").implied, nil)
    t.equal(resolve("f16").implied, nil)
  end },

  { "codes of narrow floats are those of their numbers", function(t)
    local types = q.gen.types
    for name, largest in pairs { e4m3 = 0x7e, e5m2 = 0x7b, f16 = 0x7bff } do
      for code = 0, largest do t.equal(types.code(name, types.value(name, code)), code) end
      t.equal(types.code(name, 1e9), largest + (types.all[name].ieee and 1 or 0))
    end
  end },

  -- ---- Problems -----------------------------------------------------------------------------------------------------

  { "problem gets its types", function(t)
    t.equal(q.problem("int4.g128:64x96").spelling, "int4.g128:64x96:bf16-f32")
    t.equal(q.problem("int4.g128:64x96", "cuda").spelling, "int4.g128:64x96:f16-f16")
    t.equal(q.problem("nf4:64x96:i8+bias").spelling, "nf4.g64:64x96:i8-f32+bias")
  end },
  { "X that the call rounds has a type of its own", function(t)
    local p = q.problem("int4:64x96:bf16~i8")
    t.equal(p.spelling, "int4.g128:64x96:bf16~i8-f32")
    t.equal(p.x .. " " .. p.act .. " " .. p.activations, "bf16 i8 bf16~i8")
    t.equal(q.problem("int4:64x96", "host", "f32~e4m3").spelling, "int4.g128:64x96:f32~e4m3-f32")
    t.equal(q.problem("int4:64x96:i8").x, "i8")
    for _, o in ipairs(p.operands) do t.check(o.name ~= "x_scale", "the scales are made by the call") end
  end },
  { "activations left open go with the format", function(t)
    t.equal(q.problem("f16:8x8").act, "f32")
    t.equal(q.problem("bf16:8x8").act, "bf16")
    t.equal(q.problem("int4.g1.zf:8x8").act, "f32") -- bf16 is multiplied in pairs of one group
    t.equal(q.problem("int4.g2.zf:8x8").act, "bf16")
    t.equal(q.problem("int4.row:8x9").act, "bf16")
    t.equal(q.problem("int4.g1.zf:8x8", "cuda").act, "f16")
  end },
  { "N of zero", function(t) t.says("N = 0 is outside 1 .. 2147483647", q.problem, "int4.g128:0x64") end },
  { "K beyond 2^31", function(t) t.says("K = 2147483648 is outside", q.problem, "int4.g128:64x2147483648") end },
  { "malformed problem", function(t) t.says("the form is FORMAT:[Ex]NxK", q.problem, "int4.g128") end },
  { "unknown activation", function(t) t.says("activations are f16", q.problem, "int4.g128:8x8:f8") end },
  { "an unknown step of an epilogue", function(t) t.says("no step is called", q.problem, "int4.g128:8x8+relu") end },
  { "eight bits as an output", function(t) t.says("outputs are f16", q.problem, "int4.g128:8x8:i8-i8") end },

  -- ---- Expressions --------------------------------------------------------------------------------------------------

  { "postfix and C text agree", function(t)
    local x = expr.ceildiv(N, 32) * (expr.var "K" + 1)
    t.equal(gen.json(expr.postfix(x, {})), '["N",32,"ceildiv","K",1,"+","*"]')
    t.equal(expr.c(x), "(N + 31) / 32 * (K + 1)")
  end },
  { "C text is simplified and has the parentheses that it needs", function(t)
    local K, one, div = expr.var "K", expr.const(1), expr.ceildiv
    t.equal(expr.c(one * div(div(N, 16) * 16, 16) * div(div(K, 64) * 64, 64) * 512 + 0),
      "(N + 15) / 16 * ((K + 63) / 64) * 512")
    t.equal(expr.c(div(one * 2 * N * 128, 256) * 256), "N * 256")
    t.equal(expr.c(div(div(N, 16), K) * 3, { ["ceildiv(N, 16)"] = "panels", K = "a->k" }),
      "(panels + a->k - 1) / a->k * 3")
    t.equal(expr.c(N - (K - 1) // 2), "N - (K - 1) / 2")
    t.equal(expr.c(N * (K // 2) + expr.min(N, K)), "N * (K / 2) + (N < K ? N : K)")
  end },
  { "constants fold", function(t) t.equal(gen.json(expr.postfix(expr.const(3) * 4 + 5, {})), "[17]") end },

  -- ---- Layouts ------------------------------------------------------------------------------------------------------

  { "a bijection passes and knows its sizes", function(t)
    local x = make("int4.g128", 128, { outer = { n(0, 32), k(0, 128) }, layout.plane("scale", { n(32) }),
      layout.codes(0, 4, { k(16, 8), n(32), k(8) }) })
    t.equal(x.sections[1].record, 64 + 2048)
    t.equal(x.sections[1].fields.codes.offset, 64)
  end },
  { "a digit with a wrong stride is refused", function(t)
    t.says("digit k(8, 2) should have stride 1", make, "int4.g128", 128, { outer = { n(0, 32), k(0, 128) },
      layout.plane("scale", { n(32) }), layout.codes(0, 4, { k(16, 8), n(32), k(8, 2) }) })
  end },
  { "a missing plane is refused", function(t)
    t.says("plane scale is stored 0 times", make, "int4.g128", 8,
      { outer = { n(0, 32), k(0, 8) }, layout.codes(0, 4, { n(32), k(8) }) })
  end },
  { "half the code bits are refused", function(t)
    t.says("4 of 8 code bits", make, "int8.g128", 128, { outer = { n(0, 32), k(0, 128) },
      layout.plane("scale", { n(32) }), layout.codes(0, 4, { k(16, 8), n(32), k(8) }) })
  end },
  { "odd widths are cut into powers of two", function(t)
    local out = {}
    for _, bits in ipairs { 3, 5, 6, 7 } do
      for _, s in ipairs(layout.slices(bits)) do out[#out + 1] = s.lo .. "+" .. s.bits end
    end
    t.equal(table.concat(out, " "), "0+2 2+1 0+4 4+1 0+4 4+2 0+4 4+2 6+1")
  end },

  -- ---- Emitter ------------------------------------------------------------------------------------------------------

  { "blocks are dedented, values placed, depth followed", function(t)
    local w = q.import("gen.emit").new { N = 4, BODY = "a;\nb;" }
    w.push "for (;;) {"
    w [[
          int x = ${N};
            ${BODY}
    ]]
    w.pop "}"
    t.equal(w.text(false), "for (;;) {\n  int x = 4;\n    a;\n    b;\n}\n")
  end },
  { "a line that values make too long goes on behind a comma that is in no string", function(t)
    local w = q.import("gen.emit").new { A = ("a"):rep(40), B = ("b"):rep(50), C = ("c"):rep(70) }
    w.push "{"
    w [[
      f(${B}, "${A}, ${A}", ${B}, ${C});
      #define LONG f(${A}, ${B}, ${C})
    ]]
    w.pop "}"
    local a, b, c = w.values.A, w.values.B, w.values.C
    t.equal(w.text(false), ('{\n  f(%s,\n      "%s, %s",\n      %s,\n      %s);\n#define LONG f(%s, %s, %s)\n}\n')
      :format(b, a, a, b, c, a, b, c))
  end },
  { "a missing value is named", function(t)
    t.says("${M} has no value", function() q.import("gen.emit").new {} "x = ${M};" end)
  end },

  { "helpers that nothing behind them names are left out, and so are their comments", function(t)
    local w = q.import("gen.emit").new {}
    w [[
      typedef unsigned u32;
      typedef float f32v __attribute__((vector_size(32)));
      struct pair { u32 v[2]; };
      /* Twice. */
      fn u32 twice(u32 x) { return 2 * x; }
      fn u32 thrice(u32 x) {
        return x + twice(x);
      }
    ]]
    w.blank()
    w [[
      /* Nobody asks. */
      fn pair split(u32 x) { return {x, thrice(x)}; }
    ]]
    w.blank()
    w "int entry(int thrice_or_so) { return twice(thrice_or_so); }"
    t.equal(w.text(false), "typedef unsigned u32;\n/* Twice. */\nfn u32 twice(u32 x) { return 2 * x; }\n\n"
      .. "int entry(int thrice_or_so) { return twice(thrice_or_so); }\n")
  end },
  { "#line follows the template behind what is left out", function(t)
    local w = q.import("gen.emit").new {}
    w [[
      fn int a() { return 1; }
      fn int b() {
        return 2;
      }
      int c() { return 3; }
    ]]
    local number = debug.getinfo(1, "l").currentline - 2
    local line, rest = w.text(true):match "^#line (%d+) \"[^\n]*\n(.*)$"
    t.equal(tonumber(line), number)
    t.equal(rest, "int c() { return 3; }\n")
  end },

  -- ---- Sandbox ------------------------------------------------------------------------------------------------------

  { "templates cannot open files", refused('templates/t.lua:1: unknown name "io"', 'return io.open "x"') },
  { "templates cannot load code", refused('unknown name "load"', 'return load "return 1"') },
  { "templates cannot set globals", refused('assignment to global "x"', "x = 1") },
  { "a syntax error names file and line", refused("templates/t.lua:2:", "local a = 1\nlocal = 2") },
  { "templates stay below their folder", refused("no path below templates/", 'return use "../gen/json"') },
  { "a missing template is named", function(t)
    t.says("templates/none.lua: no such template", sandbox {}, "none")
  end },
  { "a template's changes of libraries, expressions and what it uses are its own", function(t)
    local load = sandbox {
      lib = "return { list = { 1 }, f = function() return 2 end }",
      poison = [[
        string.rep, string.format, table.concat, math.max, expr.postfix, layout.make = 1
        local lib = use "lib"
        lib.list[1], lib.f = 7
        return (M.__index or M.__add) or "nothing"]],
      after = [[
        local lib = use "lib"
        return ("x"):rep(2) .. string.format("%d", math.max(1, 2)) .. table.concat { lib.list[1], lib.f() }]],
    }
    t.equal(load "poison", "nothing")
    t.equal(load "after", "xx212")
    t.equal(#expr.postfix(expr.var "N", {}), 1)
  end },
  { "what is registered is neither replaced unasked nor changed afterwards", function(t)
    local text = [[local f = format { name = "int4", %s bits = 3, doc = "mine", decode = function(q) return q end }
      f.bits = 9
      return f]]
    local load = sandbox { again = text:format "", mine = text:format "replace = true," }
    t.says("templates/again.lua:1: format int4 is there already, from templates/formats/int.lua:3; with replace = true",
      load, "again")
    load "mine"
    t.equal(resolve("int4").doc, "mine")
    t.equal(resolve("int4").bits, 3)
  end },
}

for _, x in ipairs(mistakes) do
  local fn, argument, message = table.unpack(x)
  cases[#cases + 1] = { message, function(t) t.says(message, fn, argument) end }
end

return cases
