/* ops.h - what a decoder computes between its linear layers.
 *
 * Everything is f32, and rows of a matrix may lie further apart than they are long (ld, in floats). Work is cut by rows
 * or heads, each of which is computed by one thread in one order: results do not depend on the number of threads. No
 * errors: sizes are the caller's business. One caller at a time per pool. */
#ifndef QN_EVAL_OPS_H
#define QN_EVAL_OPS_H
#include "config.h"
#include "pool.h"

/* ---- Rows -------------------------------------------------------------------------------------------------------- */

/* y = x / sqrt(mean(x^2) + eps) * weight, over each of `groups` parts of n floats of a row; y may be x. */
typedef struct qn__norm {
  const float *x, *weight; /* weight [n] */
  float *y;
  int64_t ldx, ldy, rows, groups, n;
  double eps;
} qn__norm;
void qn__norm_rows(qn_pool *pool, const qn__norm *a);

/* x += scale * y */
typedef struct qn__sum {
  float *x;
  const float *y;
  int64_t ldx, ldy, rows, n;
  float scale;
} qn__sum;
void qn__sum_rows(qn_pool *pool, const qn__sum *a);

/* y = activation(gate) * up, see qn__activation; y may be gate. */
typedef struct qn__glu {
  const float *gate, *up;
  float *y;
  int64_t ldgate, ldup, ldy, rows, n;
  qn__activation activation;
  float limit;
} qn__glu;
void qn__glu_rows(qn_pool *pool, const qn__glu *a);

/* x *= sigmoid(gate), where a row's gate has n values, or one for all of the row. */
typedef struct qn__gate {
  float *x;
  const float *gate;
  int64_t ldx, ldgate, rows, n;
  bool one;
} qn__gate;
void qn__gate_rows(qn_pool *pool, const qn__gate *a);

/* x = cap * tanh(scale * x / cap); cap 0: scale * x. */
typedef struct qn__cap {
  float *x, scale, cap;
  int64_t rows, n;
} qn__cap;
void qn__cap_rows(qn_pool *pool, const qn__cap *a);

/* x to the nearest bf16, of two the even one. */
typedef struct qn__round {
  float *x;
  int64_t ld, rows, n;
} qn__round;
void qn__round_rows(qn_pool *pool, const qn__round *a);

/* y[i] = x[first + i / run * step + i % run], and the bias if there is one: a parameter out of a wider product. */
typedef struct qn__gather {
  const float *x, *bias;
  float *y;
  int64_t ldx, ldy, rows, n, first, run, step;
} qn__gather;
void qn__gather_rows(qn_pool *pool, const qn__gather *a);

/* ---- Attention --------------------------------------------------------------------------------------------------- */

/* The angles of the positions of `length` tokens: table[length][2 * pairs] holds cosines, then sines, times the rope's
 * scale. */
void qn__rope_table(const qn__rope *r, int64_t length, float *table);

/* Turn the heads of x [rows, heads * dim]; row i is at position past + i % length. */
typedef struct qn__rotate {
  float *x;
  const float *table;
  int64_t ldx, rows, length, past, heads, dim;
  int pairs;
  bool adjacent; /* 2i turns with 2i + 1, else i with i + pairs */
} qn__rotate;
void qn__rotate_rows(qn_pool *pool, const qn__rotate *a);

/* Keys and values of `windows` sequences, of up to `room` tokens each. Keys of a head are columns, so that scores of
 * neighbouring tokens are neighbours. */
typedef struct qn__cache {
  float *keys;                                    /* [windows, kv_heads, dim, room] */
  float *values;                                  /* [windows, kv_heads, room, value_ld]; value_ld >= dim */
  int64_t windows, kv_heads, dim, room, value_ld; /* room and value_ld are multiples of 16 */
} qn__cache;
/* Sizes from windows, kv_heads, dim and the number of tokens; floats that keys and values need. Memory must be zeroed
 * once. */
void qn__cache_shape(qn__cache *c, int64_t tokens, int64_t *keys, int64_t *values);
/* The same for windows from `first` on. */
qn__cache qn__cache_from(const qn__cache *c, int64_t first, int64_t windows);
/* k, v [windows * n, kv_heads * dim] are tokens past .. past + n. */
typedef struct qn__append {
  const qn__cache *cache;
  const float *k, *v;
  int64_t ldk, ldv, n, past;
} qn__append;
void qn__append_rows(qn_pool *pool, const qn__append *a);

/* Row i of q is token past + i % n of window i / n and sees the `window` tokens that end with it (0: all).
 *     out = softmax(cap(scale * q . k)) v, where a sink is a further logit of the softmax without a value */
typedef struct qn__attention {
  const qn__cache *cache;
  const float *q, *sinks; /* q [windows * n, heads * dim]; sinks [heads] or NULL */
  float *out;             /* as q */
  int64_t ldq, ldout, n, past, heads, window;
  float scale, cap;
  float *scratch; /* qn__attention_scratch floats for each thread of the pool */
} qn__attention;
int64_t qn__attention_scratch(const qn__cache *c);
void qn__attend(qn_pool *pool, const qn__attention *a);

/* ---- Delta nets -------------------------------------------------------------------------------------------------- */

/* y = silu(weight * the last `taps` x of its column): x [windows * length, n], a part of the columns of a convolution.
 * What came before a window is in history [windows, taps - 1, ldhistory], which is brought forward. */
typedef struct qn__conv {
  const float *x, *weight; /* weight [n, taps] */
  float *y, *history;
  int64_t ldx, ldy, ldhistory, windows, length, n, taps;
} qn__conv;
void qn__conv_rows(qn_pool *pool, const qn__conv *a);

/* The gated delta rule, see qn__delta_config, for each value head of each window: state [windows, value_heads, key_dim,
 * value_dim] is brought forward, out [windows * length, value_heads * value_dim] is S^T q. */
typedef struct qn__delta {
  const qn__delta_config *config;
  const float *q, *k, *v, *a, *b, *decay, *dt;
  float *state, *out;
  int64_t ldq, ldk, ldv, lda, ldb, ldout, windows, length;
} qn__delta;
void qn__delta_rows(qn_pool *pool, const qn__delta *a);

/* ---- Experts ----------------------------------------------------------------------------------------------------- */

/* Softmax of each row of logits [rows, n]; the `used` largest, of equal ones the first: expert [rows, used] falling,
 * weight [rows, used]. */
typedef struct qn__route {
  const float *logits;
  int64_t ld, rows, n, used;
  bool normalize;
  int32_t *expert;
  float *weight;
} qn__route;
void qn__route_rows(qn_pool *pool, const qn__route *a);
#endif
