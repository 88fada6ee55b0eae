/* bench.h - one problem set up for timing at its own shape: weights in rings of cold copies, one ring a layout, and the
 * variants that were timed last, loaded and bound. Its data is an exact draw, so that every timed M is checked, bit for
 * bit, on chosen rows and columns of the full shape; while it is timed, a kernel multiplies random activations. */
#ifndef QN_BENCH_H
#define QN_BENCH_H
#include "case.h"
#include "meter.h"

typedef struct qn_bench qn_bench;
/* `meter` may be NULL: then nothing is timed, only checked. Both outlive the bench. */
qn_status qn__bench_new(qn_device *d, qn_meter *meter, qn_bench **out);
void qn__bench_free(qn_bench *b);

typedef struct qn_bench_order {
  int64_t m, rows; /* tokens now, and the most that will be asked for of this problem */
  int reps;        /* samples; 0: check only */
  bool check;      /* compare with the reference before and after */
} qn_bench_order;

typedef struct qn_bench_result {
  double *seconds; /* [reps], caller's memory */
  int disturbed;   /* samples taken on a busy machine */
  double error;    /* largest |y - reference| / bound; 0 for bit for bit */
  char bits[33];   /* checked: hash of the bits of Y's first row on random activations, the same for every M if the
                      variant is batch-invariant, and for every variant that does the same arithmetic */
} qn_bench_result;

/* Check and time one case. `begin` is called once, when all is ready and the kernel is about to run. QN_E_WRONG as
 * qn__verify; other failures as those of the device. The case is copied. */
qn_status qn__bench_time(qn_bench *b, const qn_case *c, const qn_bench_order *order, void (*begin)(void *ud), void *ud,
                         qn_bench_result *out);
#endif
