/* feedback.c - see feedback.h. */
#include "feedback.h"
#include "clones.h"
#include "fail.h"
#include "model.h"
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { T = QN__TILE };

/* ---- The factor -------------------------------------------------------------------------------------------------- */

typedef struct place {
  double h;
  int64_t column;
} place;

static int by_h(const void *x, const void *y) {
  const place *a = x, *b = y;
  return a->h < b->h ? -1 : a->h > b->h ? 1 : a->column < b->column ? -1 : 1;
}

/* Columns by rising diagonal, so that the last, which is taken first, has the largest. */
static qn_status order_columns(qn__feedback *b) {
  const qn__inputs *s = b->t->seen;
  place *at = malloc((size_t)s->k * sizeof *at);
  if (!at) return qn__fail(QN_E_NOMEM, "the order of %jd columns", (intmax_t)s->k);
  for (int64_t i = 0; i < s->k; i++) at[i] = (place){s->h[i * s->pad + i], i};
  qsort(at, (size_t)s->k, sizeof *at, by_h);
  for (int64_t i = 0; i < b->pad; i++) b->order[i] = i < s->k ? at[i].column : i;
  free(at);
  return QN_OK;
}

/* H + damping, on and above the diagonal. An input that was always 0 and a place of the padding stand alone. */
static void arrange(const qn__feedback *b, double *a) {
  const qn__inputs *s = b->t->seen;
  for (int64_t i = 0; i < b->pad; i++)
    for (int64_t j = i; j < b->pad; j++) {
      int64_t r = b->order[i], c = b->order[j];
      double h = r < s->k && c < s->k ? s->h[r * s->pad + c] : 0;
      if (i == j && h == 0) h = 1;
      a[i * b->pad + j] = i == j ? h + b->damping : h;
    }
}

static double mean_diagonal(const qn__inputs *s) {
  double sum = 0;
  for (int64_t i = 0; i < s->k; i++) sum += s->h[i * s->pad + i];
  return sum / (double)s->k;
}

/* Upper becomes lower, and what is not of the factor becomes 0. */
static void lower_half(const qn__feedback *b) {
  qn__matrix_transpose(b->t->pool, b->pad, b->lower);
  for (int64_t i = 0; i < b->pad; i++)
    memset(b->lower + i * b->pad + i + 1, 0, (size_t)(b->pad - i - 1) * sizeof *b->lower);
}

static qn_status factor(qn__feedback *b, void (*fill)(const qn__feedback *b, double *right), double *right) {
  static const double shares[] = {0.01, 0.1, 1};
  double mean = mean_diagonal(b->t->seen);
  if (!(mean > 0)) return qn__fail(QN_E_ARG, "calibration did not reach it: all of its inputs are 0");
  for (size_t i = 0; i < QN_COUNT(shares); i++) {
    b->damping = shares[i] * mean;
    arrange(b, b->lower);
    if (right) fill(b, right);
    if (!qn__cholesky(b->t->pool, b->pad, b->lower, right)) continue;
    lower_half(b);
    return QN_OK;
  }
  return qn__fail(QN_E_ARG,
                  "the products of its inputs are not positive definite, even with %g added to the diagonal: "
                  "once its mean; more or other calibration text may help",
                  b->damping);
}

qn_status qn__feedback_init(qn__feedback *b, qn__fit *t, void (*fill)(const qn__feedback *b, double *right),
                            double *right) {
  *b = (qn__feedback){.t = t, .pad = t->seen->pad};
  b->order = malloc((size_t)b->pad * sizeof *b->order);
  b->lower = malloc((size_t)(b->pad * b->pad) * sizeof *b->lower);
  qn_status s =
      b->order && b->lower ? order_columns(b) : qn__fail(QN_E_NOMEM, "products of %jd inputs", (intmax_t)t->seen->k);
  if (!s) s = factor(b, fill, right);
  if (s) qn__feedback_fini(b);
  return s;
}

void qn__feedback_fini(qn__feedback *b) {
  free(b->order);
  free(b->lower);
  *b = (qn__feedback){0};
}

/* ---- A tile of rows ---------------------------------------------------------------------------------------------- */

typedef double strip[T]; /* one column of T rows */

typedef struct tile {
  const qn__feedback *b;
  int64_t row; /* the first */
  int rows;
  strip *w, *is, *d, *v; /* [pad] the weights, decoded; target - decoded; what was to become of the column */
  double *value;         /* what codes mean: [rows, cells in a row, codes] */
  qn__meanings *meaning; /* [rows, cells in a row] */
} tile;

static void load(tile *x) {
  const qn__fit *t = x->b->t;
  memset(x->w, 0, (size_t)x->b->pad * 4 * sizeof *x->w);
  for (int64_t p = 0; p < x->b->pad; p++)
    for (int r = 0; r < x->rows && x->b->order[p] < t->k; r++)
      x->w[p][r] = (double)t->w[(x->row + r) * t->k + x->b->order[p]];
  for (int64_t i = 0; i < x->rows * t->across; i++) {
    int64_t row = x->row + i / t->across;
    qn__meanings_find(t, row / t->rows * t->across + i % t->across, x->value + i * t->r.n, &x->meaning[i]);
  }
}

static const qn__meanings *meaning(const tile *x, int r, int64_t column) {
  return &x->meaning[r * x->b->t->across + column / x->b->t->cols];
}

/* before[j] += factor[j] * strip, for the columns of a block before one. */
QN__CLONES static void pass_on(int columns, const double *factor, const strip from, strip *before) {
  for (int j = 0; j < columns; j++)
    for (int r = 0; r < T; r++) before[j][r] += factor[j] * from[r];
}

/* Column at place p: `error` and `carried` are what the places after it add up to. */
static void encode_column(const tile *x, int64_t p, const strip error, const strip carried) {
  const qn__fit *t = x->b->t;
  int64_t column = x->b->order[p];
  double l = x->b->lower[p * x->b->pad + p];
  if (column >= t->k) return;
  for (int r = 0; r < x->rows; r++) {
    double target = x->w[p][r] + carried[r], v = target + error[r] / l;
    x->v[p][r] = v;
    x->is[p][r] = qn__meanings_encode(t, meaning(x, r, column), v, qn__fill(t->p, 0), (x->row + r) * t->k + column);
    x->d[p][r] = target - x->is[p][r];
  }
}

/* Σ over the places from `from` on of factor[i, b + j] * strips[i]. */
static void sum_after(const tile *x, const double *factor, int64_t b, int64_t from, const strip *strips, strip *out) {
  int64_t pad = x->b->pad;
  memset(out, 0, T * sizeof *out);
  qn__tile_add(pad - from, 1, factor + from * pad + b, pad, strips[from], T, out[0], T);
}

static void encode_block(const tile *x, int64_t b) {
  const qn__feedback *f = x->b;
  strip error[T], carried[T] = {{0}};
  sum_after(x, f->lower, b, b + T, x->d, error);
  if (f->carried) sum_after(x, f->carried, b, b + T, x->v, carried);
  for (int j = T - 1; j >= 0; j--) {
    encode_column(x, b + j, error[j], carried[j]);
    pass_on(j, f->lower + (b + j) * f->pad + b, x->d[b + j], error);
    if (f->carried) pass_on(j, f->carried + (b + j) * f->pad + b, x->v[b + j], carried);
  }
}

/* ---- Errors ------------------------------------------------------------------------------------------------------ */

/* dᵀ H d of each row, H without what arrange has added to it. */
static void output_squares(const tile *x, strip out) {
  const qn__inputs *s = x->b->t->seen;
  strip sum[T];
  memset(out, 0, sizeof(strip));
  for (int64_t b = 0; b < x->b->pad; b += T) {
    sum_after(x, x->b->lower, b, b, x->d, sum);
    for (int j = 0; j < T; j++) {
      int64_t column = x->b->order[b + j];
      bool alone = column >= s->k || s->h[column * s->pad + column] == 0;
      double added = x->b->damping + alone;
      for (int r = 0; r < T; r++) out[r] += sum[j][r] * sum[j][r] - added * x->d[b + j][r] * x->d[b + j][r];
    }
  }
  for (int r = 0; r < T; r++) out[r] = fmax(out[r], 0);
}

/* Into d: the weights, less what the nearest codes or those that were chosen mean. */
typedef enum compared { ZERO, NEAREST, CHOSEN } compared;

static void compare(const tile *x, compared with) {
  const qn__fit *t = x->b->t;
  for (int64_t p = 0; p < x->b->pad; p++)
    for (int r = 0; r < x->rows && x->b->order[p] < t->k; r++) {
      double w = x->w[p][r], is = with == CHOSEN ? x->is[p][r] : 0;
      if (with == NEAREST) is = qn__meanings_encode(t, meaning(x, r, x->b->order[p]), w, NULL, 0);
      x->d[p][r] = w - is;
    }
}

static void find_errors(const tile *x) {
  strip output, nearest, chosen;
  compare(x, ZERO);
  output_squares(x, output);
  compare(x, NEAREST);
  output_squares(x, nearest);
  compare(x, CHOSEN);
  output_squares(x, chosen);
  for (int r = 0; r < x->rows; r++) {
    qn__quantize_error *e = &x->b->t->row[x->row + r];
    *e = (qn__quantize_error){.output2 = output[r], .nearest_error2 = nearest[r], .output_error2 = chosen[r]};
    for (int64_t p = 0; p < x->b->pad; p++) {
      double d = x->d[p][r];
      e->error2 += d * d;
      e->weight2 += x->w[p][r] * x->w[p][r];
      e->largest = fmax(e->largest, fabs(d));
    }
  }
}

/* ---- All rows ---------------------------------------------------------------------------------------------------- */

typedef struct work {
  const qn__feedback *b;
  atomic_bool no_memory;
} work;

static void encode_tile(tile *x) {
  load(x);
  for (int64_t b = x->b->pad - T; b >= 0; b -= T) encode_block(x, b);
  find_errors(x);
}

static void encode_tiles(void *ud, int64_t begin, int64_t end, int32_t thread) {
  work *w = ud;
  const qn__fit *t = w->b->t;
  tile x = {.b = w->b};
  size_t cells = (size_t)(T * t->across);
  (void)thread;
  x.w = malloc((size_t)w->b->pad * 4 * sizeof *x.w);
  x.value = malloc(cells * (size_t)(t->r.n ? t->r.n : 1) * sizeof *x.value);
  x.meaning = malloc(cells * sizeof *x.meaning);
  bool room = x.w && x.value && x.meaning;
  if (!room) atomic_store(&w->no_memory, true);
  for (int64_t i = begin; room && i < end; i++) {
    x.is = x.w + w->b->pad, x.d = x.is + w->b->pad, x.v = x.d + w->b->pad;
    x.row = i * T;
    x.rows = (int)(t->n - x.row < T ? t->n - x.row : T);
    encode_tile(&x);
  }
  free(x.w);
  free(x.value);
  free(x.meaning);
}

qn_status qn__feedback_encode(const qn__feedback *b) {
  work w = {.b = b};
  qn__pool_run(b->t->pool, encode_tiles, &w, qn__ceildiv(b->t->n, T));
  return w.no_memory ? qn__fail(QN_E_NOMEM, "%d rows of %jd weights", T, (intmax_t)b->t->k) : QN_OK;
}
