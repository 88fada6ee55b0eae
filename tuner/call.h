/* call.h - a loaded kernel with its arguments for one draw, every buffer under watch (guard.h), as tight as the
 * contract allows: X ends after the last element of its last row, Y likewise. */
#ifndef QN_CALL_H
#define QN_CALL_H
#include "case.h"
#include "data.h"
#include "guard.h"
#include "reference.h"

/* A packed weight, or a stack of them, on the device, once, or as many times as it takes that a cache never holds the
 * next. */
typedef struct qn_weights {
  qn_guarded memory;
  void *packed;  /* the first copy, on the host */
  size_t stride; /* bytes of a copy */
  int64_t copies;
} qn_weights;

/* Pack the draw's weight in the layout of a case and upload it, in the memory that *w, else zero, has from another draw
 * if that is as large. The second and later copies have other contents: in every other piece of 4 KiB, at random, the
 * lowest bit of each code is flipped (and flipped back in the draw). Freed with qn__weights_fini, also after a failure.
 * QN_E_NOMEM, QN_E_CUDA. */
qn_status qn__weights_fill(qn_weights *w, qn_device *d, const qn_case *c, qn_draw *draw, int64_t copies);
void qn__weights_fini(qn_weights *w);

/* How the rows of a stack meet its experts (qn_rows). By ids a row's expert follows from its number alone. */
typedef enum qn_route {
  QN_ROUTE_SHARED, /* by ids, to all experts alike, or by the call's share: for timing */
  QN_ROUTE_IDS,    /* by ids, some rows to nobody */
  QN_ROUTE_TOKENS, /* the same, several rows of Y for a row of X where m can be divided so */
  QN_ROUTE_SORTED, /* by offsets, some experts without rows, the last rows to nobody */
  QN_ROUTE_ONE,    /* by offsets, all rows to the last expert */
  QN_ROUTES
} qn_route;

/* A number for each expert, at least one of them above 0, as shares for qn_call.share, which the caller frees.
 * QN_E_ARG: no sum comes of them. QN_E_NOMEM. */
qn_status qn__share_make(const double *number, int64_t experts, double **out);
/* How many of the experts, QN_EXPERTS at most, have any of m rows that are timed. share NULL: all alike. */
int64_t qn__share_met(const double *share, int64_t experts, int64_t m);

typedef struct qn_call {
  const qn_subject *s; /* borrowed, as the next two */
  const qn_weights *w;
  const qn_draw *draw;
  qn_bound *bound;
  qn_guarded buffer[QN_POINTERS]; /* by qn_arg; the weight's is in w */
  int64_t m, ldy, shift;          /* row r of X is row r + shift of the draw */
  qn_route route, routed;         /* of a stack: set before qn__call_set, and of the buffers */
  const double *share;            /* borrowed, [experts]: the part of the rows that an expert has, with all before it,
                                     the last 1; NULL: all have as many */
  int64_t topk;                   /* rows of Y for a row of X */
  int32_t *expert;                /* [m] of a stack: that of a row of Y; below 0: nobody */
  void *made[QN_POINTERS];        /* contents of buffers that the draw does not have as they are; else NULL */
  bool in_place;                  /* Y is the residual, too */
  unsigned runs;
  unsigned char *out; /* Y of the last run, on the host */
} qn_call;

/* Bind the subject to the draw's N and K, in the memory that *c, else zero, has from another. Subject, weights and draw
 * outlive the call. Freed with qn__call_fini, also after a failure. */
qn_status qn__call_aim(qn_call *c, const qn_subject *s, const qn_weights *w, const qn_draw *draw, int64_t ldy);
/* Aimed with the stride of the draw's residual: let Y be the residual, until the next aim. */
void qn__call_in_place(qn_call *c);
void qn__call_fini(qn_call *c);

/* Make ready for m rows of X, those of the draw from `shift` on, which are as many at least, with counters, which are
 * zero, and scratch of the recipe's sizes. */
qn_status qn__call_set(qn_call *c, int64_t m, int64_t shift);

/* Arguments with copy number `copy` of the weight. */
qn_host_args qn__call_args(const qn_call *c, int64_t copy);

/* Tell the supervisor, if there is one, that so many calls follow (watch.h). */
void qn__call_watch(const qn_call *c, int calls);

/* Whether a fault at `address` is the doing of the call that was made ready last: says so in `text`, as a step. For a
 * signal handler. */
bool qn__call_fault(const void *address, char *text, size_t size);

/* Fill Y, unless it is the residual, and the scratch with the fence's byte, run on the first copy, wait, fetch Y, and
 * check the guards, everything that is only read, that the counters are zero again, and on the host the threads that it
 * ran on (conduct.h). QN_E_WRONG. */
qn_status qn__call_run(qn_call *c);
/* For after a timing, whose last call was on copy number `copy`: the guards alone; and does the same call, on a Y that
 * is filled anew, write what that one did? Who takes part in no comparison may save himself the work. QN_E_WRONG. */
qn_status qn__call_guards(const qn_call *c);
qn_status qn__call_again(qn_call *c, int64_t copy);

/* Do the rows of Y have the bits of those in `before`, where they were computed for m tokens? QN_E_WRONG. */
qn_status qn__call_same_rows(const qn_call *c, const unsigned char *before, int64_t m);

/* Compare Y with the reference of the call's draw: all of it bit for bit if the draw is exact (zeros have no sign),
 * also in the bits that the kernel keeps of sums, else the reference's columns within a bound (see call.c); where that
 * reaches beyond the output type, infinity is right, too. Every element must be a number. *error grows to the largest
 * |y - reference| / bound. QN_E_WRONG names the first culprit. */
qn_status qn__call_compare(const qn_call *c, double *error);

/* How far the sum that a kernel with such a recipe makes of K products may be from the exact one, and how far what it
 * writes may be from what the epilogue makes of that: see call.c. */
double qn__sum_error(const qn_problem *p, const qn_recipe *r, const qn_target *on, int64_t k, double magnitude,
                     double x_max);
double qn__output_error(qn_type out, qn_number y);
#endif
