/* session.c - what layers remember of sequences, and decoding with it. */
#include "fail.h"
#include "state.h"
#include <stdlib.h>
#include <string.h>

/* ---- The memory of a layer --------------------------------------------------------------------------------------- */

static int64_t conv_floats(const qn__delta_config *d) {
  int64_t channels = 2 * (int64_t)d->key_heads * d->key_dim + (int64_t)d->value_heads * d->value_dim;
  return channels * (d->conv - 1);
}

static int64_t state_floats(const qn__delta_config *d) { return (int64_t)d->value_heads * d->key_dim * d->value_dim; }

int64_t qn__memory_init(qn__memory *m, const qn__config *c, int layer, int64_t windows, int64_t tokens, float *data) {
  const qn__layer_config *l = &c->layer[layer];
  int64_t keys, values;
  *m = (qn__memory){.cache = {.windows = windows, .kv_heads = l->kv_heads, .dim = c->head_dim}};
  if (l->mixer == QN_MIXER_DELTA) {
    m->conv = data;
    if (data) m->state = data + windows * conv_floats(&c->delta);
    return windows * (conv_floats(&c->delta) + state_floats(&c->delta));
  }
  qn__cache_shape(&m->cache, tokens, &keys, &values);
  m->cache.keys = data;
  if (data) m->cache.values = data + keys;
  return keys + values;
}

qn__memory qn__memory_from(const qn__memory *m, const qn__config *c, int64_t first, int64_t windows) {
  if (!m->state) return (qn__memory){.cache = qn__cache_from(&m->cache, first, windows)};
  return (qn__memory){.conv = m->conv + first * conv_floats(&c->delta),
                      .state = m->state + first * state_floats(&c->delta)};
}

/* ---- Sessions ---------------------------------------------------------------------------------------------------- */

struct qn__session {
  qn__decoder *d;
  int64_t batch, context, length;
  qn__memory *memory; /* [n_layers] */
  float *data;
  size_t bytes;
};

enum { most_sequences = 1 << 16, most_tokens = 1 << 24 };

/* Those of one sequence are below 2^59 whatever the model (config_read.c). */
qn_status qn__session_bytes(const qn__decoder *d, int64_t batch, int64_t context, int64_t *bytes) {
  qn__memory m;
  int64_t n = 0;
  if (batch < 1 || context < 1 || batch > most_sequences || context > most_tokens)
    return qn__fail(QN_E_ARG, "a session of %jd sequences of %jd tokens; at most %d of %d", (intmax_t)batch,
                    (intmax_t)context, most_sequences, most_tokens);
  for (int i = 0; i < d->config->n_layers; i++) n += qn__memory_init(&m, d->config, i, 1, context, NULL);
  if (!__builtin_mul_overflow(n * (int64_t)sizeof(float), batch, bytes)) return QN_OK;
  return qn__fail(QN_E_LIMIT, "a session of %jd sequences of %jd tokens has more than 2^63 bytes", (intmax_t)batch,
                  (intmax_t)context);
}

qn_status qn__session_new(qn__decoder *d, int64_t batch, int64_t context, qn__session **out) {
  const qn__config *c = d->config;
  int64_t bytes;
  *out = NULL;
  QN_TRY(qn__session_bytes(d, batch, context, &bytes));
  qn__session *s = calloc(1, sizeof *s);
  if (!s) return qn__fail(QN_E_NOMEM, "a session");
  *s = (qn__session){.d = d, .batch = batch, .context = context, .bytes = (size_t)bytes};
  s->memory = calloc((size_t)c->n_layers, sizeof *s->memory);
  s->data = calloc(s->bytes, 1);
  if (!s->memory || !s->data) {
    qn__session_free(s);
    return qn__fail(QN_E_NOMEM, "a session of %jd sequences of %jd tokens: %jd bytes", (intmax_t)batch,
                    (intmax_t)context, (intmax_t)bytes);
  }
  float *data = s->data;
  for (int i = 0; i < c->n_layers; i++) data += qn__memory_init(&s->memory[i], c, i, batch, context, data);
  *out = s;
  return QN_OK;
}

void qn__session_free(qn__session *s) {
  if (!s) return;
  free(s->memory);
  free(s->data);
  free(s);
}

static qn_status step(qn__session *s, const int32_t *ids, int64_t n, float *x) {
  qn__decoder *d = s->d;
  QN_TRY(qn__decoder_embed(d, ids, s->batch * n, x));
  for (int i = 0; i < d->config->n_layers; i++)
    QN_TRY(qn__pass_layer(&(qn__pass){d, i, QN__BOTH, NULL, s->batch, n, s->length, s->context, &s->memory[i]}, x));
  return QN_OK;
}

static qn_status check_room(const qn__session *s, int64_t n) {
  if (n >= 0 && n <= s->context - s->length) return QN_OK;
  return qn__fail(QN_E_LIMIT, "%jd tokens after %jd, the session was made for %jd", (intmax_t)n, (intmax_t)s->length,
                  (intmax_t)s->context);
}

qn_status qn__session_step(qn__session *s, const int32_t *ids, int64_t n, float *h) {
  float *x = h;
  QN_TRY(check_room(s, n));
  qn__scratch_mark mark = qn__scratch_here(&s->d->scratch);
  if (!x) QN_TRY(qn__scratch_take(&s->d->scratch, s->batch * n * s->d->config->hidden, &x));
  qn_status status = step(s, ids, n, x);
  qn__scratch_back(&s->d->scratch, mark);
  if (status) return status;
  s->length += n;
  return h ? qn__decoder_finish(s->d, h, s->batch * n) : QN_OK;
}

qn_status qn__session_skip(qn__session *s, int64_t n) {
  QN_TRY(check_room(s, n));
  s->length += n;
  return QN_OK;
}

qn_status qn__session_rewind(qn__session *s, int64_t length) {
  if (length < 0 || length > s->length)
    return qn__fail(QN_E_ARG, "back to %jd tokens of a session that has %jd", (intmax_t)length, (intmax_t)s->length);
  for (int i = 0; length && length < s->length && i < s->d->config->n_layers; i++)
    if (s->memory[i].state)
      return qn__fail(QN_E_ARG, "layer %d has a state that only goes forward: back to 0 tokens, not to %jd", i,
                      (intmax_t)length);
  if (!length) memset(s->data, 0, s->bytes);
  s->length = length;
  return QN_OK;
}
