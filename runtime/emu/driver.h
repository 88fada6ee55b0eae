/* driver.h - the interpreter as a CUDA device: pretended GPUs behind the list of driver functions of device_cuda.h.
 *
 * `emu:sm_90a` opens like `cuda:0` and behaves like it, except that it runs PTX (its architecture is "compute_90a"), is
 * slow, and must not be timed: asking for the time between two events fails. Launches of a kernel take turns in late
 * mode and in random mode, seeded by their number, so that asking for the same result again is asking for it in another
 * order. A finding destroys the context, as an illegal access does on a GPU, and its text is the error's. A launch may
 * take as many instructions as its grid and its M, N and K can need, many times over; one that takes more hangs, which
 * is a finding as well. Dynamic shared memory beyond 48 KB, static included, must be asked for. */
#ifndef QN_EMU_DRIVER_H
#define QN_EMU_DRIVER_H
#include "device.h"
#include "emu.h"

/* Open "emu:sm_NN" as a device. QN_E_DEVICE: architecture unknown. Any thread. */
qn_status qn__emu_device_open(const qn_allocator *heap, const char *name, qn_device **out);

/* What the last launch on a device opened here did. Valid until its next launch; NULL: another kind of device. */
const qn_emu_counters *qn__emu_device_counters(const qn_device *d);
/* What that launch read of the allocation that holds the weight. */
const qn_emu_traffic *qn__emu_device_weight(const qn_device *d);
#endif
