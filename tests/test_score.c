/* test_score.c - scores of rows of logits and statistics against float64 of NumPy and SciPy (tests/vectors/score.py);
 * summaries against sums done by hand; what intervals and tests promise, on simulated items. */
#include "fail.h"
#include "score.h"
#include "suite.h"
#include <math.h>

typedef struct row_vector {
  int64_t vocab;
  double spread, offset, noise, shift, nll, nll_reference, kl, confidence;
  uint32_t same_top;
} row_vector;
typedef struct t_vector {
  double df, p, quantile, t, cdf, far, far_cdf;
} t_vector;
typedef struct mcnemar_vector {
  int64_t worse, better;
  double p;
} mcnemar_vector;
#include "score_vectors.h"

static void check_near(const char *what, double is, double should, double absolute, double relative) {
  ck_assert_msg(fabs(is - should) <= absolute + relative * fabs(should), "%s: %.17g, not %.17g", what, is, should);
}
#define NEAR(is, should, absolute, relative) check_near(#is, (double)(is), should, absolute, relative)

static qn_pool *pool_of(int threads) {
  qn_pool *p;
  ck_assert_int_eq(qn__pool_new(NULL, threads, &p), QN_OK);
  return p;
}

/* ---- Tokens ------------------------------------------------------------------------------------------------------ */

static double uniform(int64_t i, int64_t seed) {
  return (double)(uint32_t)((uint64_t)(i + 1) * 2654435761u + (uint64_t)seed * 40503u) / 0x1p32 - 0.5;
}

static void make_row(const row_vector *v, int64_t seed, float *p, float *q) {
  for (int64_t i = 0; i < v->vocab; i++) {
    p[i] = (float)(v->spread * uniform(i, seed) + v->offset);
    q[i] = (float)((double)p[i] + v->noise * pow(uniform(i, seed + 77), 3) * 8 + v->shift);
  }
}

START_TEST(rows_agree_with_numpy) {
  const row_vector *v = &row_vectors[_i];
  float *p = calloc((size_t)v->vocab, sizeof *p), *q = calloc((size_t)v->vocab, sizeof *q);
  int32_t right = (int32_t)((_i + 1) * 31 % v->vocab);
  qn__token_score t, alone;
  qn_pool *pool = pool_of(1);
  make_row(v, _i + 1, p, q);
  ck_assert_int_eq(qn__score_rows(pool, p, q, &right, 1, v->vocab, &t), QN_OK);
  NEAR(t.nll, v->nll, 1e-6, 1e-6);
  NEAR(t.nll_reference, v->nll_reference, 1e-6, 1e-6);
  NEAR(t.kl, v->kl, 1e-12, 1e-6);
  NEAR(t.confidence, v->confidence, 0, 1e-6);
  ck_assert_uint_eq(t.same_top, v->same_top);
  ck_assert_int_eq(qn__score_rows(pool, NULL, q, &right, 1, v->vocab, &alone), QN_OK);
  ck_assert(alone.nll == t.nll && alone.kl == 0 && alone.nll_reference == 0);
  qn__pool_free(pool);
  free(p);
  free(q);
}
END_TEST

START_TEST(what_is_not_finite_is_counted) {
  float p[2 * 4] = {1, 2, 3, 4, 1, 2, 3, 4}, q[2 * 4] = {1, NAN, 3, -INFINITY, 1, 2, 3, 4};
  int32_t right[2] = {0, 3};
  qn__token_score t[2];
  qn_pool *pool = pool_of(2);
  ck_assert_int_eq(qn__score_rows(pool, p, q, right, 2, 4, t), QN_OK);
  ck_assert(t[0].not_finite == 2 && t[0].nll == 0 && t[0].kl == 0 && t[1].not_finite == 0 && t[1].kl == 0);
  qn__summary s;
  ck_assert_int_eq(qn__summarize(&(qn__window_score){t, 2, 0}, 1, QN_ALL_TOKENS, &s), QN_OK);
  ck_assert(s.tokens == 2 && s.broken_tokens == 1 && s.broken_logits == 2 && s.nll.mean == 0);
  p[6] = INFINITY;
  ck_assert_int_eq(qn__score_rows(pool, p, q, right, 2, 4, t), QN_E_ARG);
  ck_assert_ptr_nonnull(strstr(qn__errmsg(), "at 1 of 2 tokens"));
  right[1] = 4;
  ck_assert_int_eq(qn__score_rows(pool, NULL, q, right, 2, 4, t), QN_E_ARG);
  ck_assert_str_eq(qn__errmsg(), "token 1: id 4, the vocabulary has 4");
  qn__pool_free(pool);
}
END_TEST

/* What fills a row up to whole vectors adds nothing to logits so large that 1000 less is the same number. */
START_TEST(large_logits_have_no_company) {
  const float p[3] = {1e11F, 1e11F, 1e11F};
  qn__token_score t;
  qn_pool *pool = pool_of(1);
  ck_assert_int_eq(qn__score_rows(pool, p, p, &(int32_t){1}, 1, 3, &t), QN_OK);
  NEAR(t.confidence, 1. / 3, 0, 1e-6);
  NEAR(t.nll, log(3), 1e-4, 0);
  ck_assert(t.kl == 0);
  qn__pool_free(pool);
}
END_TEST

/* ---- Summaries --------------------------------------------------------------------------------------------------- */

/* 3 windows of 8, 8 and 4 tokens in two domains, numbers that are easy to sum up. */
static void make_windows(qn__token_score token[20], qn__window_score window[3]) {
  for (int i = 0; i < 20; i++)
    token[i] = (qn__token_score){.nll = (float)i,
                                 .nll_reference = (float)(i - i % 2),
                                 .kl = (float)(19 - i),
                                 .confidence = (float)i / 20,
                                 .same_top = i % 4 == 0,
                                 .greedy = i > 17};
  for (int w = 0; w < 3; w++) window[w] = (qn__window_score){token + 8 * w, w < 2 ? 8 : 4, w == 2};
}

START_TEST(summaries_are_means_over_tokens_clustered_by_window) {
  qn__token_score token[20];
  qn__window_score window[3];
  qn__summary s;
  make_windows(token, window);
  ck_assert_int_eq(qn__summarize(window, 3, QN_ALL_TOKENS, &s), QN_OK);
  ck_assert(s.tokens == 20 && s.windows == 3 && !s.broken_tokens);
  NEAR(s.nll.mean, 9.5, 1e-12, 0);
  NEAR(s.greedy.mean, .1, 1e-7, 0);
  /* sums 28 and 92 of the first domain, minus 7.5 a token: -32, 32; the second has but one window */
  ck_assert(isnan(s.nll.error));
  window[2].domain = 0;
  ck_assert_int_eq(qn__summarize(window, 3, QN_ALL_TOKENS, &s), QN_OK);
  /* sums 28, 92, 70; minus 9.5 a token: -48, 16, 32 */
  NEAR(s.nll.error, sqrt((48. * 48 + 16 * 16 + 32 * 32) * 3 / 2) / 20, 1e-12, 0);
  NEAR(s.nll.df, 2, 1e-12, 0);
  NEAR(s.delta_nll.mean, .5, 1e-12, 0);
  NEAR(s.delta_nll.error, 0, 1e-12, 0);
  NEAR(s.delta_nll_unpaired.mean, .5, 1e-12, 0);
  NEAR(s.delta_nll_unpaired.error, s.nll.error * M_SQRT2, 1e-12, 0);
  NEAR(s.same_top.mean, .25, 1e-12, 0);
  NEAR(s.kl_at[3], 9.5, 1e-12, 0);
  NEAR(s.kl_at[0], .19, 1e-12, 0);
  NEAR(s.kl_at[8], 19, 1e-12, 0);
  double dp = 0, dp2 = 0;
  for (int i = 0; i < 20; i++) dp += exp(-i) - exp(-(i - i % 2)), dp2 += pow(exp(-i) - exp(-(i - i % 2)), 2);
  NEAR(s.delta_p.mean, dp / 20, 1e-12, 0);
  NEAR(s.delta_p_rms, sqrt(dp2 / 20), 1e-12, 0);
}
END_TEST

/* Four windows of two domains, whose means are far apart: that is no error. */
START_TEST(what_differs_between_domains_is_no_error) {
  qn__token_score token[40];
  qn__window_score window[4];
  qn__summary s;
  for (int i = 0; i < 40; i++) token[i] = (qn__token_score){.nll = (float)(i / 10 + (i >= 20 ? 100 : 0))};
  for (int w = 0; w < 4; w++) window[w] = (qn__window_score){token + 10 * w, 10, w / 2};
  ck_assert_int_eq(qn__summarize(window, 4, QN_ALL_TOKENS, &s), QN_OK);
  NEAR(s.nll.mean, 51.5, 1e-12, 0);
  NEAR(s.nll.error, sqrt(.25 * .25 + .25 * .25), 1e-12, 0); /* of each domain .5, of which a half counts */
  NEAR(s.nll.df, 2, 1e-12, 0);
}
END_TEST

static const struct {
  qn__part part;
  int64_t tokens, windows;
  double nll;
} parts[] = {
    {{0, -1, -1}, 16, 2, 7.5},    {{1, -1, -1}, 4, 1, 17.5}, {{-1, 0, -1}, 5, 3, (0 + 1 + 8 + 9 + 16) / 5.},
    {{-1, 3, -1}, 5, 3, 61 / 5.}, {{-1, -1, 0}, 5, 1, 2},    {{-1, -1, 4}, 1, 1, 19},
    {{1, -1, 3}, 3, 1, 17},       {{2, -1, -1}, 0, 0, 0},
};

START_TEST(parts_are_chosen_by_domain_position_and_confidence) {
  qn__token_score token[20];
  qn__window_score window[3];
  qn__summary s;
  make_windows(token, window);
  ck_assert_int_eq(qn__summarize(window, 3, parts[_i].part, &s), QN_OK);
  ck_assert_int_eq(s.tokens, parts[_i].tokens);
  ck_assert_int_eq(s.windows, parts[_i].windows);
  if (s.tokens) NEAR(s.nll.mean, parts[_i].nll, 1e-12, 0);
  if (s.windows == 1) ck_assert(isnan(s.nll.error));
}
END_TEST

/* ---- Statistics -------------------------------------------------------------------------------------------------- */

START_TEST(distributions_agree_with_scipy) {
  for (size_t i = 0; i < QN_COUNT(t_vectors); i++) {
    const t_vector *v = &t_vectors[i];
    NEAR(qn__t_quantile(v->p, v->df), v->quantile, 0, 1e-10);
    NEAR(qn__t_cdf(v->t, v->df), v->cdf, 0, 1e-10);
    NEAR(qn__t_cdf(v->far, v->df), v->far_cdf, 0, 1e-10);
  }
  for (size_t i = 0; i < QN_COUNT(mcnemar_vectors); i++)
    NEAR(qn__mcnemar(mcnemar_vectors[i].worse, mcnemar_vectors[i].better), mcnemar_vectors[i].p, 0, 1e-9);
  ck_assert(qn__t_quantile(0, 3) == -INFINITY && qn__t_quantile(1, 3) == INFINITY && isnan(qn__t_quantile(-1, 3)));
}
END_TEST

static uint64_t seed;
static double draw(void) { /* 0 .. 1, splitmix64 (Steele, Lea, Flood) */
  uint64_t z = seed += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}
static double bell(void) { /* Box and Muller */
  double r = sqrt(-2 * log(1 - draw()));
  return r * cos(2 * M_PI * draw());
}

enum { ITEMS = 2000, SETS = 200 };

/* Right or wrong before and after: a twentieth of the items flips, `shift` points more of them one way. */
static qn__estimate paired_items(double shift) {
  double d[ITEMS];
  for (int i = 0; i < ITEMS; i++) {
    double u = draw();
    d[i] = u < .025 + shift / 200 ? 100 : u < .05 ? -100 : 0;
  }
  return qn__mean(d, NULL, ITEMS);
}

static bool covers(qn__estimate e, double truth) { return fabs(e.mean - truth) <= qn__half_width(e, .95); }

START_TEST(intervals_of_paired_items_cover_as_often_as_they_say) {
  int covered = 0;
  seed = 1;
  for (int s = 0; s < SETS; s++) covered += covers(paired_items(1), 1);
  ck_assert_msg(covered >= .93 * SETS && covered <= .97 * SETS, "%d of %d", covered, SETS);
}
END_TEST

/* What the tokens of a window have in common widens the interval of 12 windows of unequal length. */
START_TEST(intervals_of_windows_cover_as_often_as_they_say) {
  enum { WINDOWS = 12, MANY = 1000 };
  int covered = 0, blind = 0;
  seed = 2;
  for (int s = 0; s < MANY; s++) {
    double sum[WINDOWS], token[WINDOWS * 12];
    int64_t count[WINDOWS];
    size_t n = 0;
    for (int w = 0; w < WINDOWS; w++) {
      double common = bell();
      count[w] = 10 + w % 3, sum[w] = 0;
      for (int64_t i = 0; i < count[w]; i++) sum[w] += token[n++] = 3 + common + bell();
    }
    covered += covers(qn__mean(sum, count, WINDOWS), 3);
    blind += covers(qn__mean(token, NULL, n), 3);
  }
  ck_assert_msg(covered >= .93 * MANY && covered <= .97 * MANY, "%d of %d", covered, MANY);
  ck_assert_msg(blind < .7 * MANY, "errors that know nothing of windows covered %d of %d", blind, MANY);
}
END_TEST

START_TEST(equivalence_at_two_points_accepts_none_and_rejects_three) {
  int accepted = 0, rejected = 0;
  seed = 3;
  for (int s = 0; s < SETS; s++) {
    accepted += qn__equivalence(paired_items(0), 2) < .05;
    rejected += qn__equivalence(paired_items(3), 2) >= .05;
  }
  ck_assert_msg(accepted >= .95 * SETS && rejected >= .95 * SETS, "%d, %d of %d", accepted, rejected, SETS);
  ck_assert(qn__equivalence((qn__estimate){.5, 0, 9}, 1) == 0 && qn__equivalence((qn__estimate){1, 0, 9}, 1) == 1);
  ck_assert(qn__equivalence(qn__mean((double[]){0}, NULL, 1), 1) == 1);
}
END_TEST

START_TEST(differences_that_are_not_paired_have_both_errors) {
  qn__estimate a = {5, .3, 10}, b = {3, .4, 20}, d = qn__unpaired(a, b);
  NEAR(d.mean, 2, 1e-12, 0);
  NEAR(d.error, .5, 1e-12, 0);
  NEAR(d.df, .0625 / (.0081 / 10 + .0256 / 20), 1e-9, 0);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  const suite_case cases[] = {
      CASE(rows_agree_with_numpy, (int)QN_COUNT(row_vectors)),
      CASE(what_is_not_finite_is_counted, 1),
      CASE(large_logits_have_no_company, 1),
      CASE(summaries_are_means_over_tokens_clustered_by_window, 1),
      CASE(what_differs_between_domains_is_no_error, 1),
      CASE(parts_are_chosen_by_domain_position_and_confidence, (int)QN_COUNT(parts)),
      CASE(distributions_agree_with_scipy, 1),
      CASE(intervals_of_paired_items_cover_as_often_as_they_say, 1),
      CASE(intervals_of_windows_cover_as_often_as_they_say, 1),
      CASE(equivalence_at_two_points_accepts_none_and_rejects_three, 1),
      CASE(differences_that_are_not_paired_have_both_errors, 1),
  };
  return RUN_CASES(argv[0], cases, .timeout = 60);
}
