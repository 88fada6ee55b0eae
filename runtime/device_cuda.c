/* device_cuda.c - a CUDA GPU in the table of device.h.
 *
 * The primary context is retained while the device is open and made current round each call where it is not, so that
 * the library gets on with a caller that uses the runtime API or has contexts of its own. A launch makes no call but
 * the launch itself (and a push and pop of the context where needed), so it can be captured in a graph. After an error
 * that destroys the context every later call fails at once and names the first error. */
#include "device_cuda.h"
#include "cpu.h"
#include "fail.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- The driver library ------------------------------------------------------------------------------------------ */

/* Of the process, as a library is: loaded once. */
static qn_cuda_driver driver;
static char driver_missing[256]; /* why there is no driver; "" if there is */

static void load_driver(void) {
  void *lib = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!lib) {
    snprintf(driver_missing, sizeof driver_missing, "no NVIDIA driver: %s", dlerror());
    return;
  }
#define F(member, symbol, parameters)                                                                                  \
  {                                                                                                                    \
    void *p = dlsym(lib, symbol);                                                                                      \
    memcpy(&driver.member, &p, sizeof p);                                                                              \
    if (!p && required && !driver_missing[0])                                                                          \
      snprintf(driver_missing, sizeof driver_missing, "libcuda.so.1 is too old: it has no %s", symbol);                \
  }
  bool required = true;
  QN_CUDA_REQUIRED(F)
  required = false;
  QN_CUDA_OPTIONAL(F)
#undef F
}

qn_status qn__cuda_driver(const qn_cuda_driver **out) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, load_driver);
  *out = &driver;
  return driver_missing[0] ? qn__fail(QN_E_DEVICE, "%s", driver_missing) : QN_OK;
}

/* ---- Device, context, errors ------------------------------------------------------------------------------------- */

typedef struct cuda {
  qn_device device;
  const qn_cuda_driver *driver;
  int ordinal, handle; /* number of the GPU; the driver's CUdevice for it */
  void *context;
  atomic_int lost; /* the error that destroyed the context */
  qn_pool *pool;   /* of the host's threads, from the first share() on */
} cuda;

enum { OUT_OF_MEMORY = 2, NO_DEVICE = 100, NOT_FOUND = 500 };

/* Errors after which a context answers nothing else (CUresult: "This leaves the process in an inconsistent state"). */
static bool destroys_context(int error) {
  static const int list[] = {700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721};
  for (size_t i = 0; i < QN_COUNT(list); i++)
    if (error == list[i]) return true;
  return false;
}

static qn_status status_of(int error) {
  return error == OUT_OF_MEMORY ? QN_E_NOMEM : error == NOT_FOUND ? QN_E_NO_KERNEL : QN_E_CUDA;
}

/* The status of a driver call's result. */
static qn_status result(cuda *c, int error, const char *what) {
  if (!error) return QN_OK;
  const char *name = "unknown error", *text = "";
  c->driver->error_name(error, &name);
  c->driver->error_text(error, &text);
  if (destroys_context(error)) atomic_store(&c->lost, error);
  return qn__fail(status_of(error), "%s: %s (%d: %s, %s)%s", c->device.info.name, what, error, name, text,
                  destroys_context(error) ? "; the context is lost, every later call fails" : "");
}

/* Make the context current; *pushed says whether leave() must undo it. */
static qn_status enter(cuda *c, bool *pushed) {
  void *current = NULL;
  *pushed = false;
  int lost = atomic_load_explicit(&c->lost, memory_order_relaxed);
  if (lost) return result(c, lost, "earlier error");
  QN_TRY(result(c, c->driver->context_current(&current), "cuCtxGetCurrent"));
  if (current == c->context) return QN_OK;
  QN_TRY(result(c, c->driver->context_push(c->context), "cuCtxPushCurrent"));
  *pushed = true;
  return QN_OK;
}

static void leave(cuda *c, bool pushed) {
  void *popped;
  if (pushed) c->driver->context_pop(&popped);
}

/* One driver call inside the context. */
#define CALL(c, what, ...)                                                                                             \
  do {                                                                                                                 \
    bool pushed_;                                                                                                      \
    QN_TRY(enter((c), &pushed_));                                                                                      \
    int error_ = (c)->driver->__VA_ARGS__;                                                                             \
    leave((c), pushed_);                                                                                               \
    QN_TRY(result((c), error_, what));                                                                                 \
  } while (0)

static qn_status no_function(const cuda *c, const char *what) {
  return qn__fail(QN_E_DEVICE, "%s: the driver has no %s", c->device.info.name, what);
}

/* ---- The table --------------------------------------------------------------------------------------------------- */

static void cuda_close(qn_device *d) {
  cuda *c = (cuda *)d;
  if (c->context) c->driver->context_release(c->handle);
  qn__pool_free(c->pool);
  qn__free(d->heap, c, sizeof *c);
}

static qn_status cuda_alloc(qn_device *d, size_t bytes, void **p) {
  qn_cu_ptr at = 0;
  *p = NULL;
  char what[64];
  snprintf(what, sizeof what, "cuMemAlloc of %zu bytes", bytes);
  CALL((cuda *)d, what, mem_alloc(&at, bytes ? bytes : 1));
  *p = (void *)(uintptr_t)at;
  return QN_OK;
}

static void cuda_free(qn_device *d, void *p) {
  cuda *c = (cuda *)d;
  bool pushed;
  if (!p || enter(c, &pushed)) return;
  c->driver->mem_free((qn_cu_ptr)(uintptr_t)p);
  leave(c, pushed);
}

/* From pageable memory cuMemcpyHtoD may return when the bytes are staged, before they have arrived; a stream that does
 * not wait for the default one would then read what was there before. */
static qn_status cuda_upload(qn_device *d, void *dst, const void *src, size_t bytes) {
  if (!bytes) return QN_OK;
  CALL((cuda *)d, "cuMemcpyHtoD", mem_upload((qn_cu_ptr)(uintptr_t)dst, src, bytes));
  CALL((cuda *)d, "cuMemcpyHtoD", stream_sync(NULL));
  return QN_OK;
}

static qn_status cuda_download(qn_device *d, void *dst, const void *src, size_t bytes) {
  if (bytes) CALL((cuda *)d, "cuMemcpyDtoH", mem_download(dst, (qn_cu_ptr)(uintptr_t)src, bytes));
  return QN_OK;
}

static qn_status cuda_module_load(qn_device *d, const void *image, size_t bytes, qn_module **m) {
  *m = NULL;
  if (!image || !bytes) return qn__fail(QN_E_ARG, "%s: empty module", d->info.name);
  CALL((cuda *)d, "cuModuleLoadData", module_load((void **)m, image));
  return QN_OK;
}

static void cuda_module_free(qn_device *d, qn_module *m) {
  cuda *c = (cuda *)d;
  bool pushed;
  if (!m || enter(c, &pushed)) return;
  c->driver->module_unload(m);
  leave(c, pushed);
}

#define FUNCTION_MAX_DYNAMIC_SHARED 8

/* A block has 48 KB without asking, its static shared memory included, which only the driver knows; so all that want
 * dynamic shared memory ask for it. */
static qn_status cuda_entry(qn_device *d, qn_module *m, const char *name, int64_t shared, void **fn) {
  cuda *c = (cuda *)d;
  char what[128];
  *fn = NULL;
  snprintf(what, sizeof what, "kernel '%.64s'", name);
  CALL(c, what, module_function(fn, m, name));
  if (shared <= 0) return QN_OK;
  if (shared > d->info.smem)
    return qn__fail(QN_E_LIMIT, "%s: %s wants %lld bytes of shared memory, limit %lld", d->info.name, what,
                    (long long)shared, (long long)d->info.smem);
  CALL(c, what, function_set(*fn, FUNCTION_MAX_DYNAMIC_SHARED, (int)shared));
  return QN_OK;
}

/* CUlaunchAttributeID. Programmatic stream serialization: this launch may begin before the last one ends. */
enum { ATTRIBUTE_CLUSTER = 4, ATTRIBUTE_PROGRAMMATIC = 6 };

static bool has_cluster(const qn_launch *l) { return l->cluster[0] * l->cluster[1] * l->cluster[2] > 1; }

static int launch_plain(const qn_cuda_driver *v, const qn_launch *l, void *stream, void **arg) {
  return v->launch(l->fn, (unsigned)l->grid[0], (unsigned)l->grid[1], (unsigned)l->grid[2], (unsigned)l->block[0],
                   (unsigned)l->block[1], (unsigned)l->block[2], (unsigned)l->shared, stream, arg, NULL);
}

/* A launch with attributes. */
static int launch_ex(const qn_cuda_driver *v, const qn_launch *l, void *stream, void **arg) {
  qn_cu_attribute a[2];
  qn_cu_config f = {.shared = (uint32_t)l->shared, .stream = stream, .attributes = a};
  memset(a, 0, sizeof a);
  for (int i = 0; i < 3; i++) f.grid[i] = (uint32_t)l->grid[i], f.block[i] = (uint32_t)l->block[i];
  if (has_cluster(l)) {
    qn_cu_attribute *t = &a[f.n_attributes++];
    t->id = ATTRIBUTE_CLUSTER;
    for (int i = 0; i < 3; i++) t->value.cluster[i] = (uint32_t)l->cluster[i];
  }
  if (l->pdl) {
    qn_cu_attribute *t = &a[f.n_attributes++];
    t->id = ATTRIBUTE_PROGRAMMATIC;
    t->value.flag = 1;
  }
  return v->launch_ex(&f, l->fn, arg, NULL);
}

/* ---- Tensor maps ------------------------------------------------------------------------------------------------- */

typedef struct tensor_map { /* CUtensorMap */
  _Alignas(64) char opaque[128];
} tensor_map;

/* CUtensorMapDataType, less one so that 0 is none: what has no type of its own moves as bytes. */
static const uint8_t map_type[] = {
    [QN_T_U8] = 1,    [QN_T_U16] = 2, [QN_T_U32] = 3, [QN_T_I8] = 1,   [QN_T_I32] = 4,  [QN_T_F16] = 7,
    [QN_T_BF16] = 10, [QN_T_F32] = 8, [QN_T_F64] = 9, [QN_T_E4M3] = 1, [QN_T_E5M2] = 1, [QN_T_E8M0] = 1,
};

/* The argument from where to where rows of an operand go; QN_ARG_COUNT: none. */
static const qn_arg row_stride[QN_OPERANDS] = {
#define QN_X(NAME, name, has, type, rows, cols, STRIDE) [QN_ARG_##NAME] = QN_ARG_##STRIDE,
    QN_OPERAND_MAP(QN_X)
#undef QN_X
};

/* Rows of a caller that a map cannot describe, as docs/formats-and-kernels.md says, have a map of zeros: the kernel
 * asks before it uses it. */
static qn_status encode(cuda *c, const qn_launch *l, uint32_t i, const qn_host_args *a, tensor_map *out) {
  static const uint32_t every[QN_MAP_RANK] = {1, 1, 1, 1, 1};
  const qn_tensor_map *m = &l->step->map[i];
  qn_arg ld = m->operand < QN_OPERANDS ? row_stride[m->operand] : QN_ARG_COUNT;
  uint64_t size = (uint64_t)qn_type_bits((qn_type)m->type) / 8, dim[QN_MAP_RANK];
  uint64_t stride[QN_MAP_RANK] = {0};
  if (!c->driver->tensor_map) return no_function(c, "cuTensorMapEncodeTiled");
  for (uint32_t r = 0; r < m->rank; r++) {
    dim[r] = (uint64_t)l->dim[i][r];
    stride[r] = !r && ld != QN_ARG_COUNT ? (uint64_t)qn__arg_number(a, ld) * size : (r ? stride[r - 1] : size) * dim[r];
  }
  void *at = qn__arg_pointer(a, (qn_arg)m->operand);
  if (ld != QN_ARG_COUNT && ((uintptr_t)at | stride[0]) % 16) return *out = (tensor_map){0}, QN_OK;
  int swizzle = m->swizzle ? __builtin_ctz(m->swizzle / 16) : 0; /* CUtensorMapSwizzle: 32, 64, 128 bytes are 1, 2, 3 */
  int error =
      c->driver->tensor_map(out, map_type[m->type] - 1, m->rank, at, dim, stride, m->box, every, 0, swizzle, 0, 0);
  char what[160];
  snprintf(what, sizeof what, "'%s': tensor map of '%s'", l->step->entry, qn__arg[m->operand].name);
  return result(c, error, what);
}

/* What the driver said of a launch. */
static qn_status launched(cuda *c, int error, const qn_launch *l) {
  char what[256];
  const int64_t *g = l->grid, *b = l->block, *k = l->cluster;
  if (!error) return QN_OK;
  snprintf(what, sizeof what,
           "'%s': %lld x %lld x %lld CTAs in clusters of %lld x %lld x %lld, each of %lld x %lld x %lld threads and "
           "%lld bytes of shared memory",
           l->step->entry, (long long)g[0], (long long)g[1], (long long)g[2], (long long)k[0], (long long)k[1],
           (long long)k[2], (long long)b[0], (long long)b[1], (long long)b[2], (long long)l->shared);
  return result(c, error, what);
}

static qn_status cuda_launch(qn_device *d, const qn_launch *l, const qn_host_args *a, void *stream) {
  cuda *c = (cuda *)d;
  int32_t number[QN_RECIPE_ARGS];
  tensor_map map[QN_STEP_MAPS];
  void *arg[QN_RECIPE_ARGS];
  for (uint32_t i = 0; i < l->step->n_maps; i++) QN_TRY(encode(c, l, i, a, &map[i]));
  for (uint32_t i = 0; i < l->step->n_args; i++) {
    qn_arg which = (qn_arg)l->step->arg[i];
    qn_arg_kind kind = qn__arg_kind(l->step->arg[i]);
    arg[i] = kind == QN_ARG_MAP ? (void *)&map[which - QN_FIRST_MAP] : (char *)a + qn__arg[which].at;
    if (kind != QN_ARG_NUMBER) continue;
    int64_t value = qn__arg_number(a, which);
    if (value > INT32_MAX)
      return qn__fail(QN_E_LIMIT, "'%s': argument %lld beyond 2^31", l->step->entry, (long long)value);
    number[i] = (int32_t)value;
    arg[i] = &number[i];
  }
  bool extended = has_cluster(l) || l->pdl, pushed;
  if (extended && !c->driver->launch_ex) return no_function(c, "cuLaunchKernelEx");
  QN_TRY(enter(c, &pushed));
  const void *const constant[] = {a->w, a->perm};
  if (c->driver->expect) c->driver->expect(((double)a->m + 16) * (double)a->n * (double)a->k, constant);
  int error = extended ? launch_ex(c->driver, l, stream, arg) : launch_plain(c->driver, l, stream, arg);
  leave(c, pushed);
  return launched(c, error, l);
}

static qn_status cuda_sync(qn_device *d, void *stream) {
  CALL((cuda *)d, "cuStreamSynchronize", stream_sync(stream));
  return QN_OK;
}

/* Whoever only runs kernels never has these threads. Without memory for them the caller does the work. */
static void cuda_share(qn_device *d, qn_pool_fn fn, void *ud, int64_t items) {
  cuda *c = (cuda *)d;
  if (c->pool || !qn__pool_new(d->heap, d->host_threads, &c->pool)) qn__pool_run(c->pool, fn, ud, items);
  else fn(ud, 0, items, 0);
}

static const qn_device_ops cuda_ops = {
    .close = cuda_close,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .upload = cuda_upload,
    .download = cuda_download,
    .module_load = cuda_module_load,
    .module_free = cuda_module_free,
    .entry = cuda_entry,
    .launch = cuda_launch,
    .sync = cuda_sync,
    .share = cuda_share,
};

/* ---- Opening ----------------------------------------------------------------------------------------------------- */

enum {
  CLOCK_KHZ = 13,
  SM_COUNT = 16,
  MEMORY_CLOCK_KHZ = 36,
  BUS_BITS = 37,
  L2_BYTES = 38,
  SM_THREADS = 39,
  CAPABILITY_MAJOR = 75,
  CAPABILITY_MINOR = 76,
  SM_SHARED = 81,
  SM_REGISTERS = 82,
  SHARED_OPTIN = 97,
  SM_CTAS = 106
};

static qn_status describe(cuda *c) {
  qn_device_info *i = &c->device.info;
  int version = 0, major = 0, minor = 0, sms = 0, l2 = 0, registers = 0, shared = 0, shared_sm = 0;
  const struct {
    int *value, attribute;
  } ask[] = {
      {&sms, SM_COUNT},           {&l2, L2_BYTES},         {&major, CAPABILITY_MAJOR}, {&minor, CAPABILITY_MINOR},
      {&registers, SM_REGISTERS}, {&shared, SHARED_OPTIN}, {&shared_sm, SM_SHARED},    {&i->threads_sm, SM_THREADS},
      {&i->ctas_sm, SM_CTAS}};
  QN_TRY(result(c, c->driver->device_get(&c->handle, c->ordinal), "cuDeviceGet"));
  QN_TRY(result(c, c->driver->device_name(i->product, (int)sizeof i->product, c->handle), "cuDeviceGetName"));
  QN_TRY(result(c, c->driver->driver_version(&version), "cuDriverGetVersion"));
  for (size_t j = 0; j < QN_COUNT(ask); j++)
    QN_TRY(result(c, c->driver->device_attribute(ask[j].value, ask[j].attribute, c->handle), "cuDeviceGetAttribute"));
  int rate[3] = {0}; /* a driver that does not tell them is none the worse */
  for (int j = 0; j < 3; j++)
    c->driver->device_attribute(&rate[j], (const int[]){BUS_BITS, MEMORY_CLOCK_KHZ, CLOCK_KHZ}[j], c->handle);
  snprintf(i->model, sizeof i->model, "%d bits at %d kHz, %d kHz", rate[0], rate[1], rate[2]);
  i->sm = major * 10 + minor;
  i->sms = sms, i->smem = shared, i->smem_sm = shared_sm, i->regs = registers, i->cache[1] = l2, i->timed = 1;
  snprintf(i->arch, sizeof i->arch, "sm_%d%s", i->sm, i->sm >= 90 ? "a" : "");
  snprintf(i->driver, sizeof i->driver, "%d.%d", version / 1000, version % 1000 / 10);
  i->var[QN_VAR_SMS] = sms, i->var[QN_VAR_SMEM] = shared, i->var[QN_VAR_L2] = l2;
  return result(c, c->driver->context_retain(&c->context, c->handle), "cuDevicePrimaryCtxRetain");
}

static qn_status find_device(cuda *c) {
  int count = 0, error = c->driver->init(0);
  if (error == NO_DEVICE) return qn__fail(QN_E_DEVICE, "the NVIDIA driver finds no GPU");
  if (!error) error = c->driver->device_count(&count);
  if (error) return result(c, error, "cuInit");
  if (c->ordinal >= count)
    return qn__fail(QN_E_DEVICE, "no GPU %d; there %s %d", c->ordinal, count == 1 ? "is" : "are", count);
  return describe(c);
}

qn_status qn__device_cuda_open_with(const qn_cuda_driver *provider, const qn_allocator *heap, int ordinal,
                                    qn_device **out) {
  *out = NULL;
  cuda *c = qn__alloc_zero(heap, sizeof *c);
  if (!c) return qn__fail(QN_E_NOMEM, "CUDA device");
  c->device.ops = &cuda_ops, c->device.heap = heap;
  c->device.target = qn__target("cuda");
  c->device.host_threads = qn__cpu_count();
  c->driver = provider;
  c->ordinal = ordinal;
  snprintf(c->device.info.name, sizeof c->device.info.name, "cuda:%d", ordinal);
  snprintf(c->device.info.target, sizeof c->device.info.target, "cuda");
  qn_status s = find_device(c);
  if (s) {
    qn__free(heap, c, sizeof *c);
    return s == QN_E_CUDA || s == QN_E_NOMEM ? QN_E_DEVICE : s; /* a driver that does not start is no device */
  }
  *out = &c->device;
  return QN_OK;
}

qn_status qn__device_cuda_open(const qn_allocator *heap, int ordinal, qn_device **out) {
  const qn_cuda_driver *d;
  *out = NULL;
  QN_TRY(qn__cuda_driver(&d));
  return qn__device_cuda_open_with(d, heap, ordinal, out);
}

/* ---- For others who drive the same GPU --------------------------------------------------------------------------- */

const qn_cuda_driver *qn__cuda_driver_of(const qn_device *d) {
  return d->ops == &cuda_ops ? ((const cuda *)d)->driver : NULL;
}

qn_status qn__cuda_enter(qn_device *d, bool *pushed) { return enter((cuda *)d, pushed); }
void qn__cuda_leave(qn_device *d, bool pushed) { leave((cuda *)d, pushed); }
qn_status qn__cuda_result(qn_device *d, int error, const char *what) { return result((cuda *)d, error, what); }
