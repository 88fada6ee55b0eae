/* summary.c - scores of tokens into means with errors, and percentiles: see score.h. */
#include "fail.h"
#include "score.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

const double qn__confidence_edge[QN_CONFIDENCES + 1] = {0, .25, .5, .75, .95, 1};
const double qn__percentile[QN_PERCENTILES] = {1, 5, 10, 50, 90, 95, 99, 99.9, 100};

/* ---- What is summed up ------------------------------------------------------------------------------------------- */

static double nll(const qn__token_score *t) { return (double)t->nll; }
static double nll_reference(const qn__token_score *t) { return (double)t->nll_reference; }
static double delta_nll(const qn__token_score *t) { return (double)t->nll - (double)t->nll_reference; }
static double kl(const qn__token_score *t) { return (double)t->kl; }
static double greedy(const qn__token_score *t) { return t->greedy; }
static double same_top(const qn__token_score *t) { return t->same_top; }
static double delta_p(const qn__token_score *t) { return exp(-nll(t)) - exp(-nll_reference(t)); }
static double delta_p_square(const qn__token_score *t) { return delta_p(t) * delta_p(t); }

typedef double (*measure)(const qn__token_score *t);

static int confidence_of(const qn__token_score *t) {
  int i = QN_CONFIDENCES - 1;
  while (i && t->confidence < (float)qn__confidence_edge[i]) i--;
  return i;
}

static bool belongs(qn__part p, const qn__window_score *w, int64_t i) {
  return (p.domain < 0 || p.domain == w->domain) && (p.quartile < 0 || p.quartile == i * QN_QUARTILES / w->n) &&
         (p.confidence < 0 || p.confidence == confidence_of(&w->token[i]));
}

/* ---- The tokens of a part ---------------------------------------------------------------------------------------- */

/* Tokens of one window after those of the other; count[i] of them are of cluster i, which is a window of domain[i]. */
typedef struct chosen {
  const qn__token_score **token;
  double *sum, *value, *share;
  qn__estimate *kind;
  int64_t *count, *some;
  int *domain, domains;
  size_t clusters, n;
} chosen;

static void release(chosen *c) {
  free(c->token);
  free(c->sum);
  free(c->value);
  free(c->share);
  free(c->kind);
  free(c->count);
  free(c->some);
  free(c->domain);
}

static qn_status allocate(chosen *c, size_t tokens, size_t windows, size_t domains) {
  *c = (chosen){.token = calloc(tokens + 1, sizeof *c->token),
                .sum = calloc(windows + 1, sizeof *c->sum),
                .value = calloc(tokens + 1, sizeof *c->value),
                .share = calloc(domains + 1, sizeof *c->share),
                .kind = calloc(domains + 1, sizeof *c->kind),
                .count = calloc(windows + 1, sizeof *c->count),
                .some = calloc(windows + 1, sizeof *c->some),
                .domain = calloc(windows + 1, sizeof *c->domain),
                .domains = (int)domains};
  bool all = c->token && c->sum && c->value && c->share && c->kind && c->count && c->some && c->domain;
  return all ? QN_OK : qn__fail(QN_E_NOMEM, "scores of %zu tokens", tokens);
}

static qn_status choose(const qn__window_score *window, size_t n, qn__part part, chosen *c) {
  size_t all = 0, domains = 0;
  for (size_t w = 0; w < n; w++) {
    all += (size_t)window[w].n;
    if ((size_t)window[w].domain >= domains) domains = (size_t)window[w].domain + 1;
  }
  QN_TRY(allocate(c, all, n, domains));
  for (size_t w = 0; w < n; w++) {
    size_t before = c->n;
    for (int64_t i = 0; i < window[w].n; i++)
      if (belongs(part, &window[w], i)) c->token[c->n++] = &window[w].token[i];
    if (c->n == before) continue;
    c->domain[c->clusters] = window[w].domain;
    c->count[c->clusters++] = (int64_t)(c->n - before);
  }
  return QN_OK;
}

/* The mean over the tokens of domain d, whose share of all is put into *share. */
static qn__estimate mean_of(chosen *c, int d, double *share) {
  size_t n = 0;
  int64_t tokens = 0;
  for (size_t w = 0; w < c->clusters; w++) {
    if (c->domain[w] != d) continue;
    c->value[n] = c->sum[w];
    tokens += c->some[n++] = c->count[w];
  }
  *share = (double)tokens / (double)c->n;
  return qn__mean(c->value, c->some, n);
}

static qn__estimate mean(chosen *c, measure of) {
  size_t at = 0, kinds = 0;
  for (size_t w = 0; w < c->clusters; w++) {
    c->sum[w] = 0;
    for (int64_t i = 0; i < c->count[w]; i++) c->sum[w] += of(c->token[at++]);
  }
  for (int d = 0; d < c->domains; d++) {
    c->kind[kinds] = mean_of(c, d, &c->share[kinds]);
    kinds += c->share[kinds] > 0;
  }
  return qn__mix(c->kind, c->share, kinds);
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void percentiles(chosen *c, measure of, double out[QN_PERCENTILES]) {
  for (size_t i = 0; i < c->n; i++) c->value[i] = of(c->token[i]);
  qsort(c->value, c->n, sizeof *c->value, ascending);
  for (int p = 0; p < QN_PERCENTILES; p++) {
    double at = qn__percentile[p] / 100 * (double)(c->n - 1);
    size_t below = (size_t)at, above = below + 1 < c->n ? below + 1 : below;
    out[p] = c->value[below] + (at - (double)below) * (c->value[above] - c->value[below]);
  }
}

/* ---- The summary ------------------------------------------------------------------------------------------------- */

static void fill(chosen *c, qn__summary *out) {
  out->nll = mean(c, nll);
  out->greedy = mean(c, greedy);
  out->nll_reference = mean(c, nll_reference);
  out->delta_nll = mean(c, delta_nll);
  out->delta_nll_unpaired = qn__unpaired(out->nll, out->nll_reference);
  out->kl = mean(c, kl);
  out->same_top = mean(c, same_top);
  out->delta_p = mean(c, delta_p);
  out->delta_p_rms = sqrt(mean(c, delta_p_square).mean);
  percentiles(c, kl, out->kl_at);
  percentiles(c, delta_p, out->delta_p_at);
}

qn_status qn__summarize(const qn__window_score *window, size_t n, qn__part part, qn__summary *out) {
  chosen c;
  qn_status s = choose(window, n, part, &c);
  *out = (qn__summary){.tokens = (int64_t)c.n, .windows = (int64_t)c.clusters};
  for (size_t i = 0; i < c.n; i++) {
    out->broken_tokens += c.token[i]->not_finite != 0;
    out->broken_logits += c.token[i]->not_finite;
  }
  if (s == QN_OK && c.n && !out->broken_tokens) fill(&c, out);
  release(&c);
  return s;
}
