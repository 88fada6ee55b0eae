/* claim.c - from stored tensors to weights: each dialect claims the groups of tensors that it understands. */
#include "model.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const qn__dialect *const qn__dialects[] = {&qn__gptq, &qn__awq, &qn__ct_packed, &qn__ggml, &qn__plain, NULL};

/* The stored tensor named stem + suffix. */
static const qn_raw *sibling(const qn_model *m, const char *stem, int stem_length, const char *suffix) {
  char name[1024];
  int n = snprintf(name, sizeof name, "%.*s%s", stem_length, stem, suffix);
  return n < (int)sizeof name ? qn_model_find_raw(m, name) : NULL;
}

/* Can dialect d make a weight of stored tensor s? Fills w's parts. */
static bool matches(const qn_model *m, const qn__dialect *d, const qn__stored *s, qn__weight *w) {
  size_t n = strlen(s->pub.name), k = strlen(d->key);
  if (n < k || strcmp(s->pub.name + n - k, d->key)) return false;
  *w = (qn__weight){.dialect = d, .part = {&s->pub}, .pub = {.dialect = d->name, .raw = &s->pub, .slices = 1}};
  for (int i = 0; i + 1 < QN__PARTS && d->part[i]; i++) {
    bool needed = *d->part[i] == '!';
    w->part[i + 1] = sibling(m, s->pub.name, (int)(n - k), d->part[i] + needed);
    if (needed && !w->part[i + 1]) return false;
  }
  return !d->match || d->match(m, w);
}

static bool is_linear(const char *name) {
  static const char *const not_linear[] = {"embed", "token_embd", "norm", "wte", "wpe", "position"};
  for (size_t i = 0; i < QN_COUNT(not_linear); i++)
    if (strstr(name, not_linear[i])) return false;
  return true;
}

static qn_status finish(qn_model *m, qn__weight *w) {
  const char *name = w->part[0]->name;
  size_t stem = strlen(name) - strlen(w->dialect->key);
  w->pub.name = qn__arena_print(&m->arena, "%.*s%s", (int)stem, name, w->dialect->weight);
  if (!w->pub.name) return qn__fail(QN_E_NOMEM, "no memory for a weight's name");
  for (int i = 0; i < QN__PARTS; i++)
    if (w->part[i]) {
      qn__stored *s = (qn__stored *)(uintptr_t)w->part[i];
      s->claimed = true;
      w->pub.bytes += s->pub.bytes;
    }
  qn_status s = w->dialect->claim(m, w);
  if (s == QN_OK) w->pub.format = *w->format ? w->format : NULL; /* weights never move */
  else if (s == QN_E_NOMEM) return s;
  else w->pub.refusal = qn__arena_print(&m->arena, "%s", qn__errmsg());
  w->pub.linear = (w->pub.format || w->pub.refusal) && is_linear(w->pub.name);
  return QN_OK;
}

qn_status qn__model_claim(qn_model *m) {
  m->weight = calloc(m->n_stored + 1, sizeof *m->weight);
  if (!m->weight) return qn__fail(QN_E_NOMEM, "no memory for %zu weights", m->n_stored);
  /* Quantized weights first, so that the tensors beside their codes are claimed before the plain dialect sees them. */
  for (int plain = 0; plain < 2; plain++)
    for (size_t i = 0; i < m->n_stored; i++)
      for (const qn__dialect *const *d = qn__dialects; *d; d++) {
        qn__weight *w = &m->weight[m->n_weights];
        if (m->stored[i].claimed || (*d == &qn__plain) != plain || !matches(m, *d, &m->stored[i], w)) continue;
        QN_TRY(finish(m, w));
        m->n_weights++;
        break;
      }
  return QN_OK;
}

/* ---- What dialects use
 * ------------------------------------------------------------------------------------------------ */

qn_status qn__part_is(const qn__weight *w, int i, const char *dtypes, int n_dims, const int64_t *dim) {
  const qn_raw *p = w->part[i];
  if (!p)
    return qn__fail(QN_E_FORMAT, "%s: the tensor %s beside it is missing", w->part[0]->name, w->dialect->part[i - 1]);
  if (!strstr(dtypes, p->dtype))
    return qn__fail(QN_E_FORMAT, "%s: dtype %s; %s is expected", p->name, p->dtype, dtypes);
  bool ok = p->n_dims == n_dims;
  for (int d = 0; ok && d < n_dims; d++) ok = dim[d] < 0 || p->dim[d] == dim[d];
  if (ok) return QN_OK;
  return qn__fail(QN_E_FORMAT, "%s: %d dimensions starting %lld x %lld; %d starting %lld x %lld are expected", p->name,
                  p->n_dims, (long long)p->dim[0], (long long)p->dim[1], n_dims, (long long)(n_dims ? dim[0] : 0),
                  (long long)(n_dims > 1 ? dim[1] : 0));
}

qn_status qn__part_float(const qn__weight *w, int i, int n_dims, const int64_t *dim) {
  return qn__part_is(w, i, "F16 BF16 F32", n_dims, dim);
}

const char *qn__grain(const qn__weight *w, char out[24]) {
  if (w->group) snprintf(out, 24, "g%lld", (long long)w->group);
  else snprintf(out, 24, "row");
  return out;
}

qn_status qn__spell(qn__weight *w, const char *base, const char *grain, const char *zero, qn_type scale) {
  w->scale = scale;
  const char *type = scale == QN_T_F16 || scale == QN_T_NONE ? "" : qn_type_name(scale);
  snprintf(w->format, sizeof w->format, "%s%s%s%s%s%s%s", base, *grain ? "." : "", grain, *zero ? "." : "", zero,
           *type ? "." : "", type);
  return QN_OK;
}
