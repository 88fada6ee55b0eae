/* tuner.h - choose, by measurement, the variant that serves each (problem, M) on one device.
 *
 *   compile (all cores) -> verify -> race -> finals -> plans
 *
 * The caller's process is the supervisor: it never touches the device. A worker process does; it may crash, hang or
 * overrun its memory, and only the candidate at fault pays. Every step is journaled, so that a killed run is continued
 * by the next one and nothing that has evidence is compiled or timed again. */
#ifndef QN_TUNER_H
#define QN_TUNER_H
#include "pack.h"
#include "store.h"

/* A variant as the generator hands it over. Text is caller-owned and outlives the call. */
typedef struct qn_candidate {
  const char *name;                  /* stable, readable */
  const char *hash;                  /* of source, flags, recipe and layout: 32 hexadecimal digits */
  const char *family;                /* template: "host.gemv" */
  const char *source, *flags, *arch; /* arch as in qn_kernel */
  const char *params;                /* JSON object, recorded in the evidence */
  const char *library, *symbol; /* instead of source, a function of the user's own (qn_function): its library's path and
                                   its name there; the pack names it by the entry of the recipe's last step */
  qn_layout layout;
  qn_recipe recipe;
  int64_t m_min, m_max; /* the rules let it serve these M; m_max 0: no limit */
  int64_t m_tile;       /* tokens of a tile; 0: it does not say */
  int64_t cost;         /* tie-break: fewer resources first */
} qn_candidate;

typedef struct qn_tune_problem {
  qn_problem problem;
  qn_format format;
  const qn_candidate *candidate;
  size_t n_candidates;
  bool baseline;               /* dense f32, timed only to be compared with: makes no plan */
  const qn_candidate *generic; /* plain kernel kept in the pack for shapes that were not tuned; may be NULL */
  const double *share;         /* [experts] how many rows of a timing each expert of a stack has, beside the others: of
                                  any sum; NULL: all alike */
  const char *share_name;      /* the word by which keys of evidence name the problem with this share; NULL with it */
} qn_tune_problem;

/* What is going on, for a progress bar. */
typedef struct qn_tune_event {
  const char *phase;   /* "compile", "verify", "race", "finals", "done", "note" */
  const char *problem; /* spelling, may be NULL */
  const char *variant; /* name, may be NULL */
  int64_t m;
  size_t done, total; /* steps of the whole run */
  double best;        /* seconds, of this problem and M so far; 0: none */
  double left;        /* seconds left, estimated */
  const char *text;   /* for "note": a rejection with its reason, a restarted worker… */
} qn_tune_event;

typedef struct qn_tune_options {
  const char *device; /* "host", "cuda:0" */
  const char *store;  /* root directory, NULL: default */
  const char *worker; /* path of the worker program, NULL: found beside the tool */
  const int64_t *m;   /* sorted profile of token counts; NULL: 1, 4, 16, 64, 256 */
  size_t n_m;
  const double *m_weight; /* weight of each M when a layout is chosen; NULL: equal */
  int effort;             /* 0 quick, 1 normal, 2 full */
  double budget;   /* seconds for everything; 0: no limit. When they are over, one step ends and the best so far is
                      kept: at least a verified kernel for every problem, perhaps not timed */
  int threads;     /* compile threads, 0: all cores */
  int check_only;  /* verify, do not time: no plans but the plain kernels */
  int retime;      /* take every time again, whatever the store knows */
  const char *run; /* several calls that are one run: no time is taken again that the run took, though the machine was
                      busy; NULL: this call is one */
  void (*progress)(void *ud, const qn_tune_event *e);
  void *ud;
} qn_tune_options;

/* Counts of a run, printed and tested: what was done now and what was found in the store. */
#define QN_TUNE_COUNT_MAP(X)                                                                                           \
  X(compiled)                                                                                                          \
  X(compile_known)                                                                                                     \
  X(compile_failed)                                                                                                    \
  X(verified)                                                                                                          \
  X(verify_known)                                                                                                      \
  X(rejected)                                                                                                          \
  X(timed)                                                                                                             \
  X(timed_known)                                                                                                       \
  X(restarts)                                                                                                          \
  X(set_aside) /* not tried further in this run, through no fault that is known to be theirs */                        \
  X(samples)   /* kept */                                                                                              \
  X(thrown)    /* void, and taken again */                                                                             \
  X(disturbed) /* of those kept, taken on a busy machine (sample.h) */                                                 \
  X(again)     /* timings of earlier runs that were taken again */                                                     \
  X(cut)       /* left out for want of time: unverified kernels, timings of others; 0: more budget adds nothing */
typedef struct qn_tune_counts {
#define X(name) size_t name;
  QN_TUNE_COUNT_MAP(X)
#undef X
} qn_tune_counts;

typedef struct qn_tune_result {
  size_t n_plans;
  qn_plan *plan; /* per problem and kind, in the order of the problems */
  size_t n_kernels;
  qn_kernel *kernel; /* every kernel that a plan names, and the generic ones, with images */
  qn_tune_counts counts;
  qn_device_info device; /* where it was tuned */
  double peak_bandwidth; /* bytes/s that the machine was seen to read */
  char *remarks;         /* what the user must know of how it ended, a line each; "": nothing */
} qn_tune_result;

qn_status qn__tune(const qn_tune_problem *problems, size_t n, const qn_tune_options *options, qn_tune_result *out);
void qn__tune_result_free(qn_tune_result *r);

/* The worker's main: reads requests from fd 0, answers on fd 1 (protocol: tuner/protocol.h). Returns the exit
 * status. */
int qn__worker_main(int argc, char **argv);
#endif
