/* product.h - fragments of mma and wgmma as plain matrices, and their product.
 *
 * With R = 32 / element bits elements per register, g = lane / 4, t = lane % 4: register r of A holds row g + 8 (r %
 * 2), columns tR + 4R (r / 2) and following; register r of B holds rows tR + 4Rr and following of column g; D is (g,
 * 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1). One formula serves every element width. PTX ISA, "Matrix Fragments
 * for mma.m16n8k...". Sums run over k in order, in float or int: the hardware's order is unspecified. */
#ifndef QN_EMU_PRODUCT_H
#define QN_EMU_PRODUCT_H
#include "half.h"
#include "machine.h"

typedef float float8 __attribute__((vector_size(32)));
typedef int32_t int8 __attribute__((vector_size(32)));

static inline int element_bits(int t) {
  switch (t) {
  case T_TF32:
  case T_F32:
  case T_B32:
  case T_S32:
    return 32;
  case T_F16:
  case T_BF16:
    return 16;
  case T_S4:
  case T_U4:
  case T_E2M1X2: /* e2m1 without gaps */
    return 4;
  default:
    return 8; /* s8, u8, e4m3, e5m2; narrower floats sit in bytes */
  }
}
static inline bool element_int(int t) { return t == T_S8 || t == T_U8 || t == T_S4 || t == T_U4; }

/* One element as a float, or as an int in a float's bits. */
static inline float element(int t, uint32_t bits) {
  int32_t v;
  switch (t) {
  case T_F16:
    return half_float((uint16_t)bits);
  case T_BF16:
    return bfloat_float((uint16_t)bits);
  case T_TF32:
    return qn__f32_of_bits(bits & 0xffffe000u);
  case T_E4M3:
    return qn__narrow_value(qn__form[QN_T_E4M3], bits);
  case T_E5M2:
    return qn__narrow_value(qn__form[QN_T_E5M2], bits);
  case T_E2M3:
    return qn__narrow_value(e2m3, bits);
  case T_E3M2:
    return qn__narrow_value(e3m2, bits);
  case T_E2M1:
    return qn__narrow_value(e2m1, bits >> 2); /* in bits 2 to 5 of its byte */
  case T_E2M1X2:
    return qn__narrow_value(e2m1, bits);
  case T_S8:
    v = (int8_t)bits;
    break;
  case T_U8:
    v = (uint8_t)bits;
    break;
  case T_S4:
    v = (int32_t)(bits << 28) >> 28;
    break;
  default:
    v = (int32_t)(bits & 15);
    break;
  }
  return qn__f32_of_bits((uint32_t)v);
}

/* Elements of one register of all lanes, lane-major: out[lane * R + j]. A loop for each type, so that it becomes one of
 * vectors. */
static inline void expand(int t, const uint32_t *reg, float *out) {
  const uint16_t *halves = (const uint16_t *)(const void *)reg;
  const uint8_t *bytes = (const uint8_t *)(const void *)reg;
  int bits = element_bits(t), per = 32 / bits;
#define EXPAND(t, from, n)                                                                                             \
  case t:                                                                                                              \
    for (int k = 0; k < (n)*LANES; k++) out[k] = element(t, (from)[k]);                                                \
    break;
  switch (t) {
    EXPAND(T_F16, halves, 2)
    EXPAND(T_E4M3, bytes, 4)
    EXPAND(T_E5M2, bytes, 4)
    EXPAND(T_E2M3, bytes, 4)
    EXPAND(T_E3M2, bytes, 4)
    EXPAND(T_E2M1, bytes, 4)
    EXPAND(T_S8, bytes, 4)
    EXPAND(T_U8, bytes, 4)
  case T_BF16:
    EACH_LANE(l) out[2 * l] = qn__f32_of_bits(reg[l] << 16), out[2 * l + 1] = qn__f32_of_bits(reg[l] & 0xffff0000u);
    break;
  default:
    EACH_LANE(l)
    for (int j = 0; j < per; j++)
      out[l * per + j] = element(t, per == 1 ? reg[l] : reg[l] >> bits * j & ((1u << bits) - 1));
  }
#undef EXPAND
}

enum { K_MOST = 64 };

/* Four neighbouring lanes hold 4R contiguous elements of one row: a register is 8 rows of them. */
static inline void a_register(int t, const uint32_t *reg, int r, float a[16][K_MOST]) {
  float x[LANES * 8];
  int width = 4 * (32 / element_bits(t));
  expand(t, reg, x);
  for (int g = 0; g < 8; g++) {
    float *to = &a[g + 8 * (r & 1)][width * (r >> 1)];
    if (width == 8) memcpy(to, x + 8 * g, 8 * sizeof *to);
    else memcpy(to, x + width * g, (size_t)width * sizeof *to);
  }
}
/* A register of B is eight columns of them: transposed in their own width, then expanded. */
#define TRANSPOSE(T, from, to, columns)                                                                                \
  for (int k_ = 0; k_ < (columns); k_++)                                                                               \
    for (int g_ = 0; g_ < 8; g_++)                                                                                     \
  ((T *)(void *)(to))[8 * k_ + g_] = ((const T *)(const void *)(from))[(columns)*g_ + k_]
static inline void b_register(int t, const uint32_t *reg, int r, float b[][8]) {
  uint32_t turned[LANES];
  float x[LANES * 8];
  int bits = element_bits(t), width = 128 / bits;
  b += width * r;
  if (bits == 16) TRANSPOSE(uint16_t, reg, turned, 8);
  else if (bits == 8) TRANSPOSE(uint8_t, reg, turned, 16);
  else if (bits == 32) TRANSPOSE(uint32_t, reg, turned, 4);
  if (bits > 4) {
    expand(t, turned, b[0]);
    return;
  }
  expand(t, reg, x);
  TRANSPOSE(float, x, b, 32);
}

/* D[rows][8] += A[rows][depth] B[depth][8]; rows is 8 or 16. */
static inline void multiply_float(float d[][8], float a[16][K_MOST], float b[][8], int rows, int depth) {
  for (int r = 0; r < rows; r += 8) {
    float8 c[8], v;
    memcpy(c, d[r], sizeof c);
    for (int k = 0; k < depth; k++) {
      memcpy(&v, b[k], sizeof v);
      for (int q = 0; q < 8; q++) c[q] += a[r + q][k] * v;
    }
    memcpy(d[r], c, sizeof c);
  }
}
/* Products of a K of 64, 255 by 255, are far from the end of 32 bits; their sum with D may be beyond it. */
static inline void multiply_int(float d[][8], float a[16][K_MOST], float b[][8], int rows, int depth, bool saturate) {
  for (int r = 0; r < rows; r++) {
    int8 sums = {0}, v;
    for (int k = 0; k < depth; k++) {
      memcpy(&v, b[k], sizeof v);
      sums += (int32_t)qn__bits_of_f32(a[r][k]) * v;
    }
    for (int n = 0; n < 8; n++) {
      int64_t sum = (int64_t)(int32_t)qn__bits_of_f32(d[r][n]) + sums[n];
      if (saturate) sum = sum > INT32_MAX ? INT32_MAX : sum < INT32_MIN ? INT32_MIN : sum;
      d[r][n] = qn__f32_of_bits((uint32_t)sum);
    }
  }
}
static inline void multiply(int t, float d[][8], float a[16][K_MOST], float b[][8], int rows, int depth,
                            bool saturate) {
  if (element_int(t)) multiply_int(d, a, b, rows, depth, saturate);
  else multiply_float(d, a, b, rows, depth);
}

/* Row r (0 or 1: upper, lower half) of D as f16 pairs, or register e of D as 32 bits. */
static inline uint32_t pack_halves(float x, float y) { return float_half(x) | (uint32_t)float_half(y) << 16; }

/* Lane l holds elements 2l and 2l + 1 of 64: the upper eight rows of D, then the lower. */
static inline void gather_d(const warp *w, const uint32_t *regs, int n, int t, float *d) {
  for (int e = 0; e < n; e += t == T_F16 ? 1 : 2, d += 64) {
    const uint32_t *x = ROW(uint32_t, regs[e]), *y = t == T_F16 ? x : ROW(uint32_t, regs[e + 1]);
    if (t == T_F16)
      EACH_LANE(l) d[2 * l] = half_float((uint16_t)x[l]), d[2 * l + 1] = half_float((uint16_t)(x[l] >> 16));
    else EACH_LANE(l) d[2 * l] = qn__f32_of_bits(x[l]), d[2 * l + 1] = qn__f32_of_bits(y[l]);
  }
}
static inline void scatter_d(const warp *w, const uint32_t *regs, int n, int t, const float *d) {
  for (int e = 0; e < n; e += t == T_F16 ? 1 : 2, d += 64) {
    uint32_t *x = ROW(uint32_t, regs[e]), *y = t == T_F16 ? x : ROW(uint32_t, regs[e + 1]);
    if (t == T_F16) EACH_LANE(l) x[l] = pack_halves(d[2 * l], d[2 * l + 1]);
    else {
      EACH_LANE(l) x[l] = qn__bits_of_f32(d[2 * l]);
      EACH_LANE(l) y[l] = qn__bits_of_f32(d[2 * l + 1]);
    }
  }
}
#endif
