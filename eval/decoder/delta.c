/* delta.c - see ops.h: the short convolution and the recurrence of gated delta nets, token by token. */
#include "ops.h"
#include "vector.h"
#include <math.h>
#include <string.h>

/* ---- Convolution ------------------------------------------------------------------------------------------------- */

enum { strip = 64 }; /* columns of a work item */

/* Input t of a window, from its history where t < 0. */
static const float *input(const qn__conv *a, int64_t window, int64_t t) {
  return t < 0 ? a->history + ((window + 1) * (a->taps - 1) + t) * a->ldhistory
               : a->x + (window * a->length + t) * a->ldx;
}

QN__CLONES static void conv_token(const qn__conv *a, int64_t window, int64_t t, int64_t from, int64_t n) {
  float sum[strip] = {0}, *y = a->y + (window * a->length + t) * a->ldy + from;
  for (int64_t i = 0; i < a->taps; i++) {
    const float *x = input(a, window, t - a->taps + 1 + i) + from, *w = a->weight + from * a->taps + i;
    for (int64_t j = 0; j < n; j++) sum[j] += x[j] * w[j * a->taps];
  }
  for (int64_t j = 0; j < n; j++) y[j] = sum[j] * qn__sigmoid(sum[j]);
}

static void conv(void *ud, int64_t begin, int64_t end, int32_t thread) {
  const qn__conv *a = ud;
  const int64_t strips = (a->n + strip - 1) / strip;
  (void)thread;
  for (int64_t i = begin; i < end; i++) {
    int64_t window = i / strips, from = i % strips * strip, n = a->n - from < strip ? a->n - from : strip;
    for (int64_t t = 0; t < a->length; t++) conv_token(a, window, t, from, n);
    for (int64_t t = 1 - a->taps; t < 0; t++) /* the past moves towards its beginning */
      memmove((float *)(uintptr_t)input(a, window, t) + from, input(a, window, a->length + t) + from,
              (size_t)n * sizeof(float));
  }
}

void qn__conv_rows(qn_pool *pool, const qn__conv *a) {
  qn__pool_run(pool, conv, (void *)a, a->windows * ((a->n + strip - 1) / strip));
}

/* ---- Recurrence -------------------------------------------------------------------------------------------------- */

/* One token of one head: S [key_dim, n], with q and k of length 1. S decays, then learns the part of v that it does not
 * know, `rate` of it. */
QN__CLONES static void delta_token(float *s, const float *q, const float *k, const float *v, int64_t key_dim, int64_t n,
                                   float decay, float rate, float *out) {
  float known[QN__HEAD_DIM] = {0};
  for (int64_t i = 0; i < key_dim; i++)
    for (int64_t j = 0; j < n; j++) {
      s[i * n + j] *= decay;
      known[j] += s[i * n + j] * k[i];
    }
  for (int64_t j = 0; j < n; j++) known[j] = rate * (v[j] - known[j]), out[j] = 0;
  for (int64_t i = 0; i < key_dim; i++)
    for (int64_t j = 0; j < n; j++) {
      s[i * n + j] += k[i] * known[j];
      out[j] += s[i * n + j] * q[i];
    }
}

static void normalize(const float *x, int64_t n, float scale, float *out) {
  float factor = scale / sqrtf(qn__dot(x, x, n) + 1e-6f);
  for (int64_t i = 0; i < n; i++) out[i] = x[i] * factor;
}

static float softplus(float x) { return x > 20 ? x : log1pf(expf(x)); }

static void delta(void *ud, int64_t begin, int64_t end, int32_t thread) {
  const qn__delta *a = ud;
  const qn__delta_config *c = a->config;
  float q[QN__HEAD_DIM], k[QN__HEAD_DIM];
  (void)thread;
  for (int64_t i = begin; i < end; i++) {
    int64_t window = i / c->value_heads, h = i % c->value_heads;
    int64_t key = (c->tiled ? h % c->key_heads : h / (c->value_heads / c->key_heads)) * c->key_dim;
    for (int64_t row = window * a->length; row < (window + 1) * a->length; row++) {
      normalize(a->q + row * a->ldq + key, c->key_dim, 1 / sqrtf((float)c->key_dim), q);
      normalize(a->k + row * a->ldk + key, c->key_dim, 1, k);
      delta_token(a->state + i * c->key_dim * c->value_dim, q, k, a->v + row * a->ldv + h * c->value_dim, c->key_dim,
                  c->value_dim, expf(-a->decay[h] * softplus(a->a[row * a->lda + h] + a->dt[h])),
                  qn__sigmoid(a->b[row * a->ldb + h]), a->out + row * a->ldout + h * c->value_dim);
    }
  }
}

void qn__delta_rows(qn_pool *pool, const qn__delta *a) {
  qn__pool_run(pool, delta, (void *)a, a->windows * a->config->value_heads);
}
