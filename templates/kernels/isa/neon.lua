-- neon.lua - aarch64's Advanced SIMD. What it has no better instruction for is portable C's.
--
--   activations   multiplied by                              the CPU must have
--   i8            sdot: quads of i8; 128 is taken from       dotprod
--                 codes of 8 bits, to be signed
--   bf16, e4m3    bfdot: pairs of bf16                       bf16
--   f32           fmla
--
-- A code map of up to 128 bytes is in registers. tbl looks up bytes in one, two or four of them: beyond these it gives
-- 0, and tbx leaves what was there. Wider codes are converted.

local literals = use "kernels/common/literals"

local isa = use "kernels/isa/c"

isa.registers = 32
isa.sets = { "aarch64" }
isa.products = { bf16 = { "bf16" }, i8 = { "dotprod" } }
isa.header = "arm_neon.h"

function isa.at_once(_, V) return V end

-- GCC would call memset for so many at a time, and there is none.
isa.sums = [[
f32v acc[MR][P];
for (int r = 0; r < MR; r++)
  for (int p = 0; p < P; p++) acc[r][p] = (f32v){0};]]

-- Extensions are those of Armv8.2; the machine itself is none.
function isa.flags(sets)
  local more = ""
  for _, set in ipairs(sets) do
    if set ~= "aarch64" then more = more .. "+" .. set end
  end
  return ("-march=%s%s -ffp-contract=fast"):format(more == "" and "armv8-a" or "armv8.2-a", more)
end

function isa.prepare(v)
  local map = v.format.map
  v.loose = false
  if v.PRODUCT ~= v.act then v.FILLED, v.FILL = "uint16_t", "bf16_of_fp8(%s)" end
  v.ADDED = v.act == "i8" and map.kind == "int" and -map.bias - (v.format.bits == 8 and 128 or 0) or 0
end

isa.read.f16 = { "u16v", "(f32v)vcvt_f32_f16((float16x4_t)x)" }
isa.convert.f16 = "fn uint16_t convert(float x) { return (union { _Float16 f; uint16_t u; }){(_Float16)x}.u; }"

-- By activation type: the type of weights; that of a table's entries, their bytes, and where they are for codes q; the
-- step of the product.
local arithmetic = {
  f32 = { "float32x4_t", "float", 4, "q * 0x4040404 + 0x3020100", [[
    typedef f32v sum_t; /* sums over a group */
    fn sum_t multiply(sum_t s, weight_t w, const float *x, int i) {
      return (f32v)vfmaq_n_f32((float32x4_t)s, w, x[i]);
    }
    fn f32v as_float(sum_t s) { return s; }
  ]] },
  bf16 = { "bfloat16x8_t", "uint16_t", 2, "(uint16x8_t)q * 0x202 + 0x100", [[
    typedef f32v sum_t; /* sums over a group */
    fn sum_t multiply(sum_t s, weight_t w, const uint16_t *x, int i) {
      return (f32v)vbfdotq_f32((float32x4_t)s, w, (bfloat16x8_t)vdupq_n_u32(*(const unaligned_u32 *)(x + i)));
    }
    fn f32v as_float(sum_t s) { return s; }
  ]] },
  i8 = { "int8x16_t", "int8_t", 1, "q", [[
    typedef i32v sum_t; /* sums over a group */
    fn sum_t start(int32_t x) { return (i32v)vdupq_n_s32(x); }
    fn sum_t multiply(sum_t s, weight_t w, const int8_t *x, int i) {
      return (i32v)vdotq_s32((int32x4_t)s, w, (int8x16_t)vdupq_n_u32(*(const unaligned_u32 *)(x + i)));
    }
    fn f32v as_float(sum_t s) { return __builtin_convertvector(s, f32v)${UNIT}; }
  ]] },
}

local tbl = {
  "vqtbl1q_u8(vld1q_u8(table), at)",
  "vqtbl2q_u8(vld1q_u8_x2(table), at)",
  [4] = "vqtbl4q_u8(vld1q_u8_x4(table), at)",
  [8] = "vqtbx4q_u8(vqtbl4q_u8(vld1q_u8_x4(table), at), vld1q_u8_x4(table + 64), at - 64)",
}

-- A table's entry.
local shown = {
  f32 = function() return literals.f32 end,
  bf16 = function() return function(x) return ("0x%04x"):format(types.code("bf16", x)) end end,
  i8 = function(v) return function(x) return ("%d"):format(x // v.format.map.unit) end end,
}

local function rounded(x) return literals.f32(types.value("bf16", types.code("bf16", x))) end

-- weights() by look-up: bytes of the code map, in registers.
local function look_up(w, v, registers, element, bytes, at)
  local count = registers * 16 // bytes
  w([[
    static const ${ELEMENT} map[${COUNT}] = { /* the code map */
        ${ENTRIES}
    };
    fn weight_t weights(u32v q) {
      const uint8_t *table = (const uint8_t *)map;
      const uint8x16_t at = (uint8x16_t)(${AT}); /* where its bytes are */
      return (weight_t)${LOOK_UP};
    }
  ]], { ELEMENT = element, COUNT = count, AT = at, LOOK_UP = tbl[registers],
    ENTRIES = literals.entries(v.format.map.values, count, shown[v.PRODUCT](v), bytes == 1 and 16 or 8) })
end

-- weights() by conversion, or none.
local function convert(w, v)
  local body = v.act == "i8" and (v.format.bits == 8 and "q ^ 0x80808080" or "q") or v.act == "f32" and "number(q)"
    or v.format.map.type == "bf16" and "q"
  if v.act ~= "i8" and body ~= "q" then isa.number(w, v, v.PRODUCT == "bf16" and rounded or nil) end
  if body then w("fn weight_t weights(u32v q) { return (weight_t)(${BODY}); }", { BODY = body }) return end
  w [[
    fn weight_t weights(u32v q) { /* the upper halves of two f32, whose lower halves are zero */
      return (weight_t)vtrn2q_u16((uint16x8_t)number(q & 0xffff), (uint16x8_t)number(q >> 16));
    }
  ]]
end

function isa.weights(w, v)
  local map, vector, element, bytes, at = v.format.map, table.unpack(arithmetic[v.PRODUCT])
  local registers = math.max((bytes << v.format.bits) // 16, 1)
  isa.small_floats(w, v)
  w("typedef ${VECTOR} weight_t; /* LANES columns, V values of k */", { VECTOR = vector })
  if tbl[registers] and (map.kind == "table" or map.kind == "int" and v.PRODUCT == "bf16") then
    look_up(w, v, registers, element, bytes, at)
  else
    convert(w, v)
  end
  w.blank()
end

function isa.multiply(w, v)
  local unit = v.format.map.unit
  w(arithmetic[v.PRODUCT][5], { UNIT = unit and unit ~= 1 and " * " .. literals.f32(unit) or "" })
  w.blank()
end

return isa
