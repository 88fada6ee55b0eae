/* timer.h - what calls take on a GPU: events round them, one by one or replayed from a graph. */
#ifndef QN_TIMER_H
#define QN_TIMER_H
#include "device_cuda.h"

/* A stream and a pair of events. One thread at a time. */
typedef struct qn_cuda_timer qn_cuda_timer;
qn_status qn__cuda_timer_new(qn_device *d, qn_cuda_timer **out);
void qn__cuda_timer_free(qn_cuda_timer *t);

/* Enqueue call number i on the stream. To keep weights out of the L2 cache, let i choose among copies that together are
 * several times its size. */
typedef qn_status (*qn_cuda_enqueue)(void *ud, int i, void *stream);

/* Calls of a repetition, the same for everything that is compared: what it costs to launch their graph is then shared
 * by many, and alike. As many copies of a small weight keep it out of the L2 cache. */
enum { QN_CUDA_CALLS = 64 };

/* Seconds per call, `reps` times: each repetition is one run of enqueue(ud, 0 .. calls - 1), launched one by one or, if
 * `graph`, replayed from a graph captured once. Untimed runs come before, for 20 ms of the GPU's time at least: an idle
 * one raises its clocks only then. QN_E_CUDA, QN_E_DEVICE (no graphs). */
qn_status qn__cuda_time(qn_cuda_timer *t, bool graph, qn_cuda_enqueue enqueue, void *ud, int calls, int reps,
                        double *seconds);
#endif
