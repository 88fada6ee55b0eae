/* forms_wgmma.c - wgmma of sm_90a: A from shared memory or registers, each type, several N, every swizzle, both majors.
 *
 * The tile is A, then B, as raw bytes of shared memory at a multiple of 1024; which byte is which element is what the
 * row tests. K-major: rows of `span` bytes (16 without a swizzle) in blocks of eight. M- or N-major, 128-byte swizzle
 * only: lines along k of 64 halves. Sources: PTX ISA, "Asynchronous Warpgroup Level Matrix Shared Memory Layout",
 * "Strides", "Matrix Descriptor Format", "Register Fragments and Shared Memory Matrix Layouts". */
#include "forms.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 128, M = 64 };

typedef struct wgmma_row {
  int n;
  const number *d, *a, *b;
  int swizzle;    /* bytes of its span; 16: none */
  int step;       /* bytes into the span where the product begins, as in a loop over k */
  bool registers; /* A in registers */
  bool trans_a, trans_b;
  bool scaled; /* accumulates */
  bool reals;
} wgmma_row;

static const wgmma_row rows[] = {
    /* swizzles, and a step into the span */
    {16, &n_f32, &n_f16, &n_f16, 16, 0, false, false, false, true, false},
    {16, &n_f32, &n_f16, &n_f16, 32, 0, false, false, false, true, false},
    {16, &n_f32, &n_f16, &n_f16, 64, 0, false, false, false, true, false},
    {16, &n_f32, &n_f16, &n_f16, 64, 32, false, false, false, true, false},
    {16, &n_f32, &n_f16, &n_f16, 128, 0, false, false, false, true, false},
    {16, &n_f32, &n_f16, &n_f16, 128, 32, false, false, false, true, false},
    {16, &n_f32, &n_f16, &n_f16, 128, 96, false, false, false, true, false},
    /* A in registers */
    {16, &n_f32, &n_f16, &n_f16, 128, 64, true, false, false, true, false},
    {16, &n_f32, &n_bf16, &n_bf16, 128, 0, true, false, false, true, false},
    {16, &n_f32, &n_e4m3, &n_e4m3, 128, 32, true, false, false, true, false},
    {16, &n_s32, &n_s8, &n_s8, 128, 32, true, false, false, true, false},
    /* M- and N-major halves */
    {64, &n_f32, &n_f16, &n_f16, 128, 0, false, false, true, true, false},
    {64, &n_f32, &n_bf16, &n_bf16, 128, 0, false, true, false, true, false},
    {128, &n_f32, &n_f16, &n_f16, 128, 0, true, false, true, true, false},
    /* N */
    {8, &n_f32, &n_f16, &n_f16, 32, 0, false, false, false, true, false},
    {16, &n_f32, &n_f16, &n_f16, 32, 0, false, false, false, true, false},
    {24, &n_f32, &n_f16, &n_f16, 32, 0, false, false, false, true, false},
    {96, &n_f32, &n_f16, &n_f16, 32, 0, true, false, false, false, false},
    {128, &n_f32, &n_f16, &n_f16, 32, 0, false, false, false, false, false},
    {256, &n_f16, &n_f16, &n_f16, 32, 0, false, false, false, false, false},
    /* types */
    {16, &n_f16, &n_f16, &n_f16, 64, 0, false, false, false, true, false},
    {16, &n_f32, &n_bf16, &n_bf16, 64, 0, false, false, false, true, false},
    {16, &n_f32, &n_e4m3, &n_e4m3, 64, 0, false, false, false, true, false},
    {16, &n_f32, &n_e5m2, &n_e5m2, 64, 0, false, false, false, true, false},
    {16, &n_f32, &n_e4m3, &n_e5m2, 64, 0, false, false, false, true, false},
    {16, &n_f16, &n_e4m3, &n_e4m3, 64, 0, false, false, false, true, false},
    {16, &n_s32, &n_s8, &n_s8, 64, 0, false, false, false, true, true},
    {16, &n_s32, &n_u8, &n_s8, 64, 0, false, false, false, true, true},
    {16, &n_s32, &n_u8, &n_u8, 64, 0, false, false, false, true, true},
    /* rounding */
    {16, &n_f32, &n_f16, &n_f16, 64, 0, false, false, false, true, true},
    {16, &n_f16, &n_f16, &n_f16, 64, 0, false, false, false, true, true},
    {16, &n_f32, &n_bf16, &n_bf16, 64, 0, false, false, false, true, true},
    {16, &n_f32, &n_e4m3, &n_e4m3, 64, 0, false, false, false, true, true},
    {16, &n_f32, &n_e5m2, &n_e5m2, 64, 0, false, false, false, true, true},
};

static int depth(const wgmma_row *r) { return 256 / r->a->bits; }

/* ---- Shared memory ----------------------------------------------------------------------------------------------- */

/* A matrix of `lines` rows of M or N by depth k, and its descriptor. */
typedef struct matrix {
  int base, lines, bits, span, step; /* base: bytes from the start of shared memory */
  bool trans;
} matrix;

static matrix matrix_a(const wgmma_row *r) { return (matrix){0, M, r->a->bits, r->swizzle, r->step, r->trans_a}; }
static int matrix_bytes(const matrix *x) { /* K-major without a swizzle: two units of 16 bytes along k */
  int bytes = x->trans ? 256 / x->bits * x->lines * x->bits / 8 : x->lines * (x->span == 16 ? 32 : x->span);
  return (bytes + 1023) / 1024 * 1024;
}
static matrix matrix_b(const wgmma_row *r) {
  matrix a = matrix_a(r);
  return (matrix){r->registers ? 0 : matrix_bytes(&a), r->n, r->b->bits, r->swizzle, r->step, r->trans_b};
}

/* Distances between blocks of eight lines of 16 bytes, or of a swizzled span. */
static int leading(const matrix *x) { return x->trans ? 2048 : x->span == 16 ? 128 : 16; }
static int stride(const matrix *x) { return x->trans ? 1024 : x->span == 16 ? 256 : 8 * x->span; }

/* Byte of element (line, k). A swizzle exchanges units of 16 bytes: bits 4 to 6 of the address are xored with bits 7 to
 * 9, as many of them as number the units of a span. */
static int byte_at(const matrix *x, int line, int k) {
  int at, size = x->bits / 8;
  if (x->trans) at = k / 8 * stride(x) + k % 8 * x->span + line % 64 * size + line / 64 * leading(x);
  else if (x->span == 16) at = line / 8 * stride(x) + line % 8 * 16 + k * size / 16 * leading(x) + k * size % 16;
  else at = line / 8 * stride(x) + line % 8 * x->span + x->step + k * size;
  int units = x->span / 16;
  return x->base + (at ^ (at >> 7 & (units - 1)) << 4);
}

static double value_at(const matrix *x, const number *t, const uint8_t *shared, int line, int k) {
  uint32_t code = 0;
  memcpy(&code, shared + byte_at(x, line, k), (size_t)x->bits / 8);
  return number_value(t, code);
}

/* The descriptor without the address: offsets in units of 16 bytes, and the kind of swizzle in the top bits. */
static uint64_t descriptor(const matrix *x) {
  uint64_t kind = x->span == 128 ? 1 : x->span == 64 ? 2 : x->span == 32 ? 3 : 0;
  return kind << 62 | (uint64_t)(stride(x) >> 4) << 32 | (uint64_t)(leading(x) >> 4) << 16;
}

/* ---- Truth ------------------------------------------------------------------------------------------------------- */

/* Row and column in D of part j of register r of a thread: each warp has 16 rows. */
static int place_d(const wgmma_row *r, int thread, int reg, int j) {
  int lane = thread % 32, pairs = r->d == &n_f16 ? reg : reg >> 1, inner = r->d == &n_f16 ? j : reg & 1;
  int row = thread / 32 * 16 + lane / 4 + 8 * (pairs & 1), col = pairs / 2 * 8 + lane % 4 * 2 + inner;
  return row * r->n + col;
}
static uint32_t part(const number *t, uint32_t word, int j) {
  return t->bits == 32 ? word : word >> j * t->bits & ((1u << t->bits) - 1);
}
static int registers_d(const wgmma_row *r) { return r->n / 2 * r->d->bits / 32; }
static int registers_c(const wgmma_row *r) { return r->scaled ? registers_d(r) : 0; }

static void fill_a(const form *f, const wgmma_row *r, const uint32_t *x, double *a) {
  int k = depth(r), per = 32 / r->a->bits, first = registers_c(r);
  matrix s = matrix_a(r);
  const uint8_t *shared = (const uint8_t *)(x + f->threads * f->in);
  if (!r->registers) {
    for (int i = 0; i < M * k; i++) a[i] = value_at(&s, r->a, shared, i / k, i % k);
    return;
  }
  for (int t = 0; t < THREADS; t++)
    for (int e = 0; e < 4 * per; e++) {
      int reg = e / per, row = t / 32 * 16 + t % 32 / 4 + 8 * (reg & 1);
      int col = t % 4 * per + e % per + (reg >> 1) * 4 * per;
      a[row * k + col] = number_value(r->a, part(r->a, x[t * f->in + first + reg], e % per));
    }
}

static void wgmma_truth(const form *f, const uint32_t *x, uint32_t *y, double *slack) {
  const wgmma_row *r = f->more;
  int k = depth(r), nd = registers_d(r), per = 32 / r->d->bits;
  product p = product_new(M, r->n, k);
  matrix s = matrix_b(r);
  fill_a(f, r, x, p.a);
  for (int i = 0; i < k * r->n; i++)
    p.b[i] = value_at(&s, r->b, (const uint8_t *)(x + f->threads * f->in), i % r->n, i / r->n);
  for (int e = 0; r->scaled && e < THREADS * nd * per; e++) {
    int t = e / per / nd, reg = e / per % nd;
    p.c[place_d(r, t, reg, e % per)] = number_value(r->d, part(r->d, x[t * f->in + reg], e % per));
  }
  product_run(&p);
  memset(y, 0, sizeof *y * (size_t)form_y_words(f)), memset(slack, 0, sizeof *slack * (size_t)form_y_words(f));
  for (int e = 0; e < THREADS * nd * per; e++) {
    int w = e / per, i = place_d(r, w / nd, w % nd, e % per);
    double sum = p.sum[i];
    if (r->d == &n_s32) sum -= 0x1p32 * floor(sum * 0x1p-32 + 0.5); /* wraps round */
    y[w] |= number_code(r->d, sum, R_NEAREST, false) << e % per * r->d->bits;
    if (r->reals && r->d != &n_s32) slack[w] = fmax(slack[w], product_slack(&p, i, r->a, r->d));
  }
  product_free(&p);
}

/* ---- Inputs and text --------------------------------------------------------------------------------------------- */

static uint32_t draw_word(const number *t, bool reals, uint64_t *state) {
  uint32_t v = 0;
  for (int j = 0; j < 32 / t->bits; j++) v |= (reals ? draw_real(t, state) : draw_whole(t, state)) << j * t->bits;
  return v;
}
static void wgmma_draw(const form *f, uint32_t *x, uint64_t *state) {
  const wgmma_row *r = f->more;
  int registers = f->threads * f->in, b = matrix_b(r).base / 4;
  for (int i = 0; i < registers; i++) x[i] = draw_word(i % f->in < registers_c(r) ? r->d : r->a, r->reals, state);
  for (int i = 0; i < f->tile; i++) x[registers + i] = draw_word(i < b ? r->a : r->b, r->reals, state);
}

/* A register q with the descriptor of x. */
static const char *set_descriptor(const char *q, const matrix *x) {
  return text("add.u32 u, s, %d; shr.u32 u, u, 4; cvt.u64.u32 %s, u; or.b64 %s, %s, 0x%llx; ",
              x->base + (x->trans || x->span == 16 ? 0 : x->step), q, q, q, (unsigned long long)descriptor(x));
}

static const char *row_text(const wgmma_row *r, const char *opcode) {
  int nd = registers_d(r), nc = registers_c(r);
  matrix a = matrix_a(r), b = matrix_b(r);
  const char *moves = "", *a_text = r->registers ? registers('a', nc, 4) : "qa", *flags = "";
  for (int i = 0; i < nc; i++) moves = text("%smov.b32 d%d, a%d; ", moves, i, i);
  if (!number_is_integer(r->a)) flags = ", 1, 1";
  if (r->a->bits == 16)
    flags = r->registers ? text(", 1, 1, %d", r->trans_b) : text(", 1, 1, %d, %d", r->trans_a, r->trans_b);
  return text(".reg .b32 u; .reg .b64 qa, qb; .reg .pred p; %s%s%ssetp.ne.u32 p, %d, 0; wgmma.fence.sync.aligned; "
              "%s %s, %s, qb, p%s; wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0;",
              moves, r->registers ? "" : set_descriptor("qa", &a), set_descriptor("qb", &b), r->scaled, opcode,
              registers('d', 0, nd), a_text, flags);
}

static const char *row_name(const wgmma_row *r, const char *opcode) {
  const char *swizzle = r->swizzle == 16 ? "no swizzle" : text("swizzle %d", r->swizzle);
  return text("%s, A in %s, %s%s%s%s%s%s", opcode, r->registers ? "registers" : "shared", swizzle,
              r->step ? text(" at %d", r->step) : "", r->trans_a ? ", M-major" : "", r->trans_b ? ", N-major" : "",
              r->scaled ? "" : ", no C", r->reals || number_is_integer(r->a) ? "" : ", whole numbers");
}

void forms_wgmma(form_list *l) {
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    const wgmma_row *r = &rows[i];
    matrix b = matrix_b(r);
    const char *opcode =
        text("wgmma.mma_async.sync.aligned.m64n%dk%d.%s.%s.%s", r->n, depth(r), r->d->name, r->a->name, r->b->name);
    form_add(l, (form){.family = "wgmma",
                       .name = row_name(r, opcode),
                       .text = row_text(r, opcode),
                       .least = 90,
                       .most = 90,
                       .threads = THREADS,
                       .in = registers_c(r) + (r->registers ? 4 : 0),
                       .out = registers_d(r),
                       .tile = (b.base + matrix_bytes(&b)) / 4,
                       .shared = SHARED_TILE,
                       .async = true,
                       .draw = wgmma_draw,
                       .truth = wgmma_truth,
                       .result = r->d,
                       .more = r});
  }
}
