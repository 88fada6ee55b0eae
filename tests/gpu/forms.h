/* forms.h - one row for each form of an instruction that kernels rely on, in tables of forms_*.c.
 *
 * A row's text is PTX for every thread of one CTA. It takes registers a0, a1... drawn at random, computes d0, d1...,
 * and may use t (number of the thread), s (address of shared memory), g (64 bits: of the tile in global memory) and m
 * (of a tensor map). The conformance program wraps it in a kernel:
 *
 *     x: in registers of each thread, then the tile          y: out registers of each thread, then the dump
 *
 * Shared memory begins as the tile or as a pattern; what it holds at the end is the dump. `truth`, where a row has one,
 * computes y from x in plain C. What it cannot know exactly (the order of a sum) it allows for in `slack`. */
#ifndef QN_FORMS_H
#define QN_FORMS_H
#include "numbers.h"
#include <stddef.h>

typedef struct form form;

typedef void form_draw(const form *f, uint32_t *x, uint64_t *state);
/* y[words] and slack[words]; slack 0: bit for bit. A word whose slack is not 0 holds a float of form.result. */
typedef void form_truth(const form *f, const uint32_t *x, uint32_t *y, double *slack);

typedef enum form_shared { SHARED_NONE, SHARED_TILE, SHARED_PATTERN } form_shared;

/* A tensor map over the tile (over the dump for a store). */
typedef struct form_map {
  int rank, type, swizzle, fill; /* as cuTensorMapEncodeTiled has them */
  int element;                   /* bytes */
  uint64_t dim[3];
  uint32_t box[3];
  int32_t at[3]; /* where the box lies */
  bool store;
} form_map;

struct form {
  const char *family, *name, *text;
  int least, most; /* architectures that have it: sm_least to sm_most (0: and all later ones) */
  int threads, in, out;
  int tile, dump; /* words */
  int spare;      /* bytes of shared memory behind the tile or the dump, for mbarriers */
  form_shared shared;
  bool async; /* shared memory is read or written by the async proxy */
  form_draw *draw;
  form_truth *truth;    /* NULL: only a GPU can tell */
  const number *result; /* of words with slack, and of those where one NaN is as good as another */
  const form_map *map;  /* what m names; NULL: nothing */
  const void *more;     /* the row of the table it was made from */
};

#define PATTERN 0x5a5a5a5au
static inline int form_x_words(const form *f) { return f->threads * f->in + f->tile; }
static inline int form_y_words(const form *f) { return f->threads * f->out + f->dump; }

/* A list that grows. Names and texts made by text() live as long as the program. */
typedef struct form_list {
  form *form;
  size_t n;
} form_list;
void form_add(form_list *l, form f);
const char *text(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *registers(char letter, int first, int n); /* "{a4, a5}" */

/* The tables. */
void forms_lane(form_list *l);    /* what a lane does alone: bits, integers, halves */
void forms_convert(form_list *l); /* conversions and roundings */
void forms_warp(form_list *l);    /* shfl, vote, match, redux */
void forms_matrix(form_list *l);  /* ldmatrix, stmatrix, mma */
void forms_wgmma(form_list *l);
void forms_async(form_list *l); /* cp.async, bulk and tensor copies */

void draw_any(const form *f, uint32_t *x, uint64_t *state); /* random bits everywhere */

/* Row-major matrices of doubles for truths of products: d[m][n] and its measure of rounding, the sum of |a b| and
 * |c|. */
typedef struct product {
  int m, n, k;
  double *a, *b, *c;  /* a[m][k], b[k][n], c[m][n]: in */
  double *sum, *size; /* [m][n]: out */
} product;
product product_new(int m, int n, int k);
void product_run(product *p);
void product_free(product *p);
/* What the order of a sum and the width of its accumulator may change, for one element. */
double product_slack(const product *p, int i, const number *operand, const number *accumulator);
#endif
