/* pack.h - writing a pack: the one read-only file that serving needs.
 *
 * What a pack holds (devices, kernels, plans) and how it is laid out in the file is runtime/pack_format.h, shared with
 * the reader. A builder is used by one thread at a time. */
#ifndef QN_PACK_H
#define QN_PACK_H
#include "pack_format.h"

typedef struct qn_pack_builder qn_pack_builder;
qn_status qn__pack_builder_new(qn_pack_builder **out);
void qn__pack_builder_free(qn_pack_builder *b);

/* The machine that plans were measured on: qn_device_info's fields. qn_plan.device numbers them in this order. */
qn_status qn__pack_add_device(qn_pack_builder *b, const char *target, const char *arch, const char *product,
                              int threads);
/* A kernel, once per hash: again is ignored. Its image must live until qn__pack_write; equal images are kept once. */
qn_status qn__pack_add_kernel(qn_pack_builder *b, const qn_kernel *k);
/* A plan, whose device and kernels have been added. One a (problem, kind, device): QN_E_ARG for a second. */
qn_status qn__pack_add_plan(qn_pack_builder *b, const qn_plan *p);
/* Write to a temporary name beside `path`, fsync, rename; on failure nothing is left. Equal input gives equal bytes, in
 * whatever order kernels and plans came. QN_E_IO, QN_E_NOMEM. */
qn_status qn__pack_write(qn_pack_builder *b, const char *path);
#endif
