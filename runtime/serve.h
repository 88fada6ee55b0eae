/* serve.h - the inside of a call to qn_run, for measuring it. */
#ifndef QN_SERVE_H
#define QN_SERVE_H
#include "device.h"

/* The device that a context serves from; its own. */
qn_device *qn__context_device(const qn_context *ctx);

/* The problem that was asked for, its types filled in. */
const qn_problem *qn__gemm_problem(const qn_gemm *gemm);

/* All that a call launches. */
typedef struct qn_lookup {
  qn_host_args args;
  uint32_t n_launches;
  qn_launch launch[QN_RECIPE_STEPS];
} qn_lookup;

/* Compute the launches of a call whose arguments are fit; a->m > 0, rows are NULL but for stacks. This is what qn_run
 * and qn_run_grouped do before they launch. */
qn_status qn__gemm_look_up(const qn_gemm *g, const qn_weight *w, const qn_args *a, const qn_rows *rows, qn_lookup *out);
#endif
