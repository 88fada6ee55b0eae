/* driver_launch.c - launches, streams, graphs and events of a pretended GPU.
 *
 * A launch runs to its end before it returns; what it did wrong becomes the context's error and is told by every later
 * call, as a GPU's would. A captured graph is a list of launches with their arguments copied. */
#include "driver_launch.h"
#include "driver_gpu.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Launches, streams, graphs ----------------------------------------------------------------------------------- */

typedef struct launch {
  struct launch *next;
  function *f;
  qn_emu_launch how;
  const void **params;
  char values[]; /* copies of the arguments of a captured launch */
} launch;

typedef struct graph {
  launch *first, **last;
  int uses;
} graph;

typedef struct stream {
  graph *capture; /* being recorded, or NULL */
} stream;

static int error_of(qn_emu_finding_kind k) {
  switch (k) {
  case QN_EMU_F_BOUNDS:
  case QN_EMU_F_READONLY:
    return ILLEGAL_ADDRESS;
  case QN_EMU_F_ALIGN:
    return MISALIGNED_ADDRESS;
  case QN_EMU_F_DEADLOCK:
  case QN_EMU_F_BUDGET:
    return LAUNCH_TIMEOUT;
  default:
    return LAUNCH_FAILED;
  }
}

/* Keep what went wrong as the context's error. */
static int judge(gpu *g, const qn_emu_report *r, const qn_emu_launch *how) {
  char text[640], mode[48] = "late";
  g->counters = r->counters, g->weight = (qn_emu_traffic){0};
  for (int i = 0; i < r->ntraffic; i++)
    if (how->constant[0] - r->traffic[i].base < r->traffic[i].size) g->weight = r->traffic[i];
  if (!r->findings) return SUCCESS;
  if (how->mode == QN_EMU_RANDOM) snprintf(mode, sizeof mode, "random, seed %llu", (unsigned long long)how->seed);
  qn__emu_finding_print(&r->list[0], text, sizeof text);
  snprintf(g->text, sizeof g->text, "%s (order: %s; findings: %llu)", text, mode, (unsigned long long)r->findings);
  return g->error = error_of(r->list[0].kind), SUCCESS;
}

static int run(function *f, qn_emu_launch how) {
  qn_emu_report *r;
  how.mode = f->launches % 2 ? QN_EMU_RANDOM : QN_EMU_LATE;
  how.seed = ++f->launches;
  qn_status s = qn__emu_run(f->kernel, &how, &r);
  if (s) return qn__emu_result(s);
  int error = judge(f->g, r, &how);
  qn__emu_report_free(r);
  return error;
}

/* Append a launch with copies of its arguments to a graph. */
static int record(graph *g, function *f, const qn_emu_launch *how) {
  const qn_emu_kernel *k = f->kernel;
  size_t pointers = (size_t)k->nparams * sizeof(void *);
  launch *l = calloc(1, sizeof *l + pointers + k->param_bytes);
  if (!l) return OUT_OF_MEMORY;
  *l = (launch){.f = f, .how = *how, .params = (const void **)(void *)l->values};
  for (int i = 0; i < k->nparams; i++)
    l->params[i] = memcpy(l->values + pointers + k->params[i].offset, how->params[i], k->params[i].size);
  l->how.params = l->params;
  *g->last = l, g->last = &l->next;
  return SUCCESS;
}

/* Of the thread's next launch: its products, and the memory that no kernel writes. */
static _Thread_local double expected;
static _Thread_local uint64_t constant[QN_EMU_CONSTANTS];
void qn__emu_expect(double products, const void *const memory[QN_EMU_CONSTANTS]) {
  expected = products;
  for (int i = 0; i < QN_EMU_CONSTANTS; i++) constant[i] = (uint64_t)(uintptr_t)memory[i];
}

/* Warp instructions after which a launch is said to hang: plenty for every warp to begin and to end, and for every
 * product, though one that does nothing in vain takes less than one for all of a warp's lanes. */
static uint64_t budget_of(const qn_emu_launch *how) {
  enum { per_warp = 1 << 16, per_product = 16 };
  double blocks = (double)how->grid[0] * how->grid[1] * how->grid[2];
  double warps = blocks * ceil((double)how->block[0] * how->block[1] * how->block[2] / 32);
  double budget = per_warp * warps + per_product * expected;
  return budget < 1e18 ? (uint64_t)budget : (uint64_t)1e18;
}

static int launch_on(stream *s, function *f, qn_emu_launch how, void **arguments) {
  ENTER(g);
  char text[160];
  how.budget = budget_of(&how), expected = 0;
  memcpy(how.constant, constant, sizeof constant), memset(constant, 0, sizeof constant);
  if (f->g != g) return qn__emu_say(INVALID_CONTEXT, "the kernel belongs to another context");
  if (how.dynamic_shared > f->dynamic) {
    snprintf(text, sizeof text, "%u bytes of dynamic shared memory beside %u of static: the function may have %u",
             how.dynamic_shared, f->kernel->static_shared, f->dynamic);
    return qn__emu_say(INVALID_VALUE, text);
  }
  how.params = (const void *const *)arguments, how.nparams = f->kernel->nparams;
  return s && s->capture ? record(s->capture, f, &how) : run(f, how);
}

int qn__emu_launch_plain(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                         unsigned shared, void *s, void **arguments, void **extra) {
  if (extra) return qn__emu_say(INVALID_VALUE, "arguments as one buffer are not taken");
  return launch_on(s, f, (qn_emu_launch){.grid = {gx, gy, gz}, .block = {bx, by, bz}, .dynamic_shared = shared},
                   arguments);
}

int qn__emu_launch_ex(const qn_cu_config *c, void *f, void **arguments, void **extra) {
  enum { cluster_dimension = 4, programmatic = 6 };
  qn_emu_launch how = {.dynamic_shared = c->shared};
  if (extra) return qn__emu_say(INVALID_VALUE, "arguments as one buffer are not taken");
  memcpy(how.grid, c->grid, sizeof how.grid);
  memcpy(how.block, c->block, sizeof how.block);
  for (uint32_t i = 0; i < c->n_attributes; i++)
    if (c->attributes[i].id == cluster_dimension)
      memcpy(how.cluster, c->attributes[i].value.cluster, sizeof how.cluster);
    else if (c->attributes[i].id == programmatic) how.programmatic = c->attributes[i].value.flag;
    else return qn__emu_say(INVALID_VALUE, "unknown launch attribute");
  return launch_on(c->stream, f, how, arguments);
}

static int stream_new(void **out, unsigned flags) {
  (void)flags;
  return (*out = calloc(1, sizeof(stream))) ? SUCCESS : OUT_OF_MEMORY;
}

static int graph_drop(void *handle) {
  LOCKED;
  graph *g = handle;
  if (!g || --g->uses) return SUCCESS;
  for (launch *l = g->first, *next; l; l = next) next = l->next, free(l);
  return free(g), SUCCESS;
}

static int stream_free(void *handle) {
  stream *s = handle;
  graph_drop(s->capture);
  return free(s), SUCCESS;
}

int qn__emu_stream_sync(void *s) {
  (void)s;
  ENTER(g);
  return SUCCESS;
}

static int capture_begin(void *handle, int mode) {
  (void)mode;
  ENTER(g);
  stream *s = handle;
  graph *made = s && !s->capture ? calloc(1, sizeof *made) : NULL;
  if (!made) return qn__emu_say(INVALID_VALUE, "this stream cannot be captured now");
  made->last = &made->first, made->uses = 1;
  return s->capture = made, SUCCESS;
}

static int capture_end(void *handle, void **out) {
  ENTER(g);
  stream *s = handle;
  *out = s->capture, s->capture = NULL;
  return *out ? SUCCESS : qn__emu_say(INVALID_VALUE, "nothing is being captured");
}

static int graph_new(void **exec, void *handle, unsigned long long flags) {
  (void)flags;
  ENTER(g);
  ((graph *)handle)->uses++;
  return *exec = handle, SUCCESS;
}

static int graph_launch(void *exec, void *s) {
  (void)s;
  ENTER(g);
  int error = SUCCESS;
  for (launch *l = ((graph *)exec)->first; l && !error && !g->error; l = l->next) error = run(l->f, l->how);
  return error;
}

/* ---- Events: order only, which a launch that has ended already keeps --------------------------------------------- */

static int event_new(void **event, unsigned flags) {
  return (void)flags, (*event = malloc(1)) ? SUCCESS : OUT_OF_MEMORY;
}
static int event_free(void *event) { return free(event), SUCCESS; }
static int event_record(void *event, void *s) { return (void)event, qn__emu_stream_sync(s); }
static int event_sync(void *event) { return qn__emu_stream_sync(event); }
static int event_elapsed(float *milliseconds, void *start, void *end) {
  return (void)milliseconds, (void)start, (void)end, qn__emu_say(NOT_SUPPORTED, "the interpreter must not be timed");
}

const qn_cuda_timing qn__emu_timing = {
    .stream_new = stream_new,
    .stream_free = stream_free,
    .event_new = event_new,
    .event_free = event_free,
    .event_record = event_record,
    .event_sync = event_sync,
    .event_elapsed = event_elapsed,
    .capture_begin = capture_begin,
    .capture_end = capture_end,
    .graph_new = graph_new,
    .graph_launch = graph_launch,
    .graph_exec_free = graph_drop,
    .graph_free = graph_drop,
};
