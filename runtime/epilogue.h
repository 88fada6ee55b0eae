/* epilogue.h - what becomes of a sum before it is rounded to the type of Y: a step of the epilogue is one row here.
 *
 *   X(NAME, spelling, operand, value, roundings, text)
 *
 * operand    what the step reads as o (operand.h); QN_ARG_COUNT: nothing
 * value      the step in float64, of v and o
 * roundings  how far a kernel that does it in f32 may be from that: of v, o and the value y, in units of 2^-24
 * text       the step in C and in CUDA, where v and o are f32, or on the host vectors of f32
 *
 * The order is that of their numbers in packs: a new one goes to the end. */
#ifndef QN_EPILOGUE_H
#define QN_EPILOGUE_H
#include "operand.h"

#define QN_EPILOGUE_MAP(X) X(BIAS, "+bias", QN_ARG_BIAS, v + o, fabs(y), "v + o")

#define QN_EPILOGUE_STEPS 8 /* of a problem, at most */

typedef enum qn_epilogue {
  QN_EPILOGUE_END,
#define QN_X(NAME, ...) QN_EPILOGUE_##NAME,
  QN_EPILOGUE_MAP(QN_X)
#undef QN_X
      QN_EPILOGUE_COUNT
} qn_epilogue;

typedef struct qn_epilogue_step {
  const char *spelling;
  qn_arg operand;
} qn_epilogue_step;
extern const qn_epilogue_step qn__epilogue_step[QN_EPILOGUE_COUNT];
#endif
