/* test_serve.c - the four calls of quernel.h, with a real pack of real kernels compiled here.
 *
 * Weights have power-of-two scales and X small integers, so that every sum is exact and results compare bit for bit. */
#include "cpu.h"
#include "pack.h"
#include "reference.h"
#include "runtime_fixture.h"
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

/* Two kernels over the plain layout of int4.g32.f32: one in one step, one by way of the workspace in two. */
static const char source[] =
    "typedef long i64; typedef unsigned char u8;\n"
    "typedef struct { const float *x; const u8 *w; float *y; const float *xs, *bias; float *ws;\n"
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
    "  for (i64 i = begin; i < end; i++) a->ws[i] = dot(a, i / a->n, i % a->n);\n"
    "}\n"
    "ENTRY second(const args *a, i64 begin, i64 end, int t) {\n"
    "  for (i64 m = begin; m < end; m++)\n"
    "    for (i64 n = 0; n < a->n; n++) a->y[m * a->ldy + n] = a->ws[m * a->n + n] + (a->bias ? a->bias[n] : 0);\n"
    "}\n";

#define HASH_ONE "11111111111111111111111111111111"
#define HASH_TWO "22222222222222222222222222222222"

static char path[64];
static image code;

static qn_kernel kernel_one(void) {
  qn_kernel k = {.name = "host.one", .hash = HASH_ONE, .target = "host", .image = code.data, .size = code.size};
  k.recipe = (qn_recipe){.n_steps = 1, .step = {{.entry = "one", .n_args = 3, .arg = {QN_ARG_X, QN_ARG_W, QN_ARG_Y}}}};
  k.recipe.step[0].grid[0] = EXPR(V(N));
  return k;
}

static qn_kernel kernel_two(void) {
  qn_kernel k = {.name = "host.two", .hash = HASH_TWO, .target = "host", .image = code.data, .size = code.size};
  k.recipe = (qn_recipe){.n_steps = 2,
                         .step = {{.entry = "first"}, {.entry = "second"}},
                         .workspace = EXPR(V(M), V(N), O(MUL), C(4), O(MUL))};
  k.recipe.step[0].grid[0] = EXPR(V(M), V(N), O(MUL));
  k.recipe.step[1].grid[0] = EXPR(V(M));
  return k;
}

/* Kernel one up to M = 8, then kernel two. */
static qn_plan make_plan(int64_t n, int64_t k, qn_type act, bool bias) {
  qn_plan p = {.format = make_format(4, 32, false),
               .n_ranges = 2,
               .range = {{.m_min = 1, .variant = HASH_ONE}, {.m_min = 9, .variant = HASH_TWO}}};
  p.layout = plain_layout(&p.format);
  p.problem = (qn_problem){.n = n, .k = k, .act = act, .out = QN_T_F32, .bias = bias};
  snprintf(p.problem.format, sizeof p.problem.format, "%s", p.format.name);
  qn__problem_spell(&p.problem);
  return p;
}

static void write_pack(const char *arch) {
  qn_pack_builder *b;
  qn_kernel one = kernel_one(), two = kernel_two();
  snprintf(one.arch, sizeof one.arch, "%s", arch);
  const qn_plan plans[] = {make_plan(64, 96, QN_T_F32, false), make_plan(64, 96, QN_T_F32, true),
                           make_plan(512, 1024, QN_T_F32, false), make_plan(64, 96, QN_T_I8, false),
                           make_plan(0, 0, QN_T_F32, true)};
  ck_ok(qn_pack_builder_new(&b));
  ck_ok(qn_pack_add_device(b, "host", qn__cpu_arch(), "this one", 2));
  ck_ok(qn_pack_add_kernel(b, &one));
  ck_ok(qn_pack_add_kernel(b, &two));
  for (size_t i = 0; i < QN_COUNT(plans); i++) ck_ok(qn_pack_add_plan(b, &plans[i]));
  ck_ok(qn_pack_write(b, path));
  qn_pack_builder_free(b);
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

/* ---- A problem with its data ---------------------------------------------------------------------------------------
 */

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

/* ---- Cases ---------------------------------------------------------------------------------------------------------
 */

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
    ck_assert_ptr_nonnull(strstr(qn_errmsg(c), bad[i].part));
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
  qn_gemm *g, *other, *scaled;
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

/* What an engine links: the C library only, small, and no name but ours. */
START_TEST(test_library_is_lean) {
  static const char *const commands[] = {
      "readelf -d %s | grep -q 'NEEDED.*libc\\.so' && nm %s | grep -q ' qn_run$'", /* these programs see it */
      "test -z \"$(readelf -d %s | grep NEEDED | grep -vE 'lib(c|m|dl|pthread)\\.so|ld-linux|lib[atu]*san')\"",
      "test -z \"$(nm %s | grep -E ' (lua_|luaL_|ffi_|cJSON_|qn_compile|qn__compile)')\"",
      "test -z \"$(nm -D --defined-only %s | grep -vE ' T qn_')\"",
      "c=$(mktemp) && strip -o $c %s && s=$(stat -c %%s $c) && rm $c && test $s -lt 200000",
  };
  char command[512];
  snprintf(command, sizeof command, commands[_i], QN_BUILD "/runtime/libquernel.so", QN_BUILD "/runtime/libquernel.so");
  ck_assert_msg(system(command) == 0, "%s", command);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  Suite *s = suite_create("serve");
  static const struct {
    const char *name;
    const TTest *const *test;
    int loops;
  } cases[] = {
#define CASE(name, loops) {#name, &test_##name, loops}
      CASE(serves_every_m, QN_COUNT(problems)), CASE(generic_plan, 1),
      CASE(what_a_pack_says_of_itself, 1),      CASE(bad_binds, 1),
      CASE(bad_weights_and_arguments, 1),       CASE(eight_threads_at_once, 1),
      CASE(packs_for_other_machines, 1),        CASE(library_is_lean, QN_LEAN),
#undef CASE
  };
  for (size_t i = 0; i < QN_COUNT(cases); i++) {
    TCase *c = tcase_create(cases[i].name);
    tcase_add_checked_fixture(c, set_up, tear_down);
    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, *cases[i].test, 0, cases[i].loops);
    suite_add_tcase(s, c);
  }
  return run_suite(s, argv[0]);
}
