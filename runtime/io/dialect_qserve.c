/* dialect_qserve.c - QServe's W4A8: 4-bit codes in the tile order of its kernel.
 *
 *     qweight I8 [N, K/2]   s1_scales F16 [N]
 *     a scale per row:    s1_szeros F16 [N]                   W = code * s1 - s1_szeros
 *     a scale per group:  s2_scales, s2_zeros I8 [K/g, N]     W = (code * s2 + s2_zeros) * s1, the bracket in int8
 *
 * Codes: n = 32 a + 16 b + 8 c + d and k = 32 e + 16 f + 4 h + i lie in byte (((((a, e), d), h), f), c), i of a
 * row-major order, b = 0 in the low nibble. Position p of each 32 of the s2 arrays holds channel 8 (p mod 4) + p / 4.
 *
 * s2_zeros is -(z * s2) mod 256. Its negative, 0 to 255, becomes the plane "min"; the quantizer keeps the bracket
 * within int8, so that nothing wraps, and reading checks that.
 *
 * Source: omniserve, W4A8OF16LinearDynamicInputScale. Its files are pickles; this reads the same tensors as
 * safetensors. */
#include "model.h"
#include <string.h>

enum { QWEIGHT, S1, SZEROS, S2, S2_ZEROS };

static qn_status claim(const qn_model *m, qn__weight *w) {
  const qn_raw *q = w->part[QWEIGHT], *s2 = w->part[S2];
  char grain[24];
  (void)m;
  QN_TRY(qn__part_is(w, QWEIGHT, "I8 U8", 2, (int64_t[]){-1, -1}));
  w->bits = 4;
  w->pub.n = w->rows = q->dim[0];
  w->pub.k = q->dim[1] * 2;
  w->pub.activation = "i8.row";
  QN_TRY(qn__part_is(w, S1, "F16", 1, &w->pub.n));
  if (w->pub.n % 32 || w->pub.k % 32)
    return qn__fail(QN_E_FORMAT, "%s: %jd x %jd codes are no whole tiles of 32 x 32", q->name, (intmax_t)w->pub.n,
                    (intmax_t)w->pub.k);
  if (!s2) {
    w->groups = 1;
    QN_TRY(qn__part_is(w, SZEROS, "F16", 1, &w->pub.n));
    return qn__spell(w, "int4", "row", "m", QN_T_F16);
  }
  QN_TRY(qn__part_is(w, S2, "I8 U8", 2, (int64_t[]){-1, w->pub.n}));
  QN_TRY(qn__part_is(w, S2_ZEROS, "I8 U8", 2, s2->dim));
  w->groups = s2->dim[0];
  if (w->groups < 1 || w->pub.k % w->groups)
    return qn__fail(QN_E_FORMAT, "%s: %jd groups do not divide K = %jd", s2->name, (intmax_t)w->groups,
                    (intmax_t)w->pub.k);
  w->group = w->pub.k / w->groups;
  QN_TRY(qn__spell(w, "qserve", qn__grain(w, grain), "", QN_T_NONE));
  return QN_OK;
}

static void unpack(const uint8_t *from, int64_t n_rows, int64_t k, uint8_t *codes) {
  for (int64_t n = 0; n < n_rows; n++)
    for (int64_t j = 0; j < k; j++) {
      int64_t a = n / 32, b = n / 16 % 2, c = n / 8 % 2, d = n % 8, e = j / 32, f = j / 16 % 2, h = j / 4 % 4;
      int64_t at = ((((((a * (k / 32) + e) * 8 + d) * 4 + h) * 2 + f) * 2 + c) * 4 + j % 4);
      codes[n * k + j] = from[at] >> 4 * b & 15;
    }
}

/* out[n, g] = array[g, position of channel n], negated for the zeros. */
static void unpack_groups(const qn_raw *array, int64_t n_rows, int64_t groups, int sign, uint8_t *out) {
  for (int64_t n = 0; n < n_rows; n++)
    for (int64_t g = 0; g < groups; g++) {
      int64_t at = g * n_rows + n / 32 * 32 + n % 8 * 4 + n % 32 / 8;
      out[n * groups + g] = (uint8_t)(sign * ((const uint8_t *)array->data)[at]);
    }
}

static qn_status check_range(const qn__weight *w, const uint8_t *codes, const uint8_t *scale, const uint8_t *min) {
  for (int64_t n = 0; n < w->pub.n; n++)
    for (int64_t k = 0; k < w->pub.k; k++) {
      int64_t g = n * w->groups + k / w->group;
      int v = codes[n * w->pub.k + k] * scale[g] - min[g];
      if (v < -128 || v > 127)
        return qn__fail(QN_E_FORMAT, "%s: row %jd, column %jd: %d x %d - %d is beyond int8", w->pub.name, (intmax_t)n,
                        (intmax_t)k, codes[n * w->pub.k + k], scale[g], min[g]);
    }
  return QN_OK;
}

static qn_status read_rows(const qn__weight *w, qn_planes **out) {
  int64_t n = w->pub.n, k = w->pub.k;
  const qn__spec spec[] = {
      {"codes", QN_T_U8, n, k, NULL}, {"scale", QN_T_F16, n, 1, w->part[S1]->data}, {"min", QN_T_F16, n, 1, NULL}};
  QN_TRY(qn__planes_new(w, spec, 3, false, out));
  unpack(w->part[QWEIGHT]->data, n, k, qn__fill(*out, 0));
  uint16_t *min = qn__fill(*out, 2);
  const uint8_t *from = w->part[SZEROS]->data;
  for (int64_t i = 0; i < n; i++) min[i] = qn__le16(from + 2 * i) ^ 0x8000;
  return QN_OK;
}

static qn_status read(const qn__weight *w, int64_t slice, qn_planes **out) {
  (void)slice;
  if (!w->part[S2]) return read_rows(w, out);
  int64_t n = w->pub.n, k = w->pub.k;
  const qn__spec spec[] = {{"codes", QN_T_U8, n, k, NULL},
                           {"scale", QN_T_U8, n, w->groups, NULL},
                           {"min", QN_T_U8, n, w->groups, NULL},
                           {"channel", QN_T_F16, n, 1, w->part[S1]->data}};
  qn_planes *p = NULL;
  QN_TRY(qn__planes_new(w, spec, 4, false, &p));
  unpack(w->part[QWEIGHT]->data, n, k, qn__fill(p, 0));
  unpack_groups(w->part[S2], n, w->groups, 1, qn__fill(p, 1));
  unpack_groups(w->part[S2_ZEROS], n, w->groups, -1, qn__fill(p, 2));
  qn_status s = check_range(w, qn__fill(p, 0), qn__fill(p, 1), qn__fill(p, 2));
  if (s) qn_planes_free(p);
  else *out = p;
  return s;
}

const qn__dialect qn__qserve = {
    "qserve", ".qweight", {"!.s1_scales", ".s1_szeros", ".s2_scales", ".s2_zeros"}, ".weight", NULL, claim, read};
