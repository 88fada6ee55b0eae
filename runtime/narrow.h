/* narrow.h - the narrow floats: what the code of a float of 16 bits or fewer is worth, and which code is nearest to a
 * number. The one place that computes them.
 *
 * A number is rounded once: what arithmetic leaves behind in a wider type is first rounded to odd (the last bit becomes
 * 1 when anything was lost), after which rounding to nearest even in the narrow type sees the truth. No function
 * branches, so that with a constant form a loop over one is vectorised. */
#ifndef QN_NARROW_H
#define QN_NARROW_H
#include "types.h"
#include <math.h>
#include <string.h>

static inline float qn__f32_of_bits(uint32_t u) {
  float f;
  memcpy(&f, &u, sizeof f);
  return f;
}

static inline uint32_t qn__bits_of_f32(float f) {
  uint32_t u;
  memcpy(&u, &f, sizeof u);
  return u;
}

/* ---- Codes of a sign, an exponent and a mantissa ----------------------------------------------------------------- */

static inline uint32_t qn__form_bias(qn_form f) { return (1u << (f.exponent - 1)) - 1; }
static inline uint32_t qn__form_ones(qn_form f) { return (1u << (f.exponent + f.mantissa)) - 1; } /* all but the sign */
static inline uint32_t qn__form_infinity(qn_form f) { return qn__form_ones(f) + 1 - (1u << f.mantissa); }
static inline uint32_t qn__form_largest(qn_form f) {
  return f.kind == QN_KIND_IEEE ? qn__form_infinity(f) - 1 : qn__form_ones(f) - (f.kind == QN_KIND_NAN_LAST);
}

/* Moved into f32's place, a code is the same number times a power of two, denormal or not. */
static inline float qn__narrow_value(qn_form f, uint32_t code) {
  uint32_t a = code & qn__form_ones(f), moved = a << (23 - f.mantissa);
  uint32_t sign = (code >> (f.exponent + f.mantissa) & 1) << 31;
  uint32_t u = qn__bits_of_f32(qn__f32_of_bits(moved) * qn__f32_of_bits((254 - qn__form_bias(f)) << 23));
  uint32_t last = f.kind == QN_KIND_IEEE ? moved | 0x7f800000 : 0x7fc00000;
  return qn__f32_of_bits((a > qn__form_largest(f) ? last : u) | sign);
}

/* Of two that are as near, the even code. Beyond the largest, 16 bits become infinite, fewer stay at the largest. NaN
 * becomes ones without a sign, which is NaN in types that have one.
 *
 * Denormals: adding `unit`, whose last place is that of the smallest number, rounds in the adder. */
static inline uint32_t qn__narrow_nearest(qn_form f, float v) {
  uint32_t u = qn__bits_of_f32(v), a = u & 0x7fffffff, bias = qn__form_bias(f);
  uint32_t shift = 23 - (uint32_t)f.mantissa, unit = (151 - bias - (uint32_t)f.mantissa) << 23;
  uint32_t denormal = qn__bits_of_f32(qn__f32_of_bits(a) + qn__f32_of_bits(unit)) - unit;
  uint32_t normal = (a + ((1u << (shift - 1)) - 1) + (a >> shift & 1) - ((127 - bias) << 23)) >> shift;
  uint32_t code = a < (128 - bias) << 23 ? denormal : normal, largest = qn__form_largest(f);
  uint32_t beyond = f.exponent + f.mantissa < 15 ? largest : qn__form_infinity(f);
  code = (code > largest ? beyond : code) | (u >> 31) << (f.exponent + f.mantissa);
  return a > 0x7f800000 ? qn__form_ones(f) : code;
}

/* ---- Codes of an exponent alone: e8m0 ---------------------------------------------------------------------------- */

/* The smallest, 2^-127, is a denormal of f32. */
static inline float qn__power_value(uint8_t code) {
  return qn__f32_of_bits(code == 255 ? 0x7fc00000 : code ? (uint32_t)code << 23 : 0x400000);
}

static inline uint8_t qn__power_nearest(float v) {
  uint32_t u = qn__bits_of_f32(v), a = u & 0x7fffffff, code = (a + 0x3fffff + (a >> 23 & 1)) >> 23;
  code = a < 0x800000 ? a > 0x600000 : code > 254 ? 254 : code;
  return (uint8_t)(a > 0x7f800000 ? 255 : u >> 31 ? 0 : code);
}

/* ---- Rounding to odd --------------------------------------------------------------------------------------------- */

/* The float nearest to s, made odd when `lost` (exact value minus s, any size below an ulp) is not zero. */
static inline float qn__odd_float(float s, float lost) {
  uint32_t u = qn__bits_of_f32(s), e = qn__bits_of_f32(lost);
  uint32_t step = (0u - ((e ^ u) >> 31)) | 1u; /* away from or towards zero */
  uint32_t inexact = (e << 1) != 0 && (u & 0x7f800000u) != 0x7f800000u;
  return qn__f32_of_bits(u + step * (inexact & ~u & 1u));
}

/* A double rounded to odd in float: exact for every narrower type that follows. `lost` as above. */
static inline float qn__odd_double(double d, double lost) {
  float s = (float)d;
  double rest = d - (double)s;
  if (isinf(s) && !isinf(d)) s = copysignf(0x1.fffffep127f, s), rest = copysign(1, d);
  return qn__odd_float(s, rest != 0 ? (rest > 0 ? 1.0f : -1.0f) : lost != 0 ? (lost > 0 ? 1.0f : -1.0f) : 0.0f);
}
#endif
