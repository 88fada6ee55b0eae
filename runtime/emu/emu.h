/* emu.h - a PTX interpreter: run the PTX that NVRTC emits on the CPU and find what is wrong with it.
 *
 *     qn__emu_open(90, 'a')         -> qn_emu          one pretended GPU: an address space and its limits
 *     qn__emu_module_load(ptx)      -> qn_emu_module   parsed and decoded; unknown PTX is an error naming line and text
 *     qn__emu_kernel_find(name)     -> qn_emu_kernel   parameters, static shared memory, launch bounds
 *     qn__emu_run(kernel, how)      -> qn_emu_report   runs the grid; findings (bugs of the kernel) and counters
 *
 * Two kinds of trouble are kept apart. A qn_status says that the interpreter could not do what it was asked (unknown
 * instruction, bad grid, out of memory). A finding says that the kernel did something wrong (a race, a missing wait, an
 * access outside its buffer...): qn__emu_run still returns QN_OK, and the report holds the findings. A kernel is
 * clean when report.findings is 0.
 *
 * Execution is sequentially consistent and never timed. What a program may only rely on after a wait happens as late as
 * the waits allow (QN_EMU_LATE), or warps and completions are shuffled by a seed (QN_EMU_RANDOM). Not modelled: weak
 * memory ordering between plain accesses of different CTAs, caches, clocks.
 *
 * Threads: one thread at a time per qn_emu; different qn_emu are independent. A launch uses its own worker threads.
 * Errors: the text of a failure is qn__errmsg() of the calling thread. Source of all rules: NVIDIA, "Parallel Thread
 * Execution ISA"; each rule in the sources names its section. */
#ifndef QN_EMU_H
#define QN_EMU_H
#include "architecture.h"

typedef struct qn_emu qn_emu;
typedef struct qn_emu_module qn_emu_module;
typedef struct qn_emu_kernel qn_emu_kernel;
typedef struct qn_emu_report qn_emu_report;

/* ---- Device ------------------------------------------------------------------------------------------------------ */

/* Make a device of architecture `sm`; `suffix` is 'a' for sm_90a and the like, 'f' for a family, 0 for neither.
 * QN_E_DEVICE: architecture not known. Free with qn__emu_close, which takes its memory and modules with it. */
qn_status qn__emu_open(int sm, char suffix, qn_emu **out);
/* The same from text: "sm_90a" or "emu:sm_90a". */
qn_status qn__emu_open_name(const char *name, qn_emu **out);
void qn__emu_close(qn_emu *e);
const qn_architecture *qn__emu_limits_of(const qn_emu *e);

/* ---- Memory ------------------------------------------------------------------------------------------------------ */

/* Allocate `bytes` > 0 of device memory, aligned to 256, not initialised: a kernel that reads a byte before something
 * wrote it is reported. Guard zones lie on both sides. Never a host pointer. QN_E_NOMEM when the space is used up. */
qn_status qn__emu_alloc(qn_emu *e, uint64_t bytes, uint64_t *address);
/* Free what qn__emu_alloc returned; 0 is accepted. QN_E_ARG: not the start of an allocation. */
qn_status qn__emu_free(qn_emu *e, uint64_t address);
/* Copies and fills; the range must lie in one allocation (QN_E_ARG). qn__emu_fill repeats `width` (1, 2, 4) bytes. */
qn_status qn__emu_write(qn_emu *e, uint64_t to, const void *from, uint64_t bytes);
qn_status qn__emu_read(qn_emu *e, void *to, uint64_t from, uint64_t bytes);
qn_status qn__emu_fill(qn_emu *e, uint64_t to, uint32_t value, int width, uint64_t count);

/* ---- Modules ----------------------------------------------------------------------------------------------------- */

/* Parse and decode PTX text (copied). QN_E_COMPILE: malformed or unknown PTX, or a .target this device cannot run; the
 * text names the line. */
qn_status qn__emu_module_load(qn_emu *e, const char *ptx, qn_emu_module **out);
void qn__emu_module_free(qn_emu_module *m);

typedef struct qn_emu_param {
  uint32_t offset, size, align;
} qn_emu_param;

struct qn_emu_kernel {
  const char *name;
  const qn_emu_param *params; /* in order */
  int nparams;
  uint32_t param_bytes;
  uint32_t static_shared; /* bytes */
  uint32_t max_threads;   /* product of .maxntid, or 0 */
  uint32_t block[3];      /* .reqntid, or 0 */
  uint32_t cluster[3];    /* .reqnctapercluster, or 0 */
  uint32_t min_blocks;    /* .minnctapersm, or 0 */
  uint32_t registers;     /* .maxnreg, or 0 */
  int line;               /* of its .entry */
};

/* The kernel that is called `wanted`; NULL: the only one. The module owns it. QN_E_ARG, listing the names there are. */
qn_status qn__emu_kernel_find(qn_emu_module *m, const char *wanted, const qn_emu_kernel **out);
int qn__emu_kernel_count(const qn_emu_module *m);
const qn_emu_kernel *qn__emu_kernel_at(const qn_emu_module *m, int i);

/* ---- Tensor maps ------------------------------------------------------------------------------------------------- */

/* Does what cuTensorMapEncodeTiled does, with the driver's own enum values, into an encoding of our own. `map`: 128
 * bytes, aligned to 64. dims, box, steps: rank numbers; strides: rank - 1 byte strides. QN_E_ARG for what the driver
 * refuses (rank, alignment, box over 256, inner box over the swizzle span) and for interleaved layouts. */
qn_status qn__emu_tensor_encode(void *map, int kind, uint32_t rank, uint64_t address, const uint64_t *dims,
                                const uint64_t *strides, const uint32_t *box, const uint32_t *steps, int interleave,
                                int swizzle, int promotion, int fill);

/* ---- Launch ------------------------------------------------------------------------------------------------------ */

typedef enum qn_emu_mode { QN_EMU_LATE, QN_EMU_RANDOM } qn_emu_mode;

/* Checks that may be left out. Bounds are always checked. */
enum {
  QN_EMU_INIT = 1,  /* every byte read has been written */
  QN_EMU_RACE = 2,  /* shared memory: accesses of different warps are ordered */
  QN_EMU_PROXY = 4, /* shared memory: a proxy fence between generic writes and async accesses */
  QN_EMU_COUNT = 8, /* sectors and bank conflicts (instruction counts are always kept) */
  QN_EMU_CHECKS = 15
};

enum { QN_EMU_CONSTANTS = 2 };

typedef struct qn_emu_launch {
  uint32_t grid[3], block[3], cluster[3]; /* a cluster of 0s: what the kernel requires, else 1 */
  uint32_t dynamic_shared;
  const void *const *params; /* one pointer per parameter, as cuLaunchKernel takes them */
  int nparams;
  /* The grid may begin before the one in front of it has ended (programmatic dependent launch): until
   * griddepcontrol.wait it may read the allocations that hold `constant`, which no kernel writes, and nothing else. */
  int programmatic;
  uint64_t constant[QN_EMU_CONSTANTS]; /* 0: none */
  /* How to run it. All zero: late, every check, one thread per core, 2^33 warp instructions. */
  qn_emu_mode mode;
  uint64_t seed;
  unsigned without; /* QN_EMU_ checks to leave out */
  int threads;
  uint64_t budget;    /* warp instructions of the whole launch; the excess is a finding */
  int findings_limit; /* stop after so many; 0: 1000 */
} qn_emu_launch;

/* Run a grid to its end and make a report (free it with qn__emu_report_free). QN_E_ARG, QN_E_LIMIT: the launch itself
 * is wrong (the driver would refuse it). */
qn_status qn__emu_run(const qn_emu_kernel *k, const qn_emu_launch *how, qn_emu_report **out);

/* ---- Report ------------------------------------------------------------------------------------------------------ */

#define QN_EMU_FINDING_MAP(X)                                                                                          \
  X(BOUNDS, "bounds", "access outside its allocation")                                                                 \
  X(ALIGN, "align", "misaligned address")                                                                              \
  X(UNINIT, "uninit", "read of a byte that nothing wrote")                                                             \
  X(WAIT, "wait", "access to data of an async operation that was not waited for")                                      \
  X(RACE, "race", "accesses by different warps with no order between them")                                            \
  X(PROXY, "proxy", "no proxy fence between a generic write and an async access")                                      \
  X(DIVERGE, "diverge", "divergent execution of an instruction that all lanes must execute")                           \
  X(MASK, "mask", "member mask does not fit the executing lanes")                                                      \
  X(BARRIER, "barrier", "misuse of a barrier")                                                                         \
  X(MBARRIER, "mbarrier", "misuse of an mbarrier")                                                                     \
  X(ASYNC, "async", "misuse of an async operation")                                                                    \
  X(WGMMA, "wgmma", "misuse of wgmma")                                                                                 \
  X(GRID, "grid", "access before griddepcontrol.wait")                                                                 \
  X(READONLY, "readonly", "write to read-only memory")                                                                 \
  X(DEADLOCK, "deadlock", "every warp waits")                                                                          \
  X(BUDGET, "budget", "instruction budget used up (livelock?)")                                                        \
  X(EXIT, "exit", "kernel ended with async work outstanding")                                                          \
  X(TRAP, "trap", "trap executed")                                                                                     \
  X(VALUE, "value", "operand value out of range")

typedef enum qn_emu_finding_kind {
#define QN_X(name, word, text) QN_EMU_F_##name,
  QN_EMU_FINDING_MAP(QN_X)
#undef QN_X
      QN_EMU_FINDING_KINDS
} qn_emu_finding_kind;

/* Word ("race") and sentence of a kind. Static strings. */
const char *qn__emu_finding_word(qn_emu_finding_kind k);
const char *qn__emu_finding_text(qn_emu_finding_kind k);

/* What one instruction did wrong: the first time in detail, the rest counted. */
typedef struct qn_emu_finding {
  qn_emu_finding_kind kind;
  uint64_t count;
  char kernel[64];
  uint32_t cta[3];
  int warp, lane; /* lane -1: the warp as a whole */
  int line;       /* of the PTX text, from 1; 0: no single instruction */
  char insn[96];  /* that line's text */
  char file[128]; /* source file and line through .loc; "" when there is none */
  int file_line;
  char text[240]; /* what happened, with values */
} qn_emu_finding;

#define QN_EMU_KIND_MAP(X)                                                                                             \
  X(INT, "int")                                                                                                        \
  X(FLOAT, "float")                                                                                                    \
  X(HALF, "half")                                                                                                      \
  X(CONVERT, "convert")                                                                                                \
  X(MOVE, "move")                                                                                                      \
  X(COMPARE, "compare")                                                                                                \
  X(BRANCH, "branch")                                                                                                  \
  X(GLOBAL, "global")                                                                                                  \
  X(SHARED, "shared")                                                                                                  \
  X(PARAM, "param")                                                                                                    \
  X(LOCAL, "local")                                                                                                    \
  X(ATOMIC, "atomic")                                                                                                  \
  X(WARP, "warp")                                                                                                      \
  X(MATRIX, "matrix")                                                                                                  \
  X(MMA, "mma")                                                                                                        \
  X(WGMMA, "wgmma")                                                                                                    \
  X(BARRIER, "barrier")                                                                                                \
  X(ASYNC, "async")                                                                                                    \
  X(OTHER, "other")

typedef enum qn_emu_kind {
#define QN_X(name, word) QN_EMU_K_##name,
  QN_EMU_KIND_MAP(QN_X)
#undef QN_X
      QN_EMU_KINDS
} qn_emu_kind;

/* Word ("global") of an instruction kind. Static string. */
const char *qn__emu_kind_word(qn_emu_kind k);

/* What the launch did, over all CTAs. A request is one warp's execution of one memory instruction. Sectors are 32
 * bytes, shared passes the times the 32 banks are walked, both as ncu defines them; `ideal` is the least that the bytes
 * touched could need. In flight are bytes from global memory between their request and, of a copy, its wait, of a load
 * the first use of the register. */
typedef struct qn_emu_counters {
  uint64_t warp_insns, by_kind[QN_EMU_KINDS];
  uint64_t flight_bytes;                                  /* the most that a CTA had in flight at once */
  uint64_t global_requests, global_sectors, global_ideal; /* loads, stores, atomics, cp.async sources */
  uint64_t global_load_bytes, global_store_bytes, bulk_bytes;
  uint64_t shared_requests, shared_passes, shared_ideal;
  uint64_t mma, mma_flops, wgmma, wgmma_flops; /* flops: 2 m n k */
  uint64_t wgmma_bytes;                        /* of operands in shared memory: B once for a warpgroup */
  uint64_t barriers, ctas;
} qn_emu_counters;

/* What was read of one allocation, by loads, copies and TMA: bytes, and bytes without those that several lanes of a
 * request or CTAs of a multicast share. So asked / distinct is how widely requests are broadcast, and distinct / size
 * how often the allocation is read. */
typedef struct qn_emu_traffic {
  uint64_t base, size, asked, distinct;
} qn_emu_traffic;

struct qn_emu_report {
  uint64_t findings; /* all of them, repeats included */
  int count;         /* distinct ones, listed in order of kernel position */
  qn_emu_finding *list;
  qn_emu_counters counters;
  qn_emu_traffic *traffic; /* of the allocations that were read, by address */
  int ntraffic;
  double seconds, cpu_seconds; /* of the interpreter, never of the kernel: elapsed, and processor time of its workers */
  int complete;                /* 0: stopped early (deadlock, budget, too many findings) */
};

void qn__emu_report_free(qn_emu_report *r);
/* One finding as one line of text, cut at `size`; returns buffer. */
const char *qn__emu_finding_print(const qn_emu_finding *f, char *buffer, size_t size);
#endif
