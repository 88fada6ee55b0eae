/* awq.c - see awq.h; and round to nearest with the errors of the outputs, which the search goes by. */
#include "awq.h"
#include "fail.h"
#include "fit.h"
#include "model.h"
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { T = QN__TILE, STEPS = 20 };

/* ---- Round to nearest -------------------------------------------------------------------------------------------- */

typedef double strip[T]; /* one column of T rows */

typedef struct work {
  qn__fit *t;
  atomic_bool no_memory;
} work;

/* vᵀ H v of each row. */
static void output_squares(const qn__inputs *s, const strip *v, strip out) {
  memset(out, 0, sizeof(strip));
  for (int64_t b = 0; b < s->pad; b += T) {
    strip sum[T] = {{0}}; /* [row][column]: H is symmetric, so what is before the block counts twice */
    qn__tile_add(b, 1, v[0], T, s->h + b, s->pad, sum[0], T);
    for (int r = 0; r < T; r++)
      for (int j = 0; j < T; j++) sum[r][j] *= 2;
    qn__tile_add(T, 1, v[b], T, s->h + b * s->pad + b, s->pad, sum[0], T);
    for (int r = 0; r < T; r++)
      for (int j = 0; j < T; j++) out[r] += sum[r][j] * v[b + j][r];
  }
  for (int r = 0; r < T; r++) out[r] = fmax(out[r], 0);
}

/* What the rows from `row` on are, and what they lose. */
static void load(const qn__fit *t, int64_t row, int rows, strip *w, strip *d) {
  double room[QN_CODES];
  qn__meanings m;
  for (int r = 0; r < rows; r++)
    for (int64_t k = 0; k < t->k; k++) {
      double x = (double)t->w[(row + r) * t->k + k];
      if (k % t->cols == 0) qn__meanings_find(t, (row + r) / t->rows * t->across + k / t->cols, room, &m);
      w[k][r] = x;
      d[k][r] = x - qn__meanings_encode(t, &m, x, NULL, 0);
    }
}

static void find_errors(void *ud, int64_t begin, int64_t end, int32_t thread) {
  work *a = ud;
  qn__fit *t = a->t;
  (void)thread;
  strip *w = calloc((size_t)t->seen->pad * 2, sizeof *w), output, error;
  if (!w) atomic_store(&a->no_memory, true);
  for (int64_t i = begin; w && i < end; i++) {
    strip *d = w + t->seen->pad;
    int rows = (int)(t->n - i * T < T ? t->n - i * T : T);
    load(t, i * T, rows, w, d);
    output_squares(t->seen, w, output);
    output_squares(t->seen, d, error);
    for (int r = 0; r < rows; r++) {
      qn__quantize_error *e = &t->row[i * T + r];
      e->output2 = output[r];
      e->output_error2 = e->nearest_error2 = error[r];
    }
  }
  free(w);
}

qn_status qn__method_awq(qn__fit *t) {
  work a = {.t = t};
  QN_TRY(qn__method_rtn(t));
  qn__pool_run(t->pool, find_errors, &a, qn__ceildiv(t->n, T));
  return a.no_memory ? qn__fail(QN_E_NOMEM, "%d rows of %jd weights", T, (intmax_t)t->k) : QN_OK;
}

/* ---- The search -------------------------------------------------------------------------------------------------- */

typedef struct search {
  const qn__awq_weight *weights;
  int n;
  const qn__inputs *seen;
  qn__quantize_options o; /* of a trial: `seen` is x / scale */
  qn__inputs scaled;
  double *magnitude; /* [k] of the weights */
  float *scale;      /* [k] */
} search;

/* Statistics of x / scale; all that a trial looks at. */
static void scale_inputs(search *a) {
  const qn__inputs *s = a->seen;
  for (int64_t i = 0; i < s->k; i++)
    for (int64_t j = 0; j < s->k; j++)
      a->scaled.h[i * s->pad + j] = s->h[i * s->pad + j] / ((double)a->scale[i] * (double)a->scale[j]);
}

/* The error of all outputs with the scale. */
static qn_status try(search *a, double *output2, double *error2) {
  *output2 = *error2 = 0;
  scale_inputs(a);
  for (int i = 0; i < a->n; i++) {
    const qn__awq_weight *x = &a->weights[i];
    int64_t k = a->seen->k;
    qn__quantize_error e;
    qn_planes *p = NULL;
    float *w = malloc((size_t)(x->n * k) * sizeof *w);
    if (!w) return qn__fail(QN_E_NOMEM, "a weight of [%jd, %jd]", (intmax_t)x->n, (intmax_t)k);
    for (int64_t j = 0; j < x->n * k; j++) w[j] = x->w[j] * a->scale[j % k];
    qn_status s = qn__quantize(x->f, w, x->n, k, &a->o, &p, &e);
    qn_planes_free(p);
    free(w);
    if (s) return s;
    *output2 += e.output2;
    *error2 += e.output_error2;
  }
  return QN_OK;
}

/* The mean over all rows of each column's weights, relative to the largest of their groups. */
static void find_magnitudes(search *a) {
  int64_t k = a->seen->k, rows = 0;
  for (int i = 0; i < a->n; i++) {
    const qn__awq_weight *x = &a->weights[i];
    qn__fit t = {.f = x->f, .n = x->n, .k = k};
    qn__fit_cells(&t);
    rows += x->n;
    for (int64_t c = 0; c < x->n * k; c += c % k + t.cols < k ? t.cols : k - c % k) {
      int64_t end = c % k + t.cols < k ? c + t.cols : c + k - c % k;
      float most = 0;
      for (int64_t j = c; j < end; j++) most = fmaxf(most, fabsf(x->w[j]));
      for (int64_t j = c; j < end && most > 0; j++) a->magnitude[j % k] += (double)(fabsf(x->w[j]) / most);
    }
  }
  for (int64_t j = 0; j < k; j++) a->magnitude[j] /= (double)rows;
}

static void make_scale(search *a, double exponent) {
  double most = 0, least = INFINITY;
  for (int64_t j = 0; j < a->seen->k; j++) {
    double x = sqrt(a->seen->square[j]), s = pow(x, exponent) / pow(a->magnitude[j] + 1e-4, 1 - exponent);
    a->scale[j] = x > 0 ? (float)fmax(s, 1e-4) : 0;
    if (x > 0) most = fmax(most, (double)a->scale[j]), least = fmin(least, (double)a->scale[j]);
  }
  for (int64_t j = 0; j < a->seen->k; j++)
    a->scale[j] = a->scale[j] > 0 ? (float)((double)a->scale[j] / sqrt(most * least)) : 1;
}

static void no_scale(search *a) {
  for (int64_t j = 0; j < a->seen->k; j++) a->scale[j] = 1;
}

static qn_status find(search *a, qn__awq_found *found) {
  double output2, error2;
  found->exponent = -1;
  no_scale(a);
  QN_TRY(try(a, &found->output2, &found->before2));
  found->scaled2 = found->before2;
  find_magnitudes(a);
  for (int i = 0; i < STEPS; i++) {
    make_scale(a, (double)i / STEPS);
    QN_TRY(try(a, &output2, &error2));
    if (error2 < found->scaled2) found->exponent = (double)i / STEPS, found->scaled2 = error2;
  }
  if (found->exponent < 0) no_scale(a);
  else make_scale(a, found->exponent);
  return QN_OK;
}

qn_status qn__awq_search(const qn__awq_weight *weights, int n, const qn__inputs *seen, const char *scales, int threads,
                         float *scale, qn__awq_found *found) {
  search a = {.weights = weights, .n = n, .seen = seen, .scale = scale};
  a.o = (qn__quantize_options){"awq", scales && !strncmp(scales, "full", 4) ? "full" : "minmax", threads, &a.scaled};
  QN_TRY(qn__inputs_init(&a.scaled, seen->k, QN__SEE_PRODUCTS));
  a.scaled.tokens = seen->tokens;
  a.magnitude = calloc((size_t)seen->k, sizeof *a.magnitude);
  qn_status s = a.magnitude ? find(&a, found) : qn__fail(QN_E_NOMEM, "scales of %jd inputs", (intmax_t)seen->k);
  qn__inputs_fini(&a.scaled);
  free(a.magnitude);
  return s;
}
