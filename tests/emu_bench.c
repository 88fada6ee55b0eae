/* emu_bench.c - speed of the interpreter itself, in warp instructions per second, with all checks.
 *
 *     emu_bench [ROUNDS]
 *
 * The mma sample of 64 x 1024 x 4096 on one thread and on two, and beside it how far a plain loop scales from one
 * thread to two: all four in every round, the best round of each counts. On a shared machine processor time tells more
 * than elapsed time, so both are shown. Then what each check costs. Not a test: nothing is asserted. */
#include "emu_samples.h"
#include "fail.h"
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
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
  for (int k = 0; k < 100000000; k++) x = x * 1664525u + 1013904223u;
  return context;
}

/* Seconds of `burn` on that many threads at once. */
static double plain(int threads) {
  pthread_t other;
  double start = now();
  bool two = threads > 1 && !pthread_create(&other, NULL, burn, NULL);
  burn(NULL);
  if (two) pthread_join(other, NULL);
  return now() - start;
}

typedef struct rate {
  double elapsed, cpu; /* warp instructions per second */
} rate;

/* One run; the better of it and *best is left in *best. */
static void improve(rate *best, const char *ptx, int threads, unsigned without) {
  qn_emu_launch how = {.threads = threads, .without = without};
  qn_emu_report *r;
  if (sample_run(ptx, (sample){SAMPLE_MMA, 64, 1024, 4096}, "sm_80", &how, NULL, &r)) {
    puts(qn__errmsg());
    exit(1);
  }
  if (r->findings) puts("findings in a correct kernel");
  double n = (double)r->counters.warp_insns;
  best->elapsed = fmax(best->elapsed, n / r->seconds), best->cpu = fmax(best->cpu, n / r->cpu_seconds);
  qn__emu_report_free(r);
}

static void print_checks(const char *ptx, int rounds) {
  static const struct {
    const char *name;
    unsigned without;
  } rows[] = {{"none", QN_EMU_CHECKS},         {"all but init", QN_EMU_INIT},   {"all but race", QN_EMU_RACE},
              {"all but proxy", QN_EMU_PROXY}, {"all but count", QN_EMU_COUNT}, {"all", 0}};
  for (size_t k = 0; k < QN_COUNT(rows); k++) {
    rate best = {0};
    for (int n = 0; n < rounds; n++) improve(&best, ptx, 1, rows[k].without);
    printf("checks %-14s %5.1f M/s of processor time\n", rows[k].name, best.cpu / 1e6);
  }
}

int main(int argc, char **argv) {
  char *ptx = sample_text("mma.sm_80.ptx");
  int rounds = argc > 1 ? atoi(argv[1]) : 5;
  rate one = {0}, two = {0};
  double plain_one = 1e30, plain_two = 1e30;
  if (!ptx || rounds < 1) return puts(ptx ? "emu_bench [ROUNDS]" : "mma.sm_80.ptx cannot be read"), 1;
  for (int n = 0; n < rounds; n++) {
    improve(&one, ptx, 1, 0), improve(&two, ptx, 2, 0);
    plain_one = fmin(plain_one, plain(1)), plain_two = fmin(plain_two, plain(2));
  }
  printf("one thread   %5.1f M warp instructions/s (%.1f per second of processor time)\n", one.elapsed / 1e6,
         one.cpu / 1e6);
  printf("two threads  %5.1f M warp instructions/s (%.1f per second of processor time): %.2fx, a plain loop %.2fx\n",
         two.elapsed / 1e6, two.cpu / 1e6, two.elapsed / one.elapsed, 2 * plain_one / plain_two);
  print_checks(ptx, rounds);
  free(ptx);
  return 0;
}
