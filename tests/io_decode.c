/* io_decode.c - see io_decode.h. The rules are those of templates/formats, brought to a descriptor by the generator and
 * evaluated by the reference: computed in double, rounded once to float. */
#include "io_decode.h"
#include "fail.h"
#include "generator.h"
#include <stdlib.h>

const char *io_decode(const qn_planes *p, float *out) {
  qn_format f;
  const char *wrong = generator_format(p->format, &f);
  if (wrong) return wrong;
  double *x = malloc((size_t)(p->n * p->k) * sizeof *x);
  qn_status s = qn__dequantize(&f, p, 0, p->n, x);
  for (int64_t i = 0; !s && i < p->n * p->k; i++)
    out[i - i % p->k + (p->perm ? p->perm[i % p->k] : i % p->k)] = (float)x[i];
  free(x);
  return s ? qn__errmsg() : NULL;
}
