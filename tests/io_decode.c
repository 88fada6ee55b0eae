/* io_decode.c - see io_decode.h. Computed in double and rounded once to float. */
#include "io_decode.h"
#include "fail.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- Numbers ----------------------------------------------------------------------------------------------------- */

static double mini_float(unsigned code, int exponent_bits, int mantissa_bits, int bias) { /* no specials */
  unsigned e = code >> mantissa_bits & ((1u << exponent_bits) - 1), m = code & ((1u << mantissa_bits) - 1);
  double v = e ? ldexp(m + (1u << mantissa_bits), (int)e - bias - mantissa_bits) : ldexp(m, 1 - bias - mantissa_bits);
  return code >> (exponent_bits + mantissa_bits) & 1 ? -v : v;
}

static double e4m3(unsigned code) { return (code & 0x7f) == 0x7f ? NAN : mini_float(code, 4, 3, 7); }
static double e2m1(unsigned code) { return mini_float(code, 2, 1, 1); }

static double e5m2(unsigned code) {
  if ((code & 0x7f) > 0x7c) return NAN;
  return (code & 0x7f) == 0x7c ? (code & 0x80 ? -INFINITY : INFINITY) : mini_float(code, 5, 2, 15);
}

static double element(const qn_plane *p, int64_t i) {
  const uint8_t *at = (const uint8_t *)p->data + i * (qn_type_bits(p->type) / 8);
  float x = 0;
  uint32_t u = 0;
  memcpy(&u, at, (size_t)qn_type_bits(p->type) / 8);
  switch (p->type) {
  case QN_T_E4M3:
    return e4m3(u);
  case QN_T_E5M2:
    return e5m2(u);
  case QN_T_E8M0:
    return u == 255 ? NAN : ldexp(1, (int)u - 127);
  case QN_T_U8:
    return u;
  case QN_T_I8:
    return (int8_t)u;
  default:
    qn_convert(&u, p->type, &x, QN_T_F32, 1);
    return (double)x;
  }
}

/* The element of a plane that belongs to code [n, k]; `fallback` if there is no such plane. */
static double at(const qn_planes *p, const char *name, int64_t n, int64_t k, double fallback) {
  const qn_plane *x = qn_planes_find(p, name);
  if (!x) return fallback;
  int64_t rows = (p->n + x->rows - 1) / x->rows, cols = (p->k + x->cols - 1) / x->cols;
  long long r, c;
  if (sscanf(p->format, "%*[^.].b%lldx%lld", &r, &c) == 2) rows = r, cols = c;
  else if (sscanf(p->format, "%*[^.].g%lld", &c) == 1 && x->cols == (p->k + c - 1) / c)
    cols = c; /* a short last group */
  return element(x, n / rows * x->cols + k / cols);
}

/* ---- Formats ----------------------------------------------------------------------------------------------------- */

static const double nf4[] = {-1.0,
                             -0.6961928009986877,
                             -0.5250730514526367,
                             -0.39491748809814453,
                             -0.28444138169288635,
                             -0.18477343022823334,
                             -0.09105003625154495,
                             0.0,
                             0.07958029955625534,
                             0.16093020141124725,
                             0.24611230194568634,
                             0.33791524171829224,
                             0.44070982933044434,
                             0.5626170039176941,
                             0.7229568362236023,
                             1.0};
static const float fp4[] = {
    0, 0.0052083334885537624f, 0.6666666865348816f, 1, 0.3333333432674408f, 0.5f, 0.1666666716337204f, 0.25f};
static const int iq4[] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

typedef double formula(const qn_planes *p, unsigned q, int64_t n, int64_t k);

static double scale(const qn_planes *p, int64_t n, int64_t k) { return at(p, "scale", n, k, NAN); }

static double as_int(const qn_planes *p, unsigned q, int64_t n, int64_t k) {
  int bits = p->format[3] - '0';
  if (qn_planes_find(p, "min")) return q * scale(p, n, k) + at(p, "min", n, k, NAN);
  return (q - at(p, "zero", n, k, 1 << (bits - 1))) * scale(p, n, k);
}

static double as_half(const qn_planes *p, unsigned q, int64_t n, int64_t k) {
  (void)n, (void)k;
  uint16_t h = (uint16_t)q;
  float x = 0;
  qn_convert(&h, *p->format == 'b' ? QN_T_BF16 : QN_T_F16, &x, QN_T_F32, 1);
  return (double)x;
}

static double as_single(const qn_planes *p, unsigned q, int64_t n, int64_t k) {
  (void)p, (void)n, (void)k;
  float x;
  memcpy(&x, &q, 4);
  return (double)x;
}

static double as_nf4(const qn_planes *p, unsigned q, int64_t n, int64_t k) { return nf4[q] * scale(p, n, k); }
static double as_fp4(const qn_planes *p, unsigned q, int64_t n, int64_t k) {
  return (q & 8 ? -1 : 1) * (double)fp4[q & 7] * scale(p, n, k);
}
static double as_iq4(const qn_planes *p, unsigned q, int64_t n, int64_t k) { return iq4[q] * scale(p, n, k); }
static double as_e4m3(const qn_planes *p, unsigned q, int64_t n, int64_t k) { return e4m3(q) * scale(p, n, k); }
static double as_e5m2(const qn_planes *p, unsigned q, int64_t n, int64_t k) { return e5m2(q) * scale(p, n, k); }
static double as_mxfp4(const qn_planes *p, unsigned q, int64_t n, int64_t k) { return e2m1(q) * scale(p, n, k); }
static double as_nvfp4(const qn_planes *p, unsigned q, int64_t n, int64_t k) {
  return e2m1(q) * (scale(p, n, k) * at(p, "global", n, k, NAN));
}
static double as_ternary(const qn_planes *p, unsigned q, int64_t n, int64_t k) { return (q - 1.0) * scale(p, n, k); }
static double as_k_quant(const qn_planes *p, unsigned q, int64_t n, int64_t k) {
  return at(p, "d", n, k, NAN) * scale(p, n, k) * q - at(p, "dmin", n, k, NAN) * at(p, "min", n, k, NAN);
}
static double as_qserve(const qn_planes *p, unsigned q, int64_t n, int64_t k) {
  return (q * scale(p, n, k) - at(p, "min", n, k, NAN)) * at(p, "row", n, k, NAN);
}

static const struct {
  const char *name; /* a prefix of the format */
  formula *f;
} formulas[] = {{"int", as_int},      {"f16", as_half},        {"bf16", as_half},    {"f32", as_single},
                {"nf4", as_nf4},      {"fp4", as_fp4},         {"iq4_nl", as_iq4},   {"e4m3", as_e4m3},
                {"e5m2", as_e5m2},    {"mxfp8_e5m2", as_e5m2}, {"mxfp8", as_e4m3},   {"mxfp4", as_mxfp4},
                {"nvfp4", as_nvfp4},  {"ternary", as_ternary}, {"q2_k", as_k_quant}, {"q4_k", as_k_quant},
                {"q5_k", as_k_quant}, {"qserve", as_qserve}};

const char *io_decode(const qn_planes *p, float *out) {
  formula *f = NULL;
  for (size_t i = 0; !f && i < QN_COUNT(formulas); i++)
    if (!strncmp(p->format, formulas[i].name, strlen(formulas[i].name))) f = formulas[i].f;
  const qn_plane *codes = qn_planes_find(p, "codes");
  if (!f) return p->format;
  if (!codes || codes->rows != p->n || codes->cols != p->k) return "the codes are not [N, K]";
  int bytes = qn_type_bits(codes->type) / 8;
  for (int64_t n = 0; n < p->n; n++)
    for (int64_t k = 0; k < p->k; k++) {
      unsigned q = 0;
      memcpy(&q, (const char *)codes->data + (n * p->k + k) * bytes, (size_t)bytes);
      out[n * p->k + (p->perm ? p->perm[k] : k)] = (float)f(p, q, n, k);
    }
  return NULL;
}
