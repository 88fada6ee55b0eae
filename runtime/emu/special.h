/* special.h - special registers: name, type, and the value in a lane, an expression that cluster.c computes.
 *
 * What the interpreter has no clock for is 0. Source: PTX ISA, "Special Registers". */
#ifndef QN_EMU_SPECIAL_H
#define QN_EMU_SPECIAL_H
#include "insn.h"

#define SPECIAL_XYZ(X, name, value)                                                                                    \
  X(name ".x", T_U32, (value)[0]) X(name ".y", T_U32, (value)[1]) X(name ".z", T_U32, (value)[2])

#define SPECIAL_MAP(X)                                                                                                 \
  SPECIAL_XYZ(X, "%tid", tid)                                                                                          \
  SPECIAL_XYZ(X, "%ntid", r->how.block)                                                                                \
  SPECIAL_XYZ(X, "%ctaid", c->index)                                                                                   \
  SPECIAL_XYZ(X, "%nctaid", r->how.grid)                                                                               \
  X("%laneid", T_U32, lane)                                                                                            \
  X("%warpid", T_U32, w->id)                                                                                           \
  X("%nwarpid", T_U32, c->nwarps)                                                                                      \
  X("%smid", T_U32, 0)                                                                                                 \
  X("%nsmid", T_U32, r->device->limits.multiprocessors)                                                                \
  X("%dynamic_smem_size", T_U32, r->how.dynamic_shared)                                                                \
  X("%total_smem_size", T_U32, r->shared_bytes)                                                                        \
  X("%lanemask_eq", T_U32, bit)                                                                                        \
  X("%lanemask_le", T_U32, bit | (bit - 1))                                                                            \
  X("%lanemask_lt", T_U32, bit - 1)                                                                                    \
  X("%lanemask_ge", T_U32, ~(bit - 1))                                                                                 \
  X("%lanemask_gt", T_U32, ~(bit | (bit - 1)))                                                                         \
  SPECIAL_XYZ(X, "%clusterid", c->cluster->index)                                                                      \
  SPECIAL_XYZ(X, "%nclusterid", clusters)                                                                              \
  SPECIAL_XYZ(X, "%cluster_ctaid", in_cluster)                                                                         \
  SPECIAL_XYZ(X, "%cluster_nctaid", r->cluster)                                                                        \
  X("%cluster_ctarank", T_U32, c->rank)                                                                                \
  X("%cluster_nctarank", T_U32, r->nctas)                                                                              \
  X("%gridid", T_U64, 1)                                                                                               \
  X("%clock", T_U32, 0)                                                                                                \
  X("%clock_hi", T_U32, 0)                                                                                             \
  X("%clock64", T_U64, 0)                                                                                              \
  X("%globaltimer", T_U64, 0)                                                                                          \
  X("%is_explicit_cluster", T_PRED, 0)

enum {
#define X(name, type, value) +1
  SPECIALS = 0 SPECIAL_MAP(X)
#undef X
};
#endif
