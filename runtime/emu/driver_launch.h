/* driver_launch.h - the functions of the list of device_cuda.h that launch and time. */
#ifndef QN_EMU_DRIVER_LAUNCH_H
#define QN_EMU_DRIVER_LAUNCH_H
#include "device_cuda.h"

int qn__emu_launch_plain(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                         unsigned shared, void *s, void **arguments, void **extra);
int qn__emu_launch_ex(const qn_cu_config *c, void *f, void **arguments, void **extra);
int qn__emu_stream_sync(void *s);
void qn__emu_expect(double products, const void *const memory[2]);
extern const qn_cuda_timing qn__emu_timing;
#endif
