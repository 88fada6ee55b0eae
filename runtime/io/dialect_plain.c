/* dialect_plain.c - what no other dialect claims: float matrices are dense weights; vectors and the rest are no
 * weights. */
#include "model.h"

static qn_status claim(const qn_model *m, qn__weight *w) {
  const qn_raw *q = w->part[0];
  (void)m;
  if (q->n_dims != 2 || (q->type != QN_T_F16 && q->type != QN_T_BF16 && q->type != QN_T_F32)) return QN_OK;
  w->pub.n = q->dim[0];
  w->pub.k = q->dim[1];
  QN_TRY(qn__spell(w, qn_type_name(q->type), "", "", QN_T_NONE));
  w->scale = q->type;
  return QN_OK;
}

static qn_status read(const qn__weight *w, int64_t slice, qn_planes **out) {
  (void)slice;
  qn_type codes = qn_type_bits(w->scale) == 32 ? QN_T_U32 : QN_T_U16;
  qn__spec spec = {"codes", codes, w->pub.n, w->pub.k, w->part[0]->data};
  return qn__planes_new(w, &spec, 1, false, out);
}

const qn__dialect qn__plain = {"plain", "", {NULL}, "", NULL, claim, read};
