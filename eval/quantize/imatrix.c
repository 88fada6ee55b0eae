/* imatrix.c - round to nearest, with scales that are searched for where they matter: an error of a weight counts as
 * much as the mean square of its input (llama.cpp's importance matrix). To first order that is the error of the output,
 * if inputs are taken to be independent. */
#include "fail.h"
#include "fit.h"

qn_status qn__method_imatrix(qn__fit *t) {
  t->importance = t->seen->square;
  QN_TRY(qn__fit_scales(t));
  qn__fit_encode(t);
  return QN_OK;
}
