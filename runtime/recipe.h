/* recipe.h - a launch recipe bound to a problem: all that does not depend on M is computed once. */
#ifndef QN_RECIPE_H
#define QN_RECIPE_H
#include "device.h"

#define QN_WORKSPACE_ALIGN 256
#define QN_LAUNCH_VALUES (QN_DIM + QN_STEP_MAPS * QN_MAP_RANK)

/* One launch with its constants in place; what depends on M is listed as (value, program). */
typedef struct qn_bound_step {
  qn_launch launch;
  uint32_t n_dynamic;
  struct {
    uint32_t value;  /* from QN_GRID on */
    qn_expr program; /* in the pool of qn_bound.recipe */
  } dynamic[QN_LAUNCH_VALUES];
} qn_bound_step;

typedef struct qn_bound {
  uint32_t n_steps, args; /* args: bit set of the qn_arg that some step takes; PERM, too, if one gathers */
  int64_t experts, bytes; /* of a stack, and of an expert's packed weight; 0: one weight */
  bool schedules;         /* experts are launched by qn__grouped_launches */
  qn_bound_step step[QN_RECIPE_STEPS];
  qn_recipe recipe; /* the bound copy: steps that the above point into, programs folded */
} qn_bound;

/* Bind `r` to the shape of `p` on a device with the entry points `fn`, one a step; `bytes` are those of a packed
 * weight. *out is filled; it must not be moved after. The recipe is checked. QN_E_FORMAT, QN_E_LIMIT. */
qn_status qn__recipe_bind(qn_device *d, const qn_recipe *r, void *const fn[QN_RECIPE_STEPS], const qn_problem *p,
                          int64_t bytes, qn_bound *out);
/* Room for so many bytes, a multiple of QN_WORKSPACE_ALIGN. */
static inline int64_t qn__workspace_bytes(int64_t bytes) {
  return (bytes + QN_WORKSPACE_ALIGN - 1) / QN_WORKSPACE_ALIGN * QN_WORKSPACE_ALIGN;
}

/* Bytes of a workspace. */
typedef struct qn_workspace {
  int64_t counters, scratch;
} qn_workspace;

/* What suffices, for a weight with a permutation or none, for every number of tokens from `least` to `most`: for one
 * number exactly what the recipe says, and for more the greatest of them where it rises with M. QN_E_LIMIT if it could
 * overflow. */
qn_status qn__bound_workspace(const qn_bound *b, int64_t least, int64_t most, bool permuted, qn_workspace *out);
/* Compute the launches for m tokens into l[*n], with every size within the device's limits: of every step, and of one
 * that does nothing but gather X only for a weight with a permutation. */
qn_status qn__bound_launches(const qn_device *d, const qn_bound *b, int64_t m, bool permuted,
                             qn_launch l[QN_RECIPE_STEPS], uint32_t *n);
/* The launches of a call. *a becomes what they are launched with: its scratch begins behind the room for gathered X,
 * and of a stack of the host it is another than the call's own (grouped.c). */
qn_status qn__call_launches(qn_device *d, const qn_bound *b, qn_host_args *a, qn_launch l[QN_RECIPE_STEPS],
                            uint32_t *n);
/* *out is what a launch works on; *a changes for those behind it if it gathers X. */
void qn__launch_args(const qn_launch *l, qn_host_args *a, qn_host_args *out);
/* Run launches one after the other. The arguments are taken as they are. */
qn_status qn__launch_all(qn_device *d, const qn_launch *l, uint32_t n, qn_host_args a, void *stream);
/* Compute launches and run them. */
qn_status qn__bound_run(qn_device *d, const qn_bound *b, const qn_host_args *a, void *stream);

/* ---- The experts of a stack on the host: grouped.c --------------------------------------------------------------- */

/* Bytes at the beginning of the scratch that the schedule takes for up to m rows, a multiple of QN_WORKSPACE_ALIGN. */
int64_t qn__grouped_bytes(const qn_bound *b, int64_t m);

/* Make the schedule in the scratch of *a, which has offsets, or ids and topk, and the stack as its w; *a becomes what
 * the launches l[*n] are launched with, while the scratch is left alone. Bias and scale are those of the first expert,
 * perm is NULL or [experts, K]. QN_E_ARG for rows that cannot be. */
qn_status qn__grouped_launches(qn_device *d, const qn_bound *b, qn_host_args *a, qn_launch l[QN_RECIPE_STEPS],
                               uint32_t *n);
#endif
