/* timing.c - see timing.h. */
#include "timing.h"
#include "clock.h"
#include "config.h"
#include "fail.h"
#include <stdlib.h>
#include <string.h>

typedef struct pass {
  qn__decoder *d;
  qn__session *s;
  int64_t batch, before, n, hidden;
  int32_t *ids;    /* [batch, n] */
  float *h, *last; /* [batch, n, hidden], [batch, hidden] */
  float *logits;   /* [batch, vocabulary] */
  int n_sites;
  double *site; /* [n_sites]: seconds that each took in the passes that count */
} pass;

static qn_status allocate(pass *p, int64_t vocabulary) {
  size_t rows = (size_t)(p->batch * p->n);
  p->ids = malloc(rows * sizeof *p->ids);
  p->h = malloc(rows * (size_t)p->hidden * sizeof *p->h);
  p->last = malloc((size_t)(p->batch * p->hidden) * sizeof *p->last);
  p->logits = malloc((size_t)(p->batch * vocabulary) * sizeof *p->logits);
  p->site = calloc((size_t)p->n_sites, sizeof *p->site);
  if (!p->ids || !p->h || !p->last || !p->logits || !p->site) return qn__fail(QN_E_NOMEM, "a pass of %zu tokens", rows);
  for (size_t i = 0; i < rows; i++) p->ids[i] = (int32_t)(i * 7919 % (size_t)vocabulary);
  return QN_OK;
}

static qn_status once(pass *p) {
  QN_TRY(qn__session_step(p->s, p->ids, p->n, p->h));
  for (int64_t i = 0; i < p->batch; i++)
    memcpy(p->last + i * p->hidden, p->h + ((i + 1) * p->n - 1) * p->hidden, (size_t)p->hidden * sizeof *p->h);
  QN_TRY(qn__decoder_logits(p->d, p->last, p->batch, p->logits));
  return QN_OK;
}

/* The same tokens in the cache as before, none known to the model. A state that only goes forward begins anew. */
static qn_status back(pass *p) {
  if (!qn__session_rewind(p->s, p->before)) return QN_OK;
  QN_TRY(qn__session_rewind(p->s, 0));
  return qn__session_skip(p->s, p->before);
}

/* Seconds of the sites so far, added or taken away. */
static void count(pass *p, double sign) {
  for (int i = 0; i < p->n_sites; i++) p->site[i] += sign * qn__decoder_seconds(p->d, i);
}

static qn_status measure(pass *p, qn__timing *out) {
  double spent = 0;
  int passes = 0;
  QN_TRY(back(p));
  QN_TRY(once(p));
  while (spent < 0.03 && passes < 1000) {
    QN_TRY(back(p));
    count(p, -1);
    double start = qn__now();
    QN_TRY(once(p));
    spent += qn__now() - start;
    count(p, 1);
    passes++;
  }
  *out = (qn__timing){.seconds = spent / passes};
  for (int i = 0; i < p->n_sites; i++) {
    p->site[i] /= passes;
    out->linear += p->site[i];
  }
  return QN_OK;
}

qn_status qn__time_pass(qn__decoder *d, int64_t batch, int64_t before, int64_t n, qn__timing *out, double *site) {
  const qn__config *c = qn__decoder_config(d);
  const qn__site *sites;
  pass p = {.d = d, .batch = batch, .before = before, .n = n, .hidden = c->hidden};
  if (before < 0 || n < 1 || before > INT64_MAX - n)
    return qn__fail(QN_E_ARG, "a pass of %jd tokens after %jd; at least 1 after 0", (intmax_t)n, (intmax_t)before);
  p.n_sites = qn__decoder_sites(d, &sites);
  qn_status s = qn__session_new(d, batch, before + n, &p.s);
  if (s == QN_OK) s = allocate(&p, c->vocab);
  if (s == QN_OK) s = measure(&p, out);
  if (s == QN_OK && site) memcpy(site, p.site, (size_t)p.n_sites * sizeof *site);
  free(p.ids);
  free(p.h);
  free(p.last);
  free(p.logits);
  free(p.site);
  qn__session_free(p.s);
  return s;
}
