/* windows.h - texts as windows of token ids, which a decoder sees one by one.
 *
 * Two conventions are common, and their numbers do not compare:
 *
 *     all    as Hugging Face's examples and the GPTQ papers: each token of a window is scored but the first
 *     half   as llama.cpp's perplexity: only tokens of the second half are, which have the first half before them
 *
 * A model that wants a BOS gets it at the head of each window, in the place of a token of the text; so with `all` every
 * token of the text that is in a window is scored. With `half` the text advances by whole windows, BOS or not, as
 * llama.cpp has it. A file that holds windows already is taken as it is. */
#ifndef QN_EVAL_WINDOWS_H
#define QN_EVAL_WINDOWS_H
#include "text.h"

/* A text: what it is called, its ids. */
typedef struct qn__domain {
  const char *name;
  const qn__ids *ids;
} qn__domain;

/* Which windows of each text: number first, first + step, … below end. All: {0, INT64_MAX, 1}. */
typedef struct qn__steps {
  int64_t first, end, step;
} qn__steps;

typedef struct qn__window_options {
  int64_t length; /* of a window, the BOS counted; 2, of half 3 .. 2^20 */
  bool half;
  int32_t bos; /* -1: none */
  qn__steps steps;
} qn__window_options;

/* Windows in the order in which they are evaluated: texts take turns, so that the first few see each. */
typedef struct qn__windows {
  int32_t *ids; /* [n, length] */
  int *domain;  /* [n] */
  int64_t n, length;
  int64_t first; /* logits at first .. length - 2 are scored against the id that follows */
  char hash[33]; /* of all this: what is evaluated */
} qn__windows;

/* QN_E_ARG: a text of fewer than two windows, one whose windows have another length, a slice that leaves none; with its
 * name. QN_E_NOMEM. The ids are copied. */
qn_status qn__windows_cut(const qn__domain *domain, int n, const qn__window_options *options, qn__windows *out);
void qn__windows_free(qn__windows *w); /* leaves it empty */

static inline int64_t qn__windows_scored(const qn__windows *w) { return w->length - 1 - w->first; }
#endif
