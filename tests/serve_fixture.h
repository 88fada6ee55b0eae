/* serve_fixture.h - a pack of two kernels, compiled here, and problems with their data.
 *
 * Weights have power-of-two scales and X small integers, so that every sum is exact and results compare bit for bit. */
#ifndef SERVE_FIXTURE_H
#define SERVE_FIXTURE_H
#include "cpu.h"
#include "pack.h"
#include "reference.h"
#include "runtime_fixture.h"
#include "serve.h"

/* Two kernels over the plain layout of int4.g32.f32: one in one step, one by way of the workspace in two. */
static const char source[] =
    "typedef long i64; typedef unsigned char u8;\n"
    "typedef struct { const float *x; const u8 *w; float *y; const float *xs, *bias; float *scratch; int *counters;\n"
    "                 const int *perm; i64 m, n, k, ldx, ldy; const float *residual, *scale; i64 ldr; } args;\n"
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
    "ENTRY gather_x(const args *a, i64 begin, i64 end, int t) {\n"
    "  for (i64 m = begin; m < end; m++)\n"
    "    for (i64 j = 0; j < a->k; j++) a->y[m * a->k + j] = a->x[m * a->ldx + a->perm[j]];\n"
    "}\n"
    "ENTRY one(const args *a, i64 begin, i64 end, int t) {\n"
    "  for (i64 n = begin; n < end; n++)\n"
    "    for (i64 m = 0; m < a->m; m++) a->y[m * a->ldy + n] = dot(a, m, n) + (a->bias ? a->bias[n] : 0);\n"
    "}\n"
    "ENTRY gated(const args *a, i64 begin, i64 end, int t) {\n"
    "  for (i64 n = begin; n < end; n++)\n"
    "    for (i64 m = 0; m < a->m; m++) {\n"
    "      float v = dot(a, m, 2 * n);\n"
    "      v = v > 0 ? v * v : 0;\n"
    "      a->y[m * a->ldy + n] = v * dot(a, m, 2 * n + 1) + a->residual[m * a->ldr + n];\n"
    "    }\n"
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

/* The step for weights with a permutation; others are behind it. */
static inline qn_recipe gathering(void) {
  qn_recipe r = {.n_steps = 1, .step = {{.entry = "gather_x"}}};
  r.step[0].grid[0] = IN(r, V(M));
  r.step[0].gathers = IN(r, V(M), V(K), O(MUL), C(4), O(MUL));
  return r;
}

static inline qn_kernel kernel_one(void) {
  qn_kernel k = {.name = "host.one", .hash = HASH_ONE, .target = "host", .image = code.data, .size = code.size};
  k.recipe = gathering();
  k.recipe.step[k.recipe.n_steps++] =
      (qn_step){.entry = "one", .n_args = 3, .arg = {QN_ARG_X, QN_ARG_W, QN_ARG_Y}, .grid = {IN(k.recipe, V(N))}};
  return k;
}

static inline qn_kernel kernel_two(void) {
  qn_kernel k = {.name = "host.two", .hash = HASH_TWO, .target = "host", .image = code.data, .size = code.size};
  k.recipe = gathering();
  k.recipe.n_steps = 3;
  strcpy(k.recipe.step[1].entry, "first"), strcpy(k.recipe.step[2].entry, "second");
  k.recipe.scratch = IN(k.recipe, V(M), V(N), O(MUL), C(4), O(MUL));
  k.recipe.step[1].grid[0] = IN(k.recipe, V(M), V(N), O(MUL));
  k.recipe.step[2].grid[0] = IN(k.recipe, V(M));
  return k;
}

/* Kernel one up to M = 8, then kernel two. */
static inline qn_plan make_plan(int64_t n, int64_t k, qn_type act, bool bias) {
  qn_plan p = {.format = make_format(4, 32, false),
               .n_ranges = 2,
               .range = {{.m_min = 1, .variant = HASH_ONE}, {.m_min = 9, .variant = HASH_TWO}}};
  strcpy(p.format.implied, "g32.sym");
  p.layout = plain_layout(&p.format);
  p.problem = (qn_problem){.n = n, .k = k, .act = act, .out = QN_T_F32, .epilogue = {bias ? QN_EPILOGUE_BIAS : 0}};
  snprintf(p.problem.format, sizeof p.problem.format, "%s", p.format.name);
  qn__problem_spell(&p.problem);
  return p;
}

/* A pack of two kernels and some plans, for devices of this architecture that ran two threads. */
static inline void write_plans(const qn_kernel *one, const qn_kernel *two, const qn_plan *plan, size_t n) {
  qn_pack_builder *b;
  ck_ok(qn__pack_builder_new(&b));
  ck_ok(qn__pack_add_device(b, "host", qn__cpu_arch(), "this one", 2));
  ck_ok(qn__pack_add_kernel(b, one));
  ck_ok(qn__pack_add_kernel(b, two));
  for (size_t i = 0; i < n; i++) ck_ok(qn__pack_add_plan(b, &plan[i]));
  ck_ok(qn__pack_write(b, path));
  qn__pack_builder_free(b);
}

static inline void write_pack(const char *arch) {
  qn_kernel one = kernel_one(), two = kernel_two();
  snprintf(one.arch, sizeof one.arch, "%s", arch);
  qn_plan rounds = make_plan(64, 96, QN_T_I8, false);
  rounds.problem.x = QN_T_F32;
  qn__problem_spell(&rounds.problem);
  const qn_plan plans[] = {make_plan(64, 96, QN_T_F32, false),    make_plan(64, 96, QN_T_F32, true),
                           make_plan(512, 1024, QN_T_F32, false), make_plan(64, 96, QN_T_I8, false),
                           make_plan(0, 0, QN_T_F32, true),       rounds};
  write_plans(&one, &two, plans, QN_COUNT(plans));
}

static inline void set_up(void) {
  snprintf(path, sizeof path, "/tmp/qn_test_%d.qpack", (int)getpid());
  code = compile(source, PLAIN_FLAGS " -fvisibility=hidden");
  write_pack("");
}

static inline void tear_down(void) {
  unlink(path);
  free(code.data);
}

static inline qn_context *open_pack(const qn_open_options *o) {
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

static inline bench make_bench(int64_t n, int64_t k, int64_t m, bool bias, bool permuted, uint64_t seed) {
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
  qn_host_args a = {.x = b.x, .ldx = b.ldx};
  ck_ok(qn__reference(&b.f, &b.w.planes, &a, &(qn_problem){.act = QN_T_F32}, NULL, m, NULL, n, b.want, NULL));
  for (int64_t i = 0; i < m * n && bias; i++) b.want[i] += (double)b.bias[i % n];
  return b;
}

static inline qn_args args_of(bench *b, qn_gemm *g) {
  size_t size = qn_gemm_workspace(g, b->m);
  b->ws = size ? aligned_alloc(256, (size + 255) / 256 * 256) : NULL;
  return (qn_args){.x = b->x, .bias = b->bias, .y = b->y, .m = b->m, .ldx = b->ldx, .ldy = b->ldy, .workspace = b->ws};
}

/* Run and compare, bit for bit; what lies between rows of Y is left alone. */
static inline void run_and_compare(bench *b, const qn_gemm *g, const qn_weight *w, const qn_args *a) {
  for (int64_t i = 0; i < b->m * b->ldy; i++) b->y[i] = CANARY;
  ck_ok(qn_run(g, w, a));
  for (int64_t i = 0; i < b->m * b->ldy; i++) {
    int64_t m = i / b->ldy, n = i % b->ldy;
    double want = n < b->n ? b->want[m * b->n + n] : (double)CANARY;
    ck_assert_msg((double)b->y[i] == want, "y[%lld, %lld] is %g, not %g", (long long)m, (long long)n, (double)b->y[i],
                  want);
  }
}

static inline void free_bench(bench *b) {
  free_weight(&b->w);
  free(b->x), free(b->y), free(b->bias), free(b->want), free(b->perm), free(b->ws);
}
#endif
