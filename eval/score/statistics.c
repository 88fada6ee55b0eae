/* statistics.c - see statistics.h. Quantiles are found by bisection of the distribution: slow, short, and as exact as
 * that is. */
#include "statistics.h"
#include <math.h>

/* ---- Distributions ----------------------------------------------------------------------------------------------- */

/* The continued fraction of the incomplete beta function (DLMF 8.17.22), by Lentz's method. */
static double beta_fraction(double a, double b, double x) {
  const double tiny = 1e-300;
  double c = 1, d = 1 - (a + b) * x / (a + 1);
  d = 1 / (fabs(d) < tiny ? tiny : d);
  double h = d;
  for (int m = 1; m < 10000; m++) {
    double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)), step = 1;
    const double term[2] = {even, odd};
    for (int i = 0; i < 2; i++) {
      d = 1 + term[i] * d;
      c = 1 + term[i] / c;
      d = 1 / (fabs(d) < tiny ? tiny : d);
      c = fabs(c) < tiny ? tiny : c;
      h *= step = c * d;
    }
    if (fabs(step - 1) < 1e-16) break;
  }
  return h;
}

static double log_gamma(double x) {
  int sign;
  return lgamma_r(x, &sign);
}

/* What Stirling's formula leaves of ln Gamma(x), x large. */
static double stirling(double x) { return (1 / 12. - (1 / 360. - 1 / (1260 * x * x)) / (x * x)) / x; }

/* ln B(a, b). Of two large ln Gamma the difference would lose its digits. */
static double log_beta(double a, double b) {
  if (a < b) return log_beta(b, a);
  if (a < 50) return log_gamma(a) + log_gamma(b) - log_gamma(a + b);
  return log_gamma(b) - (a - .5) * log1p(b / a) - b * log(a + b) + b + stirling(a) - stirling(a + b);
}

/* I_x(a, b), with y = 1 - x given apart, so that neither loses its digits. */
static double incomplete_beta(double a, double b, double x, double y) {
  if (x <= 0) return 0;
  if (y <= 0) return 1;
  double front = exp(a * log(x) + b * log(y) - log_beta(a, b));
  if (x < (a + 1) / (a + b + 2)) return front * beta_fraction(a, b, x) / a;
  return 1 - front * beta_fraction(b, a, y) / b;
}

double qn__t_cdf(double t, double df) {
  if (isinf(t)) return t > 0;
  double square = t * t, tail = incomplete_beta(df / 2, .5, df / (df + square), square / (df + square)) / 2;
  return t > 0 ? 1 - tail : tail;
}

/* Where the distribution reaches p. The lower half is searched: there it has all its digits. */
double qn__t_quantile(double p, double df) {
  if (!(p > 0)) return p == 0 ? -INFINITY : NAN;
  if (!(p < 1)) return p == 1 ? INFINITY : NAN;
  if (p > .5) return -qn__t_quantile(1 - p, df);
  double low = -1, high = 0;
  while (qn__t_cdf(low, df) > p && low > -1e300) high = low, low *= 2;
  for (double mid; mid = low + (high - low) / 2, mid > low && mid < high;)
    *(qn__t_cdf(mid, df) > p ? &high : &low) = mid;
  return high;
}

/* ---- Means ------------------------------------------------------------------------------------------------------- */

qn__estimate qn__mean(const double *sum, const int64_t *count, size_t clusters) {
  double total = 0, n = 0, square = 0;
  for (size_t i = 0; i < clusters; i++) total += sum[i], n += count ? (double)count[i] : 1;
  qn__estimate e = {.mean = total / n, .error = NAN, .df = (double)clusters - 1};
  for (size_t i = 0; i < clusters; i++) {
    double d = sum[i] - e.mean * (count ? (double)count[i] : 1);
    square += d * d;
  }
  if (clusters > 1) e.error = sqrt(square * (double)clusters / e.df) / n;
  return e;
}

qn__estimate qn__mix(const qn__estimate *kind, const double *share, size_t n) {
  qn__estimate e = {0};
  double variance = 0, spread = 0, df = 0;
  for (size_t i = 0; i < n; i++) {
    double v = share[i] * share[i] * kind[i].error * kind[i].error;
    e.mean += share[i] * kind[i].mean;
    variance += v;
    spread += v * v / kind[i].df;
    df += kind[i].df;
  }
  e.error = sqrt(variance);
  e.df = variance > 0 ? variance * variance / spread : df;
  return e;
}

qn__estimate qn__unpaired(qn__estimate a, qn__estimate b) {
  return qn__mix((const qn__estimate[]){a, b}, (const double[]){1, -1}, 2);
}

double qn__half_width(qn__estimate e, double confidence) {
  return e.error > 0 ? -e.error * qn__t_quantile((1 - confidence) / 2, e.df) : e.error;
}

/* ---- Tests ------------------------------------------------------------------------------------------------------- */

double qn__mcnemar(int64_t worse, int64_t better) {
  double n = (double)(worse + better), k = (double)(worse < better ? worse : better);
  return fmin(1, 2 * incomplete_beta(n - k, k + 1, .5, .5)); /* P(binomial(n, 1/2) <= k) */
}

double qn__equivalence(qn__estimate d, double margin) {
  if (!(d.error >= 0)) return 1;
  if (d.error == 0) return fabs(d.mean) < margin ? 0 : 1;
  return qn__t_cdf((fabs(d.mean) - margin) / d.error, d.df);
}
