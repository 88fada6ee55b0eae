/* tune.c - the straight list of steps: compile, verify, race, choose a layout, finals, plans.
 *
 * Every result is stored as soon as it is there, under a key that says all it depends on; asking for a result looks
 * there first. So a run that was killed, or one that asks again, does only what nobody has done.
 *
 * A budget is shared out: each step gets an equal part of the time that is left, and does nothing new once that is
 * over. Before anything else one plain kernel of every problem is compiled and verified, so that however short the
 * budget each problem ends with a plan. */
#include "case.h"
#include "compile.h"
#include "desc_json.h"
#include "fail.h"
#include "journal.h"
#include "json.h"
#include "measure.h"
#include "run.h"
#include "stats.h"
#include "tuner.h"
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const int64_t usual_m[] = {1, 4, 16, 64, 256};

/* ---- What is shown ----------------------------------------------------------------------------------------------- */

void qn__run_step(qn_tuning *r, qn_step_kind kind) {
  double now = qn__now();
  r->steps[kind].done++;
  r->steps[kind].spent += now - r->stepped;
  r->stepped = now;
}

/* A kind of which none is done yet is taken to be like the other. */
static double time_left(const qn_tuning *r) {
  double left = 0, now = qn__now();
  for (int i = 0; i < QN_STEP_KINDS; i++) {
    int like = r->steps[i].done ? i : !i;
    if (r->steps[like].done && r->steps[i].total > r->steps[i].done)
      left += r->steps[like].spent / (double)r->steps[like].done * (double)(r->steps[i].total - r->steps[i].done);
  }
  return fmin(left, fmax(r->end - now, 0));
}

/* What the user must know of how it ended; each is said once. */
__attribute__((format(printf, 2, 3))) static void remark(qn_tuning *r, const char *format, ...) {
  char text[4400], *all = NULL;
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  if (asprintf(&all, "%s%s\n", r->remarks ? r->remarks : "", text) < 0) return;
  free(r->remarks);
  r->remarks = all;
}

cJSON *qn__run_known(const qn_tuning *r, const char *key, const char *field, double least) {
  cJSON *known = qn__store_get(r->store, "evidence", key);
  const cJSON *x = qn__json_get(known, field);
  bool told = cJSON_IsNumber(x) && x->valuedouble >= least && x->valuedouble < INFINITY;
  if (told || cJSON_IsString(qn__json_get(known, "rejected"))) return known;
  cJSON_Delete(known);
  return NULL;
}

bool qn__run_again(qn_tuning *r, const cJSON *timing) {
  bool wanted = timing && (r->options->retime || cJSON_IsTrue(qn__json_get(timing, "disturbed")));
  bool again = wanted && strcmp(qn__json_text(timing, "run", ""), r->id) && !qn__run_late(r);
  r->counts.again += again;
  return again;
}

void qn__run_sign(const qn_tuning *r, cJSON *timing, double spread, bool disturbed) {
  qn__json_add_number(timing, "spread", spread);
  qn__json_add_flag(timing, "disturbed", disturbed);
  qn__json_add_text(timing, "run", r->id);
}

void qn__run_time_key(const char *how, const qn_tune_problem *p, const qn_entrant *e, int64_t m, char key[QN_KEY]) {
  snprintf(key, QN_KEY, "%s %s%s %s M=%lld", how, p->problem.spelling, qn__run_share_name(p), e->c->hash, (long long)m);
}

size_t qn__run_samples(const cJSON *answer, const char *name, double *x, size_t n, size_t most) {
  const cJSON *item;
  cJSON_ArrayForEach(item, qn__json_get(answer, name))
    if (n < most) x[n++] = item->valuedouble;
  return n;
}

void qn__run_keep(qn_tuning *r, const char *kind, const char *key, const cJSON *value) {
  if (qn__store_put(r->store, kind, key, value) == QN_OK || r->unkept) return;
  r->unkept = true;
  remark(r, "what was seen from here on is not kept: %s", qn__errmsg());
}

void qn__run_show(qn_tuning *r, const char *phase, const char *problem, const char *variant, int64_t m, double best,
                  const char *text) {
  if (!r->options->progress) return;
  qn_tune_event e = {.phase = phase, .problem = problem, .variant = variant, .m = m, .best = best, .text = text};
  for (int i = 0; i < QN_STEP_KINDS; i++) e.done += r->steps[i].done, e.total += r->steps[i].total;
  e.left = time_left(r);
  r->options->progress(r->options->ud, &e);
}

bool qn__run_late(qn_tuning *r) {
  bool late = qn__now() >= r->until;
  r->counts.cut += late;
  return late;
}

double qn__run_share(double end, size_t parts) {
  double now = qn__now();
  return end > now ? now + (end - now) / (double)parts : end;
}

/* ---- Entrants: each variant once, whatever problems share it ----------------------------------------------------- */

static int by_hash(const void *a, const void *b) {
  return strcmp((*(const qn_candidate *const *)a)->hash, (*(const qn_candidate *const *)b)->hash);
}

static qn_status collect(qn_tuning *r) {
  size_t n = 0;
  for (size_t i = 0; i < r->n_problems; i++) n += r->problem[i].n_candidates + (r->problem[i].generic != NULL);
  const qn_candidate **all = calloc(n + 1, sizeof *all);
  r->entrant = calloc(n + 1, sizeof *r->entrant);
  if (!all || !r->entrant) {
    free(all);
    return qn__fail(QN_E_NOMEM, "no memory for %zu candidates", n);
  }
  n = 0;
  for (size_t i = 0; i < r->n_problems; i++) {
    for (size_t j = 0; j < r->problem[i].n_candidates; j++) all[n++] = &r->problem[i].candidate[j];
    if (r->problem[i].generic) all[n++] = r->problem[i].generic;
  }
  qsort(all, n, sizeof *all, by_hash);
  for (size_t i = 0; i < n; i++)
    if (!i || strcmp(all[i]->hash, all[i - 1]->hash)) r->entrant[r->n_entrants++].c = all[i];
  free(all);
  return QN_OK;
}

static int entrant_order(const void *key, const void *entrant) {
  return strcmp(key, ((const qn_entrant *)entrant)->c->hash);
}

qn_entrant *qn__run_entrant(const qn_tuning *r, const char *hash) {
  return bsearch(hash, r->entrant, r->n_entrants, sizeof *r->entrant, entrant_order);
}

/* ---- Compile ----------------------------------------------------------------------------------------------------- */

/* The candidates that serve every M, and of those the one that is tried first. */
static bool is_plain(const qn_candidate *c) { return c->m_min <= 1 && !c->m_max && !c->library; }

static const qn_candidate *first_of(const qn_tune_problem *p) {
  for (size_t i = 0; !p->generic && i < p->n_candidates; i++)
    if (is_plain(&p->candidate[i])) return &p->candidate[i];
  return p->generic;
}

const qn_candidate *qn__run_candidate(const qn_tuning *r, const qn_tune_problem *p, size_t j) {
  const double turn = 0.618; /* of the list from one run to the next: any number of them lie far apart */
  size_t own = 0;
  for (size_t i = 0; i < p->n_candidates; i++) own += p->candidate[i].library != NULL;
  bool wanted = j < own;
  size_t rest = p->n_candidates - own, first = (size_t)(fmod(turn * (double)r->journal.others, 1) * (double)rest);
  if (!wanted && rest) j = (j - own + first) % rest;
  const qn_candidate *c = p->candidate;
  while ((c->library != NULL) != wanted || j--) c++;
  return c;
}

/* In which order to compile: the first of every problem, then problem by problem. */
static size_t order_entrants(const qn_tuning *r, qn_entrant **out) {
  size_t n = 0;
  bool *listed = calloc(r->n_entrants + 1, sizeof *listed);
  for (size_t i = 0; listed && i < 2 * r->n_problems; i++) {
    const qn_tune_problem *p = &r->problem[i % r->n_problems];
    bool all = i >= r->n_problems;
    for (size_t j = 0; j <= (all ? p->n_candidates : 0); j++) {
      const qn_candidate *c = all && j < p->n_candidates ? qn__run_candidate(r, p, j) : first_of(p);
      qn_entrant *e = c && (all || !p->baseline) ? qn__run_entrant(r, c->hash) : NULL;
      if (!e || listed[e - r->entrant]) continue;
      listed[e - r->entrant] = true;
      out[n++] = e;
    }
  }
  free(listed);
  return n;
}

static qn_status start_making(qn_tuning *r) {
  qn_entrant **order = calloc(r->n_entrants + 1, sizeof *order);
  if (!order) return qn__fail(QN_E_NOMEM, "no memory for %zu candidates", r->n_entrants);
  qn_status s = qn__maker_start(&r->maker, r->store, r->supervisor.info.target, order, order_entrants(r, order),
                                r->options->threads);
  free(order);
  return s;
}

/* Count an entrant that is ready. */
static void take(qn_tuning *r, qn_entrant *e) {
  if (e->taken) return;
  e->taken = true;
  qn__run_step(r, QN_MAKING);
  r->counts.compile_known += e->known;
  r->counts.compiled += !e->known && !e->missed && !e->c->library;
  r->counts.compile_failed += e->failed;
  e->alive = !e->failed && !e->missed && !*e->why;
  if (e->missed) qn__run_set_aside(r, e, e->why);
  else if (!e->alive) qn__run_reject(r, e, e->why);
}

/* The run goes on with what is made. */
static void stop_making(qn_tuning *r) {
  qn__maker_stop(&r->maker);
  if (qn__maker_failure(&r->maker)) remark(r, "not all was compiled: %s", qn__errmsg());
  for (size_t i = 0; i < r->n_entrants; i++)
    if (r->entrant[i].ready) take(r, &r->entrant[i]);
}

/* ---- Verify ------------------------------------------------------------------------------------------------------ */

static cJSON *case_of(const qn_tune_problem *p, const qn_entrant *e) {
  qn_case *c = calloc(1, sizeof *c);
  if (!c) return NULL;
  c->problem = p->problem;
  c->format = p->format;
  c->layout = e->c->layout;
  c->recipe = e->c->recipe;
  c->m_min = e->c->m_min;
  c->m_max = e->c->m_max;
  c->m_tile = e->c->m_tile;
  snprintf(c->name, sizeof c->name, "%s", e->c->name);
  snprintf(c->hash, sizeof c->hash, "%s", e->c->hash);
  snprintf(c->image, sizeof c->image, "%s", e->c->library ? e->c->library : e->image);
  snprintf(c->symbol, sizeof c->symbol, "%s", e->c->library ? e->c->symbol : "");
  snprintf(c->sum, sizeof c->sum, "%s", e->sum);
  cJSON *j = qn__case_to_json(c);
  free(c);
  return j;
}

static cJSON *request(const qn_ask *a) {
  cJSON *j = cJSON_CreateObject();
  qn__json_add_text(j, "op", a->op);
  qn__json_add_number(j, "slot", a->slot);
  qn__json_add_number(j, "reps", a->reps);
  qn__json_add_number(j, "m", (double)a->m);
  qn__json_add_number(j, "n", (double)a->p->problem.n);
  qn__json_add_number(j, "k", (double)a->p->problem.k);
  if (a->p->share) qn__json_add(j, "share", cJSON_CreateDoubleArray(a->p->share, (int)a->p->problem.experts));
  if (a->e) qn__json_add(j, "case", case_of(a->p, a->e));
  return j;
}

qn_status qn__run_ask(qn_tuning *r, const qn_ask *a, cJSON **answer) {
  enum { silence = 300 }; /* seconds to make data and its reference for large shapes */
  qn_status s = qn__supervisor_ask(&r->supervisor, request(a), silence, answer);
  r->counts.samples += (size_t)cJSON_GetArraySize(qn__json_get(*answer, "seconds"));
  r->counts.thrown += (size_t)qn__json_number(*answer, "thrown", 0);
  r->counts.disturbed += (size_t)qn__json_number(*answer, "disturbed", 0);
  return s;
}

/* What the store knows is taken from there, however late it is. */
static qn_status verify(qn_tuning *r, const qn_tune_problem *p, qn_entrant *e) {
  char key[QN_KEY];
  qn__run_verify_key(e, key);
  cJSON *known = qn__run_known(r, key, "error", 0);
  if (known) {
    const char *why = qn__json_text(known, "rejected", NULL);
    e->error = qn__json_number(known, "error", 0);
    e->verified = !why;
    r->counts.verify_known++;
    if (why) qn__run_reject(r, e, why);
    cJSON_Delete(known);
    return QN_OK;
  }
  e->late = qn__now() >= r->until;
  if (e->late) return QN_OK;
  size_t aside = r->counts.set_aside;
  QN_TRY(qn__run_question(r, e, key, &(qn_ask){.op = "verify", .p = p, .e = e}, &e->error, &e->verified));
  r->counts.verified += r->counts.set_aside == aside;
  if (!e->verified) return QN_OK;
  cJSON *evidence = cJSON_CreateObject();
  qn__json_add_text(evidence, "name", e->c->name);
  qn__json_add_number(evidence, "error", e->error);
  qn__run_keep(r, "evidence", key, evidence);
  cJSON_Delete(evidence);
  return QN_OK;
}

/* Have a candidate compiled, unless it is not by `until`, and verified, if there is time. */
static qn_status prove(qn_tuning *r, const qn_tune_problem *p, const qn_candidate *c, double until) {
  qn_entrant *e = qn__run_entrant(r, c->hash);
  if (!e->taken) qn__run_show(r, "compile", p->problem.spelling, c->name, 0, 0, NULL);
  if (!qn__maker_wait(&r->maker, e, until)) {
    e->late = qn__now() >= until;
    return QN_OK;
  }
  take(r, e);
  if (!e->alive || e->verified) return QN_OK;
  qn__run_show(r, "verify", p->problem.spelling, c->name, 0, 0, NULL);
  QN_TRY(verify(r, p, e));
  if (e->verified || !e->alive) qn__run_step(r, QN_MAKING);
  return QN_OK;
}

/* The user's functions need not be compiled: they are verified while the first kernels are. */
static qn_status prove_functions(qn_tuning *r, const qn_tune_problem *p) {
  r->until = r->end;
  for (size_t j = 0; j < p->n_candidates && qn__run_candidate(r, p, j)->library; j++)
    QN_TRY(prove(r, p, qn__run_candidate(r, p, j), r->until));
  return QN_OK;
}

/* Whatever the budget: one kernel that serves every M, right. If the first is not, or is not made in time, another; if
 * none is, the first that will be. */
static qn_status secure(qn_tuning *r, const qn_tune_problem *p) {
  const double until[] = {r->end, INFINITY};
  r->until = INFINITY;
  for (size_t pass = 0; pass < QN_COUNT(until) && !p->baseline; pass++)
    for (size_t i = 0; i <= p->n_candidates; i++) {
      const qn_candidate *c = i ? &p->candidate[i - 1] : first_of(p);
      if (!c || (i && !is_plain(c))) continue;
      QN_TRY(prove(r, p, c, until[pass]));
      if (qn__run_entrant(r, c->hash)->verified && qn__run_entrant(r, c->hash)->alive) return QN_OK;
    }
  return p->baseline ? QN_OK : qn__maker_failure(&r->maker);
}

static qn_status prove_all(qn_tuning *r, const qn_tune_problem *p) {
  for (size_t j = 0; j < p->n_candidates; j++) QN_TRY(prove(r, p, qn__run_candidate(r, p, j), r->until));
  return p->generic ? prove(r, p, p->generic, r->until) : QN_OK;
}

/* How many were left out for want of time, whatever problems share them. */
static size_t unproven(const qn_tuning *r) {
  size_t n = 0;
  for (const qn_entrant *e = r->entrant; e < r->entrant + r->n_entrants; e++)
    n += e->late && !e->verified && (e->alive || !e->taken);
  return n;
}

/* ---- The result -------------------------------------------------------------------------------------------------- */

static qn_status add_kernel(qn_tuning *r, qn_tune_result *out, const char *hash) {
  for (size_t i = 0; i < out->n_kernels; i++)
    if (!strcmp(out->kernel[i].hash, hash)) return QN_OK;
  qn_kernel *list = realloc(out->kernel, (out->n_kernels + 1) * sizeof *list);
  if (!list) return qn__fail(QN_E_NOMEM, "no memory for kernels");
  out->kernel = list;
  const qn_entrant *e = qn__run_entrant(r, hash);
  qn_artifact a = {0};
  qn_status status = QN_OK;
  if (!e->c->library && (!qn__store_artifact_get(r->store, hash, &status, &a, NULL, 0) || status != QN_OK))
    return qn__fail(QN_E_IO, "the artifact of %s is gone from the store", e->c->name);
  qn_kernel *k = &list[out->n_kernels++];
  *k = (qn_kernel){
      .recipe = e->c->recipe, .registers = a.registers, .shared = a.shared, .image = a.image, .size = a.size};
  a.image = NULL;
  qn__artifact_free(&a);
  snprintf(k->name, sizeof k->name, "%s", e->c->name);
  snprintf(k->hash, sizeof k->hash, "%s", hash);
  snprintf(k->target, sizeof k->target, "%s", r->supervisor.info.target);
  snprintf(k->arch, sizeof k->arch, "%s", e->c->arch);
  return QN_OK;
}

static qn_status gather_kernels(qn_tuning *r, qn_tune_result *out) {
  for (size_t i = 0; i < out->n_plans; i++)
    for (uint32_t j = 0; j < out->plan[i].n_ranges; j++) {
      const qn_range *x = &out->plan[i].range[j];
      QN_TRY(add_kernel(r, out, x->variant));
      if (*x->runner_up) QN_TRY(add_kernel(r, out, x->runner_up));
    }
  return QN_OK;
}

void qn__tune_result_free(qn_tune_result *r) {
  for (size_t i = 0; i < r->n_kernels; i++) free((void *)(uintptr_t)r->kernel[i].image);
  free(r->kernel);
  free(r->plan);
  free(r->remarks);
  *r = (qn_tune_result){0};
}

static bool has_plan(const qn_tune_result *out, const qn_plan *plan) {
  for (size_t i = 0; i < out->n_plans; i++)
    if (out->plan[i].kind == plan->kind && !strcmp(out->plan[i].problem.spelling, plan->problem.spelling)) return true;
  return false;
}

/* The plain kernel that is kept for shapes that nobody tuned: the problem's own choice, else the first that is fit. */
static const qn_entrant *generic_of(const qn_tuning *r, const qn_tune_problem *p, qn_plan_kind kind) {
  for (size_t i = 0; p->generic && i <= p->n_candidates; i++) {
    const qn_candidate *c = i ? &p->candidate[i - 1] : p->generic;
    const qn_entrant *e = qn__run_entrant(r, c->hash);
    if (is_plain(c) && e->alive && e->verified && qn__run_fit(c, kind)) return e;
  }
  return NULL;
}

/* Plans of every kind without N and K; for a stack, of one expert. */
static qn_status add_generic(qn_tuning *r, const qn_tune_problem *p, qn_tune_result *out) {
  for (qn_plan_kind kind = 0; kind < QN_PLAN_KINDS; kind++) {
    const qn_entrant *e = generic_of(r, p, kind);
    if (!e) continue;
    qn_plan plan = {.problem = p->problem, .kind = kind, .format = p->format, .layout = e->c->layout, .n_ranges = 1};
    plan.problem.n = plan.problem.k = 0;
    if (plan.problem.experts) plan.problem.experts = 1;
    qn__problem_spell(&plan.problem);
    plan.range[0] = (qn_range){.m_min = 1, .error = e->error};
    memcpy(plan.range[0].variant, e->c->hash, sizeof plan.range[0].variant);
    if (!has_plan(out, &plan)) QN_TRY(qn__result_add_plan(out, &plan));
  }
  return QN_OK;
}

qn_status qn__result_add_plan(qn_tune_result *out, const qn_plan *plan) {
  qn_plan *list = realloc(out->plan, (out->n_plans + 1) * sizeof *list);
  if (!list) return qn__fail(QN_E_NOMEM, "no memory for plans");
  out->plan = list;
  list[out->n_plans++] = *plan;
  return QN_OK;
}

/* Functions that were asked for by name and were not timed for want of time. */
static void remark_untried(qn_tuning *r) {
  for (size_t i = 0; i < r->n_entrants && !r->options->check_only; i++) {
    const qn_entrant *e = &r->entrant[i];
    if (e->c->library && !e->timed && (e->alive || !e->taken))
      remark(r, "%s: there was no time to try it; raise the budget", e->c->name);
  }
}

/* ---- All of it --------------------------------------------------------------------------------------------------- */

static qn_status worker_path(const qn_tune_options *o, char out[PATH_MAX]) {
  const char *own = getenv("QUERNEL_WORKER");
  if (o->worker) own = o->worker;
  if (own && *own) snprintf(out, PATH_MAX, "%s", own);
  else {
    ssize_t n = readlink("/proc/self/exe", out, PATH_MAX - 32);
    char *slash = n > 0 ? (out[n] = 0, strrchr(out, '/')) : NULL;
    if (slash) strcpy(slash, "/quernel-worker");
#ifdef QN_WORKER_PATH
    if (!slash || access(out, X_OK)) snprintf(out, PATH_MAX, "%s", QN_WORKER_PATH);
#endif
  }
  return access(out, X_OK) ? qn__fail(QN_E_IO, "the worker program %s cannot be executed; set QUERNEL_WORKER", out)
                           : QN_OK;
}

static qn_status open_store(qn_tuning *r) {
  char compiler[256];
  QN_TRY(qn__compiler_version(r->supervisor.info.target, compiler, sizeof compiler));
  QN_TRY(qn__store_open(r->options->store, &r->supervisor.info, compiler, QN_STORE_POLICY, &r->store));
  return qn__journal_open(r->store, &r->journal);
}

/* A GPU's times do not suffer from what the CPU compiles meanwhile. The host's own do, so there all compiling, beside
 * verifying, comes before all timing, and has half the budget. */
static bool apart(const qn_tuning *r) {
  return qn__target(r->supervisor.info.target)->host_code || r->options->check_only;
}

/* The plans of all problems. */
static qn_status plan_all(qn_tuning *r, qn_tune_result *out) {
  r->settled = r->fallen;
  r->steps[QN_TIMING].done = 0;
  r->steps[QN_TIMING].spent = 0;
  r->n_dense = out->n_plans = 0;
  r->counts.cut = 0; /* of plans that are made again only the last count */
  for (size_t i = 0; i < r->n_problems; i++) {
    double end = qn__run_share(r->end, r->n_problems - i);
    r->until = qn__run_share(end, 2);
    if (!apart(r)) QN_TRY(prove_all(r, &r->problem[i]));
    r->until = end;
    if (!r->options->check_only) QN_TRY(qn__run_problem(r, &r->problem[i], out));
    QN_TRY(add_generic(r, &r->problem[i], out));
  }
  return QN_OK;
}

/* A kernel that turns out wrong late may have its place in plans that are made already: then they are made again. What
 * is known is not done again. */
static qn_status measure(qn_tuning *r, qn_tune_result *out) {
  for (size_t i = 0; i < r->n_problems; i++) QN_TRY(prove_functions(r, &r->problem[i]));
  for (size_t i = 0; i < r->n_problems; i++) QN_TRY(secure(r, &r->problem[i]));
  r->until = r->options->check_only ? r->end : qn__run_share(r->end, 2);
  for (size_t i = 0; apart(r) && i < r->n_problems; i++) QN_TRY(prove_all(r, &r->problem[i]));
  if (apart(r)) stop_making(r);
  do QN_TRY(plan_all(r, out));
  while (!qn__run_settled(r));
  return QN_OK;
}

static qn_status steps(qn_tuning *r, qn_tune_result *out) {
  QN_TRY(open_store(r));
  QN_TRY(collect(r));
  r->steps[QN_MAKING].total = 2 * r->n_entrants;
  for (size_t i = 0; i < r->n_problems && !r->options->check_only; i++)
    r->steps[QN_TIMING].total += r->problem[i].n_candidates * r->n_m;
  QN_TRY(start_making(r));
  qn_status s = measure(r, out);
  stop_making(r);
  QN_TRY(s);
  r->counts.cut += unproven(r);
  QN_TRY(gather_kernels(r, out));
  remark_untried(r);
  if (r->journal.error) remark(r, "the journal was not kept: %s", strerror(r->journal.error));
  out->device = r->supervisor.info;
  out->peak_bandwidth = r->peak_bandwidth;
  out->remarks = r->remarks;
  r->remarks = NULL;
  return QN_OK;
}

qn_status qn__tune(const qn_tune_problem *problems, size_t n, const qn_tune_options *options, qn_tune_result *out) {
  char worker[PATH_MAX];
  qn_tuning *r = calloc(1, sizeof *r);
  *out = (qn_tune_result){0};
  if (!r) return qn__fail(QN_E_NOMEM, "no memory for a run");
  *r = (qn_tuning){.problem = problems,
                   .n_problems = n,
                   .options = options,
                   .stepped = qn__now(),
                   .end = options->budget > 0 ? qn__now() + options->budget : INFINITY,
                   .journal = {.fd = -1},
                   .m = options->m ? options->m : usual_m,
                   .n_m = options->m ? options->n_m : QN_COUNT(usual_m)};
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (options->run) snprintf(r->id, sizeof r->id, "%s", options->run);
  else snprintf(r->id, sizeof r->id, "%lld.%09ld %d", (long long)now.tv_sec, now.tv_nsec, (int)getpid());
  qn_status s =
      r->n_m > QN_PLAN_POINTS ? qn__fail(QN_E_LIMIT, "%zu values of M; at most %d", r->n_m, QN_PLAN_POINTS) : QN_OK;
  if (s == QN_OK) s = worker_path(options, worker);
  if (s == QN_OK) s = qn__supervisor_init(&r->supervisor, worker, options->device);
  if (s == QN_OK) s = steps(r, out);
  r->counts.restarts = (size_t)r->supervisor.restarts;
  out->counts = r->counts;
  if (s == QN_OK) qn__run_show(r, "done", NULL, NULL, 0, 0, NULL);
  qn__journal_close(&r->journal);
  qn__supervisor_fini(&r->supervisor);
  qn__store_close(r->store);
  free(r->remarks);
  free(r->dense);
  free(r->entrant);
  free(r);
  if (s != QN_OK) qn__tune_result_free(out);
  return s;
}
