/* config_read.c - a model's configuration out of its settings and its architecture's row. */
#include "arch.h"
#include "config.h"
#include "fail.h"
#include "rope.h"
#include "settings.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Limits: far beyond any model, far below what could overflow. */
enum { SIZE = 1 << 24, LAYERS = 1 << 10, HEADS = 1 << 12, EXPERTS = 1 << 14 };

static qn_status number(const qn__settings *s, qn__setting what, double *value) {
  return qn__setting_number(s, what, -1, value);
}

static qn_status factor(const qn__settings *s, qn__setting what, float *out) {
  double v = (double)*out;
  QN_TRY(number(s, what, &v));
  *out = (float)v;
  return isfinite(*out) ? QN_OK : qn__setting_refuse(s, what, "%g is beyond f32", v);
}

static qn_status flag(const qn__settings *s, qn__setting what, bool *out) {
  double v = *out;
  QN_TRY(number(s, what, &v));
  *out = v != 0;
  return QN_OK;
}

static qn_status count(const qn__settings *s, qn__setting what, int64_t item, int64_t least, int64_t most, int *out) {
  int64_t v = *out;
  QN_TRY(qn__setting_size(s, what, item, least, most, &v));
  *out = (int)v;
  return QN_OK;
}

/* ---- Where the settings are -------------------------------------------------------------------------------------- */

/* The part of config.json that describes the decoder: the innermost that counts its layers. */
static const cJSON *text_part(const qn_model *m) {
  for (int i = m->n_configs - 1; i >= 0; i--)
    if (qn__member(m->config_part[i], "num_hidden_layers")) return m->config_part[i];
  return m->json;
}

static qn_status find_settings(const qn_model *weights, qn__settings *s) {
  const qn_model *m = qn__model_settings(weights);
  const qn_meta *name = qn_model_find_meta(m, "general.architecture");
  char word[QN__WORD];
  *s = (qn__settings){.model = m, .weights = weights};
  if (m->gguf) {
    if (!name || name->type != QN_META_STRING)
      return qn__fail(QN_E_FORMAT, "GGUF header: no general.architecture, so what the model computes is unknown");
    snprintf(word, sizeof word, "%.*s", (int)(name->count < sizeof word ? name->count : sizeof word - 1),
             (const char *)name->data);
    return qn__arch_find(word, true, &s->arch, &s->name);
  }
  if (!m->json)
    return qn__fail(QN_E_FORMAT,
                    "no config.json beside the weights, so what the model computes is unknown; put that of "
                    "the original there, or let convert --config make a folder of both");
  s->part[1] = text_part(m);
  const cJSON *type = qn__member(s->part[1], "model_type");
  if (!cJSON_IsString(type)) type = qn__member(m->json, "model_type");
  if (!cJSON_IsString(type)) return qn__fail(QN_E_FORMAT, "config.json: model_type: a text is expected");
  return qn__arch_find(type->valuestring, false, &s->arch, &s->name);
}

/* ---- Layers ------------------------------------------------------------------------------------------------------ */

static qn_status has_window(const qn__settings *s, int layer, bool *out) {
  int64_t from = 28, period = 0;
  bool used = true;
  QN_TRY(flag(s, QN_S_USE_WINDOW, &used));
  QN_TRY(qn__setting_size(s, QN_S_WINDOW_FROM, -1, 0, LAYERS, &from));
  if (s->arch->sliding == QN_SLIDING_MOST) QN_TRY(qn__setting_size(s, QN_S_WINDOW_PERIOD, layer, 0, LAYERS, &period));
  bool is_list = qn__setting_is_list(s, QN_S_WINDOW_PERIOD); /* of a GGUF: does this layer have one? */
  *out = used && (s->arch->sliding == QN_SLIDING_ALL || (s->arch->sliding == QN_SLIDING_FROM && layer >= from) ||
                  (s->arch->sliding == QN_SLIDING_MOST && (is_list ? period == 1 : !period || (layer + 1) % period)));
  return QN_OK;
}

/* What a layer does: attention to all, in a window, or a delta net. */
static qn_status read_type(const qn__settings *s, int layer, bool *window, bool *delta) {
  static const char *const full = "full_attention", *const sliding = "sliding_attention",
                           *const linear = "linear_attention";
  char word[QN__WORD];
  int64_t period = 4;
  QN_TRY(qn__setting_word(s, QN_S_LAYER_TYPES, layer, word));
  *window = !strcmp(word, sliding);
  *delta = !strcmp(word, linear);
  if (*delta && !s->arch->delta)
    return qn__setting_refuse(s, QN_S_LAYER_TYPES, "layer %d is %s, which %s does not have", layer, linear, s->name);
  if (*word) {
    if (*window || *delta || !strcmp(word, full)) return QN_OK;
    return qn__setting_refuse(s, QN_S_LAYER_TYPES, "layer %d is \"%s\"; %s, %s and %s can be evaluated", layer, word,
                              full, sliding, linear);
  }
  QN_TRY(has_window(s, layer, window));
  QN_TRY(qn__setting_size(s, QN_S_FULL_PERIOD, -1, 1, LAYERS, &period));
  *delta = s->arch->delta && (layer + 1) % period;
  return QN_OK;
}

static qn_status has_positions(const qn__settings *s, int layer, bool *out) {
  int64_t period = 0;
  if (qn__setting_given(s, QN_S_ROPE_LAYERS)) {
    double v = 1;
    QN_TRY(qn__setting_number(s, QN_S_ROPE_LAYERS, layer, &v));
    *out = v != 0;
    return QN_OK;
  }
  QN_TRY(qn__setting_size(s, QN_S_NO_ROPE_PERIOD, -1, 0, LAYERS, &period));
  *out = !period || (layer + 1) % period;
  return QN_OK;
}

static qn_status read_mlp(const qn__settings *s, const qn__config *c, int layer, int64_t *size) {
  int64_t period = 1;
  QN_TRY(qn__setting_size(s, QN_S_EXPERT_PERIOD, -1, 1, LAYERS, &period));
  *size = 0;
  if (c->experts.n && (layer + 1) % period == 0 && !qn__setting_has(s, QN_S_DENSE_LAYERS, layer)) return QN_OK;
  return qn__setting_size(s, QN_S_MLP, layer, 1, SIZE, size);
}

static qn_status read_layer(const qn__settings *s, const qn__config *c, bool local_rope, int layer,
                            qn__layer_config *l) {
  bool window, delta, positions;
  QN_TRY(read_type(s, layer, &window, &delta));
  QN_TRY(has_positions(s, layer, &positions));
  QN_TRY(read_mlp(s, c, layer, &l->mlp));
  l->mixer = delta ? QN_MIXER_DELTA : QN_MIXER_ATTENTION;
  QN_TRY(count(s, QN_S_HEADS, layer, 1, HEADS, &l->heads));
  l->kv_heads = l->heads;
  QN_TRY(count(s, QN_S_KV_HEADS, layer, 1, HEADS, &l->kv_heads));
  if (l->heads % l->kv_heads)
    return qn__setting_refuse(s, QN_S_KV_HEADS, "layer %d: %d heads of keys do not divide %d heads", layer, l->kv_heads,
                              l->heads);
  if (window) QN_TRY(qn__setting_size(s, QN_S_WINDOW, -1, 0, INT32_MAX, &l->window));
  l->rope = !positions ? -1 : window && l->window && local_rope;
  return QN_OK;
}

static qn_status read_layers(const qn__settings *s, qn__config *c, bool local_rope) {
  c->layer = calloc((size_t)c->n_layers, sizeof *c->layer);
  if (!c->layer) return qn__fail(QN_E_NOMEM, "no memory for %d layers", c->n_layers);
  for (int i = 0; i < c->n_layers; i++) QN_TRY(read_layer(s, c, local_rope, i, &c->layer[i]));
  return QN_OK;
}

/* ---- Parts ------------------------------------------------------------------------------------------------------- */

static qn_status read_sizes(const qn__settings *s, qn__config *c) {
  int64_t heads = 0, extra = 0, head_dim, value_dim;
  QN_TRY(qn__setting_size(s, QN_S_HIDDEN, -1, 1, SIZE, &c->hidden));
  QN_TRY(count(s, QN_S_LAYERS, -1, 1, LAYERS, &c->n_layers));
  QN_TRY(qn__setting_size(s, QN_S_EXTRA_LAYERS, -1, 0, c->n_layers - 1, &extra));
  c->n_layers -= (int)extra;
  QN_TRY(qn__setting_size(s, QN_S_HEADS, 0, 1, HEADS, &heads));
  head_dim = c->hidden / heads;
  QN_TRY(qn__setting_size(s, QN_S_HEAD_DIM, -1, 1, QN__HEAD_DIM, &head_dim));
  value_dim = head_dim;
  QN_TRY(qn__setting_size(s, QN_S_VALUE_DIM, -1, 1, QN__HEAD_DIM, &value_dim));
  if (value_dim != head_dim)
    return qn__setting_refuse(s, QN_S_VALUE_DIM, "%jd, and heads of keys have %jd; they must be equal",
                              (intmax_t)value_dim, (intmax_t)head_dim);
  c->head_dim = (int)head_dim;
  QN_TRY(qn__setting_size(s, QN_S_CONTEXT, -1, 0, INT32_MAX, &c->context));
  QN_TRY(number(s, QN_S_EPS, &c->eps));
  return c->eps > 0 ? QN_OK : qn__setting_refuse(s, QN_S_EPS, "%g or missing; it must be above 0", c->eps);
}

static qn_status read_activation(const qn__settings *s, qn__config *c) {
  static const struct {
    const char *name;
    qn__activation is;
  } names[] = {{"silu", QN_ACT_SILU},
               {"swish", QN_ACT_SILU},
               {"gelu", QN_ACT_GELU},
               {"gelu_pytorch_tanh", QN_ACT_GELU_TANH},
               {"gelu_new", QN_ACT_GELU_TANH}};
  char word[QN__WORD];
  double alpha = 1.702;
  QN_TRY(number(s, QN_S_ALPHA, &alpha));
  if (alpha != 1.702) return qn__setting_refuse(s, QN_S_ALPHA, "%g; 1.702 can be evaluated", alpha);
  QN_TRY(factor(s, QN_S_LIMIT, &c->limit));
  QN_TRY(qn__setting_word(s, QN_S_ACTIVATION, -1, word));
  c->activation = s->arch->clamped ? QN_ACT_CLAMPED : s->arch->activation;
  if (!*word || s->arch->clamped) return QN_OK;
  for (size_t i = 0; i < QN_COUNT(names); i++)
    if (!strcmp(word, names[i].name)) return c->activation = names[i].is, QN_OK;
  return qn__setting_refuse(s, QN_S_ACTIVATION, "\"%s\" is not known; silu, gelu and gelu_pytorch_tanh are", word);
}

/* Attention's scale is its root. */
static qn_status read_query_scalar(const qn__settings *s, const qn__config *c, double *scalar) {
  *scalar = c->head_dim;
  if (!s->model->gguf) QN_TRY(number(s, QN_S_QUERY_SCALAR, scalar));
  else if (s->arch->gguf_query.layers == c->n_layers) *scalar = s->arch->gguf_query.scalar;
  return *scalar > 0 ? QN_OK : qn__setting_refuse(s, QN_S_QUERY_SCALAR, "%g; it must be above 0", *scalar);
}

static qn_status read_factors(const qn__settings *s, qn__config *c) {
  float divisor = 1;
  double scalar;
  c->embed_scale = s->arch->embed_root ? sqrtf((float)c->hidden) : 1;
  c->residual_scale = 1;
  QN_TRY(read_query_scalar(s, c, &scalar));
  c->attention_scale = (float)(1 / sqrt(scalar));
  QN_TRY(factor(s, QN_S_EMBED_SCALE, &c->embed_scale));
  QN_TRY(factor(s, QN_S_RESIDUAL_SCALE, &c->residual_scale));
  QN_TRY(factor(s, QN_S_ATTENTION_SCALE, &c->attention_scale));
  QN_TRY(factor(s, QN_S_LOGIT_DIVISOR, &divisor));
  if (divisor == 0) return qn__setting_refuse(s, QN_S_LOGIT_DIVISOR, "0; logits are divided by it");
  c->logit_scale = 1 / divisor;
  QN_TRY(factor(s, QN_S_ATTENTION_CAP, &c->attention_softcap));
  return factor(s, QN_S_LOGIT_CAP, &c->logit_softcap);
}

static qn_status read_experts(const qn__settings *s, qn__expert_config *e) {
  e->normalize = true;
  QN_TRY(count(s, QN_S_EXPERTS, -1, 0, EXPERTS, &e->n));
  if (!e->n) return QN_OK;
  QN_TRY(count(s, QN_S_EXPERTS_USED, -1, 1, e->n, &e->used));
  QN_TRY(flag(s, QN_S_NORMALIZE, &e->normalize));
  bool own = qn__setting_given(s, QN_S_EXPERT_MLP);
  QN_TRY(qn__setting_size(s, own ? QN_S_EXPERT_MLP : QN_S_MLP, -1, 1, SIZE, &e->mlp));
  return qn__setting_size(s, QN_S_SHARED_MLP, -1, 0, SIZE, &e->shared);
}

static qn_status read_delta(const qn__settings *s, qn__delta_config *d) {
  int64_t inner = 0;
  if (!s->arch->delta) return QN_OK;
  d->conv = 4;
  d->tiled = s->model->gguf && s->arch->gguf_tiled;
  QN_TRY(count(s, QN_S_DELTA_KEY_HEADS, -1, 1, HEADS, &d->key_heads));
  QN_TRY(count(s, QN_S_DELTA_VALUE_HEADS, -1, 1, HEADS, &d->value_heads));
  QN_TRY(count(s, QN_S_DELTA_KEY_DIM, -1, 1, QN__HEAD_DIM, &d->key_dim));
  QN_TRY(qn__setting_size(s, QN_S_DELTA_INNER, -1, 0, SIZE, &inner));
  d->value_dim = (int)(inner / d->value_heads);
  QN_TRY(count(s, QN_S_DELTA_VALUE_DIM, -1, 1, QN__HEAD_DIM, &d->value_dim));
  QN_TRY(count(s, QN_S_DELTA_CONV, -1, 1, 64, &d->conv));
  if (d->value_heads % d->key_heads)
    return qn__setting_refuse(s, QN_S_DELTA_VALUE_HEADS, "%d heads; %d heads of keys do not divide them",
                              d->value_heads, d->key_heads);
  return QN_OK;
}

/* Ropes of all layers, and of those with a window if they have their own: an object for each type of layer says so. */
static qn_status read_ropes(qn__settings s, qn__config *c, bool *local) {
  const cJSON *ropes = qn__member(s.part[1], "rope_parameters");
  if (!cJSON_IsObject(ropes)) ropes = qn__member(s.part[1], "rope_scaling");
  const cJSON *full = qn__member(ropes, "full_attention"), *sliding = qn__member(ropes, "sliding_attention");
  *local = s.arch->local_rope || sliding;
  s.part[0] = full || sliding ? full : ropes;
  QN_TRY(qn__rope_read(&s, c, false, &c->rope[0]));
  s.part[0] = sliding;
  return *local ? qn__rope_read(&s, c, true, &c->rope[1]) : QN_OK;
}

static qn_status read_model(const qn__settings *s, qn__config *c) {
  const qn__arch *a = s->arch;
  bool local, bidirectional = false;
  c->architecture = s->name;
  c->norm_in = !a->no_norm_in;
  c->norm_out = a->norm_out;
  c->plus_one = a->plus_one && !s->model->gguf;
  c->qk_norm = a->qk_norm;
  c->sinks = a->sinks;
  c->pairs = a->gguf_pairs && s->model->gguf;
  QN_TRY(read_sizes(s, c));
  c->gated = a->gated;
  QN_TRY(flag(s, QN_S_OUTPUT_GATE, &c->gated));
  QN_TRY(flag(s, QN_S_BIDIRECTIONAL, &bidirectional));
  if (bidirectional) return qn__setting_refuse(s, QN_S_BIDIRECTIONAL, "true; only causal models can be evaluated");
  QN_TRY(read_activation(s, c));
  QN_TRY(read_factors(s, c));
  QN_TRY(read_experts(s, &c->experts));
  QN_TRY(read_delta(s, &c->delta));
  QN_TRY(read_ropes(*s, c, &local));
  return read_layers(s, c, local);
}

/* Rows of the embedding: what logits are made for. */
static qn_status read_vocabulary(const qn_model *m, qn__config *c) {
  const qn_tensor *t;
  for (size_t i = 0; (t = qn_model_tensor(m, i)); i++)
    if (qn__is_embedding(t) && t->k == c->hidden && t->n > 0) return c->vocab = t->n, QN_OK;
  return qn__fail(QN_E_FORMAT, "no tensor is the embedding of tokens: a matrix of %jd columns", (intmax_t)c->hidden);
}

qn_status qn__config_read(const qn_model *model, qn__config **out) {
  qn__settings s;
  *out = NULL;
  QN_TRY(find_settings(model, &s));
  qn__config *c = calloc(1, sizeof *c);
  if (!c) return qn__fail(QN_E_NOMEM, "no memory for a configuration");
  qn_status status = read_model(&s, c);
  if (!status) status = read_vocabulary(model, c);
  if (status) qn__config_free(c);
  else *out = c;
  return status;
}

void qn__config_free(qn__config *c) {
  if (c) free(c->layer);
  free(c);
}
