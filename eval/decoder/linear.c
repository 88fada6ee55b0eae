/* linear.c - see linear.h. */
#include "linear.h"
#include "clock.h"
#include "dense.h"
#include "fail.h"
#include "ops.h"
#include "serve.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int64_t bytes_of(const qn__linear *l) { return l->tensor->n * l->tensor->k * (int64_t)sizeof *l->w; }

/* ---- Weights ----------------------------------------------------------------------------------------------------- */

static void scale(const qn__linear *l, float *w) {
  const int64_t n = l->tensor->n, k = l->tensor->k;
  for (int64_t i = 0; l->rows && i < n * k; i++) w[i] *= l->rows[i / k];
  for (int64_t i = 0; l->cols && i < n * k; i++) w[i] *= l->cols[i % k];
}

static qn_status read_weight(const qn__linears *s, const qn__linear *l, float *w) {
  qn_planes *p;
  QN_TRY(qn_model_planes(s->model, l->tensor, l->slice, &p));
  qn_status status = qn__decode_rows(s->pool, l->format, p, NULL, p->n, w);
  qn_planes_free(p);
  if (!status) scale(l, w);
  if (!status && s->bf16) qn__round_rows(s->pool, &(qn__round){w, l->tensor->k, l->tensor->n, l->tensor->k});
  return status;
}

static void drop(qn__linears *s, qn__linear *l) {
  if (l->w && !l->replaced) s->held -= bytes_of(l);
  free(l->w);
  l->w = NULL;
  l->replaced = false;
}

/* The weight to be given up for one of `layer`. Layers come in turns, so that the one that was used last is the last to
 * come again; those of the layer at hand go only when there are no others. */
static qn__linear *to_give_up(const qn__linears *s, int layer) {
  qn__linear *best = NULL;
  for (int i = 0; i < s->n; i++) {
    qn__linear *l = &s->all[i];
    if (!l->w || l->replaced) continue;
    bool other = l->layer != layer, best_other = best && best->layer != layer;
    if (!best || other > best_other || (other == best_other && l->used > best->used)) best = l;
  }
  return best;
}

static qn_status hold_weight(qn__linears *s, qn__linear *l) {
  l->used = ++s->products;
  if (l->w) return QN_OK;
  for (qn__linear *gone; s->hold && s->held + bytes_of(l) > s->hold && (gone = to_give_up(s, l->layer));) drop(s, gone);
  l->w = malloc((size_t)bytes_of(l));
  if (!l->w) return qn__fail(QN_E_NOMEM, "%s: %jd bytes for it in f32", l->tensor->name, (intmax_t)bytes_of(l));
  s->held += bytes_of(l);
  qn_status status = read_weight(s, l, l->w);
  if (status) drop(s, l);
  return status;
}

qn_status qn__linear_weight(qn__linears *s, int i, float *w) {
  const qn__linear *l = &s->all[i];
  if (!l->w) return read_weight(s, l, w);
  memcpy(w, l->w, (size_t)bytes_of(l));
  return QN_OK;
}

qn_status qn__linear_replace(qn__linears *s, int i, const float *w) {
  qn__linear *l = &s->all[i];
  float *own = w ? malloc((size_t)bytes_of(l)) : NULL;
  if (w && !own) return qn__fail(QN_E_NOMEM, "%s: %jd bytes for it in f32", l->tensor->name, (intmax_t)bytes_of(l));
  if (w) memcpy(own, w, (size_t)bytes_of(l));
  if (w && s->bf16) qn__round_rows(s->pool, &(qn__round){own, l->tensor->k, l->tensor->n, l->tensor->k});
  drop(s, l);
  l->w = own;
  l->replaced = w;
  return QN_OK;
}

void qn__linears_forget(qn__linears *s, int layer) {
  if (layer < 0) {
    free(s->workspace);
    s->workspace = NULL;
    s->workspace_size = 0;
  }
  for (int i = 0; i < s->n; i++)
    if (!s->all[i].replaced && (layer < 0 || s->all[i].layer == layer)) drop(s, &s->all[i]);
}

static qn_status multiply(const qn__linear *l, float **have, const float *by, int64_t n) {
  if (!*have) {
    *have = malloc((size_t)n * sizeof **have);
    if (!*have) return qn__fail(QN_E_NOMEM, "%s: %jd factors", l->tensor->name, (intmax_t)n);
    for (int64_t i = 0; i < n; i++) (*have)[i] = 1;
  }
  for (int64_t i = 0; i < n; i++) (*have)[i] *= by[i];
  return QN_OK;
}

qn_status qn__linear_scale(qn__linears *s, int i, const float *cols, const float *rows) {
  qn__linear *l = &s->all[i];
  if (l->replaced) return qn__fail(QN_E_ARG, "%s is replaced, and cannot be scaled", l->tensor->name);
  drop(s, l);
  if (cols) QN_TRY(multiply(l, &l->cols, cols, l->tensor->k));
  return rows ? multiply(l, &l->rows, rows, l->tensor->n) : QN_OK;
}

void qn__linears_fini(qn__linears *s) {
  for (int i = 0; i < s->n; i++) {
    drop(s, &s->all[i]);
    free(s->all[i].cols);
    free(s->all[i].rows);
  }
  free(s->workspace);
}

/* ---- Kernels of a pack ------------------------------------------------------------------------------------------- */

typedef struct typing {
  const float *x;
  char *to;
  float *scale; /* [m], for types that have one */
  qn_type type;
  int64_t k;
} typing;

static void type_rows(void *ud, int64_t begin, int64_t end, int32_t thread) {
  const typing *a = ud;
  const float *x = a->x + begin * a->k;
  char *to = a->to + begin * a->k * qn_type_bits(a->type) / 8;
  (void)thread;
  if (a->scale) qn_quantize_rows(x, end - begin, a->k, a->k, a->type, to, a->scale + begin);
  else qn_convert(x, QN_T_F32, to, a->type, (size_t)((end - begin) * a->k));
}

/* Room for a call of m tokens: counters first, zeroed whenever they move. */
static qn_status workspace(qn__linears *s, const qn_gemm *gemm, int64_t m, qn_args *args) {
  enum { align = 256 };
  size_t counters = (qn_gemm_counters(gemm, m) + align - 1) / align * align;
  size_t size = counters + (qn_gemm_workspace(gemm, m) + align - 1) / align * align;
  if (!size) return QN_OK;
  if (size > s->workspace_size) {
    free(s->workspace);
    s->workspace_size = 0;
    s->workspace = aligned_alloc(align, size);
    if (!s->workspace) return qn__fail(QN_E_NOMEM, "%zu bytes of workspace for %s", size, qn_gemm_kernel(gemm, m));
    s->workspace_size = size;
  }
  memset(s->workspace, 0, counters);
  args->counters = s->workspace;
  args->workspace = (char *)s->workspace + counters;
  return QN_OK;
}

/* offsets: of a stack, see qn__linear_run_stack; else NULL. */
static qn_status run_gemm(qn__linears *s, const qn__linear *l, const float *x, int64_t m, const int32_t *offsets,
                          float *y) {
  const int64_t k = l->tensor->k, n = l->tensor->n;
  const qn_type in = qn__x_type(qn__gemm_problem(l->gemm)), type = (qn_type)qn__gemm_problem(l->gemm)->out;
  qn_args args = {.x = x, .y = y, .m = m};
  float *to, *scale, *out;
  QN_TRY(qn__scratch_take(s->scratch, m, &scale));
  if (in != QN_T_F32) {
    QN_TRY(qn__scratch_take(s->scratch, m * k, &to));
    typing t = {x, (char *)to, qn__act_scaled(in) ? scale : NULL, in, k};
    qn__pool_run(s->pool, type_rows, &t, m);
    args.x = to;
    args.x_scale = t.scale;
  }
  if (type != QN_T_F32) {
    QN_TRY(qn__scratch_take(s->scratch, m * n, &out));
    args.y = out;
  }
  QN_TRY(workspace(s, l->gemm, m, &args));
  const qn_rows rows = {.offsets = offsets, .n_offsets = qn__gemm_problem(l->gemm)->experts + 1};
  QN_TRY(offsets ? qn_run_grouped(l->gemm, l->weight, &args, &rows) : qn_run(l->gemm, l->weight, &args));
  return args.y == y ? QN_OK : qn_convert(args.y, type, y, QN_T_F32, (size_t)(m * n));
}

/* Rows that meet expert l->expert, all of them. */
static qn_status one_expert(qn__linears *s, const qn__linear *l, int64_t m, const int32_t **out) {
  int64_t experts = qn__gemm_problem(l->gemm)->experts;
  float *room;
  *out = NULL;
  if (!experts) return QN_OK;
  QN_TRY(qn__scratch_take(s->scratch, experts + 1, &room));
  int32_t *offsets = (int32_t *)(void *)room;
  for (int64_t e = 0; e <= experts; e++) offsets[e] = e > l->expert ? (int32_t)m : 0;
  return *out = offsets, QN_OK;
}

/* expert: of a stack; -1: one weight. */
static qn_status serve(qn__linears *s, int i, const qn_gemm *gemm, const qn_weight *weight, int64_t expert) {
  qn__linear *l = &s->all[i];
  const qn_problem *p = gemm ? qn__gemm_problem(gemm) : NULL;
  if (p && (expert < 0) != !p->experts)
    return qn__fail(QN_E_SHAPE, "%s is %s, '%s' is for %s", l->tensor->name,
                    expert < 0 ? "one weight" : "one of a stack", p->spelling, p->experts ? "a stack" : "one weight");
  if (p && (p->n != l->tensor->n || p->k != l->tensor->k))
    return qn__fail(QN_E_SHAPE, "%s is %jd x %jd, which '%s' is not for", l->tensor->name, (intmax_t)l->tensor->n,
                    (intmax_t)l->tensor->k, p->spelling);
  if (p && p->epilogue[0])
    return qn__fail(QN_E_ARG, "%s: '%s' has an epilogue; the decoder needs the product alone", l->tensor->name,
                    p->spelling);
  l->gemm = gemm;
  l->weight = weight;
  l->expert = expert;
  return QN_OK;
}

qn_status qn__linear_serve(qn__linears *s, int i, const qn_gemm *gemm, const qn_weight *weight) {
  return serve(s, i, gemm, weight, -1);
}

qn_status qn__linear_serve_stack(qn__linears *s, const int *site, int64_t n, const qn_gemm *gemm,
                                 const qn_weight *weight) {
  const qn_problem *p = qn__gemm_problem(gemm);
  if (p->experts != n)
    return qn__fail(QN_E_SHAPE, "%s: %jd experts, '%s' has %jd", s->all[site[0]].tensor->name, (intmax_t)n, p->spelling,
                    (intmax_t)p->experts);
  for (int64_t e = 0; e < n; e++) QN_TRY(serve(s, site[e], gemm, weight, e));
  return QN_OK;
}

bool qn__linear_is_stack(const qn__linears *s, const int *site, int64_t n) {
  for (int64_t e = 0; e < n; e++) {
    const qn__linear *l = site[e] < 0 ? NULL : &s->all[site[e]];
    if (!l || !l->gemm || l->expert != e || l->weight != s->all[site[0]].weight) return false;
  }
  return qn__gemm_problem(s->all[site[0]].gemm)->experts == n;
}

/* ---- Activations ------------------------------------------------------------------------------------------------- */

/* The file's scale goes with what the file says alone. */
qn_status qn__linear_activate(qn__linears *s, int i, const char *activation) {
  qn__linear *l = &s->all[i];
  const qn_tensor *t = l->tensor;
  bool own = activation && t->activation && !strcmp(activation, t->activation);
  return qn__rounding_read(activation, t->k, own ? t->activation_scale : 0, t->name, &l->rounding);
}

/* x as the layer takes it. */
static qn_status activate(qn__linears *s, const qn__linear *l, const float **x, int64_t m) {
  float *y;
  if (!l->rounding.kind) return QN_OK;
  QN_TRY(qn__scratch_take(s->scratch, m * l->tensor->k, &y));
  qn__rounding_run(s->pool, &l->rounding, *x, y, m * l->tensor->k);
  *x = y;
  return QN_OK;
}

/* ---- The product ------------------------------------------------------------------------------------------------- */

static qn_status run(qn__linears *s, qn__linear *l, const float *x, int64_t m, float *y) {
  const int64_t k = l->tensor->k, n = l->tensor->n;
  const int32_t *offsets;
  if (l->gemm) {
    QN_TRY(one_expert(s, l, m, &offsets));
    return run_gemm(s, l, x, m, offsets, y);
  }
  QN_TRY(hold_weight(s, l));
  QN_TRY(activate(s, l, &x, m));
  qn__dense(s->pool, x, k, l->w, m, n, k, y, n);
  return QN_OK;
}

qn_status qn__linear_run(qn__linears *s, int i, const float *x, int64_t m, float *y) {
  qn__scratch_mark mark = qn__scratch_here(s->scratch);
  double start = qn__now();
  qn_status status = m ? run(s, &s->all[i], x, m, y) : QN_OK;
  s->all[i].seconds += qn__now() - start;
  qn__scratch_back(s->scratch, mark);
  return status;
}

/* The time is that of the experts, as they have rows. */
qn_status qn__linear_run_stack(qn__linears *s, const int *site, const float *x, const int32_t *offsets, float *y) {
  const qn__linear *l = &s->all[site[0]];
  const int64_t experts = qn__gemm_problem(l->gemm)->experts, m = offsets[experts];
  if (!m) return QN_OK;
  qn__scratch_mark mark = qn__scratch_here(s->scratch);
  double start = qn__now();
  qn_status status = run_gemm(s, l, x, m, offsets, y);
  double each = (qn__now() - start) / (double)m;
  for (int64_t e = 0; e < experts; e++) s->all[site[e]].seconds += each * (offsets[e + 1] - offsets[e]);
  qn__scratch_back(s->scratch, mark);
  return status;
}
