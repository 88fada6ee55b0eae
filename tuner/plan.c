/* plan.c - from a race to plans: the layout that is best over all M, the winner of every range of M, and the same among
 * the deterministic and the batch-invariant kernels alone. */
#include "contest.h"
#include "dense.h"
#include "fail.h"
#include "json.h"
#include "stats.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Layout ------------------------------------------------------------------------------------------------------ */

/* Seconds of the fastest at M number i, of those that met in the finals if any did: who ran alone may have had luck.
 * Infinite: nobody was timed. */
static double fastest(const qn_contest *f, size_t i) {
  double met = INFINITY, raced = INFINITY;
  for (const qn_racer *c = f->racer; c < f->racer + f->n; c++)
    if (qn__contest_stands(f, c) && qn__lap(c, i) > 0) {
      double *best = c->lap[i].marks & QN_RACED ? &raced : &met;
      *best = fmin(*best, qn__lap(c, i));
    }
  return isfinite(met) ? met : raced;
}

/* Does M number i tell of the M from m_min to m_max (0: on)? It is one of them, or the next after the last. */
static bool tells(const qn_contest *f, size_t i, int64_t m_min, int64_t m_max) {
  return f->m[i] >= m_min && (!m_max || !i || f->m[i - 1] < m_max);
}

/* The fastest compiled kernel that serves all M from m_min to m_max (0: on), by its laps at the points that tell of
 * them; of those that were not timed there, the one of least cost. */
static const qn_racer *runner(const qn_contest *f, int64_t m_min, int64_t m_max) {
  const qn_racer *best = NULL;
  double least = INFINITY;
  for (const qn_racer *c = f->racer; c < f->racer + f->n; c++) {
    const qn_candidate *x = c->e->c;
    double sum = 0;
    if (!qn__contest_stands(f, c) || x->library || !qn__serves(x->m_min, x->m_max, m_min, m_max)) continue;
    for (size_t i = 0; i < f->n_m; i++)
      if (tells(f, i, m_min, m_max)) sum += qn__lap(c, i) > 0 ? log(qn__lap(c, i)) : 1e3;
    if (!best || sum < least || (sum == least && x->cost < best->e->c->cost)) best = c, least = sum;
  }
  return best;
}

/* Least weighted sum of log times over the M that were timed; among equals the smaller hash. A layout without a kernel
 * for every M is none; one whose kernels were not all timed, for want of time, comes after the others. */
static const qn_racer *choose_layout(qn_contest *f) {
  const qn_racer *chosen = NULL;
  double least = INFINITY;
  for (const qn_racer *c = f->racer; c < f->racer + f->n; c++) {
    double sum = 0;
    if (!qn__contest_stands(f, c) || (chosen && !strcmp(c->e->c->layout.hash, chosen->e->c->layout.hash))) continue;
    f->layout = c->e->c->layout.hash;
    for (size_t i = 0; i < f->n_m; i++) {
      double weight = f->r->options->m_weight ? f->r->options->m_weight[i] : 1;
      sum += weight * fmin(log(fastest(f, i)), 1e3);
    }
    bool fit = runner(f, 1, 0) != NULL;
    f->layout = NULL;
    if (fit &&
        (!chosen || sum < least || (sum == least && strcmp(c->e->c->layout.hash, chosen->e->c->layout.hash) < 0)))
      least = sum, chosen = c;
  }
  return chosen;
}

/* ---- Ranges ------------------------------------------------------------------------------------------------------ */

static qn_dense dense_at(const qn_tuning *r, const qn_problem *p, int64_t m) {
  for (size_t i = 0; i < r->n_dense; i++)
    if (!p->experts && r->dense[i].n == p->n && r->dense[i].k == p->k && r->dense[i].m == m) return r->dense[i];
  return (qn_dense){0};
}

/* c is NULL where all that could serve were rejected meanwhile: the plan is made again (qn__run_settled). */
static void add_range(qn_plan *plan, int64_t m_min, const qn_racer *c) {
  if (!c) return;
  qn_range *x = &plan->range[plan->n_ranges++];
  *x = (qn_range){.m_min = m_min, .error = c->e->error};
  memcpy(x->variant, c->e->c->hash, sizeof x->variant);
}

static void add_point(const qn_contest *f, qn_plan *plan, const qn_point *x) {
  qn_dense dense = dense_at(f->r, &f->p->problem, x->m);
  qn_point *out = &plan->point[plan->n_points++];
  *out = *x;
  out->dense_seconds = dense.seconds;
  if (dense.disturbed) out->marks |= QN_DENSE_DISTURBED;
}

/* What the last tuning said of M; NULL: nothing, or it is not the plan for which that counts. */
static cJSON *remembered(const qn_contest *f, int64_t m, char key[QN_KEY]) {
  snprintf(key, QN_KEY, "%s%s M=%lld", f->p->problem.spelling, qn__run_share_name(f->p), (long long)m);
  return f->kind == QN_PLAN_FASTEST ? qn__store_get(f->r->store, "plan", key) : NULL;
}

/* Whom a busy machine made the winner has no privilege. */
static void incumbent_of(const qn_contest *f, int64_t m, char out[33]) {
  char key[QN_KEY];
  cJSON *j = remembered(f, m, key);
  const char *hash = cJSON_IsTrue(qn__json_get(j, "disturbed")) ? NULL : qn__json_text(j, "variant", NULL);
  snprintf(out, 33, "%s", hash ? hash : "");
  cJSON_Delete(j);
}

/* For the next tuning, whose incumbent it is, and for people. What was seen in quiet stays if this was not. */
static void remember(const qn_contest *f, const qn_racer *c, const qn_point *x) {
  char key[QN_KEY];
  cJSON *old = remembered(f, x->m, key);
  bool disturbed = x->marks & QN_DISTURBED, better = old && !cJSON_IsTrue(qn__json_get(old, "disturbed"));
  cJSON_Delete(old);
  if (f->kind != QN_PLAN_FASTEST || (disturbed && better)) return;
  cJSON *j = cJSON_CreateObject();
  qn__json_add_text(j, "variant", c->e->c->hash);
  qn__json_add_text(j, "name", c->e->c->name);
  qn__json_add_number(j, "seconds", x->seconds);
  qn__json_add_number(j, "spread", x->spread);
  qn__json_add_flag(j, "disturbed", disturbed);
  qn__json_add_number(j, "dense_seconds", x->dense_seconds);
  qn__json_add_number(j, "bandwidth", x->bandwidth);
  qn__json_add_number(j, "error", c->e->error);
  qn__run_keep(f->r, "plan", key, j);
  cJSON_Delete(j);
}

/* M from `from` to `to`, which the next winner does not serve: the kernel before goes on if it can, else the fastest
 * that can has them. */
static void fill_gap(const qn_contest *f, qn_plan *plan, int64_t from, int64_t to) {
  const qn_range *before = plan->n_ranges ? &plan->range[plan->n_ranges - 1] : NULL;
  const qn_candidate *c = before ? qn__run_entrant(f->r, before->variant)->c : NULL;
  if (!c || !qn__serves(c->m_min, c->m_max, from, to)) add_range(plan, from, runner(f, from, to));
}

/* From M `low` on `c` serves, or from where it can. */
static void begin_range(const qn_contest *f, qn_plan *plan, int64_t low, const qn_racer *c) {
  const char *before = plan->n_ranges ? plan->range[plan->n_ranges - 1].variant : NULL;
  if (before && !strcmp(before, c->e->c->hash)) return;
  int64_t begins = c->e->c->m_min;
  if (begins > low) fill_gap(f, plan, low, begins - 1);
  add_range(plan, begins > low ? begins : low, c);
}

/* `c` serves `to`, and the last range of the plan `from`, which is M number i - 1 or between that and `to`. Where one M
 * is more than twice the other, those that did well at either end meet half way, and so on in the halves. */
static qn_status divide(qn_contest *f, size_t i, int64_t from, int64_t to, const qn_racer *c, qn_plan *plan) {
  const char *before = plan->n_ranges ? plan->range[plan->n_ranges - 1].variant : NULL;
  const qn_racer *middle = NULL;
  qn_point x;
  int64_t half = (int64_t)sqrt((double)from * (double)to);
  if (half == from) half++;
  if (before && strcmp(before, c->e->c->hash) && to > 2 * from && plan->n_ranges < QN_PLAN_POINTS)
    QN_TRY(qn__contest_final(f, i - 1, i, half, NULL, before, &middle, &x));
  if (middle) {
    f->halfway |= x.marks & QN_DISTURBED;
    QN_TRY(divide(f, i, from, half, middle, plan));
    QN_TRY(divide(f, i, half, to, c, plan));
  } else begin_range(f, plan, from + 1, c);
  return QN_OK;
}

/* The final at M number i, whose winner serves it. `served`: the M that has the last range; 0: there is none. */
static qn_status add_final(qn_contest *f, size_t i, int64_t served, qn_plan *plan) {
  const qn_racer *c;
  const char *neighbour = plan->n_ranges ? plan->range[plan->n_ranges - 1].variant : NULL;
  qn_point x;
  char incumbent[33];
  incumbent_of(f, f->m[i], incumbent);
  f->r->until = qn__run_share(f->end, f->n_m - i);
  QN_TRY(qn__contest_final(f, i, i, f->m[i], *incumbent ? incumbent : NULL, neighbour, &c, &x));
  if (!c) return QN_OK; /* nobody had time for it: a neighbour serves */
  f->halfway = 0;
  QN_TRY(divide(f, i, served, f->m[i], c, plan));
  x.marks |= f->halfway;
  add_point(f, plan, &x);
  remember(f, c, &plan->point[plan->n_points - 1]);
  return QN_OK;
}

/* Where the last winner has an upper limit, the fastest kernel without one serves what lies beyond it. */
static void add_beyond(const qn_contest *f, qn_plan *plan) {
  const qn_range *x = &plan->range[plan->n_ranges - 1];
  int64_t limit = qn__run_entrant(f->r, x->variant)->c->m_max;
  if (limit) add_range(plan, limit + 1, runner(f, f->m[f->n_m - 1], 0));
}

/* A function of the user's may not be there when the pack is used. */
static void add_runners_up(const qn_contest *f, qn_plan *plan) {
  for (uint32_t i = 0; i < plan->n_ranges; i++) {
    qn_range *x = &plan->range[i];
    if (!qn__run_entrant(f->r, x->variant)->c->library) continue;
    const qn_racer *c = runner(f, x->m_min, i + 1 < plan->n_ranges ? plan->range[i + 1].m_min - 1 : 0);
    if (c) memcpy(x->runner_up, c->e->c->hash, sizeof x->runner_up);
  }
}

/* ---- Plans ------------------------------------------------------------------------------------------------------- */

static qn_status fill(qn_contest *f, qn_plan *plan) {
  for (size_t i = 0; i < f->n_m; i++)
    QN_TRY(add_final(f, i, plan->n_points ? plan->point[plan->n_points - 1].m : 0, plan));
  if (plan->n_ranges) add_beyond(f, plan);
  else add_range(plan, 1, runner(f, 1, 0)); /* nothing was timed */
  add_runners_up(f, plan);
  return QN_OK;
}

/* Does every row have the same bits at every M that was timed, at the full shape? Verifying asked at small ones. */
static qn_status check_rows(qn_contest *f, qn_entrant *e, bool *same) {
  qn_tuning *r = f->r;
  char key[QN_KEY];
  double error;
  int64_t most = f->m[f->n_m - 1];
  snprintf(key, sizeof key, "rows %s %s M=%lld", f->p->problem.spelling, e->c->hash, (long long)most);
  cJSON *known = qn__store_get(r->store, "evidence", key);
  *same = true;
  r->counts.verify_known += known != NULL;
  if (!known && !qn__run_late(r)) {
    QN_TRY(qn__run_question(r, e, key, &(qn_ask){.op = "rows", .p = f->p, .e = e, .m = most}, &error, same));
    r->counts.verified++;
    known = cJSON_CreateObject();
    qn__json_add_text(known, "name", e->c->name);
    if (*same) qn__run_keep(r, "evidence", key, known);
  }
  cJSON_Delete(known);
  return QN_OK;
}

/* One kernel for every M, so that a row's bits never depend on how many there are. */
static qn_status fill_invariant(qn_contest *f, qn_plan *plan) {
  const qn_racer *c;
  for (bool same = false; !same && (c = runner(f, 1, 0));)
    if (f->n_m) QN_TRY(check_rows(f, c->e, &same));
    else same = true;
  if (!c) return QN_OK;
  plan->layout = c->e->c->layout;
  add_range(plan, 1, c);
  for (size_t i = 0; i < f->n_m; i++)
    if (c->lap[i].seconds > 0) add_point(f, plan, &c->lap[i]);
  return QN_OK;
}

static qn_status make_plan(qn_contest *f, qn_plan_kind kind, qn_plan *plan) {
  f->kind = kind;
  f->layout = NULL;
  *plan = (qn_plan){.problem = f->p->problem, .kind = kind, .format = f->p->format};
  if (kind == QN_PLAN_BATCH_INVARIANT) return fill_invariant(f, plan);
  for (size_t i = 0; i < f->n_m; i++) {
    f->r->until = qn__run_share(f->end, 2 * (f->n_m - i));
    QN_TRY(qn__contest_layouts(f, i));
  }
  const qn_racer *c = choose_layout(f);
  if (!c) return QN_OK;
  plan->layout = c->e->c->layout;
  f->layout = plan->layout.hash;
  return fill(f, plan);
}

/* Would it be made again if only deterministic kernels took part? */
static bool is_deterministic(const qn_contest *f, const qn_plan *plan) {
  for (uint32_t i = 0; i < plan->n_ranges; i++)
    if (!qn__run_entrant(f->r, plan->range[i].variant)->c->recipe.deterministic) return false;
  return true;
}

static qn_status none_left(const qn_contest *f) {
  size_t aside = f->r->counts.set_aside;
  return qn__fail(QN_E_NO_KERNEL, "%s: no candidate survived for every M%s", f->p->problem.spelling,
                  aside ? "; some were set aside for this run only" : "");
}

/* First the batch-invariant one: who breaks that promise there has no place in the others. */
static qn_status add_plans(qn_contest *f, qn_plan *plan, qn_tune_result *out) {
  QN_TRY(make_plan(f, QN_PLAN_BATCH_INVARIANT, plan));
  if (plan->n_ranges) QN_TRY(qn__result_add_plan(out, plan));
  QN_TRY(make_plan(f, QN_PLAN_FASTEST, plan));
  if (!plan->n_ranges) return qn__run_settled(f->r) ? none_left(f) : QN_OK;
  QN_TRY(qn__result_add_plan(out, plan));
  if (is_deterministic(f, plan)) plan->kind = QN_PLAN_DETERMINISTIC;
  else QN_TRY(make_plan(f, QN_PLAN_DETERMINISTIC, plan));
  return plan->n_ranges ? qn__result_add_plan(out, plan) : QN_OK;
}

/* Choose the layout and add the plans of every kind. */
static qn_status contest_plans(qn_contest *f, qn_tune_result *out) {
  qn_plan *plan = calloc(1, sizeof *plan);
  qn_status s = plan ? add_plans(f, plan, out) : qn__fail(QN_E_NOMEM, "no memory for a plan");
  free(plan);
  return s;
}

/* ---- The dense product ------------------------------------------------------------------------------------------- */

/* What the other library's product takes; 0 seconds: it is not there or there is no time. */
static qn_dense blas(qn_contest *f, int64_t m) {
  qn_tuning *r = f->r;
  char key[QN_KEY];
  double t[QN_DENSE_REPS];
  qn_dense out = {f->p->problem.n, f->p->problem.k, m, 0, false};
  snprintf(key, sizeof key, "blas %s M=%lld", f->p->problem.spelling, (long long)m);
  cJSON *known = qn__run_known(r, key, "seconds", 0), *answer = NULL;
  bool wanted = known ? qn__run_again(r, known) : !qn__run_late(r);
  if (wanted && !qn__run_ask(r, &(qn_ask){.op = "blas", .p = f->p, .m = m}, &answer)) {
    size_t n = qn__run_samples(answer, "seconds", t, 0, QN_COUNT(t));
    cJSON_Delete(known);
    known = cJSON_CreateObject();
    qn__json_add_number(known, "seconds", qn__median(t, n));
    qn__run_sign(r, known, qn__spread(t, n), qn__disturbed(qn__json_int(answer, "disturbed", 0), n));
    qn__run_keep(r, "evidence", key, known);
  }
  cJSON_Delete(answer);
  out.seconds = qn__json_number(known, "seconds", 0);
  out.disturbed = cJSON_IsTrue(qn__json_get(known, "disturbed"));
  cJSON_Delete(known);
  return out;
}

/* The better of our own kernels and the other library. */
static qn_status note_dense(qn_contest *f, size_t i) {
  qn_tuning *r = f->r;
  qn_dense best = blas(f, f->m[i]);
  qn_dense *list = realloc(r->dense, (r->n_dense + 1) * sizeof *list);
  if (!list) return qn__fail(QN_E_NOMEM, "no memory for baselines");
  r->dense = list;
  for (const qn_racer *c = f->racer; c < f->racer + f->n; c++)
    if (qn__contest_stands(f, c) && c->lap[i].seconds > 0 && (!best.seconds || c->lap[i].seconds < best.seconds))
      best.seconds = c->lap[i].seconds, best.disturbed = c->lap[i].marks & QN_DISTURBED;
  list[r->n_dense++] = best;
  return QN_OK;
}

/* ---- One problem ------------------------------------------------------------------------------------------------- */

qn_status qn__run_problem(qn_tuning *r, const qn_tune_problem *p, qn_tune_result *out) {
  qn_contest *f = calloc(1, sizeof *f);
  if (!f || !(f->racer = calloc(p->n_candidates + 1, sizeof *f->racer))) {
    free(f);
    return qn__fail(QN_E_NOMEM, "no memory for %zu candidates", p->n_candidates);
  }
  f->r = r, f->p = p, f->n = p->n_candidates, f->end = r->until;
  for (size_t k = 0; k < f->n; k++) f->racer[k].e = qn__run_entrant(r, qn__run_candidate(r, p, k)->hash);
  qn_status s = qn__contest_race(f);
  r->until = f->end;
  for (size_t i = 0; s == QN_OK && p->baseline && i < f->n_m; i++) s = note_dense(f, i);
  if (s == QN_OK && !p->baseline) s = contest_plans(f, out);
  free(f->racer);
  free(f);
  return s;
}
