/* forms_convert.c - conversions: each row is one cvt, its text and its truth derived from the two types.
 *
 * The first threads convert corners: zeros, ties, both sides of every limit, subnormals, infinities, NaNs; the others
 * random bits, half of them in the range of small types. Source: PTX ISA, "cvt". */
#include "forms.h"
#include <math.h>
#include <string.h>

enum { THREADS = 256 };
enum { SAT = 1, RELU = 2 }; /* .satfinite (of integers: .sat), .relu */

typedef struct cvt_row {
  const char *op; /* all of the opcode */
  const number *to, *from;
  int values; /* one, or two packed */
  rounding rounding;
  int flags, least, most;
} cvt_row;

#define BLACKWELL 100, 129
static const cvt_row rows[] = {
    {"cvt.rn.f16.f32", &n_f16, &n_f32, 1, R_NEAREST, 0, 75, 0},
    {"cvt.rz.f16.f32", &n_f16, &n_f32, 1, R_ZERO, 0, 75, 0},
    {"cvt.rn.f16x2.f32", &n_f16, &n_f32, 2, R_NEAREST, 0, 80, 0},
    {"cvt.rz.f16x2.f32", &n_f16, &n_f32, 2, R_ZERO, 0, 80, 0},
    {"cvt.rn.relu.f16x2.f32", &n_f16, &n_f32, 2, R_NEAREST, RELU, 80, 0},
    {"cvt.rn.satfinite.f16x2.f32", &n_f16, &n_f32, 2, R_NEAREST, SAT, 80, 0},
    {"cvt.rn.relu.satfinite.f16x2.f32", &n_f16, &n_f32, 2, R_NEAREST, RELU | SAT, 80, 0},
    {"cvt.rn.bf16.f32", &n_bf16, &n_f32, 1, R_NEAREST, 0, 80, 0},
    {"cvt.rn.bf16x2.f32", &n_bf16, &n_f32, 2, R_NEAREST, 0, 80, 0},
    {"cvt.rz.bf16x2.f32", &n_bf16, &n_f32, 2, R_ZERO, 0, 80, 0},
    {"cvt.rn.relu.bf16x2.f32", &n_bf16, &n_f32, 2, R_NEAREST, RELU, 80, 0},
    {"cvt.rn.satfinite.bf16x2.f32", &n_bf16, &n_f32, 2, R_NEAREST, SAT, 80, 0},
    {"cvt.rna.tf32.f32", &n_tf32, &n_f32, 1, R_NEAREST_AWAY, 0, 80, 0},
    {"cvt.f32.f16", &n_f32, &n_f16, 1, R_NEAREST, 0, 75, 0},
    {"cvt.f32.bf16", &n_f32, &n_bf16, 1, R_NEAREST, 0, 90, 0},
    {"cvt.rn.satfinite.e4m3x2.f32", &n_e4m3, &n_f32, 2, R_NEAREST, SAT, 89, 0},
    {"cvt.rn.satfinite.relu.e4m3x2.f32", &n_e4m3, &n_f32, 2, R_NEAREST, SAT | RELU, 89, 0},
    {"cvt.rn.satfinite.e5m2x2.f32", &n_e5m2, &n_f32, 2, R_NEAREST, SAT, 89, 0},
    {"cvt.rn.satfinite.relu.e5m2x2.f32", &n_e5m2, &n_f32, 2, R_NEAREST, SAT | RELU, 89, 0},
    {"cvt.rn.satfinite.e4m3x2.f16x2", &n_e4m3, &n_f16, 2, R_NEAREST, SAT, 89, 0},
    {"cvt.rn.satfinite.e5m2x2.f16x2", &n_e5m2, &n_f16, 2, R_NEAREST, SAT, 89, 0},
    {"cvt.rn.f16x2.e4m3x2", &n_f16, &n_e4m3, 2, R_NEAREST, 0, 89, 0},
    {"cvt.rn.relu.f16x2.e4m3x2", &n_f16, &n_e4m3, 2, R_NEAREST, RELU, 89, 0},
    {"cvt.rn.f16x2.e5m2x2", &n_f16, &n_e5m2, 2, R_NEAREST, 0, 89, 0},
    {"cvt.rn.relu.f16x2.e5m2x2", &n_f16, &n_e5m2, 2, R_NEAREST, RELU, 89, 0},
    {"cvt.rn.satfinite.e2m1x2.f32", &n_e2m1, &n_f32, 2, R_NEAREST, SAT, BLACKWELL},
    {"cvt.rn.satfinite.relu.e2m1x2.f32", &n_e2m1, &n_f32, 2, R_NEAREST, SAT | RELU, BLACKWELL},
    {"cvt.rn.satfinite.e2m3x2.f32", &n_e2m3, &n_f32, 2, R_NEAREST, SAT, BLACKWELL},
    {"cvt.rn.satfinite.e3m2x2.f32", &n_e3m2, &n_f32, 2, R_NEAREST, SAT, BLACKWELL},
    {"cvt.rn.f16x2.e2m1x2", &n_f16, &n_e2m1, 2, R_NEAREST, 0, BLACKWELL},
    {"cvt.rn.f16x2.e2m3x2", &n_f16, &n_e2m3, 2, R_NEAREST, 0, BLACKWELL},
    {"cvt.rn.f16x2.e3m2x2", &n_f16, &n_e3m2, 2, R_NEAREST, 0, BLACKWELL},
    {"cvt.rni.s32.f32", &n_s32, &n_f32, 1, R_NEAREST, SAT, 75, 0},
    {"cvt.rzi.s32.f32", &n_s32, &n_f32, 1, R_ZERO, SAT, 75, 0},
    {"cvt.rmi.s32.f32", &n_s32, &n_f32, 1, R_DOWN, SAT, 75, 0},
    {"cvt.rpi.s32.f32", &n_s32, &n_f32, 1, R_UP, SAT, 75, 0},
    {"cvt.rzi.u32.f32", &n_u32, &n_f32, 1, R_ZERO, SAT, 75, 0},
    {"cvt.rn.f32.s32", &n_f32, &n_s32, 1, R_NEAREST, 0, 75, 0},
    {"cvt.rn.f32.u32", &n_f32, &n_u32, 1, R_NEAREST, 0, 75, 0},
    {"cvt.rn.f16.s32", &n_f16, &n_s32, 1, R_NEAREST, 0, 75, 0},
    {"cvt.sat.s8.s32", &n_s8, &n_s32, 1, R_NEAREST, SAT, 75, 0},
    {"cvt.sat.u8.s32", &n_u8, &n_s32, 1, R_NEAREST, SAT, 75, 0},
};

/* ---- Text -------------------------------------------------------------------------------------------------------- */

/* Bits that a value takes in a packed register: 4-bit floats share a byte, 6-bit ones have one each. */
static int room(const number *t) { return t->bits == 6 ? 8 : t->bits; }
/* A register of 32 bits holds a packed pair, or one number whose instruction wants it there. */
static int register_bits(const cvt_row *r, const number *t) {
  return number_is_integer(t) ? 32 : r->values == 2 && t != &n_f32 ? 2 * room(t) : room(t);
}

static const char *row_text(const cvt_row *r) {
  static const struct {
    int bits;
    const char *declare, *into, *name, *out;
  } kinds[] = {{32, "", "", "a0", ""},
               {16, ".reg .b16 v; ", "cvt.u16.u32 v, a0; ", "v", "cvt.u32.u16 d0, w;"},
               {8, ".reg .b8 v; .reg .b16 x; ", "cvt.u16.u32 x, a0; mov.b16 {v, _}, x; ", "v",
                "mov.b16 x, {w, 0}; cvt.u32.u16 d0, x;"}};
  int i = 0, o = 0, to = register_bits(r, r->to), from = register_bits(r, r->from);
  while (kinds[i].bits != from) i++;
  while (kinds[o].bits != to) o++;
  const char *target = to == 32 ? "d0" : "w", *two = r->values == 2 && r->from == &n_f32 ? "a1, a0" : kinds[i].name;
  const char *declare = to == 32    ? ""
                        : to == 16  ? ".reg .b16 w; "
                        : from == 8 ? ".reg .b8 w; "
                                    : ".reg .b8 w; .reg .b16 x; ";
  return text("%s%s%s%s %s, %s; %s", kinds[i].declare, declare, kinds[i].into, r->op, target, two, kinds[o].out);
}

/* ---- Truth ------------------------------------------------------------------------------------------------------- */

static uint32_t convert(const cvt_row *r, uint32_t code) {
  double v = number_value(r->from, code);
  if (r->flags & RELU && v <= 0) v = 0;
  return number_code(r->to, v, r->rounding, r->flags & SAT);
}

static void cvt_truth(const form *f, const uint32_t *x, uint32_t *y, double *slack) {
  const cvt_row *r = f->more;
  memset(slack, 0, sizeof *slack * (size_t)form_y_words(f));
  for (int t = 0; t < f->threads; t++) {
    y[t] = 0;
    for (int i = 0; i < r->values; i++) {
      uint32_t code = f->in == 2 ? x[2 * t + i] : x[t] >> (r->values == 2 ? room(r->from) * i : 0);
      if (r->from->bits < 32) code &= (1u << r->from->bits) - 1;
      y[t] |= convert(r, code) << (r->values == 2 ? room(r->to) * i : 0);
    }
    if (r->to == &n_s8) y[t] = (uint32_t)(int8_t)y[t];
  }
}

/* ---- Inputs ------------------------------------------------------------------------------------------------------ */

static const float corners[] = {0.0f,
                                -0.0f,
                                1,
                                -1,
                                0x1.004p0f,
                                0x1.002p0f,
                                0x1.006p0f,
                                0x1.01p0f,
                                0x1.03p0f,
                                0x1.001p0f,
                                65504,
                                65519,
                                65520,
                                -65520,
                                65536,
                                1e38f,
                                -1e38f,
                                0x1.fffffep127f,
                                INFINITY,
                                -INFINITY,
                                0x1p-149f,
                                -0x1p-149f,
                                0x1p-126f,
                                0x1p-133f,
                                0x1p-134f,
                                0x1.8p-134f,
                                0x1p-14f,
                                0x1p-24f,
                                0x1p-25f,
                                0x1.000002p-25f,
                                0x1.8p-24f,
                                0x1p-26f,
                                448,
                                463,
                                464,
                                465,
                                479,
                                480,
                                -464,
                                0x1p-6f,
                                0x1p-9f,
                                0x1p-10f,
                                0x1.8p-9f,
                                0x1.000002p-10f,
                                57344,
                                61439,
                                61440,
                                61441,
                                0x1p-16f,
                                0x1p-17f,
                                0x1.8p-16f,
                                6,
                                5,
                                7,
                                0.25f,
                                0.75f,
                                1.25f,
                                1.75f,
                                2.5f,
                                3.5f,
                                5.000001f,
                                0.2499999f,
                                28,
                                30,
                                7.5f,
                                7.25f,
                                0.0625f,
                                0.03125f,
                                0.5f,
                                1.5f,
                                -0.5f,
                                -1.5f,
                                -2.5f,
                                0.4999999f,
                                2147483520.0f,
                                2147483648.0f,
                                -2147483648.0f,
                                4294967040.0f,
                                4294967296.0f,
                                8388607.5f,
                                8388608.5f,
                                NAN};

static uint32_t bits_of(float v) {
  uint32_t u;
  memcpy(&u, &v, 4);
  return u;
}

static uint32_t draw_f32(size_t i, uint64_t *state) {
  if (i < sizeof corners / sizeof *corners) return bits_of(corners[i]);
  uint32_t u = draw_bits(state);
  return i & 1 ? u : (u & 0x807fffff) | (97 + draw_below(state, 50)) << 23; /* 2^-30 to 2^19 */
}

static uint32_t draw_s32(size_t i, uint64_t *state) {
  static const uint32_t ends[] = {
      0,          127,       128,       255,        256,        (uint32_t)-128, (uint32_t)-129, 0x7fffffff,
      0x80000000, 0x1000001, 0x1000003, 0xffffff80, 0xffffff81, 65504,          65519,          65520};
  if (i < sizeof ends / sizeof *ends) return ends[i];
  return (uint32_t)((int32_t)draw_bits(state) >> draw_below(state, 31));
}

static void cvt_draw(const form *f, uint32_t *x, uint64_t *state) {
  const cvt_row *r = f->more;
  for (size_t i = 0; i < (size_t)form_x_words(f); i++)
    x[i] = r->from == &n_f32 ? draw_f32(i, state) : number_is_integer(r->from) ? draw_s32(i, state) : draw_bits(state);
}

/* Powers of two: one exponent byte a value, 255 is no number. */
static void ue8m0_truth(const form *f, const uint32_t *x, uint32_t *y, double *slack) {
  memset(slack, 0, sizeof *slack * (size_t)form_y_words(f));
  for (int t = 0; t < f->threads; t++)
    for (int i = y[t] = 0; i < 2; i++) {
      uint32_t e = x[t] >> 8 * i & 255;
      y[t] |= number_code(&n_bf16, e == 255 ? NAN : ldexp(1, (int)e - 127), R_NEAREST, false) << 16 * i;
    }
}

void forms_convert(form_list *l) {
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    form_add(l, (form){.family = "cvt",
                       .name = rows[i].op,
                       .text = row_text(&rows[i]),
                       .least = rows[i].least,
                       .most = rows[i].most,
                       .threads = THREADS,
                       .in = rows[i].values == 2 && rows[i].from == &n_f32 ? 2 : 1,
                       .out = 1,
                       .draw = cvt_draw,
                       .truth = cvt_truth,
                       .result = rows[i].to,
                       .more = &rows[i]});
  form_add(l, (form){.family = "cvt",
                     .name = "cvt.rn.bf16x2.ue8m0x2",
                     .text = ".reg .b16 v; cvt.u16.u32 v, a0; cvt.rn.bf16x2.ue8m0x2 d0, v;",
                     .least = 100,
                     .most = 129,
                     .threads = THREADS,
                     .in = 1,
                     .out = 1,
                     .draw = draw_any,
                     .truth = ue8m0_truth,
                     .result = &n_bf16});
}
