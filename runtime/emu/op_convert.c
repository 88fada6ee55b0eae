/* op_convert.c - cvt: between integers, floats and the 8-bit and smaller floats.
 *
 * One general routine reads a lane as integer or double and writes it as the other type with a single rounding; the
 * conversions that kernels run by the million have a vector loop of their own. Source: PTX ISA, "cvt",
 * "cvt.pack" (refused). */
#include "fail.h"
#include "half.h"
#include "rule.h"

typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

static const qn_form *form_of(int t) {
  switch (t) {
  case T_E4M3:
  case T_E4M3X2:
    return &qn__form[QN_T_E4M3];
  case T_E5M2:
  case T_E5M2X2:
    return &qn__form[QN_T_E5M2];
  case T_E2M3:
  case T_E2M3X2:
    return &e2m3;
  case T_E3M2:
  case T_E3M2X2:
    return &e3m2;
  case T_E2M1:
  case T_E2M1X2:
    return &e2m1;
  default:
    return NULL;
  }
}

static bool is_float(int t) { return t == T_F16 || t == T_BF16 || t == T_F32 || t == T_F64 || t == T_TF32; }

static u64 lane_bits(const warp *w, uint32_t row, int width, int l) {
  return width == 8 ? ROW(u64, row)[l] : width == 4 ? ROW(u32, row)[l] : ROW(u16, row)[l];
}
static void set_lane(const warp *w, uint32_t row, int width, int l, u64 v) {
  if (width == 8) ROW(u64, row)[l] = v;
  else if (width == 4) ROW(u32, row)[l] = (u32)v;
  else ROW(u16, row)[l] = (u16)v;
}

static double to_double(u64 bits, int t) {
  double d;
  switch (t) {
  case T_F16:
    return half_float((u16)bits);
  case T_BF16:
    return bfloat_float((u16)bits);
  case T_F64:
    memcpy(&d, &bits, 8);
    return d;
  default:
    return qn__f32_of_bits((u32)bits);
  }
}

static u64 sign_extended(u64 bits, int t) {
  switch (t) {
  case T_S8:
    return (u64)(int64_t)(int8_t)bits;
  case T_U8:
  case T_B8:
    return (uint8_t)bits;
  case T_S16:
    return (u64)(int64_t)(int16_t)bits;
  case T_U16:
  case T_B16:
    return (u16)bits;
  case T_S32:
    return (u64)(int64_t)(int32_t)bits;
  case T_U32:
  case T_B32:
    return (u32)bits;
  default:
    return bits;
  }
}

/* Rounding modes: i->sub. */
enum { RN, RZ, RM, RP, RNI, RZI, RMI, RPI, RNA };
static const char modes[] = "rn|rz|rm|rp|rni|rzi|rmi|rpi|rna";

static double round_integer(double v, int mode) {
  return mode == RNI ? nearbyint(v) : mode == RMI ? floor(v) : mode == RPI ? ceil(v) : trunc(v);
}

/* Out of range saturates, NaN gives 0. */
static u64 double_integer(double v, int t, int mode) {
  int bits = qn__emu_types[t].size * 8;
  bool s = type_signed((type)t);
  double low = s ? -ldexp(1, bits - 1) : 0, high = ldexp(1, bits - s);
  v = round_integer(v, mode);
  if (isnan(v)) return 0;
  if (v >= high) return s ? (UINT64_C(1) << (bits - 1)) - 1 : bits == 64 ? ~UINT64_C(0) : (UINT64_C(1) << bits) - 1;
  if (v <= low) return s ? 0 - (UINT64_C(1) << (bits - 1)) : 0;
  return s ? (u64)(int64_t)v : (u64)v;
}

/* Towards zero: the nearest, one step back when it overshot. */
static u16 toward_zero(u16 h, double v, double (*value)(u16)) {
  return fabs(value(h)) > fabs(v) && !isnan(v) ? (u16)(h - 1) : h;
}
static double half_value(u16 h) { return half_float(h); }
static double bfloat_value(u16 h) { return bfloat_float(h); }

static u64 double_float(double v, int t, int mode, int flags) {
  u64 bits;
  float f;
  if (flags & F_RELU && !(v > 0)) v = isnan(v) ? v : 0;
  if (flags & F_SAT && t != T_BF16 && t != T_TF32) v = !(v > 0) ? 0 : v > 1 ? 1 : v;
  u16 h;
  switch (t) {
  case T_F16:
    h = float_half(qn__odd_double(v, 0));
    return mode == RZ && !isinf(v) ? toward_zero(h, v, half_value) : h;
  case T_BF16:
    h = float_bfloat(qn__odd_double(v, 0));
    return mode == RZ && !isinf(v) ? toward_zero(h, v, bfloat_value) : h;
  case T_F64:
    memcpy(&bits, &v, 8);
    return bits;
  case T_TF32: /* rna: ties away from zero */
    f = (float)v;
    if (isnan(f)) return 0x7fffffff;
    bits = qn__bits_of_f32(f);
    if (mode == RNA) return (bits + 0x1000) & 0xffffe000u;
    return mode == RZ ? bits & 0xffffe000u : (bits + 0xfff + (bits >> 13 & 1)) & 0xffffe000u;
  default:
    f = (float)v;
    if (mode == RZ && fabs((double)f) > fabs(v) && !isinf(v)) f = qn__f32_of_bits(qn__bits_of_f32(f) - 1);
    return qn__bits_of_f32(flags & F_FTZ && fabsf(f) < 0x1p-126f ? copysignf(0, f) : f);
  }
}

static u64 clamp_integer(u64 v, bool from_signed, int t) {
  int bits = qn__emu_types[t].size * 8;
  bool s = type_signed((type)t);
  int64_t x = (int64_t)v;
  if (bits == 64) return from_signed && !s && x < 0 ? 0 : v;
  int64_t low = s ? -(INT64_C(1) << (bits - 1)) : 0, high = (INT64_C(1) << (bits - s)) - 1;
  if (!from_signed && x < 0) return (u64)high;
  return (u64)(x < low ? low : x > high ? high : x);
}

static void cvt_any(warp *w, const insn *i, uint32_t m) {
  EACH_SET(l, m) {
    u64 in = lane_bits(w, i->a, i->width, (int)l), out;
    int to = i->type, from = i->from;
    if (is_float(from)) {
      double v = to_double(in, from);
      if (i->flags & F_FTZ && from == T_F32 && fabs(v) < 0x1p-126) v = copysign(0, v);
      if (is_float(to))
        out = double_float(i->sub >= RNI && i->sub <= RPI ? round_integer(v, i->sub) : v, to, i->sub, i->flags);
      else out = double_integer(v, to, i->sub);
    } else {
      u64 v = sign_extended(in, from);
      bool s = type_signed((type)from);
      if (to == T_F32) out = qn__bits_of_f32(s ? (float)(int64_t)v : (float)v);
      else if (is_float(to)) {
        double d = s ? (double)(int64_t)v : (double)v;
        out = double_float(d, to, i->sub, i->flags);
      } else out = sign_extended(i->flags & F_SAT ? clamp_integer(v, s, to) : v, to);
    }
    set_lane(w, i->d, i->count, (int)l, out);
  }
}

/* Two values into one register: d = {a in the upper half, b in the lower}. */
static u16 narrow(float v, int t, int mode, int flags) {
  const qn_form *m = form_of(t);
  if (flags & F_RELU && !(v > 0)) v = isnan(v) ? v : 0;
  if (m) return (u16)qn__narrow_nearest(*m, v);
  float largest = t == T_F16X2 ? 65504.0f : 0x1.fep127f;
  if (flags & F_SAT && fabsf(v) > largest) v = copysignf(largest, v); /* .satfinite; not for a NaN */
  return (u16)double_float(v, t == T_F16X2 ? T_F16 : T_BF16, mode, flags & ~(F_SAT | F_RELU));
}
static void cvt_pair(warp *w, const insn *i, uint32_t m) {
  int shift = i->type == T_E2M1X2 ? 4 : form_of(i->type) ? 8 : 16;
  EACH_SET(l, m) {
    float high, low;
    if (i->from == T_F32) high = ROW(float, i->a)[l], low = ROW(float, i->b)[l];
    else {
      u32 v = ROW(u32, i->a)[l];
      bool bf = i->from == T_BF16X2;
      high = bf ? bfloat_float((u16)(v >> 16)) : half_float((u16)(v >> 16));
      low = bf ? bfloat_float((u16)v) : half_float((u16)v);
    }
    u32 r = (u32)narrow(high, i->type, i->sub, i->flags) << shift | narrow(low, i->type, i->sub, i->flags);
    set_lane(w, i->d, i->count, (int)l, r);
  }
}
static void cvt_unpair(warp *w, const insn *i, uint32_t m) {
  const qn_form *f = form_of(i->from);
  int bits = i->from == T_E2M1X2 ? 4 : 8;
  EACH_SET(l, m) {
    u32 v = (u32)lane_bits(w, i->a, i->width, (int)l), r = 0;
    for (int k = 0; k < 2; k++) {
      u32 code = v >> bits * k & ((1u << bits) - 1);
      float x = f ? qn__narrow_value(*f, code) : qn__power_value((uint8_t)code);
      r |= (u32)(i->type == T_BF16X2 ? float_bfloat(x) : narrow(x, T_F16X2, RN, i->flags)) << 16 * k;
    }
    ROW(u32, i->d)[l] = r;
  }
}

#define FAST(name, D, A, expr)                                                                                         \
  static void name(warp *w, const insn *i, uint32_t m) {                                                               \
    const A *pa = ROW(A, i->a);                                                                                        \
    D t[LANES];                                                                                                        \
    EACH_LANE(l) {                                                                                                     \
      A a = pa[l];                                                                                                     \
      t[l] = (D)(expr);                                                                                                \
    }                                                                                                                  \
    STORE_ROW(D, ROW(D, i->d), t, m);                                                                                  \
  }
FAST(s64_s32, int64_t, int32_t, a)
FAST(u64_u32, u64, u32, a)
FAST(u32_u64, u32, u64, a)
FAST(u16_u32, u16, u32, a)
FAST(u32_u16, u32, u16, a)
FAST(f32_f16, float, u16, half_float(a))
FAST(f32_bf16, float, u16, bfloat_float(a))
FAST(f16_f32, u16, float, float_half(a))
FAST(bf16_f32, u16, float, float_bfloat(a))
FAST(f32_s32, float, int32_t, (float)a)
#define FAST2(name, conv)                                                                                              \
  static void name(warp *w, const insn *i, uint32_t m) {                                                               \
    const float *a = ROW(float, i->a), *b = ROW(float, i->b);                                                          \
    u32 t[LANES];                                                                                                      \
    EACH_LANE(l) t[l] = (u32)conv(a[l]) << 16 | conv(b[l]);                                                            \
    STORE_ROW(u32, ROW(u32, i->d), t, m);                                                                              \
  }
FAST2(f16x2_f32, float_half)
FAST2(bf16x2_f32, float_bfloat)

static const struct {
  uint8_t to, from, to_width, from_width;
  op_fn *run;
} fast[] = {
    {T_S64, T_S32, 8, 4, s64_s32},   {T_U64, T_U32, 8, 4, u64_u32},   {T_S64, T_U32, 8, 4, u64_u32},
    {T_U32, T_U64, 4, 8, u32_u64},   {T_U16, T_U32, 2, 4, u16_u32},   {T_U32, T_U16, 4, 2, u32_u16},
    {T_F32, T_F16, 4, 2, f32_f16},   {T_F32, T_BF16, 4, 2, f32_bf16}, {T_F16, T_F32, 2, 4, f16_f32},
    {T_BF16, T_F32, 2, 4, bf16_f32}, {T_F32, T_S32, 4, 4, f32_s32},
};

static void decode_cvt(parser *p, insn *i, const opcode *o, operand *ops, int n) {
  qn__emu_operands(p, o, n, 2, 2);
  uint8_t width;
  i->from = i->type, i->type = (uint8_t)qn__emu_token_type(p, o, -2);
  int mode = qn__emu_which(o, modes);
  bool to_float = is_float(i->type), from_float = is_float(i->from);
  if (!i->type) qn__emu_refuse(p, "cvt needs two types");
  if (from_float && !to_float && mode < RNI) qn__emu_refuse(p, "cvt to an integer needs .rni, .rzi, .rmi or .rpi");
  if ((mode == RM || mode == RP) || (mode == RZ && !from_float))
    qn__emu_refuse(p, "rounding .%s is not supported here", mode == RM ? "rm" : mode == RP ? "rp" : "rz");
  i->sub = (uint8_t)(mode < 0 ? RN : mode);
  i->a = qn__emu_source_wide(p, &ops[1], (type)i->from, &width), i->width = width;
  i->d = qn__emu_source_wide(p, &ops[0], (type)i->type, &width), i->count = width;
  if (ops[0].kind != O_REG) qn__emu_refuse(p, "a register is wanted as destination");
  i->run = cvt_any;
  if (!i->flags && i->sub == RN)
    for (size_t k = 0; k < QN_COUNT(fast); k++)
      if (fast[k].to == i->type && fast[k].from == i->from && fast[k].to_width == i->count &&
          fast[k].from_width == i->width)
        i->run = fast[k].run;
}

static void decode_pair(parser *p, insn *i, const opcode *o, operand *ops, int n) {
  uint8_t width;
  i->from = i->type, i->type = (uint8_t)qn__emu_token_type(p, o, -2);
  qn__emu_operands(p, o, n, i->from == T_F32 ? 3 : 2, i->from == T_F32 ? 3 : 2);
  i->sub = (uint8_t)(qn__emu_has(o, "rz") ? RZ : RN);
  i->d = qn__emu_source_wide(p, &ops[0], i->type == T_E2M1X2 ? T_B8 : (type)i->type, &width), i->count = width;
  if (ops[0].kind != O_REG) qn__emu_refuse(p, "a register is wanted as destination");
  if (i->run == cvt_unpair) {
    i->a = qn__emu_source_wide(p, &ops[1], (type)i->from, &width), i->width = width;
    return;
  }
  i->a = qn__emu_source(p, &ops[1], 4);
  if (i->from == T_F32) i->b = qn__emu_source(p, &ops[2], 4);
  if (i->from == T_F32 && !i->flags && i->sub == RN && !form_of(i->type))
    i->run = i->type == T_F16X2 ? f16x2_f32 : bf16x2_f32;
}

#define K QN_EMU_K_CONVERT
static const rule rows[] = {
    {"cvt.rn|rz.relu?.satfinite?.f16x2|bf16x2.f32", "", cvt_pair, decode_pair, K, 0, 0},
    {"cvt.rn.satfinite.relu?.e4m3x2|e5m2x2|e2m3x2|e3m2x2|e2m1x2.f32|f16x2|bf16x2", "", cvt_pair, decode_pair, K, 0, 0},
    {"cvt.rn.relu?.f16x2.e4m3x2|e5m2x2|e2m3x2|e3m2x2|e2m1x2", "", cvt_unpair, decode_pair, K, 0, 0},
    {"cvt.rn.bf16x2.ue8m0x2", "", cvt_unpair, decode_pair, K, 0, 0},
    {"cvt.rn|rz|rm|rp|rni|rzi|rmi|rpi?.ftz?.relu?.sat?.u8|s8|u16|s16|u32|s32|u64|s64|f16|bf16|f32|f64.u8|s8|u16|s16|"
     "u32|s32|"
     "u64|s64|f16|bf16|f32|f64",
     "", NULL, decode_cvt, K, 0, 0},
    {"cvt.rna|rn|rz.satfinite?.relu?.tf32.f32", "", NULL, decode_cvt, K, 0, 0},
};
DEFINE_RULES(LEVELED(rules_convert), rows);
