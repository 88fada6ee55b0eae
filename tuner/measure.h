/* measure.h - what a machine can do right now: is it undisturbed, and how fast does it read memory.
 *
 * On a shared machine a sample counts only if a short probe of arithmetic before and after it ran, on every thread, at
 * nearly the best rate that the probe has ever reached in this process. Both probes run through the device itself, so
 * that they use the threads that kernels use. Host devices only: a GPU is not shared this way. */
#ifndef QN_MEASURE_H
#define QN_MEASURE_H
#include "clock.h"
#include "device.h"

typedef struct qn_meter qn_meter;

/* For an open device, which outlives the meter. Allocates `bytes` to stream through (several times the caches). */
qn_status qn__meter_new(qn_device *d, size_t bytes, qn_meter **out);
void qn__meter_free(qn_meter *m);

/* Did every thread have a core to itself just now? True on devices that are not probed. */
bool qn__meter_quiet(qn_meter *m);

/* Bytes/s that all threads together read from memory; 0 where it is not measured. */
double qn__meter_bandwidth(qn_meter *m);
#endif
