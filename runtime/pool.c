/* pool.c - a thread pool for launches of microseconds.
 *
 * One job at a time, numbered by `epoch`. Each part has a slot with the number of the job that last claimed it;
 * claiming is one compare-and-swap from epoch - 1 to epoch, which fails for a worker that wakes too late, since by then
 * the slot has moved on. The job's fields are read only after a claim, and the job cannot end before the claimed part
 * is done. Waiting is spinning for a while, then sleeping on a futex; the waker makes a system call only if someone
 * sleeps. */
#include "pool.h"
#include "cpu.h"
#include "fail.h"
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SPIN 2000 /* some tens of microseconds: longer than the gap between two layers, shorter than a time slice */

typedef struct slot {
  alignas(64) atomic_uint epoch;
} slot;

typedef struct worker {
  qn_pool *pool;
  int index;
  pthread_t thread;
} worker;

struct qn_pool {
  const qn_allocator *heap;
  int threads, started;
  worker *worker; /* [threads], the first is the caller's and unused */
  slot *slot;     /* [threads] */
  qn_pool_fn fn;
  void *ud;
  int64_t items;
  alignas(64) atomic_uint epoch; /* of the current job; workers sleep on it */
  atomic_int sleepers;
  alignas(64) atomic_uint open; /* parts not done; the caller sleeps on it */
  atomic_bool waiting, stop;
  alignas(64) atomic_flag busy;
};

static void futex_wait(atomic_uint *word, unsigned value) {
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(atomic_uint *word) {
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, QN_MOST_THREADS, NULL, NULL, 0);
}

static void relax(void) {
#if defined __x86_64__
  __builtin_ia32_pause();
#elif defined __aarch64__
  __asm__ volatile("yield");
#endif
}

/* Claim and run parts of job `epoch`, the own one first. */
static void work(qn_pool *p, unsigned epoch, int first) {
  for (int i = 0; i < p->threads; i++) {
    int part = (first + i) % p->threads;
    unsigned expected = epoch - 1;
    if (atomic_load_explicit(&p->slot[part].epoch, memory_order_relaxed) != expected ||
        !atomic_compare_exchange_strong(&p->slot[part].epoch, &expected, epoch))
      continue;
    int64_t share = p->items / p->threads, rest = p->items % p->threads;
    int64_t begin = part * share + (part < rest ? part : rest), end = begin + share + (part < rest);
    if (begin < end) p->fn(p->ud, begin, end, part);
    if (atomic_fetch_sub(&p->open, 1) == 1 && atomic_load(&p->waiting)) futex_wake(&p->open);
  }
}

/* Wait for a job after number `seen` and return its number. */
static unsigned next_job(qn_pool *p, unsigned seen) {
  unsigned now;
  for (int i = 0; i < SPIN; i++, relax())
    if ((now = atomic_load_explicit(&p->epoch, memory_order_acquire)) != seen) return now;
  atomic_fetch_add(&p->sleepers, 1);
  while ((now = atomic_load(&p->epoch)) == seen) futex_wait(&p->epoch, seen);
  atomic_fetch_sub(&p->sleepers, 1);
  return now;
}

static void *worker_main(void *arg) {
  const worker *w = arg;
  for (unsigned seen = 0;;) {
    seen = next_job(w->pool, seen);
    if (atomic_load(&w->pool->stop)) return NULL;
    work(w->pool, seen, w->index);
  }
}

/* Begin the next job and return its number. */
static unsigned announce(qn_pool *p) {
  unsigned epoch = atomic_load_explicit(&p->epoch, memory_order_relaxed) + 1;
  atomic_store_explicit(&p->open, (unsigned)p->threads, memory_order_relaxed);
  atomic_store(&p->epoch, epoch);
  if (atomic_load(&p->sleepers)) futex_wake(&p->epoch);
  return epoch;
}

/* Wait until every part is done. */
static void finish(qn_pool *p) {
  for (int i = 0; i < SPIN; i++, relax())
    if (!atomic_load_explicit(&p->open, memory_order_acquire)) return;
  atomic_store(&p->waiting, true);
  for (unsigned left; (left = atomic_load(&p->open));) futex_wait(&p->open, left);
  atomic_store(&p->waiting, false);
}

void qn__pool_run(qn_pool *p, qn_pool_fn fn, void *ud, int64_t items) {
  if (items < 1) return;
  if (p->threads == 1 || items == 1 || atomic_flag_test_and_set_explicit(&p->busy, memory_order_acquire)) {
    fn(ud, 0, items, 0);
    return;
  }
  p->fn = fn, p->ud = ud, p->items = items;
  work(p, announce(p), 0);
  finish(p);
  atomic_flag_clear_explicit(&p->busy, memory_order_release);
}

void qn__pool_free(qn_pool *p) {
  if (!p) return;
  atomic_store(&p->stop, true);
  atomic_fetch_add(&p->epoch, 1);
  futex_wake(&p->epoch);
  for (int i = 1; i < p->started; i++) pthread_join(p->worker[i].thread, NULL);
  qn__free(p->heap, p->worker, (size_t)p->threads * sizeof *p->worker);
  qn__free_aligned(p->heap, p->slot);
  qn__free_aligned(p->heap, p);
}

qn_status qn__pool_new(const qn_allocator *heap, int threads, qn_pool **out) {
  *out = NULL;
  if (threads < 1 || threads > QN_MOST_THREADS)
    return qn__fail(QN_E_ARG, "pool of %d threads, allowed 1 .. %d", threads, QN_MOST_THREADS);
  qn_pool *p = qn__alloc_aligned(heap, alignof(qn_pool), sizeof *p);
  if (!p) return qn__fail(QN_E_NOMEM, "thread pool");
  memset(p, 0, sizeof *p);
  p->heap = heap;
  p->threads = threads;
  p->worker = qn__alloc_zero(heap, (size_t)threads * sizeof *p->worker);
  p->slot = qn__alloc_aligned(heap, alignof(slot), (size_t)threads * sizeof *p->slot);
  if (p->slot) memset(p->slot, 0, (size_t)threads * sizeof *p->slot);
  int error = p->worker && p->slot ? 0 : ENOMEM;
  for (p->started = 1; !error && p->started < threads; p->started += !error) {
    worker *w = &p->worker[p->started];
    *w = (worker){.pool = p, .index = p->started};
    error = pthread_create(&w->thread, NULL, worker_main, w);
  }
  if (!error) return *out = p, QN_OK;
  qn__pool_free(p);
  return qn__fail(QN_E_NOMEM, "thread pool of %d: %s", threads, strerror(error));
}
