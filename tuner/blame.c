/* blame.c - a step about a kernel fails: whose fault is it, and what is remembered?
 *
 * A worker holds whatever the kernels before left in it, and a machine whatever else it does. So a kernel is only
 * condemned for what it did in a worker of its own, and what is anybody's fault is not remembered at all. */
#include "fail.h"
#include "json.h"
#include "run.h"
#include "verify.h"
#include <stdio.h>

/* Failures of a kind, in one step, that are enough. */
static const int patience[QN_FAULTS] = {[QN_FAULT_OUTSIDE] = 3, [QN_FAULT_DEATH] = 2, [QN_FAULT_WRONG] = 1};

void qn__run_verify_key(const qn_entrant *e, char key[QN_KEY]) {
  snprintf(key, QN_KEY, "verify %s suite %d", e->c->hash, QN_VERIFY_SUITE);
}

static void note(qn_tuning *r, const qn_entrant *e, const char *how, const char *why) {
  char text[4200];
  snprintf(text, sizeof text, "%s%s", how, why);
  qn__run_show(r, "note", NULL, e->c->name, 0, 0, text);
}

void qn__run_reject(qn_tuning *r, qn_entrant *e, const char *why) {
  e->alive = false;
  r->counts.rejected++;
  r->fallen += e->verified;
  note(r, e, "", why);
}

void qn__run_set_aside(qn_tuning *r, qn_entrant *e, const char *why) {
  e->alive = false;
  r->counts.set_aside++;
  r->fallen += e->verified;
  note(r, e, "set aside for this run: ", why);
}

/* For good, whatever step it was and whatever problem. */
static void condemn(qn_tuning *r, qn_entrant *e, const char *what) {
  char key[QN_KEY];
  cJSON *evidence = cJSON_CreateObject();
  qn__json_add_text(evidence, "name", e->c->name);
  qn__json_add_text(evidence, "rejected", qn__errmsg());
  qn__json_add_text(evidence, "step", what);
  qn__run_reject(r, e, qn__errmsg());
  qn__run_verify_key(e, key);
  qn__run_keep(r, "evidence", key, evidence);
  cJSON_Delete(evidence);
}

qn_status qn__run_try(qn_tuning *r, qn_entrant *e, const char *what, qn_attempt *step, void *ud, bool *passed) {
  int failures[QN_FAULTS] = {0}, suspicion = qn__journal_suspicion(r->store, what);
  *passed = false;
  if (suspicion >= QN_SUSPECT) return qn__run_reject(r, e, QN_SUSPECT_WHY), QN_OK;
  for (;;) {
    bool own = !r->supervisor.pid || r->supervisor.fresh;
    qn__journal_begin(&r->journal, what);
    qn_status s = step(r, ud);
    qn_fault fault = r->supervisor.fault;
    qn__journal_end(&r->journal);
    *passed = s == QN_OK;
    if (*passed && suspicion) qn__journal_trust(r->store, what);
    if (*passed || fault <= QN_FAULT_RUN) return s;
    bool enough = ++failures[fault] >= patience[fault];
    if (enough && fault == QN_FAULT_OUTSIDE) return qn__run_set_aside(r, e, qn__errmsg()), QN_OK;
    if (enough && own) return condemn(r, e, what), QN_OK;
    note(r, e, "once more: ", qn__errmsg());
  }
}

/* ---- A question -------------------------------------------------------------------------------------------------- */

typedef struct question {
  const qn_ask *ask;
  double *error;
} question;

static qn_status put(qn_tuning *r, void *ud) {
  const question *q = ud;
  cJSON *answer;
  qn_status s = qn__run_ask(r, q->ask, &answer);
  *q->error = qn__json_number(answer, "error", 0);
  cJSON_Delete(answer);
  return s;
}

qn_status qn__run_question(qn_tuning *r, qn_entrant *e, const char *what, const qn_ask *a, double *error,
                           bool *passed) {
  return qn__run_try(r, e, what, put, &(question){a, error}, passed);
}
