/* meter.c - samples on the host behind the gate, on CUDA through the driver's events. */
#include "meter.h"
#include "device_cuda.h"
#include "fail.h"
#include <stdlib.h>
#include <string.h>

#define COLD_CACHES 4 /* copies go round in so many times the last-level cache */
#define COLD_LEAST ((size_t)64 << 20)
#define COLD_MOST ((size_t)1 << 30)      /* of a machine that reports a cache shared by many guests */
#define STREAM_WINDOW ((size_t)32 << 20) /* read at once; rotated over the cold bytes */
#define STREAM_SAMPLES 7

struct qn_meter {
  qn_device *device;
  qn_gate gate;
  qn_cuda_timer *timer; /* CUDA */
  char *memory;         /* for streaming, cold bytes long, made when first wanted */
  size_t at;
};

static bool on_cuda(const qn_meter *m) { return m->device->info.target[0] == 'c'; }

qn_status qn__meter_new(qn_device *d, qn_meter **out) {
  if (!d->info.timed) return qn__fail(QN_E_DEVICE, "device %s is not for timing", d->info.name);
  qn_meter *m = calloc(1, sizeof *m);
  *out = NULL;
  if (!m) return qn__fail(QN_E_NOMEM, "meter");
  m->device = d;
  qn_status s = on_cuda(m) ? qn__cuda_timer_new(d, &m->timer) : QN_OK;
  if (s) return free(m), s;
  if (!on_cuda(m)) qn__gate_init(&m->gate, d);
  *out = m;
  return QN_OK;
}

void qn__meter_free(qn_meter *m) {
  if (!m) return;
  if (m->timer) qn__cuda_timer_free(m->timer);
  if (m->memory) m->device->ops->free(m->device, m->memory);
  free(m);
}

static qn_status run_once(qn_enqueue enqueue, void *ud, int calls, double *seconds) {
  double begin = qn__now();
  for (int i = 0; i < calls; i++) QN_TRY(enqueue(ud, i, NULL));
  *seconds = qn__now() - begin;
  return QN_OK;
}

/* One sample: taken again while the machine is found busy around it and there is patience left. */
static qn_status host_sample(qn_gate *g, qn_enqueue enqueue, void *ud, int calls, double *seconds, int *disturbed) {
  for (;;) {
    bool calm = qn__gate_open(g);
    if (!calm && qn__gate_wait(g)) continue;
    QN_TRY(run_once(enqueue, ud, calls, seconds));
    calm = calm && qn__gate_open(g);
    if (calm || g->waited > g->measured) { /* good, or good enough */
      g->measured += *seconds;
      *seconds /= calls;
      if (disturbed) *disturbed += !calm;
      return QN_OK;
    }
    g->waited += *seconds;
  }
}

qn_status qn__meter_time(qn_meter *m, qn_enqueue enqueue, void *ud, int calls, int reps, double *seconds,
                         int *disturbed) {
  if (disturbed) *disturbed = 0;
  if (on_cuda(m)) return qn__cuda_time(m->timer, true, enqueue, ud, calls, reps, seconds);
  for (int i = 0; i < reps; i++) QN_TRY(host_sample(&m->gate, enqueue, ud, calls, &seconds[i], disturbed));
  return QN_OK;
}

size_t qn__meter_cold_bytes(const qn_meter *m) {
  const int64_t *cache = m->device->info.cache;
  size_t last = (size_t)(cache[2] > cache[1] ? cache[2] : cache[1]) * COLD_CACHES;
  return last < COLD_LEAST ? COLD_LEAST : last > COLD_MOST ? COLD_MOST : last;
}

/* ---- Streaming --------------------------------------------------------------------------------------------------- */

static qn_status read_window(void *ud, int i, void *stream) {
  (void)i, (void)stream;
  qn_meter *m = ud;
  size_t size = qn__meter_cold_bytes(m) / STREAM_WINDOW * STREAM_WINDOW;
  m->at = (m->at + STREAM_WINDOW) % size;
  return qn__stream_read(m->device, m->memory + m->at, STREAM_WINDOW);
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

qn_status qn__meter_stream(qn_meter *m, double *rate) {
  *rate = 0;
  if (on_cuda(m)) return QN_OK;
  if (!m->memory) {
    void *p;
    QN_TRY(m->device->ops->alloc(m->device, qn__meter_cold_bytes(m), &p));
    memset(p, 1, qn__meter_cold_bytes(m)); /* pages of its own, not the one page of zeros */
    m->memory = p;
  }
  double seconds[STREAM_SAMPLES];
  QN_TRY(qn__meter_time(m, read_window, m, 1, STREAM_SAMPLES, seconds, NULL));
  qsort(seconds, STREAM_SAMPLES, sizeof *seconds, by_value);
  *rate = (double)STREAM_WINDOW / seconds[STREAM_SAMPLES / 2];
  return QN_OK;
}
