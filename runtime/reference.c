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

int64_t qn__x_group(const qn_format *f, int64_t k) {
  int64_t group = k;
  for (uint32_t i = 0; i < f->n_planes; i++)
    if (f->plane[i].cols && f->plane[i].cols < group) group = f->plane[i].cols;
  return group;
}

/* Round a row of X: each group of `group` numbers to codes times a scale. `f32` and `codes` have room for a group. */
static void round_x(qn_type act, int64_t k, int64_t group, double *x, float *f32, void *codes) {
  for (int64_t at = 0; at < k; at += group) {
    int64_t n = k - at < group ? k - at : group;
    for (int64_t i = 0; i < n; i++) f32[i] = (float)x[at + i];
    double scale = (double)qn__quantize_group(act, f32, n, codes);
    for (int64_t i = 0; i < n; i++) x[at + i] = scale * qn__load_f64(act, codes, i);
  }
}

/* Row r of X as the columns of W want it: scaled, permuted and rounded. `room`: 2 K doubles. */
static void load_x(const source *s, const qn_planes *p, const qn_host_args *a, const qn_problem *types, int64_t r,
                   double *out, double *room) {
  int64_t ldx = a->ldx ? a->ldx : p->k;
  double scale = a->x_scale ? (double)a->x_scale[r] : 1;
  for (int64_t k = 0; k < p->k; k++)
    out[k] = scale * qn__load_f64(qn__x_type(types), a->x, r * ldx + (p->perm ? p->perm[k] : k));
  if (types->x) round_x((qn_type)types->act, p->k, qn__x_group(s->f, p->k), out, (float *)room, room + p->k);
}

qn_status qn__reference(const qn_format *f, const qn_planes *p, const qn_host_args *a, const qn_problem *types,
                        const int64_t *rows, int64_t n_rows, const int64_t *cols, int64_t n_cols, double *sum,
                        double *mag) {
  source s;
  QN_TRY(source_init(&s, f, p));
  double *x = malloc((size_t)(n_rows + 2) * (size_t)p->k * sizeof *x);
  if (!x) return qn__fail(QN_E_NOMEM, "reference of %lld rows, K = %lld", (long long)n_rows, (long long)p->k);
  double *w = x + n_rows * p->k, *g = w + p->k;
  for (int64_t i = 0; i < n_rows; i++) load_x(&s, p, a, types, rows ? rows[i] : i, x + i * p->k, w);
  for (int64_t j = 0; j < n_cols; j++) {
    int64_t n = cols ? cols[j] : j;
    decode_row(&s, n, w, g);
    for (int64_t i = 0; i < n_rows; i++) {
      const double *xi = x + i * p->k;
      double total = 0, magnitude = 0;
      for (int64_t k = 0; k < p->k; k++) total += xi[k] * w[k], magnitude += fabs(xi[k]) * g[k];
      sum[i * n_cols + j] = total;
      if (mag) mag[i * n_cols + j] = magnitude;
    }
  }
  free(x);
  return QN_OK;
}

#define FLUSHED 0x1p-118 /* what a kernel may have lost of a number near zero, or of the inverse of a large one */

/* ---- Epilogues --------------------------------------------------------------------------------------------------- */

/* Element of an operand for Y[row, col]. */
static double operand_at(const qn_problem *p, const qn_host_args *a, qn_arg arg, int64_t row, int64_t col) {
  qn_operand o = qn__operand(p, arg);
  int64_t ld = o.stride < QN_ARG_COUNT ? qn__arg_number(a, o.stride) : o.cols;
  return qn__load_f64(o.type, qn__arg_pointer(a, arg), (o.tokens ? row * ld : 0) + (o.cols > 1 ? col : 0));
}

static double step_value(uint8_t code, double v, double o) {
  switch (code) {
#define QN_X(NAME, spelling, operand, value, ...)                                                                      \
  case QN_EPILOGUE_##NAME:                                                                                             \
    return value;
    QN_EPILOGUE_MAP(QN_X)
#undef QN_X
  default:
    return v;
  }
}

/* Where a step turns from falling to rising; NAN: nowhere. */
static double step_turn(uint8_t code) {
  static const double turns[QN_EPILOGUE_COUNT] = {
#define QN_X(NAME, spelling, operand, value, turn, ...) [QN_EPILOGUE_##NAME] = turn,
      QN_EPILOGUE_MAP(QN_X)
#undef QN_X
  };
  return turns[code];
}

/* How far a step computed in f32 may be from its value y, in units of 2^-24. */
static double step_roundings(uint8_t code, double v, double o, double y) {
  (void)v, (void)o;
  switch (code) {
#define QN_X(NAME, spelling, operand, value, turn, roundings, ...)                                                     \
  case QN_EPILOGUE_##NAME:                                                                                             \
    return roundings;
    QN_EPILOGUE_MAP(QN_X)
#undef QN_X
  default:
    return 0;
  }
}

/* The step at v, at both ends of where v may be instead, and where it turns between them. */
static qn_number take_step(uint8_t code, qn_number v, double o) {
  const double at[] = {v.value - v.error, v.value + v.error, step_turn(code)};
  double y = step_value(code, v.value, o), error = 0, roundings = step_roundings(code, v.value, o, y);
  for (size_t i = 0; i < QN_COUNT(at); i++) {
    if (!(at[i] >= at[0] && at[i] <= at[1])) continue;
    double off = step_value(code, at[i], o);
    error = fmax(error, fabs(off - y));
    roundings = fmax(roundings, step_roundings(code, at[i], o, off));
  }
  return (qn_number){y, error + roundings * 0x1p-24 + FLUSHED};
}

/* The product of a gate and an up row's sum. */
static qn_number pair(qn_number v, qn_number up) {
  double y = v.value * up.value;
  double error = fabs(v.value) * up.error + (fabs(up.value) + up.error) * v.error;
  return (qn_number){y, error + (fabs(y) + error) * 0x1p-24 + FLUSHED};
}

qn_number qn__epilogue(const qn_problem *p, const qn_host_args *a, int64_t row, int64_t col, const qn_number sum[2]) {
  qn_number v = sum[0], up = sum[1];
  bool both = qn__gated(p); /* before *gate */
  for (int i = 0; i < QN_EPILOGUE_STEPS && p->epilogue[i]; i++) {
    uint8_t code = p->epilogue[i];
    int arg = qn__epilogue_step[code].operand;
    if (arg == QN_ARG_UP) v = pair(v, up), both = false;
    else v = take_step(code, v, arg < QN_ARG_COUNT ? operand_at(p, a, (qn_arg)arg, row, col) : 0);
    if (both && arg < QN_ARG_COUNT) up = take_step(code, up, operand_at(p, a, (qn_arg)arg, row, p->n / 2 + col));
  }
  return v;
}
