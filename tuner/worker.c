/* worker.c - the process that touches the device: reads a request, does it, answers. It trusts no kernel, and no longer
 * itself once a kernel went wrong; the supervisor starts another. */
#include "bench.h"
#include "dense.h"
#include "fail.h"
#include "protocol.h"
#include "tuner.h"
#include "verify.h"
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define MOST_REPS 4096

typedef struct worker {
  qn_line line;
  qn_device *device;
  qn_meter *meter;
  qn_draws *draws;
  qn_bench *bench;
  qn_dense *dense;
  qn_case *c; /* of the request */
} worker;

static void begin(void *ud) {
  worker *w = ud;
  cJSON *j = cJSON_CreateObject();
  cJSON_AddTrueToObject(j, "begin");
  qn__line_write(&w->line, j); /* if nobody listens, the next read ends the worker */
  cJSON_Delete(j);
}

static int64_t number(const cJSON *request, const char *key) {
  const cJSON *j = cJSON_GetObjectItemCaseSensitive(request, key);
  return cJSON_IsNumber(j) && j->valuedouble >= 0 && j->valuedouble <= INT32_MAX ? (int64_t)j->valuedouble : 0;
}

static qn_status read_case(worker *w, const cJSON *request) {
  return qn__case_from_json(cJSON_GetObjectItemCaseSensitive(request, "case"), w->c);
}

/* ---- Requests ---------------------------------------------------------------------------------------------------- */

static qn_status do_info(worker *w, const cJSON *request, cJSON *answer) {
  (void)request;
  cJSON_AddItemToObject(answer, "info", qn__info_to_json(&w->device->info));
  return QN_OK;
}

static qn_status do_verify(worker *w, const cJSON *request, cJSON *answer) {
  qn_subject s;
  double error = 0;
  QN_TRY(read_case(w, request));
  QN_TRY(qn__subject_open(w->device, w->c, &s));
  begin(w);
  qn_status status = qn__verify(&s, w->draws, &error);
  qn__subject_close(&s);
  cJSON_AddNumberToObject(answer, "error", error);
  return status;
}

static void add_seconds(cJSON *answer, const double *seconds, int reps) {
  cJSON_AddItemToObject(answer, "seconds", cJSON_CreateDoubleArray(seconds, reps));
}

static qn_status do_time(worker *w, const cJSON *request, cJSON *answer) {
  double seconds[MOST_REPS];
  qn_bench_result r = {.seconds = seconds};
  qn_bench_order o = {.m = number(request, "m"),
                      .rows = number(request, "rows"),
                      .reps = (int)number(request, "reps"),
                      .check = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(request, "check"))};
  if (o.reps > MOST_REPS) return qn__fail(QN_E_LIMIT, "%d repetitions, limit %d", o.reps, MOST_REPS);
  QN_TRY(read_case(w, request));
  QN_TRY(qn__bench_time(w->bench, w->c, &o, begin, w, &r));
  add_seconds(answer, seconds, o.reps);
  cJSON_AddNumberToObject(answer, "disturbed", r.disturbed);
  cJSON_AddNumberToObject(answer, "error", r.error);
  cJSON_AddStringToObject(answer, "bits", r.bits);
  return QN_OK;
}

static qn_status do_stream(worker *w, const cJSON *request, cJSON *answer) {
  (void)request;
  double rate = 0;
  if (w->meter) QN_TRY(qn__meter_stream(w->meter, &rate));
  cJSON_AddNumberToObject(answer, "rate", rate);
  return QN_OK;
}

static qn_status do_dense(worker *w, const cJSON *request, cJSON *answer) {
  double seconds[MOST_REPS];
  int64_t n = number(request, "n"), k = number(request, "k"), m = number(request, "m"), reps = number(request, "reps");
  if (n < 1 || k < 1 || m < 1 || reps < 1 || reps > MOST_REPS)
    return qn__fail(QN_E_ARG, "dense: n %lld, k %lld, m %lld, reps %lld", (long long)n, (long long)k, (long long)m,
                    (long long)reps);
  if (!w->meter) return qn__fail(QN_E_DEVICE, "device %s is not for timing", w->device->info.name);
  if (!w->dense) QN_TRY(qn__dense_new(w->device, w->meter, &w->dense));
  QN_TRY(qn__dense_time(w->dense, n, k, m, (int)reps, seconds));
  add_seconds(answer, seconds, (int)reps);
  cJSON_AddStringToObject(answer, "by", qn__dense_name(w->dense));
  return QN_OK;
}

static const struct verb {
  const char *name;
  qn_status (*run)(worker *w, const cJSON *request, cJSON *answer);
} verbs[] = {{"info", do_info}, {"verify", do_verify}, {"time", do_time}, {"stream", do_stream}, {"dense", do_dense}};

static qn_status dispatch(worker *w, const cJSON *request, cJSON *answer) {
  const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(request, "do"));
  for (size_t i = 0; i < QN_COUNT(verbs); i++)
    if (name && !strcmp(name, verbs[i].name)) return verbs[i].run(w, request, answer);
  return qn__fail(QN_E_ARG, "unknown request '%s'", name ? name : "");
}

/* Do one request. False when the worker should end. */
static bool serve(worker *w) {
  cJSON *request, *answer = cJSON_CreateObject();
  qn_status s = qn__line_read(&w->line, -1, &request);
  bool heard = s != QN_E_IO;
  if (!s) s = dispatch(w, request, answer);
  cJSON_AddBoolToObject(answer, "ok", s == QN_OK);
  if (s) {
    cJSON_AddStringToObject(answer, "status", qn_status_name(s));
    cJSON_AddStringToObject(answer, "text", qn__errmsg());
  }
  bool told = heard && qn__line_write(&w->line, answer) == QN_OK;
  cJSON_Delete(request);
  cJSON_Delete(answer);
  return told && s != QN_E_WRONG && s != QN_E_CUDA;
}

/* ---- Process ----------------------------------------------------------------------------------------------------- */

/* Keep the line for ourselves: what a library prints goes to standard error. */
static qn_status take_line(qn_line *l) {
  *l = (qn_line){.in = dup(0), .out = dup(1)};
  if (l->in < 0 || l->out < 0 || dup2(2, 1) < 0)
    return qn__fail(QN_E_IO, "standard input or output: %s", strerror(errno));
  return QN_OK;
}

static qn_status open_all(worker *w, const char *device) {
  w->c = malloc(sizeof *w->c);
  if (!w->c) return qn__fail(QN_E_NOMEM, "case");
  QN_TRY(qn__device_open(device, &w->device));
  if (w->device->info.timed) QN_TRY(qn__meter_new(w->device, &w->meter));
  QN_TRY(qn__draws_new(&w->draws));
  return qn__bench_new(w->device, w->meter, &w->bench);
}

static void close_all(worker *w) {
  qn__bench_free(w->bench);
  qn__draws_free(w->draws);
  qn__dense_free(w->dense);
  qn__meter_free(w->meter);
  qn__device_close(w->device);
  qn__line_fini(&w->line);
  free(w->c);
}

/* Usage: quernel-worker DEVICE PARENT. The worker dies with its parent. */
int qn_worker_main(int argc, char **argv) {
  worker w = {.line = {.in = -1, .out = -1}};
  if (argc > 2 && (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != (pid_t)strtol(argv[2], NULL, 10))) return 1;
  qn_status s = take_line(&w.line);
  if (!s) s = open_all(&w, argc > 1 && argv[1][0] ? argv[1] : NULL);
  if (!s)
    while (serve(&w)) {
    }
  else { /* the first answer, whatever is asked */ cJSON *j = cJSON_CreateObject();
    cJSON_AddFalseToObject(j, "ok");
    cJSON_AddStringToObject(j, "status", qn_status_name(s));
    cJSON_AddStringToObject(j, "text", qn__errmsg());
    qn__line_write(&w.line, j);
    cJSON_Delete(j);
  }
  close_all(&w);
  return s ? 1 : 0;
}
