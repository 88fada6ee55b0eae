/* compile_internal.h - what the front (compile.c) asks of the two back ends. */
#ifndef QN_COMPILE_INTERNAL_H
#define QN_COMPILE_INTERNAL_H
#include "compile.h"
#include <stdbool.h>
#include <stdint.h>

qn_status qn__compile_cc(const qn_source *source, qn_artifact *out);
qn_status qn__compile_nvrtc(const qn_source *source, qn_artifact *out);
qn_status qn__cc_version(char *text, size_t size);
qn_status qn__nvrtc_version(char *text, size_t size);

/* The first lines of a compiler's log that hold an error (else its first lines), joined by "; ", in buffer. */
const char *qn__first_errors(const char *log, char *buffer, size_t size);
#endif
