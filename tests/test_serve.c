/* test_serve.c - bind, prepack and run, with a real pack of real kernels compiled here.
 *
 *     test_serve --seeds DIR        write that pack, as a corpus for fuzz_pack */
#include "serve_fixture.h"
#include <math.h>
#include <pthread.h>

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
    {"int4.g32.f32:64x96:f32~i8", "int4.g32.f32:64x96:f32~i8-f32", 64, 96, QN_EXACT,
     false},                                                                       /* no x_scale is asked for */
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
  ck_ok(qn__pack_builder_new(&b));
  ck_ok(qn__pack_add_device(b, "host", "", "", 1));
  ck_ok(qn__pack_add_kernel(b, &one));
  ck_ok(qn__pack_add_plan(b, &p));
  ck_ok(qn__pack_write(b, path));
  qn__pack_builder_free(b);
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
  ck_assert_int_eq(i, 5);
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
             {"int4.g32.f32:64x96:bf16-f32", "has 5 problems of this kind", QN_E_NO_KERNEL},
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
  REFUSED("x is not aligned to its elements of 4 bytes", a.x = (const char *)a.x + 2);
  REFUSED("bias is not aligned", a.bias = (const char *)a.bias + 1);
  REFUSED("y overlaps x", a.y = b.x);
  REFUSED("y overlaps x", a.x = b.y + 1); /* from 1 on 96 columns: not only those between the rows of Y */
  REFUSED("y overlaps bias", a.bias = b.y + b.ldy + 63);
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

/* A plane that nobody reads, such as zero points that the format does not have, would be another weight. */
START_TEST(test_planes_of_another_format) {
  qn_context *c = open_pack(NULL);
  qn_gemm *g;
  qn_weight *none;
  ck_ok(qn_bind(c, "int4.g32.f32:64x96:f32-f32", &g));
  bench b = make_bench(64, 96, 1, false, false, 3);
  qn_planes odd = b.w.planes;
  odd.n_planes = QN_MAX_PLANES + 1;
  ck_fails(QN_E_ARG, "9 planes, allowed 1 .. 8", qn_prepack(g, &odd, &none));
  odd.n_planes = 3, odd.plane[2] = odd.plane[1];
  ck_fails(QN_E_ARG, "'scale': format 'int4.g32.f32' has no such plane", qn_prepack(g, &odd, &none));
  odd.plane[2].name = "zero";
  ck_fails(QN_E_ARG, "'zero': format 'int4.g32.f32' has no such plane", qn_prepack(g, &odd, &none));
  free_bench(&b);
  qn_gemm_free(g), qn_close(c);
}
END_TEST

/* X and Y side by side in rows of one matrix do not overlap; nor does a bias behind the columns of Y. */
START_TEST(test_operands_between_rows) {
  qn_context *c = open_pack(NULL);
  qn_gemm *g;
  qn_weight *w;
  ck_ok(qn_bind(c, "int4.g32.f32:64x96:f32-f32+bias", &g));
  bench b = make_bench(64, 96, 3, true, false, 3);
  ck_ok(qn_prepack(g, &b.w.planes, &w));
  enum { LD = 96 + 64 + 64 };
  float both[3 * LD];
  qn_args a = args_of(&b, g);
  for (int64_t i = 0; i < 3 * LD; i++) both[i] = i % LD < 96 ? b.x[i / LD * b.ldx + i % LD] : CANARY;
  a.bias = memcpy(both + 96 + 64, b.bias, 64 * sizeof *both);
  a.x = both, a.y = both + 96, a.ldx = a.ldy = LD;
  ck_ok(qn_run(g, w, &a));
  for (int64_t i = 0; i < 3 * 64; i++) ck_assert((double)both[i / 64 * LD + 96 + i % 64] == b.want[i]);
  a.y = both + 95;
  ck_fails(QN_E_ARG, "y overlaps x", qn_run(g, w, &a));
  free_bench(&b);
  qn_weight_free(w), qn_gemm_free(g), qn_close(c);
}
END_TEST

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
  plans[5].problem.epilogue[0] = QN_EPILOGUE_BIAS, qn__problem_spell(&plans[5].problem);
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
      ck_fails(QN_E_ARG, counters ? "m = 1 needs 256 bytes of counters" : "m = 1 needs 768 bytes of workspace",
               qn_run(g, w, &(qn_args){.x = b.x, .y = b.y, .m = 1}));
    ck_assert_uint_eq(qn_gemm_workspace(g, 1 << 24), (counters ? 0 : cases[_i].most) + ((size_t)96 * 4 << 24));
    qn_gemm_free(g);
    qn_weight_free(w); /* in any order */
    free_bench(&b);
  }
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

/* Y += relu(G)^2 U: of each pair of rows that prepacking put side by side, into Y, which is the residual. */
START_TEST(test_gate_in_place) {
  enum { N = 64, K = 96, M = 3 };
  qn_kernel gated = kernel_one(), two = kernel_two();
  qn_plan plan = make_plan(N, K, QN_T_F32, false);
  qn_gemm *g;
  qn_weight *w;
  strcpy(gated.recipe.step[1].entry, "gated");
  gated.recipe.step[1].grid[0] = IN(gated.recipe, V(N), C(2), O(DIV));
  plan.layout.pairs = 1, plan.n_ranges = 1;
  memcpy(plan.problem.epilogue, (const uint8_t[]){QN_EPILOGUE_RELU2, QN_EPILOGUE_GATE, QN_EPILOGUE_RESIDUAL}, 3);
  qn__problem_spell(&plan.problem);
  write_plans(&gated, &two, &plan, 1);
  qn_context *c = open_pack(NULL);
  ck_ok(qn_bind(c, "int4.g32.f32:64x96:f32-f32.relu2*gate+residual", &g));
  bench b = make_bench(N, K, M, false, true, 5);
  ck_ok(qn_prepack(g, &b.w.planes, &w));
  qn_args a = args_of(&b, g);
  for (int64_t i = 0; i < M * b.ldy; i++) b.y[i] = (float)i;
  a.residual = a.y;
  ck_fails(QN_E_ARG, "ldy is 69 and ld_residual 0; they must be equal", qn_run(g, w, &a));
  a.ld_residual = b.ldy;
  ck_ok(qn_run(g, w, &a));
  for (int64_t i = 0; i < M * b.ldy; i++) {
    int64_t m = i / b.ldy, n = i % b.ldy;
    float v = n < N / 2 ? (float)fmax(b.want[m * N + n], 0) : 0, up = n < N / 2 ? (float)b.want[m * N + N / 2 + n] : 0;
    ck_assert_msg(b.y[i] == v * v * up + (float)i, "y[%lld, %lld] is %g", (long long)m, (long long)n, (double)b.y[i]);
  }
  free_bench(&b);
  qn_weight_free(w);
  qn_gemm_free(g);
  qn_close(c);
}
END_TEST

static const char *seeds;

/* A weight in act-order, and a kernel that neither takes a permutation nor has a step that gathers. */
START_TEST(test_act_order_is_refused) {
  qn_kernel one = kernel_one(), two = kernel_two();
  one.recipe.step[0] = one.recipe.step[1], one.recipe.n_steps = 1;
  qn_plan plan = make_plan(64, 96, QN_T_F32, false);
  write_plans(&one, &two, &plan, 1);
  qn_context *c = open_pack(NULL);
  bench permuted = make_bench(64, 96, 1, false, true, 1), straight = make_bench(64, 96, 1, false, false, 1);
  qn_gemm *g;
  qn_weight *w;
  ck_ok(qn_bind(c, "int4.g32.f32:64x96:f32-f32", &g));
  ck_fails(QN_E_NO_KERNEL, "kernel 'host.one' takes no weight with a permutation",
           qn_prepack(g, &permuted.w.planes, &w));
  ck_assert_ptr_null(w);
  ck_ok(qn_prepack(g, &straight.w.planes, &w));
  const qn_args a = args_of(&straight, g);
  run_and_compare(&straight, g, w, &a);
  qn_weight_free(w), qn_gemm_free(g), qn_close(c);
  free_bench(&permuted), free_bench(&straight);
}
END_TEST

START_TEST(test_write_seeds) {
  code = compile(source, PLAIN_FLAGS " -fvisibility=hidden");
  snprintf(path, sizeof path, "%s/pack-0", seeds);
  write_pack("");
}
END_TEST

int main(int argc, char **argv) {
  static const suite_case write[] = {CASE(test_write_seeds, 1)};
  static const suite_case cases[] = {
      CASE(test_serves_every_m, QN_COUNT(problems)),
      CASE(test_generic_plan, 1),
      CASE(test_what_a_pack_says_of_itself, 1),
      CASE(test_bad_binds, 1),
      CASE(test_bad_weights_and_arguments, 1),
      CASE(test_planes_of_another_format, 1),
      CASE(test_operands_between_rows, 1),
      CASE(test_eight_threads_at_once, 1),
      CASE(test_kinds_of_plans, 1),
      CASE(test_workspaces, 14),
      CASE(test_planes_at_odd_addresses, 1),
      CASE(test_gate_in_place, 1),
      CASE(test_act_order_is_refused, 1),
  };
  if (argc > 2 && !strcmp(argv[1], "--seeds")) {
    seeds = argv[2];
    return RUN_CASES(argv[0], write, .timeout = 120);
  }
  return RUN_CASES(argv[0], cases, set_up, tear_down, 120);
}
