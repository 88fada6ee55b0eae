/* supervise.h - a worker process on a leash: started, asked, watched, killed, started again. */
#ifndef QN_SUPERVISE_H
#define QN_SUPERVISE_H
#include "protocol.h"
#include <sys/types.h>

/* Whose failure was it? What is remembered against a kernel must be its own doing. */
typedef enum qn_fault {
  QN_FAULT_NONE,
  QN_FAULT_RUN,     /* no device, no worker, a file that cannot be read: to ask again does not help */
  QN_FAULT_OUTSIDE, /* memory was short, or somebody ended the worker: anybody's; another worker may be asked again */
  QN_FAULT_DEATH,   /* it crashed, hung, lost its context or its place in the conversation: the kernel's, or what
                       another kernel did to this worker before */
  QN_FAULT_WRONG,   /* it says that the kernel is wrong: likewise */
  QN_FAULTS
} qn_fault;

typedef struct qn_supervisor {
  const char *program, *device; /* borrowed */
  pid_t pid;                    /* 0: none is running */
  int fd;
  char *line;
  size_t used, room;
  int restarts;
  bool fresh;          /* the worker has been asked nothing yet */
  int asked;           /* number of the last request, drawn at random, which its answer repeats */
  qn_fault fault;      /* of the last request */
  char step[160];      /* what the worker said last that it was doing; "" before it says anything */
  double limit;        /* seconds that it may be silent */
  qn_device_info info; /* of the worker's device, after the first start */
} qn_supervisor;

/* Start the worker program on a device. QN_E_IO, QN_E_DEVICE with the worker's own words. One that ends before it says
 * anything is started again, a few times. */
qn_status qn__supervisor_init(qn_supervisor *s, const char *program, const char *device);
void qn__supervisor_fini(qn_supervisor *s);

/* Is a process, which sent a signal, the worker or one of its group? Of a process that has one supervisor at a time;
 * async-signal-safe. */
bool qn__supervisor_sent(pid_t sender);

/* Ask and wait. The request is consumed; *answer (may be NULL) is the caller's. The answer's status is returned, its
 * text is the failure's detail, and s->fault says whose failure it is. However long the answer takes, the worker may be
 * silent for at most `seconds`, or for as long as the step that it said last takes, if that is less (watch.h). One that
 * ends or is silent for longer gives QN_E_WRONG and a text that says how it ended; if by a signal that somebody sent,
 * QN_E_IO. After every failure but the run's own the worker is killed with everything it started: whatever a kernel
 * left behind goes with it. The next request starts another. */
qn_status qn__supervisor_ask(qn_supervisor *s, cJSON *request, double seconds, cJSON **answer);
#endif
