/* emu_bench.c - speed of the interpreter itself, in warp instructions per second, with all checks.
 *
 * Prints one core and two cores on the mma sample of 64 x 1024 x 4096, and how far a plain loop scales from one thread
 * to two in the same run: on a shared machine only the ratio of the two says something. Not a test: nothing is
 * asserted. */
#include "emu_samples.h"
#include "fail.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *burn(void *context) {
  volatile unsigned x = 1;
  for (int k = 0; k < 200000000; k++) x = x * 1664525u + 1013904223u;
  return context;
}

/* Throughput of two threads over that of one. */
static double plain_scaling(void) {
  pthread_t other;
  double t0 = now();
  burn(NULL);
  double one = now() - t0;
  t0 = now();
  if (pthread_create(&other, NULL, burn, NULL)) return 0;
  burn(NULL);
  pthread_join(other, NULL);
  return 2 * one / (now() - t0);
}

static double rate(const char *ptx, int threads) {
  double best = 0, error;
  for (int k = 0; k < 3; k++) {
    qn_emu_launch how = {.threads = threads};
    qn_emu_report *r;
    if (sample_run(ptx, (sample){SAMPLE_MMA, 64, 1024, 4096}, "sm_80", &how, &error, &r)) return puts(qn__errmsg()), 0;
    double v = (double)r->counters.warp_insns / r->seconds;
    if (r->findings) puts("findings in a correct kernel");
    if (v > best) best = v;
    qn_emu_report_free(r);
  }
  return best;
}

int main(void) {
  char *ptx = sample_text("mma.sm_80.ptx");
  if (!ptx) return puts("mma.sm_80.ptx cannot be read"), 1;
  double one = rate(ptx, 1), two = rate(ptx, 2), plain = plain_scaling();
  printf("one core %.1f M warp instructions/s, two cores %.1f (%.2fx); a plain loop scales %.2fx\n", one / 1e6,
         two / 1e6, two / one, plain);
  free(ptx);
  return 0;
}
