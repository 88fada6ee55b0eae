/* pack_read.h - a pack, mapped read-only and checked from end to end before anything in it is believed. */
#ifndef QN_PACK_READ_H
#define QN_PACK_READ_H
#include "hash.h"
#include "heap.h"
#include "pack_format.h"

typedef struct qn_pack qn_pack;

/* Map and check the pack at `path`: sizes, checksums, order, every record and what it refers to. Afterwards no read of
 * it can fail. QN_E_IO (no such file), QN_E_FORMAT (damaged or foreign), QN_E_NOMEM. The file must not be changed in
 * place while it is open; a pack is replaced by renaming. */
qn_status qn__pack_open(const qn_allocator *heap, const char *path, qn_pack **out);
void qn__pack_close(qn_pack *p);

/* What is known of a plan without reading it. */
typedef struct qn_plan_key {
  const char *format;      /* in the map */
  const uint8_t *epilogue; /* [QN_EPILOGUE_STEPS], as format */
  uint32_t act, out, x, n, k, kind, device, experts;
} qn_plan_key;

const char *qn__pack_hash(const qn_pack *p);
uint32_t qn__pack_devices(const qn_pack *p);
uint32_t qn__pack_plans(const qn_pack *p);
uint32_t qn__pack_kernels(const qn_pack *p);
/* The i-th of each, 0 <= i < count. */
void qn__pack_device(const qn_pack *p, uint32_t i, qn_pack_device *out);
void qn__pack_plan_key(const qn_pack *p, uint32_t i, qn_plan_key *out);
void qn__pack_plan(const qn_pack *p, uint32_t i, qn_plan *out);
void qn__pack_kernel(const qn_pack *p, uint32_t i, qn_kernel *out); /* the image stays in the map */
/* Number of the kernel with this hash, or -1. */
int64_t qn__pack_find_kernel(const qn_pack *p, const char *hash);
#endif
