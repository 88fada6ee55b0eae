/* internal.h - the nouns that the files of the interpreter share.
 *
 *     module.c   loading, finding kernels; launch.c: launches and workers
 *     parse.c    text -> declarations, operands          decode.c   opcode + operands -> insn, by tables of rules
 *     op_*.c     rules of arithmetic                     memory.c   device memory; access.c: ld, st, atom and spaces
 *     warp.c     shfl, vote, match...                    matrix.c   ldmatrix, stmatrix, mma; wgmma.c: wgmma
 *     async.c    jobs, groups, mbarriers                 copy.c     cp.async; bulk.c: bulk copies, TMA
 *     reach.h    a warp's request as host pointers       shadow.h   accesses that are plainly right
 *     checks.c   vector clocks, shadows, findings        counters.c sectors and passes
 *     schedule.c fragments, barriers, clusters
 *
 * A kernel's registers are rows of 32 lanes in one register file per warp; an operand is a byte offset into that file.
 * Constants, special registers and addresses of variables are rows too, filled when a warp starts, so that an
 * instruction never asks what kind of operand it has. A predicate is one 32-bit word. Offset 0 means "no operand". */
#ifndef QN_EMU_INTERNAL_H
#define QN_EMU_INTERNAL_H
#include "emu.h"
#include "fail.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

enum { LANES = 32 };
#define ALL 0xffffffffu
#define EACH_LANE(l) for (int l = 0; l < LANES; l++)
#define EACH_SET(l, mask)                                                                                              \
  for (uint32_t l##_left = (mask), l = 0; l##_left && (l = (uint32_t)__builtin_ctz(l##_left), 1);                      \
       l##_left &= l##_left - 1)

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

type qn__emu_type(const char *name, size_t length); /* T_NONE when it names no type */
static inline bool type_signed(type t) { return t == T_S8 || t == T_S16 || t == T_S32 || t == T_S64; }
/* Bytes per lane of a register of that type: at least 2. */
static inline uint32_t type_width(type t) { return qn__emu_types[t].size < 2 ? 2 : qn__emu_types[t].size; }

/* ---- Address spaces ---------------------------------------------------------------------------------------------- */

/* PTX ISA, "State Spaces", "Generic Addressing". A generic address carries its window in the top 16 bits; 0 is global.
 * A shared address is 24 bits of offset under the CTA's rank in its cluster plus one (0: the executing CTA). */
typedef enum space { S_GENERIC, S_GLOBAL, S_SHARED, S_LOCAL, S_PARAM, S_CONST } space;
#define WINDOW_SHARED (UINT64_C(1) << 48)
#define WINDOW_LOCAL (UINT64_C(2) << 48)
#define WINDOW_PARAM (UINT64_C(3) << 48)
#define WINDOW_MASK (UINT64_C(0xffff) << 48)
#define GLOBAL_BASE UINT64_C(0x700000000000)
#define GRANULE_BITS 16
#define GRANULES (UINT64_C(1) << 21) /* of 64 KiB: 128 GiB of device addresses */
#define SHARED_BASE 1024u            /* what lies below is the system's, as on sm_90 */
#define SHARED_OFFSET 0xffffffu
#define PARAM_BYTES 4096u

/* Shadow of a byte. */
enum { B_UNWRITTEN = 0, B_PENDING = 1, B_MBARRIER = 2, B_WRITTEN = 0xff };

typedef struct block {
  uint64_t base, size;
  uint8_t *data, *shadow; /* shadow NULL: all written */
  bool readonly, owned;   /* owned by a module */
} block;

struct qn_emu {
  qn_emu_limits limits;
  char suffix;
  uint32_t *granules; /* index into blocks, 0 none */
  block **blocks;
  uint32_t nblocks, free_granule;
  qn_emu_module *modules;
};

static inline block *block_at(const qn_emu *e, uint64_t address) {
  uint64_t g = (address - GLOBAL_BASE) >> GRANULE_BITS;
  return g < GRANULES ? e->blocks[e->granules[g]] : NULL;
}
static inline bool block_holds(const block *b, uint64_t address, uint64_t bytes) {
  return b && address >= b->base && bytes <= b->size && address - b->base <= b->size - bytes;
}
qn_status qn__emu_block_new(qn_emu *e, uint64_t bytes, block **out);
void qn__emu_block_free(qn_emu *e, block *b);

/* ---- Instructions ------------------------------------------------------------------------------------------------ */

typedef struct warp warp;
typedef struct insn insn;
typedef struct cta cta;
typedef struct cluster cluster;
typedef struct worker worker;
typedef struct run run;
typedef struct job job;

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
  C_YIELD    /* nanosleep: lets other warps go */
} control;

enum { F_FTZ = 1, F_SAT = 2, F_RELU = 4, F_NAN = 8, F_APPROX = 16 };

struct insn {
  op_fn *run;
  uint32_t d, a, b, c, e;                                             /* rows of the register file; 0: absent */
  int32_t guard;                                                      /* row of its predicate, -1 none */
  bool negate;                                                        /* the guard is negated */
  uint8_t control, kind, type, from, space, count, sub, flags, width; /* width: bytes per lane of the data registers */
  bool store;
  uint16_t nregs;
  uint32_t member, target, line, loc;
  const uint32_t *regs; /* rows of vector operands */
  int64_t imm;
  const void *extra;
};

#define ROW(T, offset) ((T *)(void *)(w->regs + (offset)))

/* ---- Modules ----------------------------------------------------------------------------------------------------- */

/* A row that is filled when a warp starts. */
typedef struct constant {
  uint64_t value;
  uint32_t row;
  uint8_t width, special; /* special: 0 plain, 1 relative to the kernel's dynamic shared memory */
} constant;

typedef struct function {
  struct function *next;
  qn_emu_kernel kernel;
  qn_emu_module *module;
  bool entry, defined;
  uint32_t first, nargs, nrets, dynamic; /* dynamic: offset of dynamic shared memory */
  struct formal {
    char name[96];
    uint32_t local, size;
  } * args, *rets;     /* of a .func: where its parameters live in local memory */
  uint32_t return_row; /* u32 per lane: where to go on after return */
} function;

typedef struct call {
  function *f;
  const uint32_t *args, *rets; /* local memory of the caller's */
} call;

typedef struct loc {
  uint32_t file, line;
} loc;

struct qn_emu_module {
  qn_emu *device;
  qn_emu_module *next;
  char *text;
  const char **lines;
  uint32_t nlines;
  struct arena *arena;
  insn *code;
  uint32_t ncode, code_cap;
  constant *constants;
  uint32_t nconstants, constants_cap;
  uint32_t specials[64]; /* rows of special registers, by index in qn__emu_specials */
  uint32_t file_bytes;   /* of a register file */
  uint32_t local_bytes;  /* per lane */
  uint32_t shared_bytes; /* of module-scope variables */
  loc *locs;
  uint32_t nlocs, locs_cap;
  char **files;
  uint32_t nfiles;
  function *functions;
  int nkernels;
  const function **kernels;
  struct variable {
    struct variable *next;
    const char *name;
    block *block;
  } * variables;
};

void *qn__emu_arena(qn_emu_module *m, size_t bytes); /* zeroed; NULL when out of memory */
uint32_t qn__emu_level(void);                        /* instruction set of this machine: index of the tables of rules */
extern const char *const qn__emu_specials[];         /* names of special registers, NULL at the end */

/* ---- Execution --------------------------------------------------------------------------------------------------- */

typedef enum frag_state { FR_RUN, FR_BARRIER, FR_SYNC, FR_MBARRIER, FR_CLUSTER } frag_state;

typedef struct frag {
  uint32_t pc, mask;
  uint8_t state;
  uint8_t id;    /* FR_BARRIER: of the barrier */
  uint64_t seen; /* FR_MBARRIER: cluster.events when it began to wait */
} frag;

/* Work that goes on beside the program. finish() completes it for `lanes`; a job is freed when none is left. */
struct job {
  job *next;
  const insn *insn;
  warp *warp;
  uint32_t lanes;
  void (*finish)(job *j, uint32_t lanes);
  /* cp.async: one request of a warp; `to` are offsets in its CTA's shared memory */
  uint32_t to[LANES], bytes[LANES];
  uint8_t *from[LANES];
  /* bulk: one request of one lane */
  cta *target;
  struct mbarrier *barrier;
  uint64_t global;
  const uint8_t *map;
  int32_t at[5];
  uint32_t shared, size, ctas;
  /* wgmma */
  uint64_t desc_a, desc_b;
  uint32_t *a;
  bool accumulate;
};

typedef struct group {
  struct group *next; /* older */
  uint32_t lanes;
  job *jobs;
} group;

typedef struct groups {
  job *open, **open_end;
  group *newest;
  int count;
} groups;

typedef struct mbarrier {
  uint32_t address; /* offset in the CTA's shared memory; 0: free */
  uint32_t expected, pending, phase;
  int64_t tx;
  uint32_t agent;         /* of async writes that it announces */
  uint32_t *vc, *pvc;     /* released into it, by the phases so far and the current one */
  uint32_t *done, *pdone; /* by the complete phases: what a waiter may rely on */
  uint32_t init_stamp, init_agent;
} mbarrier;

struct warp {
  uint8_t *regs;
  cta *cta;
  worker *worker;
  uint32_t id, agent, live, carry;
  frag frags[LANES];
  int nfrags;
  uint32_t tried[4]; /* pcs of try_waits that have just failed: the next time they wait */
  bool turn;         /* take the last fragment, not the first: a spinning one must not starve the others */
  bool yielded;
  uint32_t waiting; /* of the running C_WAIT: lanes whose phase is not complete */
  mbarrier *waits_for;
  uint32_t *vc, *pvc, safe;
  groups copies, stores, wgmmas;
  bool wgmma_fenced, cluster_arrived;
  uint32_t cluster_mask;
  uint8_t *local;
};

typedef struct bar {
  uint32_t arrived, need, reduce_and, reduce_or, reduce_count;
  uint32_t *vc, *pvc;
} bar;

#define BY_ATOMICS UINT32_MAX /* later than any time */

enum { BARS = 16, MBARRIERS = 64 };

struct cta {
  cluster *cluster;
  worker *worker;
  uint32_t rank, index[3];
  uint8_t *data, *shadow; /* indexed by shared offset */
  uint32_t size;          /* end of shared memory, SHARED_BASE included */
  /* Races: per 4-byte word, who wrote it last and when; when each agent of the cluster last read it. */
  uint32_t *write_stamp, *read_last, **read_stamp;
  /* Where write_stamp is BY_ATOMICS: each agent's last atomic and, in a last row, the plain write before them, which
   * write_agent is about. */
  uint32_t **atomic_stamp;
  uint16_t *write_agent;
  uint8_t *generic; /* last written by the generic proxy */
  warp *warps;
  uint32_t nwarps, live_warps;
  bar bars[BARS];
  mbarrier mbarriers[MBARRIERS];
  uint32_t nmbarriers;
};

struct cluster {
  cluster *next;
  worker *worker;
  cta *ctas;
  uint32_t nctas, nagents, agents_used;
  uint32_t index[3];
  uint32_t now;     /* time: advances with every release */
  uint32_t *clocks; /* per agent: its current time */
  uint64_t events;  /* anything that could unblock a waiter */
  job *inflight;    /* bulk work that completes on an mbarrier; oldest first */
  uint32_t arrived; /* threads at barrier.cluster */
  uint32_t cluster_phase;
  uint32_t *vc, *pvc;
  uint32_t stuck, idle; /* rounds without an event: all waiting; some running */
  int slices;
};

struct worker {
  run *run;
  pthread_t thread;
  cluster *resident, *spare;
  uint64_t *executed; /* per instruction */
  uint64_t budget;    /* what is left of the slice drawn from run */
  uint64_t random;
  uint32_t pc; /* of the running instruction, for findings */
  block *last; /* block of the last global access */
  qn_emu_counters counters;
  qn_status status;
  double seconds;     /* of processor time */
  uint8_t apart[128]; /* from the next worker: no cache line is shared */
};

struct run {
  qn_emu *device;
  const function *f;
  const qn_emu_module *module;
  qn_emu_launch how;
  unsigned checks;
  uint32_t cluster[3], nctas, nthreads, nwarps, shared_bytes;
  uint64_t nclusters;
  uint8_t *params;
  atomic_uint_fast64_t next_cluster, budget;
  atomic_bool stop;
  pthread_mutex_t lock; /* of report */
  qn_emu_report *report;
  int limit;
};

static inline bool checking(const warp *w, unsigned what) { return w->worker->run->checks & what; }
static inline bool late(const warp *w) { return w->worker->run->how.mode == QN_EMU_LATE; }
uint64_t qn__emu_random(worker *k);
void qn__emu_warp_start(warp *w, uint32_t pc); /* all live lanes at pc */
void qn__emu_no_memory(worker *k);             /* the launch ends with QN_E_NOMEM */
bool qn__emu_cluster_slice(cluster *c);        /* run a while; true when the cluster has ended or the launch stops */

/* ---- Findings (checks.c) ----------------------------------------------------------------------------------------- */

/* Record that the instruction the worker runs did wrong. lane -1: the warp. */
void qn__emu_find(warp *w, int lane, qn_emu_finding_kind kind, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Vector clocks. A release publishes the warp's past into (vc, pvc) and moves its clock on; an acquire takes it
 * over. */
void qn__emu_release(warp *w, uint32_t *vc, uint32_t *pvc);
void qn__emu_acquire(warp *w, const uint32_t *vc, const uint32_t *pvc);
void qn__emu_proxy_fence(warp *w);
void qn__emu_clock_start(cluster *c);
void qn__emu_join(uint32_t *into, const uint32_t *from, uint32_t n);

typedef enum touch { GENERIC_READ, GENERIC_WRITE, ATOMIC, ASYNC_READ, ASYNC_WRITE, COPY_WRITE } touch;

/* The CTA and the offset of a shared address of any rank; NULL (and a finding) when it or its bytes are outside. */
cta *qn__emu_shared_at(warp *w, int lane, uint32_t address, uint32_t bytes, uint32_t *offset);
/* Account for an access to c's shared memory by `agent` (a warp's or an mbarrier's): shadow bytes and races. */
void qn__emu_touch(warp *w, int lane, cta *c, uint32_t offset, uint32_t bytes, touch how);
/* The write of an async operation has landed: stamp the words with the agent's time, mark the bytes written. */
void qn__emu_land(warp *w, cta *c, uint32_t offset, uint32_t bytes, uint32_t agent, uint32_t stamp, bool generic);
/* Set shadow bytes. */
void qn__emu_mark(cta *c, uint32_t offset, uint32_t bytes, int state);

/* Global memory: host pointer to `bytes` at `address`, or NULL and a finding. `write`: also refuses read-only
 * memory. */
uint8_t *qn__emu_global_at(warp *w, int lane, uint64_t address, uint64_t bytes, bool write);
/* The same for reads with the shadow checked (bytes marked written when `write`). */
uint8_t *qn__emu_global_use(warp *w, int lane, uint64_t address, uint64_t bytes, bool write);

/* ---- Counters (counters.c) --------------------------------------------------------------------------------------- */

void qn__emu_count_global(warp *w, const uint64_t *address, uint32_t mask, uint32_t bytes, bool store);
void qn__emu_count_shared(warp *w, const uint32_t *address, uint32_t mask, uint32_t bytes);
/* ---- Async (async.c, bulk.c, wgmma.c) ---------------------------------------------------------------------------- */

void qn__emu_groups_init(groups *g);
void qn__emu_groups_add(groups *g, job *j);
void qn__emu_groups_commit(worker *k, groups *g, uint32_t lanes);
void qn__emu_groups_wait(groups *g, uint32_t keep, uint32_t lanes, bool open_too);
void qn__emu_groups_drop(groups *g);
job *qn__emu_job(warp *w, const insn *i, uint32_t lanes); /* NULL: out of memory, and the launch ends */
void qn__emu_job_free(job *j);
void qn__emu_finish(job *j, uint32_t lanes);
/* Complete one job in flight: of a barrier somebody waits for, else the oldest; random: any. False when there is
 * none. */
bool qn__emu_complete_one(cluster *c);
void qn__emu_mbarrier_change(cluster *c, mbarrier *b, uint32_t arrive, int64_t tx);
mbarrier *qn__emu_mbarrier_at(warp *w, int lane, uint32_t address, cta **where);

/* ---- Rules (decode.c) -------------------------------------------------------------------------------------------- */

typedef struct parser parser;
typedef struct operand operand;
typedef struct opcode opcode;
typedef void decode_fn(parser *p, insn *i, const opcode *o, operand *ops, int n);

/* One row of the instruction set. pattern: tokens of the opcode, "a|b" alternatives, "?" after an optional one,
 * "*" for digits.
 * form: how operands fill the slots d a b c e: a letter per operand; its width is the type's, twice that when the
 * letter is upper case, or the digit after it; 'p' after it: a predicate. Empty form: decode does it. */
typedef struct rule {
  const char *pattern, *form;
  op_fn *run;
  decode_fn *decode;
  uint8_t kind, control, sub;
} rule;

typedef struct rules {
  const rule *rows;
  size_t count;
} rules;

/* Files of hot arithmetic are compiled once per instruction set; QN_LEVEL tells their tables apart. */
#ifndef QN_LEVEL
#define QN_LEVEL base
#endif
#define LEVEL_NAME_(name, level) qn__emu_##name##_##level
#define LEVEL_NAME(name, level) LEVEL_NAME_(name, level)
#define LEVELED(name) LEVEL_NAME(name, QN_LEVEL)
#define DECLARE_RULES(name) extern const rules name
#define DEFINE_RULES(name, rows) const rules name = {rows, sizeof(rows) / sizeof *(rows)}

enum { LEVELS = 3 };
#if defined __x86_64__
#define LEVEL_MAP(X, name) X(name, base) X(name, v3) X(name, v4)
#else
#define LEVEL_MAP(X, name) X(name, base)
#endif
#define DECLARE_LEVEL(name, level) DECLARE_RULES(qn__emu_##name##_##level);
LEVEL_MAP(DECLARE_LEVEL, rules_int)
LEVEL_MAP(DECLARE_LEVEL, rules_float)
LEVEL_MAP(DECLARE_LEVEL, rules_convert)
LEVEL_MAP(DECLARE_LEVEL, rules_access)
LEVEL_MAP(DECLARE_LEVEL, rules_copy)
LEVEL_MAP(DECLARE_LEVEL, rules_matrix)
LEVEL_MAP(DECLARE_LEVEL, rules_wgmma)
DECLARE_RULES(qn__emu_rules_flow);
DECLARE_RULES(qn__emu_rules_atomic);
DECLARE_RULES(qn__emu_rules_warp);
DECLARE_RULES(qn__emu_rules_async);
DECLARE_RULES(qn__emu_rules_bulk);

/* Write a row back under a mask. */
#define STORE_ROW(T, d, t, m)                                                                                          \
  do {                                                                                                                 \
    if ((m) == ALL) memcpy(d, t, sizeof(T) * LANES);                                                                   \
    else EACH_LANE(lane_)(d)[lane_] = ((m) >> lane_ & 1) ? (t)[lane_] : (d)[lane_];                                    \
  } while (0)
#define STORE_BITS(d, bits, m) (*(d) = (*(d) & ~(m)) | ((bits) & (m)))
#endif
