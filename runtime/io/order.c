/* order.c - act-order: a group index for every k becomes contiguous groups and a permutation of the activations.
 *
 * The scales stay as they are; column j of the codes is the one that was at perm[j], members of a group keep their
 * order. Every group must be full (but the last, when the group size does not divide K), so that group j / size is
 * right. */
#include "model.h"
#include <stdlib.h>
#include <string.h>

/* perm from the group of each k: a counting sort. */
static qn_status sort_groups(const qn__weight *w, const char *name, const uint8_t *index, int32_t *perm,
                             bool *trivial) {
  int64_t k = w->pub.k, size = w->group ? w->group : k;
  int64_t *next = malloc((size_t)w->groups * sizeof *next); /* the place of the group's next member */
  qn_status s = next ? QN_OK : qn__fail(QN_E_NOMEM, "%s: no memory for %jd groups", w->pub.name, (intmax_t)w->groups);
  for (int64_t g = 0; !s && g < w->groups; g++) next[g] = g * size;
  *trivial = true;
  for (int64_t i = 0; !s && i < k; i++) {
    uint32_t g = qn__le32(index + 4 * i);
    if (g >= (uint64_t)w->groups)
      s = qn__fail(QN_E_FORMAT, "%s: group %d of column %jd; there are %jd", name, (int)g, (intmax_t)i,
                   (intmax_t)w->groups);
    else if (next[g] == (g + 1) * size || next[g] == k)
      s = qn__fail(QN_E_FORMAT, "%s: group %u has more than %jd members", name, g, (intmax_t)size);
    else {
      *trivial = *trivial && next[g] == i;
      perm[next[g]++] = (int32_t)i;
    }
  }
  free(next);
  return s;
}

/* No order was set: compressed-tensors then has -1 somewhere, old writers of GPTQ zeros everywhere. */
static bool is_unset(const qn__weight *w, const uint8_t *index) {
  bool zeros = true;
  for (int64_t i = 0; i < w->pub.k; i++) {
    uint32_t g = qn__le32(index + 4 * i);
    if (g == UINT32_MAX) return true;
    zeros = zeros && !g;
  }
  return zeros;
}

static qn_status reorder(const qn__weight *w, const int32_t *perm, uint8_t *codes) {
  size_t k = (size_t)w->pub.k;
  uint8_t *row = malloc(k);
  if (!row) return qn__fail(QN_E_NOMEM, "%s: no memory for a row of %zu", w->pub.name, k);
  for (int64_t n = 0; n < w->pub.n; n++, codes += k) {
    memcpy(row, codes, k);
    for (size_t j = 0; j < k; j++) codes[j] = row[perm[j]];
  }
  free(row);
  return QN_OK;
}

qn_status qn__order_groups(const qn__weight *w, int part, int64_t slice, qn_planes *p) {
  int32_t *perm = (int32_t *)(uintptr_t)p->perm;
  bool trivial = true;
  const uint8_t *index = qn__slice(w, part, slice);
  if (is_unset(w, index)) return p->perm = NULL, QN_OK;
  QN_TRY(sort_groups(w, w->part[part]->name, index, perm, &trivial));
  if (!trivial) return reorder(w, perm, qn__fill(p, 0));
  p->perm = NULL;
  return QN_OK;
}
