/* scale.c - see decoder.h: inputs that are scaled where they are given. */
#include "fail.h"
#include "state.h"
#include <stdlib.h>
#include <string.h>

/* What gives an input: a norm, or a linear parameter whose rows it is linear in. */
typedef struct giver {
  bool norm;
  qn__param what;
  int layer; /* of the parameter */
  int64_t expert;
} giver;

static qn_status by_norm(const qn__decoder *d, qn__param what, int layer, giver *g) {
  const qn__config *c = d->config;
  *g = (giver){.norm = true, .what = what, .layer = layer};
  if (!c->norm_in) return qn__fail(QN_E_SHAPE, "no norm stands before it");
  if (what == QN_P_NORM_MLP_IN && !c->layer[layer].mlp)
    return qn__fail(QN_E_SHAPE, "experts and their router read the same norm");
  return QN_OK;
}

static qn_status by_values(const qn__decoder *d, int layer, giver *g) {
  const qn__layer_config *l = &d->config->layer[layer];
  *g = (giver){.what = QN_P_V, .layer = layer};
  if (l->mixer == QN_MIXER_DELTA) return qn__fail(QN_E_SHAPE, "its heads share the weights of one norm");
  if (l->heads == l->kv_heads) return QN_OK;
  return qn__fail(QN_E_SHAPE, "%d heads share the values of %d", l->heads, l->kv_heads);
}

static qn_status by_up(const qn__decoder *d, qn__param what, int layer, int64_t expert, giver *g) {
  *g = (giver){.what = what, .layer = layer, .expert = expert};
  if (d->config->activation == QN_ACT_CLAMPED) return qn__fail(QN_E_SHAPE, "what it reads is cut off at a limit");
  return QN_OK;
}

/* The head's input. A module that predicts further tokens has no part here, but reads the head, too. */
static qn_status by_last_norm(const qn__decoder *d, giver *g) {
  const qn_raw *r;
  *g = (giver){.norm = true, .what = QN_P_NORM};
  for (size_t i = 0; (r = qn_model_raw(d->model, i)); i++)
    if (qn__predicts_further(r->name))
      return qn__fail(QN_E_SHAPE, "%s is of a module that reads the head, too", r->name);
  return QN_OK;
}

static qn_status choose(const qn__decoder *d, int input, giver *g) {
  const int each = qn__inputs_each(d->config), layer = input / each, at = input % each;
  const int64_t expert = at < QN_IN_EXPERT ? 0 : (at - QN_IN_EXPERT) / QN_IN_EACH;
  if (layer == d->config->n_layers) return by_last_norm(d, g);
  switch (at - expert * QN_IN_EACH) {
  case QN_IN_MIXER:
    return by_norm(d, QN_P_NORM_ATTENTION_IN, layer, g);
  case QN_IN_O:
    return by_values(d, layer, g);
  case QN_IN_DOWN:
    return by_up(d, QN_P_UP, layer, 0, g);
  case QN_IN_SHARED_DOWN:
    return by_up(d, QN_P_SHARED_UP, layer, 0, g);
  case QN_IN_EXPERT_DOWN:
    return by_up(d, QN_P_EXPERT_UP, layer, expert, g);
  default:
    return by_norm(d, QN_P_NORM_MLP_IN, layer, g);
  }
}

static qn_status find(const qn__decoder *d, int input, giver *g, const qn__link **rows) {
  QN_TRY(choose(d, input, g));
  *rows = g->norm ? NULL : qn__decoder_link(d, g->what, g->layer, g->expert);
  if (*rows && (*rows)->bias)
    return qn__fail(QN_E_SHAPE, "%s, which gives it, has a bias", d->site[(*rows)->site].name);
  return QN_OK;
}

qn_status qn__decoder_giver(const qn__decoder *d, int input, qn__giver *out) {
  const qn__link *rows;
  giver g;
  QN_TRY(find(d, input, &g, &rows));
  *out =
      (qn__giver){g.norm ? qn__params_find(d->params, g.what, g.layer, 0)->tensor->raw : NULL, rows ? rows->site : -1};
  return QN_OK;
}

/* A norm's weights as they are used: the decoder's, to be changed. */
static qn_status norm_of(qn__decoder *d, const giver *g, float **out) {
  const float *made;
  QN_TRY(qn__decoder_vector(d, g->what, g->layer, &made));
  *out = d->vector[(int64_t)g->layer * QN_P_COUNT + g->what];
  return QN_OK;
}

static qn_status divide_rows(qn__decoder *d, const qn__link *l, const float *s) {
  const int64_t n = d->site[l->site].n;
  float *by = malloc((size_t)n * sizeof *by);
  if (!by) return qn__fail(QN_E_NOMEM, "%s: %jd factors", d->site[l->site].name, (intmax_t)n);
  for (int64_t i = 0; i < n; i++) by[i] = 1;
  for (int64_t i = 0; i < l->n; i++) by[l->first + i / l->run * l->step + i % l->run] = 1 / s[i];
  qn_status status = qn__linear_scale(&d->linears, l->site, NULL, by);
  free(by);
  return status;
}

qn_status qn__decoder_scale(qn__decoder *d, int input, float *s) {
  const qn__link *rows;
  giver g;
  float *norm;
  QN_TRY(find(d, input, &g, &rows));
  if (rows) QN_TRY(divide_rows(d, rows, s));
  else {
    QN_TRY(norm_of(d, &g, &norm));
    qn__params_divide(d->params, g.what, g.layer, norm, s);
  }
  for (int i = 0; i < d->linears.n; i++)
    if (d->site[i].input == input) QN_TRY(qn__linear_scale(&d->linears, i, s, NULL));
  return QN_OK;
}

qn_status qn__decoder_norm(qn__decoder *d, int input, void *out) {
  giver g;
  float *norm;
  QN_TRY(choose(d, input, &g));
  if (!g.norm) return qn__fail(QN_E_SHAPE, "input %d is given by a linear layer, not by a norm", input);
  QN_TRY(norm_of(d, &g, &norm));
  qn__params_store(d->params, g.what, g.layer, norm, out);
  return QN_OK;
}
