/* reference.h - the product in float64 that every kernel is compared with. */
#ifndef QN_REFERENCE_H
#define QN_REFERENCE_H
#include "desc.h"

/* Y for chosen rows of X and columns of Y, in float64, by the textbook sum over dequantized weights:
 *
 *   y[i * n_cols + j]   = sum over k of X[rows[i], k] * W[cols[j], k], + bias[cols[j]] where a->bias is given
 *   mag[i * n_cols + j] = sum over k of |X| * |W|, + |bias|; |W| is the decode rule's magnitude (see qn__expr_f64)
 *
 * X is a->x, of type `act`, row stride a->ldx elements (0: K), scaled by a->x_scale[row] if that is given; column k of
 * W meets column perm[k] of X where the planes have a permutation. rows and cols NULL: 0 .. n - 1. mag may be NULL. All
 * memory is the host's. QN_E_ARG, QN_E_NOMEM. Any thread. */
qn_status qn__reference(const qn_format *f, const qn_planes *p, const qn_host_args *a, qn_type act, const int64_t *rows,
                        int64_t n_rows, const int64_t *cols, int64_t n_cols, double *y, double *mag);
#endif
