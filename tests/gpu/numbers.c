#include "numbers.h"
#include <math.h>

const number n_f32 = {"f32", 32, 8, 23, true, 0x7f7fffff, 0x7f800000, 0x7fffffff},
             n_tf32 = {"tf32", 32, 8, 23, true, 0x7f7fe000, 0x7f800000, 0x7fffffff},
             n_f16 = {"f16", 16, 5, 10, true, 0x7bff, 0x7c00, 0x7fff},
             n_bf16 = {"bf16", 16, 8, 7, true, 0x7f7f, 0x7f80, 0x7fff}, n_e4m3 = {"e4m3", 8, 4, 3, true, 0x7e, 0, 0x7f},
             n_e5m2 = {"e5m2", 8, 5, 2, true, 0x7b, 0x7c, 0x7f}, n_e3m2 = {"e3m2", 6, 3, 2, true, 0x1f, 0, 0},
             n_e2m3 = {"e2m3", 6, 2, 3, true, 0x1f, 0, 0}, n_e2m1 = {"e2m1", 4, 2, 1, true, 7, 0, 0},
             n_s32 = {"s32", 32, 0, 0, true, 0, 0, 0}, n_u32 = {"u32", 32, 0, 0, false, 0, 0, 0},
             n_s8 = {"s8", 8, 0, 0, true, 0, 0, 0}, n_u8 = {"u8", 8, 0, 0, false, 0, 0, 0};

static uint32_t low(int bits) { return (uint32_t)((UINT64_C(1) << bits) - 1); }
static int bias(const number *t) { return (1 << (t->exponent - 1)) - 1; }

static double integer_value(const number *t, uint32_t code) {
  code &= low(t->bits);
  return t->is_signed && code >> (t->bits - 1) ? (double)code - ldexp(1, t->bits) : (double)code;
}

double number_value(const number *t, uint32_t code) {
  if (number_is_integer(t)) return integer_value(t, code);
  int top = t->exponent + t->mantissa;
  uint32_t size = code & low(top), fraction = size & low(t->mantissa);
  int e = (int)(size >> t->mantissa);
  double v = e ? ldexp(fraction + ldexp(1, t->mantissa), e - bias(t) - t->mantissa)
               : ldexp(fraction, 1 - bias(t) - t->mantissa);
  if (size > (t->largest | (t == &n_tf32 ? 0x1fff : 0))) v = size == t->infinity ? INFINITY : NAN;
  return code >> top & 1 ? -v : v;
}

static double whole(double v, rounding r) {
  switch (r) {
  case R_ZERO:
    return trunc(v);
  case R_DOWN:
    return floor(v);
  case R_UP:
    return ceil(v);
  case R_NEAREST_AWAY:
    return round(v);
  default:
    return nearbyint(v);
  }
}

static uint32_t integer_code(const number *t, double v, rounding r) {
  double least = t->is_signed ? -ldexp(1, t->bits - 1) : 0, most = ldexp(1, t->bits - t->is_signed) - 1;
  if (isnan(v)) return 0;
  v = fmin(fmax(whole(v, r), least), most);
  return (uint32_t)(int64_t)v & low(t->bits);
}

uint32_t number_code(const number *t, double v, rounding r, bool saturate) {
  if (number_is_integer(t)) return integer_code(t, v, r);
  if (isnan(v)) return t->nan ? t->nan : t->largest;
  uint32_t sign = (uint32_t)(signbit(v) != 0) << (t->exponent + t->mantissa);
  uint32_t beyond = saturate || !t->infinity ? t->largest : t->infinity;
  if (isinf(v)) return sign | beyond;
  int e, cut = t == &n_tf32 ? 13 : 0; /* bits of the mantissa that tf32 has not */
  frexp(v, &e);
  e = e - 1 < 1 - bias(t) ? 1 - bias(t) : e - 1;
  double units = whole(ldexp(fabs(v), t->mantissa - cut - e), r); /* of the last place of v's binade */
  double code = v == 0 ? 0 : ldexp(units, cut) + ldexp(e + bias(t) - 1, t->mantissa);
  if (code <= t->largest) return sign | (uint32_t)code;
  return sign | (r == R_ZERO ? t->largest : beyond);
}

uint32_t draw_bits(uint64_t *state) { /* splitmix64 */
  uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
  return (uint32_t)((z ^ z >> 31) >> 16);
}

uint32_t draw_whole(const number *t, uint64_t *state) {
  int least = t->is_signed ? -3 : 0;
  return number_code(t, least + (int)draw_below(state, (uint32_t)(4 - least)), R_NEAREST, false);
}

uint32_t draw_real(const number *t, uint64_t *state) {
  if (number_is_integer(t)) return draw_bits(state) & low(t->bits);
  int binades = t->exponent > 3 ? 5 : 1 << t->exponent, first = t->exponent > 3 ? bias(t) - 3 : 0;
  uint32_t e = (uint32_t)first + draw_below(state, (uint32_t)binades), sign = draw_bits(state) & 1;
  uint32_t fraction = draw_bits(state) & low(t->mantissa) & (t == &n_tf32 ? ~0x1fffu : ~0u);
  return sign << (t->exponent + t->mantissa) | e << t->mantissa | fraction;
}
