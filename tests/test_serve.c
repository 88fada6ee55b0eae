/* test_serve.c - the four calls of quernel.h, with a real pack of real kernels compiled here.
 *
 *     test_serve --seeds DIR        write that pack, as a corpus for fuzz_pack
 *
 * Weights have power-of-two scales and X small integers, so that every sum is exact and results compare bit for bit. */
#include "cpu.h"
#include "pack.h"
#include "reference.h"
#include "runtime_fixture.h"
#include "serve.h"
#include <pthread.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

/* Two kernels over the plain layout of int4.g32.f32: one in one step, one by way of the workspace in two. */
static const char source[] =
    "typedef long i64; typedef unsigned char u8;\n"
    "typedef struct { const float *x; const u8 *w; float *y; const float *xs, *bias; float *scratch;\n"
    "                 i64 m, n, k, ldx, ldy; } args;\n"
    "static float dot(const args *a, i64 m, i64 n) {\n"
    "  i64 g = (a->k + 31) / 32;\n"
    "  const u8 *q = a->w + n * g * 16;\n"
    "  const float *s = (const float *)(a->w + (a->n * g * 16 + 255) / 256 * 256) + n * g;\n"
    "  float sum = 0;\n"
    "  for (i64 k = 0; k < a->k; k++)\n"
    "    sum += a->x[m * a->ldx + k] * (float)((q[k / 2] >> k % 2 * 4 & 15) - 8) * s[k / 32];\n"
    "  return sum;\n"
    "}\n"
    "#define ENTRY __attribute__((visibility(\"default\"))) void\n"
    "ENTRY one(const args *a, i64 begin, i64 end, int t) {\n"
    "  for (i64 n = begin; n < end; n++)\n"
    "    for (i64 m = 0; m < a->m; m++) a->y[m * a->ldy + n] = dot(a, m, n) + (a->bias ? a->bias[n] : 0);\n"
    "}\n"
    "ENTRY first(const args *a, i64 begin, i64 end, int t) {\n"
    "  for (i64 i = begin; i < end; i++) a->scratch[i] = dot(a, i / a->n, i % a->n);\n"
    "}\n"
    "ENTRY second(const args *a, i64 begin, i64 end, int t) {\n"
    "  for (i64 m = begin; m < end; m++)\n"
    "    for (i64 n = 0; n < a->n; n++) a->y[m * a->ldy + n] = a->scratch[m * a->n + n] + (a->bias ? a->bias[n] : 0);\n"
    "}\n";

#define HASH_ONE "11111111111111111111111111111111"
#define HASH_TWO "22222222222222222222222222222222"

static char path[64];
static image code;

static qn_kernel kernel_one(void) {
  qn_kernel k = {.name = "host.one", .hash = HASH_ONE, .target = "host", .image = code.data, .size = code.size};
  k.recipe = (qn_recipe){.n_steps = 1, .step = {{.entry = "one", .n_args = 3, .arg = {QN_ARG_X, QN_ARG_W, QN_ARG_Y}}}};
  k.recipe.step[0].grid[0] = IN(k.recipe, V(N));
  return k;
}

static qn_kernel kernel_two(void) {
  qn_kernel k = {.name = "host.two", .hash = HASH_TWO, .target = "host", .image = code.data, .size = code.size};
  k.recipe = (qn_recipe){.n_steps = 2, .step = {{.entry = "first"}, {.entry = "second"}}};
  k.recipe.scratch = IN(k.recipe, V(M), V(N), O(MUL), C(4), O(MUL));
  k.recipe.step[0].grid[0] = IN(k.recipe, V(M), V(N), O(MUL));
  k.recipe.step[1].grid[0] = IN(k.recipe, V(M));
  return k;
}

/* Kernel one up to M = 8, then kernel two. */
static qn_plan make_plan(int64_t n, int64_t k, qn_type act, bool bias) {
  qn_plan p = {.format = make_format(4, 32, false),
               .n_ranges = 2,
               .range = {{.m_min = 1, .variant = HASH_ONE}, {.m_min = 9, .variant = HASH_TWO}}};
  strcpy(p.format.implied, "g32.sym");
  p.layout = plain_layout(&p.format);
  p.problem = (qn_problem){.n = n, .k = k, .act = act, .out = QN_T_F32, .bias = bias};
  snprintf(p.problem.format, sizeof p.problem.format, "%s", p.format.name);
  qn__problem_spell(&p.problem);
  return p;
}

/* A pack of two kernels and some plans, for devices of this architecture that ran two threads. */
static void write_plans(const qn_kernel *one, const qn_kernel *two, const qn_plan *plan, size_t n) {
  qn_pack_builder *b;
  ck_ok(qn_pack_builder_new(&b));
  ck_ok(qn_pack_add_device(b, "host", qn__cpu_arch(), "this one", 2));
  ck_ok(qn_pack_add_kernel(b, one));
  ck_ok(qn_pack_add_kernel(b, two));
  for (size_t i = 0; i < n; i++) ck_ok(qn_pack_add_plan(b, &plan[i]));
  ck_ok(qn_pack_write(b, path));
  qn_pack_builder_free(b);
}

static void write_pack(const char *arch) {
  qn_kernel one = kernel_one(), two = kernel_two();
  snprintf(one.arch, sizeof one.arch, "%s", arch);
  const qn_plan plans[] = {make_plan(64, 96, QN_T_F32, false), make_plan(64, 96, QN_T_F32, true),
                           make_plan(512, 1024, QN_T_F32, false), make_plan(64, 96, QN_T_I8, false),
                           make_plan(0, 0, QN_T_F32, true)};
  write_plans(&one, &two, plans, QN_COUNT(plans));
}

static void set_up(void) {
  snprintf(path, sizeof path, "/tmp/qn_test_%d.qpack", (int)getpid());
  code = compile(source, PLAIN_FLAGS " -fvisibility=hidden");
  write_pack("");
}

static void tear_down(void) {
  unlink(path);
  free(code.data);
}

static qn_context *open_pack(const qn_open_options *o) {
  qn_context *c;
  char err[256] = "";
  ck_assert_msg(qn_open(path, o, &c, err, sizeof err) == QN_OK, "%s", err);
  return c;
}

/* ---- A problem with its data ------------------------------------------------------------------------------------- */

#define CANARY 12345.0f

typedef struct bench {
  int64_t n, k, m, ldx, ldy;
  qn_format f;
  weight w;
  int32_t *perm;
  float *x, *y, *bias;
  double *want;
  void *ws;
} bench;

static bench make_bench(int64_t n, int64_t k, int64_t m, bool bias, bool permuted, uint64_t seed) {
  rng r = {seed};
  bench b = {.n = n, .k = k, .m = m, .ldx = k + 3, .ldy = n + 5, .f = make_format(4, 32, false)};
  b.w = random_weight(&b.f, n, k, &r);
  b.w.planes.format = "int4.g32.f32", b.w.planes.plane[1].name = "scale"; /* b.f, where these were, moves */
  b.x = malloc((size_t)(m * b.ldx) * sizeof *b.x);
  b.y = malloc((size_t)(m * b.ldy) * sizeof *b.y);
  b.bias = malloc((size_t)n * sizeof *b.bias);
  b.want = malloc((size_t)(m * n) * sizeof *b.want);
  b.perm = malloc((size_t)k * sizeof *b.perm);
  for (int64_t i = 0; i < k; i++) b.perm[i] = (int32_t)i;
  for (int64_t i = k; permuted && i > 1; i--) {
    int64_t j = below(&r, (uint32_t)i);
    int32_t t = b.perm[i - 1];
    b.perm[i - 1] = b.perm[j], b.perm[j] = t;
  }
  for (int64_t i = 0; i < m * b.ldx; i++) b.x[i] = (float)below(&r, 9) - 4;
  for (int64_t i = 0; i < n; i++) b.bias[i] = (float)below(&r, 100);
  b.w.planes.perm = b.perm; /* the identity is served as none */
  qn_host_args a = {.x = b.x, .ldx = b.ldx, .bias = bias ? b.bias : NULL};
  ck_ok(qn__reference(&b.f, &b.w.planes, &a, QN_T_F32, NULL, m, NULL, n, b.want, NULL));
  return b;
}

static qn_args args_of(bench *b, qn_gemm *g) {
  size_t size = qn_gemm_workspace(g, b->m);
  b->ws = size ? aligned_alloc(256, (size + 255) / 256 * 256) : NULL;
  return (qn_args){.x = b->x, .bias = b->bias, .y = b->y, .m = b->m, .ldx = b->ldx, .ldy = b->ldy, .workspace = b->ws};
}

/* Run and compare, bit for bit; what lies between rows of Y is left alone. */
static void run_and_compare(bench *b, const qn_gemm *g, const qn_weight *w, const qn_args *a) {
  for (int64_t i = 0; i < b->m * b->ldy; i++) b->y[i] = CANARY;
  ck_ok(qn_run(g, w, a));
  for (int64_t i = 0; i < b->m * b->ldy; i++) {
    int64_t m = i / b->ldy, n = i % b->ldy;
    double want = n < b->n ? b->want[m * b->n + n] : (double)CANARY;
    ck_assert_msg((double)b->y[i] == want, "y[%lld, %lld] is %g, not %g", (long long)m, (long long)n, (double)b->y[i],
                  want);
  }
}

static void free_bench(bench *b) {
  free_weight(&b->w);
  free(b->x), free(b->y), free(b->bias), free(b->want), free(b->perm), free(b->ws);
}

/* ---- Cases ------------------------------------------------------------------------------------------------------- */

static const struct {
  const char *problem, *served;
  int64_t n, k;
  qn_level level;
  bool bias;
} problems[] = {
    {"int4.g32.f32:64x96:f32-f32", "int4.g32.f32:64x96:f32-f32", 64, 96, QN_EXACT, false},
    {"int4.g32.f32:64x96:f32-f32+bias", "int4.g32.f32:64x96:f32-f32+bias", 64, 96, QN_EXACT, true},
    {"int4.g32.f32:64x96", "int4.g32.f32:64x96:f32-f32", 64, 96, QN_EXACT, false},
    {"int4.g32.f32:70x90:f32", "int4.g32.f32:64x96:f32-f32", 70, 90, QN_NEAREST_SHAPE, false},
    {"int4.g32.f32:300x601:f32-f32", "int4.g32.f32:512x1024:f32-f32", 300, 601, QN_NEAREST_SHAPE, false},
    {"int4.g32.f32:1x1:f32-f32", "int4.g32.f32:64x96:f32-f32", 1, 1, QN_NEAREST_SHAPE, false},
    {"int4.sym.f32:64x96", "int4.g32.f32:64x96:f32-f32", 64, 96, QN_EXACT, false}, /* as the tuner would take it */
};

START_TEST(test_serves_every_m) {
  static const int64_t ms[] = {1, 8, 9, 33};
  const int i = _i;
  qn_context *c = open_pack(NULL);
  qn_gemm *g;
  qn_weight *w;
  ck_ok(qn_bind(c, problems[i].problem, &g));
  ck_assert_int_eq(qn_gemm_level(g), problems[i].level);
  ck_assert_str_eq(qn_gemm_problem(g), problems[i].served);
  for (size_t j = 0; j < QN_COUNT(ms); j++) {
    bench b = make_bench(problems[i].n, problems[i].k, ms[j], problems[i].bias, j == 1 || j == 3, (uint64_t)i);
    char format[QN_NAME];
    snprintf(format, sizeof format, "%.*s", (int)strcspn(problems[i].problem, ":"), problems[i].problem);
    b.w.planes.format = format;
    ck_ok(qn_prepack(g, &b.w.planes, &w));
    qn_args a = args_of(&b, g);
    ck_assert_str_eq(qn_gemm_kernel(g, ms[j]), ms[j] < 9 ? "host.one" : "host.two");
    run_and_compare(&b, g, w, &a);
    qn_weight_free(w);
    free_bench(&b);
  }
  ck_assert_uint_eq(qn_misses(c), problems[i].level == QN_EXACT ? 0 : QN_COUNT(ms));
  qn_gemm_free(g);
  qn_close(c);
}
END_TEST

/* A pack with a generic plan only; and a tuned shape, where there is one of the types, goes before it. */
START_TEST(test_generic_plan) {
  qn_pack_builder *b;
  qn_kernel one = kernel_one();
  qn_plan p = make_plan(0, 0, QN_T_F32, false);
  p.n_ranges = 1;
  ck_ok(qn_pack_builder_new(&b));
  ck_ok(qn_pack_add_device(b, "host", "", "", 1));
  ck_ok(qn_pack_add_kernel(b, &one));
  ck_ok(qn_pack_add_plan(b, &p));
  ck_ok(qn_pack_write(b, path));
  qn_pack_builder_free(b);
  qn_context *c = open_pack(NULL);
  qn_gemm *g;
  qn_weight *w;
  ck_assert_ptr_null(qn_problem_at(c, 0));
  ck_ok(qn_bind(c, "int4.g32.f32:50x77", &g));
  ck_assert_int_eq(qn_gemm_level(g), QN_GENERIC);
  bench d = make_bench(50, 77, 4, false, false, 1);
  ck_ok(qn_prepack(g, &d.w.planes, &w));
  qn_args a = args_of(&d, g);
  ck_assert_ptr_null(a.workspace);
  run_and_compare(&d, g, w, &a);
  free_bench(&d);
  qn_weight_free(w);
  qn_gemm_free(g);
  qn_close(c);
}
END_TEST

START_TEST(test_what_a_pack_says_of_itself) {
  qn_context *c = open_pack(NULL), *again = open_pack(NULL);
  qn_gemm *g;
  int i = 0;
  while (qn_problem_at(c, i)) i++;
  ck_assert_int_eq(i, 4);
  ck_assert_str_eq(qn_problem_at(c, 0), "int4.g32.f32:64x96:i8-f32");
  ck_assert_ptr_null(qn_problem_at(c, -1));
  ck_assert_str_eq(qn_pack_hash(c), qn_pack_hash(again));
  ck_ok(qn_bind(c, "int4.g32.f32:64x96:f32-f32", &g));
  ck_assert_uint_eq(qn_weight_bytes(g), 64 * 48 + 64 * 3 * 4);
  ck_assert_uint_eq(qn_gemm_workspace(g, 8), 0);
  ck_assert_uint_eq(qn_gemm_workspace(g, 9), 9 * 64 * 4);
  ck_assert_uint_eq(qn_gemm_workspace(g, 100), 100 * 64 * 4);
  qn_gemm_free(g);
  qn_close(c);
  qn_close(again);
  qn_close(NULL);
}
END_TEST

START_TEST(test_bad_binds) {
  static const struct {
    const char *problem, *part;
    qn_status status;
  } bad[] = {{"int4.g32.f32", "form is", QN_E_ARG},
             {"int4.g32.f32:0x4", "1 .. 2147483647", QN_E_SHAPE},
             {"int4.g32.f32:64x96:bf16-f32", "has 4 problems of this kind", QN_E_NO_KERNEL},
             {"int4.g64.f32:64x96", "no plan", QN_E_NO_KERNEL},
             {"int4.g32.f32:64x96:i8-f32+bias", "no plan", QN_E_NO_KERNEL},
             {"int4.g32.f32:2147483647x2147483647:f32-f32", "2^48", QN_E_SHAPE}};
  qn_context *c = open_pack(NULL);
  qn_gemm *g;
  for (size_t i = 0; i < QN_COUNT(bad); i++) {
    ck_fails(bad[i].status, bad[i].part, qn_bind(c, bad[i].problem, &g));
    ck_assert_ptr_null(g);
    ck_assert_ptr_nonnull(strstr(qn_errmsg(), bad[i].part));
  }
  ck_fails(QN_E_ARG, "NULL", qn_bind(c, NULL, &g));
  qn_close(c);
  const qn_open_options invariant = {.batch_invariant = 1};
  c = open_pack(&invariant);
  ck_fails(QN_E_NO_KERNEL, "kind", qn_bind(c, "int4.g32.f32:64x96", &g));
  qn_close(c);
}
END_TEST

START_TEST(test_bad_weights_and_arguments) {
  qn_context *c = open_pack(NULL);
  qn_gemm *g, *plain, *other, *scaled;
  qn_weight *w, *none;
  ck_ok(qn_bind(c, "int4.g32.f32:64x96:f32-f32+bias", &g));
  ck_ok(qn_bind(c, "int4.g32.f32:512x1024:f32-f32", &other));
  ck_ok(qn_bind(c, "int4.g32.f32:64x96:i8-f32", &scaled));
  bench b = make_bench(64, 96, 12, true, true, 3);
  ck_ok(qn_prepack(g, &b.w.planes, &w));
  ck_fails(QN_E_SHAPE, "[64, 96]", qn_prepack(other, &b.w.planes, &none));
  ck_assert_ptr_null(none);
  ((float *)b.w.data[1])[5] = -1.0f / 0.0f;
  ck_fails(QN_E_ARG, "'scale'[1, 2]", qn_prepack(g, &b.w.planes, &none));
  const qn_args good = args_of(&b, g);
  qn_args a;
  run_and_compare(&b, g, w, &good);
  ck_ok(qn_bind(c, "int4.g32.f32:64x96:f32-f32", &plain)); /* the same format, shape and layout */
  ck_ok(qn_run(plain, w, &good));
  for (int64_t i = 0; i < b.m; i++) ck_assert(b.y[i * b.ldy] == (float)b.want[i * b.n] - b.bias[0]);
  qn_gemm_free(plain);
#define REFUSED(part, change)                                                                                          \
  a = good;                                                                                                            \
  change;                                                                                                              \
  ck_fails(QN_E_ARG, part, qn_run(g, w, &a))
  REFUSED("x is NULL", a.x = NULL);
  REFUSED("y is NULL", a.y = NULL);
  REFUSED("bias is NULL", a.bias = NULL);
  REFUSED("m is -1", a.m = -1);
  REFUSED("m is 16777217", a.m = (1 << 24) + 1);
  REFUSED("ldx is 95", a.ldx = 95);
  REFUSED("ldy is 63", a.ldy = 63);
  REFUSED("ldx is -1", a.ldx = -1);
  REFUSED("bytes of workspace", a.workspace = NULL);
  REFUSED("not aligned", a.workspace = (char *)a.workspace + 16);
#undef REFUSED
  ck_fails(QN_E_ARG, "x_scale is NULL", qn_run(scaled, w, &good));
  ck_fails(QN_E_ARG, "another problem", qn_run(other, w, &good));
  ck_fails(QN_E_ARG, "NULL argument", qn_run(NULL, w, &good));
  a = good, a.m = 0, a.x = NULL;
  ck_ok(qn_run(g, w, &a));
  free_bench(&b);
  qn_weight_free(w);
  qn_weight_free(NULL);
  qn_gemm_free(scaled);
  qn_gemm_free(other);
  qn_gemm_free(g);
  qn_gemm_free(NULL);
  qn_close(c);
}
END_TEST

typedef struct client {
  qn_gemm *gemm;
  qn_weight *weight;
  bench b;
} client;

static void *serve(void *arg) {
  client *c = arg;
  qn_args a = args_of(&c->b, c->gemm);
  for (int i = 0; i < 60; i++) run_and_compare(&c->b, c->gemm, c->weight, &a);
  return NULL;
}

/* Eight threads on one context, one gemm and one weight (equal seeds draw equal weights), with batches on both sides of
 * a range's border. */
START_TEST(test_eight_threads_at_once) {
  const qn_open_options three = {.device = "host", .threads = 3};
  qn_context *c = open_pack(&three);
  qn_gemm *g;
  qn_weight *w;
  client clients[8];
  pthread_t thread[8];
  ck_ok(qn_bind(c, "int4.g32.f32:70x90:f32-f32", &g));
  for (int i = 0; i < 8; i++) clients[i] = (client){g, NULL, make_bench(70, 90, 1 + 3 * i, false, true, 9)};
  ck_ok(qn_prepack(g, &clients[0].b.w.planes, &w));
  for (int i = 0; i < 8; i++) {
    clients[i].weight = w;
    ck_assert_int_eq(pthread_create(&thread[i], NULL, serve, &clients[i]), 0);
  }
  for (int i = 0; i < 8; i++) pthread_join(thread[i], NULL), free_bench(&clients[i].b);
  ck_assert_uint_eq(qn_misses(c), 8 * 60);
  qn_weight_free(w);
  qn_gemm_free(g);
  qn_close(c);
}
END_TEST

START_TEST(test_packs_for_other_machines) {
  qn_context *c;
  char err[300] = "";
  write_pack("avx9000");
  ck_assert_int_eq(qn_open(path, NULL, &c, err, sizeof err), QN_E_DEVICE);
  ck_assert_msg(strstr(err, "needs a CPU with avx9000") != NULL, "%s", err);
  ck_assert_ptr_null(c);
  write_pack(qn__cpu_arch());
  qn_close(open_pack(NULL));
  const qn_open_options cuda = {.device = "cuda:7"}, unknown = {.device = "tpu"}, negative = {.threads = -1};
  ck_assert_int_eq(qn_open(path, &cuda, &c, err, sizeof err), QN_E_DEVICE);
  ck_assert_int_eq(qn_open(path, &unknown, &c, err, 10), QN_E_ARG);
  ck_assert_uint_eq(strlen(err), 9);
  ck_assert_int_eq(qn_open(path, &negative, &c, NULL, 0), QN_E_ARG);
  ck_assert_int_eq(qn_open(NULL, NULL, &c, NULL, 0), QN_E_ARG);
  ck_assert_int_eq(qn_open("/tmp/no/such.qpack", NULL, &c, err, sizeof err), QN_E_IO);
  code.data[18] = 243; /* an image for another CPU, in a pack that does not say so */
  write_pack("");
  ck_assert_int_eq(qn_open(path, NULL, &c, err, sizeof err), QN_E_DEVICE);
  ck_assert_msg(strstr(err, "machine 243") != NULL, "%s", err);
}
END_TEST

/* Kinds of plans are kept apart, a generic one of each kind serves what was not tuned, and a spelling that leaves types
 * open never finds activations with scales. */
START_TEST(test_kinds_of_plans) {
  static const char *const kernels[QN_PLAN_KINDS] = {"host.one", "host.two", "host.one"};
  qn_kernel one = kernel_one(), two = kernel_two();
  qn_plan plans[2 * QN_PLAN_KINDS];
  for (uint32_t i = 0; i < QN_COUNT(plans); i++) {
    plans[i] = make_plan(i % 2 ? 0 : 64, i % 2 ? 0 : 96, QN_T_F32, false);
    plans[i].kind = i / 2, plans[i].n_ranges = 1;
    strcpy(plans[i].range[0].variant, i / 2 == QN_PLAN_DETERMINISTIC ? HASH_TWO : HASH_ONE);
  }
  plans[5].problem.bias = 1, qn__problem_spell(&plans[5].problem);
  write_plans(&one, &two, plans, QN_COUNT(plans));
  for (int kind = 0; kind < QN_PLAN_KINDS; kind++) {
    const qn_open_options o = {.deterministic = kind > 0, .batch_invariant = kind == QN_PLAN_BATCH_INVARIANT};
    const char *spelling = kind == QN_PLAN_BATCH_INVARIANT ? "int4.g32.f32:5x7+bias" : "int4.g64.f32:5x7";
    qn_context *c = open_pack(&o);
    qn_gemm *g;
    ck_assert_str_eq(qn_problem_at(c, 0), "int4.g32.f32:64x96:f32-f32");
    ck_assert_ptr_null(qn_problem_at(c, 1)); /* a generic plan is no problem */
    ck_ok(qn_bind(c, "int4.g32.f32:64x96", &g));
    ck_assert_int_eq(qn_gemm_level(g), QN_EXACT);
    ck_assert_str_eq(qn_gemm_kernel(g, 1), kernels[kind]);
    ck_assert_str_eq(qn_gemm_kernel(g, 0), "");
    qn_gemm_free(g);
    if (kind == QN_PLAN_BATCH_INVARIANT) {
      ck_ok(qn_bind(c, spelling, &g));
      ck_assert_int_eq(qn_gemm_level(g), QN_GENERIC);
      ck_assert_str_eq(qn_gemm_kernel(g, 1 << 20), kernels[kind]);
      qn_gemm_free(g);
    } else ck_fails(QN_E_NO_KERNEL, "no plan", qn_bind(c, spelling, &g));
    qn_close(c);
  }
}
END_TEST

/* Found for all M at once, and so at once for the largest; more than 2^24 tokens are never run. What could overflow for
 * some M is refused when it is bound, since qn_gemm_workspace has no way to say so. */
START_TEST(test_workspaces) {
  const struct {
    qn_program bytes;
    const char *refused;
    size_t most;
  } cases[] = {
      {EXPR(V(M), V(N), O(MUL), C(4), O(MUL)), NULL, (size_t)64 * 4 << 24},
      {EXPR(C(0x1p40), V(M), O(DIV)), NULL, (size_t)1 << 40},
      {EXPR(C(100), V(M), O(SUB), C(0), O(MAX)), NULL, 99},
      {EXPR(V(M), C(0x1p53), O(MUL)), "overflow", 0},
      {EXPR(V(M), C(0x1p38 + 1), O(MUL)), "bytes", 0}, /* no room for X beside it */
      {EXPR(C(-1)), "of -1 bytes", 0},
      {EXPR(C(1), V(M), C(5), O(SUB), O(DIV)), "division", 0},
  };
  qn_kernel one = kernel_one(), two = kernel_two();
  qn_plan plan = make_plan(64, 96, QN_T_F32, false);
  bool counters = _i >= (int)QN_COUNT(cases);
  size_t (*size)(const qn_gemm *, int64_t) = counters ? qn_gemm_counters : qn_gemm_workspace;
  _i %= (int)QN_COUNT(cases);
  *(counters ? &one.recipe.counters : &one.recipe.scratch) = in_pool(&one.recipe.pool, cases[_i].bytes);
  plan.n_ranges = 1;
  write_plans(&one, &two, &plan, 1);
  qn_context *c = open_pack(NULL);
  qn_gemm *g;
  qn_weight *w;
  if (cases[_i].refused) {
    ck_fails(QN_E_LIMIT, cases[_i].refused, qn_bind(c, "int4.g32.f32:64x96", &g));
  } else {
    ck_ok(qn_bind(c, "int4.g32.f32:64x96", &g));
    ck_assert_uint_eq(size(g, 1 << 24), cases[_i].most);
    ck_assert_uint_eq(size(g, INT64_MAX), cases[_i].most);
    ck_assert_uint_eq(size(g, 0), 0);
    ck_assert_uint_eq(size(g, INT64_MIN), 0);
    bench b = make_bench(64, 96, 1, false, true, 1);
    ck_ok(qn_prepack(g, &b.w.planes, &w));
    if (!_i)
      ck_fails(QN_E_ARG, counters ? "m = 1 needs 256 bytes of counters" : "m = 1 needs 640 bytes of workspace",
               qn_run(g, w, &(qn_args){.x = b.x, .y = b.y, .m = 1}));
    ck_assert_uint_eq(qn_gemm_workspace(g, 1 << 24),
                      (counters ? 0 : (cases[_i].most + 255) / 256 * 256) + ((size_t)96 * 4 << 24));
    qn_gemm_free(g);
    qn_weight_free(w); /* in any order */
    free_bench(&b);
  }
  qn_close(c);
}
END_TEST

static qn_pack_builder *builder;

static void add_device(uint32_t i, const char *target, const char *arch, const char *product, int threads) {
  qn_plan plan = make_plan(64 + i, 96, QN_T_F32, false); /* N tells whose plans serve */
  qn_kernel one = kernel_one();
  one.hash[0] = (char)('a' + i);
  if (!strcmp(target, "cuda")) strcpy(one.target, target), strcpy(one.arch, arch);
  memcpy(plan.range[0].variant, one.hash, sizeof one.hash);
  plan.device = i, plan.n_ranges = 1;
  ck_ok(qn_pack_add_device(builder, target, arch, product, threads));
  ck_ok(qn_pack_add_kernel(builder, &one));
  ck_ok(qn_pack_add_plan(builder, &plan));
}

/* Whose plans serve, and with how many threads. */
static void check_choice(const qn_open_options *o, int device, int threads) {
  qn_context *c = open_pack(o);
  char spelling[64];
  snprintf(spelling, sizeof spelling, "int4.g32.f32:%dx96:f32-f32", 64 + device);
  ck_assert_str_eq(qn_problem_at(c, 0), spelling);
  ck_assert_int_eq(qn__context_device(c)->info.threads, threads);
  qn_close(c);
}

static void allow_cpus(int n) {
  cpu_set_t all, some;
  CPU_ZERO(&some);
  ck_assert_int_eq(sched_getaffinity(0, sizeof all, &all), 0);
  for (int i = 0; CPU_COUNT(&some) < n && i < CPU_SETSIZE; i++)
    if (CPU_ISSET(i, &all)) CPU_SET(i, &some);
  ck_assert_int_eq(sched_setaffinity(0, sizeof some, &some), 0);
}

/* A pack of several machines: the plans of the one most like this, and the threads that these were measured with. */
START_TEST(test_hosts_in_one_pack) {
  qn_device *here;
  ck_ok(qn__device_open(NULL, "host:1", &here));
  ck_ok(qn_pack_builder_new(&builder));
  add_device(0, "host", "x86-64 avx", "a small one", 7);
  add_device(1, "host", here->info.arch, "another", 1);
  add_device(2, "host", here->info.arch, here->info.product, 64);
  add_device(3, "host", here->info.arch, here->info.product, 1);
  ck_ok(qn_pack_write(builder, path));
  qn_pack_builder_free(builder);
  check_choice(&(qn_open_options){.threads = 40}, 2, 40);
  check_choice(&(qn_open_options){.device = "host:1"}, 3, 1);
  allow_cpus(1); /* what was measured with more than there are would wait for itself */
  check_choice(NULL, 3, 1);
  check_choice(&(qn_open_options){.device = "host", .threads = 3}, 3, 3);
  qn_context *c;
  char err[200];
  const qn_open_options two = {.device = "host:2"}, both = {.device = "host:1", .threads = 2}, many = {.threads = 1025};
  ck_assert_int_eq(qn_open(path, &two, &c, err, sizeof err), QN_E_ARG);
  ck_assert_msg(strstr(err, "from 1 to 1,") != NULL, "%s", err);
  ck_assert_int_eq(qn_open(path, &both, &c, err, sizeof err), QN_E_ARG);
  ck_assert_int_eq(qn_open(path, &many, &c, err, sizeof err), QN_E_ARG);
  ck_assert_msg(strstr(err, "1024") != NULL, "%s", err);
  qn__device_close(here);
  write_pack(""); /* one device, measured with two threads */
  c = open_pack(NULL);
  ck_assert_int_eq(qn__context_device(c)->info.threads, 1);
  qn_close(c);
}
END_TEST

static void close_gpu(qn_device *d) { (void)d; }
static qn_device_info pretended;
static qn_status open_gpu(const qn_allocator *heap, const char *name, qn_device **out) {
  (void)heap;
  static const qn_device_ops ops = {.close = close_gpu};
  static qn_device gpu;
  pretended = (qn_device_info){.target = "cuda", .product = "one"};
  snprintf(pretended.arch, sizeof pretended.arch, "%s", name + strlen("gpu:"));
  gpu = (qn_device){.ops = &ops, .info = pretended};
  return *out = &gpu, QN_OK;
}

/* Code for an architecture runs on later ones of its generation, and the latest of them is most like it; what has
 * features of its own (an a at the end) runs there only. */
START_TEST(test_gpus_in_one_pack) {
  static const struct {
    const char *device;
    int served;
    const char *refused;
  } cases[] = {{"gpu:sm_80", 0, NULL},
               {"gpu:sm_86", 1, NULL},
               {"gpu:sm_89", 1, NULL},
               {"gpu:sm_90a", 4, NULL},
               {"gpu:sm_90", 0, "the pack is for"},
               {"gpu:sm_75", 0, "is for sm_"}};
  qn__device_provide("gpu:", open_gpu);
  ck_ok(qn_pack_builder_new(&builder));
  add_device(0, "cuda", "sm_80", "", 0);
  add_device(1, "cuda", "sm_86", "", 0);
  add_device(2, "host", "", "", 1);
  add_device(3, "cuda", "sm_90a", "another", 0);
  add_device(4, "cuda", "sm_90a", "one", 0);
  ck_ok(qn_pack_write(builder, path));
  qn_pack_builder_free(builder);
  const qn_open_options o = {.device = cases[_i].device};
  qn_context *c;
  char err[200];
  if (!cases[_i].refused) check_choice(&o, cases[_i].served, 0);
  else ck_assert_int_eq(qn_open(path, &o, &c, err, sizeof err), QN_E_DEVICE);
}
END_TEST

/* A file replaced by a rename stays what it was for who has it open; what is no file is refused, not waited for. */
START_TEST(test_files) {
  qn_context *c = open_pack(NULL), *none;
  char other[80], err[200];
  snprintf(other, sizeof other, "%s.new", path);
  ck_assert_int_eq(rename(path, other), 0);
  ck_assert_int_eq(mkfifo(path, 0600), 0);
  qn_gemm *g;
  ck_ok(qn_bind(c, "int4.g32.f32:64x96", &g));
  qn_gemm_free(g);
  qn_close(c);
  ck_assert_int_eq(qn_open(path, NULL, &none, err, sizeof err), QN_E_IO);
  ck_assert_msg(strstr(err, "not a file") != NULL, "%s", err);
  unlink(other);
}
END_TEST

/* What a program of version 0.1.0 hands over. Sizes never change: a field that came later is zero here. */
typedef struct old_args {
  const void *x;
  const float *x_scale;
  const void *bias;
  void *y;
  int64_t m, ldx, ldy;
  void *workspace, *stream;
  uint64_t zero[8];
} old_args;
_Static_assert(sizeof(old_args) == sizeof(qn_args), "qn_args");
_Static_assert(sizeof(qn_open_options) == 88 && sizeof(qn_function_args) == 160, "qn_open_options, qn_function_args");
_Static_assert(sizeof(qn_planes) == 32 + QN_MAX_PLANES * sizeof(qn_plane) + 72, "qn_planes");

/* Older programs are served; what a newer one may ask for, and what was not initialised, is refused in any word. */
START_TEST(test_programs_of_other_versions) {
  qn_context *c = open_pack(NULL), *none;
  qn_gemm *g;
  qn_weight *w, *no_weight;
  bench b = make_bench(64, 96, 3, false, false, 8);
  ck_ok(qn_bind(c, "int4.g32.f32:64x96", &g));
  ck_ok(qn_prepack(g, &b.w.planes, &w));
  qn_args a = args_of(&b, g), old;
  const old_args of_old = {.x = b.x, .y = b.y, .m = b.m, .ldx = b.ldx, .ldy = b.ldy, .workspace = b.ws};
  memcpy(&old, &of_old, sizeof old);
  run_and_compare(&b, g, w, &old);
  for (size_t i = 0; i < QN_COUNT(a.reserved); i++) {
    qn_args newer = a;
    newer.reserved[i] = 1;
    ck_fails(QN_E_ARG, "qn_args.reserved", qn_run(g, w, &newer));
  }
  for (size_t i = 0; i < QN_COUNT(b.w.planes.reserved); i++) {
    qn_planes newer = b.w.planes;
    newer.reserved[i] = UINT64_C(1) << 63;
    ck_fails(QN_E_ARG, "qn_planes.reserved", qn_prepack(g, &newer, &no_weight));
  }
  for (size_t i = 0; i < QN_COUNT(((qn_open_options *)0)->reserved); i++) {
    qn_open_options newer = {.device = "host"};
    newer.reserved[i] = 1;
    ck_fails(QN_E_ARG, "qn_open_options.reserved", qn_open(path, &newer, &none, NULL, 0));
  }
  free_bench(&b);
  qn_weight_free(w);
  qn_gemm_free(g);
  qn_close(c);
}
END_TEST

static void *fail_elsewhere(void *unused) {
  qn_context *c;
  ck_assert_int_eq(qn_open("/tmp/no/such.qpack", NULL, &c, NULL, 0), QN_E_IO);
  return unused;
}

/* The detail is the thread's own, and no success changes it. */
START_TEST(test_errors_of_threads) {
  qn_context *c = open_pack(NULL);
  qn_gemm *g = (qn_gemm *)&c;
  pthread_t thread;
  ck_fails(QN_E_ARG, "form is", qn_bind(c, "nonsense", &g));
  ck_assert_ptr_null(g);
  g = (qn_gemm *)&c;
  ck_fails(QN_E_ARG, "NULL", qn_bind(NULL, "int4.g32.f32:64x96", &g));
  ck_assert_ptr_null(g);
  char before[512];
  snprintf(before, sizeof before, "%s", qn_errmsg());
  ck_assert_int_eq(pthread_create(&thread, NULL, fail_elsewhere, NULL), 0);
  pthread_join(thread, NULL);
  ck_ok(qn_bind(c, "int4.g32.f32:64x96", &g));
  ck_assert_str_eq(qn_errmsg(), before);
  ck_assert_ptr_null(strchr(before, '\n'));
  qn_gemm_free(g);
  qn_close(c);
}
END_TEST

/* Planes at odd addresses, as in a mapped file. */
START_TEST(test_planes_at_odd_addresses) {
  qn_context *c = open_pack(NULL);
  qn_gemm *g;
  qn_weight *w;
  char *copy[2];
  bench b = make_bench(64, 96, 3, false, false, 4);
  ck_ok(qn_bind(c, "int4.g32.f32:64x96", &g));
  qn_planes odd = b.w.planes;
  for (int i = 0; i < 2; i++) {
    size_t size = (size_t)(odd.plane[i].rows * odd.plane[i].cols * qn_type_bits(odd.plane[i].type) / 8);
    copy[i] = malloc(size + 1);
    odd.plane[i].data = memcpy(copy[i] + 1, odd.plane[i].data, size);
  }
  ck_ok(qn_prepack(g, &odd, &w));
  for (int i = 0; i < 2; i++) memset(copy[i], 0xff, 8), free(copy[i]); /* read during the call only */
  qn_args a = args_of(&b, g);
  run_and_compare(&b, g, w, &a);
  free_bench(&b);
  qn_weight_free(w);
  qn_gemm_free(g);
  qn_close(c);
}
END_TEST

/* ---- Memory of the host ------------------------------------------------------------------------------------------ */

/* An allocator that keeps books, and fails once. In front of a block stands its size. */
typedef struct books {
  size_t blocks, bytes, calls, fail_at;
  bool wrong; /* a size was handed back that was not given */
} books;

static void *kept(void *user, void *p, size_t old_size, size_t new_size) {
  enum { front = 16 };
  books *b = user;
  char *whole = p ? (char *)p - front : NULL;
  b->wrong |= (whole ? *(size_t *)(void *)whole : 0) != old_size;
  if (new_size && ++b->calls == b->fail_at) return NULL;
  b->blocks += (new_size != 0) - (p != NULL), b->bytes += new_size - old_size;
  if (!new_size) return free(whole), NULL;
  whole = realloc(whole, front + new_size);
  *(size_t *)(void *)whole = new_size;
  return whole + front;
}

/* The call; where it meets the failure it says so, and works when it is made again. */
#define MAY_FAIL(call)                                                                                                 \
  do {                                                                                                                 \
    qn_status failed_ = (call);                                                                                        \
    if (failed_)                                                                                                       \
      ck_assert_msg(failed_ == QN_E_NOMEM && account.calls >= account.fail_at, "%s: %s", #call, qn_errmsg());          \
    if (failed_) ck_ok(call);                                                                                          \
  } while (0)

/* Every allocation fails in turn. All that was taken goes back, with its size, and a call takes nothing. */
START_TEST(test_memory_runs_out) {
  bench b = make_bench(64, 96, 12, true, true, 9);
  books account = {0};
  const qn_open_options o = {.device = "host", .threads = 2, .allocator = {kept, &account}};
  do {
    qn_context *c;
    qn_gemm *g;
    qn_weight *w;
    account.calls = 0, account.fail_at++;
    MAY_FAIL(qn_open(path, &o, &c, NULL, 0));
    MAY_FAIL(qn_bind(c, "int4.g32.f32:64x96:f32-f32+bias", &g));
    MAY_FAIL(qn_prepack(g, &b.w.planes, &w));
    size_t before = account.calls;
    qn_args a = args_of(&b, g);
    run_and_compare(&b, g, w, &a);
    ck_assert_uint_eq(account.calls, before);
    free(b.ws), b.ws = NULL;
    qn_weight_free(w);
    qn_gemm_free(g);
    qn_close(c);
    ck_assert(!account.blocks && !account.bytes && !account.wrong);
  } while (account.calls >= account.fail_at);
  ck_assert_uint_gt(account.fail_at, 15); /* what there is to fail */
  free_bench(&b);
}
END_TEST

#if QN_LEAN /* sanitizers have an allocator of their own */
static _Atomic size_t allocations;
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);
void *malloc(size_t size) {
  allocations++;
  return __libc_malloc(size);
}
void *calloc(size_t n, size_t size) {
  allocations++;
  return __libc_calloc(n, size);
}
void *realloc(void *p, size_t size) {
  allocations++;
  return __libc_realloc(p, size);
}

/* A call allocates nothing, in either range of M, with a permutation or none; binding does. */
START_TEST(test_runs_do_not_allocate) {
  qn_context *c = open_pack(&(qn_open_options){.threads = 3});
  qn_gemm *g;
  qn_weight *w;
  size_t before = allocations;
  ck_ok(qn_bind(c, "int4.g32.f32:64x96", &g));
  ck_assert_uint_gt(allocations, before);
  bench b = make_bench(64, 96, _i & 1 ? 12 : 1, false, _i > 1, 5);
  ck_ok(qn_prepack(g, &b.w.planes, &w));
  qn_args a = args_of(&b, g);
  before = allocations;
  qn_status s = QN_OK;
  for (int i = 0; i < 50 && !s; i++) s = qn_run(g, w, &a);
  ck_assert_uint_eq(allocations, before);
  ck_ok(s);
  free_bench(&b);
  qn_weight_free(w);
  qn_gemm_free(g);
  qn_close(c);
}
END_TEST
#endif

START_TEST(test_names_of_statuses_and_types) {
  ck_assert_str_eq(qn_status_name(QN_E_SHAPE), "QN_E_SHAPE");
  ck_assert_str_eq(qn_status_text(QN_E_SHAPE), "shape not supported");
  ck_assert_ptr_nonnull(qn_status_name((qn_status)-1));
  ck_assert_ptr_nonnull(qn_status_text((qn_status)1000));
  ck_assert_str_eq(qn_version(), QN_VERSION);
  for (int t = 0; qn_type_name((qn_type)t); t++) ck_assert_int_eq(qn_type_from_name(qn_type_name((qn_type)t)), t);
  ck_assert_ptr_null(qn_type_name((qn_type)-1));
  ck_assert_int_eq(qn_type_bits((qn_type)-1), 0);
  for (int i = 0; i < 100; i++) ck_assert_int_eq(!qn_type_name((qn_type)i), !qn_type_bits((qn_type)i) && i);
  ck_assert_int_eq(qn_type_bits(QN_T_BF16), 16);
  ck_assert_int_eq(qn_type_from_name("u4"), QN_T_NONE);
  ck_assert_int_eq(qn_type_from_name(NULL), QN_T_NONE);
}
END_TEST

/* What an engine links: the C library only, small, no name but those of the header, nothing that prints or ends the
 * process. */
#define EXPORTS(library, header)                                                                                       \
  "test \"$(nm -D --defined-only " library " | awk '{ print $3 }' | sort)\" = \"$(grep '^QN_API' " QN_TESTS            \
  "/../runtime/" header " | grep -oE 'qn_[a-z0-9_]+\\(' | tr -d '(' | sort)\""

/* Every function of its sources is in it, but for those by which the tool and the tests get at its inside. */
#define SEAMS                                                                                                          \
  "qn__bound_run|qn__context_device|qn__cuda_driver|qn__cuda_(driver_of|enter|leave|result)|qn__device_provide|"       \
  "qn__expr_f64|qn__gemm_problem"
#define HOLDS_ALL                                                                                                      \
  "in=$(nm %s | awk '{ print $3 }') && test -z \"$(nm " QN_BUILD "/runtime/libquernel_static.a | "                     \
  "awk '$2 == \"T\" { print $3 }' | grep -vxF \"$in\" | grep -vxE '" SEAMS "')\""

START_TEST(test_library_is_lean) {
  static const char *const commands[] = {
      HOLDS_ALL,
      "readelf -d %s | grep -q 'NEEDED.*libc\\.so' && nm %s | grep -q ' qn_run$'", /* these programs see it */
      "test -z \"$(readelf -d %s | grep NEEDED | grep -vE 'lib(c|m|dl|pthread)\\.so|ld-linux|lib[atu]*san')\"",
      "test -z \"$(nm %s | grep -E ' (lua_|luaL_|ffi_|cJSON_|qn_compile|qn__compile)')\"",
      EXPORTS("%s", "quernel.h"),
      EXPORTS(QN_BUILD "/runtime/io/libquernel-io.so", "io/io.h"),
      "test -z \"$(nm -D --undefined-only %s | grep -wE "
      "'exit|_exit|abort|v?printf|puts|putchar|perror|__assert_fail')\"",
      "c=$(mktemp) && strip -o $c %s && s=$(stat -c %%s $c) && rm $c && test $s -lt 200000",
  };
  char command[640];
  snprintf(command, sizeof command, commands[_i], QN_BUILD "/runtime/libquernel.so", QN_BUILD "/runtime/libquernel.so");
  ck_assert_msg(system(command) == 0, "%s", command);
}
END_TEST

static const char *seeds;

START_TEST(test_write_seeds) {
  code = compile(source, PLAIN_FLAGS " -fvisibility=hidden");
  snprintf(path, sizeof path, "%s/pack-0", seeds);
  write_pack("");
}
END_TEST

int main(int argc, char **argv) {
  static const suite_case write[] = {CASE(test_write_seeds, 1)}, cases[] = {
    CASE(test_serves_every_m, QN_COUNT(problems)),
    CASE(test_generic_plan, 1),
    CASE(test_what_a_pack_says_of_itself, 1),
    CASE(test_bad_binds, 1),
    CASE(test_bad_weights_and_arguments, 1),
    CASE(test_eight_threads_at_once, 1),
    CASE(test_packs_for_other_machines, 1),
    CASE(test_kinds_of_plans, 1),
    CASE(test_workspaces, 14),
    CASE(test_hosts_in_one_pack, 1),
    CASE(test_gpus_in_one_pack, 6),
    CASE(test_files, 1),
    CASE(test_programs_of_other_versions, 1),
    CASE(test_errors_of_threads, 1),
    CASE(test_planes_at_odd_addresses, 1),
    CASE(test_memory_runs_out, 1),
    CASE(test_names_of_statuses_and_types, 1),
    CASE(test_library_is_lean, QN_LEAN),
#if QN_LEAN
    CASE(test_runs_do_not_allocate, 4),
#endif
  };
  if (argc > 2 && !strcmp(argv[1], "--seeds")) {
    seeds = argv[2];
    return RUN_CASES(argv[0], write, .timeout = 120);
  }
  return RUN_CASES(argv[0], cases, set_up, tear_down, 120);
}
