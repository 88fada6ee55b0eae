/* decoder_bench.c - how near a pass of the decoder comes to the dense products in it.
 *
 *     decoder_bench MODEL [THREADS [WINDOWS [LENGTH [ROUNDS]]]]        2 threads, 2 windows of 512 tokens, 5 rounds
 *
 * In every round the pass (embedding to logits) is timed, then OpenBLAS alone on matrices of the same shapes with
 * threads of its own, on one buffer for all weights, which may stay in the cache where those of the pass do not. Told
 * are the middle of the rounds, and shares from the least to the most: what else the machine does hits both of a round.
 * A share above 100% is of a machine that is not quiet: the products' threads wait for one another. With one thread
 * they do not. Not a test: nothing is asserted. */
#include "blas.h"
#include "clock.h"
#include "config.h"
#include "decoder.h"
#include "fail.h"
#include "generator.h"
#include <stdio.h>
#include <stdlib.h>

static qn_status format_of(void *ud, const char *spelling, qn_format *out) {
  const char *wrong = generator_format(spelling, out);
  (void)ud;
  return wrong ? qn__fail(QN_E_FORMAT, "%s", wrong) : QN_OK;
}

typedef struct work {
  qn__decoder *d;
  int64_t windows, length, hidden, vocab;
  int threads;
  int32_t *ids;
  float *h, *y, *w; /* y: of the widest product, w: one of them */
} work;

/* Seconds of a pass. */
static double pass(const work *a) {
  double start = qn__now();
  qn_status s = qn__decoder_hidden(a->d, a->ids, a->windows, a->length, a->h);
  for (int64_t i = 0; !s && i < a->windows; i++)
    s = qn__decoder_logits(a->d, a->h + i * a->length * a->hidden, a->length, a->y);
  if (s) fprintf(stderr, "%s\n", qn__errmsg()), exit(1);
  return qn__now() - start;
}

/* Seconds of OpenBLAS for all products of a pass. */
static double products(const work *a, const qn_blas *blas) {
  const qn__site *site;
  const int n = qn__decoder_sites(a->d, &site), rows = (int)(a->windows * a->length);
  if (blas->set_threads) blas->set_threads(a->threads);
  double start = qn__now();
  for (int i = 0; i < n; i++) {
    int parts = i < n - 1 ? 1 : (int)a->windows, m = rows / parts, w = (int)site[i].n, k = (int)site[i].k;
    for (int p = 0; p < parts; p++)
      blas->sgemm(QN_BLAS_ROW_MAJOR, QN_BLAS_NO_TRANSPOSE, QN_BLAS_TRANSPOSE, m, w, k, 1, a->h, k, a->w, k, 0, a->y, w);
  }
  return qn__now() - start;
}

static int by_value(const void *x, const void *y) {
  const double *a = x, *b = y;
  return (*a > *b) - (*a < *b);
}

/* Rounds of both: sorted seconds of passes, and sorted shares of the products in them. */
static void rounds(const work *a, const qn_blas *blas, int64_t n, double *seconds, double *share) {
  pass(a), products(a, blas); /* makes the weights */
  for (int64_t r = 0; r < n; r++) {
    seconds[r] = pass(a);
    share[r] = 100 * products(a, blas) / seconds[r];
  }
  qsort(seconds, (size_t)n, sizeof *seconds, by_value);
  qsort(share, (size_t)n, sizeof *share, by_value);
}

static int64_t number(int argc, char **argv, int i, int64_t absent) { return i < argc ? atoll(argv[i]) : absent; }

int main(int argc, char **argv) {
  qn_model *model;
  const qn_blas *blas;
  const qn__site *site;
  work a = {.threads = (int)number(argc, argv, 2, 2)};
  const qn__decoder_options options = {.format = format_of, .threads = a.threads};
  if (argc < 2) return fprintf(stderr, "usage: %s MODEL [THREADS [WINDOWS [LENGTH [ROUNDS]]]]\n", argv[0]), 2;
  if (qn_model_open(argv[1], &model) || qn__decoder_open(model, &options, &a.d) || qn__blas(&blas))
    return fprintf(stderr, "%s\n", qn__errmsg()), 1;
  a.windows = number(argc, argv, 3, 2);
  a.length = number(argc, argv, 4, 512);
  a.hidden = qn__decoder_config(a.d)->hidden;
  a.vocab = qn__decoder_config(a.d)->vocab;
  int64_t rows = a.windows * a.length, widest = a.hidden, largest = 0, weights = 0;
  for (int i = qn__decoder_sites(a.d, &site); i-- > 0;) {
    int64_t wide = site[i].n > site[i].k ? site[i].n : site[i].k, size = site[i].n * site[i].k;
    bool head = site[i].n == a.vocab;
    widest = !head && wide > widest ? wide : widest;
    largest = size > largest ? size : largest;
    weights += size;
  }
  a.ids = malloc((size_t)rows * sizeof *a.ids);
  a.h = calloc((size_t)(rows * widest), sizeof *a.h);
  a.y = calloc((size_t)(a.length * a.vocab + rows * widest), sizeof *a.y);
  a.w = calloc((size_t)largest, sizeof *a.w);
  if (!a.ids || !a.h || !a.y || !a.w) return fprintf(stderr, "no memory\n"), 1;
  for (int64_t i = 0; i < rows; i++) a.ids[i] = (int32_t)(i * 7919 % a.vocab);
  for (int64_t i = 0; i < largest; i++) a.w[i] = (float)(i % 17 - 8);
  enum { most = 1000 };
  double seconds[most], share[most];
  int64_t n = number(argc, argv, 5, 5);
  n = n < 1 ? 1 : n > most ? most : n;
  rounds(&a, blas, n, seconds, share);
  printf(
      "%jd tokens, %d threads: %.3f s, %.0f tokens/s, %.1f GFLOP/s; its products alone take %.0f%% of it (%.0f-%.0f)\n",
      (intmax_t)rows, a.threads, seconds[n / 2], (double)rows / seconds[n / 2],
      2e-9 * (double)(rows * weights) / seconds[n / 2], share[n / 2], share[0], share[n - 1]);
  return 0;
}
