/* worker.c - the process that touches the device. It trusts nothing it runs: whatever a kernel does to this process,
 * the supervisor goes on without it. */
#include "call.h"
#include "dense.h"
#include "driver.h"
#include "fail.h"
#include "json.h"
#include "measure.h"
#include "protocol.h"
#include "tuner.h"
#include "verify.h"
#include "watch.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

enum { check_cols = 512 };

/* What a kernel is checked with at the full shape, before and after it is timed; it is timed with the second. */
enum { EXACT, TIMED, DRAWS };
static const qn_draw_kind draw_kind[DRAWS] = {QN_DRAW_EXACT, QN_DRAW_RANDOM};
#define SAMPLE_SECONDS 500e-6 /* shorter calls are timed several at once */

typedef struct slot {
  qn_case *c;
  qn_subject subject;
  qn_call call[DRAWS];
  double *share; /* of the calls */
  bool open;
  double error;
  int calls;    /* per sample */
  int64_t next; /* copy of the weight; after 0 it has been timed */
} slot;

typedef struct worker {
  qn_device *device;
  qn_meter *meter;
  qn_draws *draws;
  qn_format format;    /* of the draws, which point into it */
  qn_draw draw[DRAWS]; /* full-shape data, shared by the slots of one problem and M */
  char drawn[sizeof((qn_problem *)0)->spelling];
  struct packed { /* the draws' weights in a layout, for every slot that wants it */
    char layout[33];
    qn_weights weights[DRAWS];
  } packed[QN_SLOTS];
  slot slot[QN_SLOTS];
  qn_cuda_timer *clock;
} worker;

/* Bytes to rotate through so that no cache holds what comes next. What a virtual machine says of its last level is
 * often the whole socket's, of which a guest gets a part: hence a limit. Times that nobody believes need no more than
 * the least. */
static int64_t cold_bytes(const qn_device_info *d) {
  const int64_t limit = (int64_t)256 << 20;
  int64_t most = 16 << 20;
  if (qn__meter_unbelieved()) return most;
  for (int i = 0; i < 3; i++)
    if (4 * d->cache[i] > most) most = 4 * d->cache[i];
  return most < limit ? most : limit;
}

static void close_slot(slot *s) {
  for (int i = 0; i < DRAWS; i++) qn__call_fini(&s->call[i]);
  qn__subject_close(&s->subject);
  free(s->c);
  free(s->share);
  *s = (slot){0};
}

static void close_packed(struct packed *p) {
  for (int i = 0; i < DRAWS; i++) qn__weights_fini(&p->weights[i]);
  *p = (struct packed){0};
}

static void close_slots(worker *w) {
  for (slot *s = w->slot; s < w->slot + QN_SLOTS; s++) close_slot(s);
  for (int i = 0; i < QN_SLOTS; i++) close_packed(&w->packed[i]);
}

/* ---- Requests ---------------------------------------------------------------------------------------------------- */

static qn_status read_case(const cJSON *request, qn_case **out) {
  *out = malloc(sizeof **out);
  if (!*out) return qn__fail(QN_E_NOMEM, "no memory for a case");
  return qn__case_from_json(qn__json_get(request, "case"), *out);
}

static qn_status do_verify(worker *w, const cJSON *request, cJSON *answer) {
  qn_case *c;
  qn_subject subject;
  double error = 0;
  qn_status s = read_case(request, &c);
  if (s == QN_OK) s = qn__subject_open(w->device, c, &subject);
  if (s == QN_OK) {
    s = qn__verify(&subject, w->draws, &error);
    qn__subject_close(&subject);
  }
  free(c);
  qn__json_add_number(answer, "error", error);
  return s;
}

static qn_status make_draws(worker *w, const qn_case *c) {
  const qn_problem *p = &c->problem;
  *w->drawn = 0;
  w->format = c->format;
  for (int i = 0; i < DRAWS; i++) {
    qn__draw_free(&w->draw[i]);
    QN_TRY(qn__draw_make(&w->format, p, draw_kind[i], p->n, p->k, 1, p->k, 1, &w->draw[i]));
    QN_TRY(qn__draw_reference(&w->format, check_cols, &w->draw[i]));
  }
  strcpy(w->drawn, p->spelling);
  return QN_OK;
}

/* Data of the problem at its own shape, with rows for m tokens and one more; kept while the problem stays the same. */
static qn_status full_draws(worker *w, const qn_case *c, int64_t m) {
  if (strcmp(c->problem.spelling, w->drawn)) {
    close_slots(w);
    QN_TRY(make_draws(w, c));
  }
  for (int i = 0; i < DRAWS; i++) QN_TRY(qn__draw_rows(&w->draw[i], m + 1));
  return QN_OK;
}

static bool in_use(const worker *w, const struct packed *p) {
  for (const slot *s = w->slot; s < w->slot + QN_SLOTS; s++)
    if (s->open && !strcmp(s->c->layout.hash, p->layout)) return true;
  return false;
}

/* The draws' weights in the case's layout, packed once: the one that is timed as often as it takes to be cold. The slot
 * that asks is not open, so one place at least is nobody's. */
static qn_status find_packed(worker *w, const qn_case *c, int64_t copies, const qn_weights **out) {
  struct packed *p = w->packed, *spare = NULL;
  for (; p < w->packed + QN_SLOTS && strcmp(p->layout, c->layout.hash); p++)
    if (!*p->layout || (!spare && !in_use(w, p))) spare = p;
  if (p == w->packed + QN_SLOTS) {
    close_packed(p = spare);
    qn_status s = qn__weights_fill(&p->weights[EXACT], w->device, c, &w->draw[EXACT], 1);
    if (s == QN_OK) s = qn__weights_fill(&p->weights[TIMED], w->device, c, &w->draw[TIMED], copies);
    if (s != QN_OK) return close_packed(p), s;
    memcpy(p->layout, c->layout.hash, sizeof p->layout);
  }
  *out = p->weights;
  return QN_OK;
}

static qn_status check_draw(slot *s, int draw, int64_t shift) {
  qn_call *c = &s->call[draw];
  QN_TRY(qn__call_set(c, c->m, shift));
  QN_TRY(qn__call_run(c));
  return qn__call_compare(c, &s->error);
}

/* Run on every draw and compare, on the exact one also with another X in its place; on the interpreter, which is slow,
 * once. */
static qn_status check(slot *s) {
  QN_TRY(check_draw(s, EXACT, 0));
  if (!s->subject.device->info.timed) return QN_OK;
  QN_TRY(check_draw(s, EXACT, 1));
  return check_draw(s, TIMED, 0);
}

static qn_status open_slot(worker *w, slot *s, int64_t m, cJSON *answer) {
  int64_t bytes;
  const qn_problem *p = &s->c->problem;
  const qn_weights *weights;
  QN_TRY(qn__subject_open(w->device, s->c, &s->subject));
  QN_TRY(qn__layout_bytes(&s->c->layout, p->n, p->k, &bytes));
  qn__json_add_number(answer, "bytes", (double)bytes);
  int64_t all = bytes * qn__draw_experts(p);
  int64_t copies = w->device->info.timed ? cold_bytes(&w->device->info) / (all > 0 ? all : 1) + 2 : 1;
  QN_TRY(find_packed(w, s->c, copies, &weights));
  for (int i = 0; i < DRAWS; i++) {
    QN_TRY(qn__call_aim(&s->call[i], &s->subject, &weights[i], &w->draw[i], qn__columns(p)));
    s->call[i].share = s->share;
    QN_TRY(qn__call_set(&s->call[i], m, 0));
  }
  s->open = true;
  return check(s);
}

/* How a request shares out rows, as calls want it. *out, which the caller frees, is NULL where it says nothing. */
static qn_status read_share(const cJSON *request, int64_t experts, double **out) {
  const cJSON *list = qn__json_get(request, "share"), *x;
  *out = NULL;
  if (!list) return QN_OK;
  if (!experts || cJSON_GetArraySize(list) != experts)
    return qn__fail(QN_E_ARG, "a share for each of %d experts; there are %lld", cJSON_GetArraySize(list),
                    (long long)experts);
  double number[QN_EXPERTS];
  int64_t e = 0;
  cJSON_ArrayForEach(x, list) number[e++] = cJSON_IsNumber(x) ? x->valuedouble : 0;
  return qn__share_make(number, experts, out);
}

static qn_status do_open(worker *w, const cJSON *request, cJSON *answer) {
  int i = qn__json_int(request, "slot", 0);
  int64_t m = (int64_t)qn__json_number(request, "m", 0);
  qn_case *c;
  qn_status status = read_case(request, &c);
  if (status == QN_OK && (i < 0 || i >= QN_SLOTS || m < 1))
    status = qn__fail(QN_E_ARG, "slot %d, M = %lld", i, (long long)m);
  double *share = NULL;
  if (status == QN_OK) status = read_share(request, c->problem.experts, &share);
  if (status == QN_OK) status = full_draws(w, c, m);
  if (status != QN_OK) {
    free(c), free(share);
    return status;
  }
  slot *s = &w->slot[i];
  close_slot(s);
  s->c = c, s->share = share;
  status = open_slot(w, s, m, answer);
  qn__json_add_number(answer, "error", s->error);
  return status;
}

/* Run a kernel once at its full shape and say what it did, where the device can tell. */
static qn_status do_count(worker *w, const cJSON *request, cJSON *answer) {
  const qn_emu_counters *c = qn__emu_device_counters(w->device);
  const qn_emu_traffic *weight = qn__emu_device_weight(w->device);
  if (!c) return qn__fail(QN_E_DEVICE, "%s counts nothing; the interpreter does", w->device->info.name);
  QN_TRY(do_open(w, request, answer));
  const struct {
    const char *name;
    uint64_t value;
  } list[] = {{"warp_insns", c->warp_insns},
              {"global_requests", c->global_requests},
              {"global_sectors", c->global_sectors},
              {"global_ideal", c->global_ideal},
              {"load_bytes", c->global_load_bytes + c->bulk_bytes},
              {"store_bytes", c->global_store_bytes},
              {"shared_requests", c->shared_requests},
              {"shared_passes", c->shared_passes},
              {"shared_ideal", c->shared_ideal},
              {"mma", c->mma + c->wgmma},
              {"mma_flops", c->mma_flops + c->wgmma_flops},
              {"barriers", c->barriers},
              {"weight_asked", weight->asked},
              {"weight_distinct", weight->distinct},
              {"flight_bytes", c->flight_bytes},
              {"wgmma_bytes", c->wgmma_bytes},
              {"ctas", c->ctas}};
  cJSON *counters = qn__json_add_object(answer, "counters"), *kinds = qn__json_add_object(counters, "kinds");
  for (size_t i = 0; i < QN_COUNT(list); i++) qn__json_add_number(counters, list[i].name, (double)list[i].value);
  for (int k = 0; k < QN_EMU_KINDS; k++)
    if (c->by_kind[k]) qn__json_add_number(kinds, qn__emu_kind_word((qn_emu_kind)k), (double)c->by_kind[k]);
  return QN_OK;
}

static qn_status one_call(slot *s) {
  qn_host_args args = qn__call_args(&s->call[TIMED], s->next++);
  return qn__bound_run(s->subject.device, s->call[TIMED].bound, &args, NULL);
}

static qn_status sample(slot *s, double *seconds) {
  if (!s->calls) { /* how many fit a sample */
    double start = qn__now();
    QN_TRY(one_call(s));
    QN_TRY(one_call(s));
    double each = (qn__now() - start) / 2;
    s->calls = each >= SAMPLE_SECONDS ? 1 : (int)(SAMPLE_SECONDS / (each > 1e-7 ? each : 1e-7)) + 1;
  }
  double start = qn__now();
  for (int i = 0; i < s->calls; i++) QN_TRY(one_call(s));
  *seconds = (qn__now() - start) / s->calls;
  return QN_OK;
}

static qn_status enqueue(void *ud, int i, void *stream) {
  slot *s = ud;
  qn_host_args args = qn__call_args(&s->call[TIMED], i);
  s->next = i + 1;
  return qn__bound_run(s->subject.device, s->call[TIMED].bound, &args, stream);
}

/* A slot with what is read beside it: the rate of plain reads means nothing beside a weight that is small. */
typedef struct subject_of_time {
  slot *s;
  qn_meter *meter;
} subject_of_time;

static qn_status take(void *ud, qn_sample *out) {
  const subject_of_time *x = ud;
  const qn_problem *p = &x->s->c->problem;
  qn__call_watch(&x->s->call[TIMED], x->s->calls ? x->s->calls : 3);
  out->bandwidth = p->n * p->k >= 1 << 20 ? qn__meter_bandwidth(x->meter) : 0;
  return sample(x->s, &out->seconds);
}

static void add_sampling(cJSON *answer, const qn_sampling *x) {
  qn__json_add_number(answer, "thrown", x->thrown);
  qn__json_add_number(answer, "disturbed", x->disturbed);
}

static qn_status time_host(worker *w, slot *s, int reps, cJSON *answer) {
  cJSON *seconds = qn__json_add_array(answer, "seconds"), *bandwidth = qn__json_add_array(answer, "bandwidth");
  subject_of_time subject = {s, w->meter};
  qn_sampling sampling = qn__sampling_begin(qn__meter_sampler(w->meter), reps);
  for (int i = 0; i < reps; i++) {
    qn_sample x;
    QN_TRY(qn__sample(&sampling, take, &subject, &x));
    qn__json_append_number(seconds, x.seconds);
    qn__json_append_number(bandwidth, x.bandwidth);
  }
  add_sampling(answer, &sampling);
  return QN_OK;
}

static qn_status time_cuda(worker *w, slot *s, int reps, cJSON *answer) {
  cJSON *seconds = qn__json_add_array(answer, "seconds");
  double t[64];
  if (reps > 64) reps = 64;
  qn__call_watch(&s->call[TIMED], QN_CUDA_CALLS * (reps + 1));
  QN_TRY(qn__cuda_time(w->clock, true, enqueue, s, QN_CUDA_CALLS, reps, t));
  for (int i = 0; i < reps; i++) qn__json_append_number(seconds, t[i]);
  return QN_OK;
}

/* Is the device one that is timed? A GPU has its clock from now on. */
static qn_status may_time(worker *w) {
  if (!w->device->info.timed) return qn__fail(QN_E_DEVICE, "%s must not be timed", w->device->info.name);
  return w->clock || !w->device->target->events ? QN_OK : qn__cuda_timer_new(w->device, &w->clock);
}

static slot *find_slot(worker *w, const cJSON *request) {
  int i = qn__json_int(request, "slot", 0);
  return i >= 0 && i < QN_SLOTS && w->slot[i].open ? &w->slot[i] : NULL;
}

static qn_status do_time(worker *w, const cJSON *request, cJSON *answer) {
  slot *s = find_slot(w, request);
  int reps = qn__json_int(request, "reps", 0);
  if (!s) return qn__fail(QN_E_ARG, "the slot is not open");
  QN_TRY(may_time(w));
  return w->device->target->events ? time_cuda(w, s, reps, answer) : time_host(w, s, reps, answer);
}

static qn_status do_check(worker *w, const cJSON *request, cJSON *answer) {
  slot *s = find_slot(w, request);
  (void)answer;
  if (!s) return qn__fail(QN_E_ARG, "the slot is not open");
  QN_TRY(qn__call_guards(&s->call[TIMED]));
  if (s->next) QN_TRY(qn__call_again(&s->call[TIMED], s->next - 1));
  return check(s);
}

/* A row's bits do not depend on M: at the M of the request, its half, the half of that… */
static qn_status do_rows(worker *w, const cJSON *request, cJSON *answer) {
  QN_TRY(do_open(w, request, answer));
  qn_call *c = &find_slot(w, request)->call[TIMED];
  int64_t most = c->m;
  unsigned char *before = malloc(c->buffer[QN_ARG_Y].size);
  if (!before) return qn__fail(QN_E_NOMEM, "output to compare with");
  memcpy(before, c->out, c->buffer[QN_ARG_Y].size);
  qn_status s = QN_OK;
  for (int64_t m = most / 2; m && s == QN_OK; m /= 2) {
    s = qn__call_set(c, m, 0);
    if (s == QN_OK) s = qn__call_run(c);
    if (s == QN_OK) s = qn__call_same_rows(c, before, most);
  }
  free(before);
  return s;
}

static qn_status do_close(worker *w, const cJSON *request, cJSON *answer) {
  (void)request, (void)answer;
  close_slots(w);
  return QN_OK;
}

static qn_status do_blas(worker *w, const cJSON *request, cJSON *answer) {
  qn_device *d = w->device;
  int64_t n = (int64_t)qn__json_number(request, "n", 0);
  int64_t k = (int64_t)qn__json_number(request, "k", 0);
  int64_t m = (int64_t)qn__json_number(request, "m", 0);
  bool host = d->target->host_code;
  double t[QN_DENSE_REPS];
  qn_sample sample[QN_DENSE_REPS] = {{0}};
  qn_sampling sampling = {0};
  QN_TRY(may_time(w));
  close_slots(w);
  QN_TRY(host ? qn__openblas_time(w->meter, d, cold_bytes(&d->info), m, n, k, sample, &sampling)
              : qn__cublas_time(w->clock, d, cold_bytes(&d->info), m, n, k, t));
  cJSON *seconds = qn__json_add_array(answer, "seconds"), *bandwidth = qn__json_add_array(answer, "bandwidth");
  for (int i = 0; i < QN_DENSE_REPS; i++) {
    qn__json_append_number(seconds, host ? sample[i].seconds : t[i]);
    qn__json_append_number(bandwidth, sample[i].bandwidth);
  }
  qn__json_add_text(answer, "by", host ? "OpenBLAS" : "cuBLAS");
  add_sampling(answer, &sampling);
  return QN_OK;
}

static const struct {
  const char *op;
  qn_status (*run)(worker *w, const cJSON *request, cJSON *answer);
} ops[] = {{"verify", do_verify}, {"open", do_open},   {"time", do_time},   {"check", do_check},
           {"rows", do_rows},     {"count", do_count}, {"close", do_close}, {"blas", do_blas}};

static qn_status dispatch(worker *w, const cJSON *request, cJSON *answer) {
  const char *op = qn__json_text(request, "op", NULL);
  for (size_t i = 0; op && i < QN_COUNT(ops); i++)
    if (!strcmp(op, ops[i].op)) return ops[i].run(w, request, answer);
  return qn__fail(QN_E_ARG, "unknown request");
}

/* ---- The loop ---------------------------------------------------------------------------------------------------- */

/* Answer request `id`. The answer is deleted; if there was no memory for it, that is the answer. */
static bool say(FILE *out, int id, cJSON *answer) {
  qn__json_add_number(answer, "id", id);
  char *text = cJSON_PrintUnformatted(answer);
  cJSON_Delete(answer);
  int n = text ? fprintf(out, "%s\n", text)
               : fprintf(out, "{\"id\":%d,\"status\":%d,\"why\":\"no memory for an answer\"}\n", id, QN_E_NOMEM);
  cJSON_free(text);
  return n > 0 && !fflush(out);
}

static void add_status(cJSON *answer, qn_status s) {
  if (s == QN_E_NOMEM) qn__fail(s, "out of memory: %s", qn__errmsg());
  qn__json_add_number(answer, "status", s);
  qn__json_add_text(answer, "why", s == QN_OK ? "" : qn__errmsg());
}

/* Say which buffer a kernel left, if it did, and end as if nobody had asked. */
static void on_fault(int number, siginfo_t *info, void *context) {
  char text[160];
  (void)context;
  if (qn__call_fault(info->si_addr, text, sizeof text)) qn__watch_last(text);
  signal(number, SIG_DFL); /* and the same instruction again */
}

int qn__worker_main(int argc, char **argv) {
  FILE *out = fdopen(dup(1), "w");
  worker *w = out ? calloc(1, sizeof *w) : NULL;
  pid_t self = getpid();
  char *line = NULL;
  size_t room = 0;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); /* bad kernels are expected; their cores are not */
  dup2(2, 1);                                     /* whatever prints must not disturb the conversation */
  if (!w) return QN_WORKER_NOMEM;
  qn__device_provide("emu:", qn__emu_device_open);
  qn_status s = qn__device_open(NULL, argc > 1 ? argv[1] : NULL, &w->device);
  if (s == QN_OK) s = qn__meter_new(w->device, (size_t)cold_bytes(&w->device->info), &w->meter);
  if (s == QN_OK) s = qn__draws_new(&w->draws);
  cJSON *hello = cJSON_CreateObject();
  add_status(hello, s);
  if (s == QN_OK) qn__json_add(hello, "info", qn__info_to_json(&w->device->info));
  if (!say(out, 0, hello) || s != QN_OK) return 1;
  qn__watch_open(out);
  const struct sigaction fault = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
  sigaction(SIGSEGV, &fault, NULL);
  sigaction(SIGBUS, &fault, NULL);
  errno = 0; /* which tells a lack of memory from an end and from nonsense */
  while (getline(&line, &room, stdin) > 0) {
    cJSON *request = cJSON_Parse(line), *body = cJSON_CreateObject();
    if (!request && errno == ENOMEM) return QN_WORKER_NOMEM; /* the answer needs its number */
    s = dispatch(w, request, body);
    if (getpid() != self) _exit(0); /* a kernel has forked: only the worker itself answers */
    add_status(body, s);
    int id = qn__json_int(request, "id", 0);
    cJSON_Delete(request);
    if (!say(out, id, body) || s == QN_E_CUDA) return 0; /* never go on in a context that has failed */
    errno = 0;
  }
  return errno == ENOMEM ? QN_WORKER_NOMEM : 0; /* the process ends here; the system takes everything back */
}
