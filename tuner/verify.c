/* verify.c - the suite of small cases. Adding one is adding a row to a table. */
#include "verify.h"
#include "call.h"
#include "conduct.h"
#include "fail.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* N and K with tails of every tile and group, and with none; gaps behind the rows of X and Y, some of pages, which
 * nobody may touch behind those of Y; a K that fills and drains the deepest pipeline in each of eight parts, by copies
 * of 16 bytes of X whatever its type. The marked ones are for devices that are slow and untimed, too, and for kernels
 * that gather X in the order of a permutation. */
typedef struct shape {
  int64_t n, k, x_gap, y_gap;
  bool slow, permuted;
} shape;
static const shape ragged[] = {
    {72, 160, 0, 0, true, false},    {1, 1, 0, 0, false, false},       {5, 40, 3, 2, false, false},
    {33, 517, 5, 1, true, false},    {131, 260, 4, 3, false, false},   {16, 1031, 1, 0, false, false},
    {21, 7216, 0, 0, true, false},   {21, 2080, 0, 0, true, true},     {33, 517, 5, 1, false, true},
    {50, 90, 0, 4046, false, false}, {48, 160, 3936, 0, false, false},
};
static const int64_t tokens[] = {1, 2, 3, 5, 8, 17, 40}; /* beyond the smallest M of the variant, less one */
/* M that nobody tunes for, and that are served; the first is the one for slow devices */
static const int64_t beyond[] = {1027, 300, 512, 771, 2048, 4099, 8192, 16387};

/* How much is asked of a variant, by what a call costs: nanoseconds, microseconds and a copy or ten, milliseconds. */
typedef struct pace {
  int repeats;          /* calls in a row; a kernel may keep state and turn wrong late */
  int64_t m, n, k, far; /* how many of each at most */
} pace;
static const pace on_host = {1024, 512, 256, 256, QN_COUNT(beyond)}, on_gpu = {128, 512, 256, 256, QN_COUNT(beyond)},
                  slowly = {3, 4, 1, 1, 1};

enum { USUAL_TILE = 128, USUAL_K = 256 }; /* where a kernel does not say */
enum { FEW_EXPERTS = 5 };                 /* of a stack, at most */
enum { LONG_TILE = 512, WORK = 65536 };   /* of K; values of k in all that a tile's are tried with */

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---- Draws ------------------------------------------------------------------------------------------------------- */

typedef struct drawn {
  shape shape;
  qn_draw_kind kind;
  qn_draw draw;
  struct drawn *next;
} drawn;

struct qn_draws {
  qn_problem problem;
  qn_format format;
  drawn *first;
};

qn_status qn__draws_new(qn_draws **out) {
  *out = calloc(1, sizeof **out);
  return *out ? QN_OK : qn__fail(QN_E_NOMEM, "test data");
}

static void drop(qn_draws *d) {
  for (drawn *x; (x = d->first);) {
    d->first = x->next;
    qn__draw_free(&x->draw);
    free(x);
  }
}

void qn__draws_free(qn_draws *d) {
  if (d) drop(d);
  free(d);
}

/* Forget the draws of other formats and types. */
static void aim(qn_draws *d, const qn_case *c) {
  const qn_problem *p = &c->problem, *q = &d->problem;
  if (p->act == q->act && p->x == q->x && p->out == q->out && !memcmp(p->epilogue, q->epilogue, sizeof p->epilogue) &&
      least(p->experts, FEW_EXPERTS) == q->experts && !memcmp(&c->format, &d->format, sizeof c->format))
    return;
  drop(d);
  d->problem = *p, d->format = c->format;
  d->problem.experts = least(p->experts, FEW_EXPERTS);
}

static qn_status make(const qn_draws *d, drawn *x) {
  const shape *s = &x->shape;
  uint64_t seed = ((uint64_t)s->n << 32 | (uint64_t)s->k) * 8 + (uint64_t)x->kind;
  QN_TRY(qn__draw_make(&d->format, &d->problem, x->kind, s->n, s->k, 1, s->k + s->x_gap, seed, &x->draw));
  if (s->permuted) QN_TRY(qn__draw_permute(&x->draw));
  return qn__draw_reference(&d->format, s->n, &x->draw);
}

/* The draw of a shape with at least `rows` rows of X. */
static qn_status find(qn_draws *d, const shape *s, qn_draw_kind kind, int64_t rows, qn_draw **out) {
  drawn *x = d->first;
  while (x && !(x->kind == kind && x->shape.n == s->n && x->shape.k == s->k && x->shape.x_gap == s->x_gap &&
                x->shape.permuted == s->permuted))
    x = x->next;
  if (!x) {
    if (!(x = calloc(1, sizeof *x))) return qn__fail(QN_E_NOMEM, "test data");
    x->shape = *s, x->kind = kind;
    qn_status status = make(d, x);
    if (status) {
      qn__draw_free(&x->draw);
      free(x);
      return status;
    }
    x->next = d->first, d->first = x;
  }
  *out = &x->draw;
  return qn__draw_rows(&x->draw, rows);
}

/* ---- Calls ------------------------------------------------------------------------------------------------------- */

/* A variant under test. Weights and arguments keep their places from shape to shape as far as they fit: what a kernel
 * remembers by an address is soon wrong. */
typedef struct suite {
  const qn_subject *s;
  const qn_case *c;
  qn_draws *draws;
  pace pace;
  int64_t low, tile; /* smallest M, rows of a tile */
  uint64_t seed;
  qn_weights w;
  qn_call call;
  unsigned char *before[2]; /* Y of earlier calls */
  int calls, turns;         /* turns: of the ways in which rows are given */
  double *error;
} suite;

/* Aim at a draw of a shape, for up to m tokens. */
static qn_status take(suite *v, const shape *s, qn_draw_kind kind, int64_t m) {
  qn_draw *d = NULL;
  shape even = *s;
  if (qn__gated(&v->c->problem)) even.n += even.n % 2;
  QN_TRY(find(v->draws, &even, kind, m + 1, &d));
  QN_TRY(qn__weights_fill(&v->w, v->s->device, v->c, d, 1));
  return qn__call_aim(&v->call, v->s, &v->w, d, qn__columns(&d->problem) + s->y_gap);
}

static qn_status call(suite *v, qn_route route, int64_t m, int64_t shift) {
  v->calls++;
  v->call.route = route;
  QN_TRY(qn__call_set(&v->call, m, shift));
  return qn__call_run(&v->call);
}

static qn_status run_by(suite *v, qn_route route, int64_t m, int64_t shift) {
  QN_TRY(call(v, route, m, shift));
  return qn__call_compare(&v->call, v->error);
}

/* Rows of a stack are given in every way in turns. */
static qn_status run(suite *v, int64_t m, int64_t shift) {
  return run_by(v, QN_ROUTE_IDS + v->turns++ % (QN_ROUTES - QN_ROUTE_IDS), m, shift);
}

static qn_status keep(suite *v, int i) {
  unsigned char *p = realloc(v->before[i], v->call.buffer[QN_ARG_Y].size);
  if (!p) return qn__fail(QN_E_NOMEM, "output to compare with");
  v->before[i] = p;
  memcpy(p, v->call.out, v->call.buffer[QN_ARG_Y].size);
  return QN_OK;
}

/* One more M of a shape; *before, 0 at first, is the M before. */
static qn_status run_rows(suite *v, int64_t m, int64_t *before) {
  bool again = v->c->recipe.batch_invariant;
  if (!again || v->c->problem.experts) QN_TRY(run(v, m, 0));
  if (!again) return QN_OK;
  QN_TRY(run_by(v, QN_ROUTE_IDS, m, 0)); /* a row must meet the same expert at every M */
  if (*before) QN_TRY(qn__call_same_rows(&v->call, v->before[0], *before));
  *before = m;
  return keep(v, 0);
}

/* A number of part i, where 0 .. size - 1 is cut into so many equal parts. */
static int64_t pick(suite *v, int64_t i, int64_t parts, int64_t size) {
  int64_t lo = size * i / parts, part = size * (i + 1) / parts - lo;
  return lo + (int64_t)(qn__random(&v->seed) % (uint64_t)part);
}

static int64_t most_of(int64_t a, int64_t b) { return a > b ? a : b; }

/* ---- The suite --------------------------------------------------------------------------------------------------- */

/* Is a permuted shape worth a draw of this kind? Where X is moved as it is, one draw shows whether that is right;
 * where it is rounded, too, its order comes first. */
static bool permutes(const qn_case *c, qn_draw_kind kind) {
  const qn_recipe *r = &c->recipe;
  for (uint32_t i = 0; i < r->n_steps; i++)
    if (r->step[i].gathers.n || memchr(r->step[i].arg, QN_ARG_PERM, r->step[i].n_args))
      return kind == QN_DRAW_EXACT || qn__x_type(&c->problem) != (qn_type)c->problem.act;
  return false;
}

static bool is_slow(const suite *v) { return !v->s->device->info.timed; }

static qn_status verify_ragged(suite *v) {
  for (size_t i = 0; i < QN_COUNT(ragged); i++)
    for (qn_draw_kind kind = 0; kind < QN_DRAW_KINDS; kind++) {
      if ((is_slow(v) && !ragged[i].slow) || (ragged[i].permuted && !permutes(v->c, kind))) continue;
      QN_TRY(take(v, &ragged[i], kind, v->low + tokens[QN_COUNT(tokens) - 1]));
      int64_t before = 0;
      for (size_t j = 0; j < QN_COUNT(tokens); j++) {
        int64_t m = v->low - 1 + tokens[j];
        if (!qn__case_serves(v->c, m) || (is_slow(v) && tokens[j] != 17 && (j || kind != QN_DRAW_EXACT))) continue;
        QN_TRY(run_rows(v, m, &before));
      }
    }
  return QN_OK;
}

/* Every M up to two tiles and a row, at a tile of N and two of K, and one more of each. */
static qn_status verify_m(suite *v) {
  const qn_layout *l = &v->c->layout;
  const shape s = {.n = least(l->tile_n, LONG_TILE) + 1, .k = least(2 * l->tile_k, LONG_TILE) + 1};
  int64_t most = v->low <= 2 * v->tile ? 2 * v->tile + 1 : v->low + 2 * v->tile, count = most - v->low + 1;
  for (qn_draw_kind kind = 0; kind < (is_slow(v) ? 1 : QN_DRAW_HARD); kind++) {
    int64_t before = 0, tries = least(count, v->pace.m);
    QN_TRY(take(v, &s, kind, most));
    for (int64_t i = 0; i < tries; i++) {
      int64_t m = v->low + pick(v, i, tries, count);
      if (qn__case_serves(v->c, m)) QN_TRY(run_rows(v, m, &before));
    }
  }
  return QN_OK;
}

/* An N or K, with a row and with one of as many as make a tile of few. */
static qn_status verify_shape(suite *v, int64_t n, int64_t k) {
  int64_t most = v->low + pick(v, 0, 1, least(v->tile, 16));
  QN_TRY(take(v, &(shape){.n = n, .k = k, .x_gap = 1, .y_gap = 1}, QN_DRAW_EXACT, most));
  QN_TRY(run(v, v->low, 0));
  return is_slow(v) || !qn__case_serves(v->c, most) ? QN_OK : run(v, most, 1);
}

/* Every N of a tile, every K within a tile, every rest behind one. A kernel that does not say its tile may have a
 * larger one than its layout. */
static qn_status verify_n_k(suite *v) {
  bool says = v->c->m_tile;
  int64_t tile_n = most_of(v->c->layout.tile_n, says ? 1 : USUAL_TILE);
  int64_t tile_k = most_of(v->c->layout.tile_k, says ? 1 : USUAL_K);
  int64_t ns = least(tile_n, v->pace.n), ks = least(least(tile_k, v->pace.k), WORK / tile_k + 1);
  for (int64_t i = 0; i < ns; i++) QN_TRY(verify_shape(v, 1 + pick(v, i, ns, tile_n), 40));
  for (int64_t i = 0; i < 2 * ks; i++) QN_TRY(verify_shape(v, 5, 1 + pick(v, i, 2 * ks, 2 * tile_k)));
  return QN_OK;
}

static qn_status verify_beyond(suite *v) {
  for (int64_t i = 0; i < v->pace.far; i++) {
    if (!qn__case_serves(v->c, beyond[i])) continue;
    QN_TRY(take(v, &ragged[2], QN_DRAW_EXACT, beyond[i]));
    QN_TRY(run(v, beyond[i], 0));
  }
  return QN_OK;
}

/* Y += X . W^T: shapes with rows of Y and of the residual as far apart. */
static qn_status verify_in_place(suite *v) {
  if (!qn__operand(&v->c->problem, QN_ARG_RESIDUAL).has) return QN_OK;
  for (size_t i = 0; i < QN_COUNT(ragged); i++) {
    const shape *s = &ragged[i];
    if ((is_slow(v) && !s->slow) || s->permuted || s->x_gap != s->y_gap) continue;
    QN_TRY(take(v, s, QN_DRAW_EXACT, v->low + tokens[QN_COUNT(tokens) - 1]));
    qn__call_in_place(&v->call);
    for (size_t j = 0; j < QN_COUNT(tokens); j++) {
      int64_t m = v->low - 1 + tokens[j];
      if (qn__case_serves(v->c, m) && (!is_slow(v) || tokens[j] == 17)) QN_TRY(run(v, m, 0));
    }
  }
  return QN_OK;
}

/* The same two calls again and again: X changes where it lies, and must be looked at. */
static qn_status verify_repeats(suite *v) {
  int64_t m = v->low + 2;
  QN_TRY(take(v, &ragged[0], QN_DRAW_RANDOM, m));
  if (!qn__case_serves(v->c, m)) m = v->low;
  for (int i = 0; i < v->pace.repeats + 2; i++) {
    QN_TRY(call(v, QN_ROUTE_IDS, m, i % 2));
    if (i >= 2 && !memcmp(v->before[i % 2], v->call.out, v->call.buffer[QN_ARG_Y].size)) continue;
    if (i >= 2 && v->c->recipe.deterministic)
      return qn__fail(QN_E_WRONG, "repeat %d of the same call differs in bits", i / 2);
    QN_TRY(qn__call_compare(&v->call, v->error));
    if (i < 2) QN_TRY(keep(v, i));
  }
  return QN_OK;
}

static qn_status verify_y(suite *v) {
  QN_TRY(verify_repeats(v));
  QN_TRY(verify_ragged(v));
  QN_TRY(verify_in_place(v));
  QN_TRY(verify_m(v));
  QN_TRY(verify_n_k(v));
  return verify_beyond(v);
}

/* On the host also what it does besides. A process that is left without memory or files lets nothing else succeed. */
static qn_status verify_all(suite *v) {
  const qn_recipe *r = &v->c->recipe;
  qn_program items = qn__program(&r->pool, r->step[r->n_steps - 1].grid[0]);
  bool whole = items.n == 1 && items.op[0].code == QN_OP_CONST; /* such a function may have threads of its own */
  qn_conduct before;
  if (!v->s->device->target->host_code) return verify_y(v);
  qn__conduct_note(&before);
  qn_status s = verify_y(v);
  return s == QN_E_WRONG ? s : qn__conduct_check(&before, whole, v->calls) ? QN_E_WRONG : s;
}

static uint64_t seed_of(const char *hash) {
  uint64_t seed = 0;
  while (*hash) seed = seed * 31 + (unsigned char)*hash++;
  return seed;
}

qn_status qn__verify(const qn_subject *s, qn_draws *draws, double *error) {
  const qn_device *d = s->device;
  suite v = {.s = s, .c = s->c, .draws = draws, .error = error, .seed = seed_of(s->c->hash)};
  v.pace = !d->info.timed ? slowly : d->target->host_code ? on_host : on_gpu;
  v.low = s->c->m_min > 1 ? s->c->m_min : 1;
  v.tile = s->c->m_tile ? s->c->m_tile : USUAL_TILE;
  *error = 0;
  aim(draws, s->c);
  qn_status status = verify_all(&v);
  qn__weights_fini(&v.w);
  qn__call_fini(&v.call);
  free(v.before[0]);
  free(v.before[1]);
  return status;
}
