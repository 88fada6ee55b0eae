-- c.lua - portable C: GCC's vector types, as wide as the CPU's own; a format's hooks: weights, multiply, planes, store.
--
-- Every activation type is multiplied in f32. With i8 that is exact within a group: each sum of integers stays below
-- 2^24 (rule "i8-exact"). X is converted once per call; a lane of V codes becomes V vectors of f32.

local literals = use "kernels/common/literals"

local isa = { lanes = 4, registers = 16, sets = {}, products = {}, stores = {} }

-- A product and its sum may be one instruction; the kernels do not depend on which.
function isa.flags() return "-ffp-contract=fast" end

function isa.at_once() return 1 end

function isa.prepare(v)
  v.loose = false
  v.FILLED, v.FILL = "float", v.VALUE
end

-- Floats that are narrower than f32 and no part of one.
local small = types.those(function(t)
  return t.kind == "float" and t.bits < 32 and t.mantissa > 0 and t.exponent < 8
end)

-- from_TYPE: narrow floats to f32.
function isa.small_floats(w, v)
  for _, type in ipairs(small) do
    local t = types.all[type]
    if v.has[type] then
      w([[
        /* A small float moved into f32's place is itself times a power of two, subnormals included. */
        fn f32v from_${TYPE}(u32v q) {
          f32v x = (f32v)((q & ${MAGNITUDE}) << ${SHIFT}) * ${POWER};
          return (f32v)((u32v)x | (q & ${SIGN}) << ${UP});
        }
      ]], { TYPE = type, MAGNITUDE = ("0x%x"):format((1 << t.bits - 1) - 1), SHIFT = 23 - t.mantissa,
        POWER = ("0x1p%df"):format(127 - t.bias), SIGN = ("0x%x"):format(1 << t.bits - 1), UP = 32 - t.bits })
    end
  end
end

-- number(): codes in 32-bit lanes to map(q). show: an entry of a table as C (default: f32).
function isa.number(w, v, show)
  local map, bits = v.format.map, v.format.bits
  if map.kind == "float" then
    local body = ({ f32 = "(f32v)q", bf16 = "(f32v)(q << 16)" })[map.type] or ("from_%s(q)"):format(map.type)
    w("fn f32v number(u32v q) { return ${BODY}; }", { BODY = body })
  elseif map.kind == "int" then
    local bias = map.bias == 0 and "" or map.bias > 0 and " + " .. map.bias or " - " .. -map.bias
    w("fn f32v number(u32v q) { return __builtin_convertvector((i32v)q${BIAS}, f32v); }", { BIAS = bias })
  else
    w([=[
      static const float table[${COUNT}] = { /* the code map */
          ${ENTRIES}
      };
      fn f32v number(u32v q) {
        f32v out;
        for (int i = 0; i < LANES; i++) out[i] = table[q[i]];
        return out;
      }
    ]=], { COUNT = 1 << bits, ENTRIES = literals.entries(map.values, 1 << bits, show or literals.f32, 4) })
  end
end

function isa.weights(w, v)
  v.isa.small_floats(w, v)
  v.isa.number(w, v)
  w([[
    typedef struct { f32v of[V]; } weight_t; /* LANES columns, V values of k */
    fn weight_t weights(u32v q) {
      weight_t w;
    #pragma GCC unroll 4
      for (int i = 0; i < V; i++) w.of[i] = number(q >> (${LANE} * i)${CUT});
      return w;
    }
  ]], { CUT = v.LANE < 32 and not v.loose and (" & 0x%x"):format((1 << v.LANE) - 1) or "" })
  w.blank()
end

function isa.multiply(w)
  w [[
    typedef f32v sum_t; /* sums over a group */
    fn sum_t multiply(sum_t s, weight_t w, const float *x, int i) { return s + w.of[i] * x[i]; }
    fn f32v as_float(sum_t s) { return s; }
  ]]
  w.blank()
end

-- Of each type of a plane: the vector that is loaded, as x, and its value, where q is x in 32-bit lanes.
isa.read = {
  f32 = { "f32v", "x" },
  f16 = { "u16v", "from_f16(q)" },
  e4m3 = { "u8v", "from_e4m3(q)" },
  e5m2 = { "u8v", "from_e5m2(q)" },
  e8m0 = { "u8v", "(f32v)(q << 23 | ((u32v)(q == 0) & 0x400000))" },
  bf16 = { "u16v", "(f32v)(q << 16)" },
  u8 = { "u8v", "__builtin_convertvector(x, f32v)" },
  i8 = { "u8v", "__builtin_convertvector((i32v)(q << 24) >> 24, f32v)" },
}

function isa.planes(w, v)
  for _, p in ipairs(v.format.planes) do
    local vector, value = table.unpack(v.isa.read[p.type])
    w([[
      fn f32v load_${NAME}(const void *p) { /* ${TYPE} */
        ${VECTOR} x;
        __builtin_memcpy(&x, p, sizeof x);
        ${LANES32}
        return ${VALUE};
      }
    ]], { NAME = p.name, TYPE = p.type, VECTOR = vector, VALUE = value,
      LANES32 = value:find "%f[%w]q%f[%W]" and "const u32v q = __builtin_convertvector(x, u32v);" or "" })
  end
  if #v.format.planes > 0 then w.blank() end
end

-- convert(x): f32 to a narrower output.
isa.convert = {
  bf16 = [[
    /* To bf16, to nearest even; NaN stays NaN. */
    fn uint16_t convert(float x) {
      uint32_t u = (union { float f; uint32_t u; }){x}.u;
      if ((u & 0x7fffffff) > 0x7f800000) return (uint16_t)(u >> 16 | 0x40);
      return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
    }
  ]],
  f16 = [[
    /* To half, to nearest even: adding 2^k rounds at the bit that half keeps; NaN stays NaN. */
    fn uint16_t convert(float x) {
      uint32_t u = (union { float f; uint32_t u; }){x}.u, sign = u >> 16 & 0x8000, e = u >> 23 & 0xff;
      u &= 0x7fffffff;
      if (u > 0x7f800000) return (uint16_t)(sign | 0x7e00);
      if (u >= 0x477ff000) return (uint16_t)(sign | 0x7c00);
      if (e < 113) { /* below 2^-14: a multiple of 2^-24 */
        float a = (union { uint32_t u; float f; }){u}.f + 0.5f;
        return (uint16_t)(sign | ((union { float f; uint32_t u; }){a}.u - 0x3f000000));
      }
      return (uint16_t)(sign | (u - 0x38000000 + 0xfff + (u >> 13 & 1)) >> 13);
    }
  ]],
}

local operands = {
  f32 = { "const unaligned_u32", "return (f32v)q;" },
  bf16 = { "const uint16_t", "return (f32v)(q << 16);" },
  f16 = { "const uint16_t", [[
    u32v x = (u32v)((f32v)((q & 0x7fff) << 13) * 0x1p112f) | ((u32v)((q & 0x7c00) == 0x7c00) & 0x7f800000);
    return (f32v)(x | (q & 0x8000) << 16);
  ]] },
}

-- operand_TYPE(): the first `count` of LANES columns of an operand.
function isa.operand(w, type)
  w([[
    fn f32v operand_${TYPE}(const void *p, int64_t count) {
      ${ELEMENT} *from = p;
      u32v q = {0};
      for (int i = 0; i < LANES && i < count; i++) q[i] = from[i];
      ${RESULT}
    }
  ]], { TYPE = type, ELEMENT = operands[type][1], RESULT = operands[type][2] })
  w.blank()
end

function isa.store(w, v)
  local convert = v.isa.convert[v.out]
  if convert then w(convert) end
  w([[
    /* Write the first `count` of LANES columns. */
    fn void store(${YT} *y, f32v s, int64_t count) {
      for (int i = 0; i < LANES && i < count; i++) y[i] = ${VALUE};
    }
  ]], { YT = v.YT, VALUE = convert and "convert(s[i])" or "s[i]" })
  w.blank()
end

return isa
