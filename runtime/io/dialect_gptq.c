/* dialect_gptq.c - GPTQ: codes packed along K, zero fields along N, optionally a group for every k (act-order).
 *
 *     qweight I32 [K b/32, N]   qzeros I32 [G, N b/32]   scales [G, N]   g_idx I32 [K]
 *     W[n,k] = scales[G(k), n] * (q[k,n] - z[G(k), n])
 *
 * Version 1 files hold z - 1; version 2, planar ones and AutoRound's own hold z. A field of all ones in a version 1
 * file is ambiguous between 0 and 2^b; it is read as (f + 1) mod 2^b, field by field, as the tool's own model_dequant
 * does.
 *
 * The configuration may set bits, group size and symmetry per layer; shapes that say something else are believed. What
 * neither tells is refused. Whether a weight is symmetric is checked when planes are read: a file's zero points are not
 * looked at when it is opened.
 *
 * A part of an act-order weight, as tensor parallelism cuts it along K, has all groups but not all of their members. It
 * gets a scale for each k.
 *
 * Source: AutoGPTQ qlinear_cuda.py, GPTQModel planar_packing.py and model_dequant.py, AutoRound
 * inference/backend.py. */
#include "model.h"
#include <string.h>

enum { QWEIGHT, QZEROS, SCALES, G_IDX };

/* The layout's name: GPTQModel writes the first two keys, AutoRound the last, others the first or none. */
static const char *layout_name(const qn_model *m) {
  static const char *const keys[] = {"checkpoint_format", "format", "packing_format"};
  const char *name = qn__quant_int(m, "is_marlin_format", 0) ? "marlin" : "";
  for (size_t i = 0; !*name && i < QN_COUNT(keys); i++) name = qn__quant_text(m, keys[i]);
  return name;
}

enum { STORED_AS_IS = 16, SYMMETRIC = 32, SPREAD = 64, PACKING = 15 }; /* mode: the packing and these */

static const struct {
  const char *name;
  int mode;
} layouts[] = {{"", QN__DENSE},
               {"gptq", QN__DENSE},
               {"auto_round:auto_gptq", QN__DENSE},
               {"gptq_v2", QN__DENSE | STORED_AS_IS},
               {"auto_round", QN__DENSE | STORED_AS_IS},
               {"auto_round:gptqmodel", QN__DENSE | STORED_AS_IS},
               {"gptq_p", QN__PLANAR | STORED_AS_IS}};

/* Have all parts the size that codes of so many bits make? */
static bool fits(const qn__weight *w, int bits, qn__packing packing) {
  const qn_raw *q = w->part[QWEIGHT], *z = w->part[QZEROS], *order = w->part[G_IDX];
  int64_t k = order ? order->dim[0] : q->dim[0] * 32 / bits;
  return k >= 1 && k <= INT32_MAX && qn__packed_words(k, bits, packing) == q->dim[0] &&
         qn__packed_words(w->pub.n, bits, packing) == z->dim[1];
}

/* The bits that are set for this layer, if they fit; else the only ones that do. */
static qn_status find_bits(const qn_model *m, qn__weight *w, qn__packing packing) {
  const qn_raw *q = w->part[QWEIGHT], *z = w->part[QZEROS];
  int64_t said = qn__layer_int(m, w, "bits", qn__layer_int(m, w, "w_bit", qn__layer_int(m, w, "wbits", 0)));
  if (said >= 2 && said <= 8 && fits(w, (int)said, packing)) return w->bits = (int)said, QN_OK;
  for (int bits = 2; bits <= 8; bits++) {
    bool usual = packing == QN__PLANAR || bits == 3 || 32 % bits == 0;
    if (!usual || !fits(w, bits, packing)) continue;
    if (w->bits)
      return qn__fail(QN_E_SHAPE, "%s: codes of %d bits and of %d have this shape; no configuration says \"bits\"",
                      q->name, w->bits, bits);
    w->bits = bits;
  }
  return w->bits ? QN_OK
                 : qn__fail(QN_E_FORMAT,
                            "%s: %jd rows of words, %jd words for %jd zero points: no width of 2 to 8 bits has these",
                            q->name, (intmax_t)q->dim[0], (intmax_t)z->dim[1], (intmax_t)w->pub.n);
}

static qn_status find_group(const qn_model *m, qn__weight *w) {
  int64_t size = qn__layer_int(m, w, "group_size", qn__layer_int(m, w, "q_group_size", 0));
  w->group = size;
  if (size > 0 && qn__ceildiv(w->pub.k, size) == w->groups) return QN_OK;
  w->group = 0;
  if (w->groups == 1) return QN_OK;
  if (size > 0 && qn__ceildiv(w->pub.k, size) < w->groups && w->part[G_IDX] && qn__layer_int(m, w, "desc_act", 0)) {
    w->mode |= SPREAD;
    w->group = 1;
    w->groups = w->pub.k;
    return QN_OK;
  }
  return qn__layer_group(m, w, w->part[SCALES], w->groups, &w->group);
}

static qn_status claim(const qn_model *m, qn__weight *w) {
  const qn_raw *q = w->part[QWEIGHT], *s = w->part[SCALES];
  size_t layout = 0;
  while (layout < QN_COUNT(layouts) && strcmp(layouts[layout].name, layout_name(m))) layout++;
  if (layout == QN_COUNT(layouts))
    return qn__fail(QN_E_SHAPE, "%s: GPTQ's layout \"%s\"; save it as gptq", q->name, layout_name(m));
  QN_TRY(qn__part_is(w, QWEIGHT, "I32 U32", 2, (int64_t[]){-1, -1}));
  QN_TRY(qn__part_float(w, SCALES, 2, (int64_t[]){-1, q->dim[1]}));
  QN_TRY(qn__part_is(w, QZEROS, "I32 U32", 2, (int64_t[]){s->dim[0], -1}));
  if (w->part[G_IDX]) QN_TRY(qn__part_is(w, G_IDX, "I32 U32", 1, (int64_t[]){-1}));
  w->pub.n = w->rows = q->dim[1];
  w->groups = s->dim[0];
  if (w->groups < 1 || w->pub.n < 1 || q->dim[0] < 1) return qn__fail(QN_E_FORMAT, "%s: a dimension is 0", q->name);
  QN_TRY(qn__layer_configure(m, w));
  bool sym = qn__layer_int(m, w, "sym", 0) == 1;
  w->mode = layouts[layout].mode | (sym ? SYMMETRIC : 0);
  QN_TRY(find_bits(m, w, (qn__packing)(w->mode & PACKING)));
  w->pub.k = w->part[G_IDX] ? w->part[G_IDX]->dim[0] : q->dim[0] * 32 / w->bits;
  QN_TRY(find_group(m, w));
  char base[] = {'i', 'n', 't', (char)('0' + w->bits), 0}, grain[24];
  return qn__spell(w, base, qn__grain(w, grain), sym ? "" : "z", s->type);
}

/* The stored group that column c of the planes is. */
static int64_t group_at(const qn__weight *w, int64_t c) {
  return w->mode & SPREAD ? (int64_t)qn__le32((const uint8_t *)w->part[G_IDX]->data + 4 * c) : c;
}

static qn_status check_groups(const qn__weight *w) {
  for (int64_t c = 0, stored = w->part[SCALES]->dim[0]; c < w->groups; c++)
    if (group_at(w, c) >= stored)
      return qn__fail(QN_E_FORMAT, "%s: group %d of column %jd; there are %jd", w->part[G_IDX]->name,
                      (int)group_at(w, c), (intmax_t)c, (intmax_t)stored);
  return QN_OK;
}

static void read_scales(const qn__weight *w, uint8_t *plane) {
  size_t item = (size_t)qn_type_bits(w->scale) / 8;
  const uint8_t *from = w->part[SCALES]->data;
  for (int64_t c = 0; c < w->groups; c++)
    for (int64_t n = 0; n < w->pub.n; n++)
      memcpy(plane + (size_t)(n * w->groups + c) * item, from + (size_t)(group_at(w, c) * w->pub.n + n) * item, item);
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
  for (int64_t c = 0; c < w->groups; c++)
    for (int64_t n = 0; n < w->pub.n; n += 32) {
      int64_t count = w->pub.n - n < 32 ? w->pub.n - n : 32;
      zeros_of(w, group_at(w, c), n, count, z);
      for (int64_t i = 0; i < count; i++)
        if (plane) plane[(n + i) * w->groups + c] = z[i];
        else if (z[i] != 1 << (w->bits - 1))
          return qn__fail(QN_E_FORMAT,
                          "%s: zero point %d of group %jd, row %jd, but the configuration says \"sym\": true "
                          "(midpoint %d); set it to false",
                          w->pub.name, z[i], (intmax_t)group_at(w, c), (intmax_t)(n + i), 1 << (w->bits - 1));
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
  bool sym = w->mode & SYMMETRIC, order = w->part[G_IDX] && !(w->mode & SPREAD);
  int64_t n = w->pub.n, k = w->pub.k;
  const qn__spec spec[] = {
      {"codes", QN_T_U8, n, k, NULL}, {"scale", w->scale, n, w->groups, NULL}, {"zero", QN_T_U8, n, w->groups, NULL}};
  qn_planes *p = NULL;
  QN_TRY(check_groups(w));
  QN_TRY(qn__planes_new(w, spec, sym ? 2 : 3, order, &p));
  read_codes(w, qn__fill(p, 0));
  read_scales(w, qn__fill(p, 1));
  qn_status s = read_zeros(w, sym ? NULL : qn__fill(p, 2));
  if (!s && order) s = qn__order_groups(w, G_IDX, slice, p);
  if (s) qn_planes_free(p);
  else *out = p;
  return s;
}

const qn__dialect qn__gptq = {"gptq", ".qweight", {"!.qzeros", "!.scales", ".g_idx"}, ".weight", NULL, claim, read};
