/* fail.h - the error convention of every C file in the project.
 *
 * A function that can fail returns qn_status and says why with qn__fail, whose text is kept per thread until the next
 * failure. A message names the thing, the value, the limit and, where there is one, the next step. */
#ifndef QN_FAIL_H
#define QN_FAIL_H
#include "quernel.h"
#include <errno.h>

/* Statuses of making and judging kernels. No function of a public header returns them. */
#define QN_E_COMPILE ((qn_status)100)
#define QN_E_WRONG ((qn_status)101)

/* Record the detail of a failure on this thread (cut at 4095 bytes, made printable) and return `s`. */
qn_status qn__fail(qn_status s, const char *format, ...) __attribute__((format(printf, 2, 3)));

#ifdef __clang_analyzer__ /* which does not look into other files: a status that is given is no QN_OK */
#define qn__fail(status, ...) (qn__fail(status, __VA_ARGS__), (status))
#endif

/* Detail of this thread's last failure; "" before the first. */
const char *qn__errmsg(void);

/* Every control character but newline and tab becomes '?', so does a byte that is no UTF-8: names come from files, and
 * a terminal obeys what it is sent. */
void qn__printable(char *text);

/* The status of a call to the system that failed with this errno. */
static inline qn_status qn__errno_status(int error) { return error == ENOMEM ? QN_E_NOMEM : QN_E_IO; }

#define QN_TRY(call)                                                                                                   \
  do {                                                                                                                 \
    qn_status qn_try_ = (call);                                                                                        \
    if (qn_try_ != QN_OK) return qn_try_;                                                                              \
  } while (0)

#define QN_COUNT(array) (sizeof(array) / sizeof *(array))
#endif
