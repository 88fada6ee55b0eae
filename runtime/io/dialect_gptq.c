/* dialect_gptq.c - GPTQ: codes packed along K, zero fields along N, an optional group for every k (act-order).
 *
 *   qweight I32 [K b/32, N]   qzeros I32 [G, N b/32]   scales [G, N]   g_idx I32 [K]
 *   W[n,k] = scales[G(k), n] * (q[k,n] - z[G(k), n]);  v1 files hold z - 1, v2 and planar ones z
 *
 * A zero field of all ones in a v1 file is read per field, (f + 1) mod 2^b. With act-order the codes are reordered so
 * that groups are contiguous, and the order is returned as the permutation. Source: AutoGPTQ's and GPTQModel's packers.
 */
#include "model.h"
#include <stdlib.h>
#include <string.h>

enum { qweight, qzeros, scales, g_idx };

static bool planar_format(const qn_model *m) {
  return !strcmp(qn__quant_text(m, "checkpoint_format"), "gptq_p") || !strcmp(qn__quant_text(m, "format"), "gptq_p");
}

static bool v2(const qn_model *m) {
  return !strcmp(qn__quant_text(m, "checkpoint_format"), "gptq_v2") || !strcmp(qn__quant_text(m, "format"), "gptq_v2");
}

/* Is each zero field the midpoint, so that the weight is symmetric? */
static bool symmetric(const qn__weight *w, bool raw) {
  uint8_t z[32];
  uint8_t mid = (uint8_t)((1 << (w->bits - 1)) - !raw);
  const qn_raw *p = w->part[qzeros];
  for (int64_t g = 0; g < w->groups; g++)
    for (int64_t n = 0; n < w->pub.n; n += 32) {
      int64_t count = w->pub.n - n < 32 ? w->pub.n - n : 32;
      qn__unpack((const uint8_t *)p->data + (g * p->dim[1] + n * w->bits / 32) * 4, 4, w->bits,
                 (qn__packing)(w->mode & 15), count, z, 1);
      for (int64_t i = 0; i < count; i++)
        if (z[i] != mid) return false;
    }
  return true;
}

static qn_status claim(const qn_model *m, qn__weight *w) {
  const qn_raw *q = w->part[qweight], *s = w->part[scales];
  if (!strcmp(qn__quant_text(m, "checkpoint_format"), "marlin") || qn__quant_int(m, "is_marlin_format", 0))
    return qn__fail(QN_E_FORMAT, "%s: weights in Marlin's tile order; convert them to the gptq layout", q->name);
  QN_TRY(qn__part_is(w, qweight, "I32 U32", 2, (int64_t[]){-1, -1}));
  QN_TRY(qn__part_float(w, scales, 2, (int64_t[]){-1, q->dim[1]}));
  w->bits = (int)qn__quant_int(m, "bits", qn__quant_int(m, "w_bit", 4));
  if (w->bits < 2 || w->bits > 8) return qn__fail(QN_E_FORMAT, "%s: bits = %d; 2 to 8 are read", q->name, w->bits);
  w->pub.quantized = true;
  w->pub.n = q->dim[1];
  w->pub.k = q->dim[0] * 32 / w->bits;
  w->groups = s->dim[0];
  QN_TRY(qn__part_is(w, qzeros, "I32 U32", 2, (int64_t[]){w->groups, qn__ceildiv(w->pub.n * w->bits, 32)}));
  if (w->part[g_idx]) QN_TRY(qn__part_is(w, g_idx, "I32 U32", 1, (int64_t[]){w->pub.k}));
  if (w->groups < 1 || w->pub.n < 1 || w->pub.k < 1) return qn__fail(QN_E_FORMAT, "%s: a dimension is zero", q->name);
  w->group = qn__quant_int(m, "group_size", qn__quant_int(m, "q_group_size", 128));
  if (w->group <= 0 || w->groups == 1)
    w->group = w->groups == 1 && w->group < w->pub.k ? 0 : w->group < 0 ? 0 : w->group;
  if (w->group && qn__ceildiv(w->pub.k, w->group) != w->groups)
    return qn__fail(QN_E_FORMAT, "%s: %lld groups for K = %lld; group_size %lld makes %lld", q->name,
                    (long long)w->groups, (long long)w->pub.k, (long long)w->group,
                    (long long)qn__ceildiv(w->pub.k, w->group));
  bool planar = planar_format(m), raw = planar || v2(m);
  w->mode = (planar ? QN__PLANAR : QN__DENSE) | raw << 4;
  char base[8] = {'i', 'n', 't', (char)('0' + w->bits)}, grain[24];
  w->mode |= symmetric(w, raw) << 5;
  return qn__spell(w, base, qn__grain(w, grain), w->mode >> 5 ? "" : "z", s->type);
}

/* Columns of the planes in an order where groups are contiguous: perm[j] is the k of column j. Counting sort. */
static qn_status order(const qn__weight *w, int32_t *perm, bool *trivial) {
  const uint8_t *g = w->part[g_idx]->data;
  int64_t k = w->pub.k, size = w->group ? w->group : k;
  int64_t *next = calloc((size_t)w->groups, sizeof *next);
  if (!next) return qn__fail(QN_E_NOMEM, "%s: no memory", w->pub.name);
  for (int64_t i = 0; i < w->groups; i++) next[i] = i * size;
  *trivial = true;
  qn_status s = QN_OK;
  for (int64_t i = 0; i < k && s == QN_OK; i++) {
    uint32_t group = qn__le32(g + 4 * i);
    if (group >= (uint64_t)w->groups)
      s = qn__fail(QN_E_FORMAT, "%s: g_idx[%lld] = %u; there are %lld groups", w->pub.name, (long long)i, group,
                   (long long)w->groups);
    else if (next[group] >= (group + 1) * size || next[group] >= k)
      s = qn__fail(QN_E_FORMAT, "%s: group %u has more than %lld members", w->pub.name, group, (long long)size);
    else {
      perm[next[group]] = (int32_t)i;
      *trivial = *trivial && next[group] == i;
      next[group]++;
    }
  }
  free(next);
  return s;
}

static qn_status read(const qn__weight *w, int64_t slice, qn_planes **out) {
  (void)slice;
  bool sym = w->mode >> 5, raw = w->mode >> 4 & 1;
  int64_t n = w->pub.n, k = w->pub.k;
  qn__spec spec[] = {
      {"codes", QN_T_U8, n, k, NULL}, {"scale", w->scale, n, w->groups, NULL}, {"zero", QN_T_U8, n, w->groups, NULL}};
  qn_planes *p;
  QN_TRY(qn__planes_new(w, spec, sym ? 2 : 3, w->part[g_idx] != NULL, &p));
  uint8_t *codes = qn__fill(p, 0);
  const uint8_t *words = w->part[qweight]->data;
  for (int64_t i = 0; i < n; i++)
    qn__unpack(words + 4 * i, (size_t)n * 4, w->bits, (qn__packing)(w->mode & 15), k, codes + i * k, 1);
  qn__transpose(qn__fill(p, 1), w->part[scales]->data, w->groups, n, (size_t)qn_type_bits(w->scale) / 8);
  if (!sym) {
    uint8_t *zero = qn__fill(p, 2), mask = (uint8_t)((1 << w->bits) - 1);
    const qn_raw *z = w->part[qzeros];
    for (int64_t g = 0; g < w->groups; g++)
      qn__unpack((const uint8_t *)z->data + g * z->dim[1] * 4, 4, w->bits, (qn__packing)(w->mode & 15), n, zero + g,
                 w->groups);
    for (int64_t i = 0; i < n * w->groups && !raw; i++) zero[i] = (uint8_t)((zero[i] + 1) & mask);
  }
  if (p->perm) {
    bool trivial = true;
    int32_t *perm = (int32_t *)(uintptr_t)p->perm;
    uint8_t *row = malloc((size_t)k);
    qn_status s = row ? order(w, perm, &trivial) : qn__fail(QN_E_NOMEM, "%s: no memory", w->pub.name);
    for (int64_t i = 0; s == QN_OK && !trivial && i < n; i++) {
      memcpy(row, codes + i * k, (size_t)k);
      for (int64_t j = 0; j < k; j++) codes[i * k + j] = row[perm[j]];
    }
    free(row);
    if (s != QN_OK) {
      qn_planes_free(p);
      return s;
    }
    if (trivial) p->perm = NULL;
  }
  *out = p;
  return QN_OK;
}

const qn__dialect qn__gptq = {"gptq", ".qweight", {"!.qzeros", "!.scales", "!.g_idx"}, ".weight", NULL, claim, read};
