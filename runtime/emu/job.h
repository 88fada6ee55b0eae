/* job.h - work that goes on beside the program, and the groups that a program waits for. */
#ifndef QN_EMU_JOB_H
#define QN_EMU_JOB_H
#include "barrier.h"

/* Work that goes on beside the program. finish() completes it for `lanes`; a job is freed when none is left. */
typedef struct job {
  struct job *next;
  const insn *insn;
  warp *warp;
  uint32_t lanes;
  void (*finish)(struct job *j, uint32_t lanes); /* tells which of these the job is */
  union {
    struct { /* cp.async: a request of a warp; `to` are offsets in its CTA's shared memory */
      uint32_t to[LANES], bytes[LANES];
      uint8_t *from[LANES];
    } copy;
    struct { /* bulk: a request of a lane, between `shared` of the target and `other` */
      cta *target;
      uint64_t other;     /* address in global memory (of a tensor: where it begins), or offset in the warp's own shared
                             memory */
      const uint8_t *map; /* not NULL: the box at `at` of that tensor, not `other` */
      int32_t at[5];
      uint32_t shared, size, ctas; /* ctas: a multicast's */
      mbarrier *barrier;           /* that is told of the bytes; NULL: the job is of a group */
    } bulk;
    struct { /* wgmma: a product, and the registers of A as they were when it was issued */
      uint64_t desc_a, desc_b;
      uint32_t a[4][LANES];
      bool accumulate;
    } wgmma;
  };
} job;

typedef struct group {
  struct group *next; /* older */
  uint32_t lanes;
  job *jobs;
} group;

typedef struct groups {
  job *open, **open_end;
  group *newest;
  int count;
} groups;
#endif
