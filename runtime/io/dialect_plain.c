/* dialect_plain.c - what no other dialect claims: matrices of floats are dense weights, in three dimensions a stack of
 * them; vectors and the rest are no weights. */
#include "model.h"

static qn_status claim(const qn_model *m, qn__weight *w) {
  const qn_raw *q = w->part[0];
  (void)m;
  if (q->n_dims < 2 || q->n_dims > 3 || !q->bytes) return QN_OK;
  if (q->type != QN_T_F16 && q->type != QN_T_BF16 && q->type != QN_T_F32) return QN_OK;
  w->pub.slices = q->n_dims == 3 ? q->dim[0] : 1;
  w->pub.n = q->dim[q->n_dims - 2];
  w->pub.k = q->dim[q->n_dims - 1];
  QN_TRY(qn__spell(w, qn_type_name(q->type), "", "", QN_T_NONE));
  w->scale = q->type;
  return QN_OK;
}

static qn_status read(const qn__weight *w, int64_t slice, qn_planes **out) {
  qn_type codes = qn_type_bits(w->scale) == 32 ? QN_T_U32 : QN_T_U16;
  const uint8_t *at = w->part[0]->data;
  at += slice * w->pub.n * w->pub.k * (qn_type_bits(w->scale) / 8);
  const qn__spec spec = {"codes", codes, w->pub.n, w->pub.k, at};
  return qn__planes_new(w, &spec, 1, false, out);
}

const qn__dialect qn__plain = {"plain", "", {NULL}, "", NULL, claim, read};
