/* verify.h - is a kernel right? Small ragged shapes, whole, before anything is timed.
 *
 * A variant takes any M, N, K at run time, so this is asked once per variant, not per shape. Every draw of data.h on
 * every shape, at every M of a list that the variant serves; every buffer between guards; everything written; more than
 * a hundred repeats that agree bit for bit, unless the recipe says that they need not; and where the recipe says that a
 * row's bits do not depend on M, they must not. */
#ifndef QN_VERIFY_H
#define QN_VERIFY_H
#include "case.h"
#include "data.h"

/* Draws with their references, kept for the next variant of the same format and types. */
typedef struct qn_draws qn_draws;
qn_status qn__draws_new(qn_draws **out);
void qn__draws_free(qn_draws *d);

/* Verify; *error is the largest |y - reference| / bound. QN_E_WRONG: the kernel is wrong, as the text says. Other
 * failures are not the kernel's (QN_E_NOMEM) or the device's last (QN_E_CUDA). */
qn_status qn__verify(const qn_subject *s, qn_draws *draws, double *error);
#endif
