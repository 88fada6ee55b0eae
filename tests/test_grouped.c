/* test_grouped.c - stacks of experts: prepacked one by one, run at once, against one product for each row. */
#include "serve_fixture.h"

enum { E = 5, N = 64, K = 96, LDX = K + 3, LDY = N + 5 };
#define PROBLEM "int4.g32.f32:5x64x96:f32-f32+bias"

/* As those of the fixture, for the rows of an expert. */
static const char stack_source[] =
    "typedef long i64; typedef unsigned char u8;\n"
    "typedef struct { const float *x; const u8 *w; float *y; const float *xs, *bias; float *scratch; int *counters;\n"
    "                 const int *perm; i64 m, n, k, ldx, ldy; const float *residual, *scale; i64 ldr;\n"
    "                 const int *ids, *offsets, *rows; i64 experts, expert, topk; } args;\n"
    "static i64 row(const args *a, i64 m) {\n"
    "  i64 i = a->offsets[a->expert] + m;\n"
    "  return a->rows ? a->rows[i] : i;\n"
    "}\n"
    "static float dot(const args *a, i64 m, i64 n) {\n"
    "  i64 g = (a->k + 31) / 32;\n"
    "  const u8 *q = a->w + n * g * 16;\n"
    "  const float *s = (const float *)(a->w + (a->n * g * 16 + 255) / 256 * 256) + n * g;\n"
    "  const float *x = a->x + row(a, m) / a->topk * a->ldx;\n"
    "  float sum = 0;\n"
    "  for (i64 k = 0; k < a->k; k++)\n"
    "    sum += x[a->perm ? a->perm[k] : k] * (float)((q[k / 2] >> k % 2 * 4 & 15) - 8) * s[k / 32];\n"
    "  return sum;\n"
    "}\n"
    "#define ENTRY __attribute__((visibility(\"default\"))) void\n"
    "ENTRY one(const args *a, i64 begin, i64 end, int t) {\n"
    "  for (i64 n = begin; n < end; n++)\n"
    "    for (i64 m = 0; m < a->m; m++) a->y[row(a, m) * a->ldy + n] = dot(a, m, n) + a->bias[n];\n"
    "}\n"
    "ENTRY first(const args *a, i64 begin, i64 end, int t) {\n"
    "  for (i64 m = begin; m < end; m++)\n"
    "    for (i64 n = 0; n < a->n; n++) a->scratch[(a->offsets[a->expert] + m) * a->n + n] = dot(a, m, n);\n"
    "}\n"
    "ENTRY second(const args *a, i64 begin, i64 end, int t) {\n"
    "  for (i64 n = begin; n < end; n++)\n"
    "    for (i64 m = 0; m < a->m; m++)\n"
    "      a->y[row(a, m) * a->ldy + n] = a->scratch[(a->offsets[a->expert] + m) * a->n + n] + a->bias[n];\n"
    "}\n";

static void write_stacks(void) {
  free(code.data);
  code = compile(stack_source, PLAIN_FLAGS " -fvisibility=hidden");
  qn_kernel one = kernel_one(), two = kernel_two();
  qn_plan p = make_plan(N, K, QN_T_F32, true), plain = p;
  one.recipe = (qn_recipe){.n_steps = 1, .step = {{.entry = "one", .n_args = 1, .arg = {QN_ARG_PERM}}}};
  one.recipe.step[0].grid[0] = IN(one.recipe, V(N));
  two.recipe = (qn_recipe){.n_steps = 2, .step = {{.entry = "first", .n_args = 1, .arg = {QN_ARG_PERM}}}};
  strcpy(two.recipe.step[1].entry, "second");
  two.recipe.step[0].grid[0] = IN(two.recipe, V(M));
  two.recipe.step[1].grid[0] = IN(two.recipe, V(N));
  two.recipe.scratch = IN(two.recipe, V(M), V(N), O(MUL), C(4), O(MUL));
  p.problem.experts = E;
  qn__problem_spell(&p.problem);
  write_plans(&one, &two, (qn_plan[]){p, plain}, 2);
}

/* ---- Data -------------------------------------------------------------------------------------------------------- */

typedef struct stack_bench {
  bench expert[E]; /* of as many rows as a test needs; X of the first is that of all */
  float bias[E][N];
  int64_t m, topk;
  int32_t id[64]; /* of a row of Y: its expert, below 0 nobody */
  float y[64 * LDY];
} stack_bench;

/* Of the experts some have a permutation. */
static void make_stack(stack_bench *s) {
  for (int e = 0; e < E; e++) {
    s->expert[e] = make_bench(N, K, 64, false, e % 2, 7);
    free_weight(&s->expert[e].w);
    s->expert[e].w = random_weight(&s->expert[e].f, N, K, &(rng){(uint64_t)e});
    s->expert[e].w.planes.format = "int4.g32.f32", s->expert[e].w.planes.plane[1].name = "scale";
    s->expert[e].w.planes.perm = s->expert[e].perm;
    const qn_host_args a = {.x = s->expert[0].x, .ldx = LDX};
    bench *b = &s->expert[e];
    ck_assert_int_eq(b->ldx, LDX);
    ck_ok(qn__reference(&b->f, &b->w.planes, &a, &(qn_problem){.act = QN_T_F32}, NULL, 64, NULL, N, b->want, NULL));
    for (int n = 0; n < N; n++) s->bias[e][n] = (float)(e * 100 + n);
  }
}

static void free_stack(stack_bench *s) {
  for (int e = 0; e < E; e++) free_bench(&s->expert[e]);
}

static qn_weight *prepack_stack(stack_bench *s, qn_gemm *g) {
  qn_weight *w = NULL;
  static const int order[E] = {3, 0, 4, 1, 2};
  for (int i = 0; i < E; i++) ck_ok(qn_prepack_expert(g, order[i], &s->expert[order[i]].w.planes, &w));
  return w;
}

static qn_args stack_args(stack_bench *s, const qn_gemm *g) {
  size_t size = (qn_gemm_workspace(g, s->m) + 255) / 256 * 256;
  qn_args a = {.x = s->expert[0].x, .bias = s->bias, .y = s->y, .m = s->m, .ldx = LDX, .ldy = LDY};
  a.workspace = aligned_alloc(256, size + 256);
  memset((char *)a.workspace + qn_gemm_workspace(g, s->m), 0x5a, 256);
  return a;
}

/* Run and compare, bit for bit; rows that meet nobody, and what lies between rows, are left alone. */
static void run_stack(stack_bench *s, const qn_gemm *g, const qn_weight *w, const qn_rows *rows) {
  qn_args a = stack_args(s, g);
  for (int64_t i = 0; i < 64 * LDY; i++) s->y[i] = CANARY;
  ck_ok(qn_run_grouped(g, w, &a, rows));
  for (int64_t i = 0; i < 64 * LDY; i++) {
    int64_t r = i / LDY, n = i % LDY, e = r < s->m ? s->id[r] : -1;
    double want = (double)CANARY;
    if (e >= 0 && n < N) want = s->expert[e].want[r / s->topk * N + n] + (double)s->bias[e][n];
    ck_assert_msg((double)s->y[i] == want, "m %lld, y[%lld, %lld] of expert %lld is %g, not %g", (long long)s->m,
                  (long long)r, (long long)n, (long long)e, (double)s->y[i], want);
  }
  for (int i = 0; i < 256; i++) ck_assert_int_eq(((char *)a.workspace + qn_gemm_workspace(g, s->m))[i], 0x5a);
  free(a.workspace);
}

/* ---- Runs -------------------------------------------------------------------------------------------------------- */

/* Rows by number: spread, all to one, one each and then nobody, some to nobody, none to anybody. */
static int32_t spread(int64_t r) { return (int32_t)(r * 7 % 11 % E); }
static int32_t to_last(int64_t r) { return (void)r, E - 1; }
static int32_t one_each(int64_t r) { return r < E ? (int32_t)r : -1; }
static int32_t with_gaps(int64_t r) { return r % 3 ? (int32_t)(r % 2 * 3) : -7; }
static int32_t to_nobody(int64_t r) { return (void)r, -1; }
static int32_t (*const routes[])(int64_t) = {spread, to_last, one_each, with_gaps, to_nobody};

static int by_expert(const void *a, const void *b) { /* nobody's last */
  uint32_t x = (uint32_t) * (const int32_t *)a, y = (uint32_t) * (const int32_t *)b;
  return (x > y) - (x < y);
}

START_TEST(test_runs_all_experts) {
  static const int64_t ms[] = {1, 6, 8, 9, 48};
  static const int threads[] = {1, 3, 8};
  const qn_open_options options = {.device = "host", .threads = threads[_i]};
  static stack_bench s;
  qn_gemm *g;
  write_stacks();
  make_stack(&s);
  qn_context *c = open_pack(&options);
  ck_ok(qn_bind(c, PROBLEM, &g));
  qn_weight *w = prepack_stack(&s, g);
  for (size_t i = 0; i < QN_COUNT(ms) * QN_COUNT(routes); i++) {
    s.m = ms[i / QN_COUNT(routes)];
    for (int64_t r = 0; r < s.m; r++) s.id[r] = routes[i % QN_COUNT(routes)](r);
    for (s.topk = 1; s.topk <= 3; s.topk++)
      if (s.m % s.topk == 0) run_stack(&s, g, w, &(qn_rows){.ids = s.id, .topk = s.topk});
    int32_t offsets[E + 1] = {0};
    qsort(s.id, (size_t)s.m, sizeof *s.id, by_expert);
    for (int64_t r = 0; r < s.m; r++)
      for (int e = 0; e < E; e++) offsets[e + 1] += s.id[r] >= 0 && s.id[r] <= e;
    s.topk = 1;
    run_stack(&s, g, w, &(qn_rows){.offsets = offsets, .n_offsets = E + 1});
  }
  ck_assert_uint_eq(qn_misses(c), 0);
  qn_weight_free(w), qn_gemm_free(g), qn_close(c);
  free_stack(&s);
}
END_TEST

/* A stack of another size is served by the nearest. */
START_TEST(test_nearest_stack) {
  static stack_bench s;
  qn_gemm *g;
  write_stacks();
  make_stack(&s);
  qn_context *c = open_pack(NULL);
  ck_ok(qn_bind(c, "int4.g32.f32:2x64x96+bias", &g));
  ck_assert_int_eq(qn_gemm_level(g), QN_NEAREST_SHAPE);
  ck_assert_str_eq(qn_gemm_problem(g), PROBLEM);
  qn_gemm *plain;
  ck_ok(qn_bind(c, "int4.g32.f32:64x96+bias", &plain));
  ck_assert_uint_eq(qn_weight_bytes(g), 2 * qn_weight_bytes(plain));
  qn_weight *w = NULL;
  for (int e = 0; e < 2; e++) ck_ok(qn_prepack_expert(g, e, &s.expert[e].w.planes, &w));
  s.m = 9, s.topk = 1;
  for (int r = 0; r < 9; r++) s.id[r] = r % 2;
  run_stack(&s, g, w, &(qn_rows){.ids = s.id});
  ck_assert_uint_eq(qn_misses(c), 1);
  qn_weight_free(w), qn_gemm_free(g), qn_gemm_free(plain), qn_close(c);
  free_stack(&s);
}
END_TEST

/* An expert may be packed again; after a failure it is missing, and the rest is what it was. */
START_TEST(test_prepacking) {
  static stack_bench s;
  qn_gemm *g, *plain;
  qn_weight *w = NULL, *one;
  write_stacks();
  make_stack(&s);
  qn_context *c = open_pack(NULL);
  ck_ok(qn_bind(c, PROBLEM, &g));
  ck_ok(qn_bind(c, "int4.g32.f32:64x96+bias", &plain));
  qn_planes *planes = &s.expert[0].w.planes;
  ck_fails(QN_E_ARG, "expert 5, allowed 0 .. 4", qn_prepack_expert(g, E, planes, &w));
  ck_fails(QN_E_ARG, "expert -1, allowed 0 .. 4", qn_prepack_expert(g, -1, planes, &w));
  ck_fails(QN_E_ARG, "NULL", qn_prepack_expert(g, 0, planes, NULL));
  ck_fails(QN_E_ARG, "no stack", qn_prepack_expert(plain, 0, planes, &w));
  ck_fails(QN_E_ARG, "qn_prepack_expert", qn_prepack(g, planes, &one));
  ck_assert_ptr_null(w);
  w = prepack_stack(&s, g);
  planes->n = 63;
  ck_fails(QN_E_SHAPE, "[63, 96]", qn_prepack_expert(g, 1, planes, &w));
  planes->n = N;
  ck_assert_ptr_nonnull(w);
  s.m = 2, s.topk = 1, s.id[0] = 0, s.id[1] = 2;
  qn_args a = stack_args(&s, g);
  ck_fails(QN_E_ARG, "expert 1 of the stack has not been prepacked", qn_run_grouped(g, w, &a, &(qn_rows){.ids = s.id}));
  free(a.workspace);
  ck_ok(qn_prepack_expert(g, 1, &s.expert[1].w.planes, &w));
  ck_ok(qn_prepack_expert(g, 1, &s.expert[1].w.planes, &w));
  run_stack(&s, g, w, &(qn_rows){.ids = s.id});
  ck_ok(qn_prepack(plain, planes, &one));
  ck_fails(QN_E_ARG, "another problem or layout", qn_prepack_expert(g, 0, planes, &one));
  qn_weight_free(one), qn_weight_free(w), qn_gemm_free(g), qn_gemm_free(plain), qn_close(c);
  free_stack(&s);
}
END_TEST

/* Nothing is computed then. */
START_TEST(test_bad_rows) {
  static stack_bench s;
  qn_gemm *g, *plain;
  qn_weight *one;
  write_stacks();
  make_stack(&s);
  qn_context *c = open_pack(NULL);
  ck_ok(qn_bind(c, PROBLEM, &g));
  ck_ok(qn_bind(c, "int4.g32.f32:64x96+bias", &plain));
  qn_weight *w = prepack_stack(&s, g);
  ck_ok(qn_prepack(plain, &s.expert[0].w.planes, &one));
  s.m = 4;
  static const int32_t ids[] = {0, 1, 2, E}, rises[] = {0, 1, 2, 3, 4, 4}, falls[] = {0, 1, 3, 2, 4, 4};
  static const int32_t beyond[] = {0, 1, 2, 3, 4, 5}, late[] = {1, 1, 2, 3, 4, 4};
  const struct {
    qn_rows rows;
    const char *part;
  } bad[] = {
      {{.ids = ids}, "id 3 of rows is expert 5, the stack has 5"},
      {{0}, "both NULL; one of them is wanted"},
      {{.ids = ids, .offsets = rises, .n_offsets = E + 1}, "both given"},
      {{.offsets = rises, .n_offsets = E}, "5 offsets of rows for 5 experts, wanted are 6"},
      {{.offsets = rises}, "0 offsets of rows"},
      {{.offsets = falls, .n_offsets = E + 1}, "offset 3 of rows is 2, allowed 3 .. m = 4"},
      {{.offsets = beyond, .n_offsets = E + 1}, "offset 5 of rows is 5, allowed 4 .. m = 4"},
      {{.offsets = late, .n_offsets = E + 1}, "offset 0 of rows is 1, allowed 0"},
      {{.ids = ids, .topk = 3}, "topk is 3; m must be a multiple"},
      {{.ids = ids, .topk = -1}, "topk is -1"},
      {{.offsets = rises, .n_offsets = E + 1, .topk = 2}, "topk is 2; with offsets X has a row for each of Y"},
      {{.ids = (const int32_t *)((const char *)ids + 2)}, "offsets or ids of rows are not aligned"},
      {{.ids = ids, .reserved = {1}}, "qn_rows.reserved is not zero"},
  };
  qn_args a = stack_args(&s, g);
  for (int i = 0; i < 64 * LDY; i++) s.y[i] = CANARY;
  for (size_t i = 0; i < QN_COUNT(bad); i++) ck_fails(QN_E_ARG, bad[i].part, qn_run_grouped(g, w, &a, &bad[i].rows));
  const qn_rows good = {.offsets = rises, .n_offsets = E + 1};
  ck_fails(QN_E_ARG, "NULL", qn_run_grouped(g, w, &a, NULL));
  ck_fails(QN_E_ARG, "no stack", qn_run_grouped(plain, one, &a, &good));
  ck_fails(QN_E_ARG, "qn_run_grouped", qn_run(g, w, &a));
  ck_fails(QN_E_ARG, "another problem or layout", qn_run_grouped(g, one, &a, &good));
  qn_args behind = a;
  behind.x = s.y, behind.y = s.y + 2 * LDX; /* Y begins behind two rows of X */
  ck_fails(QN_E_ARG, "y overlaps x", qn_run_grouped(g, w, &behind, &(qn_rows){.ids = ids}));
  ck_fails(QN_E_ARG, "is expert 5", qn_run_grouped(g, w, &behind, &(qn_rows){.ids = ids, .topk = 2}));
  a.m = 0;
  ck_ok(qn_run_grouped(g, w, &a, &good));
  free(a.workspace), a.m = 4, a.workspace = NULL;
  ck_fails(QN_E_ARG, "bytes of workspace", qn_run_grouped(g, w, &a, &good));
  for (int i = 0; i < 64 * LDY; i++) ck_assert(s.y[i] == CANARY);
  qn_weight_free(w), qn_weight_free(one), qn_gemm_free(g), qn_gemm_free(plain), qn_close(c);
  free_stack(&s);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(test_runs_all_experts, 3),
      CASE(test_nearest_stack, 1),
      CASE(test_prepacking, 1),
      CASE(test_bad_rows, 1),
  };
  return RUN_CASES(argv[0], cases, set_up, tear_down, 120);
}
