/* reference.h - the product in float64 that every kernel is compared with. */
#ifndef QN_REFERENCE_H
#define QN_REFERENCE_H
#include "desc.h"

/* Sums for chosen rows of X and of W, in float64, by the textbook formula over dequantized weights:
 *
 *   sum[i * n_cols + j] = sum over k of X[rows[i], k] * W[cols[j], k]
 *   mag[i * n_cols + j] = sum over k of |X| * |W|; |W| is the decode rule's magnitude (see qn__expr_f64)
 *
 * X is a->x, of the type that the problem `types` says, row stride a->ldx elements (0: K), scaled by a->x_scale[row] if
 * that is given; column k of W meets column perm[k] of X where the planes have a permutation. If the problem rounds X,
 * the sums are of what that makes of it. rows and cols NULL: 0 .. n - 1. mag may be NULL. All
 * memory is the host's. QN_E_ARG, QN_E_NOMEM. Any thread. */
qn_status qn__reference(const qn_format *f, const qn_planes *p, const qn_host_args *a, const qn_problem *types,
                        const int64_t *rows, int64_t n_rows, const int64_t *cols, int64_t n_cols, double *sum,
                        double *mag);

/* A number, and how far what a kernel has in its place may be from it. */
typedef struct qn_number {
  double value, error;
} qn_number;

/* What the epilogue of `p` makes of a sum, with *gate of two, the gate's and the up row's, for Y[row, col] with the
 * operands in `a` (strides in elements, none 0). The error grows by what each step makes of it, and by the roundings of
 * a kernel that takes the step in f32. */
qn_number qn__epilogue(const qn_problem *p, const qn_host_args *a, int64_t row, int64_t col, const qn_number sum[2]);
#endif
