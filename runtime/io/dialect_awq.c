/* dialect_awq.c - AWQ, the "gemm" layout: 4-bit codes packed along N with interleaved columns, zeros likewise.
 *
 *   qweight I32 [K, N/8]   qzeros I32 [K/g, N/8]   scales [K/g, N]   nibble i of a word is column 8 c + P[i]
 *   W[n,k] = scales[k/g, n] * (q - z), z stored as it is.   Source: AutoAWQ's packer. */
#include "model.h"
#include <string.h>

enum { qweight, qzeros, scales };
static const uint8_t column_of[8] = {0, 2, 4, 6, 1, 3, 5, 7};

static bool match(const qn_model *m, const qn__weight *w) {
  const qn_raw *q = w->part[qweight], *s = w->part[scales];
  (void)m;
  return q->n_dims == 2 && s->n_dims == 2 && s->dim[1] == q->dim[1] * 8 &&
         strcmp(qn__quant_text(m, "quant_method"), "gptq");
}

static qn_status claim(const qn_model *m, qn__weight *w) {
  const qn_raw *q = w->part[qweight], *s = w->part[scales];
  int64_t bits = qn__quant_int(m, "bits", qn__quant_int(m, "w_bit", 4));
  if (bits != 4) return qn__fail(QN_E_FORMAT, "%s: AWQ of %lld bits; 4 are read", q->name, (long long)bits);
  QN_TRY(qn__part_is(w, qweight, "I32 U32", 2, (int64_t[]){-1, -1}));
  w->bits = 4;
  w->pub.quantized = true;
  w->pub.n = q->dim[1] * 8;
  w->pub.k = q->dim[0];
  w->groups = s->dim[0];
  QN_TRY(qn__part_float(w, scales, 2, (int64_t[]){-1, w->pub.n}));
  QN_TRY(qn__part_is(w, qzeros, "I32 U32", 2, (int64_t[]){w->groups, q->dim[1]}));
  if (w->groups < 1 || w->pub.k % w->groups)
    return qn__fail(QN_E_FORMAT, "%s: %lld groups do not divide K = %lld", q->name, (long long)w->groups,
                    (long long)w->pub.k);
  w->group = w->groups == 1 ? 0 : w->pub.k / w->groups;
  char grain[24];
  return qn__spell(w, "int4", qn__grain(w, grain), "z", s->type);
}

/* out[n * stride + r] = nibble of row r, column n. */
static void unpack(const qn_raw *p, int64_t rows, int64_t n, uint8_t *out, int64_t stride) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < n / 8; c++) {
      uint32_t word = qn__le32((const uint8_t *)p->data + (r * (n / 8) + c) * 4);
      for (int i = 0; i < 8; i++) out[(c * 8 + column_of[i]) * stride + r] = word >> 4 * i & 15;
    }
}

static qn_status read(const qn__weight *w, int64_t slice, qn_planes **out) {
  (void)slice;
  int64_t n = w->pub.n, k = w->pub.k;
  qn__spec spec[] = {
      {"codes", QN_T_U8, n, k, NULL}, {"scale", w->scale, n, w->groups, NULL}, {"zero", QN_T_U8, n, w->groups, NULL}};
  qn_planes *p;
  QN_TRY(qn__planes_new(w, spec, 3, false, &p));
  unpack(w->part[qweight], k, n, qn__fill(p, 0), k);
  qn__transpose(qn__fill(p, 1), w->part[scales]->data, w->groups, n, (size_t)qn_type_bits(w->scale) / 8);
  unpack(w->part[qzeros], w->groups, n, qn__fill(p, 2), w->groups);
  *out = p;
  return QN_OK;
}

const qn__dialect qn__awq = {"awq", ".qweight", {"!.qzeros", "!.scales"}, ".weight", match, claim, read};
