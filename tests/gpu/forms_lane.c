/* forms_lane.c - instructions of a single lane whose corners kernels lean on: permutes, shifts, fields, dot products,
 * packed halves. Source: PTX ISA, "Integer Arithmetic", "Logic and Shift", "Half Precision Floating Point". */
#include "forms.h"
#include <math.h>
#include <string.h>

enum { THREADS = 128 };

typedef void lane_fn(const uint32_t *a, uint32_t *d);

typedef struct lane_row {
  const char *family, *text;
  int least, in, out;
  form_draw *draw;
  lane_fn *lane;
  const number *result;
} lane_row;

static void each_lane(const form *f, const uint32_t *x, uint32_t *y, double *slack) {
  const lane_row *r = f->more;
  for (int t = 0; t < f->threads; t++) r->lane(x + t * f->in, y + t * f->out);
  memset(slack, 0, sizeof *slack * (size_t)form_y_words(f));
}

/* ---- Bits and integers ------------------------------------------------------------------------------------------- */

static uint64_t pair(const uint32_t *a) { return a[0] | (uint64_t)a[1] << 32; }

static void lop3_minterms(const uint32_t *a, uint32_t *d) {
  for (int i = 0; i < 8; i++) d[i] = (i & 4 ? a[0] : ~a[0]) & (i & 2 ? a[1] : ~a[1]) & (i & 1 ? a[2] : ~a[2]);
}

static uint32_t byte_of(const uint32_t *a, uint32_t selector) {
  uint32_t b = (uint32_t)(pair(a) >> 8 * (selector & 7)) & 255;
  return selector & 8 ? (b & 128 ? 255 : 0) : b;
}
static void prmt(const uint32_t *a, uint32_t *d) {
  *d = 0;
  for (int i = 0; i < 4; i++) *d |= byte_of(a, a[2] >> 4 * i & 15) << 8 * i;
}
/* The six modes take a number of 0 to 3 in place of the selector: which source bytes, most significant first. */
static void prmt_mode(const uint32_t *a, uint32_t *d, const char *const pick[4]) {
  const char *p = pick[a[2] & 3];
  *d = 0;
  for (int i = 0; i < 4; i++) *d |= byte_of(a, (uint32_t)(p[i] - '0')) << 8 * (3 - i);
}
#define PRMT_MODE(name, ...)                                                                                           \
  static void prmt_##name(const uint32_t *a, uint32_t *d) { prmt_mode(a, d, (const char *const[4]){__VA_ARGS__}); }
PRMT_MODE(f4e, "3210", "4321", "5432", "6543")
PRMT_MODE(b4e, "5670", "6701", "7012", "0123")
PRMT_MODE(rc8, "0000", "1111", "2222", "3333")
PRMT_MODE(ecl, "3210", "3211", "3222", "3333")
PRMT_MODE(ecr, "0000", "1110", "2210", "3210")
PRMT_MODE(rc16, "1010", "3232", "1010", "3232")

static int64_t byte_value(uint32_t a, int i, bool is_signed) {
  uint32_t b = a >> 8 * i & 255;
  return is_signed ? (int8_t)b : (int)b;
}
static uint32_t dot4(const uint32_t *a, bool sa, bool sb) {
  int64_t sum = a[2];
  for (int i = 0; i < 4; i++) sum += byte_value(a[0], i, sa) * byte_value(a[1], i, sb);
  return (uint32_t)sum;
}
static void dp4a(const uint32_t *a, uint32_t *d) {
  for (int i = 0; i < 4; i++) d[i] = dot4(a, i & 2, i & 1);
}
static void dp2a(const uint32_t *a, uint32_t *d) {
  for (int high = 0; high < 2; high++) {
    int64_t sum = a[2];
    for (int i = 0; i < 2; i++) sum += (int16_t)(a[0] >> 16 * i) * byte_value(a[1], i + 2 * high, true);
    d[high] = (uint32_t)sum;
  }
}

/* Bit fields: position and length are bytes; past the end there are zeros (signed: copies of the highest bit). */
static uint64_t field(uint64_t v, uint32_t at, uint32_t length, int width, bool is_signed) {
  at &= 255, length &= 255;
  uint32_t last = at + length - 1 > (uint32_t)width - 1 ? (uint32_t)width - 1 : at + length - 1;
  uint64_t out = 0, sign = is_signed && length ? v >> last & 1 : 0;
  for (uint32_t i = 0; i < (uint32_t)width; i++) {
    uint64_t bit = i < length && at + i < (uint32_t)width ? v >> (at + i) & 1 : sign;
    out |= bit << i;
  }
  return out;
}
static void bfe32(const uint32_t *a, uint32_t *d) {
  d[0] = (uint32_t)field(a[0], a[1], a[2], 32, false);
  d[1] = (uint32_t)field(a[0], a[1], a[2], 32, true);
}
static void bfe64(const uint32_t *a, uint32_t *d) {
  for (int i = 0; i < 2; i++) {
    uint64_t v = field(pair(a), a[2], a[3], 64, i);
    d[2 * i] = (uint32_t)v, d[2 * i + 1] = (uint32_t)(v >> 32);
  }
}
static void bfi(const uint32_t *a, uint32_t *d) {
  *d = a[1];
  for (uint32_t i = 0, at = a[2] & 255; i < (a[3] & 255) && at + i < 32; i++)
    *d = (*d & ~(1u << (at + i))) | (a[0] >> i & 1) << (at + i);
}
static void shf(const uint32_t *a, uint32_t *d) {
  uint32_t wrap = a[2] & 31, clamp = a[2] > 32 ? 32 : a[2];
  d[0] = (uint32_t)(pair(a) << wrap >> 32), d[1] = (uint32_t)(pair(a) >> wrap);
  d[2] = clamp == 32 ? a[0] : (uint32_t)(pair(a) << clamp >> 32), d[3] = (uint32_t)(pair(a) >> clamp);
}
static void shifts(const uint32_t *a, uint32_t *d) {
  uint32_t by = a[1] > 31 ? 31 : a[1];
  d[0] = a[1] > 31 ? 0 : a[0] << a[1];
  d[1] = a[1] > 31 ? 0 : a[0] >> a[1];
  d[2] = (uint32_t)((int64_t)(int32_t)a[0] >> by);
}
static void find_bits(const uint32_t *a, uint32_t *d) {
  uint32_t magnitude = a[0] >> 31 ? ~a[0] : a[0];
  d[0] = a[0] ? (uint32_t)__builtin_clz(a[0]) : 32, d[1] = (uint32_t)__builtin_popcount(a[0]);
  d[2] = a[0] ? 31 - d[0] : ~0u, d[3] = magnitude ? 31 - (uint32_t)__builtin_clz(magnitude) : ~0u;
}
static void high_products(const uint32_t *a, uint32_t *d) {
  d[0] = (uint32_t)((uint64_t)a[0] * a[1] >> 32);
  d[1] = (uint32_t)(((int64_t)(int32_t)a[0] * (int32_t)a[1]) >> 32);
}

/* Positions and lengths in the registers from the second or third on: mostly small, some with any bits. */
static void draw_fields(const form *f, uint32_t *x, uint64_t *state) {
  int first = f->in > 2 ? 2 : 1;
  draw_any(f, x, state);
  for (int t = 0; t < f->threads; t++)
    for (int i = first; i < f->in; i++)
      if (t % 4) x[t * f->in + i] %= 41;
}
/* Few bits, at any height. */
static void draw_sparse(const form *f, uint32_t *x, uint64_t *state) {
  draw_any(f, x, state);
  for (int i = 0; i < f->threads * f->in; i++) x[i] = (i & 1 ? x[i] : ~(x[i] & 0x7fffffff)) >> (i & 31) | (i == 7);
  x[0] = 0, x[1] = ~0u;
}

/* ---- Packed halves ----------------------------------------------------------------------------------------------- */

static uint32_t both(const number *t, double low, double high) {
  return number_code(t, low, R_NEAREST, false) | number_code(t, high, R_NEAREST, false) << 16;
}
static double half_of(const number *t, uint32_t pair_of, int i) { return number_value(t, pair_of >> 16 * i & 0xffff); }

/* d0 = a + b, d1 = a - b, d2 = a b, d3 = a b + c, d4 the same with no negatives, d5 and d6 the lesser and greater. */
static void halves(const number *t, const uint32_t *a, uint32_t *d) {
  double v[7][2];
  for (int i = 0; i < 2; i++) {
    double p = half_of(t, a[0], i), q = half_of(t, a[1], i), r = half_of(t, a[2], i), s = p * q + r;
    const double out[7] = {p + q, p - q, p * q, s, s > 0 ? s : 0, fmin(p, q), fmax(p, q)};
    for (int j = 0; j < 7; j++) v[j][i] = out[j];
  }
  for (int j = 0; j < 7; j++) d[j] = both(t, v[j][0], v[j][1]);
}
static void halves_f16(const uint32_t *a, uint32_t *d) { halves(&n_f16, a, d); }
static void halves_bf16(const uint32_t *a, uint32_t *d) { halves(&n_bf16, a, d); }

/* Within a few binades, so that the exact result fits a double. */
static void draw_pairs(const number *t, const form *f, uint32_t *x, uint64_t *state) {
  for (int i = 0; i < f->threads * f->in; i++) x[i] = draw_real(t, state) | draw_real(t, state) << 16;
}
static void draw_f16(const form *f, uint32_t *x, uint64_t *state) { draw_pairs(&n_f16, f, x, state); }
static void draw_bf16(const form *f, uint32_t *x, uint64_t *state) { draw_pairs(&n_bf16, f, x, state); }

#define HALVES(t)                                                                                                      \
  "add.rn." t " d0, a0, a1; sub.rn." t " d1, a0, a1; mul.rn." t " d2, a0, a1; fma.rn." t " d3, a0, a1, a2; "           \
  "fma.rn.relu." t " d4, a0, a1, a2; min." t " d5, a0, a1; max." t " d6, a0, a1;"
#define SPECIAL_HALVES(t)                                                                                              \
  "fma.rn." t " d0, a0, a1, a2; fma.rn.relu." t " d1, a0, a1, a2; min.NaN." t " d2, a0, a1; max.NaN." t                \
  " d3, a0, a1; "                                                                                                      \
  "min." t " d4, a0, a1; abs." t " d5, a0; neg." t " d6, a0;"

static const lane_row rows[] = {
    {"bits",
     "lop3.b32 d0, a0, a1, a2, 0x01; lop3.b32 d1, a0, a1, a2, 0x02; lop3.b32 d2, a0, a1, a2, 0x04; "
     "lop3.b32 d3, a0, a1, a2, 0x08; lop3.b32 d4, a0, a1, a2, 0x10; lop3.b32 d5, a0, a1, a2, 0x20; "
     "lop3.b32 d6, a0, a1, a2, 0x40; lop3.b32 d7, a0, a1, a2, 0x80;",
     75, 3, 8, draw_any, lop3_minterms, NULL},
    {"bits", "prmt.b32 d0, a0, a1, a2;", 75, 3, 1, draw_any, prmt, NULL},
    {"bits", "prmt.b32.f4e d0, a0, a1, a2;", 75, 3, 1, draw_any, prmt_f4e, NULL},
    {"bits", "prmt.b32.b4e d0, a0, a1, a2;", 75, 3, 1, draw_any, prmt_b4e, NULL},
    {"bits", "prmt.b32.rc8 d0, a0, a1, a2;", 75, 3, 1, draw_any, prmt_rc8, NULL},
    {"bits", "prmt.b32.ecl d0, a0, a1, a2;", 75, 3, 1, draw_any, prmt_ecl, NULL},
    {"bits", "prmt.b32.ecr d0, a0, a1, a2;", 75, 3, 1, draw_any, prmt_ecr, NULL},
    {"bits", "prmt.b32.rc16 d0, a0, a1, a2;", 75, 3, 1, draw_any, prmt_rc16, NULL},
    {"bits",
     "dp4a.u32.u32 d0, a0, a1, a2; dp4a.u32.s32 d1, a0, a1, a2; dp4a.s32.u32 d2, a0, a1, a2; "
     "dp4a.s32.s32 d3, a0, a1, a2;",
     75, 3, 4, draw_any, dp4a, NULL},
    {"bits", "dp2a.lo.s32.s32 d0, a0, a1, a2; dp2a.hi.s32.s32 d1, a0, a1, a2;", 75, 3, 2, draw_any, dp2a, NULL},
    {"bits", "bfe.u32 d0, a0, a1, a2; bfe.s32 d1, a0, a1, a2;", 75, 3, 2, draw_fields, bfe32, NULL},
    {"bits",
     ".reg .b64 v, w; mov.b64 v, {a0, a1}; bfe.u64 w, v, a2, a3; mov.b64 {d0, d1}, w; bfe.s64 w, v, a2, a3; "
     "mov.b64 {d2, d3}, w;",
     75, 4, 4, draw_fields, bfe64, NULL},
    {"bits", "bfi.b32 d0, a0, a1, a2, a3;", 75, 4, 1, draw_fields, bfi, NULL},
    {"bits",
     "shf.l.wrap.b32 d0, a0, a1, a2; shf.r.wrap.b32 d1, a0, a1, a2; shf.l.clamp.b32 d2, a0, a1, a2; "
     "shf.r.clamp.b32 d3, a0, a1, a2;",
     75, 3, 4, draw_fields, shf, NULL},
    {"bits", "shl.b32 d0, a0, a1; shr.u32 d1, a0, a1; shr.s32 d2, a0, a1;", 75, 2, 3, draw_fields, shifts, NULL},
    {"bits", "clz.b32 d0, a0; popc.b32 d1, a0; bfind.u32 d2, a0; bfind.s32 d3, a0;", 75, 1, 4, draw_sparse, find_bits,
     NULL},
    {"bits", "mul.hi.u32 d0, a0, a1; mul.hi.s32 d1, a0, a1;", 75, 2, 2, draw_any, high_products, NULL},
    {"halves", HALVES("f16x2"), 80, 3, 7, draw_f16, halves_f16, NULL},
    {"halves", SPECIAL_HALVES("f16x2"), 80, 3, 7, draw_any, NULL, NULL},
    {"halves",
     "fma.rn.bf16x2 d3, a0, a1, a2; fma.rn.relu.bf16x2 d4, a0, a1, a2; min.bf16x2 d5, a0, a1; max.bf16x2 d6, a0, a1; "
     "add.rn.bf16x2 d0, a0, a1; sub.rn.bf16x2 d1, a0, a1; mul.rn.bf16x2 d2, a0, a1;",
     90, 3, 7, draw_bf16, halves_bf16, NULL},
    {"halves", SPECIAL_HALVES("bf16x2"), 80, 3, 7, draw_any, NULL, NULL},
};

void forms_lane(form_list *l) {
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    const lane_row *r = &rows[i];
    const char *first = strncmp(r->text, ".reg", 4) ? r->text : strstr(r->text, "bfe"), *end = strchr(first, ';');
    form_add(l, (form){.family = r->family,
                       .name = text("%.*s%s", (int)(end - first), first, end[1] ? "; and its kin" : ""),
                       .text = r->text,
                       .least = r->least,
                       .threads = THREADS,
                       .in = r->in,
                       .out = r->out,
                       .draw = r->draw,
                       .truth = r->lane ? each_lane : NULL,
                       .result = r->result,
                       .more = r});
  }
}
