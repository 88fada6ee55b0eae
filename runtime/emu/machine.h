/* machine.h - a launch at work: warps of CTAs of clusters, and the threads that run them.
 *
 *     lex.c, symbol.c, declare.c, instruct.c, parse.c: text -> declarations, operands; module.c: what is kept of them
 *     decode.c   opcode + operands -> insn, by tables of rules (rule.h)
 *     launch.c   launches and workers                    cluster.c  clusters made, started, ended
 *     schedule.c warps of a cluster in turns             step.c     a warp's fragments; meet.c: barriers
 *     op_*.c     rules of arithmetic                     memory.c   device memory; access.c: ld, st, atom and spaces
 *     warp.c     shfl, vote, match...                    matrix.c   ldmatrix, stmatrix, mma; wgmma.c: wgmma
 *     watch.c    registers that wgmma and loads have in flight
 *     async.c    jobs, groups, mbarriers                 copy.c     cp.async; bulk.c: bulk copies, TMA
 *     reach.h    a warp's request as host pointers       shadow.h   accesses that are plainly right
 *     checks.c   vector clocks, shadows, findings        counters.c sectors and passes */
#ifndef QN_EMU_MACHINE_H
#define QN_EMU_MACHINE_H
#include "job.h"
#include "module.h"
#include <pthread.h>
#include <stdatomic.h>

typedef enum frag_state { FR_RUN, FR_BARRIER, FR_SYNC, FR_MBARRIER, FR_REGISTERS, FR_CLUSTER } frag_state;

typedef struct frag {
  uint32_t pc, mask;
  uint8_t state;
  uint8_t id;    /* FR_BARRIER: of the barrier */
  uint64_t seen; /* FR_MBARRIER, FR_REGISTERS: cluster.events when it began to wait */
} frag;

typedef struct watched watched; /* watch.h */

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
  uint32_t *vc, *pvc, safe, near; /* the least that it knows of all others, of the warps of its CTA (checks.c) */
  groups copies, stores, wgmmas;
  watched *watched; /* registers, by number */
  bool cluster_arrived;
  bool early;         /* the grid in front may still run (griddepcontrol.wait) */
  uint32_t registers; /* of a thread, after setmaxnreg */
  uint32_t cluster_mask;
  uint8_t *local;
};

#define BY_ATOMICS UINT32_MAX /* later than any time */

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
  bool reached;     /* warps of another CTA have used its shared memory */
  warp *warps;
  uint32_t nwarps, live_warps;
  uint32_t pool;   /* registers that setmaxnreg gave back */
  uint64_t flying; /* bytes in flight */
  bar bars[BARS];
  mbarrier mbarriers[MBARRIERS];
  uint32_t nmbarriers;
};

struct cluster {
  cluster *next;
  const function *f;
  worker *worker;
  cta *ctas;
  uint32_t nctas, nagents, agents_used;
  uint32_t index[3];
  uint32_t now;     /* time: advances with every release */
  uint32_t *clocks; /* per agent: its current time */
  uint32_t *waited; /* per agent: when it had waited for the grid in front; 0: not yet */
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
  qn_emu_traffic *traffic; /* by number of the block */
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
  uint32_t registers; /* of a thread when the kernel begins; 0: not known */
  uint64_t nclusters;
  uint8_t *params;
  atomic_uint_fast64_t next_cluster, budget;
  atomic_bool stop;
  pthread_mutex_t lock; /* of report */
  qn_emu_report *report;
  int limit;
};

/* Where the operand of an instruction points in a lane (qn__emu_address). */
static inline uint64_t lane_address(const warp *w, uint32_t row, int64_t offset, uint32_t lane) {
  return (row & 1 ? ROW(uint32_t, row & ~1u)[lane] : ROW(uint64_t, row)[lane]) + (uint64_t)offset;
}

static inline bool checking(const warp *w, unsigned what) { return w->worker->run->checks & what; }
static inline bool late(const warp *w) { return w->worker->run->how.mode == QN_EMU_LATE; }

/* The launch ends with QN_E_NOMEM. */
static inline void no_memory(worker *k) {
  k->status = QN_E_NOMEM;
  atomic_store(&k->run->stop, true);
}

/* splitmix64 of the worker's own state */
static inline uint64_t random_bits(worker *k) {
  uint64_t z = k->random += UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
  return z ^ z >> 31;
}
#endif
