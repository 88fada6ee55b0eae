/* stats.c - medians, and how sure one may be of a ratio. */
#include "stats.h"
#include "data.h"
#include <stdlib.h>
#include <string.h>

enum { most = 256, resamples = 400 };

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

double qn__median(const double *x, size_t n) {
  double s[most];
  if (n > most) n = most;
  if (!n) return 0;
  memcpy(s, x, n * sizeof *s);
  qsort(s, n, sizeof *s, ascending);
  return n % 2 ? s[n / 2] : (s[n / 2 - 1] + s[n / 2]) / 2;
}

double qn__spread(const double *x, size_t n) {
  double s[most];
  if (n > most) n = most;
  if (n < 3) return 0;
  memcpy(s, x, n * sizeof *s);
  qsort(s, n, sizeof *s, ascending);
  size_t out = n / 10;
  return (s[n - 1 - out] - s[out]) / 2 / s[n / 2];
}

void qn__ratio_interval(const double *a, const double *b, size_t n, double *low, double *high) {
  double ratio[most], draw[most], median[resamples];
  uint64_t seed = 1;
  if (n > most) n = most;
  *low = *high = 1;
  if (!n) return;
  for (size_t i = 0; i < n; i++) ratio[i] = a[i] / b[i];
  for (int r = 0; r < resamples; r++) {
    for (size_t i = 0; i < n; i++) draw[i] = ratio[qn__random(&seed) % n];
    median[r] = qn__median(draw, n);
  }
  qsort(median, resamples, sizeof *median, ascending);
  *low = median[resamples / 40];
  *high = median[resamples - 1 - resamples / 40];
}
