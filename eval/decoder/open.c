/* open.c - see decoder.h: opening, where each linear parameter is, and the sites. */
#include "cpu.h"
#include "fail.h"
#include "state.h"
#include <stdlib.h>
#include <string.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

/* ---- Links and sites --------------------------------------------------------------------------------------------- */

/* The linear parameters of a layer. Those of the same number share an input; each expert has inputs of its own. */
static const struct {
  qn__param what;
  int input;
} linear[] = {{QN_P_Q, QN_IN_MIXER},
              {QN_P_K, QN_IN_MIXER},
              {QN_P_V, QN_IN_MIXER},
              {QN_P_Q_GATE, QN_IN_MIXER},
              {QN_P_DELTA_Q, QN_IN_MIXER},
              {QN_P_DELTA_K, QN_IN_MIXER},
              {QN_P_DELTA_V, QN_IN_MIXER},
              {QN_P_DELTA_Z, QN_IN_MIXER},
              {QN_P_DELTA_A, QN_IN_MIXER},
              {QN_P_DELTA_B, QN_IN_MIXER},
              {QN_P_O, QN_IN_O},
              {QN_P_DELTA_O, QN_IN_O},
              {QN_P_GATE, QN_IN_MLP},
              {QN_P_UP, QN_IN_MLP},
              {QN_P_ROUTER, QN_IN_MLP},
              {QN_P_SHARED_GATE, QN_IN_MLP},
              {QN_P_SHARED_UP, QN_IN_MLP},
              {QN_P_DOWN, QN_IN_DOWN},
              {QN_P_EXPERT_GATE, QN_IN_EXPERT},
              {QN_P_EXPERT_UP, QN_IN_EXPERT},
              {QN_P_EXPERT_DOWN, QN_IN_EXPERT_DOWN},
              {QN_P_SHARED_DOWN, QN_IN_SHARED_DOWN}};
enum { expert_params = QN_P_EXPERT_DOWN - QN_P_EXPERT_GATE + 1 };

static int slot(qn__param what, int64_t expert) {
  return qn__of_expert(what) ? QN_P_COUNT + (int)expert * expert_params + (int)(what - QN_P_EXPERT_GATE) : (int)what;
}

static qn__link *link_of(const qn__decoder *d, qn__param what, int layer, int64_t expert) {
  return &d->link[(int64_t)layer * d->slots + slot(what, expert)];
}

const qn__link *qn__decoder_link(const qn__decoder *d, qn__param what, int layer, int64_t expert) {
  return link_of(d, what, layer, expert);
}

/* The descriptor of a tensor's format. */
static qn_status find_format(qn__decoder *d, const qn__decoder_options *o, const qn_tensor *t, const qn_format **out) {
  for (const qn__known_format *k = d->formats; k; k = k->next)
    if (!strcmp(k->spelling, t->format)) return *out = &k->f, QN_OK;
  qn__known_format *k = calloc(1, sizeof *k);
  if (!k) return qn__fail(QN_E_NOMEM, "format '%s' of %s", t->format, t->name);
  k->spelling = t->format;
  k->next = d->formats;
  d->formats = k;
  *out = &k->f;
  return o->format(o->ud, t->format, &k->f);
}

/* The site of a parameter's tensor: one that the layer has already, or a new one. */
static qn_status find_site(qn__decoder *d, const qn__decoder_options *o, const qn__rows *r, int layer, int input,
                           int *site) {
  qn__linears *s = &d->linears;
  for (*site = s->n - 1; *site >= 0 && s->all[*site].layer == layer; --*site)
    if (s->all[*site].tensor == r->tensor && s->all[*site].slice == r->slice) return QN_OK;
  const qn_format *format;
  QN_TRY(find_format(d, o, r->tensor, &format));
  *site = s->n++;
  s->all[*site] = (qn__linear){.tensor = r->tensor, .slice = r->slice, .format = format, .layer = layer};
  const qn__half half = input % qn__inputs_each(d->config) <= QN_IN_O ? QN__MIXER : QN__MLP;
  d->site[*site] = (qn__site){r->tensor->name, layer, r->slice, r->tensor->n, r->tensor->k, half, input};
  return qn__linear_activate(s, *site, r->tensor->activation);
}

/* of: the parameter's layer in the checkpoint, 0 for the head. */
static qn_status link_one(qn__decoder *d, const qn__decoder_options *o, qn__param what, int layer, int of,
                          int64_t expert, int input) {
  qn__link *l = link_of(d, what, layer, expert);
  const qn__rows *r = qn__params_find(d->params, what, of, expert);
  l->site = -1;
  if (!r) return QN_OK;
  *l = (qn__link){.n = r->n, .first = r->first, .run = r->run, .step = r->step};
  QN_TRY(find_site(d, o, r, layer, input, &l->site));
  if (!r->bias) return QN_OK;
  l->bias = malloc((size_t)r->n * sizeof *l->bias);
  if (!l->bias) return qn__fail(QN_E_NOMEM, "the bias of %s", r->tensor->name);
  return qn__params_bias(d->params, what, of, expert, l->bias);
}

static qn_status link_layer(qn__decoder *d, const qn__decoder_options *o, int layer) {
  const qn__config *c = d->config;
  for (size_t i = 0; i < QN_COUNT(linear); i++)
    for (int e = 0; e < (qn__of_expert(linear[i].what) ? c->experts.n : 1); e++)
      QN_TRY(link_one(d, o, linear[i].what, layer, layer, e,
                      layer * qn__inputs_each(c) + linear[i].input + e * QN_IN_EACH));
  return QN_OK;
}

static qn_status link_all(qn__decoder *d, const qn__decoder_options *o) {
  const qn__config *c = d->config;
  const size_t layers = (size_t)c->n_layers + 1;
  d->slots = QN_P_COUNT + c->experts.n * expert_params;
  const size_t links = layers * (size_t)d->slots; /* there are fewer sites */
  d->link = calloc(links, sizeof *d->link);
  d->site = calloc(links, sizeof *d->site);
  d->linears.all = calloc(links, sizeof *d->linears.all);
  d->vector = calloc(layers * QN_P_COUNT, sizeof *d->vector);
  if (!d->link || !d->site || !d->linears.all || !d->vector)
    return qn__fail(QN_E_NOMEM, "a decoder of %d layers", c->n_layers);
  for (int i = 0; i < c->n_layers; i++) QN_TRY(link_layer(d, o, i));
  return link_one(d, o, QN_P_HEAD, c->n_layers, 0, 0, c->n_layers * qn__inputs_each(c));
}

/* ---- Opening ----------------------------------------------------------------------------------------------------- */

static qn_status open_decoder(qn__decoder *d, const qn__decoder_options *o) {
  const qn_format *format;
  d->threads = o->threads ? o->threads : qn__cpu_count();
  QN_TRY(qn__config_read(d->model, &d->config));
  QN_TRY(qn__params_open(d->model, d->config, &d->params));
  QN_TRY(link_all(d, o));
  QN_TRY(find_format(d, o, qn__params_find(d->params, QN_P_EMBED, 0, 0)->tensor, &format));
  QN_TRY(qn__pool_new(NULL, d->threads, &d->pool));
  d->linears.pool = d->pool;
  return QN_OK;
}

qn_status qn__decoder_open(const qn_model *model, const qn__decoder_options *o, qn__decoder **out) {
  *out = NULL;
  qn__decoder *d = calloc(1, sizeof *d);
  if (!d) return qn__fail(QN_E_NOMEM, "a decoder");
  d->model = model;
  d->linears = (qn__linears){.model = model, .scratch = &d->scratch, .bf16 = o->bf16, .hold = o->hold};
  qn_status status = open_decoder(d, o);
  if (status) qn__decoder_close(d);
  else *out = d;
  return status;
}

void qn__decoder_close(qn__decoder *d) {
  if (!d) return;
  const int64_t layers = d->config ? d->config->n_layers + 1 : 0;
  for (int64_t i = 0; d->link && i < layers * d->slots; i++) free(d->link[i].bias);
  for (int64_t i = 0; d->vector && i < layers * QN_P_COUNT; i++) free(d->vector[i]);
  for (int i = 0; i < QN__ROPES; i++) free(d->angles[i].table);
  for (qn__known_format *k = d->formats, *next; k; k = next) next = k->next, free(k);
  qn__linears_fini(&d->linears);
  free(d->linears.all);
  free(d->link);
  free(d->site);
  free(d->vector);
  qn_planes_free(d->embedding);
  qn__scratch_fini(&d->scratch);
  qn__pool_free(d->pool);
  qn__params_close(d->params);
  qn__config_free(d->config);
  free(d);
}

/* ---- What is in it ----------------------------------------------------------------------------------------------- */

const qn__config *qn__decoder_config(const qn__decoder *d) { return d->config; }

int qn__decoder_sites(const qn__decoder *d, const qn__site **out) {
  *out = d->site;
  return d->linears.n;
}

qn_status qn__decoder_weight(qn__decoder *d, int site, float *w) { return qn__linear_weight(&d->linears, site, w); }

qn_status qn__decoder_replace(qn__decoder *d, int site, const float *w) {
  return qn__linear_replace(&d->linears, site, w);
}

void qn__decoder_forget(qn__decoder *d, int layer) {
  qn__linears_forget(&d->linears, layer);
  qn_planes_free(d->embedding);
  d->embedding = NULL;
  if (layer >= 0) return;
  qn__scratch_fini(&d->scratch);
  qn_model_release(d->model);
#ifdef __GLIBC__
  malloc_trim(0); /* it keeps what lies between blocks that are in use */
#endif
}

qn_status qn__decoder_activate(qn__decoder *d, int site, const char *activation) {
  return qn__linear_activate(&d->linears, site, activation);
}

double qn__decoder_seconds(const qn__decoder *d, int site) { return d->linears.all[site].seconds; }

qn_status qn__decoder_serve(qn__decoder *d, int site, const qn_gemm *gemm, const qn_weight *weight) {
  return qn__linear_serve(&d->linears, site, gemm, weight);
}

qn_status qn__decoder_serve_stack(qn__decoder *d, const int *site, int64_t n, const qn_gemm *gemm,
                                  const qn_weight *weight) {
  return qn__linear_serve_stack(&d->linears, site, n, gemm, weight);
}
