/* lane.h - lanes of a warp, their masks, and rows of the register file.
 *
 * A kernel's registers are rows of 32 lanes in one register file per warp; an operand is a byte offset into that file.
 * Constants, special registers and addresses of variables are rows too, filled when a warp starts, so that an
 * instruction never asks what kind of operand it has. A predicate is one 32-bit word. Offset 0 means "no operand". */
#ifndef QN_EMU_LANE_H
#define QN_EMU_LANE_H
#include <stdint.h>
#include <string.h>

enum { LANES = 32 };
#define ALL 0xffffffffu
#define EACH_LANE(l) for (int l = 0; l < LANES; l++)
#define EACH_SET(l, mask)                                                                                              \
  for (uint32_t l##_left = (mask), l = 0; l##_left && (l = (uint32_t)__builtin_ctz(l##_left), 1);                      \
       l##_left &= l##_left - 1)

#define ROW(T, offset) ((T *)(void *)(w->regs + (offset)))

/* Write a row back under a mask. */
#define STORE_ROW(T, d, t, m)                                                                                          \
  do {                                                                                                                 \
    if ((m) == ALL) memcpy(d, t, sizeof(T) * LANES);                                                                   \
    else EACH_LANE(lane_)(d)[lane_] = ((m) >> lane_ & 1) ? (t)[lane_] : (d)[lane_];                                    \
  } while (0)
#define STORE_BITS(d, bits, m) (*(d) = (*(d) & ~(m)) | ((bits) & (m)))
#endif
