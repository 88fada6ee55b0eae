/* operand.h - what a product reads and writes, said once: the arguments of kernels and their checks, the buffers of
 * verification, the fields of scripts and what templates declare all follow from these tables.
 *
 * The fields themselves stand in quernel.h, where people read of them; a row without its field does not compile, nor
 * does a field of qn_function_args without a row. */
#ifndef QN_OPERAND_H
#define QN_OPERAND_H
#include "quernel.h"
#include <stdbool.h>
#include <string.h>

/* What the caller of qn_run gives, by the names that qn_args and qn_function_args share.
 *
 *   OPERAND(NAME, name, has, type, rows, cols, STRIDE)
 *
 * of a problem `p`: does it have the operand at all (takes: by a step of its epilogue), the type of an element, the
 * shape; rows 0 stands for M, and STRIDE is the argument that says from where to where rows go (COUNT: there is none,
 * rows are dense). */
#define QN_OPERAND_MAP(OPERAND)                                                                                        \
  OPERAND(X, x, true, qn__x_type(p), 0, p->k, LDX)                                                                     \
  OPERAND(Y, y, true, p->out, 0, qn__columns(p), LDY)                                                                  \
  OPERAND(X_SCALE, x_scale, !p->x && qn__act_scaled(p->act), QN_T_F32, 0, 1, COUNT)                                    \
  OPERAND(BIAS, bias, takes(p, QN_ARG_BIAS), QN_T_F32, 1, p->n, COUNT)                                                 \
  OPERAND(RESIDUAL, residual, takes(p, QN_ARG_RESIDUAL), p->out, 0, qn__columns(p), LD_RESIDUAL)                       \
  OPERAND(SCALE, scale, takes(p, QN_ARG_SCALE), QN_T_F32, 1, 1, COUNT)

/* What the library adds: the packed weight, the two parts of the workspace, the order of the columns of X;
 * and whose the rows of a stack are (grouped.c). Then numbers, and those of them that the caller gives with the
 * operands. */
#define QN_POINTER_MAP(X)                                                                                              \
  X(W, w) X(SCRATCH, scratch) X(COUNTERS, counters) X(PERM, perm) X(IDS, ids) X(OFFSETS, offsets) X(ROWS, rows)
#define QN_NUMBER_MAP(X) X(M, m) X(N, n) X(K, k) X(EXPERTS, experts) X(EXPERT, expert) X(TOPK, topk)
#define QN_STRIDE_MAP(X) X(LDX, ldx) X(LDY, ldy) X(LD_RESIDUAL, ld_residual)

/* Every argument that a kernel may take. The order is that of their numbers in packs. */
typedef enum qn_arg {
#define QN_X(NAME, ...) QN_ARG_##NAME,
  QN_OPERAND_MAP(QN_X) QN_POINTER_MAP(QN_X) QN_NUMBER_MAP(QN_X) QN_STRIDE_MAP(QN_X)
#undef QN_X
      QN_ARG_COUNT,
  QN_OPERANDS = QN_ARG_W, /* the first so many are operands */
  QN_POINTERS = QN_ARG_M  /* and so many pointers */
} qn_arg;

_Static_assert(offsetof(qn_function_args, reserved) == 8 * QN_ARG_COUNT,
               "every field of qn_function_args has a row here");

/* Name of an argument, "x_scale", and where it is: in qn_function_args and, of operands and their strides, qn_args. */
typedef struct qn_arg_place {
  const char *name;
  size_t at, given;
} qn_arg_place;
extern const qn_arg_place qn__arg[QN_ARG_COUNT];

static inline void *qn__arg_pointer(const qn_function_args *a, qn_arg i) {
  void *p;
  return memcpy(&p, (const char *)a + qn__arg[i].at, sizeof p), p;
}
static inline void qn__arg_point(qn_function_args *a, qn_arg i, const void *p) {
  memcpy((char *)a + qn__arg[i].at, &p, sizeof p);
}
static inline void qn__arg_count(qn_function_args *a, qn_arg i, int64_t v) {
  memcpy((char *)a + qn__arg[i].at, &v, sizeof v);
}
static inline int64_t qn__arg_number(const qn_function_args *a, qn_arg i) {
  int64_t v;
  return memcpy(&v, (const char *)a + qn__arg[i].at, sizeof v), v;
}

/* An operand of one problem. */
typedef struct qn_operand {
  bool has;    /* the problem has it; the rest is zero where it has not */
  bool tokens; /* a row for each token; else one row */
  qn_type type;
  int64_t cols;
  qn_arg stride; /* the argument that holds it, in elements; QN_ARG_COUNT: rows are dense */
} qn_operand;

struct qn_problem;
qn_operand qn__operand(const struct qn_problem *p, qn_arg arg);
#endif
