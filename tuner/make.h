/* make.h - artifacts, made on threads of their own while the device is busy with what is made already. */
#ifndef QN_MAKE_H
#define QN_MAKE_H
#include "store.h"
#include "tuner.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

enum { QN_MAKE_WHY = 1400 }; /* room for a reason */

/* A variant that takes part; each once, whatever problems share it. */
typedef struct qn_entrant {
  const qn_candidate *c;
  /* Written by the maker, and read once it is ready. */
  bool ready, known;     /* known: the store had it */
  bool failed;           /* to compile */
  bool missed;           /* it was not compiled, which is not its fault */
  char why[QN_MAKE_WHY]; /* is there no artifact, or none that can be used; "": there is one */
  char image[4096], sum[33];
  /* The run's own. */
  bool taken;    /* counted */
  bool alive;    /* nothing is held against it */
  bool verified; /* and is right */
  bool late;     /* there was no time to make it or to verify it, when that was last tried */
  bool timed;
  double error;
} qn_entrant;

typedef struct qn_maker {
  qn_store *store;
  char target[8];
  struct qn_headers *headers;
  qn_entrant **entrant; /* those to be compiled, first to last */
  size_t n, next;
  pthread_t *thread;
  int threads, working; /* threads; those that have not ended */
  int misses;           /* in a row */
  atomic_bool stop;
  qn_status status; /* why it ended early, with the text */
  char failure[QN_MAKE_WHY];
  pthread_mutex_t lock;
  pthread_cond_t change;
} qn_maker;

/* Begin to make the n entrants in their order, those the store does not have on `threads` threads (0: all cores). Each
 * is looked up once more before it is compiled: other runs make the same. A compiler that is killed is started again.
 * After three entrants in a row that could not be made through no fault of theirs it ends: a full disk, no compiler.
 * QN_E_NOMEM: nothing is begun, and nothing left to stop. */
qn_status qn__maker_start(qn_maker *m, qn_store *store, const char *target, qn_entrant *const *order, size_t n,
                          int threads);
/* Wait until `e` is ready, or no longer than to the moment `until`; false: it is not. */
bool qn__maker_wait(qn_maker *m, const qn_entrant *e, double until);
/* Begin nothing more, and give up what is being compiled. */
void qn__maker_stop(qn_maker *m);
/* Why it ended early; QN_OK: it did not. */
qn_status qn__maker_failure(qn_maker *m);
#endif
