/* meter.h - time and bandwidth of one device: the only place that knows how time is taken there.
 *
 * On the host a sample counts if a short burst of arithmetic on all threads, before and after it, ran as fast as this
 * machine can: another program or a sibling hyper-thread shows as half the rate. On CUDA a sample is the replay of a
 * graph between two events. A device of info.timed == 0 has no meter. */
#ifndef QN_METER_H
#define QN_METER_H
#include "device.h"

typedef struct qn_meter qn_meter;
qn_status qn__meter_new(qn_device *d, qn_meter **out);
void qn__meter_free(qn_meter *m);

/* Enqueue call number i. */
typedef qn_status (*qn_enqueue)(void *ud, int i, void *stream);

/* Seconds per call, `reps` times; each repetition is enqueue(ud, 0 .. calls - 1). *disturbed, if not NULL, counts the
 * samples that were taken although the machine was busy: patience is no longer than the time spent measuring. */
qn_status qn__meter_time(qn_meter *m, qn_enqueue enqueue, void *ud, int calls, int reps, double *seconds,
                         int *disturbed);

/* Bytes of copies that no cache of the device holds. */
size_t qn__meter_cold_bytes(const qn_meter *m);

/* Bytes per second of a plain read of memory that is in no cache, on all threads, now. 0: not known on this device. */
qn_status qn__meter_stream(qn_meter *m, double *rate);

/* ---- The host's parts ----------------------------------------------------------------------------------------------
 */

/* Is the machine undisturbed? (gate.c) */
typedef struct qn_gate {
  qn_device *device;
  double best;             /* rate of the burst, bursts a second; forgotten slowly */
  double waited, measured; /* seconds */
} qn_gate;
void qn__gate_init(qn_gate *g, qn_device *d);
bool qn__gate_open(qn_gate *g);
/* Wait a little for a busy machine; false: waited long enough. */
bool qn__gate_wait(qn_gate *g);

/* One pass over `bytes` (a multiple of 64 KiB) at p by all threads. (stream.c) */
qn_status qn__stream_read(qn_device *d, const void *p, size_t bytes);

double qn__now(void); /* seconds of a steady clock */
#endif
