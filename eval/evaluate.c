/* evaluate.c - see evaluate.h. */
#include "evaluate.h"
#include "config.h"
#include "cpu.h"
#include "fail.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PASS = 2048 }; /* tokens */

typedef struct job {
  qn__decoder *d;
  const qn__windows *w;
  qn__reference *reference;
  qn_pool *pool;
  qn__log *log;
  int64_t hidden, vocab, scored;
  int64_t windows, rows; /* of a pass; of logits at a time */
  float *h, *h_reference, *logits, *logits_reference;
  int32_t *right;
} job;

/* ---- One pass ---------------------------------------------------------------------------------------------------- */

static qn__token_score *tokens(const job *j, int64_t window) {
  return (qn__token_score *)(void *)(j->log->data + j->log->at[window]);
}

/* Rows begin .. end - 1 of the pass that begins with window `first`. */
static qn_status score_rows(job *j, int64_t first, int64_t begin, int64_t end) {
  int64_t n = end - begin;
  for (int64_t i = 0; i < n; i++) {
    int64_t window = first + (begin + i) / j->scored, at = j->w->first + (begin + i) % j->scored;
    j->right[i] = j->w->ids[window * j->w->length + at + 1];
  }
  QN_TRY(qn__decoder_logits(j->d, j->h + begin * j->hidden, n, j->logits));
  if (j->reference)
    QN_TRY(qn__decoder_logits(qn__reference_decoder(j->reference), j->h_reference + begin * j->hidden, n,
                              j->logits_reference));
  return qn__score_rows(j->pool, j->logits_reference, j->logits, j->right, n, j->vocab, tokens(j, first) + begin);
}

static qn_status pass(job *j, int64_t first, int64_t count) {
  int64_t all = count * j->scored;
  QN_TRY(qn__scored_hidden(j->d, j->w, first, count, j->h));
  if (j->reference) QN_TRY(qn__reference_hidden(j->reference, first, count, j->h_reference));
  for (int64_t row = 0; row < all; row += j->rows)
    QN_TRY(score_rows(j, first, row, row + j->rows < all ? row + j->rows : all));
  return qn__log_put(j->log, first, count);
}

static bool known(const job *j, int64_t first, int64_t count) {
  for (int64_t i = first; i < first + count; i++)
    if (!j->log->done[i]) return false;
  return true;
}

static qn_status run(job *j, const qn__evaluate_options *o, int64_t stop, qn__evaluated *out) {
  for (int64_t first = 0; first < stop; first += j->windows) {
    int64_t count = stop - first < j->windows ? stop - first : j->windows;
    if (!known(j, first, count)) {
      QN_TRY(pass(j, first, count));
      out->computed += count;
    }
    out->n = first + count;
    if (o->progress && !o->progress(o->ud, out->n, stop)) break;
  }
  return QN_OK;
}

/* ---- Before and after -------------------------------------------------------------------------------------------- */

static qn_status compare(const job *j) {
  if (!j->reference) return QN_OK;
  int64_t vocab = qn__decoder_config(qn__reference_decoder(j->reference))->vocab;
  if (vocab != j->vocab)
    return qn__fail(QN_E_ARG, "the model has a vocabulary of %jd, the reference one of %jd: they cannot be compared",
                    (intmax_t)j->vocab, (intmax_t)vocab);
  if (strcmp(qn__reference_windows(j->reference)->hash, j->w->hash))
    return qn__fail(QN_E_ARG, "the reference is of other windows");
  return QN_OK;
}

static qn_status allocate(job *j) {
  size_t states = (size_t)(j->windows * j->scored * j->hidden), logits = (size_t)(j->rows * j->vocab);
  j->h = malloc(states * sizeof *j->h);
  j->logits = malloc(logits * sizeof *j->logits);
  j->right = malloc((size_t)j->rows * sizeof *j->right);
  if (j->reference) {
    j->h_reference = malloc(states * sizeof *j->h);
    j->logits_reference = malloc(logits * sizeof *j->logits);
  }
  bool all = j->h && j->logits && j->right && (!j->reference || (j->h_reference && j->logits_reference));
  return all ? QN_OK : qn__fail(QN_E_NOMEM, "hidden states of %jd windows", (intmax_t)j->windows);
}

static void release(job *j) {
  qn__pool_free(j->pool);
  free(j->h);
  free(j->h_reference);
  free(j->logits);
  free(j->logits_reference);
  free(j->right);
}

static qn_status open_log(const job *j, const qn__evaluate_options *o, qn__evaluated *out) {
  char *key = NULL;
  out->at = calloc((size_t)j->w->n + 1, sizeof *out->at);
  int made = asprintf(&key, "tokens of %s; windows %s; reference %s", o->key ? o->key : "", j->w->hash,
                      j->reference ? qn__reference_hash(j->reference) : "none");
  if (!out->at || made < 0) return free(made < 0 ? NULL : key), qn__fail(QN_E_NOMEM, "%jd windows", (intmax_t)j->w->n);
  for (int64_t i = 0; i <= j->w->n; i++) out->at[i] = (size_t)(i * j->scored) * sizeof(qn__token_score);
  qn_status s = qn__log_open(&out->log, o->log, key, j->w->n, out->at);
  free(key);
  return s;
}

static qn_status list_windows(const job *j, qn__evaluated *out) {
  out->window = calloc((size_t)out->n + 1, sizeof *out->window);
  if (!out->window) return qn__fail(QN_E_NOMEM, "%jd windows", (intmax_t)out->n);
  for (int64_t i = 0; i < out->n; i++) out->window[i] = (qn__window_score){tokens(j, i), j->scored, j->w->domain[i]};
  return QN_OK;
}

static int64_t at_most(int64_t x, int64_t most) { return x < 1 ? 1 : x < most ? x : most; }

int64_t qn__logit_rows(int64_t vocab) { return at_most((1 << 22) / vocab, 256); }

qn_status qn__evaluate(qn__decoder *d, const qn__windows *w, qn__reference *reference, const qn__evaluate_options *o,
                       qn__evaluated *out) {
  const qn__config *c = qn__decoder_config(d);
  *out = (qn__evaluated){.log = {.fd = -1}};
  job j = {.d = d,
           .w = w,
           .reference = reference,
           .log = &out->log,
           .hidden = c->hidden,
           .vocab = c->vocab,
           .scored = qn__windows_scored(w),
           .windows = at_most(PASS / w->length, w->n),
           .rows = qn__logit_rows(c->vocab)};
  int64_t stop = o->stop ? (o->stop + j.windows - 1) / j.windows * j.windows : w->n;
  qn_status s = compare(&j);
  if (s == QN_OK) s = open_log(&j, o, out);
  if (s == QN_OK) s = allocate(&j);
  if (s == QN_OK) s = qn__pool_new(NULL, o->threads ? o->threads : qn__cpu_count(), &j.pool);
  if (s == QN_OK) s = run(&j, o, at_most(stop, w->n), out);
  if (s == QN_OK) s = list_windows(&j, out);
  release(&j);
  if (s != QN_OK) qn__evaluated_free(out);
  return s;
}

void qn__evaluated_free(qn__evaluated *e) {
  qn__log_close(&e->log);
  free(e->window);
  free(e->at);
  *e = (qn__evaluated){.log = {.fd = -1}};
}
