/* step.h - a warp at work. */
#ifndef QN_EMU_STEP_H
#define QN_EMU_STEP_H
#include "machine.h"

/* Run a warp for at most `left` instructions; returns how many it ran. */
int64_t qn__emu_warp_run(warp *w, int64_t left);
#endif
