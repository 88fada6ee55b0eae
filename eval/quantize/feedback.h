/* feedback.h - codes chosen one column after the other, each making up for the errors of those before it.
 *
 * The outputs' squared error is the sum over rows of dᵀ H d, where d = target - decoded and H = 2/n Σ x xᵀ. With
 * columns in some order and H + damping = L Lᵀ it is |Lᵀ d|², and element j of Lᵀ d holds d of the columns from j on
 * alone. So columns are taken from the last to the first, and column j is to become
 *
 *     v[j] = target[j] + Σ over i > j of L[i,j] d[i] / L[j,j]
 *
 * which is what GPTQ does with factors of the inverse (Frantar et al., arXiv:2210.17323; the two agree: Chee et al.,
 * arXiv:2307.13304, theorem 6; Chen et al., arXiv:2507.18553). This form needs no inverse. Columns with the largest
 * H[j,j] come first, while planes are fitted beforehand to the weight in its own order: "static" act-order, which costs
 * nothing when the weight is used. */
#ifndef QN_QUANTIZE_FEEDBACK_H
#define QN_QUANTIZE_FEEDBACK_H
#include "fit.h"

typedef struct qn__feedback {
  qn__fit *t;
  int64_t pad;     /* of k */
  int64_t *order;  /* column at each place; k and more: a place of the padding */
  double *lower;   /* [pad, pad] L; 0 above the diagonal */
  double damping;  /* what was added to the diagonal of H */
  double *carried; /* [pad, pad] or NULL. target[j] = weight[j] + Σ over i > j of v[i] carried[i,j] */
} qn__feedback;

/* Factor t->seen->h. `right` as in qn__cholesky, its rows and columns in the order of the places, made by `fill` for
 * each try; both NULL: none. QN_E_ARG: not positive definite, or no input ever was anything but 0; QN_E_NOMEM. */
qn_status qn__feedback_init(qn__feedback *b, qn__fit *t, void (*fill)(const qn__feedback *b, double *right),
                            double *right);
void qn__feedback_fini(qn__feedback *b);

/* Codes, and the error of each row. Planes are fitted. QN_E_NOMEM. */
qn_status qn__feedback_encode(const qn__feedback *b);
#endif
