/* gate.c - is the machine undisturbed?
 *
 * The burst is arithmetic in registers that keeps every unit of a core busy, a tenth of a millisecond long, one on each
 * thread of the pool at once. It touches no memory: what slows it is a thread that is not running, a core shared with
 * its sibling, or a lower clock. What the best rate is, the machine tells by itself. */
#include "fail.h"
#include "meter.h"
#include <time.h>

#define ROUNDS 12000  /* of the burst: about 0.1 ms on a core of 3 GHz */
#define ENOUGH 0.85   /* of the best rate */
#define FORGET 0.9999 /* per probe: a lasting lower clock is accepted after some 1500 */
#define NAP 2000000   /* ns */
#define GRACE 0.5     /* s that may be waited before anything is measured */

double qn__now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef float vec __attribute__((vector_size(16)));

/* Fourteen independent chains of multiply and add: more than the units times their latency. */
#define CHAINS(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13)

static void burst(const qn_host_args *a, int64_t begin, int64_t end, int32_t thread) {
  (void)a, (void)thread;
  volatile float seed = 0.5f;
  vec factor = {seed, seed, seed, seed}, term = factor;
#define X(i) vec v##i = factor * (i + 1);
  CHAINS(X)
#undef X
  for (int64_t n = (end - begin) * ROUNDS; n > 0; n--) {
#define X(i) v##i = v##i * factor + term;
    CHAINS(X)
#undef X
    __asm__ volatile("" ::: "memory");
  }
  vec sum = term;
#define X(i) sum += v##i;
  CHAINS(X)
#undef X
  seed = sum[0];
}

/* Bursts per second, all threads at once; 0 if they cannot be run. */
static double probe(qn_gate *g) {
  static const qn_step step = {.entry = "burst"};
  qn_host_entry entry = burst;
  qn_launch l = {.grid = {g->device->info.threads, 1, 1}, .step = &step};
  __builtin_memcpy(&l.fn, &entry, sizeof l.fn);
  double begin = qn__now();
  if (g->device->ops->launch(g->device, &l, &(qn_host_args){0}, NULL)) return 0;
  return 1 / (qn__now() - begin);
}

bool qn__gate_open(qn_gate *g) {
  double rate = probe(g);
  g->best = rate > g->best ? rate : g->best * FORGET;
  return rate >= ENOUGH * g->best;
}

void qn__gate_init(qn_gate *g, qn_device *d) {
  *g = (qn_gate){.device = d};
  for (int i = 0; i < 64; i++) qn__gate_open(g);
}

bool qn__gate_wait(qn_gate *g) {
  if (g->waited > g->measured + GRACE) return false;
  double begin = qn__now();
  nanosleep(&(struct timespec){.tv_nsec = NAP}, NULL);
  g->waited += qn__now() - begin;
  return true;
}
