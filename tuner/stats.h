/* stats.h - medians, and how sure one may be of a ratio. */
#ifndef QN_STATS_H
#define QN_STATS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

double qn__median(const double *x, size_t n); /* 0 for n = 0 */

/* How far apart x are, as a share of their median: half of what lies between those that a tenth of them are below and
 * above. 0: fewer than three do not tell. */
double qn__spread(const double *x, size_t n);

/* Is a median of n samples to be marked, `disturbed` of which were? More than a tenth move it. */
static inline bool qn__disturbed(int disturbed, size_t n) { return (size_t)disturbed * 10 > n; }

/* A 95 % interval for the median of the ratios a[i] / b[i], by the bootstrap (Efron, 1979) with a fixed seed. */
void qn__ratio_interval(const double *a, const double *b, size_t n, double *low, double *high);
#endif
