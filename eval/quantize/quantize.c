/* quantize.c - see quantize.h: the choice of a method, and what it works on. */
#include "quantize.h"
#include "cpu.h"
#include "fail.h"
#include "fit.h"
#include "model.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
  const char *name;
  qn_status (*run)(qn__fit *t);
  int sees;           /* statistics that it needs: QN__SEE_…, 0: the means; -1: none */
  const char *scales; /* unless others are asked for */
  bool scaled;        /* the model's inputs are scaled before */
} methods[] = {
    {"rtn", qn__method_rtn, -1, "minmax", false},
    {"imatrix", qn__method_imatrix, 0, "mse", false},
    {"awq", qn__method_awq, QN__SEE_PRODUCTS, "outputs", true},
    {"gptq", qn__method_gptq, QN__SEE_PRODUCTS, "minmax", false},
    {"gptaq", qn__method_gptaq, QN__SEE_PRODUCTS | QN__SEE_CROSS, "minmax", false},
    {"awq+gptq", qn__method_gptq, QN__SEE_PRODUCTS, "minmax", true},
    {"awq+gptaq", qn__method_gptaq, QN__SEE_PRODUCTS | QN__SEE_CROSS, "minmax", true},
};

static const struct {
  const char *name;
  bool mse, full;
  int sees; /* as of methods */
} rules[] = {{"minmax", false, false, -1},
             {"mse", true, false, -1},
             {"outputs", true, false, QN__SEE_PRODUCTS},
             {"full", false, true, -1},
             {"full-mse", true, true, -1}};

const char *qn__quantize_method(size_t i) { return i < QN_COUNT(methods) ? methods[i].name : NULL; }
const char *qn__quantize_scales(size_t i) { return i < QN_COUNT(rules) ? rules[i].name : NULL; }

typedef char names[256]; /* "a, b, c" */

static void add_name(names list, const char *name) {
  size_t at = strlen(list);
  snprintf(list + at, sizeof(names) - at, "%s%s", at ? ", " : "", name);
}

static qn_status unknown(const char *what, const char *name, const char *(*known)(size_t i)) {
  names list = "";
  for (size_t i = 0; known(i); i++) add_name(list, known(i));
  return qn__fail(QN_E_ARG, "%s '%s'; known: %s", what, name, list);
}

static qn_status find_method(const char *name, size_t *out) {
  for (*out = 0; *out < QN_COUNT(methods); ++*out)
    if (!strcmp(methods[*out].name, name)) return QN_OK;
  return unknown("method", name, qn__quantize_method);
}

qn_status qn__quantize_sees(const char *method, int *see, bool *scaled) {
  size_t at;
  QN_TRY(find_method(method, &at));
  *see = methods[at].sees;
  *scaled = methods[at].scaled;
  return QN_OK;
}

static qn_status find_rule(const char *name, size_t *out) {
  for (*out = 0; *out < QN_COUNT(rules); ++*out)
    if (!strcmp(rules[*out].name, name)) return QN_OK;
  return unknown("scales", name, qn__quantize_scales);
}

qn_status qn__quantize_scales_see(const char *scales, int *see) {
  size_t at;
  QN_TRY(find_rule(scales, &at));
  *see = rules[at].sees;
  return QN_OK;
}

static int64_t extent(int64_t size, uint32_t share) { return share ? qn__ceildiv(size, share) : 1; }

static qn_status allocate(qn__fit *t) {
  const qn__weight w = {.pub = {.name = "the weight", .format = t->f->name, .n = t->n, .k = t->k}};
  qn__spec spec[QN_MAX_PLANES] = {{"codes", (qn_type)t->f->codes, t->n, t->k, NULL}};
  for (uint32_t i = 0; i < t->f->n_planes; i++) {
    const qn_format_plane *s = &t->f->plane[i];
    spec[1 + i] = (qn__spec){s->name, (qn_type)s->type, extent(t->n, s->rows), extent(t->k, s->cols), NULL};
  }
  QN_TRY(qn__planes_new(&w, spec, 1 + (int)t->f->n_planes, false, &t->p));
  double *of_cells = calloc((size_t)t->cells * 4, sizeof *of_cells);
  t->row = calloc((size_t)t->n, sizeof *t->row);
  t->lo = of_cells;
  if (!of_cells || !t->row) return qn__fail(QN_E_NOMEM, "%jd groups of weights", (intmax_t)t->cells);
  t->hi = of_cells + t->cells;
  t->a = of_cells + 2 * t->cells;
  t->b = of_cells + 3 * t->cells;
  return QN_OK;
}

static qn_status check_finite(const float *w, int64_t n, int64_t k) {
  for (int64_t i = 0; i < n * k; i++)
    if (!isfinite(w[i]))
      return qn__fail(QN_E_ARG, "[%jd, %jd] is %g, not a finite number", (intmax_t)(i / k), (intmax_t)(i % k),
                      (double)w[i]);
  return QN_OK;
}

static qn_status check_statistics(const qn__fit *t, size_t method) {
  const char *name = methods[method].name;
  const qn__inputs *s = t->seen;
  int needs = methods[method].sees, has = !s ? -1 : (s->h ? QN__SEE_PRODUCTS : 0) | (s->cross ? QN__SEE_CROSS : 0);
  if (has < needs) return qn__fail(QN_E_ARG, "method '%s' needs statistics of the inputs, from calibration", name);
  if (s && s->k != t->k)
    return qn__fail(QN_E_SHAPE, "statistics of %jd inputs for K = %jd", (intmax_t)s->k, (intmax_t)t->k);
  if (needs >= 0 && !s->tokens) return qn__fail(QN_E_ARG, "calibration did not reach it: no token");
  return QN_OK;
}

/* A slope has a sign if one of its planes can have one. */
static qn_status check_full(const qn__fit *t) {
  bool can = !t->r.n || -t->r.map[0] == t->r.map[t->r.n - 1]; /* both signs reach as far */
  for (uint32_t i = 0; i < t->f->n_planes; i++)
    can = can || (t->r.slope >> i & 1 && qn__plane_rounded(&t->f->plane[i], -1) < 0);
  if (t->r.offset)
    return qn__fail(QN_E_ARG, "scales 'full': format '%s' has a zero point or a minimum, and reaches both ends anyway",
                    t->f->name);
  return can ? QN_OK : qn__fail(QN_E_ARG, "scales 'full': no scale of format '%s' can be negative", t->f->name);
}

static qn_status no_products(const char *scales) {
  names list = "";
  for (size_t i = 0; i < QN_COUNT(methods); i++)
    if (methods[i].sees > 0 && methods[i].sees & QN__SEE_PRODUCTS) add_name(list, methods[i].name);
  return qn__fail(QN_E_ARG, "scales '%s' need products of the inputs, from calibration with one of %s", scales, list);
}

static qn_status read_scales(qn__fit *t, const char *name) {
  size_t i;
  QN_TRY(find_rule(name, &i));
  t->mse = rules[i].mse && t->r.n; /* a wide float needs no smaller range */
  t->r.full = rules[i].full;
  bool products = rules[i].sees >= 0 && rules[i].sees & QN__SEE_PRODUCTS;
  t->products = products && t->seen ? t->seen->h : NULL;
  if (products && !t->products) return no_products(name);
  return t->r.full ? check_full(t) : QN_OK;
}

static qn_status run(qn__fit *t, const qn__quantize_options *o) {
  size_t method;
  QN_TRY(find_method(o && o->method ? o->method : "rtn", &method));
  QN_TRY(qn__rule_read(&t->r, t->f));
  QN_TRY(check_statistics(t, method));
  QN_TRY(read_scales(t, o && o->scales ? o->scales : methods[method].scales));
  QN_TRY(check_finite(t->w, t->n, t->k));
  qn__fit_cells(t);
  QN_TRY(allocate(t));
  QN_TRY(qn__pool_new(NULL, o && o->threads ? o->threads : qn__cpu_count(), &t->pool));
  QN_TRY(methods[method].run(t));
  return qn__planes_check(NULL, t->f, t->p);
}

qn_status qn__quantize(const qn_format *f, const float *w, int64_t n, int64_t k, const qn__quantize_options *options,
                       qn_planes **out, qn__quantize_error *error) {
  *out = NULL;
  *error = (qn__quantize_error){0};
  if (n < 1 || k < 1 || n > INT32_MAX || k > INT32_MAX)
    return qn__fail(QN_E_SHAPE, "weight of [%jd, %jd]: N and K must be in 1 .. 2147483647", (intmax_t)n, (intmax_t)k);
  qn__fit *t = calloc(1, sizeof *t);
  if (!t) return qn__fail(QN_E_NOMEM, "a weight of [%jd, %jd]", (intmax_t)n, (intmax_t)k);
  *t = (qn__fit){.f = f, .w = w, .n = n, .k = k, .seen = options ? options->seen : NULL};
  qn_status s = run(t, options);
  for (int64_t i = 0; !s && i < n; i++) { /* in order, so that the sum does not depend on the threads */
    error->error2 += t->row[i].error2;
    error->weight2 += t->row[i].weight2;
    error->largest = fmax(error->largest, t->row[i].largest);
    error->output2 += t->row[i].output2;
    error->output_error2 += t->row[i].output_error2;
    error->nearest_error2 += t->row[i].nearest_error2;
  }
  if (s) qn_planes_free(t->p);
  else *out = t->p;
  qn__pool_free(t->pool);
  free(t->lo);
  free(t->row);
  free(t);
  return s;
}
