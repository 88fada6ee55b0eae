/* test_pool.c - the thread pool: every item once, unique thread numbers, callers that compete, no dependence on
 * threads. */
#include "pool.h"
#include "runtime_fixture.h"
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#define ITEMS 1000
#define THREADS 5

typedef struct job {
  atomic_int seen[ITEMS], busy[THREADS];
  atomic_int collisions, out_of_range;
  int64_t items;
} job;

static void mark(void *ud, int64_t begin, int64_t end, int32_t thread) {
  job *j = ud;
  if (thread < 0 || thread >= THREADS || begin < 0 || begin >= end || end > j->items) {
    atomic_fetch_add(&j->out_of_range, 1);
    return;
  }
  if (atomic_fetch_add(&j->busy[thread], 1)) atomic_fetch_add(&j->collisions, 1);
  for (int64_t i = begin; i < end; i++) atomic_fetch_add(&j->seen[i], 1);
  atomic_fetch_sub(&j->busy[thread], 1);
}

static void run_and_check(qn_pool *p, int64_t items) {
  static _Thread_local job j;
  memset(&j, 0, sizeof j);
  j.items = items;
  qn__pool_run(p, mark, &j, items);
  for (int64_t i = 0; i < ITEMS; i++) ck_assert_int_eq(j.seen[i], i < items);
  ck_assert_int_eq(j.collisions, 0);
  ck_assert_int_eq(j.out_of_range, 0);
}

START_TEST(test_every_item_runs_once) {
  qn_pool *p;
  ck_ok(qn__pool_new(NULL, 1 + _i, &p));
  for (int round = 0; round < 100; round++) run_and_check(p, round * 7 % (ITEMS + 1));
  usleep(20000); /* the workers fall asleep */
  run_and_check(p, ITEMS);
  qn__pool_free(p);
}
END_TEST

static void *compete(void *pool) {
  for (int i = 0; i < 100; i++) run_and_check(pool, i * 9 % ITEMS);
  return NULL;
}

/* Eight callers of one pool: one has the workers, the others run alone, none waits for ever or loses an item. */
START_TEST(test_callers_compete) {
  qn_pool *p;
  pthread_t caller[8];
  ck_ok(qn__pool_new(NULL, 3, &p));
  for (int i = 0; i < 8; i++) ck_assert_int_eq(pthread_create(&caller[i], NULL, compete, p), 0);
  for (int i = 0; i < 8; i++) pthread_join(caller[i], NULL);
  qn__pool_free(p);
}
END_TEST

static void nest(void *ud, int64_t begin, int64_t end, int32_t thread) {
  (void)thread;
  for (int64_t i = begin; i < end; i++) run_and_check(ud, 50);
}

/* A run inside a run finds the pool busy and does its items itself. */
START_TEST(test_runs_nest) {
  qn_pool *p;
  ck_ok(qn__pool_new(NULL, 3, &p));
  qn__pool_run(p, nest, p, 20);
  qn__pool_free(p);
}
END_TEST

START_TEST(test_bounds) {
  qn_pool *p;
  ck_fails(QN_E_ARG, "0 threads", qn__pool_new(NULL, 0, &p));
  ck_fails(QN_E_ARG, "1025 threads", qn__pool_new(NULL, 1025, &p));
  qn__pool_free(NULL);
  for (int i = 0; i < 50; i++) { /* freed while workers start, spin and sleep */
    ck_ok(qn__pool_new(NULL, 4, &p));
    if (i & 1) run_and_check(p, 10);
    qn__pool_free(p);
  }
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(test_every_item_runs_once, THREADS),
      CASE(test_callers_compete, 1),
      CASE(test_runs_nest, 1),
      CASE(test_bounds, 1),
  };
  return RUN_CASES(argv[0], cases, .timeout = 120);
}
