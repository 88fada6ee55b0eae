/* dialect_ct.c - compressed-tensors "pack-quantized": integer codes with an offset of 2^(b-1), packed along K.
 *
 *   weight_packed I32 [N, words]   weight_scale [N, G] or [N, 1]   weight_shape I64 [2]
 *   weight_zero_point I32 [words of N, G], asymmetric only         weight_g_idx I32 [K], act-order only
 *
 * Widths that do not divide 32 come in two packings, told apart by the number of words.
 * Source: the compressors of compressed-tensors. */
#include "model.h"
#include <string.h>

enum { packed, scale, shape, zero_point, weight_g_idx };

static int64_t config_bits(const qn_model *m) {
  const cJSON *groups = cJSON_GetObjectItemCaseSensitive(m->quant, "config_groups"), *g;
  cJSON_ArrayForEach(g, groups) {
    const cJSON *weights = cJSON_GetObjectItemCaseSensitive(g, "weights");
    const cJSON *bits = cJSON_GetObjectItemCaseSensitive(weights, "num_bits");
    if (cJSON_IsNumber(bits)) return bits->valueint;
  }
  return 4;
}

static qn_status claim(const qn_model *m, qn__weight *w) {
  const qn_raw *q = w->part[packed], *s = w->part[scale];
  QN_TRY(qn__part_is(w, packed, "I32 U32", 2, (int64_t[]){-1, -1}));
  QN_TRY(qn__part_is(w, shape, "I64 I32", 1, (int64_t[]){2}));
  size_t item = strcmp(w->part[shape]->dtype, "I64") ? 4 : 8;
  const uint8_t *dims = w->part[shape]->data;
  w->pub.quantized = true;
  w->pub.n = item == 8 ? (int64_t)qn__le64(dims) : (int64_t)qn__le32(dims);
  w->pub.k = item == 8 ? (int64_t)qn__le64(dims + 8) : (int64_t)qn__le32(dims + 4);
  w->bits = (int)config_bits(m);
  if (w->bits < 1 || w->bits > 8) return qn__fail(QN_E_FORMAT, "%s: num_bits = %d; 1 to 8 are read", q->name, w->bits);
  if (w->pub.n != q->dim[0] || w->pub.k < 1 || w->pub.k > q->dim[1] * 32)
    return qn__fail(QN_E_FORMAT, "%s: weight_shape %lld x %lld does not fit", q->name, (long long)w->pub.n,
                    (long long)w->pub.k);
  if (q->dim[1] == qn__packed_words(w->pub.k, w->bits, QN__DENSE)) w->mode = QN__DENSE;
  else if (q->dim[1] == qn__packed_words(w->pub.k, w->bits, QN__PADDED)) w->mode = QN__PADDED;
  else
    return qn__fail(QN_E_FORMAT, "%s: %lld words a row for %lld codes of %d bits", q->name, (long long)q->dim[1],
                    (long long)w->pub.k, w->bits);
  QN_TRY(qn__part_float(w, scale, 2, (int64_t[]){w->pub.n, -1}));
  w->groups = s->dim[1];
  if (w->groups < 1) return qn__fail(QN_E_FORMAT, "%s: no scales", s->name);
  w->group = w->groups == 1 ? 0 : qn__ceildiv(w->pub.k, w->groups);
  if (w->group && qn__ceildiv(w->pub.k, w->group) != w->groups)
    return qn__fail(QN_E_FORMAT, "%s: %lld groups do not divide K = %lld", s->name, (long long)w->groups,
                    (long long)w->pub.k);
  if (w->part[zero_point])
    QN_TRY(qn__part_is(w, zero_point, "I32 U32", 2,
                       (int64_t[]){qn__packed_words(w->pub.n, w->bits, (qn__packing)w->mode), w->groups}));
  if (w->part[weight_g_idx])
    return qn__fail(QN_E_FORMAT, "%s: activation order \"group\"; save with actorder weight or static", q->name);
  char base[8] = {'i', 'n', 't', (char)('0' + w->bits)}, grain[24];
  return qn__spell(w, base, qn__grain(w, grain), w->part[zero_point] ? "z" : "", s->type);
}

static qn_status read(const qn__weight *w, int64_t slice, qn_planes **out) {
  (void)slice;
  int64_t n = w->pub.n, k = w->pub.k;
  const qn_raw *q = w->part[packed], *z = w->part[zero_point];
  qn__spec spec[] = {
      {"codes", QN_T_U8, n, k, NULL}, {"scale", w->scale, n, w->groups, NULL}, {"zero", QN_T_U8, n, w->groups, NULL}};
  qn_planes *p;
  QN_TRY(qn__planes_new(w, spec, z ? 3 : 2, false, &p));
  uint8_t *codes = qn__fill(p, 0);
  for (int64_t i = 0; i < n; i++)
    qn__unpack((const uint8_t *)q->data + i * q->dim[1] * 4, 4, w->bits, (qn__packing)w->mode, k, codes + i * k, 1);
  memcpy(qn__fill(p, 1), w->part[scale]->data, w->part[scale]->bytes);
  if (z)
    for (int64_t g = 0; g < w->groups; g++)
      qn__unpack((const uint8_t *)z->data + g * 4, (size_t)w->groups * 4, w->bits, (qn__packing)w->mode, n,
                 (uint8_t *)qn__fill(p, 2) + g, w->groups);
  *out = p;
  return QN_OK;
}

const qn__dialect qn__ct_packed = {"compressed-tensors/pack-quantized",
                                   ".weight_packed",
                                   {"!.weight_scale", "!.weight_shape", ".weight_zero_point", ".weight_g_idx"},
                                   ".weight",
                                   NULL,
                                   claim,
                                   read};
