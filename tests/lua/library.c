/* library.c - what the tests of the bridge call: one function for each kind of argument and result; and a function for
 * the tuner. */
#include "quernel.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define SHOWN __attribute__((visibility("default")))

SHOWN int8_t take_i8(int8_t x);
SHOWN uint8_t take_u8(uint8_t x);
SHOWN int16_t take_i16(int16_t x);
SHOWN uint16_t take_u16(uint16_t x);
SHOWN int32_t take_i32(int32_t x);
SHOWN uint32_t take_u32(uint32_t x);
SHOWN int64_t take_i64(int64_t x);
SHOWN float take_f32(float x);
SHOWN double take_f64(double x);
SHOWN bool is_odd(int x);
SHOWN double sum(const float *x, size_t n);
SHOWN void scale(float *x, size_t n, float by);
SHOWN const char *name_of(int i);
SHOWN size_t count_bytes(const char *text);
SHOWN void *at(void *base, size_t offset);
SHOWN double many(int a, double b, float c, const char *d, int64_t e, unsigned char f, const double *g, int h);
SHOWN int calls(void);
SHOWN void product(const qn_function_args *a, int64_t begin, int64_t end, int32_t thread);

static int count;

int8_t take_i8(int8_t x) { return (int8_t)-x; }
uint8_t take_u8(uint8_t x) { return (uint8_t)(x + 1); }
int16_t take_i16(int16_t x) { return (int16_t)-x; }
uint16_t take_u16(uint16_t x) { return (uint16_t)(x + 1); }
int32_t take_i32(int32_t x) { return -x; }
uint32_t take_u32(uint32_t x) { return x + 1; }
int64_t take_i64(int64_t x) { return -x; }
float take_f32(float x) { return x / 2; }
double take_f64(double x) { return x / 2; }
bool is_odd(int x) { return x % 2 != 0; }

double sum(const float *x, size_t n) {
  double s = 0;
  for (size_t i = 0; i < n; i++) s += (double)x[i];
  return s;
}
void scale(float *x, size_t n, float by) {
  for (size_t i = 0; i < n; i++) x[i] *= by;
}
const char *name_of(int i) { return i == 1 ? "one" : NULL; }
size_t count_bytes(const char *text) { return text ? strlen(text) : 0; }
void *at(void *base, size_t offset) { return base ? (char *)base + offset : NULL; }
double many(int a, double b, float c, const char *d, int64_t e, unsigned char f, const double *g, int h) {
  return a + b + (double)c + (double)strlen(d) + (double)e + f + g[0] + h;
}
int calls(void) { return ++count; }

/* int4.g32.f32 in the layout host.record.n16v1, f32 in and out. A record is 32 codes of 16 columns: 16 scales, then
 * words of eight codes, [k / 8][column]. */
void product(const qn_function_args *a, int64_t begin, int64_t end, int32_t thread) {
  enum { record = 16 * 4 + 16 * 16 };
  const char *panel;
  (void)thread;
  for (int64_t n = begin; n < end; n++) {
    panel = (const char *)a->w + n / 16 * ((a->k + 31) / 32) * record;
    for (int64_t m = 0; m < a->m; m++) {
      float sum = 0, scale;
      uint32_t word;
      for (int64_t k = 0; k < a->k; k++) {
        memcpy(&scale, panel + k / 32 * record + n % 16 * 4, 4);
        memcpy(&word, panel + k / 32 * record + 64 + (k % 32 / 8 * 16 + n % 16) * 4, 4);
        sum += ((const float *)a->x)[m * a->ldx + k] * ((float)(word >> k % 8 * 4 & 15) - 8) * scale;
      }
      ((float *)a->y)[m * a->ldy + n] = sum;
    }
  }
}
