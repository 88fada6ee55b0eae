/* race.c - one problem: every candidate is timed at every M, as long as it is worth it.
 *
 * 1, 3, then 10 samples; who is beyond 3, 1.5 or 1.15 times the best so far stops there. */
#include "contest.h"
#include "fail.h"
#include "json.h"
#include "measure.h"
#include "stats.h"
#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool qn__contest_stands(const qn_contest *f, const qn_racer *c) {
  return c->e->alive && c->e->verified && qn__run_fit(c->e->c, f->kind) &&
         (!f->layout || !strcmp(f->layout, c->e->c->layout.hash));
}

/* ---- One candidate at one M -------------------------------------------------------------------------------------- */

typedef struct timing {
  double seconds, bandwidth, error;
  size_t reps;
} timing;

/* Append an answer's samples; returns how many there are now. */
static size_t append(const cJSON *answer, const char *key, double *x, size_t n, size_t most) {
  const cJSON *item;
  cJSON_ArrayForEach(item, qn__json_get(answer, key)) if (n < most) x[n++] = item->valuedouble;
  return n;
}

typedef struct heats {
  const qn_contest *f;
  const qn_racer *c;
  int64_t m;
  double best; /* so far; 0: none */
  timing *out;
} heats;

static qn_status measure(qn_tuning *r, void *ud) {
  static const struct {
    int reps;
    double limit;
  } heat[] = {{1, 3}, {3, 1.5}, {10, 1.15}};
  enum { most = 16 };
  const heats *x = ud;
  const qn_tune_problem *p = x->f->p;
  double t[most], bw[most];
  size_t n = 0, n_bw = 0;
  cJSON *answer;
  *x->out = (timing){0};
  qn_status s = qn__run_ask(r, &(qn_ask){.op = "open", .p = p, .m = x->m, .e = x->c->e}, &answer);
  x->out->error = qn__json_number(answer, "error", 0);
  cJSON_Delete(answer);
  for (size_t h = 0; s == QN_OK && h < QN_COUNT(heat); h++) {
    s = qn__run_ask(r, &(qn_ask){.op = "time", .p = p, .reps = heat[h].reps - (int)n}, &answer);
    n = append(answer, "seconds", t, n, most);
    n_bw = append(answer, "bandwidth", bw, n_bw, most);
    cJSON_Delete(answer);
    x->out->seconds = qn__median(t, n);
    if (x->best > 0 && x->out->seconds > heat[h].limit * x->best) break;
  }
  if (s == QN_OK) s = qn__run_ask(r, &(qn_ask){.op = "check", .p = p}, &answer), cJSON_Delete(answer);
  x->out->bandwidth = qn__median(bw, n_bw);
  x->out->reps = n;
  return s;
}

qn_status qn__contest_alone(qn_contest *f, const qn_racer *c, int64_t m, const char *key) {
  timing t;
  bool passed;
  return qn__run_try(f->r, c->e, key, measure, &(heats){.f = f, .c = c, .m = m, .out = &t}, &passed);
}

static cJSON *evidence_of(const qn_racer *c, const timing *t) {
  cJSON *j = cJSON_CreateObject();
  qn__json_add_text(j, "name", c->e->c->name);
  if (c->e->c->params && *c->e->c->params) qn__json_add(j, "params", cJSON_Parse(c->e->c->params));
  qn__json_add_number(j, "seconds", t->seconds);
  qn__json_add_number(j, "reps", (double)t->reps);
  qn__json_add_number(j, "bandwidth", t->bandwidth);
  qn__json_add_number(j, "error", t->error);
  return j;
}

static void read_evidence(qn_contest *f, qn_racer *c, size_t i, const cJSON *j) {
  double bandwidth = qn__json_number(j, "bandwidth", 0), error = qn__json_number(j, "error", 0);
  c->lap[i] = qn__json_number(j, "seconds", 0);
  c->e->timed = true;
  if (error > c->e->error) c->e->error = error;
  if (c->lap[i] > 0 && (!f->best[i] || c->lap[i] < f->best[i])) f->best[i] = c->lap[i];
  if (bandwidth > f->bandwidth[i]) f->bandwidth[i] = bandwidth;
  if (bandwidth > f->r->peak_bandwidth) f->r->peak_bandwidth = bandwidth;
}

/* What the store knows is taken from there, however late it is. */
static qn_status race_one(qn_contest *f, qn_racer *c, size_t i, int64_t m) {
  qn_tuning *r = f->r;
  char key[320];
  timing t = {0};
  bool passed;
  snprintf(key, sizeof key, "race %s %s M=%lld", f->p->problem.spelling, c->e->c->hash, (long long)m);
  cJSON *j = qn__run_known(r, key, "seconds", DBL_MIN);
  if (j) r->counts.timed_known++;
  else if (qn__run_late(r)) return QN_OK;
  else {
    heats x = {.f = f, .c = c, .m = m, .best = f->best[i], .out = &t};
    QN_TRY(qn__run_try(r, c->e, key, measure, &x, &passed));
    if (!passed) return QN_OK;
    r->counts.timed++;
    j = evidence_of(c, &t);
    qn__run_keep(r, "evidence", key, j);
  }
  read_evidence(f, c, i, j);
  cJSON_Delete(j);
  return QN_OK;
}

qn_status qn__contest_race(qn_contest *f) {
  qn_tuning *r = f->r;
  for (size_t j = 0; j < r->n_m; j++) {
    size_t i = f->n_m;
    f->m[i] = r->m[j];
    r->until = qn__run_share(f->end, 2 * (r->n_m - j)); /* the finals have as much time as what is left of the race */
    for (qn_racer *c = f->racer; c < f->racer + f->n; c++) {
      qn__run_show(r, "race", f->p->problem.spelling, c->e->c->name, r->m[j], f->best[i], NULL);
      if (qn__contest_stands(f, c) && qn__serves(c->e->c->m_min, c->e->c->m_max, r->m[j], r->m[j]))
        QN_TRY(race_one(f, c, i, r->m[j]));
      qn__run_step(r, QN_TIMING);
    }
    f->n_m += f->best[i] > 0;
  }
  return QN_OK;
}
