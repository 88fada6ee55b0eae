/* dense.h - the product that quantized kernels are measured against: f32 weights, the machine's own BLAS. */
#ifndef QN_DENSE_H
#define QN_DENSE_H
#include "meter.h"

typedef struct qn_dense qn_dense;
/* Find OpenBLAS and give it the device's threads. QN_E_DEVICE: it is not there; the text names what was looked for. */
qn_status qn__dense_new(qn_device *d, qn_meter *m, qn_dense **out);
void qn__dense_free(qn_dense *d);
const char *qn__dense_name(const qn_dense *d); /* "OpenBLAS 0.3.21 sgemm" */

/* Seconds per call of Y[m,n] = X[m,k] W[n,k]^T, f32, weights cold, `reps` times. */
qn_status qn__dense_time(qn_dense *d, int64_t n, int64_t k, int64_t m, int reps, double *seconds);
#endif
