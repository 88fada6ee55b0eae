/* meet.h - where threads meet: barriers of a CTA, of a cluster. */
#ifndef QN_EMU_MEET_H
#define QN_EMU_MEET_H
#include "machine.h"

/* `mask` executes the barrier `i` at `pc`. True: they go on at once; false: they wait as a fragment of their own. */
bool qn__emu_barrier(warp *w, const insn *i, uint32_t pc, uint32_t mask);
bool qn__emu_cluster_barrier(warp *w, const insn *i, uint32_t pc, uint32_t mask);
/* `mask` has ended: whoever waited for these lanes looks again. */
void qn__emu_lanes_exit(warp *w, uint32_t mask);
#endif
