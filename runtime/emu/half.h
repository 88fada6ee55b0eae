/* half.h - small floats and exact rounding into them.
 *
 * A value is rounded once: what arithmetic leaves behind in a wider type is first rounded to odd (the last bit becomes
 * 1 when anything was lost), after which rounding to nearest even in the narrow type sees the truth. Branch-free where
 * the compiler shall vectorise. Encodings: PTX ISA, "Alternate Floating-Point Data Formats". */
#ifndef QN_EMU_HALF_H
#define QN_EMU_HALF_H
#include <math.h>
#include <stdint.h>
#include <string.h>

static inline float bits_float(uint32_t u) {
  float f;
  memcpy(&f, &u, 4);
  return f;
}
static inline uint32_t float_bits(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  return u;
}

static inline float half_float(uint16_t h) {
  uint32_t em = (uint32_t)(h & 0x7fff) << 13;
  uint32_t u = float_bits(bits_float(em) * 0x1p112f);
  u = em >= 0x0f800000u ? em | 0x7f800000u : u;
  return bits_float(u | (uint32_t)(h & 0x8000) << 16);
}

/* To nearest even; a NaN becomes the canonical 0x7fff. */
static inline uint16_t float_half(float f) {
  uint32_t u = float_bits(f), sign = u & 0x80000000u;
  u ^= sign;
  uint32_t tiny = float_bits(bits_float(u) + 0.5f) - 0x3f000000u; /* the adder does the rounding of subnormals */
  uint32_t normal = (u + 0xc8000fffu + ((u >> 13) & 1)) >> 13;
  uint32_t r = u >= 0x477ff000u ? 0x7c00u : u < 0x38800000u ? tiny : normal;
  return (uint16_t)(u > 0x7f800000u ? 0x7fffu : r | sign >> 16);
}

static inline float bfloat_float(uint16_t h) { return bits_float((uint32_t)h << 16); }
static inline uint16_t float_bfloat(float f) {
  uint32_t u = float_bits(f);
  return (uint16_t)((u & 0x7fffffff) > 0x7f800000 ? 0x7fff : (u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

/* The float nearest to s, made odd when `lost` (exact value minus s, any size below an ulp) is not zero. */
static inline float odd_float(float s, float lost) {
  uint32_t u = float_bits(s), e = float_bits(lost);
  uint32_t step = (0u - ((e ^ u) >> 31)) | 1u; /* away from or towards zero */
  uint32_t inexact = (e << 1) != 0 && (u & 0x7f800000u) != 0x7f800000u;
  return bits_float(u + step * (inexact & ~u & 1u));
}

/* a + b, rounded to odd (Knuth's two-sum finds what is lost). */
static inline float odd_add(float a, float b) {
  float s = a + b, v = s - a;
  return odd_float(s, (a - (s - v)) + (b - v));
}

/* A double rounded to odd in float: exact for every narrower type that follows. `lost` as above. */
static inline float double_odd(double d, double lost) {
  float s = (float)d;
  double rest = d - (double)s;
  if (isinf(s) && !isinf(d)) s = copysignf(0x1.fffffep127f, s), rest = copysign(1, d);
  return odd_float(s, rest != 0 ? (rest > 0 ? 1.0f : -1.0f) : lost != 0 ? (lost > 0 ? 1.0f : -1.0f) : 0.0f);
}

/* 8-, 6- and 4-bit floats: exponent bits, mantissa bits, bias, largest code of a finite number, NaN code (0: none). */
typedef struct minifloat {
  int exponent, mantissa, bias;
  uint8_t largest, nan, infinity;
} minifloat;
static const minifloat e4m3 = {4, 3, 7, 0x7e, 0x7f, 0}, e5m2 = {5, 2, 15, 0x7b, 0x7f, 0x7c},
                       e2m3 = {2, 3, 1, 0x1f, 0, 0}, e3m2 = {3, 2, 3, 0x1f, 0, 0}, e2m1 = {2, 1, 1, 0x7, 0, 0};

static inline float minifloat_float(const minifloat *m, uint32_t code) {
  uint32_t sign = code >> (m->exponent + m->mantissa) & 1, abs = code & ((1u << (m->exponent + m->mantissa)) - 1);
  int e = (int)(abs >> m->mantissa);
  uint32_t f = abs & ((1u << m->mantissa) - 1);
  float v = e ? ldexpf((float)(f | 1u << m->mantissa), e - m->bias - m->mantissa)
              : ldexpf((float)f, 1 - m->bias - m->mantissa);
  if (m->nan && abs > m->largest) v = m->infinity && abs == m->infinity ? INFINITY : NAN;
  return sign ? -v : v;
}

/* To nearest even, saturating to the largest finite number (.satfinite); NaN to the NaN code or, lacking one, the
 * largest. */
static inline uint32_t float_minifloat(const minifloat *m, float v) {
  uint32_t sign = (uint32_t)(signbit(v) != 0) << (m->exponent + m->mantissa);
  if (isnan(v)) return m->nan ? m->nan : m->largest;
  float a = fabsf(v);
  if (a > minifloat_float(m, m->largest)) return sign | m->largest;
  int e;
  frexpf(a, &e);
  int scale = e - 1 < 1 - m->bias ? 1 - m->bias : e - 1; /* exponent of the last place is scale - mantissa */
  uint32_t q = (uint32_t)lrintf(ldexpf(a, m->mantissa - scale));
  uint32_t code = a == 0 ? 0 : q + ((uint32_t)(scale + m->bias - 1) << m->mantissa);
  return sign | (code > m->largest ? m->largest : code);
}
#endif
