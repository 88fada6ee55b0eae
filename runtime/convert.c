/* convert.c - element types: loads and stores by way of float64, bulk conversion, 8-bit activations.
 *
 * No instruction set is assumed; the kernels have arithmetic of their own. */
#include "convert.h"
#include "fail.h"
#include "narrow.h"
#include <math.h>
#include <stdbool.h>
#include <string.h>

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
    LOAD(uint16_t, qn__narrow_value(qn__form[QN_T_F16], c))
  case QN_T_BF16:
    LOAD(uint16_t, qn__narrow_value(qn__form[QN_T_BF16], c))
  case QN_T_F32:
    LOAD(float, c)
  case QN_T_F64:
    LOAD(double, c)
  case QN_T_E4M3:
    LOAD(uint8_t, qn__narrow_value(qn__form[QN_T_E4M3], c))
  case QN_T_E5M2:
    LOAD(uint8_t, qn__narrow_value(qn__form[QN_T_E5M2], c))
  case QN_T_E8M0:
    LOAD(uint8_t, qn__power_value(c))
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
    STORE(uint16_t, qn__narrow_nearest(qn__form[QN_T_F16], qn__odd_double(v, 0)))
  case QN_T_BF16:
    STORE(uint16_t, qn__narrow_nearest(qn__form[QN_T_BF16], qn__odd_double(v, 0)))
  case QN_T_F32:
    STORE(float, v)
  case QN_T_F64:
    STORE(double, v)
  case QN_T_E4M3:
    STORE(uint8_t, qn__narrow_nearest(qn__form[QN_T_E4M3], qn__odd_double(v, 0)))
  case QN_T_E5M2:
    STORE(uint8_t, qn__narrow_nearest(qn__form[QN_T_E5M2], qn__odd_double(v, 0)))
  case QN_T_E8M0:
    STORE(uint8_t, qn__power_nearest(qn__odd_double(v, 0)))
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
    for (size_t j = 0; j < n; j++) out[j] = qn__narrow_value(qn__form[QN_T_F16], u16_at(src + 2 * j));
  else
    for (size_t j = 0; j < n; j++) out[j] = qn__narrow_value(qn__form[QN_T_BF16], u16_at(src + 2 * j));
}

static void store_f32(qn_type t, char *dst, size_t n, const float *in) {
  if (t == QN_T_F32) memcpy(dst, in, n * sizeof *in);
  else if (t == QN_T_F16)
    for (size_t j = 0; j < n; j++) put_u16(dst + 2 * j, (uint16_t)qn__narrow_nearest(qn__form[QN_T_F16], in[j]));
  else
    for (size_t j = 0; j < n; j++) put_u16(dst + 2 * j, (uint16_t)qn__narrow_nearest(qn__form[QN_T_BF16], in[j]));
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

/* Adding and taking away 1.5 * 2^23 rounds to nearest even what is below 2^22. */
static int8_t round_i8(float v) {
  v = v > -127 ? v : -127;
  v = v < 127 ? v : 127;
  float r = v + 0x1.8p23f;
  return (int8_t)(r - 0x1.8p23f);
}

/* The largest magnitude; of an infinity or a NaN, that: as integers, magnitudes of floats are in the same order. */
static float top_of(const float *x, int64_t n) {
  uint32_t top = 0;
  for (int64_t j = 0; j < n; j++) {
    uint32_t a = qn__bits_of_f32(x[j]) & 0x7fffffff;
    top = a > top ? a : top;
  }
  return qn__f32_of_bits(top);
}

float qn__quantize_group(qn_type type, const float *x, int64_t n, void *q) {
  qn_form f = qn__form[type];
  float scale = top_of(x, n) / (f.kind == QN_KIND_SIGNED ? 127 : qn__narrow_value(f, qn__form_largest(f)));
  int8_t *integer = q;
  uint8_t *code = q;
  if (scale == 0) memset(q, 0, (size_t)n);
  else if (f.kind == QN_KIND_SIGNED)
    for (int64_t j = 0; j < n; j++) integer[j] = round_i8(x[j] / scale);
  else
    for (int64_t j = 0; j < n; j++) code[j] = (uint8_t)qn__narrow_nearest(f, x[j] / scale);
  return scale;
}

qn_status qn_quantize_rows(const float *x, int64_t m, int64_t k, int64_t ldx, qn_type type, void *q, float *scale) {
  if (!qn__act_scaled(type))
    return qn__fail(QN_E_ARG, "qn_quantize_rows: activations of type %s have no scales",
                    qn_type_name(type) ? qn_type_name(type) : "?");
  if (!m) return QN_OK;
  if (m < 0 || k < 1 || (m > 1 && ldx < k))
    return qn__fail(QN_E_ARG, "qn_quantize_rows: m is %lld, k %lld and ldx %lld; allowed are 0, 1 and k, or more",
                    (long long)m, (long long)k, (long long)ldx);
  if (!x || !q || !scale) return qn__fail(QN_E_ARG, "qn_quantize_rows: NULL buffer");
  for (int64_t i = 0; i < m; i++) scale[i] = qn__quantize_group(type, x + i * ldx, k, (char *)q + i * k);
  return QN_OK;
}
