/* convert.c - element types: loads and stores by way of float64, bulk conversion, 8-bit activations.
 *
 * Plain bit arithmetic that any compiler vectorises, no instruction set assumed; the kernels have their own. */
#include "convert.h"
#include "fail.h"
#include <math.h>
#include <stdbool.h>
#include <string.h>

static float f32_of_bits(uint32_t u) {
  float f;
  memcpy(&f, &u, sizeof f);
  return f;
}

static uint32_t bits_of_f32(float f) {
  uint32_t u;
  memcpy(&u, &f, sizeof u);
  return u;
}

/* A half moved into f32's place is the same number times 2^-112; infinity and NaN keep all ones in the exponent. */
static float f32_of_f16(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = (uint32_t)(h & 0x7fff) << 13;
  if (rest >= 0x0f800000) return f32_of_bits(sign | 0x70000000 | rest);
  return f32_of_bits(sign | bits_of_f32(f32_of_bits(rest) * 0x1p112f));
}

/* Adding 2^(e+13), with e the exponent of the result's last place, rounds to nearest even in the adder. */
static uint16_t f16_of_f32(float f) {
  uint32_t u = bits_of_f32(f), sign = u >> 16 & 0x8000, a = u & 0x7fffffff;
  if (a > 0x7f800000) return (uint16_t)(sign | 0x7e00);
  if (a >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* 65520 and above */
  if (a < 0x38800000) return (uint16_t)(sign | (bits_of_f32(f32_of_bits(a) + 0.5f) - 0x3f000000));
  return (uint16_t)(sign | ((a + 0xfff + (a >> 13 & 1) - 0x38000000) >> 13));
}

static float f32_of_bf16(uint16_t h) { return f32_of_bits((uint32_t)h << 16); }

static uint16_t bf16_of_f32(float f) {
  uint32_t u = bits_of_f32(f);
  if ((u & 0x7fffffff) > 0x7f800000) return (uint16_t)(u >> 16 | 0x40);
  return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

/* The f32 beside v on the side of zero, its last bit set where it is not v itself. Rounding it to fewer bits rounds v:
 * a nearest f32 may lie half way between two of the results where v does not. */
static float to_odd(double v) {
  float f = (float)v;
  if ((double)f == v || isnan(v)) return f;
  return f32_of_bits((bits_of_f32(f) - (fabs((double)f) > fabs(v))) | 1);
}

/* OCP 8-bit floats: e4m3 has no infinity and one NaN a sign, e5m2 is the upper half of an f16. */
static double f64_of_e4m3(uint8_t c) {
  int exponent = c >> 3 & 15, fraction = c & 7;
  if ((c & 0x7f) == 0x7f) return NAN;
  double v = exponent ? ldexp(8 + fraction, exponent - 10) : ldexp(fraction, -9);
  return c & 0x80 ? -v : v;
}

static double f64_of_e8m0(uint8_t c) { return c == 255 ? NAN : ldexp(1, c - 127); }

/* Type by type: load, store. Integers and f64 are what they are. Planes may lie unaligned in a mapped file. */
#define LOAD(type, expression)                                                                                         \
  {                                                                                                                    \
    const char *p = (const char *)data + i * (int64_t)sizeof(type);                                                    \
    for (int j = 0; j < n; j++) {                                                                                      \
      type c;                                                                                                          \
      memcpy(&c, p + (size_t)j * sizeof c, sizeof c);                                                                  \
      out[j] = (double)(expression);                                                                                   \
    }                                                                                                                  \
    return;                                                                                                            \
  }

void qn__load_block(qn_type t, const void *data, int64_t i, int n, double *out) {
  switch (t) {
  case QN_T_U8:
    LOAD(uint8_t, c)
  case QN_T_U16:
    LOAD(uint16_t, c)
  case QN_T_U32:
    LOAD(uint32_t, c)
  case QN_T_I8:
    LOAD(int8_t, c)
  case QN_T_I32:
    LOAD(int32_t, c)
  case QN_T_F16:
    LOAD(uint16_t, f32_of_f16(c))
  case QN_T_BF16:
    LOAD(uint16_t, f32_of_bf16(c))
  case QN_T_F32:
    LOAD(float, c)
  case QN_T_F64:
    LOAD(double, c)
  case QN_T_E4M3:
    LOAD(uint8_t, f64_of_e4m3(c))
  case QN_T_E5M2:
    LOAD(uint8_t, f32_of_f16((uint16_t)(c << 8)))
  case QN_T_E8M0:
    LOAD(uint8_t, f64_of_e8m0(c))
  default:
    break;
  }
  for (int j = 0; j < n; j++) out[j] = NAN;
}

double qn__load_f64(qn_type t, const void *data, int64_t i) {
  double v;
  qn__load_block(t, data, i, 1, &v);
  return v;
}

/* The code of an 8-bit float that is nearest to v; of two, the even one. Codes of one sign ascend, infinity and NaN
 * last. */
static uint8_t nearest_code(qn_type t, double v) {
  unsigned sign = t != QN_T_E8M0 && signbit(v) ? 0x80 : 0, below = 0, n = t == QN_T_E8M0 ? 255 : 127;
  if (isnan(v)) return (uint8_t)(sign | n); /* all ones */
  double x = t == QN_T_E8M0 ? v : fabs(v);
  while (n > 1) {
    uint8_t middle = (uint8_t)(below + n / 2);
    if (qn__load_f64(t, &middle, 0) <= x) below = middle;
    n -= n / 2;
  }
  double low = qn__load_f64(t, &(uint8_t){(uint8_t)below}, 0),
         high = qn__load_f64(t, &(uint8_t){(uint8_t)(below + 1)}, 0);
  bool up = isfinite(high) && (x - low > high - x || (x - low == high - x && below & 1));
  return (uint8_t)(sign | (below + up));
}

#define STORE(type, expression)                                                                                        \
  {                                                                                                                    \
    type c = (type)(expression);                                                                                       \
    memcpy((char *)data + i * (int64_t)sizeof c, &c, sizeof c);                                                        \
    return;                                                                                                            \
  }

void qn__store_f64(qn_type t, void *data, int64_t i, double v) {
  switch (t) {
  case QN_T_U8:
    STORE(uint8_t, v)
  case QN_T_U16:
    STORE(uint16_t, v)
  case QN_T_U32:
    STORE(uint32_t, v)
  case QN_T_I8:
    STORE(int8_t, v)
  case QN_T_I32:
    STORE(int32_t, v)
  case QN_T_F16:
    STORE(uint16_t, f16_of_f32(to_odd(v)))
  case QN_T_BF16:
    STORE(uint16_t, bf16_of_f32(to_odd(v)))
  case QN_T_F32:
    STORE(float, v)
  case QN_T_F64:
    STORE(double, v)
  case QN_T_E4M3:
  case QN_T_E5M2:
  case QN_T_E8M0:
    STORE(uint8_t, nearest_code(t, v))
  default:
    break;
  }
}

/* ---- Public ------------------------------------------------------------------------------------------------------ */

/* Bulk conversion goes through a block of f32, which holds f16 and bf16 exactly. */
#define BLOCK 256

static uint16_t u16_at(const char *p) {
  uint16_t u;
  memcpy(&u, p, sizeof u);
  return u;
}

static void put_u16(char *p, uint16_t u) { memcpy(p, &u, sizeof u); }

static void load_f32(qn_type t, const char *src, size_t n, float *out) {
  if (t == QN_T_F32) memcpy(out, src, n * sizeof *out);
  else if (t == QN_T_F16)
    for (size_t j = 0; j < n; j++) out[j] = f32_of_f16(u16_at(src + 2 * j));
  else
    for (size_t j = 0; j < n; j++) out[j] = f32_of_bf16(u16_at(src + 2 * j));
}

static void store_f32(qn_type t, char *dst, size_t n, const float *in) {
  if (t == QN_T_F32) memcpy(dst, in, n * sizeof *in);
  else if (t == QN_T_F16)
    for (size_t j = 0; j < n; j++) put_u16(dst + 2 * j, f16_of_f32(in[j]));
  else
    for (size_t j = 0; j < n; j++) put_u16(dst + 2 * j, bf16_of_f32(in[j]));
}

static bool is_float(qn_type t) { return t == QN_T_F32 || t == QN_T_F16 || t == QN_T_BF16; }

qn_status qn_convert(const void *src, qn_type from, void *dst, qn_type to, size_t n) {
  if (!is_float(from) || !is_float(to))
    return qn__fail(QN_E_ARG, "qn_convert: %s to %s: only f16, bf16 and f32 convert",
                    qn_type_name(from) ? qn_type_name(from) : "?", qn_type_name(to) ? qn_type_name(to) : "?");
  if (n && (!src || !dst)) return qn__fail(QN_E_ARG, "qn_convert: NULL buffer");
  float block[BLOCK];
  size_t from_size = (size_t)qn_type_bits(from) / 8, to_size = (size_t)qn_type_bits(to) / 8;
  for (size_t i = 0; i < n; i += BLOCK) {
    size_t m = n - i < BLOCK ? n - i : BLOCK;
    load_f32(from, (const char *)src + i * from_size, m, block);
    store_f32(to, (char *)dst + i * to_size, m, block);
  }
  return QN_OK;
}

/* Adding and taking away 1.5 * 2^23 rounds to nearest even what is below 2^22. NaN becomes -127. */
static int8_t round_i8(float v) {
  v = v > -127 ? v : -127;
  v = v < 127 ? v : 127;
  float r = v + 0x1.8p23f;
  return (int8_t)(r - 0x1.8p23f);
}

/* Below 2^-6 codes count multiples of 2^-9: adding 2^14 rounds there. Above, the bits that e4m3 lacks are rounded off
 * and the exponent moves by the difference of the biases. NaN becomes 448. */
static uint8_t round_e4m3(float v) {
  uint32_t u = bits_of_f32(v), sign = u >> 24 & 0x80, a = u & 0x7fffffff;
  if (a >= bits_of_f32(448)) return (uint8_t)(sign | 0x7e);
  if (a < bits_of_f32(0x1p-6f)) return (uint8_t)(sign | (bits_of_f32(f32_of_bits(a) + 0x1p14f) - bits_of_f32(0x1p14f)));
  return (uint8_t)(sign | (a + 0x7ffff + (a >> 20 & 1) - (120u << 23)) >> 20);
}

static float top_of_row(const float *x, int64_t k) {
  float top = 0;
  for (int64_t j = 0; j < k; j++) {
    float a = fabsf(x[j]);
    top = a > top ? a : top;
  }
  return top;
}

void qn_quantize_rows_i8(const float *x, int64_t m, int64_t k, int64_t ldx, int8_t *q, float *scale) {
  for (int64_t i = 0; i < m; i++, x += ldx, q += k) {
    float s = scale[i] = top_of_row(x, k) / 127;
    for (int64_t j = 0; j < k; j++) q[j] = s == 0 ? 0 : round_i8(x[j] / s);
  }
}

void qn_quantize_rows_e4m3(const float *x, int64_t m, int64_t k, int64_t ldx, uint8_t *q, float *scale) {
  for (int64_t i = 0; i < m; i++, x += ldx, q += k) {
    float s = scale[i] = top_of_row(x, k) / 448;
    for (int64_t j = 0; j < k; j++) q[j] = s == 0 ? 0 : round_e4m3(x[j] / s);
  }
}
