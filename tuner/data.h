/* data.h - weights and activations to test and time a kernel with, for any format, and what they multiply to.
 *
 * Every plane is filled from a short palette of legal elements, so that one routine serves every type and a matrix of
 * any size is made at the speed of memory.
 *
 *   EXACT   small integers and powers of two: every partial sum, in any order, is exact in f32, so that a kernel must
 *           agree with the reference bit for bit
 *   RANDOM  every legal code, scales and zero points such as checkpoints hold
 *   HARD    the same with scales over the whole range that the types stand; rows of X of zeros, of one sign, of large
 *           numbers, of denormals; with i8 also of the largest and of the least, and columns of the largest weight */
#ifndef QN_DATA_H
#define QN_DATA_H
#include "guard.h"

typedef enum qn_draw_kind { QN_DRAW_EXACT, QN_DRAW_RANDOM, QN_DRAW_HARD, QN_DRAW_KINDS } qn_draw_kind;

/* Rows of X, with their scales, repeat after so many: the reference has no more, whatever M. A prime beyond the small
 * powers of two, so that no tile is in step with it. */
enum { QN_DRAW_PERIOD = 13 };

/* Experts of a stack, with their bias and scale, repeat after so many. */
enum { QN_DRAW_EXPERTS = 3 };

typedef struct qn_draw {
  qn_draw_kind kind;
  bool exact;     /* bit-for-bit comparison holds; an EXACT draw of a format without exact codes is a RANDOM one */
  qn_fence fence; /* how the arguments are to lie in memory */
  qn_planes planes;
  qn_problem problem; /* with the N and K of the draw */
  qn_host_args args;  /* operands but Y and W, of at least a period of rows; gaps between rows have the fence's byte */
  double x_max[QN_DRAW_PERIOD]; /* at least the largest |X| of a row, scale included */
  /* The reference for the rows of a period at chosen columns, filled by qn__draw_reference. */
  int64_t n_cols, n_sums, *col; /* columns of Y; the sums that they are of, with *gate twice as many */
  double *sum, *magnitude;      /* [QN_DRAW_PERIOD, n_sums] */
  double largest;               /* of magnitude */
  void *want;           /* [QN_DRAW_PERIOD, N] of the output type: Y of an exact draw without functions; else NULL */
  struct qn_draw *next; /* the next expert of a stack, of the same X and residual; NULL: the last before they repeat */
} qn_draw;

/* The draw of an expert; of one weight, it is expert 0. */
const qn_draw *qn__draw_expert(const qn_draw *d, int64_t expert);
static inline int64_t qn__draw_experts(const qn_problem *p) { return p->experts ? p->experts : 1; }

/* Make a draw for format `f` and a problem's types and epilogue; N, K and M as given, not the problem's. Rows of X are
 * `ldx` elements apart, those of other operands of tokens have as wide a gap. The same seed gives the same data, and
 * row r of X does not depend on m. Free with qn__draw_free, also after a failure. QN_E_NOMEM, QN_E_SHAPE. */
qn_status qn__draw_make(const qn_format *f, const qn_problem *p, qn_draw_kind kind, int64_t n, int64_t k, int64_t m,
                        int64_t ldx, uint64_t seed, qn_draw *out);
void qn__draw_free(qn_draw *d);

/* Give the operands of tokens at least m rows. They may move. QN_E_NOMEM. */
qn_status qn__draw_rows(qn_draw *d, int64_t m);

/* Compute the reference: of an exact draw at all columns, of others at no more than `cols`: both ends and a seeded
 * choice between. A draw whose sums are too long to be exact is exact no more. */
qn_status qn__draw_reference(const qn_format *f, int64_t cols, qn_draw *d);

/* Give the weight, or each expert but the first, a permutation (act-order), of its own seed; before the reference.
 * QN_E_NOMEM. */
qn_status qn__draw_permute(qn_draw *d);

/* Change the lowest bit of every code: another weight, equally legal, in the planes' own memory. */
void qn__draw_flip(const qn_format *f, qn_draw *d);

/* A generator of 64-bit numbers (splitmix64: Steele, Lea, Flood, 2014). */
uint64_t qn__random(uint64_t *state);
#endif
