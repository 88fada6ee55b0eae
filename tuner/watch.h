/* watch.h - a worker's signs of life. Before each step that may hang it says what it does and how long that may take;
 * a supervisor that hears nothing for longer ends it. In a process that has opened no line nothing is said. */
#ifndef QN_WATCH_H
#define QN_WATCH_H
#include "device.h"
#include <stdio.h>

/* The line to the supervisor, from now on. One thread. */
void qn__watch_open(FILE *to);

/* `calls` calls of a product follow, each reading a weight of `bytes`. A call may take 100 times what it would at 10
 * GB/s and 10^10 products a second, and never less than 5 s is allowed. Nothing is said of devices that are not
 * timed. */
void qn__watch(const qn_device *d, int64_t m, int64_t n, int64_t k, int64_t bytes, int calls);
/* Last words, in a signal handler: what went wrong. */
void qn__watch_last(const char *text);
#endif
