/* test_device_cuda.c - the CUDA device over an invented driver that records what it is asked: no GPU is needed. */
#include "dense.h"
#include "recipe.h"
#include "runtime_fixture.h"
#include <dlfcn.h>

/* ---- The invented driver ----------------------------------------------------------------------------------------- */

static char calls[8192]; /* names of the calls since the last clear, each behind a space */
static int fail_with;    /* error of the call whose name is fail_at */
static const char *fail_at = "";
static void *current; /* context */
static int context_object, function_object, module_object, gpus = 1;
enum { HANDLE = 7 }; /* CUdevice of GPU 0 */
static struct {
  unsigned grid[3], block[3], shared, cluster[3];
  int pdl, attributes;
  void *stream;
  uint64_t pointer[3];
  int32_t number[2];
} last; /* launch */

static int did(const char *name) {
  size_t used = strlen(calls);
  snprintf(calls + used, sizeof calls - used, " %s", name);
  return strcmp(name, fail_at) ? 0 : fail_with;
}

#define DID(name)                                                                                                      \
  int error_ = did(name);                                                                                              \
  if (error_) return error_

static int f_init(unsigned flags) { return (void)flags, did("init"); }
static int f_version(int *v) { return *v = 13010, 0; }
static int f_error_name(int e, const char **t) {
  return *t = e == 700 ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "CUDA_ERROR_X", 0;
}
static int f_error_text(int e, const char **t) { return (void)e, *t = "a text", 0; }
static int f_count(int *n) { return *n = gpus, did("count"); }
static int f_get(int *d, int ordinal) { return *d = HANDLE + ordinal, 0; }
static int f_name(char *s, int size, int d) { return (void)d, snprintf(s, (size_t)size, "Invented H1"), 0; }
static int f_attribute(int *v, int a, int d) {
  (void)d;
  *v = a == 13   ? 1980000
       : a == 36 ? 2619000
       : a == 37 ? 5120
       : a == 16 ? 132
       : a == 38 ? 50 << 20
       : a == 75 ? 9
       : a == 76 ? 0
       : a == 82 ? 65536
       : a == 97 ? 232448
                 : -1;
  return 0;
}
static int f_retain(void **c, int d) { return (void)d, *c = &context_object, did("retain"); }
static int f_release(int d) { return did(d == HANDLE ? "release" : "release?"); }
static int f_current(void **c) { return *c = current, 0; }
static int f_push(void *c) { return current = c, did("push"); }
static int f_pop(void **c) { return *c = current, current = NULL, did("pop"); }
static int f_alloc(qn_cu_ptr *p, size_t n) {
  DID("alloc");
  return *p = (qn_cu_ptr)(uintptr_t)malloc(n), 0;
}
static int f_free(qn_cu_ptr p) { return free((void *)(uintptr_t)p), did("free"); }
static int f_upload(qn_cu_ptr d, const void *s, size_t n) { return memcpy((void *)(uintptr_t)d, s, n), did("upload"); }
static int f_download(void *d, qn_cu_ptr s, size_t n) { return memcpy(d, (void *)(uintptr_t)s, n), did("download"); }
static int f_load(void **m, const void *i) { return (void)i, *m = &module_object, did("load"); }
static int f_unload(void *m) { return (void)m, did("unload"); }
static int f_function(void **f, void *m, const char *name) {
  (void)m;
  *f = &function_object;
  return strcmp(name, "gemv") ? 500 : did("function");
}
static int dynamic_shared; /* that a function may have */
static int f_set(void *f, int a, int v) {
  (void)f;
  ck_assert_int_eq(a, 8);
  dynamic_shared = v;
  return did("set");
}
static void keep_arguments(void **arg) {
  for (int i = 0; i < 3; i++) memcpy(&last.pointer[i], arg[i], 8);
  for (int i = 0; i < 2; i++) memcpy(&last.number[i], arg[3 + i], 4);
}
static int f_launch(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                    unsigned shared, void *stream, void **arg, void **extra) {
  ck_assert_ptr_eq(f, &function_object);
  ck_assert_ptr_null(extra);
  last.grid[0] = gx, last.grid[1] = gy, last.grid[2] = gz, last.block[0] = bx, last.block[1] = by, last.block[2] = bz;
  last.shared = shared, last.stream = stream;
  keep_arguments(arg);
  return did("launch");
}
static int f_launch_ex(const qn_cu_config *c, void *f, void **arg, void **extra) {
  (void)f, (void)extra;
  memcpy(last.grid, c->grid, sizeof last.grid);
  last.attributes = (int)c->n_attributes, last.stream = c->stream;
  for (uint32_t i = 0; i < c->n_attributes; i++) {
    if (c->attributes[i].id == 4) memcpy(last.cluster, c->attributes[i].value.cluster, sizeof last.cluster);
    if (c->attributes[i].id == 6) last.pdl = c->attributes[i].value.flag;
  }
  keep_arguments(arg);
  return did("launch_ex");
}
static struct {
  int type, swizzle;
  uint32_t rank, box[5];
  void *address;
  uint64_t dim[5], stride[4];
} map;
static int f_tensor_map(void *out, int type, uint32_t rank, void *address, const uint64_t *dims,
                        const uint64_t *strides, const uint32_t *box, const uint32_t *steps, int interleave,
                        int swizzle, int promotion, int fill) {
  (void)steps, (void)interleave, (void)promotion, (void)fill;
  ck_assert_uint_eq((uintptr_t)out % 64, 0);
  map.type = type, map.rank = rank, map.address = address, map.swizzle = swizzle;
  memcpy(map.dim, dims, rank * sizeof *dims);
  memcpy(map.stride, strides, (rank - 1) * sizeof *strides);
  memcpy(map.box, box, rank * sizeof *box);
  memset(out, 0x5a, 128);
  return did("tensor_map");
}
static int object;
static int f_stream(void **s, unsigned flags) { return *s = &object, did(flags == 1 ? "stream" : "stream?"); }
static int f_stream_free(void *s) { return (void)s, did("stream_free"); }
static int f_sync(void *s) { return (void)s, did("sync"); }
static int f_event(void **e, unsigned flags) { return (void)flags, *e = &object, did("event"); }
static int f_event_free(void *e) { return (void)e, did("event_free"); }
static int f_record(void *e, void *s) { return (void)e, (void)s, did("record"); }
static int f_event_sync(void *e) { return (void)e, did("event_sync"); }
static int f_elapsed(float *ms, void *a, void *b) { return (void)a, (void)b, *ms = 8, 0; }
static int f_begin(void *s, int mode) { return (void)s, (void)mode, did("begin"); }
static int f_end(void *s, void **g) { return (void)s, *g = &object, did("end"); }
static int f_graph(void **x, void *g, unsigned long long f) { return (void)g, (void)f, *x = &object, did("graph"); }
static int f_graph_launch(void *x, void *s) { return (void)x, (void)s, did("graph_launch"); }
static int f_graph_free(void *g) { return (void)g, did("graph_free"); }

static const qn_cuda_timing timing = {
    .stream_new = f_stream,
    .stream_free = f_stream_free,
    .event_new = f_event,
    .event_free = f_event_free,
    .event_record = f_record,
    .event_sync = f_event_sync,
    .event_elapsed = f_elapsed,
    .capture_begin = f_begin,
    .capture_end = f_end,
    .graph_new = f_graph,
    .graph_launch = f_graph_launch,
    .graph_exec_free = f_graph_free,
    .graph_free = f_graph_free,
};

static qn_cuda_driver driver = {
    .init = f_init,
    .driver_version = f_version,
    .error_name = f_error_name,
    .error_text = f_error_text,
    .device_count = f_count,
    .device_get = f_get,
    .device_name = f_name,
    .device_attribute = f_attribute,
    .context_retain = f_retain,
    .context_release = f_release,
    .context_current = f_current,
    .context_push = f_push,
    .context_pop = f_pop,
    .mem_alloc = f_alloc,
    .mem_free = f_free,
    .mem_upload = f_upload,
    .mem_download = f_download,
    .module_load = f_load,
    .module_unload = f_unload,
    .module_function = f_function,
    .function_set = f_set,
    .launch = f_launch,
    .stream_sync = f_sync,
    .launch_ex = f_launch_ex,
    .tensor_map = f_tensor_map,
    .timing = &timing,
};

static qn_device *open_device(void) {
  qn_device *d;
  ck_ok(qn__device_cuda_open_with(&driver, NULL, 0, &d));
  calls[0] = 0;
  return d;
}

/* ---- Cases ------------------------------------------------------------------------------------------------------- */

START_TEST(test_describes_itself) {
  qn_device *d = open_device();
  ck_assert_str_eq(d->info.name, "cuda:0");
  ck_assert_str_eq(d->info.target, "cuda");
  ck_assert_str_eq(d->info.arch, "sm_90a");
  ck_assert_str_eq(d->info.product, "Invented H1");
  ck_assert_str_eq(d->info.driver, "13.1");
  ck_assert_int_eq(d->info.sms, 132);
  ck_assert_str_eq(d->info.model, "5120 bits at 2619000 kHz, 1980000 kHz");
  ck_assert_int_eq(d->info.smem, 232448);
  ck_assert_int_eq(d->info.regs, 65536);
  ck_assert_int_eq(d->info.var[QN_VAR_L2], 50 << 20);
  qn__device_close(d);
  ck_assert_str_eq(calls, " release");
}
END_TEST

START_TEST(test_no_device_is_a_clean_error) {
  qn_device *d;
  ck_fails(QN_E_DEVICE, "no GPU 3; there is 1", qn__device_cuda_open_with(&driver, NULL, 3, &d));
  ck_assert_ptr_null(d);
  fail_at = "init", fail_with = 100;
  ck_fails(QN_E_DEVICE, "finds no GPU", qn__device_cuda_open_with(&driver, NULL, 0, &d));
  fail_with = 803;
  ck_fails(QN_E_DEVICE, "cuInit (803", qn__device_cuda_open_with(&driver, NULL, 0, &d));
  fail_at = "retain", fail_with = 2;
  ck_fails(QN_E_DEVICE, "cuDevicePrimaryCtxRetain", qn__device_cuda_open_with(&driver, NULL, 0, &d));
}
END_TEST

/* Each call is made in the primary context, which is taken back unless it was current before. */
START_TEST(test_memory_and_context) {
  qn_device *d = open_device();
  void *p;
  char text[4] = "";
  ck_ok(d->ops->alloc(d, 4, &p));
  ck_assert_str_eq(calls, " push alloc pop");
  calls[0] = 0;
  ck_ok(d->ops->upload(d, p, "abc", 4));
  ck_assert_str_eq(calls, " push upload pop push sync pop"); /* a stream that starts now finds the bytes there */
  ck_ok(d->ops->download(d, text, p, 4));
  ck_assert_str_eq(text, "abc");
  current = &context_object, calls[0] = 0;
  d->ops->free(d, p);
  d->ops->free(d, NULL);
  ck_assert_str_eq(calls, " free");
  fail_at = "alloc", fail_with = 2;
  ck_fails(QN_E_NOMEM, "cuMemAlloc of 99 bytes", d->ops->alloc(d, 99, &p));
  ck_assert_ptr_null(p);
  qn__device_close(d);
}
END_TEST

START_TEST(test_entries) {
  qn_device *d = open_device();
  qn_module *m;
  void *fn;
  ck_fails(QN_E_ARG, "empty module", d->ops->module_load(d, "", 0, &m));
  ck_ok(d->ops->module_load(d, "x", 1, &m));
  ck_fails(QN_E_NO_KERNEL, "kernel 'nothing'", d->ops->entry(d, m, "nothing", 0, &fn));
  calls[0] = 0;
  ck_ok(d->ops->entry(d, m, "gemv", 0, &fn));
  ck_assert_ptr_null(strstr(calls, "set"));
  static const int sizes[] = {1, (48 << 10) - 64, 100000}; /* with 128 static bytes the second is beyond 48 KB, too */
  for (size_t i = 0; i < QN_COUNT(sizes); i++) {
    ck_ok(d->ops->entry(d, m, "gemv", sizes[i], &fn));
    ck_assert_int_eq(dynamic_shared, sizes[i]);
  }
  ck_fails(QN_E_LIMIT, "limit 232448", d->ops->entry(d, m, "gemv", 232449, &fn));
  d->ops->module_free(d, m);
  qn__device_close(d);
}
END_TEST

static qn_recipe make_recipe(void) {
  qn_recipe r = {.n_steps = 1};
  qn_step *s = &r.step[0];
  snprintf(s->entry, sizeof s->entry, "gemv");
  s->n_args = 5;
  memcpy(s->arg, (uint8_t[]){QN_ARG_W, QN_ARG_X, QN_ARG_Y, QN_ARG_M, QN_ARG_LDX}, 5);
  s->grid[0] = IN(r, V(N), C(64), O(CEILDIV)), s->grid[1] = IN(r, V(M), C(16), O(CEILDIV));
  s->block[0] = IN(r, C(128)), s->shared = IN(r, C(4096));
  return r;
}

/* Bind and run, at once. */
static qn_status run_recipe(qn_device *d, const qn_recipe *r, const qn_host_args *a, void *stream) {
  void *fn[QN_RECIPE_STEPS] = {&function_object};
  qn_bound b;
  QN_TRY(qn__recipe_bind(d, r, fn, &(qn_problem){.n = a->n, .k = a->k}, 0, &b));
  return qn__bound_run(d, &b, a, stream);
}

static const qn_host_args arguments = {
    .x = (void *)0x1000, .w = (void *)0x2000, .y = (void *)0x3000, .m = 33, .n = 130, .k = 64, .ldx = 72, .ldy = 130};

/* Of X: rows are ldx apart, though K is less. Of W: what was packed is dense. */
START_TEST(test_tensor_maps) {
  qn_device *d = open_device();
  qn_recipe r = make_recipe();
  qn_step *s = &r.step[0];
  s->arg[0] = QN_FIRST_MAP, s->n_maps = 1;
  s->map[0] = (qn_tensor_map){.operand = QN_ARG_X, .type = QN_T_BF16, .swizzle = 128, .rank = 2, .box = {64, 8}};
  s->map[0].dim[0] = IN(r, V(K)), s->map[0].dim[1] = IN(r, V(M));
  ck_ok(run_recipe(d, &r, &arguments, NULL));
  ck_assert_ptr_eq(map.address, arguments.x);
  ck_assert(map.type == 9 && map.swizzle == 3 && map.box[0] == 64 && map.box[1] == 8);
  ck_assert(map.dim[0] == 64 && map.dim[1] == 33 && map.stride[0] == 72 * 2);
  ck_assert_uint_eq(last.pointer[0], UINT64_C(0x5a5a5a5a5a5a5a5a)); /* the map, by value */
  ck_assert_uint_eq(last.pointer[1], 0x1000);
  static const struct {
    int x, ldx;
  } askew[] = {{2, 72}, {0, 71}}; /* not in multiples of 16 bytes: a map of zeros, for the kernel to see */
  for (size_t i = 0; i < QN_COUNT(askew); i++) {
    qn_host_args a = arguments;
    a.x = (const char *)a.x + askew[i].x, a.ldx = askew[i].ldx;
    calls[0] = 0;
    ck_ok(run_recipe(d, &r, &a, NULL));
    ck_assert_str_eq(calls, " push launch pop");
    ck_assert_uint_eq(last.pointer[0], 0);
  }
  s->map[0] = (qn_tensor_map){.operand = QN_ARG_W, .type = QN_T_U8, .rank = 3, .box = {16, 1, 1}};
  s->map[0].dim[0] = IN(r, C(32)), s->map[0].dim[1] = IN(r, V(K)), s->map[0].dim[2] = IN(r, V(N));
  ck_ok(run_recipe(d, &r, &arguments, NULL));
  ck_assert_ptr_eq(map.address, arguments.w);
  ck_assert(map.type == 0 && map.swizzle == 0 && map.stride[0] == 32 && map.stride[1] == 32 * 64);
  s->map[0].box[0] = 8;
  ck_fails(QN_E_FORMAT, "8 bytes; wanted are multiples of 16", run_recipe(d, &r, &arguments, NULL));
  s->arg[0] = QN_FIRST_MAP + 1, s->map[0].box[0] = 16;
  ck_fails(QN_E_FORMAT, "argument 65 unknown", run_recipe(d, &r, &arguments, NULL));
  s->arg[0] = QN_FIRST_MAP;
  fail_at = "tensor_map", fail_with = 1, calls[0] = 0;
  ck_fails(QN_E_CUDA, "'gemv': tensor map of 'w' (1: CUDA_ERROR_X", run_recipe(d, &r, &arguments, NULL));
  ck_assert_str_eq(calls, " tensor_map"); /* and nothing is launched */
  fail_at = "";
  driver.tensor_map = NULL;
  ck_fails(QN_E_DEVICE, "cuTensorMapEncodeTiled", run_recipe(d, &r, &arguments, NULL));
  qn__device_close(d);
}
END_TEST

START_TEST(test_launches) {
  qn_device *d = open_device();
  qn_recipe r = make_recipe();
  ck_ok(run_recipe(d, &r, &arguments, &object));
  ck_assert_uint_eq(last.grid[0], 3);
  ck_assert_uint_eq(last.grid[1], 3);
  ck_assert_uint_eq(last.grid[2], 1);
  ck_assert_uint_eq(last.block[0], 128);
  ck_assert_uint_eq(last.block[1], 1);
  ck_assert_uint_eq(last.shared, 4096);
  ck_assert_ptr_eq(last.stream, &object);
  ck_assert_uint_eq(last.pointer[0], 0x2000);
  ck_assert_uint_eq(last.pointer[1], 0x1000);
  ck_assert_uint_eq(last.pointer[2], 0x3000);
  ck_assert_int_eq(last.number[0], 33);
  ck_assert_int_eq(last.number[1], 72);
  ck_assert_str_eq(calls, " push launch pop"); /* and nothing that a capture would refuse */
  r.pdl = 1;
  r.step[0].cluster[0] = IN(r, C(2));
  ck_ok(run_recipe(d, &r, &arguments, NULL));
  ck_assert_ptr_nonnull(strstr(calls, "launch_ex"));
  ck_assert_int_eq(last.attributes, 2);
  ck_assert_uint_eq(last.cluster[0], 2);
  ck_assert_uint_eq(last.cluster[2], 1);
  ck_assert_int_eq(last.pdl, 1);
  fail_at = "launch_ex", fail_with = 912; /* a cluster that does not fit */
  ck_fails(QN_E_CUDA,
           "'gemv': 3 x 3 x 1 CTAs in clusters of 2 x 1 x 1, each of 128 x 1 x 1 threads and 4096 bytes of shared "
           "memory (912",
           run_recipe(d, &r, &arguments, NULL));
  fail_at = "";
  driver.launch_ex = NULL;
  ck_fails(QN_E_DEVICE, "cuLaunchKernelEx", run_recipe(d, &r, &arguments, NULL));
  qn__device_close(d);
}
END_TEST

START_TEST(test_limits) {
  qn_device *d = open_device();
  qn_recipe r;
  qn_host_args a;
#define REFUSED(status, part, change)                                                                                  \
  r = make_recipe(), a = arguments;                                                                                    \
  change;                                                                                                              \
  ck_fails(status, part, run_recipe(d, &r, &a, NULL))
  REFUSED(QN_E_LIMIT, "grid.y is 65536", a.m = 16 * 65536);
  REFUSED(QN_E_LIMIT, "grid.x is 0", r.step[0].grid[0] = IN(r, C(0)));
  REFUSED(QN_E_LIMIT, "block.x is 2048", r.step[0].block[0] = IN(r, C(2048)));
  REFUSED(QN_E_LIMIT, "block is 2048, allowed 1 .. 1024", r.step[0].block[1] = IN(r, C(16)));
  REFUSED(QN_E_LIMIT, "shared is 300000", r.step[0].shared = IN(r, C(300000)));
  REFUSED(QN_E_LIMIT, "cluster.x is 9", r.step[0].cluster[0] = IN(r, C(9)));
  REFUSED(QN_E_LIMIT, "cluster is 16", r.step[0].cluster[0] = r.step[0].cluster[1] = IN(r, C(4)));
  REFUSED(QN_E_LIMIT, "beyond 2^31", a.ldx = INT64_C(1) << 31);
  REFUSED(QN_E_LIMIT, "division", r.step[0].grid[0] = IN(r, V(M), C(0), O(DIV)));
  REFUSED(QN_E_FORMAT, "recipe of 0 steps", r.n_steps = 0);
#undef REFUSED
  ck_assert_ptr_null(strstr(calls, "launch"));
  qn__device_close(d);
}
END_TEST

/* After an illegal address nothing works: each later call says so, without asking the driver again. */
START_TEST(test_sticky_errors) {
  qn_device *d = open_device();
  void *p;
  fail_at = "sync", fail_with = 700;
  ck_fails(QN_E_CUDA, "CUDA_ERROR_ILLEGAL_ADDRESS", d->ops->sync(d, NULL));
  ck_assert_ptr_nonnull(strstr(qn__errmsg(), "the context is lost"));
  fail_at = "", calls[0] = 0;
  ck_fails(QN_E_CUDA, "earlier error (700", d->ops->alloc(d, 8, &p));
  ck_fails(QN_E_CUDA, "earlier error (700", d->ops->sync(d, NULL));
  ck_assert_str_eq(calls, "");
  qn__device_close(d);
  d = open_device();
  fail_at = "sync", fail_with = 1;
  ck_fails(QN_E_CUDA, "(1: CUDA_ERROR_X, a text)", d->ops->sync(d, NULL));
  fail_at = "";
  ck_ok(d->ops->sync(d, NULL)); /* others pass */
  qn__device_close(d);
}
END_TEST

static int enqueued;
static qn_status enqueue(void *ud, int i, void *stream) {
  ck_assert_ptr_eq(stream, &object);
  enqueued += i;
  return *(qn_status *)ud;
}

START_TEST(test_timing) {
  qn_device *d = open_device();
  qn_cuda_timer *t;
  qn_status status = QN_OK;
  double seconds[3];
  ck_ok(qn__cuda_timer_new(d, &t));
  ck_ok(qn__cuda_time(t, false, enqueue, &status, 4, 3, seconds));
  for (int i = 0; i < 3; i++) ck_assert_double_eq_tol(seconds[i], 0.002, 1e-9);
  ck_assert_int_eq(enqueued, 6 * 6); /* of 8 ms each; three untimed */
  calls[0] = 0;
  ck_ok(qn__cuda_time(t, true, enqueue, &status, 4, 1, seconds));
  ck_assert_str_eq(calls, " push begin end graph graph_free record graph_launch record event_sync"
                          " record graph_launch record event_sync record graph_launch record event_sync"
                          " record graph_launch record event_sync graph_free pop");
  status = QN_E_WRONG, calls[0] = 0;
  ck_assert_int_eq(qn__cuda_time(t, true, enqueue, &status, 4, 1, seconds), QN_E_WRONG);
  ck_assert_str_eq(calls, " push begin end graph_free pop"); /* the capture is ended */
  qn__cuda_timer_free(t);
  qn__cuda_timer_free(NULL);
  qn__device_close(d);
  ck_ok(qn__device_open(NULL, "host:1", &d));
  ck_fails(QN_E_ARG, "not driven through CUDA", qn__cuda_timer_new(d, &t));
  qn__device_close(d);
}
END_TEST

/* cuBLAS is timed as our own kernels are: as many calls in a graph, weights in turn. That of a wheel is found, too. */
START_TEST(test_cublas_is_timed_alike) {
  static const char path[] = QN_BUILD "/tests/wheel/libcublas.so.13";
  enum { N = 64, K = 32, COPIES = 5 };
  qn_device *d = open_device();
  qn_cuda_timer *t;
  double seconds[QN_DENSE_REPS];
  ck_assert_ptr_null(dlopen(path, RTLD_NOW)); /* for want of its libcublasLt */
  setenv("QUERNEL_CUBLAS", path, 1);
  ck_ok(qn__cuda_timer_new(d, &t));
  ck_ok(qn__cublas_time(t, d, (COPIES - 2) * N * K * 2, 16, N, K, seconds));
  for (int i = 0; i < QN_DENSE_REPS; i++) ck_assert_double_eq_tol(seconds[i], 8e-3 / QN_CUDA_CALLS, 1e-9);
  void *lib = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
  ck_assert_ptr_nonnull(lib);
  ck_assert_int_eq(*(int *)dlsym(lib, "calls"), 4 + QN_CUDA_CALLS); /* alone, three untimed; in the graph */
  ck_assert_int_eq(*(int *)dlsym(lib, "ends"), COPIES - 1);
  qn__cuda_timer_free(t);
  qn__device_close(d);
}
END_TEST

/* The real driver: either it is there, or what is missing is named. */
START_TEST(test_machine) {
  const qn_cuda_driver *real;
  qn_device *d;
  qn_status s = qn__cuda_driver(&real);
  ck_assert(s == QN_OK || (s == QN_E_DEVICE && strstr(qn__errmsg(), "libcuda.so.1")));
  ck_assert_int_eq(qn__device_open(NULL, "cuda:4096", &d), QN_E_DEVICE);
  ck_ok(qn__device_open(NULL, NULL, &d));
  ck_assert_msg(!strcmp(d->info.name, "host") || !strcmp(d->info.name, "cuda:0"), "%s", d->info.name);
  qn__device_close(d);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(test_describes_itself, 1),
      CASE(test_no_device_is_a_clean_error, 1),
      CASE(test_memory_and_context, 1),
      CASE(test_entries, 1),
      CASE(test_launches, 1),
      CASE(test_tensor_maps, 1),
      CASE(test_limits, 1),
      CASE(test_sticky_errors, 1),
      CASE(test_timing, 1),
      CASE(test_cublas_is_timed_alike, 1),
      CASE(test_machine, 1),
  };
  return RUN_CASES(argv[0], cases, .timeout = 120);
}
