/* score.c - the score of a token from two rows of logits. */
#include "score.h"
#include "clones.h"
#include "fail.h"
#include <float.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

/* ---- Sums over the vocabulary ------------------------------------------------------------------------------------ */

/* e^x, x <= 0, in float64: x = n ln 2 + r with |r| <= ln 2 / 2. Taylor's series of e^r leaves 6e-15, 2^n is an
 * exponent. Below -700 it stays at 1e-304. */
QN__INLINE double exponential(double x) {
  const double magic = 0x1.8p52; /* adding it rounds to an integer, in the low bits */
  x = x < -700 ? -700 : x;
  double t = x * 0x1.71547652b82fep0 + magic, n = t - magic;
  double r = x - n * 0x1.62e42feep-1 - n * 0x1.a39ef35793c76p-33, e = 1 + r * (1. / 11);
  e = 1 + e * r * (1. / 10);
  e = 1 + e * r * (1. / 9);
  e = 1 + e * r * (1. / 8);
  e = 1 + e * r * (1. / 7);
  e = 1 + e * r * (1. / 6);
  e = 1 + e * r * (1. / 5);
  e = 1 + e * r * (1. / 4);
  e = 1 + e * r * (1. / 3);
  e = 1 + e * r * (1. / 2);
  e = 1 + e * r;
  uint64_t bits;
  memcpy(&bits, &t, sizeof bits);
  bits = (bits + 1023) << 52;
  memcpy(&t, &bits, sizeof t);
  return e * t;
}

enum { LANES = 16 }; /* sums that are added up at the end: results do not depend on the width of a vector */

/* Sums of e^(q - largest q), of e^(p - largest p), and of the latter times p - q. */
typedef struct sums {
  double q[LANES], p[LANES], difference[LANES];
} sums;

QN__INLINE void add(sums *to, const float *p, double largest_p, const float *q, double largest_q) {
  for (int j = 0; j < LANES; j++) to->q[j] += exponential((double)q[j] - largest_q);
  for (int j = 0; p && j < LANES; j++) {
    double e = exponential((double)p[j] - largest_p);
    to->p[j] += e;
    to->difference[j] += e * ((double)p[j] - (double)q[j]);
  }
}

/* p NULL: q alone. The last logits are filled up with what adds nothing. The sums are left in to->…[0]. */
QN__CLONES static void sum_up(const float *p, float largest_p, const float *q, float largest_q, int64_t n, sums *to) {
  float end_p[LANES], end_q[LANES];
  sums s = {{0}, {0}, {0}};
  int64_t whole = n / LANES * LANES;
  if (p)
    for (int64_t i = 0; i < whole; i += LANES) add(&s, p + i, (double)largest_p, q + i, (double)largest_q);
  else
    for (int64_t i = 0; i < whole; i += LANES) add(&s, NULL, 0, q + i, (double)largest_q);
  for (int64_t i = 0; i < LANES; i++) {
    bool there = whole + i < n;
    end_p[i] = there && p ? p[whole + i] : -FLT_MAX;
    end_q[i] = there ? q[whole + i] : -FLT_MAX;
  }
  add(&s, p ? end_p : NULL, (double)largest_p, end_q, (double)largest_q);
  for (int i = 1; i < LANES; i++) s.q[0] += s.q[i], s.p[0] += s.p[i], s.difference[0] += s.difference[i];
  *to = s;
}

/* The largest logit of a row, its place (the first of equals), and how many are no finite numbers. */
typedef struct peak {
  float largest;
  int64_t place;
  uint32_t not_finite;
} peak;

QN__CLONES static void find_peak(const float *logit, int64_t n, peak *out) {
  float largest[LANES];
  uint32_t not_finite[LANES] = {0};
  for (int j = 0; j < LANES; j++) largest[j] = -INFINITY;
  for (int64_t i = 0; i + LANES <= n; i += LANES)
    for (int j = 0; j < LANES; j++) {
      not_finite[j] += !(fabsf(logit[i + j]) <= FLT_MAX);
      largest[j] = logit[i + j] > largest[j] ? logit[i + j] : largest[j];
    }
  for (int64_t i = n / LANES * LANES; i < n; i++) {
    not_finite[0] += !(fabsf(logit[i]) <= FLT_MAX);
    largest[0] = logit[i] > largest[0] ? logit[i] : largest[0];
  }
  *out = (peak){.largest = largest[0], .not_finite = not_finite[0]};
  for (int j = 1; j < LANES; j++) {
    out->not_finite += not_finite[j];
    out->largest = largest[j] > out->largest ? largest[j] : out->largest;
  }
  while (out->place < n && !(logit[out->place] == out->largest)) out->place++;
}

/* ---- Rows -------------------------------------------------------------------------------------------------------- */

typedef struct job {
  const float *reference, *candidate;
  const int32_t *right;
  int64_t vocab;
  qn__token_score *out;
  atomic_llong unfit; /* rows whose reference is not finite */
} job;

/* With ln Z the logarithm of a sum of exponentials, KL = E_p[p - q] - ln Z_p + ln Z_q, p and q being logits. */
static void score_row(job *j, int64_t i) {
  const float *q = j->candidate + i * j->vocab, *p = j->reference ? j->reference + i * j->vocab : NULL;
  peak at_q, at_p = {0};
  find_peak(q, j->vocab, &at_q);
  if (p) find_peak(p, j->vocab, &at_p);
  qn__token_score *t = &j->out[i];
  *t = (qn__token_score){.not_finite = at_q.not_finite};
  if (at_p.not_finite) j->unfit++;
  if (at_p.not_finite || at_q.not_finite) return;
  sums s;
  sum_up(p, at_p.largest, q, at_q.largest, j->vocab, &s);
  double ln_q = (double)at_q.largest + log(*s.q), ln_p = (double)at_p.largest + log(*s.p);
  t->nll = (float)(ln_q - (double)q[j->right[i]]);
  t->greedy = at_q.place == j->right[i];
  if (!p) return;
  t->nll_reference = (float)(ln_p - (double)p[j->right[i]]);
  t->confidence = (float)(1 / *s.p);
  t->same_top = at_p.place == at_q.place;
  t->kl = (float)fmax(*s.difference / *s.p - ln_p + ln_q, 0); /* below 0 is rounding */
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
