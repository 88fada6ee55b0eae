/* matrix.c - see matrix.h. All of it is made of one product of tiles. */
#include "matrix.h"
#include "clones.h"
#include <math.h>
#include <string.h>

enum { T = QN__TILE };

typedef double lanes __attribute__((vector_size(64), aligned(8), may_alias)); /* eight, at any double */
enum { W = 8, PACKED = 64 };                                                  /* lanes; rows that are packed at once */

/* W rows of a tile, W columns of it: sum += aᵀ b for rows of W. The sums are written out, so that they stay in
 * registers. */
QN__INLINE void block(int64_t n, const double *a, const double *b, lanes *sum) {
  lanes s0 = sum[0], s1 = sum[1], s2 = sum[2], s3 = sum[3], s4 = sum[4], s5 = sum[5], s6 = sum[6], s7 = sum[7];
  for (int64_t p = 0; p < n; p++, a += W, b += W) {
    lanes y = *(const lanes *)b;
    s0 += a[0] * y, s1 += a[1] * y, s2 += a[2] * y, s3 += a[3] * y;
    s4 += a[4] * y, s5 += a[5] * y, s6 += a[6] * y, s7 += a[7] * y;
  }
  sum[0] = s0, sum[1] = s1, sum[2] = s2, sum[3] = s3, sum[4] = s4, sum[5] = s5, sum[6] = s6, sum[7] = s7;
}

/* n rows of T columns, as panels of W columns. */
QN__INLINE void pack(int64_t n, const double *from, int64_t ld, double *to) {
  for (int64_t p = 0; p < n; p++)
    for (int j = 0; j < T / W; j++) *(lanes *)(to + (j * n + p) * W) = *(const lanes *)(from + p * ld + j * W);
}

/* Rows are packed first: a multiple of 4096 bytes apart they would drive one another out of the cache. */
QN__CLONES void qn__tile_add(int64_t n, double sign, const double *a, int64_t lda, const double *b, int64_t ldb,
                             double *c, int64_t ldc) {
  _Alignas(64) double x[PACKED * T], y[PACKED * T];
  lanes sum[T / W][T / W][W] = {0};
  for (int64_t p = 0; p < n; p += PACKED) {
    int64_t rows = n - p < PACKED ? n - p : PACKED;
    pack(rows, a + p * lda, lda, x);
    pack(rows, b + p * ldb, ldb, y);
    for (int j = 0; j < T / W; j++)
      for (int i = 0; i < T / W; i++) block(rows, x + i * rows * W, y + j * rows * W, sum[j][i]);
  }
  for (int i = 0; i < T; i++)
    for (int j = 0; j < T / W; j++) *(lanes *)(c + i * ldc + j * W) += sign * sum[j][i / W][i % W];
}

/* ---- Tiles of a matrix, shared out to threads -------------------------------------------------------------------- */

/* Tiles of c += sign * aᵀ b: from row tile `from` on, and of those only on and above the diagonal if `upper`. */
typedef struct product {
  int64_t n, k, from;
  double sign;
  const double *a, *b;
  double *c;
  bool upper;
} product;

static void multiply(void *ud, int64_t begin, int64_t end, int32_t thread) {
  const product *p = ud;
  int64_t across = p->k / T;
  (void)thread;
  for (int64_t t = begin; t < end; t++) {
    int64_t i = p->from + t / across, j = t % across;
    if (p->upper) { /* column by column, each to the diagonal */
      int64_t column = (int64_t)((sqrt(8.0 * (double)t + 1) - 1) / 2);
      while (column * (column + 1) / 2 > t) column--;
      while ((column + 1) * (column + 2) / 2 <= t) column++;
      j = p->from + column;
      i = p->from + t - column * (column + 1) / 2;
    }
    qn__tile_add(p->n, p->sign, p->a + i * T, p->k, p->b + j * T, p->k, p->c + i * T * p->k + j * T, p->k);
  }
}

static void run_product(qn_pool *pool, product *p) {
  int64_t rows = p->k / T - p->from;
  qn__pool_run(pool, multiply, p, p->upper ? rows * (rows + 1) / 2 : rows * (p->k / T));
}

void qn__gram_add(qn_pool *pool, int64_t n, int64_t k, const double *a, double *c) {
  run_product(pool, &(product){.n = n, .k = k, .sign = 1, .a = a, .b = a, .c = c, .upper = true});
}

void qn__cross_add(qn_pool *pool, int64_t n, int64_t k, const double *a, const double *b, double *c) {
  run_product(pool, &(product){.n = n, .k = k, .sign = 1, .a = a, .b = b, .c = c});
}

/* ---- Factors ----------------------------------------------------------------------------------------------------- */

/* A tile on the diagonal, in place. */
static bool factor_tile(double *a, int64_t k) {
  for (int i = 0; i < T; i++) {
    double pivot = a[i * k + i];
    if (!(pivot > 0) || !isfinite(pivot)) return false;
    pivot = sqrt(pivot);
    for (int j = i; j < T; j++) a[i * k + j] /= pivot;
    for (int r = i + 1; r < T; r++)
      for (int j = r; j < T; j++) a[r * k + j] -= a[i * k + r] * a[i * k + j];
  }
  return true;
}

/* Tiles of T rows of `right`, from column tile `from` on, are solved with a triangular tile: row i less u[p,i] times
 * the rows p before it, over u[i,i]; or from the last row up, with the rows after it. */
typedef struct solve {
  int64_t k, from;
  const double *u;
  double *right;
  bool up;
} solve;

static void solve_tile(const solve *s, double *x) {
  for (int step = 0; step < T; step++) {
    int i = s->up ? T - 1 - step : step;
    for (int before = 0; before < step; before++) {
      int p = s->up ? T - 1 - before : before;
      double u = s->u[p * s->k + i];
      for (int j = 0; j < T; j++) x[i * s->k + j] -= u * x[p * s->k + j];
    }
    for (int j = 0; j < T; j++) x[i * s->k + j] /= s->u[i * s->k + i];
  }
}

static void solve_tiles(void *ud, int64_t begin, int64_t end, int32_t thread) {
  const solve *s = ud;
  (void)thread;
  for (int64_t t = begin; t < end; t++) solve_tile(s, s->right + (s->from + t) * T);
}

static void run_solve(qn_pool *pool, solve s) { qn__pool_run(pool, solve_tiles, &s, s.k / T - s.from); }

bool qn__cholesky(qn_pool *pool, int64_t k, double *a, double *right) {
  for (int64_t b = 0; b < k / T; b++) {
    double *row = a + b * T * k, *beside = right ? right + b * T * k : NULL;
    if (!factor_tile(row + b * T, k)) return false;
    run_solve(pool, (solve){.k = k, .from = b + 1, .u = row + b * T, .right = row});
    run_product(pool, &(product){T, k, b + 1, -1, row, row, a, true});
    if (!right) continue;
    run_solve(pool, (solve){.k = k, .u = row + b * T, .right = beside});
    run_product(pool, &(product){T, k, b + 1, -1, row, beside, right, false});
  }
  return true;
}

void qn__solve_upper(qn_pool *pool, int64_t k, const double *lower, double *right) {
  for (int64_t b = k / T - 1; b >= 0; b--) {
    const double *row = lower + b * T * k;
    run_solve(pool, (solve){.k = k, .u = row + b * T, .right = right + b * T * k, .up = true});
    /* rows before: the first b tiles */
    product p = {T, k, 0, -1, row, right + b * T * k, right, false};
    qn__pool_run(pool, multiply, &p, b * (k / T));
  }
}

static void swap_tiles(void *ud, int64_t begin, int64_t end, int32_t thread) {
  const product *p = ud;
  (void)thread;
  for (int64_t i = begin * T; i < end * T; i++)
    for (int64_t j = 0; j < i; j++) {
      double x = p->c[i * p->k + j];
      p->c[i * p->k + j] = p->c[j * p->k + i];
      p->c[j * p->k + i] = x;
    }
}

void qn__matrix_transpose(qn_pool *pool, int64_t k, double *a) {
  product p = {.k = k, .c = a};
  qn__pool_run(pool, swap_tiles, &p, k / T);
}
