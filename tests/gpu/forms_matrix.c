/* forms_matrix.c - ldmatrix, stmatrix and mma.sync.
 *
 * Every product of floats has two rows: whole numbers, whose sums are exact in any order and must agree bit for bit,
 * and reals, within what order and width of the accumulator may change. Sources: PTX ISA, "ldmatrix", "stmatrix",
 * "Matrix Fragments for mma.m16n8k16" and the like. */
#include "forms.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 32 };

/* ---- Products ---------------------------------------------------------------------------------------------------- */

product product_new(int m, int n, int k) {
  double *p = calloc((size_t)(m * k + k * n + 3 * m * n), sizeof *p);
  if (!p) abort();
  return (product){m, n, k, p, p + m * k, p + m * k + k * n, p + m * k + k * n + m * n, p + m * k + k * n + 2 * m * n};
}
void product_free(product *p) { free(p->a); }

void product_run(product *p) {
  for (int i = 0; i < p->m; i++)
    for (int j = 0; j < p->n; j++) {
      double sum = p->c[i * p->n + j], size = fabs(sum);
      for (int k = 0; k < p->k; k++) {
        double v = p->a[i * p->k + k] * p->b[k * p->n + j];
        sum += v, size += fabs(v);
      }
      p->sum[i * p->n + j] = sum, p->size[i * p->n + j] = size;
    }
}

/* Tensor cores align all terms to the largest and cut what falls off: each addition loses less than one unit in the
 * last place of the largest partial sum. For 8-bit floats those units are coarser, 13 bits behind the point on sm_90.
 * The result is rounded once more to the accumulator's type. */
double product_slack(const product *p, int i, const number *operand, const number *accumulator) {
  double step = operand->bits <= 8 ? 0x1p-13 : 0x1p-23, final = accumulator == &n_f16 ? 0x1p-10 : 0x1p-23;
  return p->size[i] * ((p->k + 2) * step + final);
}

/* ---- mma --------------------------------------------------------------------------------------------------------- */

typedef struct mma_row {
  const char *shape;
  const number *d, *a, *b;
  int least, most;
  const char *infix; /* between layouts and types */
} mma_row;

#define SCALED ".kind::mxf8f6f4.block_scale.scale_vec::1X" /* and a power of two for each row of A and column of B */
static const mma_row mma_rows[] = {
    {"m16n8k8", &n_f32, &n_f16, &n_f16, 75, 0, ""},
    {"m16n8k8", &n_f16, &n_f16, &n_f16, 75, 0, ""},
    {"m16n8k16", &n_f32, &n_f16, &n_f16, 80, 0, ""},
    {"m16n8k16", &n_f16, &n_f16, &n_f16, 80, 0, ""},
    {"m16n8k8", &n_f32, &n_bf16, &n_bf16, 80, 0, ""},
    {"m16n8k16", &n_f32, &n_bf16, &n_bf16, 80, 0, ""},
    {"m16n8k4", &n_f32, &n_tf32, &n_tf32, 80, 0, ""},
    {"m16n8k8", &n_f32, &n_tf32, &n_tf32, 80, 0, ""},
    {"m8n8k16", &n_s32, &n_s8, &n_s8, 75, 0, ""},
    {"m16n8k16", &n_s32, &n_s8, &n_s8, 80, 0, ""},
    {"m16n8k32", &n_s32, &n_s8, &n_s8, 80, 0, ""},
    {"m16n8k32", &n_s32, &n_u8, &n_s8, 80, 0, ""},
    {"m16n8k32", &n_s32, &n_s8, &n_u8, 80, 0, ""},
    {"m16n8k32", &n_s32, &n_u8, &n_u8, 80, 0, ""},
    {"m16n8k32", &n_s32, &n_s8, &n_s8, 80, 0, ".satfinite"},
    {"m16n8k32", &n_f32, &n_e4m3, &n_e4m3, 89, 0, ""},
    {"m16n8k32", &n_f32, &n_e5m2, &n_e5m2, 89, 0, ""},
    {"m16n8k32", &n_f32, &n_e4m3, &n_e5m2, 89, 0, ""},
    {"m16n8k32", &n_f16, &n_e4m3, &n_e4m3, 89, 0, ""},
    {"m16n8k32", &n_f32, &n_e4m3, &n_e2m1, 120, 121, ".kind::f8f6f4"},
    {"m16n8k32", &n_f32, &n_e2m1, &n_e2m1, 120, 121, ".kind::f8f6f4"},
    {"m16n8k32", &n_f32, &n_e4m3, &n_e3m2, 120, 121, ".kind::f8f6f4"},
    {"m16n8k32", &n_f32, &n_e4m3, &n_e2m3, 120, 121, ".kind::f8f6f4"},
    {"m16n8k32", &n_f32, &n_e2m1, &n_e4m3, 120, 121, SCALED},
    {"m16n8k32", &n_f32, &n_e4m3, &n_e5m2, 120, 121, SCALED},
};

/* What a row comes to. */
typedef struct mma_form {
  const mma_row *row;
  int m, n, k, na, nb, nd; /* registers of a lane */
  bool whole, scaled;      /* scaled: two more registers, their lowest bytes: scales of A, of B */
} mma_form;

/* A small float lies in a byte of its own, e2m1 in its bits 2 to 5. */
static int room(const number *t) { return t->bits < 8 ? 8 : t->bits; }
static int shift(const number *t) { return t == &n_e2m1 ? 2 : 0; }

/* Row and column of element j of register r of a lane, in A (16 x k), B (k x 8, column n), D (16 x 8). */
static void place_a(const number *t, int lane, int r, int j, int *row, int *col) {
  int per = 32 / room(t);
  *row = lane / 4 + 8 * (r & 1), *col = lane % 4 * per + j + (r >> 1) * 4 * per;
}
static void place_b(const number *t, int lane, int r, int j, int *row, int *col) {
  int per = 32 / room(t);
  *row = lane % 4 * per + j + r * 4 * per, *col = lane / 4;
}
static void place_d(const number *t, int lane, int r, int j, int *row, int *col) {
  int pairs = t == &n_f16 ? r : r >> 1;
  *row = lane / 4 + 8 * pairs, *col = lane % 4 * 2 + (t == &n_f16 ? j : r & 1);
}

typedef void place_fn(const number *t, int lane, int r, int j, int *row, int *col);

static uint32_t element(const number *t, uint32_t word, int j) {
  uint32_t v = word >> j * room(t) >> shift(t);
  return t->bits == 32 ? v : v & ((1u << t->bits) - 1);
}
/* n registers from `first` of every lane's `in` into a matrix of `columns`. */
static void gather(const number *t, place_fn *place, const uint32_t *x, int in, int first, int n, int columns,
                   double *out) {
  for (int lane = 0; lane < LANES; lane++)
    for (int r = 0; r < n; r++)
      for (int j = 0; j < 32 / room(t); j++) {
        int row, col;
        place(t, lane, r, j, &row, &col);
        out[row * columns + col] = number_value(t, element(t, x[lane * in + first + r], j));
      }
}

/* Threads 4g and 4g + 1 have the scales of the rows g and g + 8 of A, thread 4g that of column g of B. */
static double scale_of(const form *f, const uint32_t *x, int lane, int last) {
  return ldexp(1, (int)(x[lane * f->in + f->in - last] & 255) - 127);
}
static void scale(const form *f, const uint32_t *x, product *p) {
  for (int i = 0; i < p->m * p->k; i++) p->a[i] *= scale_of(f, x, i / p->k % 8 * 4 + i / p->k / 8, 2);
  for (int i = 0; i < p->k * p->n; i++) p->b[i] *= scale_of(f, x, i % p->n * 4, 1);
}

static void mma_truth(const form *f, const uint32_t *x, uint32_t *y, double *slack) {
  const mma_form *s = f->more;
  const mma_row *r = s->row;
  product p = product_new(s->m, s->n, s->k);
  gather(r->a, place_a, x, f->in, 0, s->na, s->k, p.a);
  gather(r->b, place_b, x, f->in, s->na, s->nb, s->n, p.b);
  gather(r->d, place_d, x, f->in, s->na + s->nb, s->nd, s->n, p.c);
  if (s->scaled) scale(f, x, &p);
  product_run(&p);
  for (int w = 0; w < LANES * s->nd; w++) {
    y[w] = 0, slack[w] = 0;
    for (int j = 0; j < 32 / r->d->bits; j++) {
      int row, col;
      place_d(r->d, w / s->nd, w % s->nd, j, &row, &col);
      int i = row * s->n + col;
      double sum = p.sum[i];
      if (r->d == &n_s32 && !*r->infix) sum -= 0x1p32 * floor(sum * 0x1p-32 + 0.5); /* wraps round */
      y[w] |= number_code(r->d, sum, R_NEAREST, false) << j * r->d->bits;
      if (!s->whole && r->d != &n_s32) slack[w] = fmax(slack[w], product_slack(&p, i, r->a, r->d));
    }
  }
  product_free(&p);
}

static uint32_t draw_register(const number *t, bool whole, uint64_t *state) {
  uint32_t v = 0;
  for (int j = 0; j < 32 / room(t); j++)
    v |= (whole ? draw_whole(t, state) : draw_real(t, state)) << j * room(t) << shift(t);
  return v;
}
static void mma_draw(const form *f, uint32_t *x, uint64_t *state) {
  const mma_form *s = f->more;
  for (int i = 0; i < LANES * f->in; i++) {
    int r = i % f->in;
    if (r >= s->na + s->nb + s->nd) {
      x[i] = (s->whole ? 127 : 120 + draw_below(state, 16)) * 0x01010101u;
      continue;
    }
    const number *t = r < s->na ? s->row->a : r < s->na + s->nb ? s->row->b : s->row->d;
    x[i] = draw_register(t, s->whole, state);
  }
}

static void add_mma(form_list *l, const mma_row *r, bool whole) {
  mma_form *s = calloc(1, sizeof *s);
  if (!s) abort();
  *s = (mma_form){.row = r, .whole = whole, .scaled = strstr(r->infix, "block_scale") != NULL};
  sscanf(r->shape, "m%dn%dk%d", &s->m, &s->n, &s->k);
  s->na = s->m * s->k * room(r->a) / 1024, s->nb = s->k * s->n * room(r->b) / 1024;
  s->nd = s->m * s->n * r->d->bits / 1024;
  int last = s->na + s->nb + s->nd;
  const char *opcode = text("mma.sync.aligned.%s.row.col%s.%s.%s.%s.%s%s", r->shape, r->infix, r->d->name, r->a->name,
                            r->b->name, r->d->name, s->scaled ? ".ue8m0" : "");
  const char *scales = s->scaled ? text(", a%d, {0, 0}, a%d, {0, 0}", last, last + 1) : "";
  const char *body = text("%s %s, %s, %s, %s%s;", opcode, registers('d', 0, s->nd), registers('a', 0, s->na),
                          registers('a', s->na, s->nb), registers('a', s->na + s->nb, s->nd), scales);
  form_add(l, (form){.family = "mma",
                     .name = text("%s%s", opcode, whole ? ", whole numbers" : ""),
                     .text = body,
                     .least = r->least,
                     .most = r->most,
                     .threads = LANES,
                     .in = last + 2 * s->scaled,
                     .out = s->nd,
                     .draw = mma_draw,
                     .truth = mma_truth,
                     .result = r->d,
                     .more = s});
}

/* ---- ldmatrix, stmatrix ------------------------------------------------------------------------------------------ */

typedef struct row_form {
  int count;
  bool trans, store;
} row_form;

static const row_form row_rows[] = {{1, false, false}, {2, false, false}, {4, false, false}, {1, true, false},
                                    {2, true, false},  {4, true, false},  {1, false, true},  {2, false, true},
                                    {4, false, true},  {1, true, true},   {2, true, true},   {4, true, true}};

/* The half at (row, col) of matrix j: lane 8j + row has the byte address of that row. */
static uint16_t *half_at(uint32_t *shared, const uint32_t *x, int in, int j, int row, int col) {
  return (uint16_t *)(void *)shared + x[(8 * j + row) * in] / 2 + col;
}

/* Registers of a lane against the matrices: element h of register j is at row lane/4, column 2 (lane%4) + h, or, with
 * .trans, the other way round. */
static void rows_truth(const form *f, const uint32_t *x, uint32_t *y, double *slack) {
  const row_form *r = f->more;
  uint32_t shared[512];
  memset(slack, 0, sizeof *slack * (size_t)form_y_words(f));
  memcpy(shared, x + f->threads * f->in, sizeof(uint32_t) * (size_t)f->tile);
  for (int lane = 0; lane < LANES; lane++)
    for (int j = 0; j < r->count; j++)
      for (int h = 0; h < 2; h++) {
        int row = lane / 4, col = lane % 4 * 2 + h;
        uint16_t *at = half_at(shared, x, f->in, j, r->trans ? col : row, r->trans ? row : col);
        if (r->store) *at = (uint16_t)(x[lane * f->in + 1 + j] >> 16 * h);
        else ((uint16_t *)(void *)(y + lane * f->out + j))[h] = *at;
      }
  if (r->store) memcpy(y + f->threads * f->out, shared, sizeof(uint32_t) * (size_t)f->dump);
}

/* Rows of 16 bytes anywhere in the tile, no two the same. */
static void rows_draw(const form *f, uint32_t *x, uint64_t *state) {
  uint32_t order[128];
  draw_any(f, x, state);
  for (uint32_t i = 0; i < 128; i++) order[i] = i;
  for (uint32_t i = 127; i; i--) {
    uint32_t j = draw_below(state, i + 1), other = order[j];
    order[j] = order[i], order[i] = other;
  }
  for (int lane = 0; lane < LANES; lane++) x[lane * f->in] = order[lane] * 16;
}

static void add_rows(form_list *l, const row_form *r) {
  const char *what = text("%s.sync.aligned.m8n8.x%d%s.shared.b16", r->store ? "stmatrix" : "ldmatrix", r->count,
                          r->trans ? ".trans" : "");
  const char *body = r->store ? text(".reg .b32 p; add.u32 p, a0, s; %s [p], %s;", what, registers('a', 1, r->count))
                              : text(".reg .b32 p; add.u32 p, a0, s; %s %s, [p];", what, registers('d', 0, r->count));
  form_add(l, (form){.family = r->store ? "stmatrix" : "ldmatrix",
                     .name = what,
                     .text = body,
                     .least = r->store ? 90 : 75,
                     .threads = LANES,
                     .in = r->store ? 1 + r->count : 1,
                     .out = r->store ? 0 : r->count,
                     .tile = 512,
                     .dump = r->store ? 512 : 0,
                     .shared = SHARED_TILE,
                     .draw = rows_draw,
                     .truth = rows_truth,
                     .more = r});
}

void forms_matrix(form_list *l) {
  for (size_t i = 0; i < sizeof row_rows / sizeof *row_rows; i++) add_rows(l, &row_rows[i]);
  for (size_t i = 0; i < sizeof mma_rows / sizeof *mma_rows; i++)
    for (int whole = number_is_integer(mma_rows[i].a) ? 0 : 1; whole >= 0; whole--) add_mma(l, &mma_rows[i], whole);
}
