/* make.h - artifacts, made on threads of their own while the device is busy with what is made already. */
#ifndef QN_MAKE_H
#define QN_MAKE_H
#include "store.h"
#include "tuner.h"
#include <pthread.h>
#include <stdbool.h>

/* A variant that takes part; each once, whatever problems share it. */
typedef struct qn_entrant {
  const qn_candidate *c;
  /* Written by the maker, and read once it is ready. */
  bool ready, known; /* known: the store had it */
  char *why;         /* why there is no artifact, or none that can be used; NULL: there is */
  bool failed;       /* to compile */
  char image[4096], sum[33];
  /* The run's own. */
  bool taken;    /* counted */
  bool alive;    /* nothing is held against it */
  bool verified; /* it was asked, once, whether it is right */
  double error;
} qn_entrant;

typedef struct qn_maker {
  qn_store *store;
  char target[8];
  qn_entrant **entrant; /* those to be compiled, first to last */
  qn_source *source;
  size_t n;
  int threads;
  bool running, stop;
  qn_status status; /* why it ended early, with the text */
  char failure[1400];
  pthread_t thread;
  pthread_mutex_t lock;
  pthread_cond_t change;
} qn_maker;

/* Begin to make the n entrants in their order, those the store does not have on `threads` threads (0: all cores). */
qn_status qn__maker_start(qn_maker *m, qn_store *store, const char *target, qn_entrant *const *order, size_t n,
                          int threads);
/* Wait until `e` is ready, or no longer than to the moment `until`; false: it is not. */
bool qn__maker_wait(qn_maker *m, const qn_entrant *e, double until);
/* Begin nothing more, and wait for what is being compiled. QN_OK, or why it ended early: a full disk, no compiler. */
qn_status qn__maker_stop(qn_maker *m);
#endif
