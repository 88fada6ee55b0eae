/* rtn.c - round to nearest: each weight by itself, from the weights alone. */
#include "fail.h"
#include "fit.h"

qn_status qn__fit_scales(qn__fit *t) {
  qn__fit_ranges(t);
  if (t->mse) qn__fit_draw_in(t);
  QN_TRY(qn__fit_planes(t));
  if (t->mse) qn__fit_refine(t);
  return QN_OK;
}

qn_status qn__method_rtn(qn__fit *t) {
  QN_TRY(qn__fit_scales(t));
  qn__fit_encode(t);
  return QN_OK;
}
