/* gptq.c - codes that make up for each other's errors on the inputs that calibration saw: see feedback.h. */
#include "fail.h"
#include "feedback.h"

qn_status qn__method_gptq(qn__fit *t) {
  qn__feedback b;
  QN_TRY(qn__fit_scales(t));
  QN_TRY(qn__feedback_init(&b, t, NULL, NULL));
  qn_status s = qn__feedback_encode(&b);
  qn__feedback_fini(&b);
  return s;
}
