/* grouped.h - the experts of a stack on the host: one launch runs a step for all of them.
 *
 * A kernel of a stack computes the rows of one expert, as a kernel of one weight does for all rows, and is told where
 * they are (quernel.h, qn_function_args). The schedule puts the experts that have rows one behind the other, as
 *
 *   expert        3          7     12
 *   work units    |..........|.....|...............|      threads share the units evenly, however uneven the experts
 *
 * A work item, a row to arrange or a panel of columns, takes as many units as it is work. */
#ifndef QN_GROUPED_H
#define QN_GROUPED_H
#include "recipe.h"

/* Bytes at the beginning of the scratch that the schedule takes for up to m rows, a multiple of QN_WORKSPACE_ALIGN. */
int64_t qn__grouped_bytes(const qn_bound *b, int64_t m);

/* Make the schedule in the scratch of *a, which has offsets, or ids and topk, and the stack as its w; *a becomes what
 * the launches l[*n] are launched with, while the scratch is left alone. Bias and scale are those of the first expert,
 * perm is NULL or [experts, K]. QN_E_ARG for rows that cannot be. */
qn_status qn__grouped_launches(qn_device *d, const qn_bound *b, qn_host_args *a, qn_launch l[QN_RECIPE_STEPS],
                               uint32_t *n);
#endif
