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

enum { most_samples = 16 };

typedef struct timing {
  double seconds, spread, bandwidth, error;
  size_t reps;
  bool disturbed;
} timing;

typedef struct heats {
  const qn_contest *f;
  const qn_racer *c;
  int64_t m;
  double best; /* so far; 0: none */
  timing *out;
} heats;

/* Sample until it is known how fast it is, or that it is not fast. */
static qn_status run_heats(qn_tuning *r, const heats *x) {
  static const struct {
    int reps;
    double limit;
  } heat[] = {{1, 3}, {3, 1.5}, {10, 1.15}};
  double t[most_samples], bandwidth[most_samples];
  size_t n = 0, n_bandwidth = 0;
  int disturbed = 0;
  timing *out = x->out;
  for (size_t h = 0; h < QN_COUNT(heat); h++) {
    cJSON *answer;
    qn_status s = qn__run_ask(r, &(qn_ask){.op = "time", .p = x->f->p, .reps = heat[h].reps - (int)n}, &answer);
    n = qn__run_samples(answer, "seconds", t, n, most_samples);
    n_bandwidth = qn__run_samples(answer, "bandwidth", bandwidth, n_bandwidth, most_samples);
    disturbed += qn__json_int(answer, "disturbed", 0);
    cJSON_Delete(answer);
    QN_TRY(s);
    out->seconds = qn__median(t, n);
    if (x->best > 0 && out->seconds > heat[h].limit * x->best) break;
  }
  out->disturbed = qn__disturbed(disturbed, n);
  out->spread = qn__spread(t, n);
  out->bandwidth = qn__median(bandwidth, n_bandwidth);
  out->reps = n;
  return QN_OK;
}

static qn_status measure(qn_tuning *r, void *ud) {
  const heats *x = ud;
  const qn_tune_problem *p = x->f->p;
  cJSON *answer;
  *x->out = (timing){0};
  qn_status s = qn__run_ask(r, &(qn_ask){.op = "open", .p = p, .m = x->m, .e = x->c->e}, &answer);
  x->out->error = qn__json_number(answer, "error", 0);
  cJSON_Delete(answer);
  if (s == QN_OK) s = run_heats(r, x);
  if (s == QN_OK) s = qn__run_ask(r, &(qn_ask){.op = "check", .p = p}, &answer), cJSON_Delete(answer);
  return s;
}

qn_status qn__contest_alone(qn_contest *f, const qn_racer *c, int64_t m, const char *key) {
  timing t;
  bool passed;
  return qn__run_try(f->r, c->e, key, measure, &(heats){.f = f, .c = c, .m = m, .out = &t}, &passed);
}

static cJSON *evidence_of(const qn_tuning *r, const qn_racer *c, const timing *t) {
  cJSON *j = cJSON_CreateObject();
  qn__json_add_text(j, "name", c->e->c->name);
  if (c->e->c->params && *c->e->c->params) qn__json_add(j, "params", cJSON_Parse(c->e->c->params));
  qn__json_add_number(j, "seconds", t->seconds);
  qn__json_add_number(j, "reps", (double)t->reps);
  qn__json_add_number(j, "bandwidth", t->bandwidth);
  qn__json_add_number(j, "error", t->error);
  qn__run_sign(r, j, t->spread, t->disturbed);
  return j;
}

static void read_evidence(qn_contest *f, qn_racer *c, size_t i, const cJSON *j) {
  double error = qn__json_number(j, "error", 0);
  qn_point *lap = &c->lap[i];
  *lap = (qn_point){.m = f->m[i],
                    .seconds = qn__json_number(j, "seconds", 0),
                    .spread = qn__json_number(j, "spread", 0),
                    .bandwidth = qn__json_number(j, "bandwidth", 0),
                    .marks = QN_RACED | (cJSON_IsTrue(qn__json_get(j, "disturbed")) ? QN_DISTURBED : 0)};
  c->pace[i] = 1;
  c->e->timed = true;
  if (error > c->e->error) c->e->error = error;
  if (lap->seconds > 0 && (!f->best[i] || lap->seconds < f->best[i])) f->best[i] = lap->seconds;
  if (lap->bandwidth > f->r->peak_bandwidth) f->r->peak_bandwidth = lap->bandwidth;
}

/* ---- All of them ------------------------------------------------------------------------------------------------- */

/* May it be timed at M number i, and is it not yet? */
static bool waits(const qn_contest *f, const qn_racer *c, size_t i) {
  return !c->lap[i].m && qn__contest_stands(f, c) && qn__serves(c->e->c->m_min, c->e->c->m_max, f->m[i], f->m[i]);
}

/* What the store knows is taken from there, however late it is. */
static void recall(qn_contest *f, qn_racer *c, size_t i) {
  char key[QN_KEY];
  qn__run_time_key("race", f->p, c->e, f->m[i], key);
  cJSON *j = qn__run_known(f->r, key, "seconds", DBL_MIN);
  if (j && !qn__run_again(f->r, j)) {
    f->r->counts.timed_known++;
    read_evidence(f, c, i, j);
  }
  cJSON_Delete(j);
}

static qn_status race_one(qn_contest *f, qn_racer *c, size_t i) {
  qn_tuning *r = f->r;
  char key[QN_KEY];
  timing t = {0};
  bool passed;
  if (qn__run_late(r)) return QN_OK;
  qn__run_time_key("race", f->p, c->e, f->m[i], key);
  heats x = {.f = f, .c = c, .m = f->m[i], .best = f->best[i], .out = &t};
  QN_TRY(qn__run_try(r, c->e, key, measure, &x, &passed));
  if (!passed) return QN_OK;
  r->counts.timed++;
  cJSON *j = evidence_of(r, c, &t);
  qn__run_keep(r, "evidence", key, j);
  read_evidence(f, c, i, j);
  cJSON_Delete(j);
  return QN_OK;
}

static const qn_racer *fastest(const qn_contest *f, size_t i) {
  const qn_racer *best = NULL;
  for (const qn_racer *c = f->racer; c < f->racer + f->n; c++)
    if (c->lap[i].seconds > 0 && qn__contest_stands(f, c) && (!best || c->lap[i].seconds < best->lap[i].seconds))
      best = c;
  return best;
}

/* Laps that the store knows are of another hour, when memory may have been faster. Where newcomers are to race against
 * them the fastest runs once more, and all of them are taken to have changed as it did: not if the machine is busy. */
static qn_status keep_pace(qn_contest *f, size_t i) {
  qn_tuning *r = f->r;
  const qn_racer *best = fastest(f, i);
  char key[QN_KEY];
  timing now = {0};
  bool passed;
  if (!best || qn__now() >= r->until) return QN_OK; /* the newcomers are left out, too, and counted */
  qn__run_time_key("race", f->p, best->e, f->m[i], key);
  QN_TRY(qn__run_try(r, best->e, key, measure, &(heats){.f = f, .c = best, .m = f->m[i], .out = &now}, &passed));
  if (!passed) {
    best = fastest(f, i);
    f->best[i] = best ? best->lap[i].seconds : 0;
  } else if (!now.disturbed) {
    double pace = now.seconds / best->lap[i].seconds;
    for (qn_racer *c = f->racer; c < f->racer + f->n; c++) c->pace[i] = pace;
    f->best[i] = now.seconds;
  }
  return QN_OK;
}

static qn_status race_at(qn_contest *f, size_t i) {
  qn_tuning *r = f->r;
  size_t waiting = 0;
  for (qn_racer *c = f->racer; c < f->racer + f->n; c++) {
    if (waits(f, c, i)) recall(f, c, i);
    waiting += waits(f, c, i);
  }
  if (waiting) QN_TRY(keep_pace(f, i));
  for (qn_racer *c = f->racer; c < f->racer + f->n; c++) {
    qn__run_show(r, "race", f->p->problem.spelling, c->e->c->name, f->m[i], f->best[i], NULL);
    if (waits(f, c, i)) QN_TRY(race_one(f, c, i));
    qn__run_step(r, QN_TIMING);
  }
  return QN_OK;
}

qn_status qn__contest_race(qn_contest *f) {
  qn_tuning *r = f->r;
  for (size_t j = 0; j < r->n_m; j++) {
    size_t i = f->n_m;
    f->m[i] = r->m[j];
    r->until = qn__run_share(f->end, 2 * (r->n_m - j)); /* the finals have as much time as what is left of the race */
    QN_TRY(race_at(f, i));
    f->n_m += f->best[i] > 0;
  }
  return QN_OK;
}
