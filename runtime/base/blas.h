/* blas.h - OpenBLAS, if this machine has it. */
#ifndef QN_BLAS_H
#define QN_BLAS_H
#include "quernel.h"

/* Values of the enumerations of cblas.h. */
enum { QN_BLAS_ROW_MAJOR = 101, QN_BLAS_NO_TRANSPOSE = 111, QN_BLAS_TRANSPOSE = 112 };

typedef struct qn_blas {
  void (*set_threads)(int); /* of the calls of every thread of this process; may be NULL */
  void (*sgemm)(int, int, int, int, int, int, float, const float *, int, const float *, int, float, float *, int);
  void (*sgemv)(int, int, int, int, float, const float *, int, const float *, int, float, float *, int);
} qn_blas;

/* The library is looked for once, and stays: its threads do not survive being unloaded. QN_E_DEVICE: it is not here, or
 * lacks a function. Any thread. */
qn_status qn__blas(const qn_blas **out);
#endif
