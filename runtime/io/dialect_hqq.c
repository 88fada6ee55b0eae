/* dialect_hqq.c - HQQ: groups along K (axis 1) or across rows (axis 0), float zero points, rows packed in halves.
 *
 *     M = W reshaped to [N K / g, g] (axis 1, a scale for each row of M) or [g, N K / g] (axis 0, one for each column)
 *     W_q           M packed: its rows are cut into equal parts, part 0 in the most significant bits of a byte; 3 bits:
 *                   ten parts in an I32, part p at bit 27 - 3 p, the rows padded to a multiple of ten
 *     scale, zero   [N K / g] float
 *     shape         I64 [2]   nbits, axis I32   packing: its name in ASCII
 *     W = (q - zero) * scale
 *
 * Groups that cross the ends of rows become groups of gcd(K, g) codes; those of axis 0, which stride through the
 * matrix, a scale for each code. Zero points are kept as f16, those of f32 scales as f32; one in bf16 must be exact in
 * f16.
 *
 * Source: hqq, core/bitpack.py and core/quantize.py. */
#include "model.h"
#include <stdio.h>
#include <string.h>

enum { W_Q, SCALE, ZERO, SHAPE, NBITS, AXIS, PACKING };

static const struct packing {
  const char *name;
  int bits, parts, top; /* part p lies at bit top - bits * p */
  int word;             /* bytes */
} packings[] = {
    {"8bit_u8", 8, 1, 0, 1}, {"4bit_u8", 4, 2, 4, 1},   {"2bit_u8", 2, 4, 6, 1},
    {"1bit_u8", 1, 8, 7, 1}, {"3bit_32", 3, 10, 27, 4},
};

static const struct packing *find_packing(const qn__weight *w) {
  const qn_raw *p = w->part[PACKING];
  for (size_t i = 0; i < QN_COUNT(packings); i++)
    if (p && strlen(packings[i].name) == p->bytes && !memcmp(packings[i].name, p->data, p->bytes)) return &packings[i];
  return NULL;
}

/* A small number that was saved as a tensor: I32, or F32 (1.58 bits). */
static double scalar(const qn_raw *r, double fallback) {
  if (!r || r->bytes != 4) return fallback;
  double v = r->type == QN_T_F32 ? (double)qn__f32(r->data) : (double)(int32_t)qn__le32(r->data);
  return v >= 0 && v < 256 ? v : -1;
}

static int64_t elements(const qn_raw *r) { return (int64_t)(r->bytes * 8) / qn_type_bits(r->type); }

static qn_status claim(const qn_model *m, qn__weight *w) {
  const qn_raw *s = w->part[SCALE], *z = w->part[ZERO];
  const int64_t any[QN_MAX_DIMS] = {-1, -1, -1, -1, -1, -1, -1, -1};
  const struct packing *p = find_packing(w);
  char grain[24], base[8];
  (void)m;
  QN_TRY(qn__part_is(w, SHAPE, "I64", 1, (int64_t[]){2}));
  QN_TRY(qn__part_float(w, SCALE, s->n_dims, any));
  QN_TRY(qn__part_is(w, ZERO, s->dtype, s->n_dims, s->dim));
  if (!p) return qn__fail(QN_E_SHAPE, "%s: its packing is missing or unknown", w->part[W_Q]->name);
  w->pub.n = w->rows = (int64_t)qn__le64(w->part[SHAPE]->data);
  w->pub.k = (int64_t)qn__le64((const uint8_t *)w->part[SHAPE]->data + 8);
  int64_t n = w->pub.n, k = w->pub.k, count = elements(z), axis = (int64_t)scalar(w->part[AXIS], 1);
  if (n < 1 || k < 1 || n > INT32_MAX || k > INT32_MAX || count < 1 || n * k % count || axis < 0 || axis > 1)
    return qn__fail(QN_E_FORMAT, "%s: %jd scales for %jd x %jd codes, axis %jd", s->name, (intmax_t)count, (intmax_t)n,
                    (intmax_t)k, (intmax_t)axis);
  int64_t group = n * k / count, rows = axis ? count : group, step = qn__ceildiv(rows, p->parts), codes;
  if (__builtin_mul_overflow(step, n * k / rows, &codes) || __builtin_mul_overflow(codes, p->word, &codes) ||
      (uint64_t)codes != w->part[W_Q]->bytes || (rows % p->parts && p->word == 1))
    return qn__fail(QN_E_FORMAT, "%s: %zu bytes for %jd x %jd codes of packing %s", w->part[W_Q]->name,
                    w->part[W_Q]->bytes, (intmax_t)n, (intmax_t)k, p->name);
  double nbits = scalar(w->part[NBITS], p->bits);
  w->bits = p->bits == 8 && nbits > 4 && nbits < 8 ? (int)nbits : p->bits; /* 5 to 7 bits take a byte each */
  w->mode = (int)axis;
  w->group = axis ? qn__gcd(k, group) : 1;
  w->groups = k / w->group;
  snprintf(base, sizeof base, "int%d", w->bits);
  const char *along = w->groups == 1 ? "row" : qn__grain(w, grain), *zero = s->type == QN_T_F32 ? "zf32" : "zf";
  return qn__spell(w, base, along, zero, s->type);
}

static void unpack(const qn__weight *w, int64_t rows, uint8_t *codes) {
  const struct packing *p = find_packing(w);
  const uint8_t *from = w->part[W_Q]->data;
  int64_t cols = w->pub.n * w->pub.k / rows, step = qn__ceildiv(rows, p->parts), mask = (1 << p->bits) - 1;
  for (int64_t r = 0; r < rows; r++) {
    int shift = p->top - p->bits * (int)(r / step);
    const uint8_t *row = from + r % step * cols * p->word;
    for (int64_t c = 0; c < cols; c++)
      codes[r * cols + c] = (uint8_t)((p->word == 1 ? row[c] : qn__le32(row + 4 * c)) >> shift & mask);
  }
}

/* Which scale belongs to flat element f. */
static int64_t scale_of(const qn__weight *w, int64_t count, int64_t f) {
  return w->mode ? f / (w->pub.n * w->pub.k / count) : f % count;
}

static qn_status read(const qn__weight *w, int64_t slice, qn_planes **out) {
  (void)slice;
  int64_t n = w->pub.n, k = w->pub.k, count = elements(w->part[ZERO]), item = qn_type_bits(w->scale) / 8;
  qn_type type = w->scale == QN_T_F32 ? QN_T_F32 : QN_T_F16; /* of the zero points */
  const qn__spec spec[] = {
      {"codes", QN_T_U8, n, k, NULL}, {"scale", w->scale, n, w->groups, NULL}, {"zero", type, n, w->groups, NULL}};
  qn_planes *p = NULL;
  QN_TRY(qn__planes_new(w, spec, 3, false, &p));
  unpack(w, w->mode ? count : n * k / count, qn__fill(p, 0));
  uint8_t *scale = qn__fill(p, 1), *zero = qn__fill(p, 2);
  const uint8_t *from = w->part[SCALE]->data;
  for (int64_t i = 0; i < n * w->groups; i++, zero += qn_type_bits(type) / 8) {
    int64_t at = scale_of(w, count, i * w->group);
    memcpy(scale + i * item, from + at * item, (size_t)item);
    float z = qn__load_float(w->part[ZERO]->data, w->scale, (size_t)at), back;
    qn_convert(&z, QN_T_F32, zero, type, 1);
    qn_convert(zero, type, &back, QN_T_F32, 1);
    if (z == back || z != z) continue; /* a NaN is for qn_prepack to refuse */
    qn_planes_free(p);
    return qn__fail(QN_E_FORMAT, "%s: zero point %.9g is not exact in f16", w->pub.name, (double)z);
  }
  *out = p;
  return QN_OK;
}

const qn__dialect qn__hqq = {
    "hqq", ".W_q", {"!.scale", "!.zero", ".shape", ".nbits", ".axis", ".packing"}, ".weight", NULL, claim, read};
