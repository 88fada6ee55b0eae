-- host_c.lua - a format's hooks in portable C: GCC's vector types, which the compiler turns into whatever the CPU has.

local host = use "kernels/common/host"
local hooks = {}

function hooks.prepare(v) v.loose = false end

function hooks.weights(w, v)
  local map, bits = v.format.map, v.format.bits
  local number = v.act == "i8" and "i32x16" or "f32x16"
  w("typedef struct { ${TYPE} v[V]; } weight_t; /* 16 columns for each of V values of k */", { TYPE = number })
  if map.kind == "float" then
    if map.type == "f16" then host.half(w) end
    w("fn f32x16 number(u32x16 q) { return ${BODY}; }", { BODY = ({ f32 = "(f32x16)q", bf16 = "(f32x16)(q << 16)", f16 = "from_f16(q)" })[map.type] })
  elseif map.kind == "int" then
    w("fn ${TYPE} number(u32x16 q) { return ${BODY}; }", { TYPE = number, BODY = v.act == "i8" and "(i32x16)q"
      or ("__builtin_convertvector((i32x16)q + %d, f32x16)"):format(v.BIAS) })
  else
    local show = v.act == "i8" and function(x) return ("%d"):format(x + v.TABLE_BIAS) end or host.f32
    w([=[
      static const ${ITEM} table[${COUNT}] = { /* the code map */
          ${ENTRIES}
      };
      fn ${TYPE} number(u32x16 q) {
        ${TYPE} out;
        for (int i = 0; i < 16; i++) out[i] = table[q[i]];
        return out;
      }
    ]=], { ITEM = v.act == "i8" and "int32_t" or "float", TYPE = number, COUNT = 1 << bits, ENTRIES = host.entries(v, 1 << bits, show, 4) })
  end
  w([[
    fn weight_t weights(u32x16 q) {
      weight_t w;
      for (int i = 0; i < V; i++) w.v[i] = number(q >> (${LANE} * i)${CUT});
      return w;
    }
  ]], { CUT = v.LANE < 32 and (" & 0x%x"):format((1 << v.LANE) - 1) or "" })
  w.blank()
end

function hooks.multiply(w, v)
  local item = ({ f32 = "x[i]", bf16 = "from_bf16(x[i])", i8 = "x[i]" })[v.act]
  w([[
    typedef ${SUM} sum_t; /* sums over a group */
    ${FROM_BF16}
    fn sum_t multiply(sum_t s, weight_t w, const ${XT} *x) {
      for (int i = 0; i < V; i++) s += w.v[i] * ${ITEM};
      return s;
    }
    fn f32x16 as_float(sum_t s) { return ${AS_FLOAT}; }
  ]], { SUM = v.act == "i8" and "i32x16" or "f32x16", ITEM = item,
    FROM_BF16 = v.act == "bf16" and "fn float from_bf16(uint16_t x) { return (union { uint32_t u; float f; }){(uint32_t)x << 16}.f; }" or "",
    AS_FLOAT = v.act == "i8" and "__builtin_convertvector(s, f32x16)" or "s" })
  w.blank()
end

-- from_f16: halves in 32-bit lanes to f32, subnormals included: the exponent is moved by a multiplication.
function host.half(w)
  w [[
    fn f32x16 from_f16(u32x16 h) {
      f32x16 x = (f32x16)((h & 0x7fff) << 13) * 0x1p112f;
      return (f32x16)((u32x16)x | (h & 0x8000) << 16);
    }
  ]]
end

local read = {
  f32 = "f32x16 x; __builtin_memcpy(&x, p, 64); return x;",
  f16 = "u16x16 h; __builtin_memcpy(&h, p, 32); return from_f16(__builtin_convertvector(h, u32x16));",
  bf16 = "u16x16 h; __builtin_memcpy(&h, p, 32); return (f32x16)(__builtin_convertvector(h, u32x16) << 16);",
  u8 = "u8x16 b; __builtin_memcpy(&b, p, 16); return __builtin_convertvector(b, f32x16);",
}

function hooks.planes(w, v)
  local half = v.format.map.type == "f16"
  for _, p in ipairs(v.format.planes) do
    if p.type == "f16" and not half then host.half(w) half = true end
  end
  for _, p in ipairs(v.format.planes) do
    w("fn f32x16 load_${NAME}(const void *p) { ${READ} } /* ${TYPE} */", { NAME = p.name, READ = read[p.type], TYPE = p.type })
  end
  w.blank()
end

local convert = {
  f32 = "fn float convert(float x) { return x; }",
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

function hooks.store(w, v)
  w(convert[v.out])
  w([[
    /* Write the first `count` of 16 columns. */
    fn void store(${YT} *y, f32x16 s, const float *bias, int64_t count) {
      for (int i = 0; i < 16 && i < count; i++) y[i] = convert(${VALUE});
    }
  ]], { VALUE = v.problem.bias and "s[i] + bias[i]" or "s[i]" })
  if not v.problem.bias then w "" end
  w.blank()
end

return hooks
