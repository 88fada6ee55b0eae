/* windows.c - see windows.h. */
#include "windows.h"
#include "fail.h"
#include "hash.h"
#include <stdlib.h>
#include <string.h>

/* How a text is cut: window i is the BOS, if there is one, then `taken` ids from i * stride on. */
typedef struct cut {
  int64_t available, stride, taken;
} cut;

static qn_status plan(const qn__domain *d, const qn__window_options *o, cut *out) {
  const qn__ids *x = d->ids;
  int64_t taken = o->length - (o->bos >= 0), stride = o->half ? o->length : taken;
  if (x->cols && x->cols != o->length)
    return qn__fail(QN_E_ARG, "%s: it holds windows of %jd ids, and windows of %jd are wanted: --ctx %jd", d->name,
                    (intmax_t)x->cols, (intmax_t)o->length, (intmax_t)x->cols);
  if (x->cols) *out = (cut){x->rows, x->cols, x->cols};
  else *out = (cut){x->n < taken ? 0 : (x->n - taken) / stride + 1, stride, taken};
  if (out->available > 1) return QN_OK;
  return qn__fail(QN_E_ARG, "%s: its %jd ids are fewer than two windows of %jd; take a longer text or a smaller --ctx",
                  d->name, (intmax_t)x->n, (intmax_t)o->length);
}

static int64_t chosen(const cut *c, const qn__steps *s) {
  int64_t end = s->end < c->available ? s->end : c->available;
  return end > s->first ? (end - s->first - 1) / s->step + 1 : 0;
}

static qn_status count(const qn__domain *domain, int n, const qn__window_options *o, cut *cuts, int64_t *total) {
  for (int d = 0; d < n; d++) {
    QN_TRY(plan(&domain[d], o, &cuts[d]));
    int64_t some = chosen(&cuts[d], &o->steps);
    if (!some)
      return qn__fail(QN_E_ARG, "%s: it has %jd windows of %jd ids, and the first that is wanted is number %jd",
                      domain[d].name, (intmax_t)cuts[d].available, (intmax_t)o->length, (intmax_t)o->steps.first);
    *total += some;
  }
  return QN_OK;
}

static void put(qn__windows *w, int domain, const qn__ids *ids, const cut *c, int64_t number, int32_t bos) {
  int32_t *to = w->ids + w->n * w->length;
  if (c->taken < w->length) *to++ = bos;
  memcpy(to, ids->id + number * c->stride, (size_t)c->taken * sizeof *to);
  w->domain[w->n++] = domain;
}

static void fill(const qn__domain *domain, int n, const qn__window_options *o, const cut *cuts, int64_t total,
                 qn__windows *w) {
  for (int64_t turn = 0; w->n < total; turn++)
    for (int d = 0; d < n; d++)
      if (turn < chosen(&cuts[d], &o->steps))
        put(w, d, domain[d].ids, &cuts[d], o->steps.first + turn * o->steps.step, o->bos);
}

/* Of the ids and of what is scored; the texts' names are nobody's business. */
static void name_it(qn__windows *w) {
  struct {
    int64_t n, length, first;
    uint8_t ids[QN_HASH_BYTES], domain[QN_HASH_BYTES];
  } all = {w->n, w->length, w->first, {0}, {0}};
  qn__hash128(w->ids, (size_t)(w->n * w->length) * sizeof *w->ids, all.ids);
  qn__hash128(w->domain, (size_t)w->n * sizeof *w->domain, all.domain);
  qn__hash_hex(&all, sizeof all, w->hash);
}

qn_status qn__windows_cut(const qn__domain *domain, int n, const qn__window_options *o, qn__windows *out) {
  *out = (qn__windows){.length = o->length, .first = o->half ? o->length / 2 : 0};
  if (o->length < 2 + o->half || o->length > 1 << 20)
    return qn__fail(QN_E_ARG, "windows of %jd ids: %d to 1048576 can be evaluated", (intmax_t)o->length, 2 + o->half);
  if (n < 1) return qn__fail(QN_E_ARG, "no text is given");
  int64_t total = 0;
  cut *cuts = calloc((size_t)n + 1, sizeof *cuts);
  qn_status s = cuts ? count(domain, n, o, cuts, &total) : qn__fail(QN_E_NOMEM, "%d texts", n);
  if (s == QN_OK) {
    out->ids = calloc((size_t)(total * o->length) + 1, sizeof *out->ids);
    out->domain = calloc((size_t)total + 1, sizeof *out->domain);
    if (!out->ids || !out->domain) s = qn__fail(QN_E_NOMEM, "%jd windows", (intmax_t)total);
  }
  if (s == QN_OK) fill(domain, n, o, cuts, total, out), name_it(out);
  else qn__windows_free(out);
  free(cuts);
  return s;
}

void qn__windows_free(qn__windows *w) {
  free(w->ids);
  free(w->domain);
  *w = (qn__windows){0};
}
