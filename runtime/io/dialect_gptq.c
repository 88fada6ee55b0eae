/* dialect_gptq.c - GPTQ: codes packed along K, zero fields along N, optionally a group for every k (act-order).
 *
 *     qweight I32 [K b/32, N]   qzeros I32 [G, N b/32]   scales [G, N]   g_idx I32 [K]
 *     W[n,k] = scales[G(k), n] * (q[k,n] - z[G(k), n])
 *
 * Version 1 files hold z - 1, version 2 and planar ones z. A field of all ones in a version 1 file is ambiguous between
 * 0 and 2^b; it is read as (f + 1) mod 2^b, field by field, as the tool's own model_dequant does.
 *
 * Bits and group size come from the shapes as far as these tell, because the configuration may set them per layer by
 * regular expressions ("dynamic"). Whether a weight is symmetric comes from the configuration, and reading the planes
 * checks it: a file's zero points are not looked at when it is opened.
 *
 * Source: AutoGPTQ qlinear_cuda.py, GPTQModel planar_packing.py and model_dequant.py. */
#include "model.h"
#include <string.h>

enum { QWEIGHT, QZEROS, SCALES, G_IDX };
enum { STORED_AS_IS = 16, SYMMETRIC = 32, PACKING = 15 }; /* mode: the packing and these */

/* The layout's name: GPTQModel writes both keys, others the first. */
static bool layout_is(const qn_model *m, const char *name) {
  return !strcmp(qn__quant_text(m, "checkpoint_format"), name) || !strcmp(qn__quant_text(m, "format"), name);
}

static int find_bits(const qn_model *m, const qn__weight *w) {
  int64_t n = w->part[SCALES]->dim[1], words = w->part[QZEROS]->dim[1];
  int64_t bits = qn__quant_int(m, "bits", qn__quant_int(m, "w_bit", qn__quant_int(m, "wbits", 4)));
  if (bits >= 2 && bits <= 8 && qn__ceildiv(n * bits, 32) == words) return (int)bits;
  bits = words * 32 / n;
  return bits >= 2 && bits <= 8 && qn__ceildiv(n * bits, 32) == words ? (int)bits : 0;
}

static int64_t find_group(const qn_model *m, const qn__weight *w) { /* 0: one group */
  int64_t group = qn__quant_int(m, "group_size", qn__quant_int(m, "q_group_size", -1));
  if (group > 0 && qn__ceildiv(w->pub.k, group) == w->groups) return group;
  if (w->groups == 1) return 0;
  group = qn__ceildiv(w->pub.k, w->groups);
  return qn__ceildiv(w->pub.k, group) == w->groups ? group : -1;
}

static qn_status claim(const qn_model *m, qn__weight *w) {
  const qn_raw *q = w->part[QWEIGHT], *s = w->part[SCALES];
  if (layout_is(m, "marlin") || qn__quant_int(m, "is_marlin_format", 0))
    return qn__fail(QN_E_SHAPE, "%s: in Marlin's tile order; save it in the gptq layout", q->name);
  QN_TRY(qn__part_is(w, QWEIGHT, "I32 U32", 2, (int64_t[]){-1, -1}));
  QN_TRY(qn__part_float(w, SCALES, 2, (int64_t[]){-1, q->dim[1]}));
  QN_TRY(qn__part_is(w, QZEROS, "I32 U32", 2, (int64_t[]){s->dim[0], -1}));
  w->pub.n = q->dim[1];
  w->rows = w->pub.n;
  w->groups = s->dim[0];
  if (w->groups < 1 || w->pub.n < 1 || q->dim[0] < 1) return qn__fail(QN_E_FORMAT, "%s: a dimension is 0", q->name);
  w->bits = find_bits(m, w);
  if (!w->bits)
    return qn__fail(QN_E_FORMAT, "%s: %jd words for %jd zero points; 2 to 8 bits each are read", w->part[QZEROS]->name,
                    (intmax_t)w->part[QZEROS]->dim[1], (intmax_t)w->pub.n);
  w->pub.k = w->part[G_IDX] && w->part[G_IDX]->n_dims == 1 ? w->part[G_IDX]->dim[0] : q->dim[0] * 32 / w->bits;
  if (w->part[G_IDX]) QN_TRY(qn__part_is(w, G_IDX, "I32 U32", 1, (int64_t[]){w->pub.k}));
  if (w->pub.k < 1 || w->pub.k > INT32_MAX || qn__packed_words(w->pub.k, w->bits, QN__DENSE) != q->dim[0])
    return qn__fail(QN_E_FORMAT, "%s: %jd rows of words for K = %jd codes of %d bits", q->name, (intmax_t)q->dim[0],
                    (intmax_t)w->pub.k, w->bits);
  w->group = find_group(m, w);
  if (w->group < 0)
    return qn__fail(QN_E_FORMAT, "%s: %jd groups do not divide K = %jd", s->name, (intmax_t)w->groups,
                    (intmax_t)w->pub.k);
  bool planar = layout_is(m, "gptq_p"), sym = qn__quant_int(m, "sym", 0) == 1;
  w->mode = (planar ? QN__PLANAR : QN__DENSE) | (planar || layout_is(m, "gptq_v2") ? STORED_AS_IS : 0) |
            (sym ? SYMMETRIC : 0);
  char base[] = {'i', 'n', 't', (char)('0' + w->bits), 0}, grain[24];
  return qn__spell(w, base, qn__grain(w, grain), sym ? "" : "z", s->type);
}

/* Zero points of 32 columns of group g from column n on. */
static void zeros_of(const qn__weight *w, int64_t g, int64_t n, int64_t count, uint8_t *z) {
  const qn_raw *q = w->part[QZEROS];
  const uint8_t *words = (const uint8_t *)q->data + 4 * (g * q->dim[1] + n / 32 * w->bits);
  qn__unpack(words, 4, w->bits, (qn__packing)(w->mode & PACKING), count, z, 1);
  for (int64_t i = 0; i < count && !(w->mode & STORED_AS_IS); i++) z[i] = (uint8_t)(z[i] + 1) & ((1 << w->bits) - 1);
}

/* Fill the plane, or check that it need not exist. */
static qn_status read_zeros(const qn__weight *w, uint8_t *plane) {
  uint8_t z[32];
  for (int64_t g = 0; g < w->groups; g++)
    for (int64_t n = 0; n < w->pub.n; n += 32) {
      int64_t count = w->pub.n - n < 32 ? w->pub.n - n : 32;
      zeros_of(w, g, n, count, z);
      for (int64_t i = 0; i < count; i++)
        if (plane) plane[(n + i) * w->groups + g] = z[i];
        else if (z[i] != 1 << (w->bits - 1))
          return qn__fail(QN_E_FORMAT,
                          "%s: zero point %d of group %jd, row %jd, but the configuration says \"sym\": true "
                          "(midpoint %d); set it to false",
                          w->pub.name, z[i], (intmax_t)g, (intmax_t)(n + i), 1 << (w->bits - 1));
    }
  return QN_OK;
}

/* Columns of words become rows of codes: a few columns at a time, as many as share a line of the cache. */
static void read_codes(const qn__weight *w, uint8_t *codes) {
  enum { COLUMNS = 16, DEPTH = 1024 };
  int64_t n = w->pub.n, k = w->pub.k;
  for (int64_t i0 = 0; i0 < n; i0 += COLUMNS)
    for (int64_t j = 0; j < k; j += DEPTH)
      for (int64_t i = i0; i < n && i < i0 + COLUMNS; i++)
        qn__unpack((const uint8_t *)w->part[QWEIGHT]->data + 4 * (j / 32 * w->bits * n + i), 4 * (size_t)n, w->bits,
                   (qn__packing)(w->mode & PACKING), k - j < DEPTH ? k - j : DEPTH, codes + i * k + j, 1);
}

static qn_status read(const qn__weight *w, int64_t slice, qn_planes **out) {
  (void)slice;
  bool sym = w->mode & SYMMETRIC;
  int64_t n = w->pub.n, k = w->pub.k;
  const qn__spec spec[] = {
      {"codes", QN_T_U8, n, k, NULL}, {"scale", w->scale, n, w->groups, NULL}, {"zero", QN_T_U8, n, w->groups, NULL}};
  qn_planes *p = NULL;
  QN_TRY(qn__planes_new(w, spec, sym ? 2 : 3, w->part[G_IDX] != NULL, &p));
  read_codes(w, qn__fill(p, 0));
  qn__transpose(qn__fill(p, 1), w->part[SCALES]->data, w->groups, n, (size_t)qn_type_bits(w->scale) / 8);
  qn_status s = read_zeros(w, sym ? NULL : qn__fill(p, 2));
  if (!s && p->perm) s = qn__order_groups(w, G_IDX, p);
  if (s) qn_planes_free(p);
  else *out = p;
  return s;
}

const qn__dialect qn__gptq = {"gptq", ".qweight", {"!.qzeros", "!.scales", ".g_idx"}, ".weight", NULL, claim, read};
