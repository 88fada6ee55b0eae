/* dense.h - the dense product that quantized kernels are held against, by the library that everybody uses: OpenBLAS in
 * f32 on the host, cuBLAS in f16 with f32 sums on a GPU, if this machine has it. */
#ifndef QN_DENSE_H
#define QN_DENSE_H
#include "measure.h"
#include "timer.h"

enum { QN_DENSE_REPS = 9 };

/* QN_DENSE_REPS samples or, of a GPU, seconds of Y[m,n] = X[m,k] . W[n,k]^T, weights cold: copies of W that together
 * are `cold` bytes. *how: what became of samples. QN_E_DEVICE: the library is not here. QN_E_NOMEM, QN_E_CUDA. */
qn_status qn__openblas_time(qn_meter *meter, const qn_device *d, int64_t cold, int64_t m, int64_t n, int64_t k,
                            qn_sample *samples, qn_sampling *how);
qn_status qn__cublas_time(qn_cuda_timer *clock, qn_device *d, int64_t cold, int64_t m, int64_t n, int64_t k,
                          double seconds[QN_DENSE_REPS]);
#endif
