/* attention.c - see ops.h: keys and values of sequences, and what queries make of them.
 *
 * The query heads that read one key head go together: row i of such a group is head i % group of token i / group. A
 * work item is a tile of 32 rows. Its scores are computed as a whole, then each row's softmax, then the sum of values:
 * two products of the form C = A . B with B a part of the cache. */
#include "ops.h"
#include "vector.h"
#include <math.h>
#include <string.h>

enum { tile = 32 };

static int64_t up16(int64_t n) { return (n + 15) / 16 * 16; }
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* ---- The cache --------------------------------------------------------------------------------------------------- */

void qn__cache_shape(qn__cache *c, int64_t tokens, int64_t *keys, int64_t *values) {
  c->room = up16(tokens);
  c->value_ld = up16(c->dim);
  *keys = c->windows * c->kv_heads * c->dim * c->room;
  *values = c->windows * c->kv_heads * c->room * c->value_ld;
}

qn__cache qn__cache_from(const qn__cache *c, int64_t first, int64_t windows) {
  qn__cache part = *c;
  part.windows = windows;
  part.keys += first * c->kv_heads * c->dim * c->room;
  part.values += first * c->kv_heads * c->room * c->value_ld;
  return part;
}

/* Item: one key head of one window. */
static void append(void *ud, int64_t begin, int64_t end, int32_t thread) {
  const qn__append *a = ud;
  const qn__cache *c = a->cache;
  (void)thread;
  for (int64_t i = begin; i < end; i++) {
    int64_t row = i / c->kv_heads * a->n, head = i % c->kv_heads * c->dim;
    float *keys = c->keys + i * c->dim * c->room + a->past;
    float *values = c->values + (i * c->room + a->past) * c->value_ld;
    for (int64_t t = 0; t < a->n; t++) {
      const float *k = a->k + (row + t) * a->ldk + head, *v = a->v + (row + t) * a->ldv + head;
      for (int64_t d = 0; d < c->dim; d++) keys[d * c->room + t] = k[d];
      memcpy(values + t * c->value_ld, v, (size_t)c->dim * sizeof *v);
    }
  }
}

void qn__append_rows(qn_pool *pool, const qn__append *a) {
  qn__pool_run(pool, append, (void *)a, a->cache->windows * a->cache->kv_heads);
}

/* ---- The two products -------------------------------------------------------------------------------------------- */

/* c[row][0 .. 16 * vectors) = sum over l < depth of a[row][l] * b[l][...] for four rows; the first n are stored. */
QN__INLINE void strip(const float *const *a, const float *b, int64_t ldb, int64_t depth, float *const *c, int rows,
                      const int vectors, int64_t n) {
  qn__lanes sum[4][4] = {0};
  for (int64_t l = 0; l < depth; l++)
    for (int v = 0; v < vectors; v++) {
      qn__lanes part = *(const qn__lanes *)(b + l * ldb + v * QN__LANES);
      for (int r = 0; r < 4; r++) sum[r][v] += a[r][l] * part;
    }
  for (int r = 0; r < rows; r++)
    for (int v = 0; v < vectors && v * QN__LANES < n; v++)
      memcpy(c[r] + v * QN__LANES, &sum[r][v], (size_t)least(n - v * QN__LANES, QN__LANES) * sizeof(float));
}

/* c[row][0 .. n) for `rows` rows; b may be read up to the next multiple of 16. */
QN__CLONES static void multiply(const float *const *a, const float *b, int64_t ldb, int64_t depth, float *const *c,
                                int rows, int64_t n) {
  for (int i = 0; i < rows; i += 4) {
    const float *from[4];
    float *to[4];
    for (int r = 0; r < 4; r++) from[r] = a[least(i + r, rows - 1)], to[r] = c[least(i + r, rows - 1)];
    int64_t j = 0;
    for (; j + 64 <= up16(n); j += 64) {
      strip(from, b + j, ldb, depth, to, (int)least(4, rows - i), 4, n - j);
      for (int r = 0; r < 4; r++) to[r] += 64;
    }
    for (; j < n; j += QN__LANES) {
      strip(from, b + j, ldb, depth, to, (int)least(4, rows - i), 1, n - j);
      for (int r = 0; r < 4; r++) to[r] += QN__LANES;
    }
  }
}

/* ---- Softmax ----------------------------------------------------------------------------------------------------- */

QN__INLINE float largest(const float *x, int64_t n, float m) {
  for (int64_t i = 0; i < n; i++) m = x[i] > m ? x[i] : m;
  return m;
}

/* s[0 .. n) becomes a softmax, in which a sink has its share. */
QN__CLONES static void softmax(float *s, int64_t n, float scale, float cap, const float *sink) {
  for (int64_t i = 0; i < n; i++) s[i] *= scale;
  if (cap)
    for (int64_t i = 0; i < n; i++) s[i] = cap * qn__tanh(s[i] / cap);
  float top = largest(s, n, sink ? *sink : s[0]), part[QN__LANES] = {0}, total = sink ? expf(*sink - top) : 0;
  for (int64_t i = 0; i < n; i++) s[i] = qn__exp(s[i] - top);
  int64_t i = 0;
  for (; i + QN__LANES <= n; i += QN__LANES)
    for (int j = 0; j < QN__LANES; j++) part[j] += s[i + j];
  for (; i < n; i++) part[i % QN__LANES] += s[i];
  for (int j = 0; j < QN__LANES; j++) total += part[j];
  for (int64_t j = 0; j < n; j++) s[j] *= 1 / total;
}

/* ---- Tiles ------------------------------------------------------------------------------------------------------- */

static int64_t tiles_of(const qn__attention *a) { return (a->heads / a->cache->kv_heads * a->n + tile - 1) / tile; }

/* Rows begin .. begin + rows of key head `head` of window `window`. Tokens from `low` on are seen by one of them. */
static void attend_tile(const qn__attention *a, int64_t window, int64_t head, int64_t begin, int rows, float *scores) {
  const qn__cache *c = a->cache;
  const int64_t group = a->heads / c->kv_heads, block = window * c->kv_heads + head;
  const int64_t first = a->past + begin / group, last = a->past + (begin + rows - 1) / group;
  const int64_t low = a->window ? most(0, first - a->window + 1) / 16 * 16 : 0, n = last + 1 - low;
  const float *q[tile] = {0}, *p[tile] = {0};
  float *s[tile] = {0}, *out[tile] = {0};
  for (int i = 0; i < rows; i++) {
    int64_t row = window * a->n + (begin + i) / group, at = (head * group + (begin + i) % group) * c->dim;
    q[i] = a->q + row * a->ldq + at;
    out[i] = a->out + row * a->ldout + at;
    p[i] = s[i] = scores + i * c->room;
  }
  multiply(q, c->keys + block * c->dim * c->room + low, c->room, c->dim, s, rows, n);
  for (int i = 0; i < rows; i++) {
    int64_t token = a->past + (begin + i) / group, from = a->window ? most(low, token - a->window + 1) : low;
    memset(s[i], 0, (size_t)(from - low) * sizeof *s[i]);
    softmax(s[i] + from - low, token + 1 - from, a->scale, a->cap,
            a->sinks ? a->sinks + head * group + (begin + i) % group : NULL);
    memset(s[i] + token + 1 - low, 0, (size_t)(last - token) * sizeof *s[i]);
  }
  multiply(p, c->values + (block * c->room + low) * c->value_ld, c->value_ld, n, out, rows, c->dim);
}

static void attend(void *ud, int64_t begin, int64_t end, int32_t thread) {
  const qn__attention *a = ud;
  const int64_t tiles = tiles_of(a), rows = a->heads / a->cache->kv_heads * a->n;
  for (int64_t i = begin; i < end; i++) {
    int64_t block = i / tiles, at = i % tiles * tile;
    attend_tile(a, block / a->cache->kv_heads, block % a->cache->kv_heads, at, (int)least(tile, rows - at),
                a->scratch + thread * qn__attention_scratch(a->cache));
  }
}

int64_t qn__attention_scratch(const qn__cache *c) { return tile * c->room; }

void qn__attend(qn_pool *pool, const qn__attention *a) {
  qn__pool_run(pool, attend, (void *)a, a->cache->windows * a->cache->kv_heads * tiles_of(a));
}
