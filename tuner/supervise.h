/* supervise.h - a worker process on a leash: started, asked, watched, killed, started again. */
#ifndef QN_SUPERVISE_H
#define QN_SUPERVISE_H
#include "protocol.h"
#include <sys/types.h>

typedef struct qn_supervisor {
  const char *program, *device; /* borrowed */
  pid_t pid;                    /* 0: none is running */
  int fd;
  char *line;
  size_t used, room;
  int restarts;
  char step[160];      /* what the worker said last that it was doing; "" before it says anything */
  double limit;        /* seconds that it may be silent */
  qn_device_info info; /* of the worker's device, after the first start */
} qn_supervisor;

/* Start the worker program on a device. QN_E_IO, QN_E_DEVICE with the worker's own words. */
qn_status qn__supervisor_init(qn_supervisor *s, const char *program, const char *device);
void qn__supervisor_fini(qn_supervisor *s);

/* Ask and wait. The request is consumed; *answer (may be NULL) is the caller's. The answer's status is returned, its
 * text is the failure's detail. However long the answer takes, the worker may be silent for at most `seconds`, or for
 * as long as the step that it said last takes, if that is less (watch.h). One that ends or is silent for longer is
 * killed with everything it started, the next call starts another, and the return is QN_E_WRONG saying how it ended;
 * *died (may be NULL) is set. */
qn_status qn__supervisor_ask(qn_supervisor *s, cJSON *request, double seconds, cJSON **answer, bool *died);
#endif
