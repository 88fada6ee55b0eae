/* barrier.h - where threads wait for each other, or for async work: barriers of a CTA, mbarriers. */
#ifndef QN_EMU_BARRIER_H
#define QN_EMU_BARRIER_H
#include "insn.h"

enum { BARS = 16, MBARRIERS = 64 };

typedef struct bar {
  uint32_t arrived, need, reduce_and, reduce_or, reduce_count;
  uint32_t *vc, *pvc;
} bar;

typedef struct mbarrier {
  uint32_t address; /* offset in the CTA's shared memory; 0: free */
  uint32_t expected, pending, phase;
  int64_t tx;
  uint32_t agent;         /* of async writes that it announces */
  uint32_t *vc, *pvc;     /* released into it, by the phases so far and the current one */
  uint32_t *done, *pdone; /* by the complete phases: what a waiter may rely on */
  uint32_t init_stamp, init_agent;
} mbarrier;
#endif
