/* encode_gptq.c - planes as GPTQ: see dialect_gptq.c for the layout.
 *
 * Symmetric weights have zero points in the file, too: the middle. Version 1 keeps zero points as z - 1, so 0 has no
 * field of its own there: tools differ in what they take a field of all ones for. Version 2 holds it. */
#include "encode.h"
#include <stdlib.h>
#include <string.h>

enum { QWEIGHT, QZEROS, SCALES, G_IDX };

static qn_status shape(const qn__source *s, qn__encoded *e) {
  static const char widths[] = {2, 3, 4, 8};
  const qn_planes *p = s->p;
  int64_t size = qn__group_size(s), groups = p->k / size, bits = s->bits;
  if (!bits || !memchr(widths, s->bits, sizeof widths) || s->rows != 1 || s->min ||
      (s->zero && s->zero->type != QN_T_U8))
    return qn__fail(QN_E_SHAPE, "int2, int3, int4 and int8 with scales per group or row are held, zero points as "
                                "integers");
  QN_TRY(qn__encode_scales(s));
  QN_TRY(qn__encode_whole("K", p->k, size));
  QN_TRY(qn__encode_whole("K", p->k, 32 / qn__gcd(32, bits))); /* words are whole */
  QN_TRY(qn__encode_whole("N", p->n, 32 / qn__gcd(32, bits)));
  qn__encode_part(e, ".qweight", "I32", 2, (int64_t[]){qn__packed_words(p->k, s->bits, QN__DENSE), p->n});
  qn__encode_part(e, ".qzeros", "I32", 2, (int64_t[]){groups, qn__packed_words(p->n, s->bits, QN__DENSE)});
  qn__encode_part(e, ".scales", qn__dtype_name(s->scale->type), 2, (int64_t[]){groups, p->n});
  qn__encode_part(e, ".g_idx", "I32", 1, (int64_t[]){p->k});
  return QN_OK;
}

/* The group of each column of W. */
static void groups_of(const qn__source *s, int64_t size, int32_t *group) {
  for (int64_t j = 0; j < s->p->k; j++) group[s->p->perm ? s->p->perm[j] : j] = (int32_t)(j / size);
}

/* Row n of the codes in the order of W's columns: the row itself or `room`, [K]. */
static const uint8_t *row_of(const qn__source *s, int64_t n, uint8_t *room) {
  int64_t k = s->p->k;
  const uint8_t *codes = (const uint8_t *)s->p->plane[0].data + n * k;
  if (!s->p->perm) return codes;
  for (int64_t j = 0; j < k; j++) room[s->p->perm[j]] = codes[j];
  return room;
}

/* Fields of z - first. */
static qn_status put_zeros(const qn__source *s, int64_t groups, int first, uint8_t *words) {
  const uint8_t *zero = s->zero ? s->zero->data : NULL;
  int64_t n = s->p->n, row = 4 * qn__packed_words(n, s->bits, QN__DENSE);
  uint8_t line[32];
  for (int64_t g = 0; g < groups; g++, words += row)
    for (int64_t i0 = 0; i0 < n; i0 += 32) {
      int64_t count = n - i0 < 32 ? n - i0 : 32;
      for (int64_t i = 0; i < count; i++) {
        int z = zero ? zero[(i0 + i) * groups + g] : 1 << (s->bits - 1);
        if (z < first)
          return qn__fail(QN_E_SHAPE, "zero point 0 of row %jd, group %jd has no field of its own in version 1",
                          (intmax_t)(i0 + i), (intmax_t)g);
        line[i] = (uint8_t)(z - first);
      }
      qn__pack(line, s->bits, count, words + i0 / 32 * 4 * s->bits, 4);
    }
  return QN_OK;
}

static qn_status put(const qn__source *s, const qn__encoded *e, int first) {
  int64_t n = s->p->n, k = s->p->k, groups = k / qn__group_size(s);
  uint8_t *words = qn__encode_at(e, QWEIGHT), *room = malloc((size_t)k);
  if (!room) return qn__fail(QN_E_NOMEM, "no memory for a row of %jd", (intmax_t)k);
  for (int64_t i = 0; i < n; i++) qn__pack(row_of(s, i, room), s->bits, k, words + 4 * i, 4 * (size_t)n);
  free(room);
  qn__transpose(qn__encode_at(e, SCALES), s->scale->data, n, groups, (size_t)qn_type_bits(s->scale->type) / 8);
  groups_of(s, qn__group_size(s), qn__encode_at(e, G_IDX));
  return put_zeros(s, groups, first, qn__encode_at(e, QZEROS));
}

static qn_status fill(const qn__source *s, const qn__encoded *e) { return put(s, e, 1); }
static qn_status fill_v2(const qn__source *s, const qn__encoded *e) { return put(s, e, 0); }

const qn__repacker qn__encode_gptq = {"gptq", "gptq", shape, fill},
                   qn__encode_gptq_v2 = {"gptq_v2", "gptq", shape, fill_v2};
