/* vector.h - loops over floats for whatever vectors this CPU has.
 *
 * The files that use it are compiled with -O3 -ffp-contract=fast, their loops marked QN__CLONES: they become vectors, a
 * product and a sum one instruction where there is one. */
#ifndef QN_EVAL_VECTOR_H
#define QN_EVAL_VECTOR_H
#include "clones.h"
#include "narrow.h"

enum { QN__LANES = 16 };
typedef float qn__lanes __attribute__((vector_size(64), aligned(4), may_alias)); /* at the address of any float */

/* e^x to 2 units in the last place for |x| <= 80, the value there beyond: what follows, 1 / (1 + e^x) too, stays clear
 * of denormals, which are slow. NaN stays NaN. x = n ln 2 + r with |r| <= ln 2 / 2: e^r is a polynomial (Cephes' expf,
 * Moshier), 2^n an exponent. */
QN__INLINE float qn__exp(float x) {
  x = x < -80.0f ? -80.0f : x > 80.0f ? 80.0f : x;
  const float magic = 0x1.8p23f; /* adding it rounds to an integer, in the low bits */
  float t = x * 0x1.715476p0f + magic, n = t - magic;
  float r = x - n * 0.693359375f - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * qn__f32_of_bits((qn__bits_of_f32(t) + 127) << 23);
}

QN__INLINE float qn__sigmoid(float x) { return 1.0f / (1.0f + qn__exp(-x)); }
QN__INLINE float qn__tanh(float x) { return 1.0f - 2.0f / (1.0f + qn__exp(2.0f * x)); }

/* The sum of n products, in 16 sums that are added up at the end. */
QN__INLINE float qn__dot(const float *a, const float *b, int64_t n) {
  float s[QN__LANES] = {0}, sum = 0;
  int64_t i = 0;
  for (; i + QN__LANES <= n; i += QN__LANES)
    for (int j = 0; j < QN__LANES; j++) s[j] += a[i + j] * b[i + j];
  for (; i < n; i++) s[i % QN__LANES] += a[i] * b[i];
  for (int j = 0; j < QN__LANES; j++) sum += s[j];
  return sum;
}
#endif
