/* dense.h - the dense product in f32, on the threads of a pool. */
#ifndef QN_EVAL_DENSE_H
#define QN_EVAL_DENSE_H
#include "pool.h"

/* Y[m,n] = X[m,k] . W[n,k]^T; rows of X and Y are ldx and ldy floats apart, W is dense. Y overlaps nothing. Tiles of Y
 * whose borders do not depend on the threads are computed by OpenBLAS, if it is here and there are enough rows, else by
 * plain C. No errors: sizes must be below 2^31. One caller at a time per pool. */
void qn__dense(qn_pool *pool, const float *x, int64_t ldx, const float *w, int64_t m, int64_t n, int64_t k, float *y,
               int64_t ldy);
#endif
