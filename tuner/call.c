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

/* The weight of a draw, or of each expert, in `bytes` bytes. */
static qn_status pack(qn_device *d, const qn_case *c, const qn_draw *draw, size_t bytes, void **out) {
  char *p = realloc(*out, bytes);
  if (!p) return qn__fail(QN_E_NOMEM, "packed weight of %zu bytes", bytes);
  *out = p;
  int64_t experts = qn__draw_experts(&draw->problem);
  size_t each = bytes / (size_t)experts;
  for (int64_t e = 0; e < experts; e++, p += each) {
    const qn_planes *planes = &qn__draw_expert(draw, e)->planes;
    if (e >= QN_DRAW_EXPERTS) memcpy(p, p - QN_DRAW_EXPERTS * each, each);
    else QN_TRY(qn__layout_pack(d, &c->layout, &c->format, planes, p));
  }
  return QN_OK;
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
  qn_status s = pack(w->memory.device, c, draw, w->stride, &twin);
  qn__draw_flip(&c->format, draw);
  if (!s) s = place_copies(w, twin);
  free(twin);
  return s;
}

qn_status qn__weights_fill(qn_weights *w, qn_device *d, const qn_case *c, qn_draw *draw, int64_t copies) {
  int64_t bytes;
  QN_TRY(qn__layout_bytes(&c->layout, draw->planes.n, draw->planes.k, &bytes));
  w->stride = (size_t)(bytes * qn__draw_experts(&draw->problem)), w->copies = copies;
  QN_TRY(pack(d, c, draw, w->stride, &w->packed));
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
  c->s = s, c->w = w, c->draw = draw, c->ldy = ldy, c->m = 0, c->in_place = false;
  if (!c->bound && !(c->bound = malloc(sizeof *c->bound))) return qn__fail(QN_E_NOMEM, "launch recipe");
  int64_t bytes = (int64_t)w->stride / qn__draw_experts(&draw->problem);
  return qn__recipe_bind(s->device, &s->c->recipe, s->fn, &draw->problem, bytes, c->bound);
}

void qn__call_in_place(qn_call *c) { c->in_place = true; }

void qn__call_fini(qn_call *c) {
  if (running == c) running = NULL;
  for (qn_arg i = 0; i < QN_POINTERS; i++) {
    qn__guarded_fini(&c->buffer[i]);
    free(c->made[i]);
  }
  free(c->expert);
  free(c->bound);
  free(c->out);
  *c = (qn_call){0};
}

/* ---- Arguments --------------------------------------------------------------------------------------------------- */

/* A residual that is Y has no buffer. */
static qn_operand operand(const qn_call *c, qn_arg i) {
  qn_operand o = qn__operand(&c->draw->problem, i);
  if (i == QN_ARG_RESIDUAL && c->in_place) o.has = false;
  return o;
}
static qn_type out_type(const qn_call *c) { return (qn_type)c->draw->problem.out; }

static int64_t row_stride(const qn_call *c, const qn_operand *o) {
  if (o->stride == QN_ARG_LDY) return c->ldy;
  return o->stride < QN_ARG_COUNT ? qn__arg_number(&c->draw->args, o->stride) : o->cols;
}

/* Rows of an operand: of one that is not of tokens, one for each expert. */
static int64_t rows(const qn_call *c, qn_arg i, const qn_operand *o) {
  if (!o->tokens) return qn__draw_experts(&c->draw->problem);
  return i == QN_ARG_X || i == QN_ARG_X_SCALE ? c->m / c->topk : c->m;
}

/* From the first to the last element that a call with m rows may touch. */
static size_t operand_bytes(const qn_call *c, qn_arg i, const qn_operand *o) {
  return (size_t)((rows(c, i, o) - 1) * row_stride(c, o) + o->cols) * type_size(o->type);
}

/* An operand of the draw, from the first row on that is used. */
static const void *drawn(const qn_call *c, qn_arg i) {
  qn_operand o = operand(c, i);
  size_t skipped = o.tokens ? (size_t)(c->shift * row_stride(c, &o)) * type_size(o.type) : 0;
  return (const char *)qn__arg_pointer(&c->draw->args, i) + skipped;
}

/* What a buffer holds that is only read. NULL: nothing, or it is written. */
static const void *read_from(const qn_call *c, qn_arg i) {
  if (i == QN_ARG_W) return c->w->packed;
  if (c->made[i]) return c->made[i];
  if (i == QN_ARG_PERM) return c->draw->planes.perm;
  return operand(c, i).has && i != QN_ARG_Y ? drawn(c, i) : NULL;
}

static qn_status place(const qn_call *c, qn_guarded *to, const char *name, size_t bytes, size_t align) {
  return qn__guarded_place(to, c->s->device, name, bytes, align, c->draw->fence);
}

/* The counters: set to zero, or are they? */
static qn_status with_zeros(const qn_call *c, bool set) {
  const qn_guarded *g = &c->buffer[QN_ARG_COUNTERS];
  if (!g->size) return QN_OK;
  void *zero = calloc(1, g->size);
  if (!zero) return qn__fail(QN_E_NOMEM, "counters of %zu bytes", g->size);
  qn_status s = set ? c->s->device->ops->upload(c->s->device, qn__guarded_at(g), zero, g->size)
                    : qn__guarded_check(g, zero, g->size);
  free(zero);
  return s;
}

/* Does some weight have a permutation? Of a stack the second does if any. */
static bool permuted(const qn_call *c) { return c->draw->planes.perm || (c->draw->next && c->draw->next->planes.perm); }

/* A part of no bytes is given all the same: guards without contents. */
static qn_status set_workspace(qn_call *c) {
  qn_workspace w;
  QN_TRY(qn__bound_workspace(c->bound, c->m, c->m, permuted(c), &w));
  QN_TRY(place(c, &c->buffer[QN_ARG_SCRATCH], "scratch", (size_t)w.scratch, 256));
  QN_TRY(place(c, &c->buffer[QN_ARG_COUNTERS], "counters", (size_t)w.counters, 256));
  QN_TRY(qn__guarded_set(&c->buffer[QN_ARG_SCRATCH], NULL));
  QN_TRY(qn__guarded_set(&c->buffer[QN_ARG_COUNTERS], NULL));
  return with_zeros(c, true);
}

/* Room for contents that the call makes itself. */
static void *make(qn_call *c, qn_arg i, size_t bytes) {
  free(c->made[i]);
  return c->made[i] = malloc(bytes);
}

static qn_status no_memory(qn_arg i) { return qn__fail(QN_E_NOMEM, "%s of a stack", qn__arg[i].name); }

/* An operand of the experts, one behind the other. */
static qn_status stack_operand(qn_call *c, qn_arg i, const qn_operand *o) {
  int64_t experts = c->bound->experts;
  size_t each = (size_t)o->cols * type_size(o->type);
  char *to = make(c, i, (size_t)experts * each);
  if (!to) return no_memory(i);
  for (int64_t e = 0; e < experts; e++)
    memcpy(to + (size_t)e * each, qn__arg_pointer(&qn__draw_expert(c->draw, e)->args, i), each);
  return QN_OK;
}

/* The same for permutations, where some expert has one. */
static qn_status stack_perms(qn_call *c) {
  qn_guarded *to = &c->buffer[QN_ARG_PERM];
  int64_t experts = c->bound->experts, k = c->draw->planes.k;
  free(c->made[QN_ARG_PERM]), c->made[QN_ARG_PERM] = NULL;
  if (!permuted(c)) return qn__guarded_fini(to), QN_OK;
  int32_t *perm = make(c, QN_ARG_PERM, (size_t)(experts * k) * sizeof *perm);
  if (!perm) return no_memory(QN_ARG_PERM);
  for (int64_t e = 0; e < experts; e++)
    for (int64_t j = 0; j < k; j++) {
      const int32_t *own = qn__draw_expert(c->draw, e)->planes.perm;
      perm[e * k + j] = own ? own[j] : (int32_t)j;
    }
  QN_TRY(place(c, to, "permutations", (size_t)(experts * k) * sizeof *perm, sizeof *perm));
  return qn__guarded_set(to, perm);
}

/* ---- Rows of a stack --------------------------------------------------------------------------------------------- */

enum { MOST_TOPK = 17 };

static int64_t topk_of(const qn_call *c) {
  if (!c->bound->experts || c->route != QN_ROUTE_TOKENS || qn__operand(&c->draw->problem, QN_ARG_RESIDUAL).has)
    return 1;
  for (int64_t topk = 2; topk <= MOST_TOPK; topk++)
    if (c->m % topk == 0) return topk;
  return 1;
}

qn_status qn__share_make(const double *number, int64_t experts, double **out) {
  double *share = malloc((size_t)experts * sizeof *share), sum = 0;
  *out = NULL;
  if (!share) return qn__fail(QN_E_NOMEM, "shares of %lld experts", (long long)experts);
  for (int64_t e = 0; e < experts; e++) share[e] = sum += number[e] > 0 ? number[e] : 0;
  if (!(sum > 0 && sum < INFINITY)) return free(share), qn__fail(QN_E_ARG, "no expert has a share of the rows");
  for (int64_t e = 0; e < experts; e++) share[e] /= sum;
  return *out = share, QN_OK;
}

/* The expert that row r is drawn for. */
static int64_t drawn_for(const double *share, int64_t experts, int64_t r) {
  uint64_t state = (uint64_t)r, drawn = qn__random(&state);
  int64_t lo = 0;
  if (!share) return (int64_t)(drawn % (uint64_t)experts);
  for (int64_t hi = experts - 1; lo < hi;) {
    int64_t mid = (lo + hi) / 2;
    if (share[mid] > (double)(drawn >> 11) * 0x1p-53) hi = mid;
    else lo = mid + 1;
  }
  return lo;
}

int64_t qn__share_met(const double *share, int64_t experts, int64_t m) {
  bool met[QN_EXPERTS] = {false};
  int64_t n = 0;
  for (int64_t r = 0; r < m && n < experts; r++) {
    bool *one = &met[drawn_for(share, experts, r)];
    n += !*one;
    *one = true;
  }
  return n;
}

/* The expert of row r, in the order of rows. */
static int32_t route(const qn_call *c, int64_t r) {
  int64_t experts = c->bound->experts;
  uint64_t state = (uint64_t)r;
  switch (c->route) {
  case QN_ROUTE_SORTED: /* all but each third; of so many parts as rows the last is nobody's */
    r = r * (experts + 1) / c->m;
    return r % 3 == 1 ? (int32_t)r - 1 : r < experts ? (int32_t)r : -1;
  case QN_ROUTE_ONE:
    return (int32_t)experts - 1;
  case QN_ROUTE_SHARED:
    return (int32_t)drawn_for(c->share, experts, r);
  default:
    return (int32_t)(qn__random(&state) % (uint64_t)(experts + 1)) - 1;
  }
}

/* From experts in rising order, behind which come rows of nobody. */
static void count_offsets(const qn_call *c, int32_t *offsets) {
  int64_t r = 0;
  for (int64_t e = 0; e <= c->bound->experts; e++) {
    while (r < c->m && c->expert[r] >= 0 && c->expert[r] < e) r++;
    offsets[e] = (int32_t)r;
  }
}

static qn_status set_list(qn_call *c, qn_arg i, int64_t count) {
  QN_TRY(place(c, &c->buffer[i], qn__arg[i].name, (size_t)count * sizeof(int32_t), sizeof(int32_t)));
  return qn__guarded_set(&c->buffer[i], c->made[i]);
}

/* Which rows the experts have, as the route says. */
static qn_status set_rows(qn_call *c) {
  int64_t experts = c->bound->experts;
  bool sorted = c->route == QN_ROUTE_SORTED || c->route == QN_ROUTE_ONE;
  qn_arg given = sorted ? QN_ARG_OFFSETS : QN_ARG_IDS, other = sorted ? QN_ARG_IDS : QN_ARG_OFFSETS;
  c->topk = topk_of(c);
  if (!experts) return QN_OK;
  qn__guarded_fini(&c->buffer[other]);
  free(c->made[other]), c->made[other] = NULL;
  free(c->expert);
  c->expert = malloc((size_t)c->m * sizeof *c->expert);
  int64_t count = sorted ? experts + 1 : c->m;
  int32_t *list = make(c, given, (size_t)count * sizeof *list);
  if (!c->expert || !list) return no_memory(given);
  for (int64_t r = 0; r < c->m; r++) c->expert[r] = route(c, r);
  if (sorted) count_offsets(c, list);
  else memcpy(list, c->expert, (size_t)count * sizeof *list);
  return set_list(c, given, count);
}

/* ---- Making ready ------------------------------------------------------------------------------------------------ */

/* What is only read; nothing of what the problem does not have. */
static qn_status set_operand(qn_call *c, qn_arg i) {
  qn_operand o = operand(c, i);
  if (!o.has) return qn__guarded_fini(&c->buffer[i]), QN_OK;
  if (c->bound->experts && !o.tokens) QN_TRY(stack_operand(c, i, &o));
  QN_TRY(place(c, &c->buffer[i], qn__arg[i].name, operand_bytes(c, i, &o), type_size(o.type)));
  return qn__guarded_set(&c->buffer[i], read_from(c, i));
}

static qn_status set_perm(qn_call *c) {
  if (c->bound->experts) return stack_perms(c);
  qn_guarded *to = &c->buffer[QN_ARG_PERM];
  if (!c->draw->planes.perm) return qn__guarded_fini(to), QN_OK;
  QN_TRY(place(c, to, "permutation", (size_t)c->draw->planes.k * sizeof *c->draw->planes.perm,
               sizeof *c->draw->planes.perm));
  return qn__guarded_set(to, c->draw->planes.perm);
}

static qn_status set_y(qn_call *c) {
  qn_operand o = operand(c, QN_ARG_Y);
  QN_TRY(place(c, &c->buffer[QN_ARG_Y], "y", operand_bytes(c, QN_ARG_Y, &o), type_size(o.type)));
  unsigned char *out = realloc(c->out, c->buffer[QN_ARG_Y].size);
  if (!out) return qn__fail(QN_E_NOMEM, "Y of %zu bytes", c->buffer[QN_ARG_Y].size);
  c->out = out;
  return QN_OK;
}

qn_status qn__call_set(qn_call *c, int64_t m, int64_t shift) {
  bool same = c->m == m && c->routed == c->route;
  if (same && c->shift == shift) return QN_OK;
  c->m = m, c->shift = shift, c->routed = c->route;
  if (!same) QN_TRY(set_rows(c));
  for (qn_arg i = 0; i < QN_OPERANDS; i++)
    if (i != QN_ARG_Y && (!same || operand(c, i).tokens)) QN_TRY(set_operand(c, i));
  if (same) return QN_OK;
  QN_TRY(set_y(c));
  QN_TRY(set_perm(c));
  return set_workspace(c);
}

qn_host_args qn__call_args(const qn_call *c, int64_t copy) {
  qn_host_args a = c->draw->args;
  a.m = c->m, a.ldy = c->ldy;
  a.experts = c->bound->experts, a.topk = c->topk;
  for (qn_arg i = 0; i < QN_POINTERS; i++) qn__arg_point(&a, i, qn__guarded_at(&c->buffer[i]));
  if (c->in_place) a.residual = a.y;
  a.w = (char *)qn__guarded_at(&c->w->memory) + (size_t)(copy % c->w->copies) * c->w->stride;
  return a;
}

static const qn_guarded *buffer(const qn_call *c, qn_arg i) { return i == QN_ARG_W ? &c->w->memory : &c->buffer[i]; }

qn_status qn__call_guards(const qn_call *c) {
  for (qn_arg i = 0; i < QN_POINTERS; i++) QN_TRY(qn__guarded_check(buffer(c, i), NULL, 0));
  return QN_OK;
}

bool qn__call_fault(const void *address, char *text, size_t size) {
  const qn_call *c = running;
  long long offset;
  for (qn_arg i = 0; c && i < QN_POINTERS; i++) {
    const qn_guarded *g = buffer(c, i);
    if (!qn__guarded_near(g, address, &offset)) continue;
    bool inside = offset >= 0 && (size_t)offset < g->size;
    const char *how = !inside ? "touched" : i == QN_ARG_Y ? "touched, between rows," : "wrote to the read-only";
    return snprintf(text, size, "%s offset %lld of buffer '%s' of %zu bytes, M = %lld of %lld x %lld", how, offset,
                    g->name, g->size, (long long)c->m, (long long)c->draw->planes.n, (long long)c->draw->planes.k) > 0;
  }
  return false;
}

/* The gap between the columns of Y and the next row belongs to someone else. */
static qn_status check_gaps(const qn_call *c) {
  size_t size = type_size(out_type(c)), n = (size_t)operand(c, QN_ARG_Y).cols * size, ld = (size_t)c->ldy * size;
  for (int64_t r = 0; r + 1 < c->m; r++)
    for (size_t i = n; i < ld; i++)
      if (c->out[(size_t)r * ld + i] != c->draw->fence.byte)
        return qn__fail(QN_E_WRONG, "wrote into row %lld of Y behind its last column", (long long)r);
  return QN_OK;
}

/* The next kernel may be another that counts in the same place. */
static qn_status check_counters(const qn_call *c) {
  qn_status s = with_zeros(c, false);
  return s == QN_E_WRONG
             ? qn__fail(s, "left the counters of %zu bytes other than zero", c->buffer[QN_ARG_COUNTERS].size)
             : s;
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
  uint32_t n;
  if (!d->target->host_code) return qn__bound_run(d, c->bound, a, NULL);
  qn_host_args rest = *a, now;
  QN_TRY(qn__call_launches(d, c->bound, &rest, l, &n));
  for (uint32_t i = 0; i < n; i++) {
    qn__launch_args(&l[i], &rest, &now);
    QN_TRY(qn__conduct_launch(d, &l[i], &now, c->runs++));
  }
  return QN_OK;
}

static void forbid_gaps(const qn_call *c, bool forbid) {
  size_t size = type_size(out_type(c));
  qn__guarded_forbid(&c->buffer[QN_ARG_Y], (size_t)operand(c, QN_ARG_Y).cols * size, (size_t)c->ldy * size, forbid);
}

/* What the kernel finds in Y. Gaps behind rows of a draw are of the fence's byte, too. */
static qn_status fill_y(const qn_call *c) {
  const qn_guarded *y = &c->buffer[QN_ARG_Y];
  qn_device *d = c->s->device;
  QN_TRY(qn__guarded_set(y, NULL));
  return c->in_place ? d->ops->upload(d, qn__guarded_at(y), drawn(c, QN_ARG_RESIDUAL), y->size) : QN_OK;
}

qn_status qn__call_run(qn_call *c) {
  qn_device *d = c->s->device;
  const qn_guarded *y = &c->buffer[QN_ARG_Y];
  QN_TRY(fill_y(c));
  QN_TRY(qn__guarded_set(&c->buffer[QN_ARG_SCRATCH], NULL));
  qn__call_watch(c, 1);
  qn_host_args a = qn__call_args(c, 0);
  forbid_gaps(c, true);
  qn_status s = launch(c, &a);
  forbid_gaps(c, false);
  QN_TRY(s);
  QN_TRY(d->ops->sync(d, NULL));
  QN_TRY(d->ops->download(d, c->out, a.y, y->size));
  for (qn_arg i = 0; i < QN_POINTERS; i++) {
    const void *only_read = read_from(c, i);
    size_t bytes = i == QN_ARG_W ? c->w->stride : c->buffer[i].size;
    QN_TRY(qn__guarded_check(buffer(c, i), only_read, only_read ? bytes : 0));
  }
  QN_TRY(check_counters(c));
  return check_gaps(c);
}

static qn_status run_again(qn_call *c, int64_t copy, unsigned char *timed) {
  qn_device *d = c->s->device;
  qn_host_args a = qn__call_args(c, copy);
  const qn_guarded *y = &c->buffer[QN_ARG_Y];
  QN_TRY(d->ops->download(d, timed, a.y, y->size));
  QN_TRY(qn__guarded_set(y, NULL));
  qn__call_watch(c, 1);
  QN_TRY(qn__bound_run(d, c->bound, &a, NULL));
  QN_TRY(d->ops->sync(d, NULL));
  QN_TRY(d->ops->download(d, c->out, a.y, y->size));
  if (!c->s->c->recipe.deterministic || !memcmp(timed, c->out, y->size)) return QN_OK;
  return qn__fail(QN_E_WRONG, "M = %lld: the last call that was timed wrote another Y than the same call again",
                  (long long)c->m);
}

qn_status qn__call_again(qn_call *c, int64_t copy) {
  unsigned char *timed = malloc(c->buffer[QN_ARG_Y].size);
  qn_status s = timed ? run_again(c, copy, timed) : qn__fail(QN_E_NOMEM, "no memory for another Y");
  free(timed);
  return s;
}

qn_status qn__call_same_rows(const qn_call *c, const unsigned char *before, int64_t m) {
  size_t size = type_size(out_type(c)), row = (size_t)operand(c, QN_ARG_Y).cols * size, ld = (size_t)c->ldy * size;
  for (int64_t r = 0; r < m && r < c->m; r++)
    if (memcmp(c->out + (size_t)r * ld, before + (size_t)r * ld, row))
      return qn__fail(QN_E_WRONG, "said to be batch-invariant, but row %lld at M = %lld and at M = %lld differ in bits",
                      (long long)r, (long long)m, (long long)c->m);
  return QN_OK;
}

/* ---- Judgement --------------------------------------------------------------------------------------------------- */

/* Let u be the unit roundoff of a type (half the spacing at 1: 2^-24 f32, 2^-11 f16, 2^-8 bf16), S = sum |x| |w| with
 * |w| the decode rule's magnitude, so that (q - z) s counts as (|q| + |z|) |s|. To first order, a sum may be off by
 *
 *   S (K + 24) u_acc   adding K products in f32 in any order, and a few more roundings for scales, offsets and the
 *                      row's scale. u_acc = 2^-24; on CUDA 2^-23, since tensor cores cut off instead of rounding
 *   S (D + 2) 2^-b     where tensor cores keep b bits of the sums of D products
 *   S u_act            the weight is rounded once to the activation's type before the product (f16, bf16; products
 *                      of two such numbers are exact in f32; for activations of 8 bits that is f16 on CUDA, and bf16
 *                      for e4m3 on the host); int8 products of the host are exact
 *   K x_max tiny       weights below the normal range: half of f16's smallest step, or flushed to zero elsewhere
 *   K 2^-100           X below it flushed to zero, before weights below 2^26
 *
 * and nothing where it is exact. The epilogue makes y of it, off by an error e (qn__epilogue), and to that comes
 *
 *   (|y| + e) u_out    the result is rounded to the output type
 *
 * (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1.) */
static double unit(uint32_t type) { return qn__is_float(type) ? ldexp(1, -1 - qn__form[type].mantissa) : 0; }

/* The type that weights are rounded to; f32 and QN_T_NONE: they are not. */
static uint32_t weight_type(uint32_t act, const qn_target *on) {
  if (!qn__act_scaled(act)) return act;
  return qn__is_float(act) ? on->scaled_float : on->scaled_integer;
}

double qn__sum_error(const qn_problem *p, const qn_recipe *r, const qn_target *on, int64_t k, double magnitude,
                     double x_max) {
  double depth = (double)(r->sum_depth && r->sum_depth < k ? r->sum_depth : k);
  double cut = r->sum_bits ? (depth + 2) * ldexp(1, -(int)r->sum_bits) : 0;
  uint32_t weight = weight_type(p->act, on);
  double u_act = weight == QN_T_F32 ? 0 : unit(weight), tiny = weight == QN_T_F16 ? 0x1p-25 : 0x1p-126;
  return magnitude * ((double)(k + 24) * on->sum_unit + cut + u_act) + (double)k * (x_max * tiny + 0x1p-100);
}

double qn__output_error(qn_type out, qn_number y) {
  return y.error + (fabs(y.value) + y.error) * unit(out) + (out == QN_T_F16 ? 0x1p-25 : 0x1p-126);
}

static qn_status wrong(const qn_call *c, int64_t row, int64_t col, double have, double want, double bound) {
  static const char *const kind[] = {"exact", "random", "hard"};
  const qn_planes *p = &c->draw->planes;
  char at[96], limit[48] = "";
  snprintf(at, sizeof at, "%lld x %lld, M = %lld", (long long)p->n, (long long)p->k, (long long)c->m);
  if (isnan(have))
    return qn__fail(QN_E_WRONG, "%s: y[%lld, %lld] is not written, or not a number", at, (long long)row,
                    (long long)col);
  if (!c->draw->want && isfinite(have)) snprintf(limit, sizeof limit, ", beyond the bound %.3g", bound);
  return qn__fail(QN_E_WRONG, "%s, %s draw: y[%lld, %lld] is %.9g, not %.9g%s", at, kind[c->draw->kind], (long long)row,
                  (long long)col, have, want, limit);
}

static bool is_nobodys(const qn_call *c, int64_t r) { return c->expert && c->expert[r] < 0; }

/* Is every element written? The reference may cover only some. */
static qn_status check_written(const qn_call *c) {
  double block[QN_EXPR_BLOCK];
  int64_t cols = operand(c, QN_ARG_Y).cols;
  for (int64_t r = 0; r < c->m; r++)
    for (int64_t n = 0; n < cols && !is_nobodys(c, r); n += QN_EXPR_BLOCK) {
      int count = (int)(cols - n < QN_EXPR_BLOCK ? cols - n : QN_EXPR_BLOCK);
      qn__load_block(out_type(c), c->out, r * c->ldy + n, count, block);
      for (int i = 0; i < count; i++)
        if (isnan(block[i])) return wrong(c, r, n + i, block[i], 0, 0);
    }
  return QN_OK;
}

/* Row of the reference for row r of Y. */
static int64_t reference_row(const qn_call *c, int64_t r) { return (r / c->topk + c->shift) % QN_DRAW_PERIOD; }

/* The draw that has the weight of row r. */
static const qn_draw *draw_of(const qn_call *c, int64_t r) {
  return c->expert ? qn__draw_expert(c->draw, c->expert[r]) : c->draw;
}

static qn_status compare_exactly(const qn_call *c, int64_t r) {
  qn_type out = out_type(c);
  int64_t n = operand(c, QN_ARG_Y).cols;
  size_t size = type_size(out), bytes = (size_t)n * size;
  const char *want = (const char *)draw_of(c, r)->want + (size_t)reference_row(c, r) * bytes;
  if (!memcmp(c->out + (size_t)(r * c->ldy) * size, want, bytes)) return QN_OK;
  for (int64_t i = 0; i < n; i++) { /* zeros of either sign are equal */
    double x = qn__load_f64(out, c->out, r * c->ldy + i), y = qn__load_f64(out, want, i);
    if (!(x == y)) return wrong(c, r, i, x, y, 0);
  }
  return QN_OK;
}

/* Row r of Y, which meets no expert. */
static qn_status compare_untouched(const qn_call *c, int64_t r) {
  size_t bytes = (size_t)operand(c, QN_ARG_Y).cols * type_size(out_type(c));
  const unsigned char *row = c->out + (size_t)(r * c->ldy) * type_size(out_type(c)), *before = NULL;
  if (c->in_place) before = (const unsigned char *)drawn(c, QN_ARG_RESIDUAL) + (row - c->out);
  for (size_t i = 0; i < bytes; i++)
    if (row[i] != (before ? before[i] : c->draw->fence.byte))
      return qn__fail(QN_E_WRONG, "wrote into row %lld of Y, which meets no expert", (long long)r);
  return QN_OK;
}

/* The nearest number of type t; beyond the largest, infinity. */
static double rounded(qn_type t, double y) {
  double bits = 0; /* room for an element of any type */
  qn__store_f64(t, &bits, 0, y);
  return qn__load_f64(t, &bits, 0);
}

/* Must Y be the reference to the bit? The exact sums of a draw are multiples of 1/2. The interpreter, which is not
 * timed, keeps all bits. */
static bool is_exact(const qn_call *c, const qn_draw *d) {
  int bits = c->s->device->info.timed ? (int)c->s->c->recipe.sum_bits : 0;
  return d->exact && (!bits || d->largest < ldexp(0.5, bits));
}

/* What column j of the reference says of row r, with how far the kernel may be from it before it rounds. */
static qn_number reference(const qn_call *c, int64_t r, int64_t j) {
  const qn_draw *d = draw_of(c, r);
  qn_number sum[2] = {{0}};
  int64_t row = reference_row(c, r);
  for (int64_t at = j, i = 0; at < d->n_sums; at += d->n_cols, i++) {
    sum[i].value = d->sum[row * d->n_sums + at];
    if (is_exact(c, d)) continue;
    double magnitude = d->magnitude[row * d->n_sums + at];
    sum[i].error =
        qn__sum_error(&d->problem, &c->s->c->recipe, c->s->device->target, d->planes.k, magnitude, d->x_max[row]);
  }
  return qn__epilogue(&d->problem, &d->args, row, d->col[j], sum);
}

/* An element that is not the nearest number: is it within the bound? *error grows. */
static qn_status compare_element(const qn_call *c, int64_t row, int64_t j, double *error) {
  int64_t col = draw_of(c, row)->col[j];
  qn_type out = out_type(c);
  qn_number y = reference(c, row, j);
  double have = qn__load_f64(out, c->out, row * c->ldy + col), off = fabs(have - y.value);
  if (have == rounded(out, y.value)) return QN_OK;
  double bound = qn__output_error(out, y);
  if (isinf(have) && have == rounded(out, y.value + copysign(bound, have))) return QN_OK; /* on either side of 0 */
  if (!(off <= bound)) return wrong(c, row, col, have, y.value, bound);
  *error = off / bound > *error ? off / bound : *error;
  return QN_OK;
}

qn_status qn__call_compare(const qn_call *c, double *error) {
  if (c->draw->fence.byte == 0xff && !(c->draw->want && is_exact(c, c->draw))) QN_TRY(check_written(c));
  for (int64_t r = 0; r < c->m; r++) {
    const qn_draw *d = draw_of(c, r);
    if (is_nobodys(c, r)) QN_TRY(compare_untouched(c, r));
    else if (d->want && is_exact(c, d)) QN_TRY(compare_exactly(c, r));
    else
      for (int64_t j = 0; j < d->n_cols; j++) QN_TRY(compare_element(c, r, j, error));
  }
  return QN_OK;
}
