/* reference.c - what planes mean: dequantized and multiplied in float64.
 *
 * The textbook formula, element by element, from planes: no layout, no generated code, no fast arithmetic. Everything
 * else is measured against this file. */
#include "reference.h"
#include "convert.h"
#include "fail.h"
#include <math.h>
#include <stdlib.h>

/* ---- Dequantizing ------------------------------------------------------------------------------------------------ */

/* What a row of a weight is read from: the codes and the format's planes, in the order of the decode rule's
 * variables. */
typedef struct source {
  const qn_format *f;
  int64_t k;
  const qn_plane *plane[1 + QN_FORMAT_PLANES];
} source;

static qn_status source_init(source *s, const qn_format *f, const qn_planes *p) {
  *s = (source){.f = f, .k = p->k};
  for (uint32_t i = 0; i <= f->n_planes; i++)
    if (!(s->plane[i] = qn__planes_find(f, p, i)))
      return qn__fail(QN_E_ARG, "weight of format '%s': plane '%s' is missing", f->name,
                      i ? f->plane[i - 1].name : "codes");
  return QN_OK;
}

/* Variable i of the decode rule for weights (n, k) .. (n, k + m). */
static void load_variable(const source *s, uint32_t i, int64_t n, int64_t k, int m, double *out) {
  const qn_plane *p = s->plane[i];
  if (!i) {
    qn__load_block(s->f->cast ? (qn_type)s->f->cast : p->type, p->data, n * s->k + k, m, out);
    return;
  }
  const qn_format_plane *spec = &s->f->plane[i - 1];
  int64_t row = spec->rows ? n / spec->rows : 0, share = spec->cols ? spec->cols : s->k;
  for (int j = 0; j < m; j++)
    out[j] = j && (k + j) % share ? out[j - 1] : qn__load_f64(p->type, p->data, row * p->cols + (k + j) / share);
}

/* Row n of the weight: K values, and K magnitudes unless mag is NULL. */
static void decode_row(const source *s, int64_t n, double *value, double *mag) {
  double block[1 + QN_FORMAT_PLANES][QN_EXPR_BLOCK];
  const double *var[1 + QN_FORMAT_PLANES];
  for (uint32_t i = 0; i <= s->f->n_planes; i++) var[i] = block[i];
  for (int64_t k = 0; k < s->k; k += QN_EXPR_BLOCK) {
    int m = (int)(s->k - k < QN_EXPR_BLOCK ? s->k - k : QN_EXPR_BLOCK);
    for (uint32_t i = 0; i <= s->f->n_planes; i++) load_variable(s, i, n, k, m, block[i]);
    qn__expr_f64(qn__decode_rule(s->f), m, var, s->f->table, value + k, mag ? mag + k : NULL);
  }
}

qn_status qn__dequantize(const qn_format *f, const qn_planes *p, int64_t n0, int64_t n1, double *out) {
  if (n0 < 0 || n1 > p->n || n0 > n1)
    return qn__fail(QN_E_ARG, "rows %lld .. %lld of a weight with %lld", (long long)n0, (long long)n1, (long long)p->n);
  source s;
  QN_TRY(source_init(&s, f, p));
  for (int64_t n = n0; n < n1; n++, out += p->k) decode_row(&s, n, out, NULL);
  return QN_OK;
}

/* ---- The product ------------------------------------------------------------------------------------------------- */

/* Row r of X as the columns of W want it: scaled and permuted. */
static void load_x(const qn_planes *p, const qn_host_args *a, qn_type act, int64_t r, double *out) {
  int64_t ldx = a->ldx ? a->ldx : p->k;
  double scale = a->x_scale ? (double)a->x_scale[r] : 1;
  for (int64_t k = 0; k < p->k; k++) out[k] = scale * qn__load_f64(act, a->x, r * ldx + (p->perm ? p->perm[k] : k));
}

qn_status qn__reference(const qn_format *f, const qn_planes *p, const qn_host_args *a, qn_type act, const int64_t *rows,
                        int64_t n_rows, const int64_t *cols, int64_t n_cols, double *y, double *mag) {
  source s;
  QN_TRY(source_init(&s, f, p));
  double *x = malloc((size_t)(n_rows + 2) * (size_t)p->k * sizeof *x);
  if (!x) return qn__fail(QN_E_NOMEM, "reference of %lld rows, K = %lld", (long long)n_rows, (long long)p->k);
  double *w = x + n_rows * p->k, *g = w + p->k;
  for (int64_t i = 0; i < n_rows; i++) load_x(p, a, act, rows ? rows[i] : i, x + i * p->k);
  for (int64_t j = 0; j < n_cols; j++) {
    int64_t n = cols ? cols[j] : j;
    double bias = a->bias ? (double)((const float *)a->bias)[n] : 0;
    decode_row(&s, n, w, g);
    for (int64_t i = 0; i < n_rows; i++) {
      const double *xi = x + i * p->k;
      double sum = bias, sum_mag = fabs(bias);
      for (int64_t k = 0; k < p->k; k++) sum += xi[k] * w[k], sum_mag += fabs(xi[k]) * g[k];
      y[i * n_cols + j] = sum;
      if (mag) mag[i * n_cols + j] = sum_mag;
    }
  }
  free(x);
  return QN_OK;
}
