/* statistics.h - how sure one may be of a mean, of a difference, of an equality.
 *
 * Tokens of one window depend on each other, so an error is that of the windows: observations come as sums over
 * clusters. What has no clusters has one observation in each. Pure functions; any thread. */
#ifndef QN_SCORE_STATISTICS_H
#define QN_SCORE_STATISTICS_H
#include <stddef.h>
#include <stdint.h>

/* ---- Distributions ----------------------------------------------------------------------------------------------- */

/* Student's t with `df` > 0 degrees of freedom; df may be a fraction. */
double qn__t_cdf(double t, double df);
double qn__t_quantile(double p, double df); /* 0 < p < 1; -inf, inf at the ends */

/* ---- Means ------------------------------------------------------------------------------------------------------- */

typedef struct qn__estimate {
  double mean;
  double error; /* standard error; NaN of fewer than two clusters */
  double df;    /* of the t by which an interval is made */
} qn__estimate;

/* The mean of all observations: `sum` and `count` are of each cluster; count NULL: one each. The error is that of a
 * ratio of sums over clusters (Cochran, Sampling Techniques, 6.4), df = clusters - 1. With one observation in each it
 * is the usual sd / sqrt(n). For a paired difference the observations are differences. */
qn__estimate qn__mean(const double *sum, const int64_t *count, size_t clusters);

/* The mean of `n` kinds of observations, of which each has a fixed share of the whole (Cochran, 5.3): what differs
 * between the kinds is no error. The shares add up to 1; df after Welch and Satterthwaite. */
qn__estimate qn__mix(const qn__estimate *kind, const double *share, size_t n);

/* a - b of two that were not observed together: errors add in squares, df after Welch and Satterthwaite. */
qn__estimate qn__unpaired(qn__estimate a, qn__estimate b);

/* The half width of the interval that covers the true mean with probability `confidence`: 0.95. */
double qn__half_width(qn__estimate e, double confidence);

/* ---- Tests ------------------------------------------------------------------------------------------------------- */

/* Of items that two candidates answered, `worse` were right before and wrong after, `better` the other way round. The
 * probability of so uneven a split, or one less even, if both directions are as likely (McNemar, 1947; exact). */
double qn__mcnemar(int64_t worse, int64_t better);

/* Two one-sided tests (Schuirmann, 1987): the p by which |true mean| >= margin is rejected. Below .05 the means are
 * taken for equal within the margin. An error of 0 decides by the mean alone; one of NaN decides nothing: 1. */
double qn__equivalence(qn__estimate difference, double margin);
#endif
