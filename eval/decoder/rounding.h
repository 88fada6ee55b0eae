/* rounding.h - the input of a linear layer as it comes back from a type of few bits: what a checkpoint with quantized
 * activations wants.
 *
 * "TYPE.GRAIN", as in qn_tensor.activation. Floats that share a scale are those of a token ("row") or of a group of it
 * ("g128"). With "tensor" the file has one scale for all, or if it has none each token has its own.
 *
 *     i8, e4m3, e5m2   the largest is the largest code
 *     i8z              from the smallest to the largest, 0 among them, is -128 .. 127
 *     mxfp8, mxfp4     e4m3 or e2m1, times a power of two
 *     nvfp4            e2m1, times e4m3, times the one scale that the file has
 *
 * i8, e4m3 and e5m2 are those of qn_quantize_rows. Source of the others: compressed-tensors 0.20, calculate_qparams. */
#ifndef QN_EVAL_ROUNDING_H
#define QN_EVAL_ROUNDING_H
#include "pool.h"
#include "quernel.h"
#include <stdbool.h>

typedef struct qn__rounding {
  const struct qn__rounding_kind *kind; /* NULL: taken as it is */
  int64_t part;                         /* floats that share a scale */
  float scale;                          /* the file's; 0: it has none */
  bool fixed;                           /* it is the scale itself */
} qn__rounding;

/* What `text` says of inputs of k floats; NULL: nothing. `scale`: qn_tensor.activation_scale. `name`, of the layer, is
 * for messages. QN_E_SHAPE: a type that is not known, a part that does not divide k, no scale for nvfp4. */
qn_status qn__rounding_read(const char *text, int64_t k, float scale, const char *name, qn__rounding *out);

/* y[n] = x[n] rounded; n is a multiple of r->part. */
void qn__rounding_run(qn_pool *pool, const qn__rounding *r, const float *x, float *y, int64_t n);
#endif
