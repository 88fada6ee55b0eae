/* call.h - a loaded kernel with its arguments for one draw, every buffer between guard zones, as tight as the contract
 * allows: X ends after the last element of its last row, Y likewise. */
#ifndef QN_CALL_H
#define QN_CALL_H
#include "case.h"
#include "data.h"
#include "guard.h"

/* A packed weight on the device, once, or as many times as it takes that a cache never holds the next. */
typedef struct qn_weights {
  qn_guarded memory;
  void *packed;  /* the first copy, on the host */
  size_t stride; /* bytes of a copy */
  int64_t copies;
} qn_weights;

/* Pack the draw's weight in the layout of a case and upload it. The second and later copies have other contents: in
 * every other piece of 4 KiB, at random, the lowest bit of each code is flipped (and flipped back in the draw). On
 * failure nothing is left open. QN_E_NOMEM, QN_E_CUDA. */
qn_status qn__weights_open(qn_device *d, const qn_case *c, qn_draw *draw, int64_t copies, qn_weights *out);
void qn__weights_close(qn_weights *w);

typedef struct qn_call {
  const qn_subject *s; /* borrowed, as the next two */
  const qn_weights *w;
  const qn_draw *draw;
  const void *x_now; /* what `x` was last filled from */
  qn_bound *bound;
  qn_guarded x, y, ws, x_scale, bias, perm;
  int64_t m, ldy;
  unsigned char *out; /* Y of the last run, on the host */
} qn_call;

/* Bind the subject to the draw's N and K. Subject, weights and draw outlive the call. On failure nothing is left open.
 */
qn_status qn__call_open(const qn_subject *s, const qn_weights *w, const qn_draw *draw, int64_t ldy, qn_call *out);
void qn__call_close(qn_call *c);

/* Make ready for the first m rows of X, taken from `from` (the call's own draw or another of the same K and types), and
 * a workspace of its size: poisoned; on CUDA zero, as the caller of qn_run does it. */
qn_status qn__call_set(qn_call *c, const qn_draw *from, int64_t m);

/* Arguments with copy number `copy` of the weight. */
qn_host_args qn__call_args(const qn_call *c, int64_t copy);

/* Tell the supervisor, if there is one, that so many calls follow (watch.h). */
void qn__call_watch(const qn_call *c, int calls);

/* Poison Y, run on the first copy, wait, fetch Y, and check the guards and everything that is only read. QN_E_WRONG. */
qn_status qn__call_run(qn_call *c);
/* The guards alone, for after a timing. */
qn_status qn__call_guards(const qn_call *c);

/* Do the rows of Y have the bits of those in `before`, where they were computed for m tokens? QN_E_WRONG. */
qn_status qn__call_same_rows(const qn_call *c, const unsigned char *before, int64_t m);

/* Compare Y with the reference of the call's draw, rows below m: bit for bit if it is exact, else within
 * qn__error_bound; where that reaches beyond the output type, infinity is right, too. Every element must be a number.
 * *error grows to the largest |y - reference| / bound. QN_E_WRONG names the first culprit. */
qn_status qn__call_compare(const qn_call *c, double *error);

/* How far an element of Y may be from the exact sum: see call.c. */
double qn__error_bound(const qn_problem *p, bool cuda, int64_t k, double y, double magnitude, double x_max);
#endif
