/* race.c - one problem: every candidate is timed at every M, as long as it is worth it.
 *
 * 1, 3, then 10 samples; who is beyond 3, 1.5 or 1.15 times the best so far stops there. */
#include "contest.h"
#include "fail.h"
#include "measure.h"
#include "stats.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double number(const cJSON *j, const char *key) {
  const cJSON *x = cJSON_GetObjectItemCaseSensitive(j, key);
  return cJSON_IsNumber(x) ? x->valuedouble : 0;
}

bool qn__contest_stands(const qn_contest *f, const qn_racer *c) {
  const qn_recipe *recipe = &c->e->c->recipe;
  const bool fit[QN_PLAN_KINDS] = {true, recipe->deterministic, recipe->batch_invariant};
  return c->e->alive && c->e->verified && fit[f->kind] && (!f->layout || !strcmp(f->layout, c->e->c->layout.hash));
}

/* ---- One candidate at one M ----------------------------------------------------------------------------------------
 */

typedef struct timing {
  double seconds, bandwidth, error;
  size_t reps;
} timing;

/* Append an answer's samples; returns how many there are now. */
static size_t append(const cJSON *answer, const char *key, double *x, size_t n, size_t most) {
  const cJSON *item;
  cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(answer, key)) if (n < most) x[n++] = item->valuedouble;
  return n;
}

static qn_status measure(qn_contest *f, const qn_racer *c, int64_t m, double best, timing *out, bool *died) {
  static const struct {
    int reps;
    double limit;
  } heats[] = {{1, 3}, {3, 1.5}, {10, 1.15}};
  enum { most = 16 };
  double t[most], bw[most];
  size_t n = 0, n_bw = 0;
  cJSON *answer;
  *out = (timing){0};
  qn_status s = qn__run_tell(f->r, &(qn_ask){.op = "open", .p = f->p, .m = m, .e = c->e}, &answer, died);
  out->error = number(answer, "error");
  cJSON_Delete(answer);
  for (size_t h = 0; s == QN_OK && h < QN_COUNT(heats); h++) {
    s = qn__run_tell(f->r, &(qn_ask){.op = "time", .p = f->p, .reps = heats[h].reps - (int)n}, &answer, died);
    n = append(answer, "seconds", t, n, most);
    n_bw = append(answer, "bandwidth", bw, n_bw, most);
    cJSON_Delete(answer);
    out->seconds = qn__median(t, n);
    if (best > 0 && out->seconds > heats[h].limit * best) break;
  }
  if (s == QN_OK) s = qn__run_tell(f->r, &(qn_ask){.op = "check", .p = f->p}, &answer, died), cJSON_Delete(answer);
  out->bandwidth = qn__median(bw, n_bw);
  out->reps = n;
  return s;
}

static cJSON *evidence_of(const qn_racer *c, const timing *t, qn_status s) {
  cJSON *j = cJSON_CreateObject();
  cJSON_AddStringToObject(j, "name", c->e->c->name);
  cJSON *params = cJSON_Parse(c->e->c->params ? c->e->c->params : "{}");
  if (params) cJSON_AddItemToObject(j, "params", params);
  if (s != QN_OK) cJSON_AddStringToObject(j, "rejected", qn__errmsg());
  cJSON_AddNumberToObject(j, "seconds", t->seconds);
  cJSON_AddNumberToObject(j, "reps", (double)t->reps);
  cJSON_AddNumberToObject(j, "bandwidth", t->bandwidth);
  cJSON_AddNumberToObject(j, "error", t->error);
  return j;
}

static void read_evidence(qn_contest *f, qn_racer *c, size_t i, const cJSON *j) {
  const char *why = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, "rejected"));
  double bandwidth = number(j, "bandwidth"), error = number(j, "error");
  if (why) {
    qn__run_reject(f->r, c->e, why);
    return;
  }
  c->lap[i] = number(j, "seconds");
  if (error > c->e->error) c->e->error = error;
  if (c->lap[i] > 0 && (!f->best[i] || c->lap[i] < f->best[i])) f->best[i] = c->lap[i];
  if (bandwidth > f->bandwidth[i]) f->bandwidth[i] = bandwidth;
  if (bandwidth > f->r->peak_bandwidth) f->r->peak_bandwidth = bandwidth;
}

/* Measure, journaled; a worker that dies is given a second chance. */
static qn_status try_twice(qn_contest *f, const qn_racer *c, const char *key, int64_t m, double best, timing *t) {
  qn_status s = QN_OK;
  bool died = true;
  if (qn__journal_suspect(f->r->store, key)) return qn__fail(QN_E_WRONG, "the machine went down in it, twice");
  for (int attempt = 0; died && attempt < 2; attempt++) {
    QN_TRY(qn__journal_begin(&f->r->journal, key));
    s = measure(f, c, m, best, t, &died);
    QN_TRY(qn__journal_end(&f->r->journal));
  }
  return s;
}

/* What the store knows is taken from there, however late it is. */
static qn_status race_one(qn_contest *f, qn_racer *c, size_t i, int64_t m) {
  qn_tuning *r = f->r;
  char key[320];
  timing t = {0};
  snprintf(key, sizeof key, "race %s %s M=%lld", f->p->problem.spelling, c->e->c->hash, (long long)m);
  cJSON *j = qn_store_get(r->store, "evidence", key);
  qn_status s = QN_OK;
  if (j) r->counts.timed_known++;
  else if (qn__run_late(r)) return QN_OK;
  else {
    s = try_twice(f, c, key, m, f->best[i], &t);
    if (s != QN_OK && !qn__run_blames(s)) return s;
    r->counts.timed++;
    j = evidence_of(c, &t, s);
    s = qn_store_put(r->store, "evidence", key, j);
  }
  read_evidence(f, c, i, j);
  cJSON_Delete(j);
  return s;
}

qn_status qn__contest_race(qn_contest *f) {
  qn_tuning *r = f->r;
  for (size_t j = 0; j < r->n_m; j++) {
    size_t i = f->n_m;
    f->m[i] = r->m[j];
    r->until = qn__run_share(f->end, 2 * (r->n_m - j)); /* the finals have as much time as what is left of the race */
    for (qn_racer *c = f->racer; c < f->racer + f->n; c++) {
      qn__run_show(r, "race", f->p->problem.spelling, c->e->c->name, r->m[j], f->best[i], NULL);
      if (qn__contest_stands(f, c) && qn__contest_serves(c->e->c, r->m[j])) QN_TRY(race_one(f, c, i, r->m[j]));
      qn__run_step(r, QN_TIMING);
    }
    f->n_m += f->best[i] > 0;
  }
  return QN_OK;
}
