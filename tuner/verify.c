/* verify.c - the suite of small cases. Adding one is adding a row to a table. */
#include "verify.h"
#include "call.h"
#include "fail.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* N and K with tails of every tile and group, and with none; gaps behind the rows of X and Y; a K that fills and drains
 * the deepest pipeline in each of eight parts, by copies of 16 bytes of X whatever its type. The marked ones are for
 * devices that are slow and untimed, too, and for kernels that gather X in the order of a permutation. */
static const struct shape {
  int64_t n, k, x_gap, y_gap;
  bool slow, permuted;
} shapes[] = {
    {72, 160, 0, 0, true, false},  {1, 1, 0, 0, false, false},     {5, 40, 3, 2, false, false},
    {33, 517, 5, 1, true, false},  {131, 260, 4, 3, false, false}, {16, 1031, 1, 0, false, false},
    {21, 7216, 0, 0, true, false}, {21, 2080, 0, 0, true, true},   {33, 517, 5, 1, false, true},
};
static const int64_t tokens[] = {1, 2, 3, 5, 8, 17, 40}; /* beyond the smallest M of the variant, less one */

#define ROWS 40
#define REPEATS 128 /* calls in a row; a kernel may keep state and turn wrong late */
#define SLOW_REPEATS 3

struct qn_draws {
  qn_problem problem;
  qn_format format;
  int64_t rows;
  qn_draw draw[QN_COUNT(shapes)][QN_DRAW_KINDS];
};

qn_status qn__draws_new(qn_draws **out) {
  *out = calloc(1, sizeof **out);
  return *out ? QN_OK : qn__fail(QN_E_NOMEM, "test data");
}

static void drop(qn_draws *d) {
  for (size_t i = 0; i < QN_COUNT(shapes); i++)
    for (int j = 0; j < QN_DRAW_KINDS; j++) qn__draw_free(&d->draw[i][j]);
}

void qn__draws_free(qn_draws *d) {
  if (d) drop(d);
  free(d);
}

/* Forget the draws of other formats and types. */
static void aim(qn_draws *d, const qn_case *c, int64_t rows) {
  const qn_problem *p = &c->problem, *q = &d->problem;
  if (p->act == q->act && p->out == q->out && p->bias == q->bias && rows == d->rows &&
      !memcmp(&c->format, &d->format, sizeof c->format))
    return;
  drop(d);
  d->problem = *p, d->format = c->format, d->rows = rows;
}

static qn_status draw(qn_draws *d, size_t i, qn_draw_kind kind, qn_draw **out) {
  qn_draw *slot = &d->draw[i][kind];
  const struct shape *s = &shapes[i];
  *out = slot;
  if (slot->y) return QN_OK;
  qn__draw_free(slot);
  QN_TRY(qn__draw_make(&d->format, &d->problem, kind, s->n, s->k, d->rows, s->k + s->x_gap, 1 + i * 8 + kind, slot));
  if (s->permuted) QN_TRY(qn__draw_permute(slot));
  return qn__draw_reference(&d->format, &d->problem, d->rows, s->n, slot);
}

/* ---- One case ---------------------------------------------------------------------------------------------------- */

static qn_status sweep(qn_call *c, unsigned char *before, bool slow, double *error) {
  int64_t rows = 0;
  const qn_case *k = c->s->c;
  for (size_t i = 0; i < QN_COUNT(tokens); i++) {
    int64_t m = tokens[i] + (k->m_min > 1 ? k->m_min - 1 : 0);
    if (!qn__case_serves(k, m) || (slow && i && tokens[i] != 17)) continue;
    QN_TRY(qn__call_set(c, c->draw, m));
    QN_TRY(qn__call_run(c));
    QN_TRY(qn__call_compare(c, error));
    if (k->recipe.batch_invariant) QN_TRY(qn__call_same_rows(c, before, rows));
    memcpy(before, c->out, c->y.size);
    rows = m;
  }
  return QN_OK;
}

/* The same call again and again. */
static qn_status repeat(qn_call *c, unsigned char *before, int times, double *error) {
  for (int i = 1; i < times; i++) {
    memcpy(before, c->out, c->y.size);
    QN_TRY(qn__call_run(c));
    if (memcmp(before, c->out, c->y.size)) {
      if (c->s->c->recipe.deterministic || c->draw->exact)
        return qn__fail(QN_E_WRONG, "repeat %d of the same call differs in bits", i);
      QN_TRY(qn__call_compare(c, error));
    }
  }
  return QN_OK;
}

static qn_status verify_call(qn_call *c, bool slow, bool repeats, double *error) {
  unsigned char *before = malloc((size_t)(c->draw->m * c->ldy) * 8);
  qn_status status = before ? sweep(c, before, slow, error) : qn__fail(QN_E_NOMEM, "output to compare with");
  if (!status && repeats) status = repeat(c, before, slow ? SLOW_REPEATS : REPEATS, error);
  free(before);
  return status;
}

static qn_status verify_draw(const qn_subject *s, qn_draw *d, int64_t ldy, bool slow, bool repeats, double *error) {
  qn_weights w;
  qn_call c;
  QN_TRY(qn__weights_open(s->device, s->c, d, 1, &w));
  qn_status status = qn__call_open(s, &w, d, ldy, &c);
  if (!status) {
    status = verify_call(&c, slow, repeats, error);
    qn__call_close(&c);
  }
  qn__weights_close(&w);
  return status;
}

static bool takes(const qn_recipe *r, qn_arg arg) {
  for (uint32_t i = 0; i < r->n_steps; i++)
    if (memchr(r->step[i].arg, (int)arg, r->step[i].n_args)) return true;
  return false;
}

qn_status qn__verify(const qn_subject *s, qn_draws *draws, double *error) {
  bool slow = !s->device->info.timed, gathers = takes(&s->c->recipe, QN_ARG_PERM);
  *error = 0;
  aim(draws, s->c, ROWS + (s->c->m_min > 1 ? s->c->m_min - 1 : 0));
  for (size_t i = 0; i < QN_COUNT(shapes); i++)
    for (qn_draw_kind kind = 0; kind < QN_DRAW_KINDS; kind++) {
      qn_draw *d;
      if ((slow && !shapes[i].slow) || (shapes[i].permuted && !gathers)) continue;
      QN_TRY(draw(draws, i, kind, &d));
      bool repeats = i == 0 && kind == QN_DRAW_RANDOM;
      QN_TRY(verify_draw(s, d, shapes[i].n + shapes[i].y_gap, slow, repeats, error));
    }
  return QN_OK;
}
