/* test_emu_mma.c - mma.sync, ldmatrix and stmatrix, wgmma of the PTX interpreter against the textbook product.
 *
 * The test lays out fragments and shared-memory tiles by the tables of the PTX ISA ("Matrix Fragments", "Shared Memory
 * Matrix Layout"), element by element, and multiplies in double. Run one row again: CK_RUN_CASE=..., the message names
 * the row. */
#include "emu_fixture.h"
#include "fail.h"
#include "suite.h"
#include <check.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* ---- Element types ----------------------------------------------------------------------------------------------- */

typedef struct kind {
  const char *name;
  int bits;               /* of its place in a register */
  int exponent, mantissa; /* exponent 0: integer */
  bool is_signed;
  int shift; /* where the code stands in its place */
} kind;
static const kind f16 = {"f16", 16, 5, 10, 1, 0}, bf16 = {"bf16", 16, 8, 7, 1, 0}, tf32 = {"tf32", 32, 8, 10, 1, 13},
                  e4m3 = {"e4m3", 8, 4, 3, 1, 0}, e5m2 = {"e5m2", 8, 5, 2, 1, 0}, e2m3 = {"e2m3", 8, 2, 3, 1, 0},
                  e3m2 = {"e3m2", 8, 3, 2, 1, 0}, e2m1 = {"e2m1", 8, 2, 1, 1, 2}, s8 = {"s8", 8, 0, 0, 1, 0},
                  u8 = {"u8", 8, 0, 0, 0, 0}, s4 = {"s4", 4, 0, 0, 1, 0}, u4 = {"u4", 4, 0, 0, 0, 0},
                  packed = {"e2m1", 4, 2, 1, 1, 0}, /* without gaps */
    f32 = {"f32", 32, 8, 23, 1, 0}, s32 = {"s32", 32, 0, 0, 1, 0};

/* A random code and its value. Floats keep to a few exponents, so that sums are neither infinite nor one-sided. */
static uint32_t draw(const kind *k, double *value) {
  uint32_t r = ptx_random(), all = k->bits == 32 ? ~0u : (1u << k->bits) - 1;
  if (!k->exponent) {
    uint32_t code = k->bits == 32 ? r % 20001 - 10000 : r & all;
    int32_t s = (int32_t)(code << (32 - k->bits)) >> (32 - k->bits);
    return *value = k->is_signed ? (double)s : code, code & all;
  }
  uint32_t bias = (1u << (k->exponent - 1)) - 1, e = k->exponent < 3 ? r >> 8 & 3 : bias - 2 + (r >> 8 & 3);
  uint32_t code = (r & 1) << (k->exponent + k->mantissa) | e << k->mantissa | (r >> 16 & ((1u << k->mantissa) - 1));
  return *value = float_of_code(code, k->exponent, k->mantissa), code << k->shift;
}

typedef struct matrix { /* row-major codes and values */
  int rows, columns;
  uint32_t *code;
  double *value;
} matrix;

static matrix matrix_random(int rows, int columns, const kind *k) {
  size_t n = (size_t)rows * (size_t)columns;
  matrix m = {rows, columns, calloc(n, sizeof *m.code), calloc(n, sizeof *m.value)};
  for (size_t i = 0; i < n; i++) m.code[i] = draw(k, &m.value[i]);
  return m;
}
static void matrix_free(matrix *m) {
  free(m->code);
  free(m->value);
}
static size_t at(const matrix *m, int row, int column) { return (size_t)row * (size_t)m->columns + (size_t)column; }

/* ---- Fragments: lane l = 4g + t ---------------------------------------------------------------------------------- */

/* Row and column of element j of register r of A, B and D. An 8-row A has no lower half. */
typedef struct place {
  int row, column;
} place;
static place place_a(int l, int r, int j, int bits, int rows) {
  int per = 32 / bits, half = rows == 8 ? 0 : r & 1, block = rows == 8 ? r : r >> 1;
  return (place){l / 4 + 8 * half, l % 4 * per + j + 4 * per * block};
}
static place place_b(int l, int r, int j, int bits) {
  int per = 32 / bits;
  return (place){l % 4 * per + j + 4 * per * r, l / 4};
}
/* Of the n8 block that the register belongs to: 4 registers of 32 bits, or 2 of pairs. */
static place place_d(int l, int r, int j, int bits) {
  if (bits == 16) return (place){l / 4 + 8 * (r & 1), 8 * (r >> 1) + l % 4 * 2 + j};
  return (place){l / 4 + 8 * (r >> 1 & 1), 8 * (r >> 2) + l % 4 * 2 + (r & 1)};
}

/* Fragment registers of a matrix, register by register: `threads` words each; warp w has rows 16w and following. */
typedef enum fragment { FRAGMENT_A, FRAGMENT_B, FRAGMENT_D } fragment;
static place place_of(fragment f, int thread, int r, int j, int bits, int rows) {
  int l = thread % 32;
  place p = f == FRAGMENT_A   ? place_a(l, r, j, bits, rows)
            : f == FRAGMENT_B ? place_b(l, r, j, bits)
                              : place_d(l, r, j, bits);
  if (f != FRAGMENT_B) p.row += thread / 32 * 16;
  return p;
}
static void fill(uint32_t *words, const matrix *m, fragment f, const kind *k, int registers, int threads) {
  for (int r = 0; r < registers; r++)
    for (int l = 0; l < threads; l++)
      for (int j = 0; j < 32 / k->bits; j++) {
        place p = place_of(f, l, r, j, k->bits, m->rows);
        words[r * threads + l] |= m->code[at(m, p.row, p.column)] << j * k->bits;
      }
}

/* How far a result may be from the exact sum `want` of terms whose sizes add up to `size`. */
static double slack(const kind *d, double want, double size) {
  return d->exponent == 0 ? 0 : size * 0x1p-18 + (d->bits == 16 ? fabs(want) * 0x1p-11 + 0x1p-24 : 0);
}
static double value_of(const kind *d, uint32_t bits) {
  float f;
  memcpy(&f, &bits, 4);
  return d->exponent == 0 ? (int32_t)bits : d->bits == 16 ? float_of_code(bits & 0xffff, 5, 10) : (double)f;
}
typedef struct product {
  const char *what;
  const kind *d;
  const matrix *a, *b, *c;
  double scale; /* of A B */
  bool saturate;
} product;

static void check_element(const product *x, int row, int column, uint32_t bits) {
  double want = x->c->value[at(x->c, row, column)], size = fabs(want);
  for (int k = 0; k < x->a->columns; k++) {
    double p = x->a->value[at(x->a, row, k)] * x->b->value[at(x->b, k, column)] * x->scale;
    want += p, size += fabs(p);
  }
  if (x->d->exponent == 0) want = x->saturate ? fmax(fmin(want, INT32_MAX), INT32_MIN) : (double)(int32_t)(int64_t)want;
  double got = value_of(x->d, bits);
  ck_assert_msg(fabs(got - want) <= slack(x->d, want, size), "%s: D[%d][%d] is %g, not %g", x->what, row, column, got,
                want);
}
static void check_product(const product *x, const uint32_t *words, int registers, int threads) {
  int bits = x->d->bits;
  for (int r = 0; r < registers; r++)
    for (int l = 0; l < threads; l++)
      for (int j = 0; j < 32 / bits; j++) {
        place p = place_of(FRAGMENT_D, l, r, j, bits, x->c->rows);
        check_element(x, p.row, p.column, words[r * threads + l] >> j * bits);
      }
}

/* ---- mma --------------------------------------------------------------------------------------------------------- */

static const struct {
  const char *device;
  int m, k;
  const kind *a, *b, *d;
  const char *before, *after; /* of the types in the opcode: .satfinite, .kind */
} products[] = {
    {"sm_75", 16, 8, &f16, &f16, &f32, "", ""},
    {"sm_75", 16, 8, &f16, &f16, &f16, "", ""},
    {"sm_80", 16, 16, &f16, &f16, &f32, "", ""},
    {"sm_80", 16, 16, &f16, &f16, &f16, "", ""},
    {"sm_80", 16, 8, &bf16, &bf16, &f32, "", ""},
    {"sm_80", 16, 16, &bf16, &bf16, &f32, "", ""},
    {"sm_80", 16, 4, &tf32, &tf32, &f32, "", ""},
    {"sm_80", 16, 8, &tf32, &tf32, &f32, "", ""},
    {"sm_75", 8, 16, &s8, &s8, &s32, "", ""},
    {"sm_75", 8, 16, &u8, &s8, &s32, ".satfinite", ""},
    {"sm_80", 16, 16, &s8, &s8, &s32, "", ""},
    {"sm_80", 16, 16, &s8, &u8, &s32, "", ""},
    {"sm_80", 16, 32, &s8, &s8, &s32, "", ""},
    {"sm_80", 16, 32, &u8, &s8, &s32, "", ""},
    {"sm_80", 16, 32, &s8, &u8, &s32, "", ""},
    {"sm_80", 16, 32, &u8, &u8, &s32, ".satfinite", ""},
    {"sm_75", 8, 32, &s4, &s4, &s32, "", ""},
    {"sm_75", 8, 32, &u4, &s4, &s32, ".satfinite", ""},
    {"sm_80", 16, 32, &s4, &u4, &s32, "", ""},
    {"sm_80", 16, 64, &u4, &u4, &s32, "", ""},
    {"sm_80", 16, 64, &s4, &s4, &s32, ".satfinite", ""},
    {"sm_89", 16, 32, &e4m3, &e4m3, &f32, "", ""},
    {"sm_89", 16, 32, &e5m2, &e4m3, &f32, "", ""},
    {"sm_89", 16, 32, &e4m3, &e5m2, &f32, "", ""},
    {"sm_89", 16, 32, &e5m2, &e5m2, &f16, "", ""},
    {"sm_90a", 16, 16, &e4m3, &e4m3, &f32, "", ""},
    {"sm_90a", 16, 16, &e4m3, &e5m2, &f16, "", ""},
    {"sm_120a", 16, 32, &e4m3, &e4m3, &f32, ".kind::f8f6f4", ""},
    {"sm_120a", 16, 32, &e2m1, &e4m3, &f32, ".kind::f8f6f4", ""},
    {"sm_120a", 16, 32, &e2m3, &e3m2, &f32, ".kind::f8f6f4", ""},
};

static void say_list(FILE *f, const char *prefix, int first, int n) {
  fputc('{', f);
  for (int r = 0; r < n; r++) fprintf(f, "%s%s%d", r ? ", " : "", prefix, first + r);
  fputc('}', f);
}

/* Registers of all lanes lie in memory register by register. */
static void say_loads(FILE *f, const char *prefix, int n, int threads, size_t from) {
  for (int r = 0; r < n; r++)
    fprintf(f, "ld.global.b32 %s%d, [%%rd3+%zu];\n", prefix, r, from + 4 * (size_t)threads * (size_t)r);
}
static void say_stores(FILE *f, const char *prefix, int n, int threads) {
  for (int r = 0; r < n; r++) fprintf(f, "st.global.b32 [%%rd4+%d], %s%d;\n", 4 * threads * r, prefix, r);
}
/* %rd3 and %rd4: the thread's place in and out, `bytes` apart. */
static void say_thread(FILE *f, int bytes) {
  fprintf(f, "mul.wide.u32 %%rd4, %%r0, %d;\nadd.s64 %%rd3, %%rd0, %%rd4;\nadd.s64 %%rd4, %%rd1, %%rd4;\n", bytes);
}

START_TEST(test_mma_is_the_textbook_product) {
  const kind *ka = products[_i].a, *kb = products[_i].b, *kd = products[_i].d;
  int m = products[_i].m, k = products[_i].k, na = m * k * ka->bits / 1024, nb = 8 * k * kb->bits / 1024,
      nd = m * 8 * kd->bits / 1024;
  char what[160];
  bool f8 = !strncmp(products[_i].before, ".kind", 5);
  snprintf(what, sizeof what, "mma.sync.aligned.m%dn8k%d.row.col%s.%s.%s.%s.%s", m, k, products[_i].before, kd->name,
           ka->name, kb->name, kd->name);
  ptx_seed((uint32_t)_i + 1);
  matrix a = matrix_random(m, k, ka), b = matrix_random(k, 8, kb), c = matrix_random(m, 8, kd);
  bool saturate = !f8 && *products[_i].before;
  for (int i = 0; saturate && i < m * 8; i++)
    c.value[i] = (int32_t)(c.code[i] = i & 1 ? INT32_MAX - 5u : INT32_MIN + 5u);
  uint32_t in[16 * 32] = {0}, out[4 * 32];
  fill(in, &a, FRAGMENT_A, ka, na, 32), fill(in + na * 32, &b, FRAGMENT_B, kb, nb, 32);
  fill(in + (na + nb) * 32, &c, FRAGMENT_D, kd, nd, 32);
  ptx_text t;
  ptx_begin(&t, products[_i].device, ".reg .b32 %f<16>;\n.reg .b32 %d<4>;\n");
  say_thread(t.f, 4);
  say_loads(t.f, "%f", na + nb + nd, 32, 0);
  fprintf(t.f, "%s ", what);
  say_list(t.f, "%d", 0, nd), fputs(", ", t.f), say_list(t.f, "%f", 0, na), fputs(", ", t.f);
  say_list(t.f, "%f", na, nb), fputs(", ", t.f), say_list(t.f, "%f", na + nb, nd), fputs(";\n", t.f);
  say_stores(t.f, "%d", nd, 32);
  ptx_run(
      &t,
      &(ptx_case){
          .what = what, .in = in, .in_bytes = 128 * (size_t)(na + nb + nd), .out = out, .out_bytes = 128 * (size_t)nd});
  check_product(&(product){what, kd, &a, &b, &c, 1, saturate}, out, nd, 32);
  matrix_free(&a), matrix_free(&b), matrix_free(&c);
}
END_TEST

/* ---- mma with scales of blocks ----------------------------------------------------------------------------------- */

static const struct {
  const char *kind, *scale; /* of the opcode: the first with the number of scales of a row */
  const kind *a, *b;
  int k, blocks, byte[2], thread[2]; /* where scales of A, of B are: the first byte, the thread of four (of A: two) */
} scaled[] = {
    {"mxf8f6f4.block_scale.scale_vec::1X", "ue8m0", &e2m1, &e4m3, 32, 1, {0, 0}, {0, 0}},
    {"mxf8f6f4.block_scale", "ue8m0", &e4m3, &e5m2, 32, 1, {3, 2}, {1, 3}},
    {"mxf8f6f4.block_scale.scale_vec::1X", "ue8m0", &e3m2, &e2m3, 32, 1, {1, 0}, {0, 1}},
    {"mxf4.block_scale.scale_vec::2X", "ue8m0", &packed, &packed, 64, 2, {2, 0}, {1, 2}},
    {"mxf4nvf4.block_scale.scale_vec::2X", "ue8m0", &packed, &packed, 64, 2, {0, 2}, {0, 1}},
    {"mxf4nvf4.block_scale.scale_vec::4X", "ue4m3", &packed, &packed, 64, 4, {0, 0}, {1, 3}},
};

/* Draw the scales of the rows (columns) of m into the bytes of the threads that hold them, amid noise, and multiply
 * the values with them. */
static void draw_scales(uint32_t *words, matrix *m, int i, bool columns) {
  int blocks = scaled[i].blocks, lines = columns ? m->columns : m->rows, depth = scaled[i].k / blocks;
  for (int l = 0; l < 32; l++) words[l] = ptx_random();
  for (int line = 0; line < lines; line++)
    for (int b = 0; b < blocks; b++) {
      int lane = columns ? line * 4 + scaled[i].thread[1] : line % 8 * 4 + scaled[i].thread[0] * 2 + line / 8;
      int shift = 8 * (scaled[i].byte[columns] + b);
      double value;
      uint32_t code = draw(&e4m3, &value) & 0x7f;
      value = fabs(value);
      if (blocks < 4) code = 120 + ptx_random() % 16, value = ldexp(1, (int)code - 127);
      words[lane] = (words[lane] & ~(255u << shift)) | code << shift;
      for (int k = b * depth; k < (b + 1) * depth; k++) m->value[columns ? at(m, k, line) : at(m, line, k)] *= value;
    }
}

START_TEST(test_block_scaled_mma_is_the_textbook_product) {
  const kind *ka = scaled[_i].a, *kb = scaled[_i].b;
  char what[160];
  snprintf(what, sizeof what, "mma.sync.aligned.m16n8k%d.row.col.kind::%s.f32.%s.%s.f32.%s", scaled[_i].k,
           scaled[_i].kind, ka->name, kb->name, scaled[_i].scale);
  ptx_seed((uint32_t)_i + 1);
  matrix a = matrix_random(16, scaled[_i].k, ka), b = matrix_random(scaled[_i].k, 8, kb),
         c = matrix_random(16, 8, &f32);
  uint32_t in[12 * 32] = {0}, out[4 * 32]; /* A, B, C, scales of A, of B */
  fill(in, &a, FRAGMENT_A, ka, 4, 32), fill(in + 4 * 32, &b, FRAGMENT_B, kb, 2, 32);
  fill(in + 6 * 32, &c, FRAGMENT_D, &f32, 4, 32);
  draw_scales(in + 10 * 32, &a, _i, false), draw_scales(in + 11 * 32, &b, _i, true);
  ptx_text t;
  ptx_begin(&t, "sm_120a", ".reg .b32 %f<12>;\n.reg .b32 %d<4>;\n");
  say_thread(t.f, 4), say_loads(t.f, "%f", 12, 32, 0);
  fprintf(t.f,
          "mov.u16 %%h0, %d;\n%s {%%d0, %%d1, %%d2, %%d3}, {%%f0, %%f1, %%f2, %%f3}, {%%f4, %%f5}, "
          "{%%f6, %%f7, %%f8, %%f9}, %%f10, {%%h0, %d}, %%f11, {%d, %d};\n",
          scaled[_i].byte[0], what, scaled[_i].thread[0], scaled[_i].byte[1], scaled[_i].thread[1]);
  say_stores(t.f, "%d", 4, 32);
  ptx_run(&t, &(ptx_case){.what = what, .in = in, .in_bytes = sizeof in, .out = out, .out_bytes = sizeof out});
  check_product(&(product){what, &f32, &a, &b, &c, 1, false}, out, 4, 32);
  matrix_free(&a), matrix_free(&b), matrix_free(&c);
}
END_TEST

/* ---- ldmatrix, stmatrix ------------------------------------------------------------------------------------------ */

static const struct {
  int count;
  bool trans;
} movers[] = {{1, 0}, {2, 0}, {4, 0}, {1, 1}, {2, 1}, {4, 1}};

/* Rows of 16 bytes lie 48 bytes apart; lane l gives row l. Element (row, column) of matrix q is 100 q + 8 row +
 * column. */
START_TEST(test_ldmatrix_and_stmatrix_move_elements) {
  int n = movers[_i].count;
  const char *trans = movers[_i].trans ? ".trans" : "";
  char what[64];
  uint16_t in[32 * 8], rows[32 * 8];
  uint32_t out[4 * 32];
  for (int i = 0; i < 256; i++) in[i] = (uint16_t)(i / 64 * 100 + i % 64);
  for (int store = 0; store < 2; store++) {
    ptx_text t;
    ptx_begin(&t, "sm_90a", ".reg .b32 %d<4>;\n");
    snprintf(what, sizeof what, "%s.x%d%s", store ? "stmatrix" : "ldmatrix", n, trans);
    say_thread(t.f, 16);
    fprintf(t.f, "mov.u32 %%r2, ring;\nmad.lo.u32 %%r3, %%r0, 48, %%r2;\n");
    if (store) {
      fprintf(t.f, "mul.lo.u32 %%r8, %%r0, 2;\nadd.u32 %%r9, %%r8, 1;\nprmt.b32 %%r10, %%r8, %%r9, 0x5410;\n");
      for (int q = 0; q < n; q++) fprintf(t.f, "add.u32 %%r%d, %%r10, %d;\n", 16 + q, q * (100 + (100 << 16)));
      fprintf(t.f, "stmatrix.sync.aligned.m8n8.x%d%s.shared.b16 [%%r3], ", n, trans), say_list(t.f, "%r", 16, n);
      fprintf(t.f,
              ";\nbar.warp.sync -1;\nsetp.ge.u32 %%p0, %%r0, %d;\n@%%p0 bra END;\n"
              "ld.shared.v4.u32 {%%r4, %%r5, %%r6, %%r7}, [%%r3];\n"
              "st.global.v4.u32 [%%rd4], {%%r4, %%r5, %%r6, %%r7};\nEND:\n",
              8 * n);
    } else {
      fprintf(t.f,
              "ld.global.v4.u32 {%%r4, %%r5, %%r6, %%r7}, [%%rd3];\n"
              "st.shared.v4.u32 [%%r3], {%%r4, %%r5, %%r6, %%r7};\nbar.warp.sync -1;\n"
              "ldmatrix.sync.aligned.m8n8.x%d%s.shared.b16 ",
              n, trans),
          say_list(t.f, "%d", 0, n);
      fprintf(t.f, ", [%%r3];\n");
      say_thread(t.f, 4), say_stores(t.f, "%d", n, 32);
    }
    ptx_run(&t, &(ptx_case){.what = what,
                            .shared = 2048,
                            .in = in,
                            .in_bytes = sizeof in,
                            .out = store ? (void *)rows : out,
                            .out_bytes = 128 * (size_t)n});
    for (int i = 0; i < 64 * n; i++) {
      int q = i / 64, row = i / 8 % 8, column = i % 8, from = movers[_i].trans ? 8 * column + row : 8 * row + column;
      int lane = row * 4 + column / 2;
      uint32_t got = store ? rows[i] : out[32 * q + lane] >> 16 * (column & 1) & 0xffff;
      ck_assert_msg(got == (uint32_t)(100 * q + from), "%s: matrix %d row %d column %d is %u", what, q, row, column,
                    got);
    }
  }
}
END_TEST

/* ---- wgmma ------------------------------------------------------------------------------------------------------- */

static const struct wgmma_kind {
  const kind *a, *b, *d;
} wgmma_kinds[] = {
    {&f16, &f16, &f32},   {&f16, &f16, &f16},   {&bf16, &bf16, &f32}, {&tf32, &tf32, &f32}, {&e4m3, &e4m3, &f32},
    {&e4m3, &e5m2, &f32}, {&e5m2, &e4m3, &f16}, {&s8, &s8, &s32},     {&u8, &s8, &s32},     {&u8, &u8, &s32},
};
static const int wgmma_columns[] = {8, 24, 64, 136, 256}, spans[] = {0, 32, 64, 128};

/* A tile in shared memory: 32 bytes of k for each of `lines` rows of A or columns of B. */
typedef struct tile {
  uint8_t *bytes;
  size_t size;
  uint64_t descriptor; /* of a tile at shared address 0 */
} tile;

/* Where 16 bytes stand in a swizzled row of `span` bytes, in line `line` of eight. */
static int swizzled_chunk(int chunk, int line, int span) {
  return span == 128 ? chunk ^ line : span == 64 ? chunk ^ line / 2 : span == 32 ? chunk ^ line / 4 : chunk;
}

/* K-major: eight lines of `span` bytes make an atom, atoms follow along the lines; no swizzle: core matrices of 8 x 16
 * bytes, two along k. MN-major: the same with k and line exchanged. `chunk0`: where in a swizzled row k begins. */
static size_t tile_offset(int line, int k, int size, int span, bool mn_major, int chunk0) {
  int rows = mn_major ? k : line, x = (mn_major ? line : k) * size; /* bytes along the contiguous dimension */
  if (!span)
    return (size_t)((mn_major ? rows / 8 * 128 + x / 16 * 256 : rows / 8 * 256 + x / 16 * 128) + rows % 8 * 16 +
                    x % 16);
  int pattern = x / span, chunk = x % span / 16 + chunk0;
  return (size_t)(pattern * 16 * span + rows / 8 * 8 * span + rows % 8 * span +
                  swizzled_chunk(chunk, rows % 8, span) * 16 + x % 16);
}

static tile make_tile(const matrix *m, const kind *k, bool columns, int span, bool mn_major) {
  int lines = columns ? m->columns : m->rows, depth = columns ? m->rows : m->columns, size = k->bits / 8;
  int chunk0 = !mn_major && span > 32 ? 2 : 0; /* as a kernel that walks along k */
  tile t = {calloc(1, 65536), 0, 0};
  for (int line = 0; line < lines; line++)
    for (int x = 0; x < depth; x++) {
      uint32_t code = m->code[columns ? at(m, x, line) : at(m, line, x)];
      size_t to = tile_offset(line, x, size, span, mn_major, chunk0);
      memcpy(t.bytes + to, &code, (size_t)size);
      if (to + 16 > t.size) t.size = to + 16;
    }
  t.size = (t.size + 1023) / 1024 * 1024;
  uint64_t leading = span ? (uint64_t)(16 * span) : 128, stride = span ? (uint64_t)(8 * span) : 256;
  uint64_t code = span == 128 ? 1 : span == 64 ? 2 : span == 32 ? 3 : 0;
  t.descriptor = (uint64_t)chunk0 | leading / 16 << 16 | stride / 16 << 32 | code << 62;
  return t;
}

static void say_tiles(FILE *f, size_t size) {
  fprintf(
      f,
      "mov.u32 %%r2, ring;\nmul.lo.u32 %%r3, %%r0, 16;\nLOOP:\nsetp.ge.u32 %%p0, %%r3, %zu;\n@%%p0 bra DONE;\n"
      "cvt.u64.u32 %%rd4, %%r3;\nadd.s64 %%rd5, %%rd0, %%rd4;\nld.global.v4.u32 {%%r4, %%r5, %%r6, %%r7}, [%%rd5];\n"
      "add.u32 %%r8, %%r2, %%r3;\nst.shared.v4.u32 [%%r8], {%%r4, %%r5, %%r6, %%r7};\nadd.u32 %%r3, %%r3, 2048;\n"
      "bra LOOP;\nDONE:\nfence.proxy.async.shared::cta;\nbar.sync 0;\n",
      size);
}
static void say_descriptor(FILE *f, int rd, size_t offset, uint64_t descriptor) {
  fprintf(
      f, "add.u32 %%r9, %%r2, %zu;\nshr.u32 %%r9, %%r9, 4;\ncvt.u64.u32 %%rd%d, %%r9;\nadd.s64 %%rd%d, %%rd%d, %llu;\n",
      offset, rd, rd, rd, (unsigned long long)descriptor);
}

typedef struct wgmma_case {
  const struct wgmma_kind *kind;
  int n, span;
  bool registers, trans_a, trans_b, negate, keep; /* keep: D = A B + D */
} wgmma_case;

static void one_wgmma(const wgmma_case *w) {
  const kind *ka = w->kind->a, *kb = w->kind->b, *kd = w->kind->d;
  int k = 256 / ka->bits, nd = w->n * kd->bits / 64;
  bool ints = !ka->exponent, half = ka->bits == 16;
  char what[200];
  snprintf(what, sizeof what, "wgmma.mma_async.sync.aligned.m64n%dk%d.%s.%s.%s", w->n, k, kd->name, ka->name, kb->name);
  matrix a = matrix_random(64, k, ka), b = matrix_random(k, w->n, kb), c = matrix_random(64, w->n, kd);
  tile ta = make_tile(&a, ka, false, w->span, w->trans_a), tb = make_tile(&b, kb, true, w->span, w->trans_b);
  size_t tiles = ta.size + tb.size, registers = 128 * 4 * (size_t)(4 + nd);
  uint8_t *in = calloc(1, tiles + registers);
  memcpy(in, ta.bytes, ta.size), memcpy(in + ta.size, tb.bytes, tb.size);
  uint32_t *fa = (uint32_t *)(void *)(in + tiles), *fc = fa + 4 * 128, *out = malloc((size_t)nd * 512);
  fill(fa, &a, FRAGMENT_A, ka, 4, 128), fill(fc, &c, FRAGMENT_D, kd, nd, 128);
  ptx_text t;
  ptx_begin(&t, "sm_90a", ".reg .b32 %f<4>;\n.reg .b32 %d<128>;\n");
  say_tiles(t.f, tiles);
  say_thread(t.f, 4);
  say_loads(t.f, "%f", 4, 128, tiles), say_loads(t.f, "%d", nd, 128, tiles + 2048);
  say_descriptor(t.f, 6, 0, ta.descriptor), say_descriptor(t.f, 7, ta.size, tb.descriptor);
  fprintf(t.f, "setp.ne.u32 %%p1, %d, 0;\nwgmma.fence.sync.aligned;\n%s ", w->keep, what);
  say_list(t.f, "%d", 0, nd), fputs(", ", t.f);
  if (w->registers) say_list(t.f, "%f", 0, 4);
  else fputs("%rd6", t.f);
  fputs(", %rd7, %p1", t.f);
  if (!ints) fprintf(t.f, ", %d, 1", w->negate ? -1 : 1);
  if (half && !w->registers) fprintf(t.f, ", %d", w->trans_a);
  if (half) fprintf(t.f, ", %d", w->trans_b);
  fputs(";\nwgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;\n", t.f);
  say_stores(t.f, "%d", nd, 128);
  size_t used = strlen(what);
  snprintf(what + used, sizeof what - used, " %s swizzle %d trans %d %d", w->registers ? "RS" : "SS", w->span,
           w->trans_a, w->trans_b);
  ptx_run(&t, &(ptx_case){.what = what,
                          .block = 128,
                          .shared = (uint32_t)tiles,
                          .in = in,
                          .in_bytes = tiles + registers,
                          .out = out,
                          .out_bytes = (size_t)nd * 512});
  if (!w->keep) memset(c.value, 0, sizeof *c.value * (size_t)(64 * w->n));
  check_product(&(product){what, kd, &a, &b, &c, w->negate && !ints ? -1 : 1, false}, out, nd, 128);
  matrix_free(&a), matrix_free(&b), matrix_free(&c);
  free(ta.bytes), free(tb.bytes), free(in), free(out);
}

/* Every type with every swizzle from registers and from shared memory; the columns take turns. */
START_TEST(test_wgmma_is_the_textbook_product) {
  int i = _i;
  wgmma_case w = {.registers = i % 2 != 0, .span = spans[i / 2 % 4], .kind = &wgmma_kinds[i / 8]};
  w.n = wgmma_columns[(i / 2 + i / 8) % (int)QN_COUNT(wgmma_columns)];
  w.negate = i % 3 == 1, w.keep = i % 5 != 2;
  ptx_seed((uint32_t)i + 1);
  one_wgmma(&w);
}
END_TEST

/* 16-bit operands may run along m or n: RS with B, SS with A, B, both. */
START_TEST(test_wgmma_takes_transposed_operands) {
  int how = _i / 8;
  wgmma_case w = {
      .kind = &wgmma_kinds[_i % 2 ? 2 : 0], .span = spans[_i / 2 % 4], .n = _i % 3 ? 64 : 128, .keep = true};
  w.registers = how == 0, w.trans_a = how == 1 || how == 3, w.trans_b = how != 1;
  ptx_seed((uint32_t)_i + 1000);
  one_wgmma(&w);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(test_mma_is_the_textbook_product, QN_COUNT(products)),
      CASE(test_block_scaled_mma_is_the_textbook_product, QN_COUNT(scaled)),
      CASE(test_ldmatrix_and_stmatrix_move_elements, QN_COUNT(movers)),
      CASE(test_wgmma_is_the_textbook_product, 2 * 4 * QN_COUNT(wgmma_kinds)),
      CASE(test_wgmma_takes_transposed_operands, 32),
  };
  return RUN_CASES(argv[0], cases, .timeout = 120);
}
