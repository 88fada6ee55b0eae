/* driver.c - pretended GPUs behind the functions of the CUDA driver API.
 *
 * Ordinals number the architectures in the order in which they were first opened. A launch runs to its end before it
 * returns; what it did wrong becomes the context's error and is told by every later call, as a GPU's would. A captured
 * graph is a list of launches with their arguments copied. One lock guards everything: this is no fast path. */
#include "driver.h"
#include "device_cuda.h"
#include "fail.h"
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Errors ------------------------------------------------------------------------------------------------------ */

#define RESULT_MAP(X)                                                                                                  \
  X(0, SUCCESS, "no error")                                                                                            \
  X(1, INVALID_VALUE, "invalid argument")                                                                              \
  X(2, OUT_OF_MEMORY, "out of memory")                                                                                 \
  X(101, INVALID_DEVICE, "invalid device ordinal")                                                                     \
  X(201, INVALID_CONTEXT, "no context is current")                                                                     \
  X(209, NO_BINARY_FOR_GPU, "no code for this architecture")                                                           \
  X(218, INVALID_PTX, "the PTX is refused")                                                                            \
  X(500, NOT_FOUND, "named symbol not found")                                                                          \
  X(700, ILLEGAL_ADDRESS, "an illegal memory access was encountered")                                                  \
  X(701, LAUNCH_OUT_OF_RESOURCES, "too many resources requested for launch")                                           \
  X(702, LAUNCH_TIMEOUT, "the launch does not end")                                                                    \
  X(716, MISALIGNED_ADDRESS, "misaligned address")                                                                     \
  X(719, LAUNCH_FAILED, "the kernel is wrong")                                                                         \
  X(801, NOT_SUPPORTED, "operation not supported: the interpreter is not timed")

enum {
#define X(code, name, text) name = code,
  RESULT_MAP(X)
#undef X
};

static _Thread_local int last_error; /* whose text `detail` is */
static _Thread_local char detail[768];

static int say(int error, const char *text) {
  snprintf(detail, sizeof detail, "%s", text);
  return last_error = error;
}

/* The driver's result for a status of the interpreter. */
static int result(qn_status s) {
  static const struct {
    qn_status status;
    int error;
  } table[] = {{QN_OK, SUCCESS},
               {QN_E_NOMEM, OUT_OF_MEMORY},
               {QN_E_COMPILE, INVALID_PTX},
               {QN_E_DEVICE, NO_BINARY_FOR_GPU},
               {QN_E_LIMIT, LAUNCH_OUT_OF_RESOURCES}};
  for (size_t i = 0; i < QN_COUNT(table); i++)
    if (table[i].status == s) return s ? say(table[i].error, qn__errmsg()) : SUCCESS;
  return say(INVALID_VALUE, qn__errmsg());
}

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

static int error_name(int error, const char **text) {
  *text = NULL;
#define X(code, name, sentence)                                                                                        \
  if (error == code) *text = "CUDA_" #name;
  RESULT_MAP(X)
#undef X
  return *text ? SUCCESS : INVALID_VALUE;
}

static int error_text(int error, const char **text) {
  *text = error && error == last_error ? detail : NULL;
#define X(code, name, sentence)                                                                                        \
  if (error == code && !*text) *text = sentence;
  RESULT_MAP(X)
#undef X
  return *text ? SUCCESS : INVALID_VALUE;
}

/* ---- Pretended GPUs ---------------------------------------------------------------------------------------------- */

typedef struct gpu {
  char arch[16]; /* "sm_90a" */
  qn_emu *emu;   /* while the context is retained */
  int retained;
  struct module *modules; /* what is loaded; a context takes them with it */
  int error;              /* that destroyed the context */
  char text[sizeof detail];
  qn_emu_counters counters; /* of the last launch */
} gpu;

enum { most_gpus = 16, most_contexts = 8, l2_bytes = 50 << 20 };
static gpu gpus[most_gpus]; /* of the process, as those of a CUDA driver are: its functions name them by number */
static int n_gpus;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local gpu *stack[most_contexts];
static _Thread_local int depth;

static void unlock(int *locked) { (void)locked, pthread_mutex_unlock(&lock); }
#define LOCKED __attribute__((cleanup(unlock), unused)) int locked_ = pthread_mutex_lock(&lock)

/* The current context, or the error that a call meets at once. */
#define ENTER(g)                                                                                                       \
  LOCKED;                                                                                                              \
  gpu *g = depth ? stack[depth - 1] : NULL;                                                                            \
  if (!g || !g->emu) return say(INVALID_CONTEXT, "no context is current");                                             \
  if (g->error) return say(g->error, g->text)

static int init(unsigned flags) { return flags ? INVALID_VALUE : SUCCESS; }
static int driver_version(int *version) { return *version = 13000, SUCCESS; }

static int device_count(int *count) {
  LOCKED;
  return *count = n_gpus, SUCCESS;
}

static int device_get(int *device, int ordinal) {
  LOCKED;
  return *device = ordinal, ordinal >= 0 && ordinal < n_gpus ? SUCCESS : INVALID_DEVICE;
}

static int device_name(char *name, int size, int device) {
  return snprintf(name, (size_t)size, "PTX interpreter, %s", gpus[device].arch), SUCCESS;
}

static int device_attribute(int *value, int attribute, int device) {
  LOCKED;
  qn_emu *e;
  qn_status s = qn__emu_open_name(gpus[device].arch, &e);
  if (s) return result(s);
  const qn_architecture *l = qn__emu_limits_of(e);
  const struct {
    int attribute, value;
  } known[] = {{16, (int)l->multiprocessors},
               {38, l2_bytes},
               {39, (int)l->threads_sm},
               {75, l->sm / 10},
               {76, l->sm % 10},
               {81, (int)l->shared_sm},
               {82, QN_SM_REGISTERS},
               {97, (int)l->shared_block},
               {106, (int)l->blocks_sm}};
  int error = INVALID_VALUE;
  for (size_t i = 0; i < QN_COUNT(known); i++)
    if (known[i].attribute == attribute) *value = known[i].value, error = SUCCESS;
  qn__emu_close(e);
  return error;
}

static int context_retain(void **context, int device) {
  LOCKED;
  gpu *g = &gpus[device];
  if (!g->retained) {
    qn_status s = qn__emu_open_name(g->arch, &g->emu);
    if (s) return result(s);
    g->error = 0;
  }
  g->retained++;
  return *context = g, SUCCESS;
}

static void modules_free(struct module *m);

static int context_release(int device) {
  LOCKED;
  gpu *g = &gpus[device];
  if (!g->retained || --g->retained) return SUCCESS;
  modules_free(g->modules);
  g->modules = NULL;
  qn__emu_close(g->emu);
  g->emu = NULL;
  return SUCCESS;
}

static int context_current(void **context) { return *context = depth ? stack[depth - 1] : NULL, SUCCESS; }

static int context_push(void *context) {
  if (depth == most_contexts) return say(INVALID_VALUE, "contexts are pushed and not popped");
  return stack[depth++] = context, SUCCESS;
}

static int context_pop(void **context) {
  if (!depth) return say(INVALID_CONTEXT, "no context is current");
  return *context = stack[--depth], SUCCESS;
}

/* ---- Memory ------------------------------------------------------------------------------------------------------ */

static int mem_alloc(qn_cu_ptr *p, size_t bytes) {
  ENTER(g);
  return result(qn__emu_alloc(g->emu, bytes, p));
}

static int mem_free(qn_cu_ptr p) {
  ENTER(g);
  return result(qn__emu_free(g->emu, p));
}

static int mem_upload(qn_cu_ptr dst, const void *src, size_t bytes) {
  ENTER(g);
  return result(qn__emu_write(g->emu, dst, src, bytes));
}

static int mem_download(void *dst, qn_cu_ptr src, size_t bytes) {
  ENTER(g);
  return result(qn__emu_read(g->emu, dst, src, bytes));
}

/* ---- Modules ----------------------------------------------------------------------------------------------------- */

/* A block's shared memory, static and dynamic, beyond which a function must ask for its dynamic part. */
enum { SHARED_WITHOUT_ASKING = 48 << 10 };

typedef struct function {
  struct function *next; /* of its module */
  gpu *g;
  const qn_emu_kernel *kernel;
  uint32_t dynamic;  /* most dynamic shared memory of a launch */
  uint64_t launches; /* so far */
} function;

typedef struct module {
  struct module *next; /* of its context */
  gpu *g;
  qn_emu_module *ptx;
  function *functions;
} module;

static int module_load(void **out, const void *image) {
  ENTER(g);
  module *m = calloc(1, sizeof *m);
  qn_status s = m ? qn__emu_module_load(g->emu, image, &m->ptx) : qn__fail(QN_E_NOMEM, "module");
  if (s) free(m), m = NULL;
  else m->g = g, m->next = g->modules, g->modules = m;
  return *out = m, result(s);
}

static void module_free(module *m) {
  for (function *f = m->functions, *next; f; f = next) next = f->next, free(f);
  qn__emu_module_free(m->ptx);
  free(m);
}

static void modules_free(module *m) {
  for (module *next; m; m = next) next = m->next, module_free(m);
}

static int module_unload(void *handle) {
  LOCKED;
  module *m = handle, **at = &m->g->modules;
  while (*at != m) at = &(*at)->next;
  *at = m->next;
  return module_free(m), SUCCESS;
}

static int module_function(void **out, void *handle, const char *name) {
  ENTER(g);
  module *m = handle;
  const qn_emu_kernel *k;
  if (qn__emu_kernel_find(m->ptx, name, &k)) return say(NOT_FOUND, qn__errmsg());
  function *f = calloc(1, sizeof *f);
  if (!f) return OUT_OF_MEMORY;
  *f = (function){.next = m->functions, .g = g, .kernel = k};
  if (k->static_shared < SHARED_WITHOUT_ASKING) f->dynamic = SHARED_WITHOUT_ASKING - k->static_shared;
  return *out = m->functions = f, SUCCESS;
}

static int function_set(void *handle, int attribute, int value) {
  enum { max_dynamic_shared = 8 };
  ENTER(g);
  function *f = handle;
  if (attribute != max_dynamic_shared) return say(INVALID_VALUE, "unknown attribute of a function");
  if (value < 0 || f->kernel->static_shared + (uint64_t)value > qn__emu_limits_of(g->emu)->shared_block)
    return say(INVALID_VALUE, "more shared memory than a block can have");
  return f->dynamic = (uint32_t)value, SUCCESS;
}

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

/* Keep what went wrong as the context's error. */
static int judge(gpu *g, const qn_emu_report *r, const qn_emu_launch *how) {
  char text[640], mode[48] = "late";
  g->counters = r->counters;
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
  if (s) return result(s);
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

static _Thread_local double expected; /* products of the thread's next launch */
static void expect(double products) { expected = products; }

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
  if (f->g != g) return say(INVALID_CONTEXT, "the kernel belongs to another context");
  if (how.dynamic_shared > f->dynamic) {
    snprintf(text, sizeof text, "%u bytes of dynamic shared memory beside %u of static: the function may have %u",
             how.dynamic_shared, f->kernel->static_shared, f->dynamic);
    return say(INVALID_VALUE, text);
  }
  how.params = (const void *const *)arguments, how.nparams = f->kernel->nparams;
  return s && s->capture ? record(s->capture, f, &how) : run(f, how);
}

static int launch_plain(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                        unsigned shared, void *s, void **arguments, void **extra) {
  if (extra) return say(INVALID_VALUE, "arguments as one buffer are not taken");
  return launch_on(s, f, (qn_emu_launch){.grid = {gx, gy, gz}, .block = {bx, by, bz}, .dynamic_shared = shared},
                   arguments);
}

static int launch_ex(const qn_cu_config *c, void *f, void **arguments, void **extra) {
  enum { cluster_dimension = 4, programmatic = 6 };
  qn_emu_launch how = {.dynamic_shared = c->shared};
  if (extra) return say(INVALID_VALUE, "arguments as one buffer are not taken");
  memcpy(how.grid, c->grid, sizeof how.grid);
  memcpy(how.block, c->block, sizeof how.block);
  for (uint32_t i = 0; i < c->n_attributes; i++)
    if (c->attributes[i].id == cluster_dimension)
      memcpy(how.cluster, c->attributes[i].value.cluster, sizeof how.cluster);
    else if (c->attributes[i].id != programmatic) return say(INVALID_VALUE, "unknown launch attribute");
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

static int stream_sync(void *s) {
  (void)s;
  ENTER(g);
  return SUCCESS;
}

static int capture_begin(void *handle, int mode) {
  (void)mode;
  ENTER(g);
  stream *s = handle;
  graph *made = s && !s->capture ? calloc(1, sizeof *made) : NULL;
  if (!made) return say(INVALID_VALUE, "this stream cannot be captured now");
  made->last = &made->first, made->uses = 1;
  return s->capture = made, SUCCESS;
}

static int capture_end(void *handle, void **out) {
  ENTER(g);
  stream *s = handle;
  *out = s->capture, s->capture = NULL;
  return *out ? SUCCESS : say(INVALID_VALUE, "nothing is being captured");
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
static int event_record(void *event, void *s) { return (void)event, stream_sync(s); }
static int event_sync(void *event) { return stream_sync(event); }
static int event_elapsed(float *milliseconds, void *start, void *end) {
  return (void)milliseconds, (void)start, (void)end, say(NOT_SUPPORTED, "the interpreter must not be timed");
}

static int tensor_map(void *map, int type, uint32_t rank, void *address, const uint64_t *dims, const uint64_t *strides,
                      const uint32_t *box, const uint32_t *steps, int interleave, int swizzle, int promotion,
                      int fill) {
  return result(qn__emu_tensor_encode(map, type, rank, (uint64_t)(uintptr_t)address, dims, strides, box, steps,
                                      interleave, swizzle, promotion, fill));
}

static const qn_cuda_timing timing = {
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

static const qn_cuda_driver driver = {
    .init = init,
    .driver_version = driver_version,
    .error_name = error_name,
    .error_text = error_text,
    .device_count = device_count,
    .device_get = device_get,
    .device_name = device_name,
    .device_attribute = device_attribute,
    .context_retain = context_retain,
    .context_release = context_release,
    .context_current = context_current,
    .context_push = context_push,
    .context_pop = context_pop,
    .mem_alloc = mem_alloc,
    .mem_free = mem_free,
    .mem_upload = mem_upload,
    .mem_download = mem_download,
    .module_load = module_load,
    .module_unload = module_unload,
    .module_function = module_function,
    .function_set = function_set,
    .launch = launch_plain,
    .launch_ex = launch_ex,
    .stream_sync = stream_sync,
    .tensor_map = tensor_map,
    .expect = expect,
    .timing = &timing,
};

/* ---- The device -------------------------------------------------------------------------------------------------- */

/* The ordinal of an architecture, entered if it is new; -1 when there are too many. */
static int ordinal_of(const char *arch) {
  LOCKED;
  int i = 0;
  while (i < n_gpus && strcmp(gpus[i].arch, arch)) i++;
  if (i == most_gpus) return -1;
  if (i == n_gpus) snprintf(gpus[n_gpus++].arch, sizeof gpus->arch, "%s", arch);
  return i;
}

qn_status qn__emu_device_open(const qn_allocator *heap, const char *name, qn_device **out) {
  qn_emu *probe;
  *out = NULL;
  const char *arch = strncmp(name, "emu:", 4) ? name : name + 4;
  QN_TRY(qn__emu_open_name(name, &probe)); /* refuses what it does not know */
  qn__emu_close(probe);
  int ordinal = ordinal_of(arch);
  if (ordinal < 0) return qn__fail(QN_E_LIMIT, "over %d pretended GPUs", most_gpus);
  QN_TRY(qn__device_cuda_open_with(&driver, heap, ordinal, out));
  qn_device_info *i = &(*out)->info;
  snprintf(i->name, sizeof i->name, "emu:%.20s", arch);
  snprintf(i->arch, sizeof i->arch, "compute_%.20s", arch + strlen("sm_"));
  i->timed = 0;
  return QN_OK;
}

const qn_emu_counters *qn__emu_device_counters(const qn_device *d) {
  for (int i = 0; i < n_gpus; i++)
    if (!strncmp(d->info.name, "emu:", 4) && !strcmp(d->info.name + 4, gpus[i].arch)) return &gpus[i].counters;
  return NULL;
}
