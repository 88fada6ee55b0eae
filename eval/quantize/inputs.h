/* inputs.h - what calibration saw of the inputs X [tokens, k] that a weight [n, k] multiplies.
 *
 * They are added up as inputs come in, and finished once: until then h and cross are sums, and h is only kept on and
 * above the diagonal. */
#ifndef QN_QUANTIZE_INPUTS_H
#define QN_QUANTIZE_INPUTS_H
#include "matrix.h"

enum { QN__SEE_PRODUCTS = 1, QN__SEE_CROSS = 2 }; /* what is to be kept beside the means */

typedef struct qn__inputs {
  int64_t k, pad, tokens;
  double *square; /* [k] mean of x² */
  double *h;      /* [pad, pad] 2 / tokens · Xᵀ X, or NULL */
  double *cross;  /* [pad, pad] 2 / tokens · (X' - X)ᵀ X, or NULL. X': the inputs of the unquantized model */
} qn__inputs;

/* `see`: QN__SEE_… together. QN_E_NOMEM. */
qn_status qn__inputs_init(qn__inputs *s, int64_t k, int see);
void qn__inputs_fini(qn__inputs *s);

/* Add rows of X, and if `cross` is kept of X' (else NULL). Sums depend on how rows are cut into calls, not on threads.
 * QN_E_ARG: an input that is no finite number; QN_E_NOMEM. */
qn_status qn__inputs_add(qn__inputs *s, qn_pool *pool, const float *x, const float *original, int64_t rows);

/* Sums become means, h is mirrored. */
void qn__inputs_finish(qn__inputs *s);
#endif
