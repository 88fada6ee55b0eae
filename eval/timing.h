/* timing.h - how long a model takes for a prompt, or for the next token of running sequences. */
#ifndef QN_EVAL_TIMING_H
#define QN_EVAL_TIMING_H
#include "decoder.h"

typedef struct qn__timing {
  double seconds, linear; /* of a pass; of that, in linear layers, the head among them */
} qn__timing;

/* A pass of n tokens for each of `batch` sequences which have `before` tokens already, with the logits of the last
 * ones: (1, 0, n) is the prefill of a prompt, (m, c, 1) a step of decoding. It runs once to warm up, then for about 30
 * ms or once; the mean is told. What stands in the cache is zeros, since the time depends on its length alone.
 * site: NULL, or the seconds that each site takes in a pass. QN_E_ARG (no token, or `before` negative), QN_E_NOMEM, and
 * what qn__session_new, qn__session_step and qn__decoder_logits return. */
qn_status qn__time_pass(qn__decoder *d, int64_t batch, int64_t before, int64_t n, qn__timing *out, double *site);
#endif
