/* verify.h - is a kernel right? Small shapes, whole, before anything is timed.
 *
 * A variant takes any M, N, K at run time, so this is asked once per variant, not per shape. Every draw of data.h on
 * ragged shapes; every M up to two tiles and a row, and M beyond any that is tuned; every N and K of a tile; where
 * there is a residual, Y in its place; every buffer between guards, what is only read in pages that cannot be written;
 * everything written; a thousand repeats that agree bit for bit, unless the recipe says that they need not; and where
 * the recipe says that a row's bits do not depend on M, they must not. On the host X changes in place from call to
 * call, the work is cut up in many ways, and threads and process are left as they were (conduct.h). Where calls are
 * slow, on the interpreter, each variant is asked for a few of all these, every variant for others. */
#ifndef QN_VERIFY_H
#define QN_VERIFY_H
#include "case.h"
#include "data.h"

/* Number of what is asked. A kernel that is known to be right by another is asked again. */
enum { QN_VERIFY_SUITE = 4 };

/* Draws with their references, kept for the next variant of the same format and types. */
typedef struct qn_draws qn_draws;
qn_status qn__draws_new(qn_draws **out);
void qn__draws_free(qn_draws *d);

/* Verify; *error is the largest |y - reference| / bound. QN_E_WRONG: the kernel is wrong, as the text says. Other
 * failures are not the kernel's (QN_E_NOMEM) or the device's last (QN_E_CUDA). */
qn_status qn__verify(const qn_subject *s, qn_draws *draws, double *error);
#endif
