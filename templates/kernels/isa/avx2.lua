-- avx2.lua - AVX2: what it has beyond portable C, whose vectors have 8 columns here.
--
-- i8: vpmaddubsw multiplies unsigned bytes (weights less the least of the map) by signed ones, and adds two products in
-- 16 bits. With weights up to 128 these fit, and so do chains of several steps: 8 steps for codes of 4 bits. vpmaddwd
-- then adds the halves of a chain to 32 bits. Larger weights (8 bits, wide tables) are widened for vpmaddwd.
--
-- Others are multiplied in f32, as in portable C: the compiler finds vfmadd231ps. A code map of up to 64 entries is
-- looked up in registers: vpshufb (16 bytes), vpermps (8 floats). Halves of larger tables are blended by a bit of the
-- code.
--
-- Of AVX-VNNI, vpdpbusd without AVX-512, nothing is used: it would be a set of its own, another file beside this one.
-- qemu 7.2 does not run it.

local literals = use "kernels/common/literals"
local isa = use "kernels/isa/c"
local portable = { prepare = isa.prepare, number = isa.number, weights = isa.weights, multiply = isa.multiply }

isa.lanes = 8
isa.sets = { "avx2", "f16c", "fma" }
function isa.flags(sets) return "-m" .. table.concat(sets, " -m") .. " -ffp-contract=fast" end
isa.header = "immintrin.h"

-- With i8, the largest of a format's weights as unsigned bytes.
local function most(v) return math.tointeger((v.format.map.hi - v.format.map.lo) / v.format.map.unit) end

function isa.at_once(v) return v.act ~= "i8" and 1 or most(v) <= 128 and 4 or 2 end

-- Steps whose sums of two products with -128 fit 16 bits; as the tile wants them, whole blocks or parts of one.
local function chain(v)
  local steps = (1 << 15) // (2 * 128 * most(v))
  if steps >= v.STEPS then return steps // v.STEPS * v.STEPS end
  local part = v.STEPS
  while part > steps do part = part // 2 end
  return part
end

function isa.prepare(v)
  local map = v.format.map
  if v.act ~= "i8" then
    portable.prepare(v)
    v.loose = v.format.bits <= 3 and map.kind == "int" or v.format.bits <= 6 and map.kind == "table"
    return
  end
  v.loose, v.ADDED = false, math.tointeger(-map.lo / map.unit)
  if v.AT_ONCE == 4 then v.CHAIN = chain(v)
  else v.FILLED = "int16_t" end
end

-- A map's entries, and weights of a vector of codes: lookN() looks into N entries. N of one instruction, and more by
-- halves, of which each code chooses by a bit that is moved to the sign.
local bytes = { vector = "__m256i", entry = "uint8_t", at_once = 16, sign = 7, per_line = 16,
  look = "_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table)), (__m256i)q)",
  blend = "_mm256_blendv_epi8(low, high, (__m256i)(q << ${UP}))" }
local floats = { vector = "f32v", entry = "float", at_once = 8, sign = 31, per_line = 4,
  look = "_mm256_permutevar8x32_ps(_mm256_loadu_ps(table), (__m256i)q)",
  blend = "_mm256_blendv_ps(low, high, (__m256)(q << ${UP}))" }

local function lookup(w, v, kind, show)
  local count, bit = kind.at_once, kind.at_once == 16 and 4 or 3
  local function names(more)
    local out = { VECTOR_T = kind.vector, ENTRY_T = kind.entry, N = count }
    for k, x in pairs(more) do out[k] = x end
    return out
  end
  w("fn ${VECTOR_T} look${N}(const ${ENTRY_T} *table, u32v q) {\n  return ${LOOK};\n}", names { LOOK = kind.look })
  while count < 1 << v.format.bits do
    w([[
      fn ${VECTOR_T} look${TWICE}(const ${ENTRY_T} *table, u32v q) {
        const ${VECTOR_T} low = look${N}(table, q), high = look${N}(table + ${N}, q);
        return ${BLEND};
      }
    ]], names { TWICE = 2 * count, BLEND = kind.blend:gsub("${UP}", kind.sign - bit) })
    count, bit = 2 * count, bit + 1
  end
  w([[
    static const ${ENTRY_T} table[${N}] = { /* the code map; a look-up ignores index bits above the code */
        ${ENTRIES}
    };
    fn ${VECTOR_T} look(u32v q) { return look${N}(table, q); }
  ]], names { ENTRIES = literals.entries(v.format.map.values, count, show, kind.per_line) })
end

function isa.number(w, v)
  if v.loose then
    lookup(w, v, floats, literals.f32)
    w "fn f32v number(u32v q) { return look(q); }"
  elseif v.format.map.type == "f16" then
    w [[
      fn f32v number(u32v q) {
        const __m256i pairs = _mm256_packus_epi32((__m256i)q, (__m256i)q); /* columns 0 - 3 twice, 4 - 7 twice */
        return _mm256_cvtph_ps(_mm256_castsi256_si128(_mm256_permute4x64_epi64(pairs, 0x08)));
      }
    ]]
  else portable.number(w, v) end
end

function isa.weights(w, v)
  local map = v.format.map
  if v.act ~= "i8" then return portable.weights(w, v) end
  v.isa.small_floats(w, v)
  local of = "(__m256i)q"
  if map.kind == "table" then
    lookup(w, v, bytes, function(x) return ("%d"):format(x // map.unit + v.ADDED) end)
    of = "look(q)"
  end
  if v.AT_ONCE == 4 then
    w([[
      typedef __m256i weight_t; /* LANES columns, V values of k, less the least of the map */
      fn weight_t weights(u32v q) { return ${OF}; }
    ]], { OF = of })
  else
    w([[
      typedef struct { __m256i of[V / AT_ONCE]; } weight_t; /* the same in 16 bits: first values of k, last ones */
      fn weight_t weights(u32v q) {
        const u32v first = { /* of each column's bytes 0 and 1, with zeros above them */
            0x80018000, 0x80058004, 0x80098008, 0x800d800c, 0x80018000, 0x80058004, 0x80098008, 0x800d800c};
        const __m256i x = ${OF}, second = (__m256i)(first + 0x00020002);
        return (weight_t){{_mm256_shuffle_epi8(x, (__m256i)first), _mm256_shuffle_epi8(x, second)}};
      }
    ]], { OF = of })
  end
  w.blank()
end

local multiply = {
  [4] = [[
    typedef int16_t i16v __attribute__((vector_size(4 * LANES)));
    typedef struct { i32v sum; i16v chain; } sum_t; /* sums over a group; those of its last steps, in 16 bits */
    fn sum_t start(int32_t x) { return (sum_t){(i32v)_mm256_set1_epi32(x), {0}}; }
    fn sum_t multiply(sum_t s, weight_t w, const int8_t *x, int i) {
      s.chain += (i16v)_mm256_maddubs_epi16(w, _mm256_set1_epi32(*(const unaligned_u32 *)(x + i)));
      __asm__("" : "+x"(s.chain)); /* one after the other: all products first would not fit the registers */
      return s;
    }
    fn i32v whole(sum_t s) { return s.sum + (i32v)_mm256_madd_epi16((__m256i)s.chain, _mm256_set1_epi16(1)); }
    fn sum_t settle(sum_t s) { return (sum_t){whole(s), {0}}; }
    fn f32v as_float(sum_t s) { return _mm256_cvtepi32_ps((__m256i)whole(s))${UNIT}; }
  ]],
  [2] = [[
    typedef i32v sum_t; /* sums over a group */
    fn sum_t start(int32_t x) { return (i32v)_mm256_set1_epi32(x); }
    fn sum_t multiply(sum_t s, weight_t w, const int16_t *x, int i) {
      const __m256i pair = _mm256_set1_epi32(*(const unaligned_u32 *)(x + i));
      s += (i32v)_mm256_madd_epi16(w.of[i / AT_ONCE], pair);
      __asm__("" : "+x"(s)); /* one after the other: all products first would not fit the registers */
      return s;
    }
    fn f32v as_float(sum_t s) { return _mm256_cvtepi32_ps((__m256i)s)${UNIT}; }
  ]],
}

function isa.multiply(w, v)
  if v.act ~= "i8" then return portable.multiply(w, v) end
  local unit = v.format.map.unit
  w(multiply[v.AT_ONCE], { UNIT = unit ~= 1 and " * " .. literals.f32(unit) or "" })
  w.blank()
end

isa.read.f16 = { "u16v", "_mm256_cvtph_ps((__m128i)x)" }

-- To the type of y: `out`, a vector.
local rounded = {
  f32 = "const f32v out = s;",
  f16 = "const u16v out = (u16v)_mm256_cvtps_ph(s, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);",
  bf16 = [[
    const u32v u = (u32v)s, nan = (u32v)((u & 0x7fffffff) > 0x7f800000); /* to nearest even; NaN stays NaN */
    const u16v out = __builtin_convertvector((u + (~nan & (0x7fff + (u >> 16 & 1))) | (nan & 0x400000)) >> 16, u16v);
  ]],
}

function isa.store(w, v)
  w([[
    /* Write the first `count` of LANES columns. */
    fn void store(${YT} *y, f32v s, int64_t count) {
      ${ROUNDED}
      if (count >= LANES) {
        __builtin_memcpy(y, &out, sizeof out);
        return;
      }
      for (int i = 0; i < count; i++) y[i] = out[i];
    }
  ]], { YT = v.YT, ROUNDED = rounded[v.out] })
  w.blank()
end

return isa
