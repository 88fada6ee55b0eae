/* op_float.c - f32, f64, f16 and bf16 arithmetic.
 *
 * f16 and bf16 are computed in float, which has more than twice their digits, so that rounding twice is harmless for
 * + - *; fma rounds to odd in between (half.h). Approximate functions are computed exactly: the ISA bounds their error,
 * it does not fix their bits. Not modelled: roundings other than to nearest of f32 arithmetic (refused).
 * Source: PTX ISA, "Floating Point Instructions", "Half Precision Floating Point Instructions". */
#include "half.h"
#include "rule.h"

typedef uint16_t u16;
typedef uint32_t u32;

#define OP32(name, T, expr)                                                                                            \
  static void name(warp *w, const insn *i, uint32_t m) {                                                               \
    const T *pa = ROW(T, i->a), *pb = ROW(T, i->b), *pc = ROW(T, i->c);                                                \
    T *d = ROW(T, i->d), t[LANES];                                                                                     \
    EACH_LANE(l) {                                                                                                     \
      T a = pa[l], b = pb[l], c = pc[l];                                                                               \
      (void)b, (void)c;                                                                                                \
      t[l] = expr;                                                                                                     \
    }                                                                                                                  \
    STORE_ROW(T, d, t, m);                                                                                             \
  }

static inline float flush(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0, x) : x; }
static inline float clamp01(float x) { return !(x > 0) ? 0 : x > 1 ? 1 : x; }
/* Flush to zero and saturate, when asked. */
static inline float after(float x, int flags) {
  if (flags & F_FTZ) x = flush(x);
  return flags & F_SAT ? clamp01(x) : x;
}
#define IN(x) (i->flags & F_FTZ ? flush(x) : (x))
static inline float minimum(float a, float b, int flags) {
  if (isnan(a) || isnan(b))
    return (flags & F_NAN) || (isnan(a) && isnan(b)) ? qn__f32_of_bits(0x7fffffff) : isnan(a) ? b : a;
  return a < b || (a == b && signbit(a)) ? a : b;
}
static inline float maximum(float a, float b, int flags) {
  return isnan(a) || isnan(b) ? minimum(a, b, flags) : -minimum(-a, -b, flags);
}

OP32(add_f32, float, a + b)
OP32(sub_f32, float, a - b)
OP32(mul_f32, float, a *b)
OP32(fma_f32, float, __builtin_fmaf(a, b, c))
OP32(add_any, float, after(IN(a) + IN(b), i->flags))
OP32(sub_any, float, after(IN(a) - IN(b), i->flags))
OP32(mul_any, float, after(IN(a) * IN(b), i->flags))
OP32(fma_any, float, after(__builtin_fmaf(IN(a), IN(b), IN(c)), i->flags))
OP32(div_f32, float, after(IN(a) / IN(b), i->flags))
OP32(min_f32, float, after(minimum(IN(a), IN(b), i->flags), i->flags))
OP32(max_f32, float, after(maximum(IN(a), IN(b), i->flags), i->flags))
OP32(min3_f32, float, minimum(minimum(IN(a), IN(b), i->flags), IN(c), i->flags))
OP32(max3_f32, float, maximum(maximum(IN(a), IN(b), i->flags), IN(c), i->flags))
OP32(neg_f32, float, -IN(a))
OP32(abs_f32, float, fabsf(IN(a)))
OP32(rcp_f32, float, after(1 / IN(a), i->flags))
OP32(sqrt_f32, float, after(sqrtf(IN(a)), i->flags))
OP32(rsqrt_f32, float, after((float)(1 / sqrt((double)IN(a))), i->flags))
OP32(ex2_f32, float, after(exp2f(IN(a)), i->flags))
OP32(lg2_f32, float, after(log2f(IN(a)), i->flags))
OP32(sin_f32, float, after(sinf(IN(a)), i->flags))
OP32(cos_f32, float, after(cosf(IN(a)), i->flags))
OP32(tanh_f32, float, tanhf(a))
OP32(copysign_f32, float, copysignf(b, a)) /* the sign comes from the first operand */

OP32(add_f64, double, a + b)
OP32(sub_f64, double, a - b)
OP32(mul_f64, double, a *b)
OP32(fma_f64, double, __builtin_fma(a, b, c))
OP32(div_f64, double, a / b)
OP32(min_f64, double, fmin(a, b))
OP32(max_f64, double, fmax(a, b))
OP32(neg_f64, double, -a)
OP32(abs_f64, double, fabs(a))
OP32(rcp_f64, double, 1 / a)
OP32(sqrt_f64, double, sqrt(a))
OP32(rsqrt_f64, double, 1 / sqrt(a))

/* testp: i->sub names the property. */
static void testp_f32(warp *w, const insn *i, uint32_t m) {
  const float *a = ROW(float, i->a);
  u32 r = 0;
  EACH_LANE(l) {
    int class = fpclassify(a[l]);
    bool is[] = {class == FP_NORMAL || class == FP_SUBNORMAL || class == FP_ZERO,
                 class == FP_INFINITE,
                 class != FP_NAN,
                 class == FP_NAN,
                 class == FP_NORMAL,
                 class == FP_SUBNORMAL};
    r |= (u32)is[i->sub] << l;
  }
  STORE_BITS(ROW(u32, i->d), r, m);
}
static void decode_testp(parser *p, insn *i, const opcode *o, operand *ops, int n) {
  qn__emu_operands(p, o, n, 2, 2);
  i->sub = (uint8_t)qn__emu_which(o, "finite|infinite|number|notanumber|normal|subnormal");
  i->d = qn__emu_predicate(p, &ops[0], NULL), i->a = qn__emu_source(p, &ops[1], 4);
}

/* ---- Halves ------------------------------------------------------------------------------------------------------ */

/* i->count halves per lane (1 or 2), computed as one row of up to 64. */
static inline void store_halves(u16 *d, const u16 *t, int per, uint32_t m) {
  if (m == ALL) memcpy(d, t, sizeof *t * LANES * (size_t)per);
  else if (per == 1) EACH_LANE(l) d[l] = m >> l & 1 ? t[l] : d[l];
  else EACH_LANE(l) {
      d[2 * l] = m >> l & 1 ? t[2 * l] : d[2 * l];
      d[2 * l + 1] = m >> l & 1 ? t[2 * l + 1] : d[2 * l + 1];
    }
}
#define HALVES_LOOP(n, expr)                                                                                           \
  for (int l = 0; l < (n); l++) {                                                                                      \
    u16 a = pa[l], b = pb[l], c = pc[l];                                                                               \
    (void)b, (void)c;                                                                                                  \
    t[l] = expr;                                                                                                       \
  }
#define HALVES(name, expr)                                                                                             \
  static void name(warp *w, const insn *i, uint32_t m) {                                                               \
    const u16 *pa = ROW(u16, i->a), *pb = ROW(u16, i->b), *pc = ROW(u16, i->c);                                        \
    u16 t[2 * LANES];                                                                                                  \
    bool two = i->type == T_F16X2 || i->type == T_BF16X2;                                                              \
    if (two) HALVES_LOOP(2 * LANES, expr) else HALVES_LOOP(LANES, expr);                                               \
    store_halves(ROW(u16, i->d), t, two ? 2 : 1, m);                                                                   \
  }
static inline u16 half_flags(float v, int flags) {
  u16 h = float_half(flags & F_SAT ? clamp01(v) : v);
  if ((flags & F_FTZ) && !(h & 0x7c00)) h &= 0x8000;
  return flags & F_RELU && (h & 0x8000) && (h & 0x7fff) <= 0x7c00 ? 0 : h;
}
static inline u16 bfloat_flags(float v, int flags) {
  u16 h = float_bfloat(v);
  return flags & F_RELU && (h & 0x8000) && (h & 0x7fff) <= 0x7f80 ? 0 : h;
}
static inline u16 half_fma(u16 a, u16 b, u16 c) {
  return float_half(odd_add(half_float(a) * half_float(b), half_float(c)));
}
/* bf16 products reach beyond float's range: in double. */
static inline u16 bfloat_fma(u16 a, u16 b, u16 c) {
  double x = (double)bfloat_float(a) * bfloat_float(b), y = bfloat_float(c), s = x + y, v = s - x;
  double lost = isfinite(s) ? (x - (s - v)) + (y - v) : 0;
  return float_bfloat(qn__odd_double(s, lost));
}
#define HF(x) half_float(x)
#define BF(x) bfloat_float(x)
HALVES(add_f16, float_half(HF(a) + HF(b)))
HALVES(sub_f16, float_half(HF(a) - HF(b)))
HALVES(mul_f16, float_half(HF(a) * HF(b)))
HALVES(fma_f16, half_fma(a, b, c))
HALVES(add_f16_any, half_flags(HF(a) + HF(b), i->flags))
HALVES(sub_f16_any, half_flags(HF(a) - HF(b), i->flags))
HALVES(mul_f16_any, half_flags(HF(a) * HF(b), i->flags))
HALVES(fma_f16_any, half_flags(HF(half_fma(a, b, c)), i->flags))
HALVES(min_f16, half_flags(minimum(HF(a), HF(b), i->flags), i->flags &F_FTZ))
HALVES(max_f16, half_flags(maximum(HF(a), HF(b), i->flags), i->flags &F_FTZ))
HALVES(neg_half, a ^ 0x8000)
HALVES(abs_half, a & 0x7fff)
HALVES(ex2_f16, float_half(exp2f(HF(a))))
HALVES(tanh_f16, float_half(tanhf(HF(a))))
HALVES(add_bf16, float_bfloat(BF(a) + BF(b)))
HALVES(sub_bf16, float_bfloat(BF(a) - BF(b)))
HALVES(mul_bf16, float_bfloat(BF(a) * BF(b)))
HALVES(fma_bf16, bfloat_flags(BF(bfloat_fma(a, b, c)), i->flags))
HALVES(min_bf16, float_bfloat(minimum(BF(a), BF(b), i->flags)))
HALVES(max_bf16, float_bfloat(maximum(BF(a), BF(b), i->flags)))
HALVES(ex2_bf16, float_bfloat(exp2f(BF(a))))
HALVES(tanh_bf16, float_bfloat(tanhf(BF(a))))

/* setp on halves: one or two predicates. i->sub: comparison; the second predicate is e. */
static bool compares(float a, float b, int how) {
  bool u = isnan(a) || isnan(b);
  switch (how) {
  case 0:
    return a == b;
  case 1:
    return !u && a != b;
  case 2:
    return a < b;
  case 3:
    return a <= b;
  case 4:
    return a > b;
  case 5:
    return a >= b;
  case 6:
    return u || a == b;
  case 7:
    return a != b;
  case 8:
    return u || a < b;
  case 9:
    return u || a <= b;
  case 10:
    return u || a > b;
  case 11:
    return u || a >= b;
  case 12:
    return !u;
  default:
    return u;
  }
}
static void setp_half(warp *w, const insn *i, uint32_t m) {
  bool two = i->type == T_F16X2 || i->type == T_BF16X2, bf = i->type == T_BF16 || i->type == T_BF16X2;
  const u16 *a = ROW(u16, i->a), *b = ROW(u16, i->b);
  for (int k = 0; k <= two; k++) {
    u32 r = 0;
    EACH_LANE(l) {
      u16 x = a[two ? 2 * l + k : l], y = b[two ? 2 * l + k : l];
      r |= (u32)compares(bf ? BF(x) : HF(x), bf ? BF(y) : HF(y), i->sub) << l;
    }
    if (!k) STORE_BITS(ROW(u32, i->d), r, m);
    if (k == two && i->e) STORE_BITS(ROW(u32, i->e), two ? r : ~r, m);
  }
}
static void decode_setp_half(parser *p, insn *i, const opcode *o, operand *ops, int n) {
  qn__emu_operands(p, o, n, 3, 3);
  i->sub = (uint8_t)qn__emu_which(o, "eq|ne|lt|le|gt|ge|equ|neu|ltu|leu|gtu|geu|num|nan");
  operand first = ops[0];
  if (first.second && first.second->kind != O_SINK) i->e = qn__emu_predicate(p, first.second, NULL);
  first.second = NULL;
  i->d = qn__emu_predicate(p, &first, NULL);
  i->a = qn__emu_source(p, &ops[1], type_width(i->type)), i->b = qn__emu_source(p, &ops[2], type_width(i->type));
}

#define FLOAT(pattern, form, fn)                                                                                       \
  { pattern, form, fn, NULL, QN_EMU_K_FLOAT, 0, 0 }
#define HALF(pattern, form, fn)                                                                                        \
  { pattern, form, fn, NULL, QN_EMU_K_HALF, 0, 0 }
static const rule rows[] = {
    FLOAT("add.rn?.f32", "dab", add_f32),
    FLOAT("sub.rn?.f32", "dab", sub_f32),
    FLOAT("mul.rn?.f32", "dab", mul_f32),
    FLOAT("fma.rn.f32", "dabc", fma_f32),
    FLOAT("mad.rn.f32", "dabc", fma_f32),
    FLOAT("add.rn?.ftz?.sat?.f32", "dab", add_any),
    FLOAT("sub.rn?.ftz?.sat?.f32", "dab", sub_any),
    FLOAT("mul.rn?.ftz?.sat?.f32", "dab", mul_any),
    FLOAT("fma.rn.ftz?.sat?.f32", "dabc", fma_any),
    FLOAT("div.approx|full|rn.ftz?.f32", "dab", div_f32),
    FLOAT("min.ftz?.NaN?.f32", "dab", min_f32),
    FLOAT("max.ftz?.NaN?.f32", "dab", max_f32),
    FLOAT("min3.ftz?.NaN?.f32", "dabc", min3_f32),
    FLOAT("max3.ftz?.NaN?.f32", "dabc", max3_f32),
    FLOAT("neg.ftz?.f32", "da", neg_f32),
    FLOAT("abs.ftz?.f32", "da", abs_f32),
    FLOAT("rcp.approx|rn.ftz?.f32", "da", rcp_f32),
    FLOAT("sqrt.approx|rn.ftz?.f32", "da", sqrt_f32),
    FLOAT("rsqrt.approx.ftz?.f32", "da", rsqrt_f32),
    FLOAT("ex2.approx.ftz?.f32", "da", ex2_f32),
    FLOAT("lg2.approx.ftz?.f32", "da", lg2_f32),
    FLOAT("sin.approx.ftz?.f32", "da", sin_f32),
    FLOAT("cos.approx.ftz?.f32", "da", cos_f32),
    FLOAT("tanh.approx.f32", "da", tanh_f32),
    FLOAT("copysign.f32", "dab", copysign_f32),
    {"testp.finite|infinite|number|notanumber|normal|subnormal.f32", "", testp_f32, decode_testp, QN_EMU_K_COMPARE, 0,
     0},
    FLOAT("add.rn?.f64", "dab", add_f64),
    FLOAT("sub.rn?.f64", "dab", sub_f64),
    FLOAT("mul.rn?.f64", "dab", mul_f64),
    FLOAT("fma.rn.f64", "dabc", fma_f64),
    FLOAT("div.rn.f64", "dab", div_f64),
    FLOAT("min.f64", "dab", min_f64),
    FLOAT("max.f64", "dab", max_f64),
    FLOAT("neg.f64", "da", neg_f64),
    FLOAT("abs.f64", "da", abs_f64),
    FLOAT("rcp.rn.f64", "da", rcp_f64),
    FLOAT("sqrt.rn.f64", "da", sqrt_f64),
    FLOAT("rsqrt.approx.f64", "da", rsqrt_f64),
    HALF("add.rn?.f16|f16x2", "dab", add_f16),
    HALF("sub.rn?.f16|f16x2", "dab", sub_f16),
    HALF("mul.rn?.f16|f16x2", "dab", mul_f16),
    HALF("fma.rn.f16|f16x2", "dabc", fma_f16),
    HALF("add.rn?.ftz?.sat?.f16|f16x2", "dab", add_f16_any),
    HALF("sub.rn?.ftz?.sat?.f16|f16x2", "dab", sub_f16_any),
    HALF("mul.rn?.ftz?.sat?.f16|f16x2", "dab", mul_f16_any),
    HALF("fma.rn.ftz?.sat|relu?.f16|f16x2", "dabc", fma_f16_any),
    HALF("min.ftz?.NaN?.f16|f16x2", "dab", min_f16),
    HALF("max.ftz?.NaN?.f16|f16x2", "dab", max_f16),
    HALF("neg.f16|f16x2|bf16|bf16x2", "da", neg_half),
    HALF("abs.f16|f16x2|bf16|bf16x2", "da", abs_half),
    HALF("ex2.approx.f16|f16x2", "da", ex2_f16),
    HALF("tanh.approx.f16|f16x2", "da", tanh_f16),
    HALF("add.rn?.bf16|bf16x2", "dab", add_bf16),
    HALF("sub.rn?.bf16|bf16x2", "dab", sub_bf16),
    HALF("mul.rn?.bf16|bf16x2", "dab", mul_bf16),
    HALF("fma.rn.relu?.bf16|bf16x2", "dabc", fma_bf16),
    HALF("min.NaN?.bf16|bf16x2", "dab", min_bf16),
    HALF("max.NaN?.bf16|bf16x2", "dab", max_bf16),
    HALF("ex2.approx.ftz.bf16|bf16x2", "da", ex2_bf16),
    HALF("tanh.approx.bf16|bf16x2", "da", tanh_bf16),
    {"setp.eq|ne|lt|le|gt|ge|equ|neu|ltu|leu|gtu|geu|num|nan.ftz?.f16|f16x2|bf16|bf16x2", "", setp_half,
     decode_setp_half, QN_EMU_K_COMPARE, 0, 0},
};
DEFINE_RULES(LEVELED(rules_float), rows);
