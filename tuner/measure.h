/* measure.h - this machine as samples need it (sample.h), and how fast it reads memory.
 *
 * Arithmetic and reads run through the device itself, so that they use the threads and the vector units that kernels
 * use. Host devices only: a GPU is not shared this way. */
#ifndef QN_MEASURE_H
#define QN_MEASURE_H
#include "clock.h"
#include "device.h"
#include "sample.h"

typedef struct qn_meter qn_meter;

/* Does nobody believe the times of this process? QUERNEL_BUSY=ignore is in the environment, as in tests. */
bool qn__meter_unbelieved(void);

/* For an open device, which outlives the meter. Allocates `bytes` to stream through (several times the caches). On a
 * device that is not looked at, or if nobody believes the times, all samples count. QN_E_NOMEM. */
qn_status qn__meter_new(qn_device *d, size_t bytes, qn_meter **out);
void qn__meter_free(qn_meter *m);

/* Who says which samples count. */
qn_sampler *qn__meter_sampler(qn_meter *m);

/* Bytes/s that all threads together read from memory; 0 where it is not measured. */
double qn__meter_bandwidth(qn_meter *m);
#endif
