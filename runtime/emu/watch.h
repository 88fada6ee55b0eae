/* watch.h - registers that others have beside the program: a wgmma, or a load from global memory.
 *
 * Every register that some wgmma of a module has as D or as A, or that a load writes, is numbered when the text has
 * been parsed. insn.watch lists the numbers that an instruction names, so that most are passed by one compare.
 *
 * wgmma. PTX ISA, "wgmma.mma_async", "wgmma.fence": touching D or A before wgmma.wait_group is undefined, and
 * wgmma.fence stands between any other use of them and a wgmma; of D, between wgmma of different shapes.
 *
 * Loads. What a register waits for is in flight until an instruction names it, as a scoreboard has it. */
#ifndef QN_EMU_WATCH_H
#define QN_EMU_WATCH_H
#include "machine.h"

/* One register of a warp. */
struct watched {
  uint16_t sums, operands; /* wgmma in flight that have it in D, in A */
  bool touched;            /* the program used it, and no wgmma.fence came after */
  uint32_t shape;          /* of the wgmma that last had it in D, when no wgmma.fence came after; else 0 */
  uint32_t loading;        /* bytes on their way to it, of all lanes */
  const insn *last;        /* the wgmma that had it last */
};

/* A warp starts: nothing is in flight, and a fence is wanted before the first wgmma. */
void qn__watch_start(warp *w);
/* `lanes` are about to execute `i`, no wgmma, which names registers that are watched. */
void qn__watch_touch(warp *w, const insn *i, uint32_t lanes);
/* A wgmma, `i`, is issued, or it is done: the first `sums` of its registers are D, of the shape `shape`. */
void qn__watch_issue(warp *w, const insn *i, uint32_t sums, uint32_t shape);
void qn__watch_finish(warp *w, const insn *i, uint32_t sums);
void qn__watch_fence(warp *w);
#endif
