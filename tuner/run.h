/* run.h - one tuning run, shared by its steps. */
#ifndef QN_RUN_H
#define QN_RUN_H
#include "journal.h"
#include "make.h"
#include "supervise.h"
#include "tuner.h"

typedef struct qn_dense {
  int64_t n, k, m;
  double seconds;
} qn_dense;

/* Steps of two kinds, for the estimate of the time that is left: what one takes is learnt from those that are done. */
typedef enum qn_step_kind {
  QN_MAKING,
  QN_TIMING,
  QN_STEP_KINDS
} qn_step_kind; /* compiled or verified; raced at an M */

typedef struct qn_tuning {
  const qn_tune_problem *problem;
  size_t n_problems;
  const qn_tune_options *options;
  const int64_t *m;
  size_t n_m;
  double end;   /* of the budget; without one it is infinitely far */
  double until; /* of the step that is under way: its share of the budget */
  qn_supervisor supervisor;
  qn_store *store;
  qn_journal journal;
  qn_maker maker;
  qn_entrant *entrant; /* sorted by hash */
  size_t n_entrants;
  struct {
    size_t done, total;
    double spent;
  } steps[QN_STEP_KINDS];
  double stepped; /* when the last step ended */
  qn_tune_counts counts;
  double peak_bandwidth;
  qn_dense *dense; /* the baselines measured so far */
  size_t n_dense;
} qn_tuning;

qn_entrant *qn__run_entrant(const qn_tuning *r, const char *hash);
void qn__run_show(qn_tuning *r, const char *phase, const char *problem, const char *variant, int64_t m, double best,
                  const char *text);
void qn__run_step(qn_tuning *r, qn_step_kind kind); /* one of them is done */
void qn__run_reject(qn_tuning *r, qn_entrant *e, const char *why);
qn_status qn__run_case(const qn_tune_problem *p, const qn_entrant *e, cJSON **out);
qn_status qn__result_add_plan(qn_tune_result *out, const qn_plan *plan);

/* Is the step's share of the budget spent? */
bool qn__run_late(const qn_tuning *r);
/* When the next of `parts` equal parts of the time up to `end` is over. */
double qn__run_share(double end, size_t parts);
/* Is this the kernel's failure, not the run's? */
bool qn__run_blames(qn_status s);

/* A question to the worker about one entrant. */
typedef struct qn_ask {
  const char *op;
  const qn_tune_problem *p;
  const qn_entrant *e; /* may be NULL */
  int slot, reps;
  int64_t m;
} qn_ask;

/* Ask once. Not journaled: the caller is. */
qn_status qn__run_tell(qn_tuning *r, const qn_ask *a, cJSON **answer, bool *died);
/* Ask, journaled as `what`; a worker that dies is given a second chance. A step in which the machine went down twice is
 * not tried again: QN_E_WRONG. */
qn_status qn__run_ask(qn_tuning *r, const char *what, const qn_ask *a, cJSON **answer);

/* Race the candidates of a problem at every M, choose its layout, hold the finals, add its plans; of a baseline, note
 * what the dense product takes. */
qn_status qn__run_problem(qn_tuning *r, const qn_tune_problem *p, qn_tune_result *out);
#endif
