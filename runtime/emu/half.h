/* half.h - the narrow floats by their names in PTX. Encodings: PTX ISA, "Alternate Floating-Point Data Formats". */
#ifndef QN_EMU_HALF_H
#define QN_EMU_HALF_H
#include "narrow.h"

static inline float half_float(uint16_t h) { return qn__narrow_value(qn__form[QN_T_F16], h); }
static inline uint16_t float_half(float f) { return (uint16_t)qn__narrow_nearest(qn__form[QN_T_F16], f); }
static inline float bfloat_float(uint16_t h) { return qn__narrow_value(qn__form[QN_T_BF16], h); }
static inline uint16_t float_bfloat(float f) { return (uint16_t)qn__narrow_nearest(qn__form[QN_T_BF16], f); }

/* Those that PTX has beside our element types. */
static const qn_form e2m3 = {.kind = QN_KIND_FINITE, .exponent = 2, .mantissa = 3},
                     e3m2 = {.kind = QN_KIND_FINITE, .exponent = 3, .mantissa = 2},
                     e2m1 = {.kind = QN_KIND_FINITE, .exponent = 2, .mantissa = 1};

/* a + b, rounded to odd (Knuth's two-sum finds what is lost). */
static inline float odd_add(float a, float b) {
  float s = a + b, v = s - a;
  return qn__odd_float(s, (a - (s - v)) + (b - v));
}

#endif
