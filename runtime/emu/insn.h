/* insn.h - types of values, and an instruction as it is executed. */
#ifndef QN_EMU_INSN_H
#define QN_EMU_INSN_H
#include "lane.h"
#include <stdbool.h>

/* ---- Types ------------------------------------------------------------------------------------------------------- */

#define TYPE_MAP(X)                                                                                                    \
  X(NONE, "", 0)                                                                                                       \
  X(B8, "b8", 1)                                                                                                       \
  X(U8, "u8", 1)                                                                                                       \
  X(S8, "s8", 1)                                                                                                       \
  X(B16, "b16", 2)                                                                                                     \
  X(U16, "u16", 2)                                                                                                     \
  X(S16, "s16", 2)                                                                                                     \
  X(B32, "b32", 4)                                                                                                     \
  X(U32, "u32", 4)                                                                                                     \
  X(S32, "s32", 4)                                                                                                     \
  X(B64, "b64", 8)                                                                                                     \
  X(U64, "u64", 8)                                                                                                     \
  X(S64, "s64", 8)                                                                                                     \
  X(F16, "f16", 2)                                                                                                     \
  X(F16X2, "f16x2", 4)                                                                                                 \
  X(BF16, "bf16", 2)                                                                                                   \
  X(BF16X2, "bf16x2", 4)                                                                                               \
  X(F32, "f32", 4)                                                                                                     \
  X(F64, "f64", 8)                                                                                                     \
  X(TF32, "tf32", 4)                                                                                                   \
  X(PRED, "pred", 4)                                                                                                   \
  X(E4M3, "e4m3", 1)                                                                                                   \
  X(E5M2, "e5m2", 1)                                                                                                   \
  X(E2M3, "e2m3", 1)                                                                                                   \
  X(E3M2, "e3m2", 1)                                                                                                   \
  X(E2M1, "e2m1", 1)                                                                                                   \
  X(S4, "s4", 1)                                                                                                       \
  X(U4, "u4", 1)                                                                                                       \
  X(B4, "b4", 1)                                                                                                       \
  X(E4M3X2, "e4m3x2", 2)                                                                                               \
  X(E5M2X2, "e5m2x2", 2)                                                                                               \
  X(E2M3X2, "e2m3x2", 2)                                                                                               \
  X(E3M2X2, "e3m2x2", 2)                                                                                               \
  X(E2M1X2, "e2m1x2", 1)                                                                                               \
  X(UE8M0X2, "ue8m0x2", 2)                                                                                             \
  X(B128, "b128", 16)

typedef enum type {
#define X(n, text, size) T_##n,
  TYPE_MAP(X)
#undef X
      TYPES
} type;

extern const struct type_info {
  const char *name;
  uint8_t size;
} qn__emu_types[TYPES];

type qn__emu_type(const char *s, size_t n); /* T_NONE when it names no type */
static inline bool type_signed(type t) { return t == T_S8 || t == T_S16 || t == T_S32 || t == T_S64; }
/* Bytes per lane of a register of that type: at least 2. */
static inline uint32_t type_width(type t) { return qn__emu_types[t].size < 2 ? 2 : qn__emu_types[t].size; }

/* ---- Instructions ------------------------------------------------------------------------------------------------ */

typedef struct warp warp;
typedef struct cta cta;
typedef struct cluster cluster;
typedef struct worker worker;
typedef struct run run;
typedef struct insn insn;

typedef void op_fn(warp *w, const insn *i, uint32_t mask);

/* How the scheduler treats an instruction. */
typedef enum control {
  C_OP,     /* runs under its guard and goes on */
  C_SYNC,   /* the same, once all lanes of its member mask (insn.member; 0: of the warp) stand at it */
  C_BRANCH, /* target */
  C_TABLE,  /* brx.idx */
  C_CALL,   /* target, ret */
  C_RETURN, /* of a function: to ret of its call */
  C_EXIT,
  C_BARRIER, /* bar and barrier.cta */
  C_CLUSTER, /* barrier.cluster.wait */
  C_WAIT,    /* an mbarrier wait: run() says through warp.waiting which lanes are not through */
  C_POOL,    /* setmaxnreg: likewise, of all lanes of the warp together */
  C_YIELD    /* nanosleep: lets other warps go */
} control;

enum { F_FTZ = 1, F_SAT = 2, F_RELU = 4, F_NAN = 8, F_APPROX = 16 };

struct insn {
  op_fn *run;
  const uint16_t *watch;  /* watched registers that it names, by number (watch.h): how many, and they; or NULL */
  uint32_t d, a, b, c, e; /* rows of the register file; 0: absent */
  int32_t guard;          /* row of its predicate, -1 none */
  bool negate;            /* the guard is negated */
  uint8_t control, kind, type, from, space, count, sub, flags, width; /* width: bytes per lane of the data registers */
  bool store;
  uint16_t nregs;
  uint32_t member, target, line, loc;
  const uint32_t *regs; /* rows of vector operands */
  int64_t imm;
  const void *extra;
};
#endif
