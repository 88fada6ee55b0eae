/* supervise.h - a worker process on a leash: asked one thing at a time, killed with its whole process group when it
 * does not answer, started again when it is gone. */
#ifndef QN_SUPERVISE_H
#define QN_SUPERVISE_H
#include "protocol.h"

typedef struct qn_worker qn_worker;

/* Nothing is started yet. `program` NULL: $QUERNEL_WORKER, else quernel-worker beside the running program, else where
 * it was installed. QN_E_IO: there is none. */
qn_status qn__worker_open(const char *program, const char *device, qn_worker **out);
void qn__worker_close(qn_worker *w); /* kills it; NULL is accepted */
int qn__worker_starts(const qn_worker *w);

typedef enum qn_answer {
  QN_ANSWER_OK,     /* *answer holds it */
  QN_ANSWER_FAILED, /* the worker says why: *status, qn__errmsg() */
  QN_ANSWER_DIED,   /* qn__errmsg() tells the signal or the exit status */
  QN_ANSWER_HUNG,   /* no answer in time; it was killed */
  QN_ANSWER_NONE    /* no worker can be started; qn__errmsg() */
} qn_answer;

/* Ask and wait. `patience` seconds are counted from the moment that the kernel begins to run; preparing may take ten
 * times as long. The caller frees *answer. */
qn_answer qn__worker_ask(qn_worker *w, const cJSON *request, double patience, cJSON **answer, qn_status *status);
#endif
