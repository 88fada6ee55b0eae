/* awq.h - scales of inputs with which nearest codes serve the outputs better (Lin et al., arXiv:2306.00978).
 *
 * A weight whose input is strong should lose less to rounding. With s[k] for every input, W x is (W s) (x / s): the
 * columns of W that s makes large get the finer share of their group's scale. Whoever gives x gives x / s then, and the
 * model computes the same; what that is depends on the model (eval/decoder/decoder.h).
 *
 * s = |x|^r / |w|^(1-r) for r in steps of 1/20 below 1, |x| the root mean square of an input, |w| the mean magnitude of
 * its weights, each relative to the largest of its group; brought to where the largest times the least is 1. Of these
 * and no scaling that is taken which leaves the least error of the outputs, over all weights that read the input. */
#ifndef QN_QUANTIZE_AWQ_H
#define QN_QUANTIZE_AWQ_H
#include "quantize.h"

/* A weight that reads the input, and its format to be. */
typedef struct qn__awq_weight {
  const qn_format *f;
  const float *w; /* [n, k] */
  int64_t n;
} qn__awq_weight;

typedef struct qn__awq_found {
  double exponent;         /* r; -1: it is best not to scale */
  double output2;          /* squares of the outputs of all weights, as in loss.h */
  double before2, scaled2; /* of their error, for nearest codes: without scales and with them */
} qn__awq_found;

/* scale [k] of the input that `seen` is of, with h. Ones where it is best not to scale, and for inputs that are always
 * 0. scales: NULL, or as in qn__quantize_options: whether codes reach the full range. What qn__quantize returns. */
qn_status qn__awq_search(const qn__awq_weight *weights, int n, const qn__inputs *seen, const char *scales, int threads,
                         float *scale, qn__awq_found *found);
#endif
