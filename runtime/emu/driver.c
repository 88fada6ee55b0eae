/* driver.c - the interpreter as a device: the list of driver functions of device_cuda.h, for pretended GPUs. */
#include "driver.h"
#include "driver_gpu.h"
#include "driver_launch.h"
#include "fail.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Devices ----------------------------------------------------------------------------------------------------- */

static int init(unsigned flags) { return flags ? INVALID_VALUE : SUCCESS; }
static int driver_version(int *version) { return *version = 13000, SUCCESS; }

static int device_count(int *count) {
  LOCKED;
  for (*count = 0; qn__emu_gpu(*count);) ++*count;
  return SUCCESS;
}

static int device_get(int *device, int ordinal) {
  LOCKED;
  return *device = ordinal, qn__emu_gpu(ordinal) ? SUCCESS : INVALID_DEVICE;
}

static int device_name(char *name, int size, int device) {
  LOCKED;
  return snprintf(name, (size_t)size, "PTX interpreter, %s", qn__emu_gpu(device)->arch), SUCCESS;
}

enum { l2_bytes = 50 << 20 };

static int device_attribute(int *value, int attribute, int device) {
  LOCKED;
  qn_emu *e;
  qn_status s = qn__emu_open_name(qn__emu_gpu(device)->arch, &e);
  if (s) return qn__emu_result(s);
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

/* ---- Memory ------------------------------------------------------------------------------------------------------ */

static int mem_alloc(qn_cu_ptr *p, size_t bytes) {
  ENTER(g);
  return qn__emu_result(qn__emu_alloc(g->emu, bytes, p));
}

static int mem_free(qn_cu_ptr p) {
  ENTER(g);
  return qn__emu_result(qn__emu_free(g->emu, p));
}

static int mem_upload(qn_cu_ptr dst, const void *src, size_t bytes) {
  ENTER(g);
  return qn__emu_result(qn__emu_write(g->emu, dst, src, bytes));
}

static int mem_download(void *dst, qn_cu_ptr src, size_t bytes) {
  ENTER(g);
  return qn__emu_result(qn__emu_read(g->emu, dst, src, bytes));
}

/* ---- Modules ----------------------------------------------------------------------------------------------------- */

/* A block's shared memory, static and dynamic, beyond which a function must ask for its dynamic part. */
enum { SHARED_WITHOUT_ASKING = 48 << 10 };

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
  return *out = m, qn__emu_result(s);
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
  if (qn__emu_kernel_find(m->ptx, name, &k)) return qn__emu_say(NOT_FOUND, qn__errmsg());
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
  if (attribute != max_dynamic_shared) return qn__emu_say(INVALID_VALUE, "unknown attribute of a function");
  if (value < 0 || f->kernel->static_shared + (uint64_t)value > qn__emu_limits_of(g->emu)->shared_block)
    return qn__emu_say(INVALID_VALUE, "more shared memory than a block can have");
  return f->dynamic = (uint32_t)value, SUCCESS;
}

/* ---- Contexts ---------------------------------------------------------------------------------------------------- */

static int context_retain(void **context, int device) {
  LOCKED;
  gpu *g = qn__emu_gpu(device);
  if (!g->retained) {
    qn_status s = qn__emu_open_name(g->arch, &g->emu);
    if (s) return qn__emu_result(s);
    g->error = 0;
  }
  g->retained++;
  return *context = g, SUCCESS;
}

static int context_release(int device) {
  LOCKED;
  gpu *g = qn__emu_gpu(device);
  if (!g->retained || --g->retained) return SUCCESS;
  modules_free(g->modules);
  g->modules = NULL;
  qn__emu_close(g->emu);
  g->emu = NULL;
  return SUCCESS;
}

static int context_current(void **context) { return *context = qn__emu_gpu_current(), SUCCESS; }
static int context_push(void *context) { return qn__emu_gpu_push(context); }

/* ---- The list ---------------------------------------------------------------------------------------------------- */

static int tensor_map(void *map, int type, uint32_t rank, void *address, const uint64_t *dims, const uint64_t *strides,
                      const uint32_t *box, const uint32_t *steps, int interleave, int swizzle, int promotion,
                      int fill) {
  return qn__emu_result(qn__emu_tensor_encode(map, type, rank, (uint64_t)(uintptr_t)address, dims, strides, box, steps,
                                              interleave, swizzle, promotion, fill));
}

static const qn_cuda_driver driver = {
    .init = init,
    .driver_version = driver_version,
    .error_name = qn__emu_error_name,
    .error_text = qn__emu_error_text,
    .device_count = device_count,
    .device_get = device_get,
    .device_name = device_name,
    .device_attribute = device_attribute,
    .context_retain = context_retain,
    .context_release = context_release,
    .context_current = context_current,
    .context_push = context_push,
    .context_pop = qn__emu_gpu_pop,
    .mem_alloc = mem_alloc,
    .mem_free = mem_free,
    .mem_upload = mem_upload,
    .mem_download = mem_download,
    .module_load = module_load,
    .module_unload = module_unload,
    .module_function = module_function,
    .function_set = function_set,
    .launch = qn__emu_launch_plain,
    .launch_ex = qn__emu_launch_ex,
    .stream_sync = qn__emu_stream_sync,
    .tensor_map = tensor_map,
    .expect = qn__emu_expect,
    .timing = &qn__emu_timing,
};

/* ---- The device -------------------------------------------------------------------------------------------------- */

static int enter_gpu(const char *arch) {
  LOCKED;
  return qn__emu_gpu_ordinal(arch);
}

qn_status qn__emu_device_open(const qn_allocator *heap, const char *name, qn_device **out) {
  qn_emu *probe;
  *out = NULL;
  const char *arch = strncmp(name, "emu:", 4) ? name : name + 4;
  QN_TRY(qn__emu_open_name(name, &probe)); /* refuses what it does not know */
  qn__emu_close(probe);
  int ordinal = enter_gpu(arch);
  if (ordinal < 0) return qn__fail(QN_E_LIMIT, "over %d pretended GPUs", MOST_GPUS);
  QN_TRY(qn__device_cuda_open_with(&driver, heap, ordinal, out));
  qn_device_info *i = &(*out)->info;
  snprintf(i->name, sizeof i->name, "emu:%.20s", arch);
  snprintf(i->arch, sizeof i->arch, "compute_%.20s", arch + strlen("sm_"));
  i->timed = 0;
  return QN_OK;
}

static const gpu *gpu_of(const qn_device *d) {
  LOCKED;
  const gpu *g;
  for (int i = 0; !strncmp(d->info.name, "emu:", 4) && (g = qn__emu_gpu(i)); i++)
    if (!strcmp(d->info.name + 4, g->arch)) return g;
  return NULL;
}

const qn_emu_counters *qn__emu_device_counters(const qn_device *d) {
  const gpu *g = gpu_of(d);
  return g ? &g->counters : NULL;
}

const qn_emu_traffic *qn__emu_device_weight(const qn_device *d) {
  const gpu *g = gpu_of(d);
  return g ? &g->weight : NULL;
}
