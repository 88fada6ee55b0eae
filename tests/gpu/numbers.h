/* numbers.h - the number types of tensor cores, by their description: widths, and the codes that end the finite ones.
 *
 * Everything here is plain double arithmetic, slow and short, and shares nothing with the interpreter: it is what the
 * interpreter is compared with. Source: PTX ISA, "Alternate Floating-Point Data Formats"; OCP 8-bit floating point. */
#ifndef QN_NUMBERS_H
#define QN_NUMBERS_H
#include <stdbool.h>
#include <stdint.h>

typedef struct number {
  const char *name;
  int bits;               /* of a code; tf32 lies in the upper bits of 32 */
  int exponent, mantissa; /* bits of them; 0, 0: an integer */
  bool is_signed;
  uint32_t largest, infinity, nan; /* codes; 0: there is none (nan: the largest stands for it) */
} number;

extern const number n_f32, n_tf32, n_f16, n_bf16, n_e4m3, n_e5m2, n_e3m2, n_e2m3, n_e2m1, n_s32, n_u32, n_s8, n_u8;

typedef enum rounding { R_NEAREST, R_ZERO, R_DOWN, R_UP, R_NEAREST_AWAY } rounding;

double number_value(const number *t, uint32_t code);
/* The code nearest to v. Beyond the largest: infinity, or the largest if `saturate` or there is none. Integers
 * saturate, NaN gives them 0. */
uint32_t number_code(const number *t, double v, rounding r, bool saturate);
static inline bool number_is_integer(const number *t) { return !t->exponent; }

/* Seeded random bits. */
uint32_t draw_bits(uint64_t *state);
static inline uint32_t draw_below(uint64_t *state, uint32_t n) { return draw_bits(state) % n; }
/* A code of t: a small whole number (so small that sums of products of them are exact in every accumulator), or any of
 * a range of a few binades (integers: any at all). */
uint32_t draw_whole(const number *t, uint64_t *state);
uint32_t draw_real(const number *t, uint64_t *state);
#endif
