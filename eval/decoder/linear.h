/* linear.h - the linear layers of a decoder: where each one's weight comes from, and the product with it. */
#ifndef QN_EVAL_LINEAR_H
#define QN_EVAL_LINEAR_H
#include "desc.h"
#include "pool.h"
#include "quernel_io.h"
#include "rounding.h"
#include "scratch.h"

/* A matrix of a checkpoint, and what multiplies in its place. At first only tensor, slice, format and layer are set. */
typedef struct qn__linear {
  const qn_tensor *tensor;
  int64_t slice;
  const qn_format *format; /* of the tensor */
  int layer;
  qn__rounding rounding; /* of the input of the dense product */
  bool replaced;         /* w is not the checkpoint's, and stays */
  float *w;              /* [n,k], or NULL: to be made */
  float *cols, *rows;    /* [k], [n] what the checkpoint's is multiplied by, or NULL */
  uint64_t used;         /* when it was last multiplied, in products */
  const qn_gemm *gemm;   /* or NULL: the dense product */
  const qn_weight *weight;
  int64_t expert; /* its number in the weight, which is a stack; -1: it is the weight */
  double seconds; /* that its products took so far, making its weight included */
} qn__linear;

/* All of a decoder's. */
typedef struct qn__linears {
  const qn_model *model;
  qn_pool *pool;
  qn__scratch *scratch;
  qn__linear *all;
  int n;
  bool bf16;
  int64_t hold, held; /* bytes of weights that may stay (0: any), and that are here, replaced ones apart */
  uint64_t products;
  void *workspace; /* of pack kernels */
  size_t workspace_size;
} qn__linears;

/* y[m,n] = x[m,k] . w^T, both dense. QN_E_NOMEM, what reading a weight or qn_run returns. */
qn_status qn__linear_run(qn__linears *s, int i, const float *x, int64_t m, float *y);
/* w[n,k]: what it multiplies by. */
qn_status qn__linear_weight(qn__linears *s, int i, float *w);
qn_status qn__linear_replace(qn__linears *s, int i, const float *w);
/* Give up weights of a layer, or of all (-1), that can be made again. */
void qn__linears_forget(qn__linears *s, int layer);
/* Multiply columns by cols [k] or rows by rows [n] of the checkpoint's, NULL: not, beside what was multiplied before.
 * QN_E_ARG: it is replaced. QN_E_NOMEM. */
qn_status qn__linear_scale(qn__linears *s, int i, const float *cols, const float *rows);
/* See qn__decoder_activate. */
qn_status qn__linear_activate(qn__linears *s, int i, const char *activation);
qn_status qn__linear_serve(qn__linears *s, int i, const qn_gemm *gemm, const qn_weight *weight);
/* The experts of a stack, site[n], by their number: see qn__decoder_serve_stack. */
qn_status qn__linear_serve_stack(qn__linears *s, const int *site, int64_t n, const qn_gemm *gemm,
                                 const qn_weight *weight);
/* Are these all the experts of one stack that serves them, by their number? */
bool qn__linear_is_stack(const qn__linears *s, const int *site, int64_t n);
/* Of such: rows offsets[e] .. offsets[e + 1] - 1 of x and y are those of expert e, offsets[0] is 0. */
qn_status qn__linear_run_stack(qn__linears *s, const int *site, const float *x, const int32_t *offsets, float *y);
/* Frees the weights, not the table. */
void qn__linears_fini(qn__linears *s);

/* Rows of planes as numbers: rows[0 .. n) of the weight, or 0 .. n where rows is NULL; out [n,k] f32, act-order undone.
 * Computed in float64 and rounded once. QN_E_ARG, QN_E_NOMEM. */
qn_status qn__decode_rows(qn_pool *pool, const qn_format *f, const qn_planes *p, const int32_t *rows, int64_t n,
                          float *out);
#endif
