/* back_end.h - the compiler of one target, as the front (compile.c) sees it. */
#ifndef QN_BACK_END_H
#define QN_BACK_END_H
#include "artifact.h"
#include "quernel.h"

struct qn_source;

/* `flags`: what a template may ask of the compiler, as an extended regular expression: to generate other code. Flags
 * that run a program, load a plug-in, or name a file to read or write are not among them. `known`: the same in words.
 */
typedef struct qn_back_end {
  const char *target;
  const char *flags, *known;
  qn_status (*compile)(const struct qn_source *source, qn_artifact *out);
  qn_status (*version)(char *text, size_t size);
} qn_back_end;

extern const qn_back_end qn__back_end_cc, qn__back_end_nvrtc;

#define QN_FLAGS_MACROS "-[DU][A-Za-z_][A-Za-z0-9_]*(=.*)?"

/* The first lines of a compiler's log that hold an error (else its first lines), joined by "; ", in buffer. */
const char *qn__first_errors(const char *log, char *buffer, size_t size);
#endif
