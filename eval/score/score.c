/* score.c - the score of a token from two rows of logits. */
#include "score.h"
#include "fail.h"
#include <math.h>
#include <stdatomic.h>

/* What a row of logits says. p(i) = exp(logit(i) - log_sum). */
typedef struct row {
  double log_sum;
  float largest;
  int64_t top; /* its place; the first of equals */
  uint32_t not_finite;
} row;

static row read_row(const float *logit, int64_t n) {
  row r = {.largest = -INFINITY};
  double sum = 0;
  for (int64_t i = 0; i < n; i++) {
    r.not_finite += !isfinite(logit[i]);
    if (logit[i] > r.largest) r.largest = logit[i], r.top = i;
  }
  for (int64_t i = 0; i < n; i++) sum += exp((double)logit[i] - (double)r.largest);
  r.log_sum = (double)r.largest + log(sum);
  return r;
}

/* Sum of p ln(p / q). Below 0 is rounding. */
static double divergence(const float *reference, const row *p, const float *candidate, const row *q, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) {
    double ln_p = (double)reference[i] - p->log_sum, ln_q = (double)candidate[i] - q->log_sum;
    sum += exp(ln_p) * (ln_p - ln_q);
  }
  return fmax(sum, 0);
}

typedef struct job {
  const float *reference, *candidate;
  const int32_t *right;
  int64_t vocab;
  qn__token_score *out;
  atomic_llong unfit; /* rows whose reference is not finite */
} job;

static void score_row(job *j, int64_t i) {
  const float *candidate = j->candidate + i * j->vocab;
  qn__token_score *t = &j->out[i];
  row q = read_row(candidate, j->vocab);
  *t = (qn__token_score){.not_finite = q.not_finite};
  if (!q.not_finite) {
    t->nll = (float)(q.log_sum - (double)candidate[j->right[i]]);
    t->greedy = q.top == j->right[i];
  }
  if (!j->reference) return;
  const float *reference = j->reference + i * j->vocab;
  row p = read_row(reference, j->vocab);
  if (p.not_finite) j->unfit++;
  t->nll_reference = (float)(p.log_sum - (double)reference[j->right[i]]);
  t->confidence = (float)exp((double)p.largest - p.log_sum);
  if (q.not_finite) return;
  t->same_top = p.top == q.top;
  t->kl = (float)divergence(reference, &p, candidate, &q, j->vocab);
}

static void score_rows(void *ud, int64_t begin, int64_t end, int32_t thread) {
  (void)thread;
  for (int64_t i = begin; i < end; i++) score_row(ud, i);
}

qn_status qn__score_rows(qn_pool *pool, const float *reference, const float *candidate, const int32_t *right,
                         int64_t rows, int64_t vocab, qn__token_score *out) {
  job j = {.reference = reference, .candidate = candidate, .right = right, .vocab = vocab, .out = out};
  for (int64_t i = 0; i < rows; i++)
    if (right[i] < 0 || right[i] >= vocab)
      return qn__fail(QN_E_ARG, "token %jd: id %d, the vocabulary has %jd", (intmax_t)i, right[i], (intmax_t)vocab);
  qn__pool_run(pool, score_rows, &j, rows);
  if (!j.unfit) return QN_OK;
  return qn__fail(QN_E_ARG, "the reference has logits that are no finite numbers at %lld of %jd tokens", j.unfit,
                  (intmax_t)rows);
}
