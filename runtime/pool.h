/* pool.h - the threads that run a host kernel's work items.
 *
 * The caller of qn__pool_run takes part. Items are cut into one contiguous part a thread, so that a thread sees the
 * same weights every time; a part whose thread has not begun is taken by whoever is free. Which thread ran what never
 * shows in a result. While one caller has the pool, others run their items alone: nobody waits for a lock. */
#ifndef QN_POOL_H
#define QN_POOL_H
#include "heap.h"

typedef struct qn_pool qn_pool;
typedef void (*qn_pool_fn)(void *ud, int64_t begin, int64_t end, int32_t thread);

/* A pool of `threads` threads, the caller included; 1 .. 1024. `heap`: see heap.h. QN_E_ARG, QN_E_NOMEM. */
qn_status qn__pool_new(const qn_allocator *heap, int threads, qn_pool **out);
/* Ends the workers. No run may be under way. NULL is accepted. */
void qn__pool_free(qn_pool *p);

/* Call fn over disjoint ranges that make up [0, items), and return when all have. `thread` is in [0, threads) and
 * unique among the calls of one run at any time. Any thread; no allocation, no lock. */
void qn__pool_run(qn_pool *p, qn_pool_fn fn, void *ud, int64_t items);
#endif
