/* artifact.c - the end of an artifact: see artifact.h. */
#include "artifact.h"
#include <stdlib.h>

void qn__artifact_free(qn_artifact *a) {
  if (!a) return;
  free(a->image);
  free(a->ptx);
  free(a->log);
  *a = (qn_artifact){0};
}
