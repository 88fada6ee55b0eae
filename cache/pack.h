/* pack.h - writing a pack: the one read-only file that serving needs. runtime/pack_read.h reads it; both share the
 * description of the file in runtime/pack_format.h. */
#ifndef QN_PACK_H
#define QN_PACK_H
#include "desc.h"

/* A kernel as a pack keeps it: an artifact with its recipe and the layout it reads. */
typedef struct qn_kernel {
  char name[192];   /* "host.gemv/int4.g128/bf16-f32/avx512-nr32-mr4" */
  char hash[33];    /* of the variant */
  char target[8];   /* "host", "cuda" */
  char arch[160];   /* CUDA: "sm_90a"; host: instruction sets required, sorted, space separated ("" for plain) */
  qn_recipe recipe;
  int registers, shared;
  const void *image; /* caller-owned until the builder is written */
  size_t size;
} qn_kernel;

typedef enum qn_plan_kind { QN_PLAN_FASTEST, QN_PLAN_DETERMINISTIC, QN_PLAN_BATCH_INVARIANT, QN_PLAN_KINDS } qn_plan_kind;

#define QN_PLAN_RANGES 24
typedef struct qn_range {
  int64_t m_min;        /* serves m_min <= M < next range's m_min; the first is 1, the last has no end */
  int64_t m_tuned;      /* the M that was timed */
  char variant[33];     /* hash of a qn_kernel */
  double seconds;       /* median of the finals */
  double dense_seconds; /* the dense product in the same harness; 0: not measured */
  double bandwidth;     /* bytes/s read by a plain stream at the time; 0: not measured */
  double error;         /* largest |y - reference| / bound seen by the verifier, <= 1 */
} qn_range;

typedef struct qn_plan {
  qn_problem problem;
  uint32_t kind; /* qn_plan_kind */
  qn_format format;
  qn_layout layout;
  uint32_t n_ranges;
  qn_range range[QN_PLAN_RANGES];
} qn_plan;

typedef struct qn_pack_builder qn_pack_builder;
qn_status qn_pack_builder_new(qn_pack_builder **out);
void qn_pack_builder_free(qn_pack_builder *b);
qn_status qn_pack_add_device(qn_pack_builder *b, const char *target, const char *arch, const char *product, int threads);
qn_status qn_pack_add_kernel(qn_pack_builder *b, const qn_kernel *k); /* once per hash; again is ignored */
qn_status qn_pack_add_plan(qn_pack_builder *b, const qn_plan *p);     /* its kernels must have been added */
/* Write to a temporary name, fsync, rename. Equal input gives equal bytes. */
qn_status qn_pack_write(qn_pack_builder *b, const char *path);
#endif
