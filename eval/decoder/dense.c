/* dense.c - see dense.h.
 *
 * Both operands have K contiguous, so plain C needs no packing: four rows of X meet four rows of W in sixteen vectors
 * of sums. With few rows that is also what memory allows, and the BLAS, which packs W first, would be slower. */
#include "dense.h"
#include "blas.h"
#include "vector.h"

enum { few = 16, block = 4 };
typedef struct product {
  const qn_blas *blas; /* NULL: plain C */
  const float *x, *w;
  float *y;
  int64_t ldx, ldy, m, n, k, tile_m, tile_n, across; /* tiles of a row of tiles */
} product;

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---- Plain C ----------------------------------------------------------------------------------------------------- */

/* Rows and columns of a block that do not exist are computed as copies of its last ones, and not stored. */
QN__CLONES static void multiply_block(const product *p, int64_t m, int64_t n, int rows, int cols) {
  qn__lanes sum[block][block] = {0};
  const float *x[block], *w[block];
  for (int i = 0; i < block; i++) {
    x[i] = p->x + (m + (i < rows ? i : rows - 1)) * p->ldx;
    w[i] = p->w + (n + (i < cols ? i : cols - 1)) * p->k;
  }
  int64_t k = 0;
  for (; k + QN__LANES <= p->k; k += QN__LANES) {
    qn__lanes v[block];
    for (int j = 0; j < block; j++) v[j] = *(const qn__lanes *)(w[j] + k);
    for (int i = 0; i < block; i++)
      for (int j = 0; j < block; j++) sum[i][j] += *(const qn__lanes *)(x[i] + k) * v[j];
  }
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < cols; j++) {
      float s = 0;
      for (int l = 0; l < QN__LANES; l++) s += sum[i][j][l];
      for (int64_t l = k; l < p->k; l++) s += x[i][l] * w[j][l];
      p->y[(m + i) * p->ldy + n + j] = s;
    }
}

static void multiply_plain(const product *p, int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
  for (int64_t n = n0; n < n1; n += block)
    for (int64_t m = m0; m < m1; m += block)
      multiply_block(p, m, n, (int)least(block, m1 - m), (int)least(block, n1 - n));
}

/* ---- Tiles ------------------------------------------------------------------------------------------------------- */

static void multiply_tiles(void *ud, int64_t begin, int64_t end, int32_t thread) {
  const product *p = ud;
  (void)thread;
  for (int64_t i = begin; i < end; i++) {
    int64_t m = i / p->across * p->tile_m, n = i % p->across * p->tile_n;
    int64_t m1 = least(m + p->tile_m, p->m), n1 = least(n + p->tile_n, p->n);
    if (p->blas)
      p->blas->sgemm(QN_BLAS_ROW_MAJOR, QN_BLAS_NO_TRANSPOSE, QN_BLAS_TRANSPOSE, (int)(m1 - m), (int)(n1 - n),
                     (int)p->k, 1, p->x + m * p->ldx, (int)p->ldx, p->w + n * p->k, (int)p->k, 0, p->y + m * p->ldy + n,
                     (int)p->ldy);
    else multiply_plain(p, m, m1, n, n1);
  }
}

/* Tiles of equal size, at most `most` wide: a narrow one at the end would be packed for little. */
static int64_t cut(int64_t n, int64_t most) {
  int64_t tiles = (n + most - 1) / most;
  return ((n + tiles - 1) / tiles + 15) / 16 * 16;
}

/* The BLAS packs both operands anew for every tile: large ones, but four of them at least, so that few threads share a
 * small product. */
static void cut_for_blas(product *p) {
  p->tile_m = cut(p->m, 512);
  p->tile_n = cut(p->n, 512);
  while ((p->m + p->tile_m - 1) / p->tile_m * ((p->n + p->tile_n - 1) / p->tile_n) < 4) {
    int64_t *larger = p->tile_m > p->tile_n ? &p->tile_m : &p->tile_n;
    if (*larger <= 128) return;
    *larger = cut(*larger, (*larger + 1) / 2);
  }
}

void qn__dense(qn_pool *pool, const float *x, int64_t ldx, const float *w, int64_t m, int64_t n, int64_t k, float *y,
               int64_t ldy) {
  product p = {.x = x, .w = w, .y = y, .ldx = ldx, .ldy = ldy, .m = m, .n = n, .k = k, .tile_m = 64, .tile_n = 64};
  if (m >= few && !qn__blas(&p.blas)) {
    cut_for_blas(&p);
    if (p.blas->set_threads) p.blas->set_threads(1); /* the pool's threads call it */
  }
  p.across = (n + p.tile_n - 1) / p.tile_n;
  qn__pool_run(pool, multiply_tiles, &p, (m + p.tile_m - 1) / p.tile_m * p.across);
}
