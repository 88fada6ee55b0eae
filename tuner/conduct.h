/* conduct.h - what a host kernel does besides computing Y.
 *
 * It runs in the caller's process, on the caller's threads. Whatever it leaves changed there, a rounding mode, a
 * blocked signal, a closed file, a thread, changes what the caller does next; it must leave all of it as it was. And
 * its work is cut up by whoever calls it: any cut must give the same. */
#ifndef QN_CONDUCT_H
#define QN_CONDUCT_H
#include "device.h"

/* Run a launch of the host device, every thread looked at before and after. cut 0, 2, 4…: with the work items in the
 * parts that the pool makes of them; else each part in pieces whose size depends on `cut`, last first, and an empty
 * one. QN_E_WRONG names what is left changed in a thread. */
qn_status qn__conduct_launch(qn_device *d, const qn_launch *l, const qn_host_args *a, unsigned cut);

enum { QN_CONDUCTS = 16 };
typedef struct qn_conduct {
  uint64_t value[QN_CONDUCTS]; /* one for each thing that is looked at */
  size_t resident;
} qn_conduct;

/* What the process is like now, and whether it still is as it was: open descriptors, signal handlers, limits… With
 * `threads`, threads that stay behind are allowed. Children that stay behind are killed. `calls` calls were made
 * between, for memory that a kernel keeps. QN_E_WRONG names what is left changed. */
void qn__conduct_note(qn_conduct *before);
qn_status qn__conduct_check(const qn_conduct *before, bool threads, int calls);
#endif
