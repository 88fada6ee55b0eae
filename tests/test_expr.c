/* test_expr.c - postfix programs: values, refusals, folding, float64 blocks with magnitudes. */
#include "runtime_fixture.h"
#include <math.h>

static const int64_t vars[QN_VAR_COUNT] = {
    [QN_VAR_M] = 33,    [QN_VAR_N] = 4096,      [QN_VAR_K] = 1000,     [QN_VAR_T] = 2,
    [QN_VAR_SMS] = 132, [QN_VAR_SMEM] = 232448, [QN_VAR_L2] = 50 << 20};

static const struct {
  qn_pool e;
  int64_t value;
} integer_cases[] = {
    {{0}, 0},
    {{1, {{QN_OP_CONST, 0, 7}}}, 7},
    {{1, {{QN_OP_VAR, QN_VAR_SMS, 0}}}, 132},
    {{5,
      {{QN_OP_VAR, QN_VAR_M, 0},
       {QN_OP_CONST, 0, 32},
       {QN_OP_CEILDIV, 0, 0},
       {QN_OP_VAR, QN_VAR_N, 0},
       {QN_OP_MUL, 0, 0}}},
     8192},
    {{3, {{QN_OP_CONST, 0, -7}, {QN_OP_CONST, 0, 2}, {QN_OP_DIV, 0, 0}}}, -4},
    {{3, {{QN_OP_CONST, 0, -7}, {QN_OP_CONST, 0, 2}, {QN_OP_CEILDIV, 0, 0}}}, -3},
    {{3, {{QN_OP_CONST, 0, -7}, {QN_OP_CONST, 0, 4}, {QN_OP_MOD, 0, 0}}}, 1},
    {{3, {{QN_OP_VAR, QN_VAR_K, 0}, {QN_OP_CONST, 0, 128}, {QN_OP_MOD, 0, 0}}}, 104},
    {{3, {{QN_OP_CONST, 0, 3}, {QN_OP_CONST, 0, 9}, {QN_OP_MIN, 0, 0}}}, 3},
    {{3, {{QN_OP_CONST, 0, 3}, {QN_OP_CONST, 0, 9}, {QN_OP_MAX, 0, 0}}}, 9},
    {{3, {{QN_OP_CONST, 0, 3}, {QN_OP_CONST, 0, 9}, {QN_OP_LT, 0, 0}}}, 1},
    {{3, {{QN_OP_CONST, 0, 9}, {QN_OP_CONST, 0, 9}, {QN_OP_EQ, 0, 0}}}, 1},
    {{2, {{QN_OP_CONST, 0, 9}, {QN_OP_NEG, 0, 0}}}, -9},
    {{4, {{QN_OP_CONST, 0, 0}, {QN_OP_CONST, 0, 5}, {QN_OP_CONST, 0, 6}, {QN_OP_SELECT, 0, 0}}}, 6},
    {{4, {{QN_OP_CONST, 0, 1}, {QN_OP_CONST, 0, 5}, {QN_OP_CONST, 0, 6}, {QN_OP_SELECT, 0, 0}}}, 5},
    {{4, {{QN_OP_CONST, 0, 0xabc}, {QN_OP_CONST, 0, 4}, {QN_OP_CONST, 0, 5}, {QN_OP_BITS, 0, 0}}}, 0xb},
    {{3, {{QN_OP_VAR, QN_VAR_M, 0}, {QN_OP_VAR, QN_VAR_T, 0}, {QN_OP_SUB, 0, 0}}}, 31},
    /* -2^63 % 3: a sanitizer sees a product on the way that does not fit */
    {{5,
      {{QN_OP_CONST, 0, -0x1p53}, {QN_OP_CONST, 0, 1024}, {QN_OP_MUL, 0, 0}, {QN_OP_CONST, 0, 3}, {QN_OP_MOD, 0, 0}}},
     1},
};

static qn_program all(const qn_pool *p) { return (qn_program){p->op, p->n}; }

START_TEST(test_integers) {
  int64_t v = -1;
  ck_ok(qn__expr_check(all(&integer_cases[_i].e), QN_VAR_COUNT, 0, true));
  ck_ok(qn__expr_i64(all(&integer_cases[_i].e), vars, &v));
  ck_assert_int_eq(v, integer_cases[_i].value);
}
END_TEST

/* Refused when evaluated, and the malformed ones already by the check. */
START_TEST(test_bad_programs) {
  const struct {
    qn_program e;
    bool malformed;
  } bad[] = {
      {EXPR(C(1), C(0), O(DIV)), false},
      {EXPR(C(1), C(-2), O(CEILDIV)), false},
      {EXPR(C(1), C(0), O(MOD)), false},
      {EXPR(C(0x1p53), C(0x1p53), O(MUL)), false},
      {EXPR(C(1), C(64), C(1), O(BITS)), false},
      {EXPR(C(1), C(0), C(64), O(BITS)), false},
      {EXPR(C(-0x1p53), C(1024), O(MUL), O(NEG)), false},
      {EXPR(C(-0x1p53), C(1024), O(MUL), C(0), O(MOD)), false},
      {EXPR(O(ADD)), true},
      {EXPR(C(1), O(ADD)), true},
      {EXPR(C(1), C(2)), true},
      {EXPR(op_var(QN_VAR_COUNT)), true},
      {EXPR(op_of(99)), true},
      {EXPR(C(1.5)), true},
      {EXPR(C(NAN)), true},
      {EXPR(C(0x1p60)), true},
      {EXPR(C(1), O(LOOKUP)), true},
  };
  int64_t v;
  for (size_t i = 0; i < QN_COUNT(bad); i++) {
    ck_assert_msg(qn__expr_i64(bad[i].e, vars, &v) == QN_E_LIMIT, "program %zu", i);
    ck_assert_msg((qn__expr_check(bad[i].e, QN_VAR_COUNT, 0, true) == QN_E_FORMAT) == bad[i].malformed, "program %zu",
                  i);
  }
  qn_pool deep = {.n = QN_EXPR_STACK + 1};
  for (uint32_t i = 0; i < deep.n; i++) deep.op[i] = C(1);
  ck_fails(QN_E_FORMAT, "deeper", qn__expr_check(all(&deep), QN_VAR_COUNT, 0, true));
  ck_assert_int_eq(qn__expr_i64(all(&deep), vars, &v), QN_E_LIMIT);
}
END_TEST

/* A random well-formed program over small numbers. */
static qn_pool random_program(rng *r) {
  qn_pool e = {0};
  int depth = 0;
  while (e.n < 24 || depth != 1) {
    uint32_t code = e.n < 24 ? below(r, QN_OP_BITS + 1) : QN_OP_MAX;
    int arity = code < 2 ? 0 : code == QN_OP_NEG ? 1 : code >= QN_OP_SELECT ? 3 : 2;
    if (code == QN_OP_LOOKUP || depth < arity || (depth > 10 && !arity)) continue;
    e.op[e.n++] = code == QN_OP_CONST ? C(below(r, 9))
                  : code == QN_OP_VAR ? op_var(below(r, QN_VAR_COUNT))
                                      : op_of(code);
    depth += 1 - arity;
  }
  return e;
}

/* Whatever is folded for free M has the value of the whole at every M; where folding fails, so does the whole. */
START_TEST(test_folding_keeps_values) {
  rng r = {(uint64_t)_i};
  int64_t at[QN_VAR_COUNT], whole, folded;
  qn_pool e = random_program(&r), pool = {0};
  qn_expr f;
  memcpy(at, vars, sizeof at);
  ck_ok(qn__expr_check(all(&e), QN_VAR_COUNT, 0, true));
  qn_status s = qn__expr_fold(all(&e), vars, 1u << QN_VAR_M, &pool, &f);
  if (!s) ck_assert_uint_le(f.n, e.n);
  for (at[QN_VAR_M] = 1; at[QN_VAR_M] < 40; at[QN_VAR_M]++) {
    qn_status a = qn__expr_i64(all(&e), at, &whole);
    if (s) {
      ck_assert_int_eq(a, QN_E_LIMIT);
      continue;
    }
    ck_assert_int_eq(a, qn__expr_i64(qn__program(&pool, f), at, &folded));
    if (!a) ck_assert_int_eq(whole, folded);
  }
}
END_TEST

/* No value of M between 1 and 39 is outside the bounds, and none fails if they are found. */
START_TEST(test_bounds_hold) {
  rng r = {500 + (uint64_t)_i};
  int64_t lo[QN_VAR_COUNT], hi[QN_VAR_COUNT], least, most, v;
  qn_pool e = random_program(&r);
  memcpy(lo, vars, sizeof lo), lo[QN_VAR_M] = 1;
  memcpy(hi, vars, sizeof hi), hi[QN_VAR_M] = 39;
  if (qn__expr_bounds(all(&e), lo, hi, &least, &most)) return;
  for (; lo[QN_VAR_M] < 40; lo[QN_VAR_M]++) {
    ck_ok(qn__expr_i64(all(&e), lo, &v));
    ck_assert_int_le(least, v);
    ck_assert_int_le(v, most);
  }
}
END_TEST

/* What rises with M is bounded by its ends, to the byte; what could overflow for some M is refused. */
START_TEST(test_bounds_are_tight) {
  int64_t lo[QN_VAR_COUNT], hi[QN_VAR_COUNT], least, most;
  memcpy(lo, vars, sizeof lo), lo[QN_VAR_M] = 1;
  memcpy(hi, vars, sizeof hi), hi[QN_VAR_M] = 1 << 24;
  qn_program rises = EXPR(V(M), C(16), O(CEILDIV), V(N), O(MUL), C(256), O(CEILDIV), C(256), O(MUL), C(7), O(ADD));
  ck_ok(qn__expr_bounds(rises, lo, hi, &least, &most));
  ck_assert_int_eq(least, 4096 + 7);
  ck_assert_int_eq(most, (INT64_C(4096) << 20) + 7);
  qn_program overflows = EXPR(V(M), C(0x1p40), O(MUL)), divides = EXPR(C(1), V(M), C(9), O(SUB), O(DIV)), none = {0};
  ck_assert_int_eq(qn__expr_bounds(overflows, lo, hi, &least, &most), QN_E_LIMIT);
  ck_assert_int_eq(qn__expr_bounds(divides, lo, hi, &least, &most), QN_E_LIMIT);
  ck_ok(qn__expr_bounds(none, lo, hi, &least, &most));
  ck_assert(!least && !most);
}
END_TEST

START_TEST(test_folding_leaves_what_varies) {
  qn_program e = EXPR(V(N), C(32), O(CEILDIV), V(M), C(16), O(CEILDIV), O(MUL));
  qn_pool pool = {.n = 3};
  qn_expr f;
  ck_ok(qn__expr_fold(e, vars, 1u << QN_VAR_M, &pool, &f));
  ck_assert_uint_eq(f.at, 3);
  ck_assert_uint_eq(f.n, 5);
  ck_assert_double_eq(pool.op[3].value, 128);
  pool.n = QN_POOL_OPS - e.n + 1;
  ck_fails(QN_E_FORMAT, "expression of 7 tokens", qn__expr_fold(e, vars, 1u << QN_VAR_M, &pool, &f));
}
END_TEST

START_TEST(test_float_blocks) {
  static float table[1][QN_FORMAT_TABLE] = {{-1, -0.5f, 0.25f, 1}};
  double q[QN_EXPR_BLOCK], s[QN_EXPR_BLOCK], v[QN_EXPR_BLOCK], g[QN_EXPR_BLOCK];
  const double *const var[] = {q, s};
  for (int j = 0; j < QN_EXPR_BLOCK; j++) q[j] = j, s[j] = -0.5;
  qn_program affine = EXPR(op_var(0), C(8), O(SUB), op_var(1), O(MUL));
  qn__expr_f64(affine, QN_EXPR_BLOCK, var, table, v, g);
  for (int j = 0; j < QN_EXPR_BLOCK; j++) {
    ck_assert_double_eq(v[j], (j - 8) * -0.5);
    ck_assert_double_eq(g[j], (j + 8) * 0.5);
  }
  qn_program lookup = EXPR(op_var(0), C(1), C(2), O(BITS), O(LOOKUP), op_var(1), O(MUL));
  qn__expr_f64(lookup, QN_EXPR_BLOCK, var, table, v, NULL);
  for (int j = 0; j < QN_EXPR_BLOCK; j++) ck_assert_double_eq(v[j], (double)table[0][j >> 1 & 3] * -0.5);
  qn_program outside = EXPR(C(256), O(LOOKUP));
  qn__expr_f64(outside, 1, var, table, v, g);
  ck_assert(isnan(v[0]));
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(test_integers, QN_COUNT(integer_cases)),
      CASE(test_bad_programs, 1),
      CASE(test_folding_keeps_values, 300),
      CASE(test_bounds_hold, 300),
      CASE(test_bounds_are_tight, 1),
      CASE(test_folding_leaves_what_varies, 1),
      CASE(test_float_blocks, 1),
  };
  return RUN_CASES(argv[0], cases, .timeout = 120);
}
