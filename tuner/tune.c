/* tune.c - the straight list of steps: compile, verify, race, choose a layout, finals, plans.
 *
 * Every result is stored as soon as it is there, under a key that says all it depends on; asking for a result looks
 * there first. So a run that was killed, or one that asks again, does only what nobody has done. */
#include "case.h"
#include "desc_json.h"
#include "fail.h"
#include "journal.h"
#include "measure.h"
#include "run.h"
#include "stats.h"
#include "tuner.h"
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const int64_t usual_m[] = {1, 4, 16, 64, 256};

/* ---- What is shown -------------------------------------------------------------------------------------------------
 */

void qn__run_show(qn_tuning *r, const char *phase, const char *problem, const char *variant, int64_t m, double best,
                  const char *text) {
  if (!r->options->progress) return;
  double spent = qn__now() - r->start;
  qn_tune_event e = {.phase = phase,
                     .problem = problem,
                     .variant = variant,
                     .m = m,
                     .done = r->done,
                     .total = r->total,
                     .best = best,
                     .text = text};
  e.left = r->done ? spent / (double)r->done * (double)(r->total - r->done) : 0;
  r->options->progress(r->options->ud, &e);
}

bool qn__run_late(const qn_tuning *r) { return r->options->budget > 0 && qn__now() - r->start > r->options->budget; }

/* ---- Entrants: each variant once, whatever problems share it
 * --------------------------------------------------------- */

static int by_hash(const void *a, const void *b) {
  return strcmp((*(const qn_candidate *const *)a)->hash, (*(const qn_candidate *const *)b)->hash);
}

static qn_status collect(qn_tuning *r) {
  size_t n = 0;
  for (size_t i = 0; i < r->n_problems; i++) n += r->problem[i].n_candidates + (r->problem[i].generic != NULL);
  const qn_candidate **all = calloc(n + 1, sizeof *all);
  const qn_tune_problem **of = calloc(n + 1, sizeof *of);
  r->entrant = calloc(n + 1, sizeof *r->entrant);
  if (!all || !of || !r->entrant) {
    free(all), free(of);
    return qn__fail(QN_E_NOMEM, "no memory for %zu candidates", n);
  }
  n = 0;
  for (size_t i = 0; i < r->n_problems; i++) {
    for (size_t j = 0; j < r->problem[i].n_candidates; j++) all[n++] = &r->problem[i].candidate[j];
    if (r->problem[i].generic) all[n++] = r->problem[i].generic;
  }
  qsort(all, n, sizeof *all, by_hash);
  for (size_t i = 0; i < n; i++)
    if (!r->n_entrants || strcmp(all[i]->hash, r->entrant[r->n_entrants - 1].c->hash))
      r->entrant[r->n_entrants++].c = all[i];
  free(all), free(of);
  return QN_OK;
}

static int entrant_order(const void *key, const void *entrant) {
  return strcmp(key, ((const qn_entrant *)entrant)->c->hash);
}

qn_entrant *qn__run_entrant(qn_tuning *r, const char *hash) {
  return bsearch(hash, r->entrant, r->n_entrants, sizeof *r->entrant, entrant_order);
}

void qn__run_reject(qn_tuning *r, qn_entrant *e, const char *why) {
  e->alive = false;
  r->counts.rejected++;
  qn__run_show(r, "note", NULL, e->c->name, 0, 0, why);
}

/* ---- Compile
 * --------------------------------------------------------------------------------------------------------- */

static void admit(qn_tuning *r, qn_entrant *e, qn_status s, const char *why, const qn_artifact *a) {
  char text[1400];
  e->alive = s == QN_OK && a->spills == 0;
  if (s == QN_OK) {
    snprintf(e->image, sizeof e->image, "%.4000s/artifact/%s.bin", qn_store_path(r->store), a->hash);
    snprintf(e->sum, sizeof e->sum, "%s", a->hash);
    e->registers = a->registers;
    e->shared = a->shared;
    if (a->spills) {
      snprintf(text, sizeof text, "spills %d bytes of registers", a->spills);
      qn__run_reject(r, e, text);
    }
  } else {
    r->counts.compile_failed++;
    qn__run_reject(r, e, why);
  }
}

typedef struct compile_list {
  qn_tuning *r;
  qn_entrant **entrant;
  qn_status status;
} compile_list;

static int compiled(void *ud, size_t i, qn_status s, const char *why, qn_artifact *a) {
  compile_list *l = ud;
  qn_entrant *e = l->entrant[i];
  if (s != QN_OK && s != QN_E_COMPILE) { /* not the source's fault: no compiler, no disk */
    l->status = qn__fail(s, "%s", why);
    return 1;
  }
  l->status = qn_store_artifact_put(l->r->store, e->c->hash, s, why, a);
  if (l->status != QN_OK) return 1;
  l->r->counts.compiled++;
  l->r->done++;
  admit(l->r, e, s, why, a);
  qn__run_show(l->r, "compile", NULL, e->c->name, 0, 0, NULL);
  return 0;
}

static qn_status compile_all(qn_tuning *r) {
  qn_source *source = calloc(r->n_entrants + 1, sizeof *source);
  compile_list list = {r, calloc(r->n_entrants + 1, sizeof *list.entrant), QN_OK};
  size_t n = 0;
  qn_status s = source && list.entrant ? QN_OK : qn__fail(QN_E_NOMEM, "no memory for sources");
  for (size_t i = 0; s == QN_OK && i < r->n_entrants; i++) {
    qn_entrant *e = &r->entrant[i];
    qn_artifact a;
    qn_status known;
    char why[1400];
    if (qn_store_artifact_get(r->store, e->c->hash, &known, &a, why, sizeof why)) {
      r->counts.compile_known++;
      r->done++;
      admit(r, e, known, why, &a);
      qn_artifact_free(&a);
      continue;
    }
    list.entrant[n] = e;
    source[n++] = (qn_source){e->c->name, r->supervisor.info.target, e->c->arch, e->c->flags, e->c->source};
  }
  if (s == QN_OK && n) s = qn_compile_all(source, n, r->options->threads, compiled, &list);
  free(source);
  free(list.entrant);
  return s == QN_OK ? list.status : s;
}

/* ---- Verify
 * ---------------------------------------------------------------------------------------------------------- */

qn_status qn__run_case(const qn_tune_problem *p, const qn_entrant *e, cJSON **out) {
  qn_case *c = calloc(1, sizeof *c);
  if (!c) return qn__fail(QN_E_NOMEM, "no memory for a case");
  c->problem = p->problem;
  c->format = p->format;
  c->layout = e->c->layout;
  c->recipe = e->c->recipe;
  c->m_min = e->c->m_min;
  c->m_max = e->c->m_max;
  snprintf(c->name, sizeof c->name, "%s", e->c->name);
  snprintf(c->hash, sizeof c->hash, "%s", e->c->hash);
  snprintf(c->image, sizeof c->image, "%s", e->image);
  snprintf(c->sum, sizeof c->sum, "%s", e->sum);
  *out = qn__case_to_json(c);
  free(c);
  return *out ? QN_OK : qn__fail(QN_E_NOMEM, "no memory for a case");
}

static double number(const cJSON *j, const char *key) {
  const cJSON *x = cJSON_GetObjectItemCaseSensitive(j, key);
  return cJSON_IsNumber(x) ? x->valuedouble : 0;
}

/* Ask about one entrant, journaled; a worker that dies is given a second chance. */
qn_status qn__run_ask(qn_tuning *r, const char *what, cJSON *(*request)(void *ud), void *ud, double seconds,
                      cJSON **answer) {
  qn_status s = QN_OK;
  for (int attempt = 0; attempt < 2; attempt++) {
    bool died;
    QN_TRY(qn__journal_begin(&r->journal, what));
    s = qn__supervisor_ask(&r->supervisor, request(ud), seconds, answer, &died);
    QN_TRY(qn__journal_end(&r->journal));
    if (!died) return s;
    qn__run_show(r, "note", NULL, what, 0, 0, qn__errmsg());
  }
  return s;
}

typedef struct verify_request {
  const qn_tune_problem *p;
  const qn_entrant *e;
} verify_request;

static cJSON *ask_verify(void *ud) {
  verify_request *v = ud;
  cJSON *j = cJSON_CreateObject(), *c = NULL;
  cJSON_AddStringToObject(j, "op", "verify");
  if (qn__run_case(v->p, v->e, &c) == QN_OK) cJSON_AddItemToObject(j, "case", c);
  return j;
}

static qn_status verify_one(qn_tuning *r, const qn_tune_problem *p, qn_entrant *e) {
  char key[80];
  snprintf(key, sizeof key, "verify %s", e->c->hash);
  cJSON *known = qn_store_get(r->store, "evidence", key);
  if (known) {
    const char *why = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(known, "rejected"));
    e->error = number(known, "error");
    r->counts.verify_known++;
    if (why) qn__run_reject(r, e, why);
    cJSON_Delete(known);
    return QN_OK;
  }
  qn_status s;
  cJSON *answer = NULL;
  if (qn__journal_suspect(r->store, key)) s = qn__fail(QN_E_WRONG, "two runs ended while it was being verified");
  else s = qn__run_ask(r, key, ask_verify, &(verify_request){p, e}, 120, &answer);
  if (s != QN_OK && s != QN_E_WRONG && s != QN_E_CUDA && s != QN_E_FORMAT && s != QN_E_NO_KERNEL) {
    cJSON_Delete(answer);
    return s;
  }
  r->counts.verified++;
  e->error = number(answer, "error");
  cJSON_Delete(answer);
  cJSON *evidence = cJSON_CreateObject();
  cJSON_AddStringToObject(evidence, "name", e->c->name);
  cJSON_AddNumberToObject(evidence, "error", e->error);
  if (s != QN_OK) {
    cJSON_AddStringToObject(evidence, "rejected", qn__errmsg());
    qn__run_reject(r, e, qn__errmsg());
  }
  s = qn_store_put(r->store, "evidence", key, evidence);
  cJSON_Delete(evidence);
  return s;
}

static qn_status verify_all(qn_tuning *r) {
  for (size_t i = 0; i < r->n_problems; i++) {
    const qn_tune_problem *p = &r->problem[i];
    for (size_t j = 0; j <= p->n_candidates; j++) {
      const qn_candidate *c = j < p->n_candidates ? &p->candidate[j] : p->generic;
      qn_entrant *e = c ? qn__run_entrant(r, c->hash) : NULL;
      if (!e || !e->alive || e->verified) continue;
      e->verified = true;
      QN_TRY(verify_one(r, p, e));
      r->done++;
      qn__run_show(r, "verify", p->problem.spelling, c->name, 0, 0, NULL);
    }
  }
  return QN_OK;
}

/* ---- The result
 * -------------------------------------------------------------------------------------------------------- */

static qn_status add_kernel(qn_tuning *r, qn_tune_result *out, const char *hash) {
  for (size_t i = 0; i < out->n_kernels; i++)
    if (!strcmp(out->kernel[i].hash, hash)) return QN_OK;
  qn_entrant *e = qn__run_entrant(r, hash);
  qn_artifact a;
  qn_status status;
  char why[256];
  if (!qn_store_artifact_get(r->store, hash, &status, &a, why, sizeof why) || status != QN_OK)
    return qn__fail(QN_E_IO, "the artifact of %s is gone from the store", e ? e->c->name : hash);
  qn_kernel *list = realloc(out->kernel, (out->n_kernels + 1) * sizeof *list);
  if (!list) return qn__fail(QN_E_NOMEM, "no memory for kernels");
  out->kernel = list;
  qn_kernel *k = &list[out->n_kernels++];
  *k = (qn_kernel){
      .recipe = e->c->recipe, .registers = a.registers, .shared = a.shared, .image = a.image, .size = a.size};
  a.image = NULL;
  qn_artifact_free(&a);
  snprintf(k->name, sizeof k->name, "%s", e->c->name);
  snprintf(k->hash, sizeof k->hash, "%s", hash);
  snprintf(k->target, sizeof k->target, "%s", r->supervisor.info.target);
  snprintf(k->arch, sizeof k->arch, "%s", e->c->arch);
  return QN_OK;
}

static qn_status gather_kernels(qn_tuning *r, qn_tune_result *out) {
  for (size_t i = 0; i < out->n_plans; i++)
    for (uint32_t j = 0; j < out->plan[i].n_ranges; j++) QN_TRY(add_kernel(r, out, out->plan[i].range[j].variant));
  return QN_OK;
}

void qn_tune_result_free(qn_tune_result *r) {
  for (size_t i = 0; i < r->n_kernels; i++) free((void *)(uintptr_t)r->kernel[i].image);
  free(r->kernel);
  free(r->plan);
  *r = (qn_tune_result){0};
}

/* A plan without N and K: the plain kernel, for shapes of the same format and types that nobody tuned. */
static qn_status add_generic(qn_tuning *r, const qn_tune_problem *p, qn_tune_result *out) {
  qn_entrant *e = p->generic ? qn__run_entrant(r, p->generic->hash) : NULL;
  if (!e || !e->alive) return QN_OK;
  qn_plan plan = {
      .problem = p->problem, .kind = QN_PLAN_FASTEST, .format = p->format, .layout = e->c->layout, .n_ranges = 1};
  plan.problem.n = plan.problem.k = 0;
  qn__problem_spell(&plan.problem);
  for (size_t i = 0; i < out->n_plans; i++)
    if (!strcmp(out->plan[i].problem.spelling, plan.problem.spelling)) return QN_OK;
  plan.range[0] = (qn_range){.m_min = 1, .error = e->error};
  memcpy(plan.range[0].variant, e->c->hash, sizeof plan.range[0].variant);
  return qn__result_add_plan(out, &plan);
}

qn_status qn__result_add_plan(qn_tune_result *out, const qn_plan *plan) {
  qn_plan *list = realloc(out->plan, (out->n_plans + 1) * sizeof *list);
  if (!list) return qn__fail(QN_E_NOMEM, "no memory for plans");
  out->plan = list;
  list[out->n_plans++] = *plan;
  return QN_OK;
}

/* ---- All of it
 * --------------------------------------------------------------------------------------------------------- */

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
  QN_TRY(qn_compiler_version(r->supervisor.info.target, compiler, sizeof compiler));
  QN_TRY(qn_store_open(r->options->store, &r->supervisor.info, compiler, "cold", &r->store));
  return qn__journal_open(r->store, &r->journal);
}

static qn_status steps(qn_tuning *r, qn_tune_result *out) {
  QN_TRY(open_store(r));
  QN_TRY(collect(r));
  r->total = 2 * r->n_entrants;
  if (!r->options->check_only)
    for (size_t i = 0; i < r->n_problems; i++) r->total += r->problem[i].n_candidates * r->n_m;
  QN_TRY(compile_all(r));
  QN_TRY(verify_all(r));
  for (size_t i = 0; i < r->n_problems; i++) {
    if (!r->options->check_only) QN_TRY(qn__run_problem(r, &r->problem[i], out));
    QN_TRY(add_generic(r, &r->problem[i], out));
  }
  QN_TRY(gather_kernels(r, out));
  out->device = r->supervisor.info;
  out->peak_bandwidth = r->peak_bandwidth;
  return QN_OK;
}

qn_status qn_tune(const qn_tune_problem *problems, size_t n, const qn_tune_options *options, qn_tune_result *out) {
  char worker[PATH_MAX];
  qn_tuning *r = calloc(1, sizeof *r);
  *out = (qn_tune_result){0};
  if (!r) return qn__fail(QN_E_NOMEM, "no memory for a run");
  *r = (qn_tuning){.problem = problems,
                   .n_problems = n,
                   .options = options,
                   .start = qn__now(),
                   .journal = {.fd = -1},
                   .m = options->m ? options->m : usual_m,
                   .n_m = options->m ? options->n_m : QN_COUNT(usual_m)};
  qn_status s = r->n_m >= QN_PLAN_RANGES
                    ? qn__fail(QN_E_LIMIT, "%zu values of M; at most %d", r->n_m, QN_PLAN_RANGES - 1)
                    : QN_OK;
  if (s == QN_OK) s = worker_path(options, worker);
  if (s == QN_OK) s = qn__supervisor_init(&r->supervisor, worker, options->device);
  if (s == QN_OK) s = steps(r, out);
  r->counts.restarts = (size_t)r->supervisor.restarts;
  out->counts = r->counts;
  if (s == QN_OK) qn__run_show(r, "done", NULL, NULL, 0, 0, NULL);
  qn__journal_close(&r->journal);
  qn__supervisor_fini(&r->supervisor);
  qn_store_close(r->store);
  free(r->dense);
  free(r->entrant);
  free(r);
  if (s != QN_OK) qn_tune_result_free(out);
  return s;
}
