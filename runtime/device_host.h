/* device_host.h - this machine's CPU as a device: ordinary memory, kernels loaded from memory, a pool of threads. */
#ifndef QN_DEVICE_HOST_H
#define QN_DEVICE_HOST_H
#include "device.h"

/* threads: of the pool, the caller included, 1 .. 1024; 0: as many as qn__cpu_count says. QN_E_ARG, QN_E_NOMEM. */
qn_status qn__device_host_open(const qn_allocator *heap, int threads, qn_device **out);
#endif
