-- cuda.lua - what the CUDA families share: types, numbers as bits, the head of a source, helpers in PTX, rules.
--
-- No header is included, so that a source compiles where only NVRTC is installed. A register that holds two 16-bit
-- floats is a u32, the element of lower k in the low half.

local fragment = use "layouts/cuda_fragment"
local epilogue = use "kernels/common/epilogue"
local literals = use "kernels/common/literals"
local cuda = { fragment = fragment, f32 = literals.f32 }

-- Element types in CUDA: narrow floats are their bits.
cuda.ctype = {}
for name, t in pairs(types.all) do
  cuda.ctype[name] = name == "f32" and "float" or (t.kind == "signed" and "s" or "u") .. t.bits
end

-- ---- Numbers as bits ------------------------------------------------------------------------------------------------

-- Arithmetic of a 16-bit float type: `magic` is the number whose last bit is worth one, 2^significand; adding a code to
-- its bits adds the code to its value.
local function half(name)
  local t = types.all[name]
  return { name = name, significand = t.mantissa, bias = t.bias, max = t.max,
    magic = types.code(name, 2.0 ^ t.mantissa), bits = function(x) return types.code(name, x) end }
end
cuda.half = { f16 = half "f16", bf16 = half "bf16" }

-- 8-bit floats: bits of the significand that are stored, the bias of the exponent, the largest number.
cuda.float8 = {}
for name, t in pairs(types.all) do
  if t.bits == 8 and (t.mantissa or 0) > 0 then
    cuda.float8[name] = { significand = t.mantissa, bias = t.bias, max = t.max }
  end
end

-- Does 16-bit type t hold x exactly?
function cuda.exact(t, x) return types.value(t, types.code(t, x)) == x end

-- The constant x in both halves of a register.
function cuda.pair(t, x)
  local b = cuda.half[t].bits(x)
  return ("0x%04x%04x"):format(b, b)
end

-- The 16-bit type in which weights meet activations of type `act`: f16 holds every number that 8 bits have.
function cuda.half_of(act) return types.scaled(act) and "f16" or act end

-- ---- What a format asks for -----------------------------------------------------------------------------------------

-- A list less one x; nil if it has none.
local function without(list, x)
  local out = { table.unpack(list) }
  for i, y in ipairs(out) do
    if y == x then table.remove(out, i); return out end
  end
end

-- The plane of an integer zero point: the term is -zero x scale, and codes are integers.
local function zero_point(f, term)
  local left = term.planes
  for _, s in ipairs(f.scale) do left = left and without(left, s) end
  local p = left and #left == 1 and f.planes[f.planes[left[1]]]
  return p and p.type == "u8" and term.coefficient == -1 and f.map.kind == "int" and p.name or nil
end

-- What a kernel that multiplies in 16-bit floats does with the planes:
--
--   W = ((map(q) - zero) x scale + offset) x row
--
-- zero     an integer plane, taken from the codes exactly; or nil
-- scale    planes, offset: terms
-- row      planes without groups that are factors of all: they wait for the sum over K
function cuda.roles(f)
  local r = { scale = f.scale, offset = {}, row = {} }
  for _, term in ipairs(f.offset) do
    local zero = not r.zero and zero_point(f, term)
    if zero then r.zero = zero else r.offset[#r.offset + 1] = term end
  end
  for _, name in ipairs(f.scale) do
    local everywhere = f.planes[f.planes[name]].cols == 0
    for _, term in ipairs(r.offset) do everywhere = everywhere and without(term.planes, name) end
    if everywhere then
      r.row[#r.row + 1], r.scale = name, without(r.scale, name)
      for i, term in ipairs(r.offset) do
        r.offset[i] = { coefficient = term.coefficient, planes = without(term.planes, name) }
      end
    end
  end
  return r
end

-- Do signed 8-bit integers hold map(q) / unit, less its zero point?
function cuda.integer(f)
  local m, zero = f.map, cuda.roles(f).zero
  if m.kind == "float" or not m.unit then return false end
  local most = zero and 1 << math.min(f.bits, 7) or 0 -- a zero point may be one beyond the codes
  return m.lo / m.unit - most >= -128 and m.hi / m.unit <= 127
end

-- Is there a plane that is stored as `type`?
function cuda.has_plane(v, type)
  for _, p in ipairs(v.planes) do if p.type == type then return true end end
  return false
end

-- Arguments that operands take: { name, declaration }, each with its stride behind it.
local function arguments(operands)
  local out = {}
  for _, o in ipairs(operands) do
    out[#out + 1] = { o.name, ("const %s *%s"):format(cuda.ctype[o.type], o.name) }
    if o.stride then out[#out + 1] = { o.stride, "int " .. o.stride } end
  end
  return out
end

-- The names, or the declarations, of arguments, with a comma behind each.
local function text(list, what)
  local out = ""
  for _, x in ipairs(list) do out = out .. x[what] .. ", " end
  return out
end

-- Arguments that the result meets, as they follow x, w and y, and the text of their declarations and names.
function cuda.extra(v)
  local rest = {}
  for _, o in ipairs(v.problem.operands) do if o.name ~= "x" and o.name ~= "y" then rest[#rest + 1] = o end end
  return arguments(rest)
end
function cuda.extra_declared(v) return text(cuda.extra(v), 2) end
function cuda.extra_names(v) return text(cuda.extra(v), 1) end

-- CTAs that a multiprocessor shall hold, for __launch_bounds__: as many as an estimate of registers allows, up to 1024
-- threads. Left alone, the assembler gives up registers, and spills, for a few more warps. Each of the four schedulers
-- has a quarter of the registers for its warps, and gives them out by eight.
function cuda.min_blocks(v, registers, threads)
  local warps = 4 * ((v.device.regs or 65536) // (4 * 32) // ((registers + 7) // 8 * 8))
  return math.max(1, math.min(warps // (threads // 32), 1024 // threads))
end

-- ---- Rules ----------------------------------------------------------------------------------------------------------

cuda.rules = {
  act = { name = "act", why = ("CUDA kernels take %s activations"):format(types.words(targets.acts "cuda")),
    ok = function(v) return targets.takes("cuda", v.act) end },
}

-- Codes must stay exact when they are put into a 16-bit float; `type` says which, for a variant.
function cuda.range_rule(type)
  return { name = "range",
    why = "the code map must fit a 16-bit float: integers within -255 .. 255, tables within its range",
    ok = function(v)
      local m = v.format.map
      if m.kind == "float" then return true end
      if m.kind == "int" then return m.lo >= -255 and m.hi <= 255 end
      return math.max(-m.lo, m.hi) <= cuda.half[type(v)].max
    end }
end

-- ---- Source: head, types, PTX ---------------------------------------------------------------------------------------

function cuda.head(w, v)
  w([[
    /* ${NAME}: Y[M,N] = X[M,K] . W[N,K]^T on CUDA
     *
     * weights ${FORMAT}, activations ${ACT}, output ${OUT}${EPILOGUE}
     * ${PRECISION}
     * layout ${LAYOUT_NAME}: four 16 x 16 fragments to a record, see templates/layouts/cuda_fragment.lua
     * written by Quernel from ${FILE}; parameters:
     *  ${PARAMETERS} */
    typedef signed char s8;
    typedef unsigned char u8;
    typedef unsigned short u16;
    typedef unsigned int u32;
    typedef unsigned long long u64;
    typedef long long i64;
    struct __align__(8) u32x2 { u32 v[2]; };
    struct __align__(16) u32x4 { u32 v[4]; };
    struct f32x2 { float v[2]; };

    #define fn static __device__ __forceinline__
  ]], { NAME = v.def.name, FORMAT = v.format.name, ACT = v.act, OUT = v.out, EPILOGUE = epilogue.remark(v),
    PRECISION = v.PRECISION, LAYOUT_NAME = v.layout.name, FILE = v.def.file, PARAMETERS = literals.parameters(v) })
  w.blank()
end

local half_arithmetic = [[
  fn u32 fma2(u32 a, u32 b, u32 c) {
    u32 d;
    asm("fma.rn.${T}x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
  }
  fn u32 add2(u32 a, u32 b) { return fma2(a, ${ONE}, b); }
  fn u32 mul2(u32 a, u32 b) { return fma2(a, b, 0x80008000); } /* -0 leaves a product its sign */
]]

-- f32_of_TYPE(): one element of a plane.
local to_f32 = {
  f16 = [[
    fn float f32_of_f16(u16 h) {
      float f;
      asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
      return f;
    }
  ]],
  bf16 = [[
    fn float f32_of_bf16(u16 h) { return __uint_as_float((u32)h << 16); }
  ]],
  u8 = [[
    fn float f32_of_u8(u8 b) { return (float)b; }
  ]],
  i8 = [[
    fn float f32_of_i8(s8 b) { return (float)b; }
  ]],
  e4m3 = [[
    fn float f32_of_e4m3(u8 b) { /* its fields in those of f32; then the difference of the biases, 120 */
      return __uint_as_float((b & 0x80) << 24 | (b & 0x7f) << 20) * 0x1p120f;
    }
  ]],
  e5m2 = [[
    fn float f32_of_e5m2(u8 b) { return f32_of_f16((u16)(b << 8)); }
  ]],
  e8m0 = [[
    fn float f32_of_e8m0(u8 b) { /* 2^(b - 127); 0 is below the normal numbers. The compiler would choose by branches */
      u32 u;
      asm("max.u32 %0, %1, %2;" : "=r"(u) : "r"((u32)b << 23), "r"(1 << 22));
      return __uint_as_float(u);
    }
  ]],
}

local from_f32 = {
  f16 = [[
    fn u16 f16_of_f32(float f) {
      u16 h;
      asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
      return h;
    }
  ]],
  bf16 = [[
    fn u16 bf16_of_f32(float f) { /* to nearest even; NaN stays one */
      u32 u = __float_as_uint(f);
      return f == f ? (u + 0x7fff + (u >> 16 & 1)) >> 16 : 0x7fff;
    }
  ]],
}

-- Helpers for the variant's 16-bit type `t` (v.HALF) and the output.
function cuda.helpers(w, v)
  local t = v.HALF
  w [[
    fn u32 and_or(u32 a, u32 mask, u32 bits) {
      u32 d;
      asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(d) : "r"(a), "r"(mask), "r"(bits));
      return d;
    }
    fn u32 prmt(u32 a, u32 b, u32 selector) {
      u32 d;
      asm("prmt.b32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(selector));
      return d;
    }
  ]]
  if not v.BYTE and (v.format.bits <= 8 or types.scaled(v.act)) then
    w(half_arithmetic, { T = t, ONE = cuda.pair(t, 1) })
  end
  w(to_f32.f16)
  w(to_f32.bf16)
  for _, type in ipairs { "u8", "i8", "e4m3", "e5m2", "e8m0" } do
    if v.act == type or cuda.has_plane(v, type) then w(to_f32[type]) end
  end
  if v.out ~= "f32" then w(from_f32[v.out]) end
  w([[
    fn float low(u32 a) { return f32_of_${T}((u16)a); }
    fn float high(u32 a) { return f32_of_${T}((u16)(a >> 16)); }
    fn ${YT} output(float f) { return ${CONVERT}; }
  ]], { T = t, YT = cuda.ctype[v.out], CONVERT = v.out == "f32" and "f" or v.out .. "_of_f32(f)" })
  w.blank()
  if v.PDL then
    w [[
      /* The grid before this one, of which X may come, has ended. */
      fn void wait_for_grid() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
      /* The grid behind this one may begin, and waits for its end. */
      fn void let_next_begin() { asm volatile("griddepcontrol.launch_dependents;"); }
    ]]
    w.blank()
  end
  if epilogue.any(v) then cuda.epilogue(w, v) end
end

local functions = {
  exponential = [[
    fn float exponential(float x) { /* 2^-22 off at most, and as far as the product is rounded */
      float y;
      asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x * 1.44269504f));
      return y;
    }
  ]],
  positive = "fn float positive(float x) { return x < 0.0f ? 0.0f : x; }",
  magnitude = "fn float magnitude(float x) { return x < 0.0f ? -x : x; }",
}

-- epilogue(): from the sum for Y[m, n] to what is stored.
function cuda.epilogue(w, v)
  epilogue.functions(w, v, "float", functions)
  w.push("fn float epilogue(float v, ${UP}${OPERANDS}int m, int n${HALF}) {",
    { OPERANDS = text(arguments(epilogue.operands(v)), 2), UP = v.problem.gated and "float up, " or "",
      HALF = v.problem.gated and ", int half" or "" })
  epilogue.steps(w, v, function(o, up)
    local column = o.columns and (up and "n + half" or "n") or "0"
    local at = (o.tokens and "(i64)m * " .. o.stride .. " + " or "") .. column
    return o.type == "f32" and ("%s[%s]"):format(o.name, at) or ("f32_of_%s(%s[%s])"):format(o.type, o.name, at)
  end)
  w "return v;"
  w.pop "}"
  w.blank()
end

-- What is stored for the text `sum`, at the texts m and n. With *gate `sum` is the gate's, `up` that of the other row,
-- and Y has so many `columns`.
function cuda.stored(v, sum, m, n, up, columns)
  if not epilogue.any(v) then return sum end
  local names = text(arguments(epilogue.operands(v)), 1)
  if v.problem.gated then return ("epilogue(%s, %s, %s%s, %s, %s)"):format(sum, up, names, m, n, columns) end
  return ("epilogue(%s, %s%s, %s)"):format(sum, names, m, n)
end

-- Two f32 rounded to a register; needs sm_80 for bf16.
function cuda.pack2(w, v)
  w([[
    fn u32 pack2(float lo, float hi) {
      u32 d;
      asm("cvt.rn.${T}x2.f32 %0, %1, %2;" : "=r"(d) : "f"(hi), "f"(lo));
      return d;
    }
  ]], { T = v.HALF })
  w.blank()
end

return cuda
