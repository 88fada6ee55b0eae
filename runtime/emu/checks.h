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
void qn__emu_join(uint32_t *into, const uint32_t *from, uint32_t n);

typedef enum touch { GENERIC_READ, GENERIC_WRITE, ATOMIC, ASYNC_READ, ASYNC_WRITE, COPY_WRITE } touch;

/* The CTA and the offset of a shared address of any rank; NULL (and a finding) when it or its bytes are outside. */
cta *qn__emu_shared_at(warp *w, int lane, uint32_t address, uint32_t bytes, uint32_t *offset);
/* Account for an access to c's shared memory by `agent` (a warp's or an mbarrier's): shadow bytes and races. */
void qn__emu_touch(warp *w, int lane, cta *c, uint32_t at, uint32_t bytes, touch how);
/* The write of an async operation has landed: stamp the words with the agent's time, mark the bytes written. */
void qn__emu_land(warp *w, cta *c, uint32_t at, uint32_t bytes, uint32_t agent, uint32_t stamp, bool generic);
/* Set shadow bytes. */
void qn__emu_mark(cta *c, uint32_t at, uint32_t bytes, int state);

/* Global memory: host pointer to `bytes` at `address`, or NULL and a finding. `write`: also refuses read-only
 * memory. */
uint8_t *qn__emu_global_at(warp *w, int lane, uint64_t address, uint64_t bytes, bool write);
/* The same for reads with the shadow checked (bytes marked written when `write`). */
uint8_t *qn__emu_global_use(warp *w, int lane, uint64_t address, uint64_t bytes, bool write);

void qn__emu_count_global(warp *w, const uint64_t *address, uint32_t mask, uint32_t bytes, bool store);
void qn__emu_count_shared(warp *w, const uint32_t *address, uint32_t mask, uint32_t bytes);
#endif
