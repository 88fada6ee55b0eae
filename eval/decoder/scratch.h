/* scratch.h - buffers of a pass. They are taken one after the other and given back together, to where a mark was set;
 * the memory stays for the next pass. */
#ifndef QN_EVAL_SCRATCH_H
#define QN_EVAL_SCRATCH_H
#include "fail.h"

typedef struct qn__scratch {
  struct qn__scratch_block *first, *now; /* all blocks, and the one that is being filled */
} qn__scratch;

typedef struct qn__scratch_mark {
  struct qn__scratch_block *block;
  size_t used;
} qn__scratch_mark;

/* `count` floats at a multiple of 64 bytes, holding anything. QN_E_NOMEM. */
qn_status qn__scratch_take(qn__scratch *s, int64_t count, float **out);
qn__scratch_mark qn__scratch_here(const qn__scratch *s);
void qn__scratch_back(qn__scratch *s, qn__scratch_mark mark);
void qn__scratch_fini(qn__scratch *s);
#endif
