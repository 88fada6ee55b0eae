/* ops.c - see ops.h: what is done row by row. */
#include "ops.h"
#include "convert.h"
#include "vector.h"
#include <math.h>

/* ---- Norm -------------------------------------------------------------------------------------------------------- */

QN__CLONES static void norm(void *ud, int64_t begin, int64_t end, int32_t thread) {
  const qn__norm *a = ud;
  (void)thread;
  for (int64_t i = begin; i < end; i++) {
    int64_t row = i / a->groups, group = i % a->groups;
    const float *x = a->x + row * a->ldx + group * a->n;
    float *y = a->y + row * a->ldy + group * a->n;
    float factor = (float)(1 / sqrt((double)qn__dot(x, x, a->n) / (double)a->n + a->eps));
    for (int64_t j = 0; j < a->n; j++) y[j] = x[j] * factor * a->weight[j];
  }
}

void qn__norm_rows(qn_pool *pool, const qn__norm *a) { qn__pool_run(pool, norm, (void *)a, a->rows * a->groups); }

/* ---- Sums and gates ---------------------------------------------------------------------------------------------- */

QN__CLONES static void sum(void *ud, int64_t begin, int64_t end, int32_t thread) {
  const qn__sum *a = ud;
  (void)thread;
  for (int64_t i = begin; i < end; i++)
    for (int64_t j = 0; j < a->n; j++) a->x[i * a->ldx + j] += a->scale * a->y[i * a->ldy + j];
}

void qn__sum_rows(qn_pool *pool, const qn__sum *a) { qn__pool_run(pool, sum, (void *)a, a->rows); }

/* One loop for each activation, so that each becomes vectors (but GELU itself, which calls the C library). */
#define GLU(NAME, value)                                                                                               \
  QN__CLONES static void NAME(void *ud, int64_t begin, int64_t end, int32_t thread) {                                  \
    const qn__glu *a = ud;                                                                                             \
    (void)thread;                                                                                                      \
    for (int64_t i = begin; i < end; i++)                                                                              \
      for (int64_t j = 0; j < a->n; j++) {                                                                             \
        float gate = a->gate[i * a->ldgate + j], up = a->up[i * a->ldup + j];                                          \
        a->y[i * a->ldy + j] = value;                                                                                  \
      }                                                                                                                \
  }

QN__INLINE float gelu_tanh(float x) { return 0.5f * x * (1 + qn__tanh(0x1.988454p-1f * (x + 0.044715f * x * x * x))); }

QN__INLINE float clamped(float gate, float up, float limit) {
  gate = gate > limit ? limit : gate;
  up = up > limit ? limit : up < -limit ? -limit : up;
  return gate * qn__sigmoid(1.702f * gate) * (up + 1);
}

GLU(glu_silu, gate *qn__sigmoid(gate) * up)
GLU(glu_gelu, 0.5f * gate * (1 + erff(gate * 0x1.6a09e6p-1f)) * up)
GLU(glu_gelu_tanh, gelu_tanh(gate) * up)
GLU(glu_clamped, clamped(gate, up, a->limit))

void qn__glu_rows(qn_pool *pool, const qn__glu *a) {
  static const qn_pool_fn glu[] = {[QN_ACT_SILU] = glu_silu,
                                   [QN_ACT_GELU] = glu_gelu,
                                   [QN_ACT_GELU_TANH] = glu_gelu_tanh,
                                   [QN_ACT_CLAMPED] = glu_clamped};
  qn__pool_run(pool, glu[a->activation], (void *)a, a->rows);
}

QN__CLONES static void gate(void *ud, int64_t begin, int64_t end, int32_t thread) {
  const qn__gate *a = ud;
  (void)thread;
  for (int64_t i = begin; i < end; i++) {
    float *x = a->x + i * a->ldx;
    const float *g = a->gate + i * a->ldgate;
    for (int64_t j = 0; j < a->n; j++) x[j] *= qn__sigmoid(a->one ? g[0] : g[j]);
  }
}

void qn__gate_rows(qn_pool *pool, const qn__gate *a) { qn__pool_run(pool, gate, (void *)a, a->rows); }

QN__CLONES static void cap(void *ud, int64_t begin, int64_t end, int32_t thread) {
  const qn__cap *a = ud;
  (void)thread;
  for (int64_t i = begin * a->n; i < end * a->n; i++)
    a->x[i] = a->cap ? a->cap * qn__tanh(a->scale * a->x[i] / a->cap) : a->scale * a->x[i];
}

void qn__cap_rows(qn_pool *pool, const qn__cap *a) { qn__pool_run(pool, cap, (void *)a, a->rows); }

QN__CLONES static void round_bf16(void *ud, int64_t begin, int64_t end, int32_t thread) {
  const qn__round *a = ud;
  const qn_form form = qn__form[QN_T_BF16];
  (void)thread;
  for (int64_t i = begin; i < end; i++) {
    float *x = a->x + i * a->ld;
    for (int64_t j = 0; j < a->n; j++) x[j] = qn__narrow_value(form, qn__narrow_nearest(form, x[j]));
  }
}

void qn__round_rows(qn_pool *pool, const qn__round *a) { qn__pool_run(pool, round_bf16, (void *)a, a->rows); }

static void gather(void *ud, int64_t begin, int64_t end, int32_t thread) {
  const qn__gather *a = ud;
  (void)thread;
  for (int64_t i = begin; i < end; i++)
    for (int64_t j = 0; j < a->n; j++)
      a->y[i * a->ldy + j] =
          a->x[i * a->ldx + a->first + j / a->run * a->step + j % a->run] + (a->bias ? a->bias[j] : 0);
}

void qn__gather_rows(qn_pool *pool, const qn__gather *a) { qn__pool_run(pool, gather, (void *)a, a->rows); }

/* ---- Positions --------------------------------------------------------------------------------------------------- */

void qn__rope_table(const qn__rope *r, int64_t length, float *table) {
  float frequency[QN__HEAD_DIM / 2];
  qn__rope_frequencies(r, length, frequency);
  for (int64_t p = 0; p < length; p++)
    for (int i = 0; i < r->pairs; i++) {
      float angle = (float)p * frequency[i];
      table[(2 * p + 0) * r->pairs + i] = cosf(angle) * r->scale;
      table[(2 * p + 1) * r->pairs + i] = sinf(angle) * r->scale;
    }
}

/* Pair i of x: its elements at i and i + second. */
QN__INLINE void turn(float *x, int64_t at, int64_t second, float c, float s) {
  float u = x[at], v = x[at + second];
  x[at] = u * c - v * s;
  x[at + second] = v * c + u * s;
}

QN__CLONES static void rotate(void *ud, int64_t begin, int64_t end, int32_t thread) {
  const qn__rotate *a = ud;
  (void)thread;
  for (int64_t i = begin; i < end; i++) {
    const float *c = a->table + 2 * (a->past + i % a->length) * a->pairs, *s = c + a->pairs;
    for (int64_t h = 0; h < a->heads; h++) {
      float *x = a->x + i * a->ldx + h * a->dim;
      if (a->adjacent)
        for (int j = 0; j < a->pairs; j++) turn(x, 2 * j, 1, c[j], s[j]);
      else
        for (int j = 0; j < a->pairs; j++) turn(x, j, a->pairs, c[j], s[j]);
    }
  }
}

void qn__rotate_rows(qn_pool *pool, const qn__rotate *a) { qn__pool_run(pool, rotate, (void *)a, a->rows); }

/* ---- Experts ----------------------------------------------------------------------------------------------------- */

/* NaN is above all numbers: the expert is taken, and what it gives is NaN. */
static bool above(float a, float b) { return a > b || (isnan(a) && !isnan(b)); }

/* The largest that is not above the last one that was taken, and behind it where both are equal. */
static int64_t next_expert(const float *p, int64_t n, int64_t last) {
  int64_t best = -1;
  for (int64_t j = 0; j < n; j++) {
    bool left = last < 0 || above(p[last], p[j]) || (!above(p[j], p[last]) && j > last);
    if (left && (best < 0 || above(p[j], p[best]))) best = j;
  }
  return best;
}

/* Only the ratios of exponents matter if the weights are normalized; else all of them are summed. */
static void route(void *ud, int64_t begin, int64_t end, int32_t thread) {
  const qn__route *a = ud;
  (void)thread;
  for (int64_t i = begin; i < end; i++) {
    const float *x = a->logits + i * a->ld;
    float *w = a->weight + i * a->used, total = 0;
    int64_t last = -1, top = next_expert(x, a->n, -1);
    for (int64_t u = 0; u < a->used; u++) {
      last = next_expert(x, a->n, last);
      a->expert[i * a->used + u] = (int32_t)last;
      w[u] = expf(x[last] - x[top]);
      total += w[u];
    }
    if (!a->normalize) {
      total = 0;
      for (int64_t j = 0; j < a->n; j++) total += expf(x[j] - x[top]);
    }
    for (int64_t u = 0; u < a->used; u++) w[u] /= total;
  }
}

void qn__route_rows(qn_pool *pool, const qn__route *a) { qn__pool_run(pool, route, (void *)a, a->rows); }
