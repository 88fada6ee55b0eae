/* clock.h - the clock by which everything is timed and every deadline is set. */
#ifndef QN_CLOCK_H
#define QN_CLOCK_H
#include <time.h>

/* Seconds of CLOCK_MONOTONIC. */
static inline double qn__now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
#endif
