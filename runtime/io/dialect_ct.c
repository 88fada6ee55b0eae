/* dialect_ct.c - compressed-tensors (llm-compressor, vLLM), integer weights.
 *
 * pack-quantized: unsigned codes q + 2^(b-1), packed along K within a row.
 *     weight_packed I32 [N, words]   weight_scale [N, G], [N, 1] or [1]   weight_shape I64 [2] = N, K
 *     weight_zero_point I32 [words of N, G], asymmetric only, packed along N   weight_g_idx I32 [K], act-order only
 *     weight_zero_point I8 like the scales, zero - 2^(b-1): one for the whole tensor is not packed
 *     W = scale * (code - zero)
 * Widths that do not divide 32 come in two packings (a word of whole codes until May 2026, one stream since), told
 * apart by the number of words; of a small K, for which that is the same, by the top bits that whole codes leave 0.
 *
 * int-quantized: weight I8 [N, K]; weight_scale [N, G], [N, 1] or [1]; weight_zero_point I8 like the scales, optional.
 *
 * SGLang's "blockwise_int8": weight I8 [N, K]; weight_scale_inv F32, one for a block of 128 x 128, multiplied despite
 * its name. It is repeated for each row.
 *
 * All have stacks of E experts, too: each tensor with E in front, weight_shape I64 [3] = E, N, K.
 *
 * Bits and group size are the first in config_groups that fit the shapes: for them targets need not be matched.
 * Source: compressed-tensors, compressors/quantized_compressors. */
#include "ct.h"
#include <stdio.h>
#include <string.h>

enum { CODES, SCALE, ZERO, SHAPE, G_IDX };

const cJSON *qn__ct_weights(const qn_model *m, int i) {
  const cJSON *groups = qn__member(m->quant, "config_groups");
  for (const cJSON *g = groups ? groups->child : NULL; g; g = g->next)
    if (!i--) return g;
  return NULL;
}

static qn_status float_scale(const qn__weight *w) {
  int n_dims = w->part[SCALE]->n_dims;
  return qn__part_float(w, SCALE, n_dims, (int64_t[QN_MAX_DIMS]){-1, -1, -1, -1, -1, -1, -1, -1});
}

/* ---- pack-quantized ---------------------------------------------------------------------------------------------- */

enum { EITHER = QN__PLANAR + 1 }; /* mode: a qn__packing, or this while the number of words fits both */

/* The packing in which `count` codes take these words; -1 if none. */
static int packing_of(int64_t words, int64_t count, int64_t bits) {
  if (bits < 1 || bits > 8) return -1;
  bool dense = words == qn__packed_words(count, (int)bits, QN__DENSE);
  bool padded = words == qn__packed_words(count, (int)bits, QN__PADDED);
  if (dense && padded && 32 % bits) return EITHER;
  return dense ? QN__DENSE : padded ? QN__PADDED : -1;
}

static int64_t configured_bits(const cJSON *group) {
  const cJSON *weights = qn__member(group, "weights");
  return qn__value_int(qn__member(weights, "num_bits"), 0);
}

static int find_bits(const qn_model *m, qn__weight *w, int64_t words) {
  static const uint8_t usual[] = {4, 8, 3, 2, 6, 5, 7, 1};
  const cJSON *g;
  for (int i = 0; (g = qn__ct_weights(m, i)); i++)
    if ((w->mode = packing_of(words, w->pub.k, configured_bits(g))) >= 0) return (int)configured_bits(g);
  for (size_t i = 0; i < sizeof usual; i++) /* the configuration may just name a preset */
    if ((w->mode = packing_of(words, w->pub.k, usual[i])) >= 0) return usual[i];
  return 0;
}

static bool zeros_are_plain(const qn__weight *w) { return w->part[ZERO] && w->part[ZERO]->type == QN_T_I8; }

static qn_status check_plain_zeros(const qn__weight *w) {
  return qn__part_is(w, ZERO, "I8", w->part[SCALE]->n_dims, w->part[SCALE]->dim);
}

/* int8 q as the code q + 2^(b-1) */
static void offset_codes(const qn__weight *w, int part, int64_t slice, int64_t count, uint8_t *out) {
  const uint8_t *from = qn__slice(w, part, slice);
  for (int64_t i = 0; i < count; i++) out[i] = (uint8_t)(from[i] + (1 << (w->bits - 1)));
}

/* The zero points, packed like the codes, may settle which packing it is. */
static qn_status check_zeros(qn__weight *w) {
  const qn_raw *z = w->part[ZERO];
  if (!z) return QN_OK;
  if (zeros_are_plain(w)) return check_plain_zeros(w);
  QN_TRY(qn__slice_is(w, ZERO, "I32 U32", 2, (int64_t[]){-1, w->groups}));
  int64_t words = z->dim[z->n_dims - 2];
  int packing = packing_of(words, w->pub.n, w->bits);
  if (packing < 0 || w->rows != w->pub.n || (packing != EITHER && w->mode != EITHER && packing != w->mode))
    return qn__fail(QN_E_FORMAT, "%s: %jd rows of words for the zero points of %jd rows", z->name, (intmax_t)words,
                    (intmax_t)w->pub.n);
  if (w->mode == EITHER) w->mode = packing;
  return QN_OK;
}

/* Which packing a weight has whose number of words fits both: words of whole codes leave their top bits 0. */
static qn__packing look(const qn__weight *w) {
  const qn_raw *q = w->part[CODES];
  uint32_t used = (uint32_t)((1ull << (32 / w->bits * w->bits)) - 1);
  if (w->mode != EITHER) return (qn__packing)w->mode;
  for (size_t i = 0; i < q->bytes; i += 4)
    if (qn__le32((const uint8_t *)q->data + i) & ~used) return QN__DENSE;
  return QN__PADDED;
}

static bool is_packed(const qn_model *m, const qn__weight *w) {
  (void)m;
  return w->part[CODES]->type != QN_T_U8;
}

/* The shape that the codes are packed from. */
static qn_status read_shape(qn__weight *w) {
  const qn_raw *q = w->part[CODES], *s = w->part[SHAPE];
  QN_TRY(qn__part_is(w, SHAPE, "I64 I32", 1, (int64_t[]){q->n_dims}));
  for (int i = 0; i < q->n_dims; i++) {
    const uint8_t *d = (const uint8_t *)s->data + (size_t)i * (s->bytes / (size_t)q->n_dims);
    int64_t size = s->type == QN_T_I32 ? (int32_t)qn__le32(d) : (int64_t)qn__le64(d);
    if (size < 1 || size > INT32_MAX || (i < q->n_dims - 1 && size != q->dim[i]))
      return qn__fail(QN_E_FORMAT, "%s: dimension %d is %jd, that of the words %jd", s->name, i, (intmax_t)size,
                      (intmax_t)q->dim[i]);
    w->pub.k = size; /* the last */
  }
  return QN_OK;
}

static qn_status claim_packed(const qn_model *m, qn__weight *w) {
  const qn_raw *q = w->part[CODES];
  QN_TRY(qn__enter_stack(w, "I32 U32"));
  QN_TRY(read_shape(w));
  if (!(w->bits = find_bits(m, w, q->dim[q->n_dims - 1])))
    return qn__fail(QN_E_FORMAT, "%s: %jd rows of %jd words for a weight of %jd x %jd", q->name, (intmax_t)w->pub.n,
                    (intmax_t)q->dim[q->n_dims - 1], (intmax_t)w->pub.n, (intmax_t)w->pub.k);
  char base[] = {'i', 'n', 't', (char)('0' + w->bits), 0}, grain[24];
  QN_TRY(float_scale(w));
  QN_TRY(qn__scale_grid(m, w, SCALE, NULL, grain));
  QN_TRY(check_zeros(w));
  if (w->part[G_IDX]) QN_TRY(qn__slice_is(w, G_IDX, "I32 U32", 1, &w->pub.k));
  w->pub.activation = m->activation;
  return qn__spell(w, base, grain, w->part[ZERO] ? "z" : "", w->part[SCALE]->type);
}

static qn_status read_packed(const qn__weight *w, int64_t slice, qn_planes **out) {
  int64_t n = w->pub.n, k = w->pub.k, words = w->part[CODES]->dim[w->part[CODES]->n_dims - 1];
  const uint8_t *q = qn__slice(w, CODES, slice), *z = w->part[ZERO] ? qn__slice(w, ZERO, slice) : NULL;
  const qn__spec spec[] = {{"codes", QN_T_U8, n, k, NULL},
                           {"scale", w->scale, w->rows, w->groups, qn__slice(w, SCALE, slice)},
                           {"zero", QN_T_U8, w->rows, w->groups, NULL}};
  qn_planes *p = NULL;
  QN_TRY(qn__planes_new(w, spec, z ? 3 : 2, w->part[G_IDX] != NULL, &p));
  uint8_t *codes = qn__fill(p, 0), *zero = z ? qn__fill(p, 2) : NULL;
  qn__packing packing = look(w);
  for (int64_t i = 0; i < n; i++) qn__unpack(q + 4 * i * words, 4, w->bits, packing, k, codes + i * k, 1);
  if (zeros_are_plain(w)) offset_codes(w, ZERO, slice, w->rows * w->groups, zero);
  else
    for (int64_t g = 0; z && g < w->groups; g++)
      qn__unpack(z + 4 * g, 4 * (size_t)w->groups, w->bits, packing, n, zero + g, w->groups);
  qn_status s = p->perm ? qn__order_groups(w, G_IDX, slice, p) : QN_OK;
  if (s) qn_planes_free(p);
  else *out = p;
  return s;
}

const qn__dialect qn__ct_packed = {"compressed-tensors/pack-quantized",
                                   ".weight_packed",
                                   {"!.weight_scale", ".weight_zero_point", ".weight_shape", ".weight_g_idx"},
                                   ".weight",
                                   is_packed,
                                   claim_packed,
                                   read_packed};

/* ---- int-quantized ----------------------------------------------------------------------------------------------- */

static bool is_int(const qn_model *m, const qn__weight *w) { /* Quark's are transposed when they have groups */
  const cJSON *quark = qn__member(m->quant, "global_quant_config"),
              *scheme = qn__member(qn__member(quark, "weight"), "qscheme");
  return w->part[CODES]->type == QN_T_I8 && !(cJSON_IsString(scheme) && !strcmp(scheme->valuestring, "per_group"));
}

static qn_status claim_int(const qn_model *m, qn__weight *w) {
  char grain[24];
  QN_TRY(qn__enter_stack(w, "I8"));
  w->bits = 8;
  QN_TRY(float_scale(w));
  QN_TRY(qn__scale_grid(m, w, SCALE, NULL, grain));
  if (w->part[ZERO]) QN_TRY(check_plain_zeros(w));
  w->pub.activation = m->activation;
  return qn__spell(w, "int8", grain, w->part[ZERO] ? "z" : "", w->part[SCALE]->type);
}

static qn_status read_int(const qn__weight *w, int64_t slice, qn_planes **out) {
  int64_t n = w->pub.n, k = w->pub.k;
  const qn__spec spec[] = {{"codes", QN_T_U8, n, k, NULL},
                           {"scale", w->scale, w->rows, w->groups, qn__slice(w, SCALE, slice)},
                           {"zero", QN_T_U8, w->rows, w->groups, NULL}};
  QN_TRY(qn__planes_new(w, spec, w->part[ZERO] ? 3 : 2, false, out));
  offset_codes(w, CODES, slice, n * k, qn__fill(*out, 0));
  if (w->part[ZERO]) offset_codes(w, ZERO, slice, w->rows * w->groups, qn__fill(*out, 2));
  return QN_OK;
}

const qn__dialect qn__ct_int = {"compressed-tensors/int-quantized",
                                ".weight",
                                {"!.weight_scale", ".weight_zero_point"},
                                ".weight",
                                is_int,
                                claim_int,
                                read_int};

/* ---- Blocks ------------------------------------------------------------------------------------------------------ */

static qn_status claim_blocks(const qn_model *m, qn__weight *w) {
  char grain[24];
  int64_t block[2];
  QN_TRY(qn__enter_stack(w, "I8"));
  w->bits = 8;
  QN_TRY(float_scale(w));
  if (!qn__layer_block(m, w, SCALE, block)) return claim_int(m, w);
  w->mode = (int)block[0];
  w->group = block[1];
  w->groups = qn__ceildiv(w->pub.k, w->group);
  w->pub.activation = "i8.g128";
  return qn__spell(w, "int8", qn__grain(w, grain), "", w->part[SCALE]->type);
}

static qn_status read_blocks(const qn__weight *w, int64_t slice, qn_planes **out) {
  int64_t n = w->pub.n, k = w->pub.k;
  size_t row = (size_t)(w->groups * qn_type_bits(w->scale) / 8);
  if (!w->mode) return read_int(w, slice, out);
  const qn__spec spec[] = {{"codes", QN_T_U8, n, k, NULL}, {"scale", w->scale, n, w->groups, NULL}};
  QN_TRY(qn__planes_new(w, spec, 2, false, out));
  offset_codes(w, CODES, slice, n * k, qn__fill(*out, 0));
  for (int64_t i = 0; i < n; i++)
    memcpy((uint8_t *)qn__fill(*out, 1) + (size_t)i * row,
           (const uint8_t *)qn__slice(w, SCALE, slice) + (size_t)(i / w->mode) * row, row);
  return QN_OK;
}

const qn__dialect qn__int8_blocks = {
    "sglang/blockwise_int8", ".weight", {"!.weight_scale_inv"}, ".weight", is_int, claim_blocks, read_blocks};
