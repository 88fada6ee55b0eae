/* timer.c - a stream, two events, and graphs: see timer.h. */
#include "timer.h"
#include "fail.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct qn_cuda_timer {
  qn_device *d;
  const qn_cuda_timing *v;
  void *stream, *start, *end;
};

#define WARM_SECONDS 20e-3
#define STREAM_NON_BLOCKING 1
#define CAPTURE_THREAD_LOCAL 1

/* ---- The driver's functions -------------------------------------------------------------------------------------- */

/* Of the process, as a library is: loaded once. */
static qn_cuda_timing ours;
static char missing[128]; /* why they are not there; "" if they are */

static void load_timing(void) {
  void *lib = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL); /* the device holds it already */
#define F(member, symbol, parameters)                                                                                  \
  {                                                                                                                    \
    void *p = lib ? dlsym(lib, symbol) : NULL;                                                                         \
    memcpy(&ours.member, &p, sizeof p);                                                                                \
    if (!p && !*missing) snprintf(missing, sizeof missing, "libcuda.so.1 has no %s to time with", symbol);             \
  }
  QN_CUDA_TIMING(F)
#undef F
}

static qn_status timing_of(const qn_device *d, const qn_cuda_timing **out) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  const qn_cuda_driver *v = qn__cuda_driver_of(d);
  if (!v) return qn__fail(QN_E_ARG, "device '%s' is not driven through CUDA", d->info.name);
  *out = v->timing;
  if (*out) return QN_OK;
  pthread_once(&once, load_timing);
  *out = &ours;
  return *missing ? qn__fail(QN_E_DEVICE, "%s", missing) : QN_OK;
}

/* ---- The timer --------------------------------------------------------------------------------------------------- */

qn_status qn__cuda_timer_new(qn_device *d, qn_cuda_timer **out) {
  const qn_cuda_timing *v;
  bool pushed;
  *out = NULL;
  QN_TRY(timing_of(d, &v));
  QN_TRY(qn__cuda_enter(d, &pushed));
  qn_cuda_timer *t = calloc(1, sizeof *t);
  qn_status s = t ? QN_OK : qn__fail(QN_E_NOMEM, "timer");
  if (!s) t->d = d, t->v = v, s = qn__cuda_result(d, v->stream_new(&t->stream, STREAM_NON_BLOCKING), "cuStreamCreate");
  if (!s) s = qn__cuda_result(d, v->event_new(&t->start, 0), "cuEventCreate");
  if (!s) s = qn__cuda_result(d, v->event_new(&t->end, 0), "cuEventCreate");
  qn__cuda_leave(d, pushed);
  if (s) qn__cuda_timer_free(t);
  else *out = t;
  return s;
}

void qn__cuda_timer_free(qn_cuda_timer *t) {
  bool pushed = false;
  if (!t) return;
  if (!qn__cuda_enter(t->d, &pushed)) {
    if (t->end) t->v->event_free(t->end);
    if (t->start) t->v->event_free(t->start);
    if (t->stream) t->v->stream_free(t->stream);
  }
  qn__cuda_leave(t->d, pushed);
  free(t);
}

static qn_status enqueue_all(const qn_cuda_timer *t, qn_cuda_enqueue enqueue, void *ud, int calls) {
  for (int i = 0; i < calls; i++) QN_TRY(enqueue(ud, i, t->stream));
  return QN_OK;
}

/* Record the calls into a graph ready to launch. The capture is ended in every case. */
static qn_status capture(const qn_cuda_timer *t, qn_cuda_enqueue enqueue, void *ud, int calls, void **exec) {
  const qn_cuda_timing *v = t->v;
  void *graph = NULL;
  QN_TRY(qn__cuda_result(t->d, v->capture_begin(t->stream, CAPTURE_THREAD_LOCAL), "cuStreamBeginCapture"));
  qn_status s = enqueue_all(t, enqueue, ud, calls);
  int error = v->capture_end(t->stream, &graph);
  if (!s) s = qn__cuda_result(t->d, error, "cuStreamEndCapture");
  if (!s) s = qn__cuda_result(t->d, v->graph_new(exec, graph, 0), "cuGraphInstantiate");
  if (graph) v->graph_free(graph);
  return s;
}

static qn_status time_once(const qn_cuda_timer *t, void *exec, qn_cuda_enqueue enqueue, void *ud, int calls,
                           double *seconds) {
  const qn_cuda_timing *v = t->v;
  float milliseconds = 0;
  QN_TRY(qn__cuda_result(t->d, v->event_record(t->start, t->stream), "cuEventRecord"));
  if (exec) QN_TRY(qn__cuda_result(t->d, v->graph_launch(exec, t->stream), "cuGraphLaunch"));
  else QN_TRY(enqueue_all(t, enqueue, ud, calls));
  QN_TRY(qn__cuda_result(t->d, v->event_record(t->end, t->stream), "cuEventRecord"));
  QN_TRY(qn__cuda_result(t->d, v->event_sync(t->end), "cuEventSynchronize"));
  QN_TRY(qn__cuda_result(t->d, v->event_elapsed(&milliseconds, t->start, t->end), "cuEventElapsedTime"));
  *seconds = milliseconds * 1e-3 / calls;
  return QN_OK;
}

qn_status qn__cuda_time(qn_cuda_timer *t, bool graph, qn_cuda_enqueue enqueue, void *ud, int calls, int reps,
                        double *seconds) {
  if (calls < 1 || reps < 1) return qn__fail(QN_E_ARG, "%d calls, %d repetitions", calls, reps);
  bool pushed;
  void *exec = NULL;
  double warm = 0, once = 0;
  QN_TRY(qn__cuda_enter(t->d, &pushed));
  qn_status s = graph ? capture(t, enqueue, ud, calls, &exec) : QN_OK;
  for (; warm < WARM_SECONDS && !s; warm += calls * once) s = time_once(t, exec, enqueue, ud, calls, &once);
  for (int i = 0; i < reps && !s; i++) s = time_once(t, exec, enqueue, ud, calls, &seconds[i]);
  if (exec) t->v->graph_exec_free(exec);
  qn__cuda_leave(t->d, pushed);
  return s;
}
