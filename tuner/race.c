/* race.c - one problem: race every candidate at every M, choose the layout, hold finals within it, make the plans.
 *
 * Race: 1, 3, then 10 samples; who is beyond 3, 1.5 or 1.15 times the best so far stops there. Finals: the best eight
 * of the chosen layout and the incumbent, in interleaved rounds of random order. Whoever cannot be told from the winner
 * by the ratios of their rounds shares its place, and the place goes to the incumbent, else to fewer resources, else to
 * the smaller hash. Reasons: design after FlashInfer's and Helion's accounts of unstable winners. */
#include "case.h"
#include "data.h"
#include "fail.h"
#include "measure.h"
#include "run.h"
#include "stats.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { finalists = 8, most_rounds = 64, ask_seconds = 180 };
static const int rounds_of[] = {7, 15, 41}; /* quick, normal, full */
#define TIE 0.01                            /* nearer than this is a tie whatever the interval says */
#define REPLACE 0.02                        /* an incumbent goes only for this much */

typedef struct lap {
  double seconds; /* median; 0: not timed at this M */
} lap;

typedef struct racer {
  qn_entrant *e;
  int64_t bytes;
  lap lap[QN_PLAN_RANGES];
} racer;

typedef struct field {
  qn_tuning *r;
  const qn_tune_problem *p;
  racer *racer;
  size_t n;
  double best[QN_PLAN_RANGES], bandwidth[QN_PLAN_RANGES];
} field;

static bool serves(const qn_candidate *c, int64_t m) { return m >= c->m_min && (!c->m_max || m <= c->m_max); }
static double number(const cJSON *j, const char *key) {
  const cJSON *x = cJSON_GetObjectItemCaseSensitive(j, key);
  return cJSON_IsNumber(x) ? x->valuedouble : 0;
}

/* ---- Asking the worker ----------------------------------------------------------------------------------------------
 */

typedef struct ask {
  const char *op;
  int slot, reps;
  int64_t m;
  const qn_tune_problem *p;
  const qn_entrant *e;
} ask;

static cJSON *request(void *ud) {
  const ask *a = ud;
  cJSON *j = cJSON_CreateObject(), *c = NULL;
  cJSON_AddStringToObject(j, "op", a->op);
  cJSON_AddNumberToObject(j, "slot", a->slot);
  cJSON_AddNumberToObject(j, "reps", a->reps);
  cJSON_AddNumberToObject(j, "m", (double)a->m);
  cJSON_AddNumberToObject(j, "n", (double)a->p->problem.n);
  cJSON_AddNumberToObject(j, "k", (double)a->p->problem.k);
  if (a->e && qn__run_case(a->p, a->e, &c) == QN_OK) cJSON_AddItemToObject(j, "case", c);
  return j;
}

/* Not journaled: the caller is. */
static qn_status tell(field *f, ask a, cJSON **answer, bool *died) {
  a.p = f->p;
  return qn__supervisor_ask(&f->r->supervisor, request(&a), ask_seconds, answer, died);
}

/* ---- Race
 * -------------------------------------------------------------------------------------------------------------- */

/* Append an answer's samples; returns how many there are now. */
static size_t take(const cJSON *answer, const char *key, double *x, size_t n, size_t most) {
  const cJSON *item;
  cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(answer, key)) if (n < most) x[n++] = item->valuedouble;
  return n;
}

typedef struct timing {
  double seconds, bandwidth, error;
  int64_t bytes;
  size_t reps;
} timing;

/* Open one candidate at one M and time it as long as it is worth it. */
static qn_status measure(field *f, racer *c, int64_t m, double best, timing *out, bool *died) {
  static const struct {
    int reps;
    double limit;
  } heats[] = {{1, 3}, {3, 1.5}, {10, 1.15}};
  double t[16], bw[16];
  size_t n = 0, n_bw = 0;
  cJSON *answer;
  *out = (timing){0};
  qn_status s = tell(f, (ask){.op = "open", .m = m, .e = c->e}, &answer, died);
  out->error = number(answer, "error");
  out->bytes = (int64_t)number(answer, "bytes");
  cJSON_Delete(answer);
  for (size_t h = 0; s == QN_OK && h < QN_COUNT(heats); h++) {
    s = tell(f, (ask){.op = "time", .reps = heats[h].reps - (int)n}, &answer, died);
    n = take(answer, "seconds", t, n, 16);
    n_bw = take(answer, "bandwidth", bw, n_bw, 16);
    cJSON_Delete(answer);
    out->seconds = qn__median(t, n);
    if (best > 0 && out->seconds > heats[h].limit * best) break;
  }
  if (s == QN_OK) s = tell(f, (ask){.op = "check"}, &answer, died), cJSON_Delete(answer);
  out->bandwidth = qn__median(bw, n_bw);
  out->reps = n;
  return s;
}

static cJSON *evidence_of(const racer *c, const timing *t, qn_status s) {
  cJSON *j = cJSON_CreateObject();
  cJSON_AddStringToObject(j, "name", c->e->c->name);
  cJSON *params = cJSON_Parse(c->e->c->params ? c->e->c->params : "{}");
  if (params) cJSON_AddItemToObject(j, "params", params);
  if (s != QN_OK) cJSON_AddStringToObject(j, "rejected", qn__errmsg());
  cJSON_AddNumberToObject(j, "seconds", t->seconds);
  cJSON_AddNumberToObject(j, "reps", (double)t->reps);
  cJSON_AddNumberToObject(j, "bandwidth", t->bandwidth);
  cJSON_AddNumberToObject(j, "error", t->error);
  cJSON_AddNumberToObject(j, "bytes", (double)t->bytes);
  return j;
}

static void read_evidence(field *f, racer *c, size_t i, const cJSON *j) {
  const char *why = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, "rejected"));
  double bandwidth = number(j, "bandwidth"), error = number(j, "error");
  if (why) {
    qn__run_reject(f->r, c->e, why);
    return;
  }
  c->lap[i].seconds = number(j, "seconds");
  c->bytes = (int64_t)number(j, "bytes");
  if (error > c->e->error) c->e->error = error;
  if (c->lap[i].seconds > 0 && (!f->best[i] || c->lap[i].seconds < f->best[i])) f->best[i] = c->lap[i].seconds;
  if (bandwidth > f->bandwidth[i]) f->bandwidth[i] = bandwidth;
  if (bandwidth > f->r->peak_bandwidth) f->r->peak_bandwidth = bandwidth;
}

/* A failure of the kernel, not of the run. */
static bool blames_kernel(qn_status s) {
  return s == QN_E_WRONG || s == QN_E_CUDA || s == QN_E_FORMAT || s == QN_E_LIMIT;
}

static qn_status race_one(field *f, racer *c, size_t i) {
  qn_tuning *r = f->r;
  char key[320];
  snprintf(key, sizeof key, "race %s %s M=%lld", f->p->problem.spelling, c->e->c->hash, (long long)r->m[i]);
  cJSON *j = qn_store_get(r->store, "evidence", key);
  if (j) {
    r->counts.timed_known++;
    read_evidence(f, c, i, j);
    cJSON_Delete(j);
    return QN_OK;
  }
  if (qn__run_late(r) && f->best[i] > 0) return QN_OK;
  timing t = {0};
  qn_status s = QN_OK;
  bool died = true;
  if (qn__journal_suspect(r->store, key))
    s = qn__fail(QN_E_WRONG, "two runs ended while it was being timed"), died = false;
  for (int attempt = 0; died && attempt < 2; attempt++) {
    QN_TRY(qn__journal_begin(&r->journal, key));
    s = measure(f, c, r->m[i], f->best[i], &t, &died);
    QN_TRY(qn__journal_end(&r->journal));
  }
  if (s != QN_OK && !blames_kernel(s)) return s;
  r->counts.timed++;
  j = evidence_of(c, &t, s);
  read_evidence(f, c, i, j);
  s = qn_store_put(r->store, "evidence", key, j);
  cJSON_Delete(j);
  return s;
}

static qn_status race(field *f) {
  qn_tuning *r = f->r;
  for (size_t i = 0; i < r->n_m; i++)
    for (size_t k = 0; k < f->n; k++) {
      racer *c = &f->racer[k];
      if (c->e->alive && serves(c->e->c, r->m[i])) QN_TRY(race_one(f, c, i));
      r->done++;
      qn__run_show(r, "race", f->p->problem.spelling, c->e->c->name, r->m[i], f->best[i], NULL);
    }
  return QN_OK;
}

/* ---- Layout
 * ------------------------------------------------------------------------------------------------------------- */

/* Best lap of a layout at M number i, among all that serve its range or, `open`, those without an upper limit. */
static const racer *fastest(const field *f, const char *layout, size_t i, bool open) {
  const racer *best = NULL;
  int64_t low = i ? f->r->m[i - 1] + 1 : 1;
  for (const racer *c = f->racer; c < f->racer + f->n; c++) {
    if (!c->e->alive || !(c->lap[i].seconds > 0) || (layout && strcmp(c->e->c->layout.hash, layout))) continue;
    if (c->e->c->m_min > low || (open && c->e->c->m_max)) continue;
    if (!best || c->lap[i].seconds < best->lap[i].seconds) best = c;
  }
  return best;
}

/* The layout with the least weighted sum of log times over the M profile; among equals the smaller hash. */
static const char *choose_layout(const field *f) {
  const char *chosen = NULL;
  double least = INFINITY;
  for (size_t k = 0; k < f->n; k++) {
    const char *layout = f->racer[k].e->c->layout.hash;
    double sum = 0;
    for (size_t i = 0; i < f->r->n_m; i++) {
      const racer *c = fastest(f, layout, i, false);
      double weight = f->r->options->m_weight ? f->r->options->m_weight[i] : 1;
      sum += c ? weight * log(c->lap[i].seconds) : INFINITY;
    }
    if (!fastest(f, layout, f->r->n_m - 1, true)) sum = INFINITY; /* nothing would serve what lies beyond */
    if (sum < least || (sum == least && chosen && strcmp(layout, chosen) < 0)) least = sum, chosen = layout;
  }
  return least < INFINITY ? chosen : NULL;
}

/* ---- Finals
 * ------------------------------------------------------------------------------------------------------------- */

typedef struct final {
  const racer *c;
  double t[most_rounds];
  double seconds;
} final;

static int by_lap_index; /* qsort has no context; the supervisor is one thread */
static int by_lap(const void *a, const void *b) {
  double x = (*(const racer *const *)a)->lap[by_lap_index].seconds,
         y = (*(const racer *const *)b)->lap[by_lap_index].seconds;
  if (x != y) return x < y ? -1 : 1;
  return strcmp((*(const racer *const *)a)->e->c->hash, (*(const racer *const *)b)->e->c->hash);
}

/* Who meets in the finals: sorted by lap, at most `finalists`, none beyond 1.15 times the best. */
static size_t invite(const field *f, const char *layout, size_t i, const char *incumbent, final *out) {
  const racer **all = calloc(f->n + 1, sizeof *all);
  size_t n = 0, invited = 0;
  int64_t low = i ? f->r->m[i - 1] + 1 : 1;
  for (size_t k = 0; all && k < f->n; k++) {
    const racer *c = &f->racer[k];
    if (c->e->alive && c->lap[i].seconds > 0 && !strcmp(c->e->c->layout.hash, layout) && c->e->c->m_min <= low)
      all[n++] = c;
  }
  by_lap_index = (int)i;
  if (n) qsort(all, n, sizeof *all, by_lap);
  for (size_t k = 0; k < n; k++)
    if ((invited < finalists && all[k]->lap[i].seconds <= 1.15 * all[0]->lap[i].seconds) ||
        (incumbent && !strcmp(all[k]->e->c->hash, incumbent)))
      out[invited++] = (final){.c = all[k]};
  free(all);
  return invited;
}

/* *culprit: who was asked last. */
static qn_status hold(field *f, final *list, size_t n, int64_t m, int rounds, size_t *culprit, bool *died) {
  uint64_t seed = 7;
  cJSON *answer;
  for (size_t k = 0; k < n; k++) {
    *culprit = k;
    QN_TRY(tell(f, (ask){.op = "open", .slot = (int)k, .m = m, .e = list[k].c->e}, &answer, died));
    cJSON_Delete(answer);
  }
  for (int round = 0; round < rounds; round++) {
    size_t order[finalists + 1];
    for (size_t k = 0; k < n; k++) order[k] = k;
    for (size_t k = n; k-- > 1;) {
      size_t with = qn__random(&seed) % (k + 1), keep = order[k];
      order[k] = order[with], order[with] = keep;
    }
    for (size_t k = 0; k < n; k++) {
      *culprit = order[k];
      qn_status s = tell(f, (ask){.op = "time", .slot = (int)order[k], .reps = 1}, &answer, died);
      take(answer, "seconds", list[order[k]].t + round, 0, 1);
      cJSON_Delete(answer);
      QN_TRY(s);
    }
  }
  for (size_t k = 0; k < n; k++) {
    list[k].seconds = qn__median(list[k].t, (size_t)rounds);
    *culprit = k;
    qn_status s = tell(f, (ask){.op = "check", .slot = (int)k}, &answer, died);
    cJSON_Delete(answer);
    QN_TRY(s);
  }
  return QN_OK;
}

/* The winner by the rule of the file's head. */
static const final *decide(const final *list, size_t n, size_t rounds, const char *incumbent) {
  const final *best = list, *winner;
  for (const final *x = list; x < list + n; x++)
    if (x->seconds < best->seconds) best = x;
  winner = best;
  for (const final *x = list; x < list + n; x++) {
    double low, high;
    qn__ratio_interval(x->t, best->t, rounds, &low, &high);
    bool current = incumbent && !strcmp(x->c->e->c->hash, incumbent);
    bool tied = low <= 1 || x->seconds <= best->seconds * (1 + (current ? REPLACE : TIE));
    if (current && tied) return x;
    if (!tied) continue;
    int64_t cost = x->c->e->c->cost - winner->c->e->c->cost;
    if (cost < 0 || (!cost && strcmp(x->c->e->c->hash, winner->c->e->c->hash) < 0)) winner = x;
  }
  return winner;
}

static qn_status store_final(qn_tuning *r, const char *key, const final *winner, size_t n) {
  cJSON *j = cJSON_CreateObject();
  cJSON_AddStringToObject(j, "winner", winner->c->e->c->hash);
  cJSON_AddStringToObject(j, "name", winner->c->e->c->name);
  cJSON_AddNumberToObject(j, "seconds", winner->seconds);
  cJSON_AddNumberToObject(j, "finalists", (double)n);
  r->counts.timed++;
  qn_status s = qn_store_put(r->store, "evidence", key, j);
  cJSON_Delete(j);
  return s;
}

static qn_status final_at(field *f, const char *layout, size_t i, const char *incumbent, qn_range *out) {
  qn_tuning *r = f->r;
  final list[finalists + 1];
  char key[400], set[(finalists + 1) * 33] = "", hash[33];
  size_t n = invite(f, layout, i, incumbent, list);
  int rounds = rounds_of[r->options->effort < 0 || r->options->effort > 2 ? 0 : r->options->effort];
  for (size_t k = 0; k < n; k++) strcat(set, list[k].c->e->c->hash);
  qn_hash_hex(set, strlen(set), hash);
  snprintf(key, sizeof key, "finals %s M=%lld rounds=%d %s", f->p->problem.spelling, (long long)r->m[i], rounds, hash);
  const final *winner = &list[0];
  cJSON *known = qn_store_get(r->store, "evidence", key);
  const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(known, "winner"));
  for (size_t k = 0; name && k < n; k++)
    if (!strcmp(list[k].c->e->c->hash, name)) winner = &list[k];
  double seconds = known ? number(known, "seconds") : winner->c->lap[i].seconds;
  if (known) r->counts.timed_known++;
  for (bool held = known || qn__run_late(r); !held && n > 1;) {
    bool died = false;
    size_t culprit = 0;
    qn_status s = hold(f, list, n, r->m[i], rounds, &culprit, &died);
    if (s != QN_OK && !died && !blames_kernel(s)) return s;
    held = s == QN_OK;
    if (held) {
      winner = decide(list, n, (size_t)rounds, incumbent);
      QN_TRY(store_final(r, key, winner, n));
    } else { /* it is out, and the others meet again */
      qn__run_reject(r, list[culprit].c->e, qn__errmsg());
      memmove(&list[culprit], &list[culprit + 1], (--n - culprit) * sizeof *list);
    }
    seconds = held ? winner->seconds : winner->c->lap[i].seconds;
  }
  cJSON_Delete(known);
  out->m_tuned = r->m[i];
  out->m_min = i ? r->m[i - 1] + 1 : 1;
  out->seconds = seconds;
  out->bandwidth = f->bandwidth[i];
  out->error = winner->c->e->error;
  memcpy(out->variant, winner->c->e->c->hash, sizeof out->variant);
  qn__run_show(r, "finals", f->p->problem.spelling, winner->c->e->c->name, r->m[i], seconds, NULL);
  return QN_OK;
}

/* ---- Plans
 * -------------------------------------------------------------------------------------------------------------- */

/* The dense product at M number i: the better of our own f32 kernels and OpenBLAS. */
static qn_status dense_at(field *f, size_t i) {
  qn_tuning *r = f->r;
  char key[320];
  snprintf(key, sizeof key, "blas %s M=%lld", f->p->problem.spelling, (long long)r->m[i]);
  cJSON *known = qn_store_get(r->store, "evidence", key);
  double blas = number(known, "seconds");
  if (!known && !strcmp(r->supervisor.info.target, "host")) {
    cJSON *answer;
    qn_status s = tell(f, (ask){.op = "blas", .m = r->m[i]}, &answer, NULL);
    blas = s == QN_OK ? number(answer, "seconds") : 0;
    cJSON_Delete(answer);
    cJSON *j = cJSON_CreateObject();
    cJSON_AddNumberToObject(j, "seconds", blas);
    s = qn_store_put(r->store, "evidence", key, j);
    cJSON_Delete(j);
    QN_TRY(s);
  }
  cJSON_Delete(known);
  double ours = f->best[i];
  qn_dense *list = realloc(r->dense, (r->n_dense + 1) * sizeof *list);
  if (!list) return qn__fail(QN_E_NOMEM, "no memory for baselines");
  r->dense = list;
  list[r->n_dense++] =
      (qn_dense){f->p->problem.n, f->p->problem.k, r->m[i], ours > 0 && (!blas || ours < blas) ? ours : blas};
  return QN_OK;
}

static double dense_seconds(const qn_tuning *r, const qn_problem *p, int64_t m) {
  for (size_t i = 0; i < r->n_dense; i++)
    if (r->dense[i].n == p->n && r->dense[i].k == p->k && r->dense[i].m == m) return r->dense[i].seconds;
  return 0;
}

static void incumbent_of(qn_tuning *r, const qn_problem *p, int64_t m, char out[33]) {
  char key[200];
  snprintf(key, sizeof key, "%s M=%lld", p->spelling, (long long)m);
  cJSON *j = qn_store_get(r->store, "plan", key);
  const char *hash = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, "variant"));
  snprintf(out, 33, "%s", hash ? hash : "");
  cJSON_Delete(j);
}

static qn_status remember(qn_tuning *r, const qn_problem *p, const qn_range *x) {
  char key[200];
  snprintf(key, sizeof key, "%s M=%lld", p->spelling, (long long)x->m_tuned);
  cJSON *j = cJSON_CreateObject();
  cJSON_AddStringToObject(j, "variant", x->variant);
  const qn_entrant *e = qn__run_entrant(r, x->variant);
  cJSON_AddStringToObject(j, "name", e ? e->c->name : "");
  cJSON_AddNumberToObject(j, "seconds", x->seconds);
  cJSON_AddNumberToObject(j, "dense_seconds", x->dense_seconds);
  cJSON_AddNumberToObject(j, "bandwidth", x->bandwidth);
  cJSON_AddNumberToObject(j, "error", x->error);
  qn_status s = qn_store_put(r->store, "plan", key, j);
  cJSON_Delete(j);
  return s;
}

/* Where the last winner has an upper limit, the fastest kernel without one serves what lies beyond it. */
static void add_beyond(field *f, const char *layout, qn_plan *plan) {
  size_t last = f->r->n_m - 1;
  const qn_range *x = &plan->range[plan->n_ranges - 1];
  int64_t limit = qn__run_entrant(f->r, x->variant)->c->m_max;
  const racer *c = fastest(f, layout, last, true);
  if (!limit || !c || plan->n_ranges == QN_PLAN_RANGES) return;
  qn_range *beyond = &plan->range[plan->n_ranges++];
  *beyond = *x;
  beyond->m_min = limit + 1;
  beyond->seconds = c->lap[last].seconds;
  beyond->error = c->e->error;
  memcpy(beyond->variant, c->e->c->hash, sizeof beyond->variant);
}

static qn_status fastest_plan(field *f, const char *layout, qn_plan *plan) {
  qn_tuning *r = f->r;
  for (size_t i = 0; i < r->n_m; i++) {
    char incumbent[33];
    incumbent_of(r, &f->p->problem, r->m[i], incumbent);
    qn_range *x = &plan->range[plan->n_ranges++];
    QN_TRY(final_at(f, layout, i, *incumbent ? incumbent : NULL, x));
    x->dense_seconds = dense_seconds(r, &f->p->problem, r->m[i]);
    QN_TRY(remember(r, &f->p->problem, x));
  }
  add_beyond(f, layout, plan);
  return QN_OK;
}

/* One kernel for every M, so that a row's bits never depend on how many there are: the least sum of log times. */
static bool invariant_plan(field *f, const char *layout, qn_plan *plan) {
  const racer *best = NULL;
  double least = INFINITY;
  for (const racer *c = f->racer; c < f->racer + f->n; c++) {
    double sum = 0;
    if (!c->e->alive || strcmp(c->e->c->layout.hash, layout) || !c->e->c->recipe.batch_invariant || c->e->c->m_max ||
        c->e->c->m_min > 1)
      continue;
    for (size_t i = 0; i < f->r->n_m; i++) sum += c->lap[i].seconds > 0 ? log(c->lap[i].seconds) : INFINITY;
    if (sum < least) least = sum, best = c;
  }
  if (!best) return false;
  plan->n_ranges = 1;
  plan->range[0] = (qn_range){.m_min = 1,
                              .m_tuned = f->r->m[0],
                              .seconds = best->lap[0].seconds,
                              .error = best->e->error,
                              .dense_seconds = dense_seconds(f->r, &f->p->problem, f->r->m[0]),
                              .bandwidth = f->bandwidth[0]};
  memcpy(plan->range[0].variant, best->e->c->hash, sizeof plan->range[0].variant);
  return true;
}

static bool deterministic(const qn_tuning *r, const qn_plan *p) {
  for (uint32_t i = 0; i < p->n_ranges; i++) {
    const qn_entrant *e = qn__run_entrant((qn_tuning *)(uintptr_t)r, p->range[i].variant);
    if (!e || !e->c->recipe.deterministic) return false;
  }
  return true;
}

static qn_status make_plans(field *f, qn_tune_result *out) {
  const char *layout = choose_layout(f);
  if (!layout) return qn__fail(QN_E_NO_KERNEL, "%s: no candidate survived for every M", f->p->problem.spelling);
  qn_plan *plan = calloc(1, sizeof *plan);
  if (!plan) return qn__fail(QN_E_NOMEM, "no memory for a plan");
  *plan = (qn_plan){.problem = f->p->problem, .kind = QN_PLAN_FASTEST, .format = f->p->format};
  for (size_t k = 0; k < f->n; k++)
    if (!strcmp(f->racer[k].e->c->layout.hash, layout)) plan->layout = f->racer[k].e->c->layout;
  qn_status s = fastest_plan(f, layout, plan);
  if (s == QN_OK) s = qn__result_add_plan(out, plan);
  if (s == QN_OK && deterministic(f->r, plan)) {
    plan->kind = QN_PLAN_DETERMINISTIC;
    s = qn__result_add_plan(out, plan);
  }
  plan->kind = QN_PLAN_BATCH_INVARIANT;
  if (s == QN_OK && invariant_plan(f, layout, plan)) s = qn__result_add_plan(out, plan);
  free(plan);
  return s;
}

qn_status qn__run_problem(qn_tuning *r, const qn_tune_problem *p, qn_tune_result *out) {
  field *f = calloc(1, sizeof *f);
  if (!f || !(f->racer = calloc(p->n_candidates + 1, sizeof *f->racer))) {
    free(f);
    return qn__fail(QN_E_NOMEM, "no memory for %zu candidates", p->n_candidates);
  }
  f->r = r, f->p = p, f->n = p->n_candidates;
  for (size_t k = 0; k < f->n; k++) f->racer[k].e = qn__run_entrant(r, p->candidate[k].hash);
  qn_status s = race(f);
  for (size_t i = 0; s == QN_OK && p->baseline && i < r->n_m; i++) s = dense_at(f, i);
  if (s == QN_OK && !p->baseline) s = make_plans(f, out);
  free(f->racer);
  free(f);
  return s;
}
