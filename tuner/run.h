/* run.h - one tuning run, shared by its steps. */
#ifndef QN_RUN_H
#define QN_RUN_H
#include "journal.h"
#include "supervise.h"
#include "tuner.h"

/* A variant that takes part; each once, whatever problems share it. */
typedef struct qn_entrant {
  const qn_candidate *c;
  bool alive, verified;
  double error;
  int registers, shared;
  char image[4096], sum[33];
} qn_entrant;

typedef struct qn_dense {
  int64_t n, k, m;
  double seconds;
} qn_dense;

typedef struct qn_tuning {
  const qn_tune_problem *problem;
  size_t n_problems;
  const qn_tune_options *options;
  const int64_t *m;
  size_t n_m;
  double start;
  qn_supervisor supervisor;
  qn_store *store;
  qn_journal journal;
  qn_entrant *entrant; /* sorted by hash */
  size_t n_entrants, done, total;
  qn_tune_counts counts;
  double peak_bandwidth;
  qn_dense *dense; /* the baselines measured so far */
  size_t n_dense;
} qn_tuning;

qn_entrant *qn__run_entrant(qn_tuning *r, const char *hash);
void qn__run_show(qn_tuning *r, const char *phase, const char *problem, const char *variant, int64_t m, double best,
                  const char *text);
bool qn__run_late(const qn_tuning *r); /* is the budget spent? */
void qn__run_reject(qn_tuning *r, qn_entrant *e, const char *why);
qn_status qn__run_case(const qn_tune_problem *p, const qn_entrant *e, cJSON **out);
qn_status qn__run_ask(qn_tuning *r, const char *what, cJSON *(*request)(void *ud), void *ud, double seconds,
                      cJSON **answer);
qn_status qn__result_add_plan(qn_tune_result *out, const qn_plan *plan);

/* Race the candidates of a problem at every M, choose its layout, hold the finals, add its plans. */
qn_status qn__run_problem(qn_tuning *r, const qn_tune_problem *p, qn_tune_result *out);
#endif
