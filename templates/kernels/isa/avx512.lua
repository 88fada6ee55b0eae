-- avx512.lua - AVX-512: what it needs and has, and a format's hooks: weights, multiply, planes, store.
--
-- The code map is a register: vpermw (bf16, up to 5 bits; 6 with two registers), vpermps (f32, 4 or 5 bits), vpermb
-- (int8 from a table). Those read the low bits of an index only, so a code needs no mask. Wider codes are converted.
--
-- 8-bit floats move into place and get another exponent; those without a leading one are looked up.

local literals = use "kernels/common/literals"

local isa = {
  lanes = 16,
  registers = 32,
  sets = { "avx512bw", "avx512dq", "avx512f", "avx512vl" },
  products = { bf16 = { "avx512bf16" }, i8 = { "avx512vbmi", "avx512vnni" } },
  stores = { bf16 = { "avx512bf16" } },
  flags = function(sets)
    return "-m" .. table.concat(sets, " -m") .. " -mprefer-vector-width=512 -ffp-contract=fast"
  end,
  header = "immintrin.h",
  prefetch = true,
}

function isa.at_once(_, V) return V end

-- Floats of 8 bits with a sign.
local small = {}
for _, name in ipairs(types.those(function(t) return t.bits == 8 and (t.mantissa or 0) > 0 end)) do
  small[#small + 1], small[name] = name, types.all[name]
end

-- With i8 the codes, or a table's entries in its unit and 128, are unsigned bytes. Sums begin with what that adds.
function isa.prepare(v)
  local bits, int = v.format.bits, v.format.map.kind == "int"
  v.loose = small[v.format.map.type] or v.PRODUCT == "bf16" and (bits <= 6 or int)
    or v.act == "f32" and (bits <= 5 or int)
    or v.act == "i8" and not int
  if v.PRODUCT ~= v.act then v.FILLED, v.FILL = "uint16_t", "bf16_of_fp8(%s)" end
  if v.act == "i8" then v.ADDED = int and -v.format.map.bias or 128 end
end

local function lookup(w, v, type, count, show, per_line, body)
  w([[
    static const ${TYPE} table[${COUNT}] = { /* the code map; a look-up ignores index bits above the code */
        ${ENTRIES}
    };
    fn weight_t weights(u32v q) {
      return ${BODY};
    }
  ]], { TYPE = type, COUNT = count, BODY = body,
    ENTRIES = literals.entries(v.format.map.values, count, show, per_line) })
end

-- Codes too wide for a register: one f32 for each. Integers become the low bits of 2^23, from which 2^23 is subtracted;
-- others are gathered.
local function number(w, v)
  if v.format.map.kind == "int" then
    w([[
      fn __m512 number(__m512i q) { /* the low bits of 2^23 + q, less 2^23 and the bias; x & mask | 2^23 in one step */
        __m512i x = _mm512_ternarylogic_epi32(q, _mm512_set1_epi32(0x${MASK}), _mm512_set1_epi32(0x4b000000), 0xea);
        return _mm512_sub_ps(_mm512_castsi512_ps(x), _mm512_set1_ps(${MAGIC}));
      }
    ]], { MASK = ("%x"):format((1 << v.format.bits) - 1), MAGIC = ("%d.0f"):format((1 << 23) - v.format.map.bias) })
  else
    local show = function(x)
      return literals.f32(v.PRODUCT == "bf16" and types.value("bf16", types.code("bf16", x)) or x)
    end
    w("static const float table[${COUNT}] = {\n    ${ENTRIES}\n};",
      { COUNT = 1 << v.format.bits, ENTRIES = literals.entries(v.format.map.values, 1 << v.format.bits, show, 4) })
    w "fn __m512 number(__m512i q) { return _mm512_i32gather_ps(q, table, 4); }"
  end
end

-- from_TYPE: 8-bit floats, one in each lane of 32 bits, to f32; bf16_from_TYPE: of 16 bits, to bf16. Both keep f32's
-- exponent in the 8 bits below the sign.
local function small_float(w, type, lane)
  local x, fraction, below = small[type], lane == 32 and 23 or 7, {}
  for i = 1, 1 << x.mantissa do below[i] = (i - 1) * 2.0 ^ (1 - x.bias - x.mantissa) end
  local function show(y) return ("0x%x"):format(string.unpack("<I4", string.pack("<f", y)) >> (32 - lane)) end
  w([[
    static const uint${LANE}_t below_${NAME}[${COUNT}] = { /* what lies below the normal numbers */
        ${TABLE}
    };
    fn ${RESULT} ${NAME}(__m512i q) {
      __m512i x = _mm512_slli_epi${LANE}(_mm512_and_si512(q, _mm512_set1_epi${LANE}(0x7f)), ${SHIFT});
      __m512i normal = _mm512_add_epi${LANE}(x, _mm512_set1_epi${LANE}(${EXPONENT}));
      __m512i sign = _mm512_slli_epi${LANE}(_mm512_and_si512(q, _mm512_set1_epi${LANE}(0x80)), ${SIGN});
      __mmask${COUNT} tiny = _mm512_testn_epi${LANE}_mask(q, _mm512_set1_epi${LANE}(${NORMAL}));
      return (${RESULT})_mm512_or_si512(sign,
          _mm512_mask_permutexvar_epi${LANE}(normal, tiny, q, _mm512_loadu_si512(below_${NAME})));
    }
  ]], { LANE = lane, NAME = (lane == 16 and "bf16_from_" or "from_") .. type, COUNT = 512 // lane,
    TABLE = literals.entries(below, 512 // lane, show, 8), RESULT = lane == 32 and "__m512" or "__m512i",
    SHIFT = fraction - x.mantissa, EXPONENT = ("0x%x"):format((127 - x.bias) << fraction),
    NORMAL = ("0x%x"):format(0x80 - (1 << x.mantissa)), SIGN = lane - 8 })
end

function isa.weights(w, v)
  local bits, map = v.format.bits, v.format.map
  w("typedef ${TYPE} weight_t; /* LANES columns, V values of k */", { TYPE = v.act == "f32" and "__m512" or "__m512i" })
  local function bf16(x) return ("0x%04x"):format(types.code("bf16", x)) end
  local function u8(x) return ("%d"):format(x // map.unit + v.ADDED) end
  for _, type in ipairs(small) do
    if v.has[type] then small_float(w, type, 32) end
  end
  if small[map.type] then
    if v.PRODUCT == "bf16" then small_float(w, map.type, 16) end
    w("fn weight_t weights(u32v q) { return ${FROM}_${TYPE}((__m512i)q); }",
      { FROM = v.PRODUCT == "bf16" and "bf16_from" or "from", TYPE = map.type })
  elseif map.kind == "float" then
    w("fn weight_t weights(u32v q) { return ${BODY}; }", { BODY = v.PRODUCT == "bf16" and "(__m512i)q"
      or ({ f32 = "(__m512)q", bf16 = "(__m512)(q << 16)",
        f16 = "_mm512_cvtph_ps(_mm512_cvtepi32_epi16((__m512i)q))" })[map.type] })
  elseif v.act == "i8" and map.kind == "int" then
    w "fn weight_t weights(u32v q) { return (__m512i)q; } /* unsigned; the sums begin with what the bias adds */"
  elseif v.act == "i8" then
    lookup(w, v, "uint8_t", 64, u8, 16, "_mm512_permutexvar_epi8((__m512i)q, _mm512_loadu_si512(table))")
  elseif v.PRODUCT == "bf16" and bits <= 5 then
    lookup(w, v, "uint16_t", 32, bf16, 8, "_mm512_permutexvar_epi16((__m512i)q, _mm512_loadu_si512(table))")
  elseif v.PRODUCT == "bf16" and bits == 6 then
    lookup(w, v, "uint16_t", 64, bf16, 8,
      "_mm512_permutex2var_epi16(_mm512_loadu_si512(table), (__m512i)q, _mm512_loadu_si512(table + 32))")
  elseif v.act == "f32" and bits <= 4 then
    lookup(w, v, "float", 16, literals.f32, 4, "_mm512_permutexvar_ps((__m512i)q, _mm512_loadu_ps(table))")
  elseif v.act == "f32" and bits == 5 then
    lookup(w, v, "float", 32, literals.f32, 4,
      "_mm512_permutex2var_ps(_mm512_loadu_ps(table), (__m512i)q, _mm512_loadu_ps(table + 16))")
  elseif v.act == "f32" then
    number(w, v)
    w "fn weight_t weights(u32v q) { return number((__m512i)q); }"
  else
    number(w, v)
    w([[
      /* Two codes of a lane to two bf16: the upper halves of two f32, whose lower halves are zero. */
      fn weight_t weights(u32v q) {
        u32v low = (u32v)number((__m512i)${LOW}), high = (u32v)number((__m512i)(q >> 16));
        return (__m512i)(low >> 16 | (high & 0xffff0000));
      }
    ]], { LOW = v.loose and "q" or "(q & 0xffff)" })
  end
  w.blank()
end

local multiply = {
  f32 = [[
    typedef f32v sum_t; /* sums over a group */
    fn sum_t multiply(sum_t s, weight_t w, const float *x, int i) {
      return _mm512_fmadd_ps(w, _mm512_set1_ps(x[i]), s);
    }
    fn f32v as_float(sum_t s) { return s; }
  ]],
  bf16 = [[
    typedef f32v sum_t; /* sums over a group */
    fn sum_t multiply(sum_t s, weight_t w, const uint16_t *x, int i) {
      return _mm512_dpbf16_ps(s, (__m512bh)w, (__m512bh)_mm512_set1_epi32(*(const unaligned_u32 *)(x + i)));
    }
    fn f32v as_float(sum_t s) { return s; }
  ]],
  i8 = [[
    typedef i32v sum_t; /* sums over a group */
    fn sum_t start(int32_t x) { return (i32v)_mm512_set1_epi32(x); }
    fn sum_t multiply(sum_t s, weight_t w, const int8_t *x, int i) {
      return (i32v)_mm512_dpbusd_epi32((__m512i)s, w, _mm512_set1_epi32(*(const unaligned_u32 *)(x + i)));
    }
    fn f32v as_float(sum_t s) { return _mm512_cvtepi32_ps((__m512i)s)${UNIT}; }
  ]],
}

function isa.multiply(w, v)
  local unit = v.format.map.unit
  w(multiply[v.PRODUCT], { UNIT = unit and unit ~= 1 and " * " .. literals.f32(unit) or "" })
  w.blank()
end

local read = {
  f32 = "_mm512_loadu_ps(p)",
  f16 = "_mm512_cvtph_ps(_mm256_loadu_si256(p))",
  bf16 = "(__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p)), 16)",
  e4m3 = "from_e4m3(_mm512_cvtepu8_epi32(_mm_loadu_si128(p)))",
  e5m2 = "from_e5m2(_mm512_cvtepu8_epi32(_mm_loadu_si128(p)))",
  e8m0 = "(__m512)_mm512_max_epu32(_mm512_slli_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128(p)), 23),\n"
    .. "                                  _mm512_set1_epi32(0x400000))",
  u8 = "_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(p)))",
  i8 = "_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p)))",
}

function isa.planes(w, v)
  for _, p in ipairs(v.format.planes) do
    w([[
      fn f32v load_${NAME}(const void *p) { /* ${TYPE} */
        return ${READ};
      }
    ]], { NAME = p.name, READ = read[p.type], TYPE = p.type })
  end
  if #v.format.planes > 0 then w.blank() end
end

local operands = {
  f32 = "_mm512_maskz_loadu_ps(mask, p)",
  f16 = "_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, p))",
  bf16 = "(__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, p)), 16)",
}

-- operand_TYPE(): the first `count` of LANES columns of an operand.
function isa.operand(w, type)
  w([[
    fn f32v operand_${TYPE}(const void *p, int64_t count) {
      __mmask16 mask = count >= 16 ? 0xffff : (__mmask16)((1u << count) - 1);
      return ${READ};
    }
  ]], { TYPE = type, READ = operands[type] })
  w.blank()
end

function isa.store(w, v)
  local body = ({ f32 = "_mm512_mask_storeu_ps(y, mask, s);",
    bf16 = "_mm256_mask_storeu_epi16(y, mask, (__m256i)_mm512_cvtneps_pbh(s));",
    f16 = "_mm256_mask_storeu_epi16(y, mask, _mm512_cvtps_ph(s, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));"
  })[v.out]
  w([[
    /* Write the first `count` of LANES columns. */
    fn void store(${YT} *y, f32v s, int64_t count) {
      __mmask16 mask = count >= 16 ? 0xffff : (__mmask16)((1u << count) - 1);
      ${BODY}
    }
  ]], { YT = v.YT, BODY = body })
  w.blank()
end

return isa
