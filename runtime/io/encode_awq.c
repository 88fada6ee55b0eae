/* encode_awq.c - planes as AutoAWQ's gemm layout: see dialect_awq.c. It has zero points always. */
#include "awq.h"
#include "encode.h"
#include <stdlib.h>

enum { QWEIGHT, QZEROS, SCALES };

static qn_status shape(const qn__source *s, qn__encoded *e) {
  const qn_planes *p = s->p;
  if (s->bits != 4 || s->rows != 1 || !s->zero || s->zero->type != QN_T_U8)
    return qn__fail(QN_E_SHAPE, "int4 with integer zero points is held, with scales per group or row");
  if (p->perm) return qn__fail(QN_E_SHAPE, "act-order is not held");
  QN_TRY(qn__encode_scales(s));
  QN_TRY(qn__encode_whole("K", p->k, qn__group_size(s)));
  QN_TRY(qn__encode_whole("N", p->n, 8));
  qn__encode_part(e, ".qweight", "I32", 2, (int64_t[]){p->k, p->n / 8});
  qn__encode_part(e, ".qzeros", "I32", 2, (int64_t[]){p->k / qn__group_size(s), p->n / 8});
  qn__encode_part(e, ".scales", qn__dtype_name(s->scale->type), 2, (int64_t[]){p->k / qn__group_size(s), p->n});
  return QN_OK;
}

/* Words of [cols, N / 8] from [N, cols]. */
static void pack(const uint8_t *from, int64_t n, int64_t cols, uint8_t *words) {
  for (int64_t i = 0; i < n; i += 8)
    for (int64_t c = 0; c < cols; c++) {
      uint32_t word = 0;
      for (int at = 0; at < 8; at++) word |= (uint32_t)from[(i + qn__awq_order[at]) * cols + c] << 4 * at;
      qn__put_le32(words + 4 * (c * (n / 8) + i / 8), word);
    }
}

static qn_status fill(const qn__source *s, const qn__encoded *e) {
  const qn_planes *p = s->p;
  int64_t groups = p->k / qn__group_size(s);
  pack(p->plane[0].data, p->n, p->k, qn__encode_at(e, QWEIGHT));
  pack(s->zero->data, p->n, groups, qn__encode_at(e, QZEROS));
  qn__transpose(qn__encode_at(e, SCALES), s->scale->data, p->n, groups, (size_t)qn_type_bits(s->scale->type) / 8);
  return QN_OK;
}

const qn__repacker qn__encode_awq = {"awq", "awq", shape, fill};
