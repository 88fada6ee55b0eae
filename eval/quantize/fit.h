/* fit.h - a weight on its way into a format: what the methods are made of.
 *
 * The rule of a format (rule.c) is a sum of products of planes:
 *
 *     W = map(code) * product(slope) + c * product(offset)        slope, offset: sets of planes
 *
 * A *cell* is the largest block of weights over which no plane changes (cell.c). Each cell has a range of weights, and
 * so a slope and an offset that would serve it best as plain numbers. Planes are fitted to these (plane.c), then codes
 * to the planes (encode.c). A method puts these steps together. */
#ifndef QN_QUANTIZE_FIT_H
#define QN_QUANTIZE_FIT_H
#include "desc.h"
#include "inputs.h"
#include "loss.h"
#include "pool.h"

enum { QN_CODES = 256 };

typedef struct qn__rule {
  uint32_t slope, offset; /* bit i: plane i */
  double c;
  int n; /* numbers that a code can mean, ascending, each once; 0: codes are wide floats */
  double map[QN_CODES], q[QN_CODES];
  uint8_t code[QN_CODES], falling[QN_CODES], zero; /* falling: the same, largest first; zero: the code nearest to it */
  bool full; /* the slope's sign is such that the weight of largest magnitude meets the code that reaches farthest */
} qn__rule;

typedef struct qn__fit {
  const qn_format *f;
  qn__rule r;
  const float *w;
  int64_t n, k;
  int64_t rows, cols, across, cells; /* weights of a cell; cells in a row of them, and in all */
  double *lo, *hi, *a, *b;           /* of each cell: range, slope, offset */
  uint32_t done;                     /* planes that are fitted */
  bool mse;
  uint32_t refined;         /* the plane that threads try neighbours of */
  const qn__inputs *seen;   /* of the inputs, or NULL */
  const double *importance; /* [k] what a squared error weighs in the search for scales, or NULL: all the same */
  const double *products;   /* h of the inputs, if the search is for the errors of the outputs; else NULL */
  qn_planes *p;
  qn_pool *pool;
  qn__quantize_error *row;
} qn__fit;

/* ---- The rule ---------------------------------------------------------------------------------------------------- */

/* QN_E_SHAPE for a format whose rule is no such sum. */
qn_status qn__rule_read(qn__rule *r, const qn_format *f);

/* The decode rule for n codes that are the numbers q, where plane i is plane[i]. */
void qn__rule_decode(const qn_format *f, int n, const double *q, const double *plane, double *out);

/* The least slope with which the map reaches from lo to hi, both counted from the offset. */
double qn__rule_reach(const qn__rule *r, double lo, double hi);

/* Slope and offset as plain numbers, for a range. */
void qn__rule_ideal(const qn__rule *r, double lo, double hi, double *a, double *b);

/* ---- Planes ------------------------------------------------------------------------------------------------------ */

static inline bool qn__plane_unsigned(const qn_format_plane *s) { return qn__form[s->type].kind == QN_KIND_UNSIGNED; }

/* x as the plane would store it. */
double qn__plane_rounded(const qn_format_plane *s, double x);

/* Make element i the next value above or below; false, and as it was, if there is none. */
bool qn__plane_step(const qn_format_plane *s, void *data, int64_t i, bool up);

/* The data of plane p, and the value that a cell has of it. */
void *qn__fit_data(const qn__fit *t, uint32_t p);
double qn__fit_value(const qn__fit *t, uint32_t p, int64_t cell);

/* ---- Steps of a method, in this order ---------------------------------------------------------------------------- */

void qn__fit_cells(qn__fit *t);       /* how the weight is divided; before the arrays of cells exist */
void qn__fit_ranges(qn__fit *t);      /* lo and hi of each cell */
void qn__fit_draw_in(qn__fit *t);     /* drawn in to where the squared error of the cell is least */
qn_status qn__fit_planes(qn__fit *t); /* slope and offset of each cell, and the planes for them */
void qn__fit_refine(qn__fit *t);      /* neighbours of elements that lower the squared error */
void qn__fit_encode(qn__fit *t);      /* codes, and the error of each row */

/* All between the first and the last. */
qn_status qn__fit_scales(qn__fit *t);

/* What errors d[n] of a row's weights from column k on weigh in the search for scales: squares, or with `products` the
 * square of what they add to the output. n is at most a tile: of errors farther apart it is not known how they meet. */
double qn__fit_weigh(const qn__fit *t, int64_t k, int64_t n, const double *d);

/* ---- Codes ------------------------------------------------------------------------------------------------------- */

/* What the codes mean in a cell, ascending. `value` is the caller's room for QN_CODES of them, or for rule.n. */
typedef struct qn__meanings {
  int n;
  double *value, slope, offset; /* of wide floats, n = 0: value = slope * code + offset */
  const uint8_t *code;
} qn__meanings;

void qn__meanings_find(const qn__fit *t, int64_t cell, double *room, qn__meanings *m);

/* The code of the weight x as element i, unless `codes` is NULL; returns what it means. */
double qn__meanings_encode(const qn__fit *t, const qn__meanings *m, double x, void *codes, int64_t i);

/* ---- Methods ----------------------------------------------------------------------------------------------------- */

qn_status qn__method_rtn(qn__fit *t);
qn_status qn__method_imatrix(qn__fit *t);
qn_status qn__method_awq(qn__fit *t);
qn_status qn__method_gptq(qn__fit *t);
qn_status qn__method_gptaq(qn__fit *t);

/* The first of n ascending values that is not below x, or the last. */
static inline int qn__lower_bound(const double *v, int n, double x) {
  int at = 0;
  for (; n > 1; n -= n / 2) at += v[at + n / 2 - 1] < x ? n / 2 : 0;
  return at;
}
#endif
