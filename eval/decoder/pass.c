/* pass.c - see decoder.h: what stands before and behind the layers of a pass. */
#include "fail.h"
#include "state.h"
#include <stdlib.h>
#include <string.h>

/* ---- What is made when it is first needed ------------------------------------------------------------------------ */

qn_status qn__decoder_vector(qn__decoder *d, qn__param what, int layer, const float **out) {
  float **v = &d->vector[(int64_t)layer * QN_P_COUNT + what];
  const qn__rows *r = qn__params_find(d->params, what, layer, 0);
  if (!*v) {
    float *made = malloc((size_t)(r->n * r->k) * sizeof *made);
    if (!made) return qn__fail(QN_E_NOMEM, "%s", r->tensor->name);
    qn_status status = qn__params_vector(d->params, what, layer, made);
    if (status) return free(made), status;
    *v = made;
  }
  *out = *v;
  return QN_OK;
}

qn_status qn__decoder_angles(qn__decoder *d, int rope, int64_t length, const float **table) {
  const qn__rope *r = &d->config->rope[rope];
  qn__angles *a = &d->angles[rope];
  const bool by_length = r->near || r->dynamic > 0;
  if (by_length ? a->length != length : a->length < length) {
    free(a->table);
    a->length = 0;
    a->table = malloc((size_t)(length * 2 * r->pairs) * sizeof *a->table);
    if (!a->table) return qn__fail(QN_E_NOMEM, "the angles of %jd positions", (intmax_t)length);
    qn__rope_table(r, length, a->table);
    a->length = length;
  }
  *table = a->table;
  return QN_OK;
}

static void settle(qn__decoder *d, float *x, int64_t rows, int64_t n) {
  if (d->linears.bf16) qn__round_rows(d->pool, &(qn__round){x, n, rows, n});
}

/* ---- A pass ------------------------------------------------------------------------------------------------------ */

static qn_status check_ids(const qn__decoder *d, const int32_t *ids, int64_t n) {
  for (int64_t i = 0; i < n; i++)
    if (ids[i] < 0 || ids[i] >= d->config->vocab)
      return qn__fail(QN_E_ARG, "token %jd is %d; the vocabulary is 0 .. %jd", (intmax_t)i, ids[i],
                      (intmax_t)d->config->vocab - 1);
  return QN_OK;
}

qn_status qn__decoder_embed(qn__decoder *d, const int32_t *ids, int64_t rows, float *x) {
  const qn__config *c = d->config;
  const qn_tensor *t = qn__params_find(d->params, QN_P_EMBED, 0, 0)->tensor;
  const qn__known_format *k = d->formats;
  while (strcmp(k->spelling, t->format)) k = k->next;
  QN_TRY(check_ids(d, ids, rows));
  if (!d->embedding) QN_TRY(qn_model_planes(d->model, t, 0, &d->embedding));
  QN_TRY(qn__decode_rows(d->pool, &k->f, d->embedding, ids, rows, x));
  if (c->embed_scale != 1) qn__cap_rows(d->pool, &(qn__cap){x, c->embed_scale, 0, rows, c->hidden});
  settle(d, x, rows, c->hidden);
  return QN_OK;
}

qn_status qn__decoder_layer(qn__decoder *d, int layer, qn__half half, float *x, int64_t windows, int64_t length,
                            const qn__decoder_hook *hook) {
  return qn__pass_layer(&(qn__pass){d, layer, half, hook, windows, length, 0, length, NULL}, x);
}

qn_status qn__decoder_finish(qn__decoder *d, float *x, int64_t rows) {
  const qn__config *c = d->config;
  const float *weight = NULL;
  QN_TRY(qn__decoder_vector(d, QN_P_NORM, 0, &weight));
  qn__norm_rows(d->pool, &(qn__norm){x, weight, x, c->hidden, c->hidden, rows, 1, c->hidden, c->eps});
  settle(d, x, rows, c->hidden);
  return QN_OK;
}

qn_status qn__decoder_logits(qn__decoder *d, const float *h, int64_t rows, float *logits) {
  const qn__config *c = d->config;
  const qn__link *l = qn__decoder_link(d, QN_P_HEAD, c->n_layers, 0);
  QN_TRY(qn__linear_run(&d->linears, l->site, h, rows, logits));
  if (l->bias)
    qn__gather_rows(d->pool, &(qn__gather){logits, l->bias, logits, l->n, l->n, rows, l->n, 0, l->run, l->step});
  if (c->logit_scale != 1 || c->logit_softcap)
    qn__cap_rows(d->pool, &(qn__cap){logits, c->logit_scale, c->logit_softcap, rows, l->n});
  settle(d, logits, rows, l->n);
  return QN_OK;
}

qn_status qn__decoder_hidden(qn__decoder *d, const int32_t *ids, int64_t windows, int64_t length, float *h) {
  QN_TRY(qn__decoder_embed(d, ids, windows * length, h));
  for (int i = 0; i < d->config->n_layers; i++) QN_TRY(qn__decoder_layer(d, i, QN__BOTH, h, windows, length, NULL));
  return qn__decoder_finish(d, h, windows * length);
}
