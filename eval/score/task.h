/* task.h - questions whose answers are judged by their likelihood: items of a file, and what a model made of them.
 *
 * The rules are those of lm-evaluation-harness, so that numbers compare. An item is a context and its continuations. A
 * choice is joined to the context by a space. Spaces at the end of the context move to the continuation; the two are
 * encoded together, and what goes beyond the ids of the context alone is the continuation. An item that is longer than
 * the model sees loses ids from the left, but not its BOS, and is counted.
 *
 * Files:
 *     NAME.jsonl   {"context": text, "choices": [text…], "gold": number or letter} or {"context": text,
 *                  "continuation": text}; "delimiter": text joins them instead of the space. Other names for context:
 *                  query, question, ctx, prompt; for choices: endings, options, or {"text": […], "label": […]}; for
 *                  gold: label, answer, answerKey: counted from 0, a letter, or one of choices.label
 *     NAME.csv     MMLU's: question, A, B, C, D, letter. The choices are listed below the question, and the letter is
 *                  what is scored */
#ifndef QN_SCORE_TASK_H
#define QN_SCORE_TASK_H
#include "score.h"
#include "task_file.h"

/* Text as ids, without a BOS: *ids is freed with free(). The context of an encoder is the task's maker's. */
typedef qn_status (*qn__encode)(void *ud, const char *text, size_t size, int32_t **ids, int64_t *n);

typedef struct qn__choice {
  int32_t *ids; /* context, continuation */
  int64_t n, context;
  int64_t characters, bytes; /* of the choice as it is written, for acc_norm and acc_bytes */
} qn__choice;

typedef struct qn__item {
  int64_t line;
  int n, gold; /* choices; the right one. n = 1: a continuation, right if it is what the model would say */
  bool truncated;
  qn__choice *choice;
} qn__item;

typedef struct qn__task {
  qn__item *item;
  int64_t n, truncated, longest; /* items; of these, cut to fit; ids of the longest choice */
  char hash[33];                 /* of the ids and of the right answers */
} qn__task;

typedef struct qn__task_options {
  qn__encode encode;
  void *ud;
  int64_t context; /* ids that the model may see, the last of a choice not counted */
  int32_t bos;     /* -1: none */
} qn__task_options;

/* All items of a file. QN_E_IO; QN_E_FORMAT: the first line that is no item, and why; QN_E_NOMEM. */
qn_status qn__task_read(const char *path, const qn__task_options *options, qn__task *out);
void qn__task_free(qn__task *t); /* leaves it empty */

/* ---- Answers ----------------------------------------------------------------------------------------------------- */

/* What the model made of one choice, as a log keeps it. */
typedef struct qn__answer {
  double log_likelihood;
  uint32_t greedy;     /* 1: each token of the continuation is the likeliest */
  uint32_t not_finite; /* logits that are no finite numbers: then the item counts as broken */
} qn__answer;

/* The answer of a choice from the scores of its n tokens. */
qn__answer qn__answer_of(const qn__token_score *token, int64_t n);

/* Was an item answered right? The likeliest choice is taken, as it is, or with its likelihood divided by its characters
 * or bytes; of equals the first. A continuation is right if it is greedy. */
typedef struct qn__verdict {
  bool acc, acc_norm, acc_bytes, broken;
} qn__verdict;
qn__verdict qn__judge(const qn__item *x, const qn__answer *a);
#endif
