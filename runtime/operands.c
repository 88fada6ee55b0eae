/* operands.c - the tables of operand.h and epilogue.h, asked of a problem. */
#include "desc.h"
#include <stddef.h>

#define NO_FIELD SIZE_MAX

const qn_arg_place qn__arg[QN_ARG_COUNT] = {
#define FIELD(NAME, name, given) [QN_ARG_##NAME] = {#name, offsetof(qn_function_args, name), given},
#define QN_X(NAME, name, ...) FIELD(NAME, name, offsetof(qn_args, name))
    QN_OPERAND_MAP(QN_X)
#undef QN_X
#define QN_X(NAME, name) FIELD(NAME, name, NO_FIELD)
        QN_POINTER_MAP(QN_X) QN_NUMBER_MAP(QN_X)
#undef QN_X
#define QN_X(NAME, name) FIELD(NAME, name, offsetof(qn_args, name))
            QN_STRIDE_MAP(QN_X)
#undef QN_X
};

const qn_epilogue_step qn__epilogue_step[QN_EPILOGUE_COUNT] = {
#define QN_X(NAME, spelling, operand, ...) [QN_EPILOGUE_##NAME] = {spelling, operand},
    QN_EPILOGUE_MAP(QN_X)
#undef QN_X
};

/* Does some step of the epilogue read this operand? */
static bool takes(const qn_problem *p, int arg) {
  for (int i = 0; i < QN_EPILOGUE_STEPS; i++)
    if (p->epilogue[i] && qn__epilogue_step[p->epilogue[i]].operand == arg) return true;
  return false;
}

bool qn__gated(const qn_problem *p) { return takes(p, QN_ARG_UP); }

qn_operand qn__operand(const qn_problem *p, qn_arg arg) {
  switch (arg) {
#define QN_X(NAME, name, has, type, rows, cols, STRIDE)                                                                \
  case QN_ARG_##NAME:                                                                                                  \
    return has ? (qn_operand){true, !(rows), (qn_type)(type), cols, QN_ARG_##STRIDE} : (qn_operand){0};
    QN_OPERAND_MAP(QN_X)
#undef QN_X
  default:
    return (qn_operand){0};
  }
}
