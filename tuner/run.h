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
  bool disturbed;
} qn_dense;

/* Steps of two kinds, for the estimate of the time that is left: what one takes is learnt from those that are done. */
typedef enum qn_step_kind {
  QN_MAKING, /* compiled or verified */
  QN_TIMING, /* raced at an M */
  QN_STEP_KINDS
} qn_step_kind;

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
  size_t fallen;  /* kernels out of the run although they had been verified: plans may name them */
  size_t settled; /* those of them that were, when the making of plans began */
  char *remarks;  /* of the result */
  bool unkept;    /* the store takes nothing any more, as was said */
  char id[64];    /* of the run: its timings bear it */
  double peak_bandwidth;
  qn_dense *dense; /* the baselines measured so far */
  size_t n_dense;
} qn_tuning;

qn_entrant *qn__run_entrant(const qn_tuning *r, const char *hash);
void qn__run_show(qn_tuning *r, const char *phase, const char *problem, const char *variant, int64_t m, double best,
                  const char *text);
void qn__run_step(qn_tuning *r, qn_step_kind kind); /* one of them is done */
/* Candidate number j in the order of this run: functions of the user's first, since there are few and they were asked
 * for; then the others, from a place that differs between runs at work on one store, which share what they find. */
const qn_candidate *qn__run_candidate(const qn_tuning *r, const qn_tune_problem *p, size_t j);
/* Nothing is asked of it any more in this run: it is at fault, or nobody is known to be. */
void qn__run_reject(qn_tuning *r, qn_entrant *e, const char *why);
void qn__run_set_aside(qn_tuning *r, qn_entrant *e, const char *why);
/* Was nobody rejected since the making of plans began? Else all are made again, of what is known. */
static inline bool qn__run_settled(const qn_tuning *r) { return r->fallen == r->settled; }
qn_status qn__result_add_plan(qn_tune_result *out, const qn_plan *plan);

/* Does it promise what plans of this kind promise? */
static inline bool qn__run_fit(const qn_candidate *c, qn_plan_kind kind) {
  const bool fit[QN_PLAN_KINDS] = {true, c->recipe.deterministic, c->recipe.batch_invariant};
  return fit[kind];
}

/* Is the step's share of the budget spent? Then the caller leaves out what it is about to do, which is counted. */
bool qn__run_late(qn_tuning *r);
/* When the next of `parts` equal parts of the time up to `end` is over. */
double qn__run_share(double end, size_t parts);
/* Evidence that tells what is asked: the number `field`, at least `least`, or that the kernel was rejected. NULL: it is
 * not there; what a writer without memory or another version left out is no result. */
cJSON *qn__run_known(const qn_tuning *r, const char *key, const char *field, double least);
/* Is this timing, which may be NULL, to be taken again? It is, once in a run and while there is time, if the machine
 * was busy when it was taken, or if the user wants all anew. */
bool qn__run_again(qn_tuning *r, const cJSON *timing);
/* Note in a timing how far apart its samples were, whether the machine was busy, and whose it is. */
void qn__run_sign(const qn_tuning *r, cJSON *timing, double spread, bool disturbed);
/* Append an answer's numbers of that name to x; returns how many there are now, `most` at most. */
size_t qn__run_samples(const cJSON *answer, const char *name, double *x, size_t n, size_t most);
/* Store what was seen. A full disk does not end a run: it says so once and goes on with what it has in memory. */
void qn__run_keep(qn_tuning *r, const char *kind, const char *key, const cJSON *value);

enum { QN_KEY = 400 }; /* room for a key of evidence */

/* What stands behind a problem's spelling in keys of its evidence: a stack takes as long as its rows are shared out. */
static inline const char *qn__run_share_name(const qn_tune_problem *p) { return p->share_name ? p->share_name : ""; }

/* The key of what was measured of a variant at m: "race", alone; "finals", beside others. */
void qn__run_time_key(const char *how, const qn_tune_problem *p, const qn_entrant *e, int64_t m, char key[QN_KEY]);

/* A question to the worker about one entrant. */
typedef struct qn_ask {
  const char *op;
  const qn_tune_problem *p;
  const qn_entrant *e; /* may be NULL */
  int slot, reps;
  int64_t m;
} qn_ask;

/* Ask once; r->supervisor.fault says whose failure it is. */
qn_status qn__run_ask(qn_tuning *r, const qn_ask *a, cJSON **answer);

/* A step about one entrant, journaled as `what`: ask until it succeeds or it is known who is at fault. A kernel that is
 * at fault is rejected for good, as evidence that "verify" finds before it asks: it must have failed in a worker that
 * ran nothing else, and twice if it crashed or hung. Where it is nobody's fault in three attempts, memory being short
 * or somebody ending the workers, it is set aside for this run, and nothing is remembered. So is a kernel with which
 * earlier runs went down (journal.h). *passed says that it succeeded. A failure is the run's own. */
typedef qn_status qn_attempt(qn_tuning *r, void *ud);
qn_status qn__run_try(qn_tuning *r, qn_entrant *e, const char *what, qn_attempt *step, void *ud, bool *passed);
/* The same of one question, whose answer has an "error". */
qn_status qn__run_question(qn_tuning *r, qn_entrant *e, const char *what, const qn_ask *a, double *error, bool *passed);

/* The key of what is known of a variant, whatever the problem: verified, or rejected and why. */
void qn__run_verify_key(const qn_entrant *e, char key[QN_KEY]);

/* Race the candidates of a problem at every M, choose its layout, hold the finals, add its plans; of a baseline, note
 * what the dense product takes. */
qn_status qn__run_problem(qn_tuning *r, const qn_tune_problem *p, qn_tune_result *out);
#endif
