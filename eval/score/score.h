/* score.h - what logits say of the right tokens, and how far they are from those of a reference.
 *
 * Two rows of logits become the score of one token; scores of tokens, window by window, become a summary. No model is
 * in here. Sums are float64 in the order of the tokens, so no number depends on threads. Any thread. */
#ifndef QN_SCORE_SCORE_H
#define QN_SCORE_SCORE_H
#include "pool.h"
#include "statistics.h"
#include <stdbool.h>

/* ---- Tokens ------------------------------------------------------------------------------------------------------ */

/* One scored token, as a journal keeps it. Without a reference the fields that need one are 0. */
typedef struct qn__token_score {
  float nll;           /* -ln p(right token), nats */
  float nll_reference; /* the same of the reference */
  float kl;            /* KL(reference || candidate), nats */
  float confidence;    /* the reference's largest probability */
  uint16_t same_top;   /* 1: both find the same token likeliest. Of equal logits the first counts */
  uint16_t greedy;     /* 1: the right token is the candidate's likeliest */
  uint32_t not_finite; /* logits of the candidate that are NaN or infinite: then nll and kl mean nothing, and are 0 */
} qn__token_score;

/* Rows of logits [rows, vocab] f32, reference or NULL, and the ids of the right tokens, 0 <= right < vocab. One row is
 * one item of the pool.
 * Returns QN_E_ARG if the reference has a logit that is no finite number, or an id is beyond the vocabulary. */
qn_status qn__score_rows(qn_pool *pool, const float *reference, const float *candidate, const int32_t *right,
                         int64_t rows, int64_t vocab, qn__token_score *out);

/* ---- Windows ----------------------------------------------------------------------------------------------------- */

/* The scored tokens of one window, in their order. */
typedef struct qn__window_score {
  const qn__token_score *token;
  int64_t n;
  int domain;
} qn__window_score;

enum { QN_QUARTILES = 4, QN_CONFIDENCES = 5, QN_PERCENTILES = 9 };
extern const double qn__confidence_edge[QN_CONFIDENCES + 1]; /* 0 .25 .5 .75 .95 1; each belongs to what is above it */
extern const double qn__percentile[QN_PERCENTILES];          /* 1 5 10 50 90 95 99 99.9 100 */

/* A part of the tokens; -1: all. */
typedef struct qn__part {
  int domain, quartile, confidence; /* quartile: of the window's scored tokens, 0 .. 3 */
} qn__part;
#define QN_ALL_TOKENS ((qn__part){-1, -1, -1})

/* Means over tokens with errors clustered by window. The share of each domain is the user's choice: that domains differ
 * is no error. If one logit was not finite, the candidate is broken: only
 * `tokens`, `windows` and the two counts mean something. Percentiles interpolate between neighbours. */
typedef struct qn__summary {
  int64_t tokens, windows; /* windows: that have such a token */
  int64_t broken_tokens, broken_logits;
  qn__estimate nll, greedy; /* greedy: share of tokens that are the likeliest */
  /* Against the reference: */
  qn__estimate nll_reference, delta_nll, delta_nll_unpaired; /* delta: candidate - reference; the first is paired */
  qn__estimate kl, same_top;
  qn__estimate delta_p; /* of the right token's probability */
  double delta_p_rms;
  double kl_at[QN_PERCENTILES], delta_p_at[QN_PERCENTILES];
} qn__summary;

/* QN_E_NOMEM. Of a part without tokens all fields are 0. */
qn_status qn__summarize(const qn__window_score *window, size_t n, qn__part part, qn__summary *out);
#endif
