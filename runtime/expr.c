/* expr.c - postfix programs of descriptors: checked once, evaluated over integers (launches) or float64 (decoding).
 *
 * A program is a list of tokens; evaluation is a stack and one switch. Integer evaluation checks every step, because
 * its input (M, N, K) comes from the caller; float64 evaluation runs a whole block of elements per token, because its
 * input is a weight, and trusts the check that went before. */
#include "fail.h"

#include "desc.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct {
  const char *name;
  int arity;
} ops[] = {
#define QN_X(name, text, arity) {text, arity},
    QN_EXPR_OP_MAP(QN_X)
#undef QN_X
};

static bool is_integer(double v) { return v >= -0x1p53 && v <= 0x1p53 && v == (double)(int64_t)v; }

qn_status qn__expr_check(qn_program e, uint32_t n_vars, uint32_t n_tables, bool integer) {
  int depth = 0;
  for (uint32_t i = 0; i < e.n; i++) {
    const qn_expr_op *op = &e.op[i];
    if (op->code >= QN_COUNT(ops))
      return qn__fail(QN_E_FORMAT, "expression token %u: operator %u unknown", i, op->code);
    if (op->code == QN_OP_CONST && !(integer ? is_integer(op->value) : isfinite(op->value)))
      return qn__fail(QN_E_FORMAT, "expression token %u: constant %g is not %s", i, op->value,
                      integer ? "an integer below 2^53" : "finite");
    if (op->code == QN_OP_VAR && op->arg >= n_vars)
      return qn__fail(QN_E_FORMAT, "expression token %u: variable %u of %u", i, op->arg, n_vars);
    if (op->code == QN_OP_LOOKUP && op->arg >= n_tables)
      return qn__fail(QN_E_FORMAT, "expression token %u: table %u of %u", i, op->arg, n_tables);
    int arity = ops[op->code].arity;
    if (depth < arity)
      return qn__fail(QN_E_FORMAT, "expression token %u: '%s' wants %d operands, the stack has %d", i,
                      ops[op->code].name, arity, depth);
    depth += 1 - arity;
    if (depth > QN_EXPR_STACK) return qn__fail(QN_E_FORMAT, "expression deeper than %d", QN_EXPR_STACK);
  }
  if (e.n && depth != 1) return qn__fail(QN_E_FORMAT, "expression leaves %d values, not one", depth);
  return QN_OK;
}

/* ---- Integers ---------------------------------------------------------------------------------------------------- */

static int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); }

/* One operator on its operands; false: overflow or a divisor of zero or less. */
static bool apply_i64(uint32_t code, const int64_t *v, int64_t *r) {
  int64_t a = v[0], b = v[1];
  switch (code) {
  case QN_OP_ADD:
    return !__builtin_add_overflow(a, b, r);
  case QN_OP_SUB:
    return !__builtin_sub_overflow(a, b, r);
  case QN_OP_MUL:
    return !__builtin_mul_overflow(a, b, r);
  case QN_OP_NEG:
    return !__builtin_sub_overflow((int64_t)0, a, r);
  case QN_OP_DIV:
    return b > 0 && (*r = floor_div(a, b), true);
  case QN_OP_CEILDIV:
    return b > 0 && (*r = a / b + (a % b > 0), true);
  case QN_OP_MOD:
    return b > 0 && (*r = a % b + (a % b < 0 ? b : 0), true);
  case QN_OP_MIN:
    *r = a < b ? a : b;
    return true;
  case QN_OP_MAX:
    *r = a > b ? a : b;
    return true;
  case QN_OP_LT:
    *r = a < b;
    return true;
  case QN_OP_EQ:
    *r = a == b;
    return true;
  case QN_OP_SELECT:
    *r = a ? b : v[2];
    return true;
  case QN_OP_BITS:
    if (b < 0 || b > 63 || v[2] < 1 || v[2] > 63) return false;
    *r = (int64_t)((uint64_t)a >> b & ((UINT64_C(1) << v[2]) - 1));
    return true;
  default:
    return false;
  }
}

static qn_status bad_value(qn_program e, uint32_t i) {
  return qn__fail(QN_E_LIMIT, "expression token %u of %u: overflow, division by zero or malformed", i, e.n);
}

/* A three-operand read of the stack never leaves it: two spare slots lie above the deepest operand. */
qn_status qn__expr_i64(qn_program e, const int64_t var[QN_VAR_COUNT], int64_t *out) {
  int64_t stack[QN_EXPR_STACK + 2] = {0};
  int depth = 0;
  for (uint32_t i = 0; i < e.n; i++) {
    const qn_expr_op *op = &e.op[i];
    if (op->code >= QN_COUNT(ops)) return bad_value(e, i);
    int arity = ops[op->code].arity;
    if (depth < arity || depth - arity >= QN_EXPR_STACK) return bad_value(e, i);
    depth -= arity;
    int64_t *top = &stack[depth++];
    if (op->code == QN_OP_CONST && is_integer(op->value)) *top = (int64_t)op->value;
    else if (op->code == QN_OP_VAR && op->arg < QN_VAR_COUNT) *top = var[op->arg];
    else if (!apply_i64(op->code, top, top)) return bad_value(e, i);
  }
  if (e.n && depth != 1) return bad_value(e, e.n);
  *out = stack[0];
  return QN_OK;
}

/* The tokens of a constant operand are always one CONST, so an operator whose operands are the last `arity` tokens, all
 * CONST, is replaced by its value. */
qn_status qn__expr_fold(qn_program e, const int64_t var[QN_VAR_COUNT], uint32_t free, qn_pool *pool, qn_expr *out) {
  QN_TRY(qn__expr_check(e, QN_VAR_COUNT, 0, true));
  if (e.n > QN_POOL_OPS - pool->n)
    return qn__fail(QN_E_FORMAT, "expression of %u tokens; those of a descriptor have %d together", e.n, QN_POOL_OPS);
  qn_expr_op *to = pool->op + pool->n;
  uint32_t n = 0;
  for (uint32_t i = 0; i < e.n; i++) {
    qn_expr_op op = e.op[i];
    if (op.code == QN_OP_VAR && !(free >> op.arg & 1)) op = (qn_expr_op){.value = (double)var[op.arg]};
    uint32_t arity = (uint32_t)ops[op.code].arity, constant = 0;
    while (constant < arity && constant < n && to[n - 1 - constant].code == QN_OP_CONST) constant++;
    if (arity && constant == arity) {
      int64_t v[3] = {0}, r;
      for (uint32_t j = 0; j < arity; j++) v[j] = (int64_t)to[n - arity + j].value;
      if (!apply_i64(op.code, v, &r)) return bad_value(e, i);
      if (!is_integer((double)r) || (int64_t)(double)r != r) return bad_value(e, i);
      n -= arity;
      op = (qn_expr_op){.value = (double)r};
    }
    to[n++] = op;
  }
  *out = (qn_expr){(uint16_t)pool->n, (uint16_t)n};
  pool->n += n;
  return QN_OK;
}

/* ---- Bounds of integers ------------------------------------------------------------------------------------------ */

/* Values between two ends, both possible. */
typedef struct span {
  int64_t lo, hi;
} span;

static span join(span a, span b) { return (span){a.lo < b.lo ? a.lo : b.lo, a.hi > b.hi ? a.hi : b.hi}; }

/* An operator that rises or falls in each operand, the other held: its extremes lie at the corners. */
static bool corners(uint32_t code, const span *v, span *r) {
  for (int i = 0; i < 4; i++) {
    int64_t at;
    if (!apply_i64(code, (int64_t[3]){i & 1 ? v[0].hi : v[0].lo, i & 2 ? v[1].hi : v[1].lo}, &at)) return false;
    *r = i ? join(*r, (span){at, at}) : (span){at, at};
  }
  return true;
}

static bool apply_span(uint32_t code, const span *v, span *r) {
  span a = v[0], b = v[1], c = v[2];
  if (a.lo == a.hi && b.lo == b.hi && c.lo == c.hi) {
    bool ok = apply_i64(code, (int64_t[3]){a.lo, b.lo, c.lo}, &a.lo);
    *r = (span){a.lo, a.lo};
    return ok;
  }
  switch (code) {
  case QN_OP_MOD:
    return b.lo > 0 && (*r = (span){0, b.hi - 1}, true);
  case QN_OP_EQ:
    *r = (span){0, a.lo <= b.hi && b.lo <= a.hi};
    return true;
  case QN_OP_SELECT:
    *r = a.lo > 0 || a.hi < 0 ? b : a.lo == a.hi ? c : join(b, c);
    return true;
  case QN_OP_BITS:
    return b.lo >= 0 && b.hi <= 63 && c.lo >= 1 && c.hi <= 63 && (*r = (span){0, INT64_MAX >> (63 - c.hi)}, true);
  default:
    return corners(code, v, r);
  }
}

qn_status qn__expr_bounds(qn_program e, const int64_t lo[QN_VAR_COUNT], const int64_t hi[QN_VAR_COUNT], int64_t *least,
                          int64_t *most) {
  span stack[QN_EXPR_STACK + 2] = {{0}};
  int depth = 0;
  QN_TRY(qn__expr_check(e, QN_VAR_COUNT, 0, true));
  for (uint32_t i = 0; i < e.n; i++) {
    const qn_expr_op *op = &e.op[i];
    int arity = ops[op->code].arity;
    depth -= arity;
    span *top = &stack[depth++], operand[3] = {{0}};
    memcpy(operand, top, (size_t)arity * sizeof *top);
    if (op->code == QN_OP_CONST) *top = (span){(int64_t)op->value, (int64_t)op->value};
    else if (op->code == QN_OP_VAR) *top = (span){lo[op->arg], hi[op->arg]};
    else if (!apply_span(op->code, operand, top)) return bad_value(e, i);
  }
  *least = stack[0].lo, *most = stack[0].hi;
  return QN_OK;
}

/* ---- Float64, in blocks ------------------------------------------------------------------------------------------ */

typedef struct lane {
  double v[QN_EXPR_BLOCK], g[QN_EXPR_BLOCK]; /* value and magnitude */
} lane;

static double bit_slice(double v, double lo, double width) {
  if (!(v >= 0 && v < 0x1p63 && lo >= 0 && lo < 64 && width >= 1 && width < 64)) return NAN;
  return (double)((uint64_t)v >> (int)lo & ((UINT64_C(1) << (int)width) - 1));
}

static double table_at(const float *table, double i) {
  return i >= 0 && i < QN_FORMAT_TABLE ? (double)table[(int)i] : NAN;
}

/* The operator `code` on n elements of a, a+1, a+2, into a. */
static void apply_f64(uint32_t code, const float *table, int n, lane *x) {
  double *a = x[0].v, *b = x[1].v, *c = x[2].v, *ga = x[0].g, *gb = x[1].g, *gc = x[2].g;
#define EACH(value, magnitude)                                                                                         \
  for (int j = 0; j < n; j++) {                                                                                        \
    double v_ = (value), g_ = (magnitude);                                                                             \
    a[j] = v_, ga[j] = g_;                                                                                             \
  }                                                                                                                    \
  break
  switch (code) {
  case QN_OP_ADD:
    EACH(a[j] + b[j], ga[j] + gb[j]);
  case QN_OP_SUB:
    EACH(a[j] - b[j], ga[j] + gb[j]);
  case QN_OP_MUL:
    EACH(a[j] * b[j], ga[j] * gb[j]);
  case QN_OP_DIV:
    EACH(a[j] / b[j], ga[j] / fabs(b[j]));
  case QN_OP_CEILDIV:
    EACH(ceil(a[j] / b[j]), fabs(v_));
  case QN_OP_MOD:
    EACH(a[j] - b[j] * floor(a[j] / b[j]), fabs(v_));
  case QN_OP_MIN:
    EACH(a[j] < b[j] ? a[j] : b[j], a[j] < b[j] ? ga[j] : gb[j]);
  case QN_OP_MAX:
    EACH(a[j] > b[j] ? a[j] : b[j], a[j] > b[j] ? ga[j] : gb[j]);
  case QN_OP_LT:
    EACH(a[j] < b[j], v_);
  case QN_OP_EQ:
    EACH(a[j] == b[j], v_);
  case QN_OP_NEG:
    EACH(-a[j], ga[j]);
  case QN_OP_SELECT:
    EACH(a[j] != 0 ? b[j] : c[j], a[j] != 0 ? gb[j] : gc[j]);
  case QN_OP_LOOKUP:
    EACH(table_at(table, a[j]), fabs(v_));
  case QN_OP_BITS:
    EACH(bit_slice(a[j], b[j], c[j]), v_);
  }
#undef EACH
}

void qn__expr_f64(qn_program e, int n, const double *const var[], const float (*table)[QN_FORMAT_TABLE], double *value,
                  double *magnitude) {
  lane stack[QN_EXPR_STACK + 2];
  int depth = 0;
  memset(&stack[0], 0, sizeof stack[0]);
  for (uint32_t i = 0; i < e.n; i++) {
    const qn_expr_op *op = &e.op[i];
    depth -= ops[op->code].arity;
    lane *top = &stack[depth++];
    if (op->code > QN_OP_VAR) {
      apply_f64(op->code, op->code == QN_OP_LOOKUP ? table[op->arg] : NULL, n, top);
      continue;
    }
    for (int j = 0; j < n; j++) top->v[j] = op->code == QN_OP_CONST ? op->value : var[op->arg][j];
    for (int j = 0; j < n; j++) top->g[j] = fabs(top->v[j]);
  }
  memcpy(value, stack[0].v, (size_t)n * sizeof *value);
  if (magnitude) memcpy(magnitude, stack[0].g, (size_t)n * sizeof *magnitude);
}
