/* target.h - what kinds of machine differ in, as data: who asks for a capability asks here, not for a name. */
#ifndef QN_TARGET_H
#define QN_TARGET_H
#include "types.h"

/* Values of a launch, in the order of qn_launch. */
enum { QN_GRID, QN_BLOCK = 3, QN_CLUSTER = 6, QN_SHARED = 9, QN_GATHERS, QN_DIM };

/* The product of `n` values of a launch, from `first` on, is at most `most`; but for shared memory, at least 1. */
typedef struct qn_launch_limit {
  const char *what; /* NULL: end of the list */
  int first, n;
  int64_t most; /* 0: what the device has of shared memory for a CTA, if that is known */
} qn_launch_limit;

typedef struct qn_target {
  const char *name;             /* as packs and templates call it */
  bool host_memory;             /* its memory is this process's own */
  bool host_code;               /* its kernels run in this process: functions of the caller may be among them, they are
                                   watched for what they do besides, and compilers beside them disturb them */
  bool events;                  /* it takes times itself, by events of a stream */
  const qn_launch_limit *limit; /* a list */
  double sum_unit;              /* unit roundoff of f32 sums: beside rounding, tensor cores cut off */
  qn_type scaled_float;         /* what weights are rounded to beside scaled activations that are floats… */
  qn_type scaled_integer;       /* …or integers; QN_T_NONE: they are not */
} qn_target;

/* The target of that name; NULL if there is none. Static data. Any thread. */
const qn_target *qn__target(const char *name);
#endif
