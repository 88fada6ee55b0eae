/* checks.h - what the interpreter watches: findings, clocks, shadows, and counters of requests. */
#ifndef QN_EMU_CHECKS_H
#define QN_EMU_CHECKS_H
#include "machine.h"

/* Record that the instruction the worker runs did wrong. lane -1: the warp. */
void qn__emu_find(warp *w, int lane, qn_emu_finding_kind kind, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Vector clocks. A release publishes the warp's past into (vc, pvc) and moves its clock on; an acquire takes it
 * over. */
void qn__emu_release(warp *w, uint32_t *vc, uint32_t *pvc);
void qn__emu_acquire(warp *w, const uint32_t *vc, const uint32_t *pvc);
void qn__emu_proxy_fence(warp *w);
void qn__emu_clock_start(cluster *c);

/* Grids in a row: the warp has waited for the one in front; a lane of a warp that has not (warp.early) is about to use
 * global memory. */
void qn__emu_grid_wait(warp *w);
void qn__emu_early(warp *w, int lane, uint64_t address, uint64_t bytes, bool write);

/* Global memory: host pointer to `bytes` at `address`, or NULL and a finding. `write`: also refuses read-only
 * memory. */
uint8_t *qn__emu_global_at(warp *w, int lane, uint64_t address, uint64_t bytes, bool write);
/* The same for reads with the shadow checked (bytes marked written when `write`). Lane -1: what an operation does that
 * was issued before. */
uint8_t *qn__emu_global_use(warp *w, int lane, uint64_t address, uint64_t bytes, bool write);

/* Bytes that come into flight in a CTA, or (negative) have arrived. */
void qn__emu_count_flight(cta *c, int64_t bytes);
/* Bytes read of global memory at an address: asked for, and without those that lanes or CTAs share. */
void qn__emu_count_read(worker *k, uint64_t address, uint64_t asked, uint64_t distinct);
void qn__emu_count_global(warp *w, const uint64_t *address, uint32_t mask, uint32_t bytes, bool store);
void qn__emu_count_shared(warp *w, const uint32_t *address, uint32_t mask, uint32_t bytes);
#endif
