/* evaluate_task.c - the choices of a task through a decoder: see evaluate.h. An item is one pass, its choices filled up
 * to the longest: what follows a token does not change it. Only ropes whose frequencies follow from the length of a
 * pass (dynamic, longrope) take that of the longest choice for all. */
#include "config.h"
#include "cpu.h"
#include "evaluate.h"
#include "fail.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct job {
  qn__decoder *d;
  const qn__task *task;
  qn_pool *pool;
  qn__log *log;
  int64_t hidden, vocab, rows; /* rows: of logits at a time */
  int32_t *ids;                /* [choices, longest] */
  float *h;                    /* [choices, longest, hidden] */
  float *logits;               /* [rows, vocab] */
  qn__token_score *token;      /* [longest] */
} job;

const qn__answer *qn__answers(const qn__answered *a, int64_t item) {
  return (const qn__answer *)(const void *)(a->log.data + a->at[item]);
}

/* Put the inputs of an item's choices below each other, equal ones once; row[c] is where choice c went. */
static int64_t lay_out(job *j, const qn__item *x, int64_t length, int row[QN_CHOICES]) {
  int64_t rows = 0;
  for (int c = 0; c < x->n; c++) {
    const qn__choice *a = &x->choice[c];
    row[c] = (int)rows;
    for (int b = 0; b < c && row[c] == rows; b++)
      if (x->choice[b].n == a->n && !memcmp(x->choice[b].ids, a->ids, (size_t)(a->n - 1) * sizeof *a->ids))
        row[c] = row[b];
    if (row[c] < rows) continue;
    int32_t *to = j->ids + rows++ * length;
    for (int64_t i = 0; i < length; i++) to[i] = a->ids[i < a->n - 1 ? i : 0];
  }
  return rows;
}

static qn_status answer(job *j, const qn__choice *c, const float *h, qn__answer *out) {
  for (int64_t i = c->context; i < c->n; i += j->rows) {
    int64_t n = c->n - i < j->rows ? c->n - i : j->rows;
    QN_TRY(qn__decoder_logits(j->d, h + (i - 1) * j->hidden, n, j->logits));
    QN_TRY(qn__score_rows(j->pool, NULL, j->logits, &c->ids[i], n, j->vocab, &j->token[i - c->context]));
  }
  *out = qn__answer_of(j->token, c->n - c->context);
  return QN_OK;
}

static qn_status ask(job *j, int64_t number) {
  const qn__item *x = &j->task->item[number];
  qn__answer *out = (qn__answer *)(void *)(j->log->data + j->log->at[number]);
  int64_t length = 0;
  int row[QN_CHOICES];
  for (int c = 0; c < x->n; c++) length = x->choice[c].n - 1 > length ? x->choice[c].n - 1 : length;
  int64_t rows = lay_out(j, x, length, row);
  QN_TRY(qn__decoder_hidden(j->d, j->ids, rows, length, j->h));
  for (int c = 0; c < x->n; c++) QN_TRY(answer(j, &x->choice[c], j->h + row[c] * length * j->hidden, &out[c]));
  return qn__log_put(j->log, number, 1);
}

static qn_status run(job *j, const qn__evaluate_options *o, int64_t stop, qn__answered *out) {
  for (int64_t i = 0; i < stop; i++) {
    if (!j->log->done[i]) {
      QN_TRY(ask(j, i));
      out->computed++;
    }
    out->n = i + 1;
    if (o->progress && !o->progress(o->ud, out->n, stop)) break;
  }
  return QN_OK;
}

static qn_status open_log(const job *j, const qn__evaluate_options *o, qn__answered *out) {
  char *key = NULL;
  out->at = calloc((size_t)j->task->n + 1, sizeof *out->at);
  int made = asprintf(&key, "answers of %s; task %s", o->key ? o->key : "", j->task->hash);
  if (!out->at || made < 0) return free(made < 0 ? NULL : key), qn__fail(QN_E_NOMEM, "%jd items", (intmax_t)j->task->n);
  for (int64_t i = 0; i < j->task->n; i++)
    out->at[i + 1] = out->at[i] + (size_t)j->task->item[i].n * sizeof(qn__answer);
  qn_status s = qn__log_open(&out->log, o->log, key, j->task->n, out->at);
  free(key);
  return s;
}

static qn_status allocate(job *j) {
  int most = 0;
  for (int64_t i = 0; i < j->task->n; i++) most = j->task->item[i].n > most ? j->task->item[i].n : most;
  size_t rows = (size_t)most * (size_t)j->task->longest;
  j->ids = malloc(rows * sizeof *j->ids);
  j->h = malloc(rows * (size_t)j->hidden * sizeof *j->h);
  j->logits = malloc((size_t)(j->rows * j->vocab) * sizeof *j->logits);
  j->token = malloc((size_t)j->task->longest * sizeof *j->token);
  return j->ids && j->h && j->logits && j->token ? QN_OK : qn__fail(QN_E_NOMEM, "%zu rows of hidden states", rows);
}

static void release(job *j) {
  qn__pool_free(j->pool);
  free(j->ids);
  free(j->h);
  free(j->logits);
  free(j->token);
}

qn_status qn__evaluate_task(qn__decoder *d, const qn__task *task, const qn__evaluate_options *o, qn__answered *out) {
  const qn__config *c = qn__decoder_config(d);
  *out = (qn__answered){.log = {.fd = -1}};
  job j = {
      .d = d, .task = task, .log = &out->log, .hidden = c->hidden, .vocab = c->vocab, .rows = qn__logit_rows(c->vocab)};
  qn_status s = open_log(&j, o, out);
  if (s == QN_OK) s = allocate(&j);
  if (s == QN_OK) s = qn__pool_new(NULL, o->threads ? o->threads : qn__cpu_count(), &j.pool);
  if (s == QN_OK) s = run(&j, o, o->stop && o->stop < task->n ? o->stop : task->n, out);
  release(&j);
  if (s != QN_OK) qn__answered_free(out);
  return s;
}

void qn__answered_free(qn__answered *a) {
  qn__log_close(&a->log);
  free(a->at);
  *a = (qn__answered){.log = {.fd = -1}};
}
