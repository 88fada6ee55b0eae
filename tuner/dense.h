/* dense.h - the dense product that quantized kernels are held against: OpenBLAS, if this machine has it. */
#ifndef QN_DENSE_H
#define QN_DENSE_H
#include "measure.h"

/* Median seconds of Y[m,n] = X[m,k] . W[n,k]^T in f32 by OpenBLAS on `threads` threads, weights cold: copies of W that
 * together are `cold` bytes. QN_E_DEVICE: no OpenBLAS here. QN_E_NOMEM. */
qn_status qn__blas_time(qn_meter *meter, int threads, int64_t cold, int64_t m, int64_t n, int64_t k, double *seconds);
#endif
