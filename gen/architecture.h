/* architecture.h - what an architecture of NVIDIA's offers, for those who write code where no such GPU is. */
#ifndef QN_ARCHITECTURE_H
#define QN_ARCHITECTURE_H
#include "quernel.h"

/* CUDA C++ Programming Guide, "Technical Specifications per Compute Capability". */
typedef struct qn_architecture {
  int sm;                   /* 75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121 */
  uint32_t shared_block;    /* most shared memory of a CTA (opt-in), bytes */
  uint32_t shared_sm;       /* shared memory of a multiprocessor, bytes */
  uint32_t threads_sm;      /* resident threads of a multiprocessor */
  uint32_t blocks_sm;       /* resident CTAs of a multiprocessor */
  uint32_t cluster;         /* CTAs of a portable cluster; 1: no clusters */
  uint32_t multiprocessors; /* of the largest product of that architecture */
} qn_architecture;

enum { QN_SM_REGISTERS = 65536 }; /* of a multiprocessor, on all of them */

/* Look one up; `suffix` is 'a' for sm_90a and the like, 'f' for a family, 0 for neither. QN_E_DEVICE lists what is
 * known. Static data. Any thread. */
qn_status qn__architecture(int sm, char suffix, const qn_architecture **out);
/* The same from its name, "sm_90a". */
qn_status qn__architecture_named(const char *name, char *suffix, const qn_architecture **out);
#endif
