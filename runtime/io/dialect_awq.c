/* dialect_awq.c - AWQ, the "gemm" layout: 4-bit codes packed along N, eight columns interleaved in a word.
 *
 *     qweight I32 [K, N/8]   qzeros I32 [G, N/8]   scales [G, N]     nibble i of word c is column 8 c + P[i]
 *     W[n,k] = scales[k/g, n] * (q[k,n] - z[k/g, n]),  z stored as it is
 *
 * Configurations say "zero_point": false of files that hold zero points, so the file is believed: W always has them.
 * Source: AutoAWQ, awq/utils/packing_utils.py. The gemv and Marlin layouts are refused by name; Marlin's has no qzeros.
 */
#include "model.h"
#include <string.h>
#include <strings.h>

enum { QWEIGHT, QZEROS, SCALES };
static const uint8_t column_of[8] = {0, 2, 4, 6, 1, 3, 5, 7};

static bool match(const qn_model *m, const qn__weight *w) {
  const qn_raw *q = w->part[QWEIGHT], *s = w->part[SCALES];
  if (!strcmp(qn__quant_text(m, "quant_method"), "awq")) return true;
  return w->part[QZEROS] && q->n_dims == 2 && s->n_dims == 2 && q->dim[1] && s->dim[1] / 8 == q->dim[1] &&
         s->dim[1] % 8 == 0;
}

static qn_status claim(const qn_model *m, qn__weight *w) {
  const qn_raw *q = w->part[QWEIGHT], *s = w->part[SCALES];
  const char *version = qn__quant_text(m, "version");
  int64_t bits = qn__quant_int(m, "bits", qn__quant_int(m, "w_bit", 4));
  if (*version && strcasecmp(version, "gemm"))
    return qn__fail(QN_E_SHAPE, "%s: AWQ's layout \"%s\"; save it as gemm", q->name, version);
  if (bits != 4) return qn__fail(QN_E_SHAPE, "%s: AWQ of %jd bits; the layout has 4", q->name, (intmax_t)bits);
  QN_TRY(qn__part_is(w, QWEIGHT, "I32 U32", 2, (int64_t[]){-1, -1}));
  w->bits = 4;
  w->pub.n = w->rows = q->dim[1] * 8;
  w->pub.k = q->dim[0];
  QN_TRY(qn__part_float(w, SCALES, 2, (int64_t[]){-1, w->pub.n}));
  w->groups = s->dim[0];
  QN_TRY(qn__part_is(w, QZEROS, "I32 U32", 2, (int64_t[]){w->groups, q->dim[1]}));
  if (w->groups < 1 || w->pub.n < 1 || w->pub.k < w->groups || w->pub.k % w->groups)
    return qn__fail(QN_E_FORMAT, "%s: %jd groups do not divide K = %jd", s->name, (intmax_t)w->groups,
                    (intmax_t)w->pub.k);
  w->group = w->groups == 1 ? 0 : w->pub.k / w->groups;
  if (w->groups == 1 && qn__quant_int(m, "group_size", -1) == w->pub.k) w->group = w->pub.k;
  char grain[24];
  return qn__spell(w, "int4", qn__grain(w, grain), "z", s->type);
}

/* out[n][r] = nibble of row r, column n; out has `rows` columns. Tiles, so that reading and writing stay in the cache.
 */
static void unpack(const qn_raw *p, int64_t rows, int64_t n, uint8_t *out) {
  enum { WORDS = 16, DEPTH = 64 };
  int64_t words = n / 8;
  for (int64_t c0 = 0; c0 < words; c0 += WORDS)
    for (int64_t r0 = 0; r0 < rows; r0 += DEPTH)
      for (int64_t c = c0; c < words && c < c0 + WORDS; c++)
        for (int64_t r = r0; r < rows && r < r0 + DEPTH; r++) {
          uint32_t word = qn__le32((const uint8_t *)p->data + 4 * (r * words + c));
          for (int i = 0; i < 8; i++) out[(c * 8 + column_of[i]) * rows + r] = word >> 4 * i & 15;
        }
}

static qn_status read(const qn__weight *w, int64_t slice, qn_planes **out) {
  (void)slice;
  int64_t n = w->pub.n, k = w->pub.k;
  const qn__spec spec[] = {
      {"codes", QN_T_U8, n, k, NULL}, {"scale", w->scale, n, w->groups, NULL}, {"zero", QN_T_U8, n, w->groups, NULL}};
  QN_TRY(qn__planes_new(w, spec, 3, false, out));
  unpack(w->part[QWEIGHT], k, n, qn__fill(*out, 0));
  qn__transpose(qn__fill(*out, 1), w->part[SCALES]->data, w->groups, n, (size_t)qn_type_bits(w->scale) / 8);
  unpack(w->part[QZEROS], w->groups, n, qn__fill(*out, 2));
  return QN_OK;
}

const qn__dialect qn__awq = {"awq", ".qweight", {".qzeros", "!.scales"}, ".weight", match, claim, read};
