/* matrix.h - square matrices of float64: products, Cholesky factors and what is solved with them.
 *
 * A matrix of k x k is kept as qn__pad(k) x qn__pad(k), row-major, in tiles of QN__TILE on a side. Threads share out
 * tiles, and each sum is taken in one order: results agree bit for bit at any number of threads. */
#ifndef QN_QUANTIZE_MATRIX_H
#define QN_QUANTIZE_MATRIX_H
#include "pool.h"
#include <stdbool.h>

enum { QN__TILE = 64 };

static inline int64_t qn__pad(int64_t k) { return (k + QN__TILE - 1) / QN__TILE * QN__TILE; }

/* c[i,j] += sign * sum over p < n of a[p,i] * b[p,j], for a tile c; sign is 1 or -1. Any thread. */
void qn__tile_add(int64_t n, double sign, const double *a, int64_t lda, const double *b, int64_t ldb, double *c,
                  int64_t ldc);

/* c += aᵀ a on and above the diagonal: a [n, k], c [k, k], k a multiple of the tile. */
void qn__gram_add(qn_pool *pool, int64_t n, int64_t k, const double *a, double *c);
/* c += aᵀ b: a, b [n, k]. */
void qn__cross_add(qn_pool *pool, int64_t n, int64_t k, const double *a, const double *b, double *c);

/* A = Uᵀ U: a [k, k] is A on and above the diagonal and becomes U there. If `right` is not NULL it is [k, k] and
 * becomes Uᵀ⁻¹ right. false: A is not positive definite. */
bool qn__cholesky(qn_pool *pool, int64_t k, double *a, double *right);

/* right = U⁻¹ right, where lower = Uᵀ. */
void qn__solve_upper(qn_pool *pool, int64_t k, const double *lower, double *right);

/* The transpose, in place. */
void qn__matrix_transpose(qn_pool *pool, int64_t k, double *a);
#endif
