/* inputs.c - see inputs.h. */
#include "inputs.h"
#include "fail.h"
#include <math.h>
#include <stdlib.h>

enum { ROWS = 256 }; /* of X that are made float64 at once */

static double *zeros(int64_t count) { return calloc((size_t)count, sizeof(double)); }

qn_status qn__inputs_init(qn__inputs *s, int64_t k, int see) {
  *s = (qn__inputs){.k = k, .pad = qn__pad(k)};
  s->square = zeros(k);
  if (see & (QN__SEE_PRODUCTS | QN__SEE_CROSS)) s->h = zeros(s->pad * s->pad);
  if (see & QN__SEE_CROSS) s->cross = zeros(s->pad * s->pad);
  if (s->square && (!see || s->h) && (!(see & QN__SEE_CROSS) || s->cross)) return QN_OK;
  qn__inputs_fini(s);
  return qn__fail(QN_E_NOMEM, "products of %jd inputs, %jd MB each", (intmax_t)k,
                  (intmax_t)(qn__pad(k) * qn__pad(k) >> 17));
}

void qn__inputs_fini(qn__inputs *s) {
  free(s->square);
  free(s->h);
  free(s->cross);
  *s = (qn__inputs){0};
}

static qn_status add_squares(qn__inputs *s, const float *x, int64_t rows) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t i = 0; i < s->k; i++) {
      double v = (double)x[r * s->k + i];
      if (!isfinite(v)) return qn__fail(QN_E_ARG, "input %jd of a token is %g, not a finite number", (intmax_t)i, v);
      s->square[i] += v * v;
    }
  return QN_OK;
}

/* wide [rows, pad] = x, or x - less. */
static void widen(const qn__inputs *s, const float *x, const float *less, int64_t rows, double *wide) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t i = 0; i < s->k; i++)
      wide[r * s->pad + i] = (double)x[r * s->k + i] - (less ? (double)less[r * s->k + i] : 0);
}

static void add_products(qn__inputs *s, qn_pool *pool, const float *x, const float *original, int64_t rows,
                         double *wide) {
  double *change = wide + ROWS * s->pad;
  widen(s, x, NULL, rows, wide);
  qn__gram_add(pool, rows, s->pad, wide, s->h);
  if (!s->cross) return;
  widen(s, original, x, rows, change);
  qn__cross_add(pool, rows, s->pad, change, wide, s->cross);
}

qn_status qn__inputs_add(qn__inputs *s, qn_pool *pool, const float *x, const float *original, int64_t rows) {
  QN_TRY(add_squares(s, x, rows));
  s->tokens += rows;
  if (!s->h) return QN_OK;
  double *wide = zeros((s->cross ? 2 : 1) * ROWS * s->pad);
  if (!wide) return qn__fail(QN_E_NOMEM, "inputs of %jd tokens", (intmax_t)ROWS);
  for (int64_t r = 0; r < rows; r += ROWS)
    add_products(s, pool, x + r * s->k, original ? original + r * s->k : NULL, rows - r < ROWS ? rows - r : ROWS, wide);
  free(wide);
  return QN_OK;
}

void qn__inputs_finish(qn__inputs *s) {
  double each = s->tokens ? 1 / (double)s->tokens : 0;
  for (int64_t i = 0; i < s->k; i++) s->square[i] *= each;
  for (int64_t i = 0; s->h && i < s->k; i++)
    for (int64_t j = i; j < s->k; j++) s->h[j * s->pad + i] = s->h[i * s->pad + j] *= 2 * each;
  for (int64_t i = 0; s->cross && i < s->pad * s->pad; i++) s->cross[i] *= 2 * each;
}
