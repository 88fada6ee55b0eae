/* test_grouped_cuda.c - stacks of experts through quernel.h on CUDA: the interpreter serves packs of real kernels.
 *
 * Scales are powers of two, everything else small integers, so that results compare bit for bit with the reference. Y
 * is its own residual, so that a row which is computed twice is wrong. What the driver is called for is counted: within
 * a call there are launches and nothing else, as a graph wants it. */
#include "cli_fixture.h"
#include "device_cuda.h"
#include "driver.h"
#include "reference.h"
#include "runtime_fixture.h"
#include "serve.h"

enum { E = 3, N = 72, K = 96, M = 80, LDX = K + 8, LDY = N + 4 };
#define TYPES "f16-f32*scale+bias+residual"

/* One kernel each. CTAs that share K add by a cluster on sm_90, and by scratch and counters before. */
static const struct {
  const char *device, *family, *fixed;
  int experts, launches; /* of a call, for a stack in act-order */
  bool counts;
} kernels[] = {
    {"emu:sm_90a", "cuda.decode", "BM = 8, WN = 4, UNROLL = 4, SPLIT = 1", E, 2, false},
    {"emu:sm_90a", "cuda.mma", "BM = 32, BN = 64, BK = 64, WN = 4, STAGES = 4, SPLIT = 2", E, 3, false},
    {"emu:sm_90a", "cuda.wgmma", "BM = 64, MT = 1", E, 3, false},
    {"emu:sm_80", "cuda.mma", "BM = 32, BN = 64, BK = 64, WN = 4, STAGES = 4, SPLIT = 2", E, 3, true},
    {"emu:sm_90a", "cuda.wgmma", "BM = 64, MT = 1", 1, 3, false},
};

/* Nothing is timed, so that only a kernel for any number of rows is packed, and for any stack: it is made such. */
static const char script[] =
    "local q = require 'quernel'\n"
    "for _, def in ipairs(q.kernels()) do def.m = nil end\n"
    "local r = assert(q.tune { problems = { 'int4.g32.f32:2x64x512:" TYPES "' }, device = arg[1], family = arg[2],\n"
    "  fixed = load('return {' .. arg[3] .. '}')(), check_only = true, store = 'store' })\n"
    "assert(q.pack(r, 'stack.qpack'))\n";

/* ---- The driver, counted ----------------------------------------------------------------------------------------- */

static const qn_cuda_driver *real;
static qn_cuda_driver driver;
static struct { int launches, others; } called;

#define COUNTED(member, count, parameters, ...)                                                                        \
  static int member parameters {                                                                                       \
    called.count++;                                                                                                    \
    return real->member(__VA_ARGS__);                                                                                  \
  }
COUNTED(mem_alloc, others, (qn_cu_ptr * p, size_t bytes), p, bytes)
COUNTED(mem_free, others, (qn_cu_ptr p), p)
COUNTED(mem_upload, others, (qn_cu_ptr to, const void *from, size_t bytes), to, from, bytes)
COUNTED(mem_download, others, (void *to, qn_cu_ptr from, size_t bytes), to, from, bytes)
COUNTED(module_load, others, (void **module, const void *code), module, code)
COUNTED(stream_sync, others, (void *stream), stream)
COUNTED(launch, launches,
        (void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
         void *stream, void **arguments, void **extra),
        f, gx, gy, gz, bx, by, bz, shared, stream, arguments, extra)
COUNTED(launch_ex, launches, (const qn_cu_config *config, void *f, void **arguments, void **extra), config, f,
        arguments, extra)

/* The interpreter's first GPU, by way of the counts. */
static qn_status open_counted(const qn_allocator *heap, const char *name, qn_device **out) {
  qn_device *probe;
  QN_TRY(qn__emu_device_open(heap, name, &probe));
  real = qn__cuda_driver_of(probe);
  driver = *real;
  driver.mem_alloc = mem_alloc, driver.mem_free = mem_free;
  driver.mem_upload = mem_upload, driver.mem_download = mem_download;
  driver.module_load = module_load, driver.stream_sync = stream_sync;
  driver.launch = launch, driver.launch_ex = launch_ex;
  qn_status s = qn__device_cuda_open_with(&driver, heap, 0, out);
  if (!s) (*out)->info = probe->info;
  qn__device_close(probe);
  return s;
}

typedef struct stack {
  qn_context *context;
  qn_device *device;
  qn_gemm *gemm;
  qn_weight *weight;
  qn_format format;
  int experts, turned; /* turned: the one in act-order */
  weight expert[E];
  int32_t perm[K];
  uint16_t x[M * LDX]; /* f16; NaN between rows */
  float scale[E], bias[E][N], y[M * LDY];
  double want[E][M * N];
} stack;

/* ---- Data -------------------------------------------------------------------------------------------------------- */

static void *on_device(const stack *s, const void *data, size_t bytes) {
  void *p;
  ck_ok(s->device->ops->alloc(s->device, bytes, &p));
  ck_ok(s->device->ops->upload(s->device, p, data, bytes));
  return p;
}

static void *filled(const stack *s, size_t bytes, int byte) {
  char *data = malloc(bytes + 1);
  void *p = on_device(s, memset(data, byte, bytes + 1), bytes ? bytes : 1);
  free(data);
  return p;
}

static void draw_stack(stack *s) {
  rng r = {11};
  float x[M * LDX];
  s->format = make_format(4, 32, false);
  for (int i = 0; i < M * LDX; i++) x[i] = i % LDX < K ? (float)below(&r, 9) - 4 : 0.0f / 0.0f;
  ck_ok(qn_convert(x, QN_T_F32, s->x, QN_T_F16, M * LDX));
  for (int k = 0; k < K; k++) s->perm[k] = k * 7 % K; /* 7 and K share no factor */
  for (int e = 0; e < E; e++) {
    qn_planes *p = &s->expert[e].planes;
    s->expert[e] = random_weight(&s->format, N, K, &r);
    p->perm = e == s->turned ? s->perm : NULL;
    s->scale[e] = (float)(1 << e);
    for (int n = 0; n < N; n++) s->bias[e][n] = (float)(e * 100 + n);
    ck_ok(qn__reference(&s->format, p, &(qn_host_args){.x = s->x, .ldx = LDX}, &(qn_problem){.act = QN_T_F16}, NULL, M,
                        NULL, N, s->want[e], NULL));
  }
}

static void open_stack(stack *s, int i) {
  const qn_open_options options = {.device = kernels[i].device};
  char err[256] = "", problem[96];
  cli_write("pack.lua", script, sizeof script - 1);
  int status = cli("quernel run pack.lua '%s' '%s' '%s'", kernels[i].device, kernels[i].family, kernels[i].fixed);
  ck_assert_msg(!status, "exit %d\n%s%s\n  again: %s", status, cli_out, cli_err, cli_command);
  qn__device_provide("emu:", open_counted);
  ck_assert_msg(!qn_open(cli_path("stack.qpack"), &options, &s->context, err, sizeof err), "%s", err);
  s->device = qn__context_device(s->context);
  s->experts = kernels[i].experts, s->turned = s->experts / 2;
  snprintf(problem, sizeof problem, "int4.g32.f32:%dx%dx%d:" TYPES, s->experts, N, K);
  ck_ok(qn_bind(s->context, problem, &s->gemm));
  ck_assert_int_eq(qn_gemm_level(s->gemm), QN_GENERIC);
  ck_assert_int_eq(strncmp(qn_gemm_kernel(s->gemm, 1), kernels[i].family, strlen(kernels[i].family)), 0);
  draw_stack(s);
}

static void close_stack(stack *s) {
  qn_weight_free(s->weight), qn_gemm_free(s->gemm), qn_close(s->context);
  for (int e = 0; e < E; e++) free_weight(&s->expert[e]);
}

/* Pointers are the device's, freed by free_args. */
static qn_args make_args(stack *s, int64_t m) {
  for (int i = 0; i < M * LDY; i++) s->y[i] = (float)i;
  void *y = on_device(s, s->y, sizeof s->y);
  return (qn_args){.x = on_device(s, s->x, sizeof s->x),
                   .bias = on_device(s, s->bias, sizeof s->bias),
                   .scale = on_device(s, s->scale, sizeof s->scale),
                   .y = y,
                   .residual = y,
                   .workspace = filled(s, qn_gemm_workspace(s->gemm, m), 0xff), /* NaN */
                   .counters = filled(s, qn_gemm_counters(s->gemm, m), 0),
                   .m = m,
                   .ldx = LDX,
                   .ldy = LDY,
                   .ld_residual = LDY};
}

static void free_args(const stack *s, const qn_args *a) {
  const void *all[] = {a->x, a->bias, a->scale, a->y, a->workspace, a->counters};
  for (size_t i = 0; i < QN_COUNT(all); i++) s->device->ops->free(s->device, (void *)(uintptr_t)all[i]);
}

/* ---- Prepacking -------------------------------------------------------------------------------------------------- */

/* In any order, the one in act-order last and for now in order. */
static void prepack_stack(stack *s) {
  const qn_rows rows = {.ids = s->perm}; /* refused before anybody looks at it */
  qn_planes straight = s->expert[s->turned].planes;
  char part[64];
  straight.perm = NULL;
  snprintf(part, sizeof part, "expert %d, allowed 0 .. %d", s->experts, s->experts - 1);
  ck_fails(QN_E_ARG, part, qn_prepack_expert(s->gemm, s->experts, &straight, &s->weight));
  ck_assert_ptr_null(s->weight);
  ck_fails(QN_E_ARG, "each is packed by qn_prepack_expert", qn_prepack(s->gemm, &straight, &s->weight));
  for (int e = s->experts - 1; e >= 0; e--)
    if (e != s->turned) ck_ok(qn_prepack_expert(s->gemm, e, &s->expert[e].planes, &s->weight));
  if (s->weight) {
    const qn_args a = make_args(s, 1);
    snprintf(part, sizeof part, "expert %d of the stack has not been", s->turned);
    ck_fails(QN_E_ARG, part, qn_run_grouped(s->gemm, s->weight, &a, &rows));
    free_args(s, &a);
  }
  ck_ok(qn_prepack_expert(s->gemm, s->turned, &straight, &s->weight));
}

/* ---- Runs -------------------------------------------------------------------------------------------------------- */

/* Of ids row r has list[r % n]; offsets are as much of the list as the experts want. What is out of range meets nobody,
 * and is no error here. */
static const struct call {
  int64_t m, topk, n;
  int32_t list[12];
  bool sorted;
} calls[] = {
    {10, 2, 10, {0, 2, 2, 0, -1, 2, E, 0, INT32_MAX, INT32_MIN}, false}, /* nobody has expert 1 */
    {M, 1, 5, {1, 0, 1, 2, 1}, false},                                   /* tiles that are full, and that are not */
    {M, 4, 1, {2}, false},
    {4, 2, 1, {-1}, false},
    {10, 1, E + 1, {0, 5, 5, 9}, true}, /* expert 1 has no rows, the last row nobody */
    {M, 0, E + 1, {0, 0, 67, M}, true},
    {10, 1, E + 1, {0, 4, 2, 11}, true}, /* falls, and goes beyond m */
    {10, 1, E + 1, {-3, 4, 7, INT32_MAX}, true},
};

static int64_t expert_of(const stack *s, const struct call *c, int64_t r) {
  if (!c->sorted) return c->list[r % c->n];
  for (int e = 0; e < s->experts; e++)
    if (c->list[e] >= 0 && c->list[e + 1] <= c->m && c->list[e] <= r && r < c->list[e + 1]) return e;
  return -1;
}

/* Whatever the rows, there are so many launches: rows are sorted, gathered in act-order, and multiplied. */
static void run_call(stack *s, const struct call *c, int launches) {
  int32_t list[M];
  int64_t n = c->sorted ? s->experts + 1 : c->m;
  for (int64_t i = 0; i < n; i++) list[i] = c->list[i % c->n];
  const qn_args a = make_args(s, c->m);
  int32_t *at = on_device(s, list, (size_t)n * sizeof *list);
  qn_rows rows = {.topk = c->topk};
  if (c->sorted) rows.offsets = at, rows.n_offsets = n;
  else rows.ids = at;
  called.launches = called.others = 0;
  ck_ok(qn_run_grouped(s->gemm, s->weight, &a, &rows));
  ck_assert_int_eq(called.launches, launches);
  ck_assert_int_eq(called.others, 0);
  ck_ok(s->device->ops->sync(s->device, NULL));
  ck_ok(s->device->ops->download(s->device, s->y, a.y, sizeof s->y));
  for (int64_t i = 0; i < M * LDY; i++) {
    int64_t r = i / LDY, col = i % LDY, e = r < c->m && col < N ? expert_of(s, c, r) : -1;
    double want = (double)i, *sums = e >= 0 && e < s->experts ? s->want[e] + r / (c->topk ? c->topk : 1) * N : NULL;
    if (sums) want += sums[col] * (double)s->scale[e] + (double)s->bias[e][col];
    ck_assert_msg((double)s->y[i] == want, "call %td: Y[%lld, %lld] of expert %lld is %g, not %g", c - calls,
                  (long long)r, (long long)col, (long long)e, (double)s->y[i], want);
  }
  size_t bytes = qn_gemm_counters(s->gemm, c->m);
  unsigned char *counters = malloc(bytes + 1);
  ck_ok(s->device->ops->download(s->device, counters, a.counters, bytes));
  for (size_t i = 0; i < bytes; i++) ck_assert_uint_eq(counters[i], 0);
  free(counters);
  s->device->ops->free(s->device, at);
  free_args(s, &a);
}

/* ---- Arguments --------------------------------------------------------------------------------------------------- */

/* All that can be said without the lists is said within the call, and nothing is launched. */
static void refuse(stack *s, bool counts) {
  int32_t *at = filled(s, M * sizeof *at, 0);
  int64_t experts = s->experts;
  char part[64];
  snprintf(part, sizeof part, "%d offsets of rows for %d experts, wanted are %d", s->experts, s->experts,
           s->experts + 1);
  const struct {
    qn_rows rows;
    const char *part;
  } bad[] = {
      {{0}, "both NULL; one of them is wanted"},
      {{.ids = at, .offsets = at, .n_offsets = experts + 1}, "both given"},
      {{.offsets = at, .n_offsets = experts}, part},
      {{.ids = at, .topk = 4}, "topk is 4; m must be a multiple of it"},
      {{.ids = at, .topk = -1}, "topk is -1"},
      {{.offsets = at, .n_offsets = experts + 1, .topk = 2}, "topk is 2; with offsets X has a row for each of Y"},
      {{.ids = at, .reserved = {1}}, "qn_rows.reserved is not zero"},
  };
  const qn_rows good = {.ids = at};
  const qn_args a = make_args(s, 10);
  called.launches = 0;
  for (size_t i = 0; i < QN_COUNT(bad); i++)
    ck_fails(QN_E_ARG, bad[i].part, qn_run_grouped(s->gemm, s->weight, &a, &bad[i].rows));
  qn_args missing = a;
  missing.bias = NULL;
  ck_fails(QN_E_ARG, "bias is NULL", qn_run_grouped(s->gemm, s->weight, &missing, &good));
  missing = a, missing.workspace = NULL; /* of the sorted rows */
  ck_fails(QN_E_ARG, "bytes of workspace", qn_run_grouped(s->gemm, s->weight, &missing, &good));
  missing = a, missing.counters = NULL;
  if (counts) ck_fails(QN_E_ARG, "bytes of counters", qn_run_grouped(s->gemm, s->weight, &missing, &good));
  else ck_assert_uint_eq(qn_gemm_counters(s->gemm, 10), 0);
  ck_fails(QN_E_ARG, "qn_run_grouped runs it", qn_run(s->gemm, s->weight, &a));
  ck_assert_int_eq(called.launches, 0);
  ck_ok(s->device->ops->sync(s->device, NULL));
  ck_ok(s->device->ops->download(s->device, s->y, a.y, sizeof s->y));
  for (int i = 0; i < M * LDY; i++) ck_assert(s->y[i] == (float)i);
  s->device->ops->free(s->device, at);
  free_args(s, &a);
}

START_TEST(stacks_are_served) {
  static stack s;
  open_stack(&s, _i);
  prepack_stack(&s);
  if (s.experts > 1) run_call(&s, &calls[0], 2); /* nobody has the expert that is still to change */
  ck_ok(qn_prepack_expert(s.gemm, s.turned, &s.expert[s.turned].planes, &s.weight));
  for (size_t i = 0; i < QN_COUNT(calls); i++) run_call(&s, &calls[i], kernels[_i].launches);
  refuse(&s, kernels[_i].counts);
  close_stack(&s);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {CASE(stacks_are_served, QN_COUNT(kernels))};
  return RUN_CASES(argv[0], cases, cli_enter, cli_leave, 300);
}
