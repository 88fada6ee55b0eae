/* evaluate.h - a model, its windows, and the scores of their tokens.
 *
 * Windows go through the decoder in passes of some 2048 tokens. After each pass its scores are in the log, so a killed
 * run goes on from there. Passes are always the same windows together, whatever was known before: results agree bit for
 * bit with those of a run that was not interrupted. */
#ifndef QN_EVAL_EVALUATE_H
#define QN_EVAL_EVALUATE_H
#include "log.h"
#include "reference_model.h"
#include "score.h"
#include "task.h"

typedef struct qn__evaluate_options {
  const char *log; /* path; NULL: nothing is kept */
  const char *key; /* of the candidate: what it computes follows from this text */
  int64_t stop;    /* the first so many windows or items only, windows rounded up to whole passes; 0: all */
  int threads;     /* that score, 0: one for each CPU. The decoder has its own */
  bool (*progress)(void *ud, int64_t done, int64_t total); /* false: end here, QN_OK with what there is */
  void *ud;
} qn__evaluate_options;

/* The windows that are scored, in the order of qn__windows. */
typedef struct qn__evaluated {
  qn__window_score *window; /* [n] */
  int64_t n, computed;      /* computed: of these now, the others were in the log */
  qn__log log;              /* holds the tokens */
  size_t *at;
} qn__evaluated;

/* reference: of the same windows; NULL: nothing is compared.
 * QN_E_ARG: reference and decoder have other vocabularies, the reference other windows or logits that are no finite
 * numbers; and what qn__decoder_hidden, qn__log_open and qn__reference_hidden return. */
qn_status qn__evaluate(qn__decoder *d, const qn__windows *w, qn__reference *reference,
                       const qn__evaluate_options *options, qn__evaluated *out);
void qn__evaluated_free(qn__evaluated *e); /* leaves it empty */

/* The answers to all choices of the items 0 .. n - 1, item after item. Choices whose inputs agree are seen once. */
typedef struct qn__answered {
  int64_t n, computed;
  qn__log log;
  size_t *at;
} qn__answered;

qn_status qn__evaluate_task(qn__decoder *d, const qn__task *task, const qn__evaluate_options *options,
                            qn__answered *out);
void qn__answered_free(qn__answered *a);                            /* leaves it empty */
const qn__answer *qn__answers(const qn__answered *a, int64_t item); /* [choices] */

/* Rows of logits that are made at a time: 16 MB of them, at most 256. */
int64_t qn__logit_rows(int64_t vocab);
#endif
