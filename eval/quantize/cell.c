/* cell.c - cells of a weight, and the range of weights that each is to reach. */
#include "fit.h"
#include "model.h"
#include <math.h>

static int64_t common(int64_t a, uint32_t share) { return share ? qn__gcd(share, a) : a; }

void qn__fit_cells(qn__fit *t) {
  t->rows = t->cols = 0;
  for (uint32_t i = 0; i < t->f->n_planes; i++) {
    t->rows = common(t->rows, t->f->plane[i].rows);
    t->cols = common(t->cols, t->f->plane[i].cols);
  }
  if (!t->rows || t->rows > t->n) t->rows = t->n;
  if (!t->cols || t->cols > t->k) t->cols = t->k;
  t->across = qn__ceildiv(t->k, t->cols);
  t->cells = qn__ceildiv(t->n, t->rows) * t->across;
}

static void find_range(void *ud, int64_t begin, int64_t end, int32_t thread) {
  qn__fit *t = ud;
  (void)thread;
  for (int64_t c = begin; c < end; c++) {
    int64_t r0 = c / t->across * t->rows, k0 = c % t->across * t->cols;
    double lo = INFINITY, hi = -INFINITY;
    for (int64_t r = r0; r < t->n && r < r0 + t->rows; r++)
      for (int64_t k = k0; k < t->k && k < k0 + t->cols; k++) {
        double x = (double)t->w[r * t->k + k];
        lo = x < lo ? x : lo;
        hi = x > hi ? x : hi;
      }
    t->lo[c] = lo;
    t->hi[c] = hi;
  }
}

/* An integer offset without sign cannot leave zero outside the range. */
static bool holds_zero(const qn__fit *t) {
  for (uint32_t i = 0; i < t->f->n_planes; i++)
    if (t->r.offset & ~t->r.slope & 1u << i && qn__plane_unsigned(&t->f->plane[i])) return true;
  return false;
}

void qn__fit_ranges(qn__fit *t) {
  qn__pool_run(t->pool, find_range, t, t->cells);
  for (int64_t c = 0; holds_zero(t) && c < t->cells; c++) {
    t->lo[c] = fmin(t->lo[c], 0);
    t->hi[c] = fmax(t->hi[c], 0);
  }
}

double qn__fit_weigh(const qn__fit *t, int64_t k, int64_t n, const double *d) {
  double sum = 0;
  if (!t->products) {
    for (int64_t i = 0; i < n; i++) sum += (t->importance ? t->importance[k + i] : 1) * d[i] * d[i];
    return sum;
  }
  for (int64_t i = 0; i < n; i++) {
    const double *h = t->products + (k + i) * t->seen->pad + k;
    double before = 0;
    for (int64_t j = 0; j < i; j++) before += h[j] * d[j];
    sum += d[i] * (h[i] * d[i] + 2 * before);
  }
  return sum;
}

/* From the number that the nearest code means to x. */
static double miss(const qn__rule *r, double x) {
  int i = qn__lower_bound(r->map, r->n, x);
  double above = x - r->map[i], below = i ? x - r->map[i - 1] : INFINITY;
  return below < fabs(above) ? below : above;
}

static double cell_error(const qn__fit *t, int64_t c, double a, double b) {
  int64_t r0 = c / t->across * t->rows, k0 = c % t->across * t->cols, end = k0 + t->cols < t->k ? k0 + t->cols : t->k;
  double sum = 0, d[QN__TILE];
  for (int64_t n = r0; n < t->n && n < r0 + t->rows; n++)
    for (int64_t k = k0, count; k < end; k += count) {
      count = end - k < QN__TILE ? end - k : QN__TILE;
      for (int64_t i = 0; i < count; i++) d[i] = miss(&t->r, ((double)t->w[n * t->k + k + i] - b) / a);
      sum += qn__fit_weigh(t, k, count, d);
    }
  return sum * a * a;
}

/* The only plane of a set, or NULL. */
static const qn_format_plane *only(const qn__fit *t, uint32_t set) {
  return set && !(set & (set - 1)) ? &t->f->plane[__builtin_ctz(set)] : NULL;
}

/* Slope and offset as they will be stored, where one plane makes each; else as they are. */
static void settle(const qn__fit *t, double lo, double *a, double *b) {
  const qn__rule *r = &t->r;
  const qn_format_plane *slope = only(t, r->slope), *offset = only(t, r->offset & ~r->slope);
  if (slope) *a = qn__plane_rounded(slope, *a);
  if (!offset || (r->offset & r->slope && !slope)) return;
  double unit = r->c * (r->offset & r->slope ? *a : 1);
  if (unit != 0) *b = unit * qn__plane_rounded(offset, (lo - *a * r->map[0]) / unit);
}

static void draw_in(void *ud, int64_t begin, int64_t end, int32_t thread) {
  qn__fit *t = ud;
  (void)thread;
  for (int64_t c = begin; c < end; c++) {
    double lo = t->lo[c], hi = t->hi[c], least = INFINITY, a, b;
    double centre = t->r.offset && !holds_zero(t) ? (lo + hi) / 2 : 0;
    for (double share = 1; share > 0.1; share *= 0.95) {
      double l = centre + share * (lo - centre), h = centre + share * (hi - centre);
      qn__rule_ideal(&t->r, l, h, &a, &b);
      settle(t, l, &a, &b);
      double e = a != 0 ? cell_error(t, c, a, b) : INFINITY;
      if (e >= least) continue;
      least = e;
      t->lo[c] = l;
      t->hi[c] = h;
    }
  }
}

void qn__fit_draw_in(qn__fit *t) { qn__pool_run(t->pool, draw_in, t, t->cells); }
