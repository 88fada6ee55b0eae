/* gptaq.c - GPTQ against the outputs of the unquantized model (Li et al., arXiv:2504.02692).
 *
 * Inputs X come from layers that are quantized already; X' are those of the unquantized model. What the weight is to
 * give is W X', so each column, as it is taken, carries a share of its own W (X' - X) over to the columns still to
 * come: P = α · ((X' - X) Xᵀ Uᵀ, of which only what goes to later columns) · U, where Uᵀ U is the inverse of H. α is
 * less than 1, for X' - X is seen on a few windows of text only. */
#include "fail.h"
#include "feedback.h"
#include <stdlib.h>
#include <string.h>

static const double alpha = 0.25;

/* ((X' - X) Xᵀ)ᵀ in the order of the places. */
static void arrange_cross(const qn__feedback *b, double *right) {
  const qn__inputs *s = b->t->seen;
  memset(right, 0, (size_t)(b->pad * b->pad) * sizeof *right);
  for (int64_t i = 0; i < s->k; i++)
    for (int64_t j = 0; j < s->k; j++) right[i * b->pad + j] = s->cross[b->order[j] * s->pad + b->order[i]];
}

/* U of the paper, in the order of the places, is L⁻¹: `p` holds L⁻¹ crossᵀ, and becomes P. */
static void carry(const qn__feedback *b, double *p) {
  for (int64_t i = 0; i < b->pad; i++)
    for (int64_t j = 0; j < b->pad; j++) p[i * b->pad + j] *= i < j ? alpha : 0;
  qn__solve_upper(b->t->pool, b->pad, b->lower, p);
  qn__matrix_transpose(b->t->pool, b->pad, p);
}

qn_status qn__method_gptaq(qn__fit *t) {
  qn__feedback b;
  QN_TRY(qn__fit_scales(t));
  double *p = malloc((size_t)(t->seen->pad * t->seen->pad) * sizeof *p);
  if (!p) return qn__fail(QN_E_NOMEM, "products of %jd inputs", (intmax_t)t->k);
  qn_status s = qn__feedback_init(&b, t, arrange_cross, p);
  if (!s) {
    carry(&b, p);
    b.carried = p;
    s = qn__feedback_encode(&b);
    qn__feedback_fini(&b);
  }
  free(p);
  return s;
}
