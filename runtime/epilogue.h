/* epilogue.h - what becomes of a sum before it is rounded to the type of Y: a step of the epilogue is one row here.
 *
 *   STEP(NAME, spelling, operand, value, turn, roundings, text)
 *
 * operand    what the step reads as o (operand.h); QN_ARG_COUNT: nothing, it is a function of v; QN_ARG_UP: the sum of
 *            the up row, where v is that of the gate's
 * value      the step in float64, of v and o
 * turn       where it turns from falling to rising as v grows; NAN: nowhere
 * roundings  how far a kernel that does it in f32 may be from that: of v, o and the value y, in units of 2^-24
 * text       the step in C and in CUDA, where v and o are f32, or on the host vectors of f32; exponential(x),
 * positive(x), magnitude(x) and tail(x) are e^x, max(x, 0), |x| and the normal distribution beyond x >= 0: see
 *            templates/kernels/common/epilogue.lua
 *
 * A function of negative numbers by way of e^-v is as far off as the product of v and log2(e) is rounded. GELU is that
 * of the error function, what models call "gelu"; with tanh it is "gelu_pytorch_tanh" and "gelu_new". Its tail is
 * 2^-23.7 off at most (Abramowitz and Stegun, Handbook of Mathematical Functions, 26.2.17).
 *
 * Before *gate steps with operands are taken by gate and up rows alike, functions by the gate's alone.
 *
 * The order is that of their numbers in packs: a new one goes to the end. */
#ifndef QN_EPILOGUE_H
#define QN_EPILOGUE_H
#include "operand.h"
#include <math.h>

enum { QN_ARG_UP = QN_ARG_COUNT + 1 };

#define QN_EPILOGUE_MAP(STEP)                                                                                          \
  STEP(BIAS, "+bias", QN_ARG_BIAS, v + o, NAN, fabs(y), "v + o")                                                       \
  STEP(RESIDUAL, "+residual", QN_ARG_RESIDUAL, v + o, NAN, fabs(y), "v + o")                                           \
  STEP(SCALE, "*scale", QN_ARG_SCALE, (v * o), NAN, fabs(y), "v * o")                                                  \
  STEP(SILU, ".silu", QN_ARG_COUNT, v / (1 + exp(-v)), -1.2784645427610738, fabs(y) * (8 + 2 * fmax(-v, 0)),           \
       "v / (1.0f + exponential(-v))")                                                                                 \
  STEP(GELU, ".gelu", QN_ARG_COUNT, v / 2 * erfc(-v * M_SQRT1_2), -0.7517915247,                                       \
       fabs(y) * (8 + fmin(v, 0) * v) + 6 * fabs(v) * exp(-v * v / 8),                                                 \
       "positive(v) - magnitude(v) * tail(magnitude(v))")                                                              \
  STEP(GELU_TANH, ".gelu_tanh", QN_ARG_COUNT, v / (1 + exp(-2 * 0.79788456080286536 * (v + 0.044715 * v * v * v))),    \
       -0.7524614219, fabs(y) * (8 + 6 * fmax(-v - 0.044715 * v * v * v, 0)),                                          \
       "v / (1.0f + exponential(-1.59576912f * (v + 0.044715f * v * v * v)))")                                         \
  STEP(RELU2, ".relu2", QN_ARG_COUNT, fmax(v, 0) * fmax(v, 0), NAN, 2 * fabs(y), "positive(v) * positive(v)")          \
  STEP(GATE, "*gate", QN_ARG_UP, (v * o), NAN, fabs(y), "v * o")

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
  int operand;
} qn_epilogue_step;
extern const qn_epilogue_step qn__epilogue_step[QN_EPILOGUE_COUNT];
#endif
