/* call.c - running a kernel on a draw and judging what it wrote. */
#include "call.h"
#include "conduct.h"
#include "convert.h"
#include "fail.h"
#include "watch.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t type_size(uint32_t t) { return (size_t)qn_type_bits((qn_type)t) / 8; }

/* ---- Weights ----------------------------------------------------------------------------------------------------- */

#define PIECE 4096

/* A weight whose bytes are `a` in some pieces and `b` in the others: legal, since the two differ in whole codes. */
static void mix(char *dst, const char *a, const char *b, size_t bytes, uint64_t seed) {
  for (size_t at = 0; at < bytes; at += PIECE) {
    size_t n = bytes - at < PIECE ? bytes - at : PIECE;
    memcpy(dst + at, (qn__random(&seed) & 1 ? b : a) + at, n);
  }
}

static qn_status pack(const qn_case *c, const qn_draw *draw, size_t bytes, void **out) {
  void *p = realloc(*out, bytes);
  if (!p) return qn__fail(QN_E_NOMEM, "packed weight of %zu bytes", bytes);
  *out = p;
  return qn__layout_pack(NULL, &c->layout, &c->format, &draw->planes, *out);
}

/* All copies after the first. */
static qn_status place_copies(qn_weights *w, const void *twin) {
  qn_device *d = w->memory.device;
  char *host = malloc(w->stride);
  qn_status s = host ? QN_OK : qn__fail(QN_E_NOMEM, "copy of %zu bytes", w->stride);
  for (int64_t i = 1; i < w->copies && !s; i++) {
    mix(host, w->packed, twin, w->stride, (uint64_t)i);
    s = d->ops->upload(d, (char *)qn__guarded_at(&w->memory) + (size_t)i * w->stride, host, w->stride);
  }
  free(host);
  return s;
}

static qn_status place_twin(qn_weights *w, const qn_case *c, qn_draw *draw) {
  void *twin = NULL;
  qn__draw_flip(&c->format, draw);
  qn_status s = pack(c, draw, w->stride, &twin);
  qn__draw_flip(&c->format, draw);
  if (!s) s = place_copies(w, twin);
  free(twin);
  return s;
}

qn_status qn__weights_fill(qn_weights *w, qn_device *d, const qn_case *c, qn_draw *draw, int64_t copies) {
  int64_t bytes;
  QN_TRY(qn__layout_bytes(&c->layout, draw->planes.n, draw->planes.k, &bytes));
  w->stride = (size_t)bytes, w->copies = copies;
  QN_TRY(pack(c, draw, w->stride, &w->packed));
  QN_TRY(qn__guarded_place(&w->memory, d, "weights", w->stride * (size_t)copies, 256, draw->fence));
  if (copies == 1) return qn__guarded_set(&w->memory, w->packed);
  QN_TRY(qn__guarded_set(&w->memory, NULL));
  QN_TRY(d->ops->upload(d, qn__guarded_at(&w->memory), w->packed, w->stride));
  return place_twin(w, c, draw);
}

void qn__weights_fini(qn_weights *w) {
  qn__guarded_fini(&w->memory);
  free(w->packed);
  *w = (qn_weights){0};
}

static const qn_call *running; /* made ready last; a worker has one thread */

/* ---- The call ---------------------------------------------------------------------------------------------------- */

qn_status qn__call_aim(qn_call *c, const qn_subject *s, const qn_weights *w, const qn_draw *draw, int64_t ldy) {
  c->s = s, c->w = w, c->draw = draw, c->ldy = ldy, c->m = 0;
  if (!c->bound && !(c->bound = malloc(sizeof *c->bound))) return qn__fail(QN_E_NOMEM, "launch recipe");
  return qn__recipe_bind(s->device, &s->c->recipe, s->fn, draw->planes.n, draw->planes.k, c->bound);
}

void qn__call_fini(qn_call *c) {
  qn_guarded *all[] = {&c->x, &c->y, &c->counters, &c->scratch, &c->x_scale, &c->bias, &c->perm};
  if (running == c) running = NULL;
  for (size_t i = 0; i < QN_COUNT(all); i++) qn__guarded_fini(all[i]);
  free(c->bound);
  free(c->out);
  *c = (qn_call){0};
}

/* ---- Arguments --------------------------------------------------------------------------------------------------- */

static size_t x_bytes(const qn_call *c) {
  return (size_t)((c->m - 1) * c->draw->ldx + c->draw->planes.k) * type_size(c->s->c->problem.act);
}

static size_t y_bytes(const qn_call *c) {
  return (size_t)((c->m - 1) * c->ldy + c->draw->planes.n) * type_size(c->s->c->problem.out);
}

/* The first row of X that is used, and its scale. */
static const void *x_from(const qn_call *c) {
  return (const char *)c->draw->x + (size_t)(c->shift * c->draw->ldx) * type_size(c->s->c->problem.act);
}

static const float *x_scale_from(const qn_call *c) { return c->draw->x_scale ? c->draw->x_scale + c->shift : NULL; }

static qn_status place(const qn_call *c, qn_guarded *to, const char *name, size_t bytes, size_t align) {
  return qn__guarded_place(to, c->s->device, name, bytes, align, c->draw->fence);
}

/* The counters: set to zero, or are they? */
static qn_status with_zeros(const qn_call *c, bool set) {
  const qn_guarded *g = &c->counters;
  if (!g->size) return QN_OK;
  void *zero = calloc(1, g->size);
  if (!zero) return qn__fail(QN_E_NOMEM, "counters of %zu bytes", g->size);
  qn_status s = set ? c->s->device->ops->upload(c->s->device, qn__guarded_at(g), zero, g->size)
                    : qn__guarded_check(g, zero, g->size);
  free(zero);
  return s;
}

/* A part of no bytes is given all the same: guards without contents. */
static qn_status set_workspace(qn_call *c) {
  qn_workspace w;
  QN_TRY(qn__bound_workspace(c->bound, c->m, c->m, &w));
  QN_TRY(place(c, &c->scratch, "scratch", (size_t)w.scratch, 256));
  QN_TRY(place(c, &c->counters, "counters", (size_t)w.counters, 256));
  QN_TRY(qn__guarded_set(&c->scratch, NULL));
  QN_TRY(qn__guarded_set(&c->counters, NULL));
  return with_zeros(c, true);
}

/* An array of `count` elements of 4 bytes that the draw may have. */
static qn_status set_array(const qn_call *c, qn_guarded *to, const char *name, const void *from, int64_t count) {
  if (!from) return qn__guarded_fini(to), QN_OK;
  QN_TRY(place(c, to, name, (size_t)count * 4, 4));
  return qn__guarded_set(to, from);
}

static qn_status set_x(qn_call *c) {
  QN_TRY(place(c, &c->x, "x", x_bytes(c), type_size(c->s->c->problem.act)));
  QN_TRY(qn__guarded_set(&c->x, x_from(c)));
  return set_array(c, &c->x_scale, "x_scale", x_scale_from(c), c->m);
}

static qn_status set_y(qn_call *c) {
  QN_TRY(place(c, &c->y, "y", y_bytes(c), type_size(c->s->c->problem.out)));
  unsigned char *out = realloc(c->out, c->y.size);
  if (!out) return qn__fail(QN_E_NOMEM, "Y of %zu bytes", c->y.size);
  c->out = out;
  return QN_OK;
}

qn_status qn__call_set(qn_call *c, int64_t m, int64_t shift) {
  bool same = c->m == m;
  if (same && c->shift == shift) return QN_OK;
  c->m = m, c->shift = shift;
  QN_TRY(set_x(c));
  if (same) return QN_OK;
  QN_TRY(set_y(c));
  QN_TRY(set_array(c, &c->bias, "bias", c->draw->bias, c->draw->planes.n));
  QN_TRY(set_array(c, &c->perm, "permutation", c->draw->planes.perm, c->draw->planes.k));
  return set_workspace(c);
}

qn_host_args qn__call_args(const qn_call *c, int64_t copy) {
  const qn_planes *p = &c->draw->planes;
  return (qn_host_args){.x = qn__guarded_at(&c->x),
                        .w = (char *)qn__guarded_at(&c->w->memory) + (size_t)(copy % c->w->copies) * c->w->stride,
                        .y = qn__guarded_at(&c->y),
                        .x_scale = qn__guarded_at(&c->x_scale),
                        .bias = qn__guarded_at(&c->bias),
                        .counters = qn__guarded_at(&c->counters),
                        .scratch = qn__guarded_at(&c->scratch),
                        .m = c->m,
                        .n = p->n,
                        .k = p->k,
                        .ldx = c->draw->ldx,
                        .ldy = c->ldy,
                        .perm = qn__guarded_at(&c->perm)};
}

enum { BUFFERS = 8 };

static void buffers(const qn_call *c, const qn_guarded *all[BUFFERS]) {
  const qn_guarded *list[BUFFERS] = {&c->x,       &c->w->memory, &c->y,    &c->counters,
                                     &c->scratch, &c->x_scale,   &c->bias, &c->perm};
  memcpy(all, list, sizeof list);
}

qn_status qn__call_guards(const qn_call *c) {
  const qn_guarded *all[BUFFERS];
  buffers(c, all);
  for (int i = 0; i < BUFFERS; i++) QN_TRY(qn__guarded_check(all[i], NULL, 0));
  return QN_OK;
}

bool qn__call_fault(const void *address, char *text, size_t size) {
  const qn_guarded *all[BUFFERS];
  long long offset;
  if (!running) return false;
  buffers(running, all);
  for (int i = 0; i < BUFFERS; i++)
    if (qn__guarded_near(all[i], address, &offset)) {
      bool inside = offset >= 0 && (size_t)offset < all[i]->size;
      const char *how = !inside                 ? "touched"
                        : all[i] == &running->y ? "touched, between rows,"
                                                : "wrote to the read-only";
      return snprintf(text, size, "%s offset %lld of buffer '%s' of %zu bytes, M = %lld of %lld x %lld", how, offset,
                      all[i]->name, all[i]->size, (long long)running->m, (long long)running->draw->planes.n,
                      (long long)running->draw->planes.k) > 0;
    }
  return false;
}

/* The gap between the columns of Y and the next row belongs to someone else. */
static qn_status check_gaps(const qn_call *c) {
  size_t size = type_size(c->s->c->problem.out), n = (size_t)c->draw->planes.n * size, ld = (size_t)c->ldy * size;
  for (int64_t r = 0; r + 1 < c->m; r++)
    for (size_t i = n; i < ld; i++)
      if (c->out[(size_t)r * ld + i] != c->draw->fence.byte)
        return qn__fail(QN_E_WRONG, "wrote into row %lld of Y behind its last column", (long long)r);
  return QN_OK;
}

/* The next kernel may be another that counts in the same place. */
static qn_status check_counters(const qn_call *c) {
  QN_TRY(qn__guarded_check(&c->counters, NULL, 0));
  qn_status s = with_zeros(c, false);
  return s == QN_E_WRONG ? qn__fail(s, "left the counters of %zu bytes other than zero", c->counters.size) : s;
}

void qn__call_watch(const qn_call *c, int calls) {
  running = c;
  const qn_planes *p = &c->draw->planes;
  qn__watch(c->s->device, c->m, p->n, p->k, (int64_t)c->w->stride, calls);
}

/* On the host every other time with the work cut up otherwise than the pool would, and its threads looked at. */
static qn_status launch(qn_call *c, const qn_host_args *a) {
  qn_device *d = c->s->device;
  qn_launch l[QN_RECIPE_STEPS];
  if (!d->target->host_code) return qn__bound_run(d, c->bound, a, NULL);
  QN_TRY(qn__bound_launches(d, c->bound, a->m, l));
  for (uint32_t i = 0; i < c->bound->n_steps; i++) QN_TRY(qn__conduct_launch(d, &l[i], a, c->runs++));
  return QN_OK;
}

static void forbid_gaps(const qn_call *c, bool forbid) {
  size_t size = type_size(c->s->c->problem.out);
  qn__guarded_forbid(&c->y, (size_t)c->draw->planes.n * size, (size_t)c->ldy * size, forbid);
}

qn_status qn__call_run(qn_call *c) {
  qn_device *d = c->s->device;
  QN_TRY(qn__guarded_set(&c->y, NULL));
  QN_TRY(qn__guarded_set(&c->scratch, NULL));
  qn__call_watch(c, 1);
  qn_host_args a = qn__call_args(c, 0);
  forbid_gaps(c, true);
  qn_status s = launch(c, &a);
  forbid_gaps(c, false);
  QN_TRY(s);
  QN_TRY(d->ops->sync(d, NULL));
  QN_TRY(d->ops->download(d, c->out, a.y, c->y.size));
  QN_TRY(qn__guarded_check(&c->w->memory, c->w->packed, c->w->stride));
  QN_TRY(qn__guarded_check(&c->x, x_from(c), c->x.size));
  QN_TRY(qn__guarded_check(&c->y, NULL, 0));
  QN_TRY(qn__guarded_check(&c->scratch, NULL, 0));
  QN_TRY(qn__guarded_check(&c->x_scale, x_scale_from(c), c->x_scale.size));
  QN_TRY(qn__guarded_check(&c->bias, c->draw->bias, c->bias.size));
  QN_TRY(qn__guarded_check(&c->perm, c->draw->planes.perm, c->perm.size));
  QN_TRY(check_counters(c));
  return check_gaps(c);
}

static qn_status run_again(qn_call *c, int64_t copy, unsigned char *timed) {
  qn_device *d = c->s->device;
  qn_host_args a = qn__call_args(c, copy);
  QN_TRY(d->ops->download(d, timed, a.y, c->y.size));
  QN_TRY(qn__guarded_set(&c->y, NULL));
  qn__call_watch(c, 1);
  QN_TRY(qn__bound_run(d, c->bound, &a, NULL));
  QN_TRY(d->ops->sync(d, NULL));
  QN_TRY(d->ops->download(d, c->out, a.y, c->y.size));
  if (!c->s->c->recipe.deterministic || !memcmp(timed, c->out, c->y.size)) return QN_OK;
  return qn__fail(QN_E_WRONG, "M = %lld: the last call that was timed wrote another Y than the same call again",
                  (long long)c->m);
}

qn_status qn__call_again(qn_call *c, int64_t copy) {
  unsigned char *timed = malloc(c->y.size);
  qn_status s = timed ? run_again(c, copy, timed) : qn__fail(QN_E_NOMEM, "Y of %zu bytes", c->y.size);
  free(timed);
  return s;
}

qn_status qn__call_same_rows(const qn_call *c, const unsigned char *before, int64_t m) {
  size_t size = type_size(c->s->c->problem.out), row = (size_t)c->draw->planes.n * size, ld = (size_t)c->ldy * size;
  for (int64_t r = 0; r < m && r < c->m; r++)
    if (memcmp(c->out + (size_t)r * ld, before + (size_t)r * ld, row))
      return qn__fail(QN_E_WRONG, "said to be batch-invariant, but row %lld at M = %lld and at M = %lld differ in bits",
                      (long long)r, (long long)m, (long long)c->m);
  return QN_OK;
}

/* ---- Judgement --------------------------------------------------------------------------------------------------- */

/* Let u be the unit roundoff of a type (half the spacing at 1: 2^-24 f32, 2^-11 f16, 2^-8 bf16), S = sum |x| |w| with
 * |w| the decode rule's magnitude, so that (q - z) s counts as (|q| + |z|) |s|. To first order, y may be off by
 *
 *   S (K + 24) u_acc   adding K products in f32 in any order, and a few more roundings for scales, offsets, the row's
 *                      scale and the bias. u_acc = 2^-24; on CUDA 2^-23, since tensor cores cut off instead of rounding
 *   S u_act            the weight is rounded once to the activation's type before the product (f16, bf16; products
 *                      of two such numbers are exact in f32; for activations of 8 bits that is f16 on CUDA, and bf16
 *                      for e4m3 on the host); int8 products of the host are exact
 *   |y| u_out          the result is rounded to the output type
 *   K x_max tiny       weights below the normal range: half of f16's smallest step, or flushed to zero elsewhere
 *   K 2^-100           X below it flushed to zero, before weights below 2^26
 *
 * (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1.) */
static double unit(uint32_t type) { return qn__is_float(type) ? ldexp(1, -1 - qn__form[type].mantissa) : 0; }

/* The type that weights are rounded to; f32 and QN_T_NONE: they are not. */
static uint32_t weight_type(uint32_t act, const qn_target *on) {
  if (!qn__act_scaled(act)) return act;
  return qn__is_float(act) ? on->scaled_float : on->scaled_integer;
}

double qn__error_bound(const qn_problem *p, const qn_target *on, int64_t k, double y, double magnitude, double x_max) {
  uint32_t weight = weight_type(p->act, on);
  double u_act = weight == QN_T_F32 ? 0 : unit(weight);
  double tiny = weight == QN_T_F16 ? 0x1p-25 : 0x1p-126, out_tiny = p->out == QN_T_F16 ? 0x1p-25 : 0x1p-126;
  double sum = magnitude * ((double)(k + 24) * on->sum_unit + u_act) + (double)k * (x_max * tiny + 0x1p-100);
  return sum + (fabs(y) + sum) * unit(p->out) + out_tiny;
}

static qn_status wrong(const qn_call *c, int64_t row, int64_t col, double have, double want, double bound) {
  static const char *const kind[] = {"exact", "random", "hard"};
  const qn_planes *p = &c->draw->planes;
  char at[96], limit[48] = "";
  snprintf(at, sizeof at, "%lld x %lld, M = %lld", (long long)p->n, (long long)p->k, (long long)c->m);
  if (isnan(have))
    return qn__fail(QN_E_WRONG, "%s: y[%lld, %lld] is not written, or not a number", at, (long long)row,
                    (long long)col);
  if (!c->draw->exact && isfinite(have)) snprintf(limit, sizeof limit, ", beyond the bound %.3g", bound);
  return qn__fail(QN_E_WRONG, "%s, %s draw: y[%lld, %lld] is %.9g, not %.9g%s", at, kind[c->draw->kind], (long long)row,
                  (long long)col, have, want, limit);
}

/* Is every element written? The reference may cover only some. */
static qn_status check_written(const qn_call *c) {
  double block[QN_EXPR_BLOCK];
  qn_type out = (qn_type)c->s->c->problem.out;
  for (int64_t r = 0; r < c->m; r++)
    for (int64_t n = 0; n < c->draw->planes.n; n += QN_EXPR_BLOCK) {
      int count = (int)(c->draw->planes.n - n < QN_EXPR_BLOCK ? c->draw->planes.n - n : QN_EXPR_BLOCK);
      qn__load_block(out, c->out, r * c->ldy + n, count, block);
      for (int i = 0; i < count; i++)
        if (isnan(block[i])) return wrong(c, r, n + i, block[i], 0, 0);
    }
  return QN_OK;
}

/* Row r of X in the reference. */
static int64_t reference_row(const qn_call *c, int64_t r) { return (r + c->shift) % QN_DRAW_PERIOD; }

static qn_status compare_exactly(const qn_call *c) {
  qn_type out = (qn_type)c->s->c->problem.out;
  int64_t n = c->draw->planes.n;
  size_t size = type_size(out), bytes = (size_t)n * size;
  for (int64_t r = 0; r < c->m; r++) {
    const char *want = (const char *)c->draw->want + (size_t)reference_row(c, r) * bytes;
    if (!memcmp(c->out + (size_t)(r * c->ldy) * size, want, bytes)) continue;
    for (int64_t i = 0; i < n; i++) { /* zeros of either sign are equal */
      double x = qn__load_f64(out, c->out, r * c->ldy + i), y = qn__load_f64(out, want, i);
      if (!(x == y)) return wrong(c, r, i, x, y, 0);
    }
  }
  return QN_OK;
}

/* The nearest number of type t; beyond the largest, infinity. */
static double rounded(qn_type t, double y) {
  double bits = 0; /* room for an element of any type */
  qn__store_f64(t, &bits, 0, y);
  return qn__load_f64(t, &bits, 0);
}

/* An element that is not the nearest number: is it within the bound? *error grows. */
static qn_status compare_element(const qn_call *c, int64_t row, int64_t col, double y, double magnitude,
                                 double *error) {
  const qn_problem *p = &c->s->c->problem;
  qn_type out = (qn_type)p->out;
  double have = qn__load_f64(out, c->out, row * c->ldy + col), off = fabs(have - y);
  if (have == rounded(out, y)) return QN_OK;
  double bound =
      qn__error_bound(p, c->s->device->target, c->draw->planes.k, y, magnitude, c->draw->x_max[reference_row(c, row)]);
  if (isinf(have) && have == rounded(out, y + copysign(bound, have))) return QN_OK; /* on either side of 0 */
  if (!(off <= bound)) return wrong(c, row, col, have, y, bound);
  *error = off / bound > *error ? off / bound : *error;
  return QN_OK;
}

qn_status qn__call_compare(const qn_call *c, double *error) {
  const qn_draw *d = c->draw;
  if (d->want) return compare_exactly(c);
  if (d->fence.byte == 0xff) QN_TRY(check_written(c));
  for (int64_t r = 0; r < c->m; r++)
    for (int64_t j = 0; j < d->n_cols; j++) {
      int64_t i = reference_row(c, r) * d->n_cols + j;
      QN_TRY(compare_element(c, r, d->col[j], d->y[i], d->magnitude[i], error));
    }
  return QN_OK;
}
