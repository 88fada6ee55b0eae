/* async.c - work that goes on beside the program: jobs and their groups, mbarriers.
 *
 * A job is recorded when it is issued and finished when the program may rely on it: at the wait that covers it (groups)
 * or when a waiter of its mbarrier would otherwise be stuck (bulk). The bytes it will write are marked pending, so that
 * touching them earlier is found, whatever the values. Source: PTX ISA, "Data Movement and Conversion: Asynchronous
 * copy", "Parallel Synchronization: mbarrier". */
#include "async.h"
#include "checks.h"
#include "fail.h"
#include "rule.h"
#include "shadow.h"
#include <stdlib.h>

typedef uint32_t u32;
typedef uint64_t u64;

/* ---- Jobs and groups --------------------------------------------------------------------------------------------- */

job *qn__emu_job(warp *w, const insn *i, u32 lanes) {
  job *j = calloc(1, sizeof *j);
  if (j) j->warp = w, j->insn = i, j->lanes = lanes;
  else no_memory(w->worker);
  return j;
}

void qn__emu_finish(job *j, u32 lanes) {
  worker *k = j->warp->worker;
  u32 pc = k->pc;
  k->pc = (u32)(j->insn - k->run->module->code);
  j->finish(j, lanes);
  k->pc = pc;
  j->lanes &= ~lanes;
}

void qn__emu_groups_init(groups *g) { *g = (groups){0}; }

void qn__emu_groups_add(groups *g, job *j) {
  if (!g->open || !g->open_end) g->open_end = &g->open;
  *g->open_end = j;
  g->open_end = &j->next;
}

/* The open jobs of `lanes` become a group of theirs; a job that other lanes share goes on in both halves. */
void qn__emu_groups_commit(worker *k, groups *g, u32 lanes) {
  group *n = calloc(1, sizeof *n);
  if (!n) {
    no_memory(k);
    return;
  }
  n->lanes = lanes, n->next = g->newest, g->newest = n, g->count++;
  job **end = &n->jobs, *left = NULL, **left_end = &left;
  for (job *j = g->open, *next; j; j = next) {
    next = j->next, j->next = NULL;
    job ***list = j->lanes & lanes ? &end : &left_end;
    if (j->lanes & lanes && j->lanes & ~lanes) { /* split */
      job *rest = malloc(sizeof *rest);
      if (rest) {
        *rest = *j;
        rest->lanes = j->lanes & ~lanes, rest->next = NULL;
        *left_end = rest, left_end = &rest->next;
      } else no_memory(k);
      j->lanes &= lanes;
    }
    **list = j, *list = &j->next;
  }
  g->open = left, g->open_end = left ? left_end : &g->open;
}

static job *finish_list(job *list, u32 lanes) {
  job *left = NULL, **end = &left;
  for (job *j = list, *next; j; j = next) {
    next = j->next;
    if (j->lanes & lanes) qn__emu_finish(j, j->lanes & lanes);
    if (!j->lanes) {
      free(j);
      continue;
    }
    j->next = NULL, *end = j, end = &j->next;
  }
  return left;
}

/* Finish, oldest first, the groups of `lanes` beyond the newest `keep` of each lane. */
static void wait_from(groups *g, group **at, u32 keep, u32 lanes, uint8_t seen[LANES]) {
  group *x = *at;
  if (!x) return;
  u32 due = 0, mine = x->lanes & lanes;
  EACH_SET(l, mine) {
    if (seen[l] >= keep) due |= 1u << l;
    else seen[l]++;
  }
  wait_from(g, &x->next, keep, lanes, seen);
  if (!due) return;
  x->jobs = finish_list(x->jobs, due);
  x->lanes &= ~due;
  if (x->lanes) return;
  *at = x->next;
  g->count--;
  free(x);
}

void qn__emu_groups_wait(groups *g, u32 keep, u32 lanes, bool open_too) {
  uint8_t seen[LANES] = {0};
  wait_from(g, &g->newest, keep, lanes, seen);
  if (!open_too) return;
  g->open = finish_list(g->open, lanes);
  g->open_end = &g->open;
  while (*g->open_end) g->open_end = &(*g->open_end)->next;
}

void qn__emu_groups_drop(groups *g) {
  for (group *x = g->newest, *next; x; x = next) {
    next = x->next;
    for (job *j = x->jobs, *n; j; j = n) n = j->next, free(j);
    free(x);
  }
  for (job *j = g->open, *n; j; j = n) n = j->next, free(j);
  *g = (groups){0};
}

/* ---- mbarrier ---------------------------------------------------------------------------------------------------- */

static mbarrier *find_mbarrier(cta *c, u32 at) {
  for (u32 k = 0; k < c->nmbarriers; k++)
    if (c->mbarriers[k].address == at) return &c->mbarriers[k];
  return NULL;
}

mbarrier *qn__emu_mbarrier_at(warp *w, int lane, u32 address, cta **where) {
  u32 at;
  if (address & 7) {
    qn__emu_find(w, lane, QN_EMU_F_ALIGN, "mbarrier at 0x%x", address);
    return NULL;
  }
  cta *c = qn__emu_shared_at(w, lane, address, 8, &at);
  mbarrier *b = c ? find_mbarrier(c, at) : NULL;
  if (c && !b)
    qn__emu_find(w, lane, QN_EMU_F_MBARRIER, "shared offset %u was not initialised as an mbarrier", at - SHARED_BASE);
  if (b && checking(w, QN_EMU_RACE) && b->init_stamp > w->vc[b->init_agent]) {
    qn__emu_find(w, lane, QN_EMU_F_RACE, "mbarrier used with no order after its initialisation by warp %u",
                 b->init_agent % c->nwarps);
    b->init_stamp = 0;
  }
  if (where) *where = c;
  return b;
}

void qn__emu_mbarrier_change(cluster *c, mbarrier *b, u32 arrive, int64_t tx) {
  b->tx += tx;
  b->pending -= arrive;
  if (b->pending || b->tx) return;
  b->pending = b->expected, b->phase++;
  memcpy(b->done, b->vc, c->nagents * sizeof *b->vc), memcpy(b->pdone, b->pvc, c->nagents * sizeof *b->pvc);
  c->events++;
}

static void mbarrier_init(warp *w, int l, u32 address, u32 count) {
  cta *c;
  u32 at;
  cluster *cl = w->cta->cluster;
  if (address & 7) qn__emu_find(w, l, QN_EMU_F_ALIGN, "mbarrier at 0x%x", address);
  if (address & 7 || !(c = qn__emu_shared_at(w, l, address, 8, &at))) return;
  if (!count || count > 0xfffff) {
    qn__emu_find(w, l, QN_EMU_F_MBARRIER, "initialised with a count of %u", count);
    return;
  }
  mbarrier *b = find_mbarrier(c, at);
  if (b) qn__emu_find(w, l, QN_EMU_F_MBARRIER, "shared offset %u is an mbarrier already", at - SHARED_BASE);
  for (u32 k = 0; !b && k < MBARRIERS; k++)
    if (k >= c->nmbarriers || !c->mbarriers[k].address) {
      b = &c->mbarriers[k];
      if (k >= c->nmbarriers) c->nmbarriers = k + 1;
    }
  if (!b) {
    qn__emu_find(w, l, QN_EMU_F_MBARRIER, "more than %d mbarriers in a CTA", MBARRIERS);
    return;
  }
  u32 *vc = b->vc, n = cl->nagents;
  if (!vc) vc = malloc(4 * n * sizeof *vc);
  b->vc = vc;
  if (!vc) {
    no_memory(w->worker);
    return;
  }
  memset(vc, 0, 4 * n * sizeof *vc);
  u32 agent = cl->agents_used < cl->nagents ? cl->agents_used++ : cl->nagents - 1;
  *b = (mbarrier){.address = at,
                  .expected = count,
                  .pending = count,
                  .agent = agent,
                  .vc = vc,
                  .pvc = vc + n,
                  .done = vc + 2 * n,
                  .pdone = vc + 3 * n,
                  .init_stamp = w->vc[w->agent],
                  .init_agent = w->agent};
  qn__emu_touch(w, l, c, at, 8, GENERIC_WRITE);
  qn__emu_mark(c, at, 8, B_MBARRIER);
}

static void arrive(warp *w, int l, cta *c, mbarrier *b, u32 count, int64_t tx) {
  if (count > b->pending) {
    qn__emu_find(w, l, QN_EMU_F_MBARRIER, "%u arrivals where %u are pending (of %u)", count, b->pending, b->expected);
    return;
  }
  if (tx < 0 || tx > (1 << 20) - 1) qn__emu_find(w, l, QN_EMU_F_MBARRIER, "expects %lld bytes", (long long)tx);
  if (count) qn__emu_release(w, b->vc, b->pvc);
  qn__emu_mbarrier_change(c->cluster, b, count, tx);
}

/* i->sub: what to do; c: count or bytes; d: state out. */
enum { MB_INIT, MB_INVAL, MB_ARRIVE, MB_EXPECT, MB_ARRIVE_EXPECT, MB_ARRIVE_DROP };
static void mbarrier_op(warp *w, const insn *i, u32 m) {
  EACH_SET(l, m) {
    cta *c;
    u32 address = (u32)lane_address(w, i->a, i->imm, l);
    u32 value = i->c ? ROW(u32, i->c)[l] : 1;
    if (i->sub == MB_INIT) {
      mbarrier_init(w, (int)l, address, value);
      continue;
    }
    mbarrier *b = qn__emu_mbarrier_at(w, (int)l, address, &c);
    if (!b) continue;
    if (i->d) ROW(u64, i->d)[l] = b->phase;
    switch (i->sub) {
    case MB_INVAL:
      if (c->shadow) memset(c->shadow + b->address, B_UNWRITTEN, 8);
      b->address = 0;
      break;
    case MB_ARRIVE:
      arrive(w, (int)l, c, b, value, 0);
      break;
    case MB_EXPECT:
      arrive(w, (int)l, c, b, 0, value);
      break;
    case MB_ARRIVE_EXPECT:
      arrive(w, (int)l, c, b, 1, value);
      break;
    default:
      b->expected -= b->expected > 0;
      arrive(w, (int)l, c, b, 1, 0);
    }
  }
}

/* try_wait may give up at any time: it does so at first, and waits when the program comes back to it. */
static bool tried_before(warp *w) {
  u32 pc = w->worker->pc + 1, k = 0;
  while (k < QN_COUNT(w->tried) && w->tried[k] != pc) k++;
  if (k < QN_COUNT(w->tried)) return true;
  memmove(&w->tried[1], &w->tried[0], sizeof w->tried - sizeof *w->tried);
  w->tried[0] = pc;
  return false;
}
static void tried_enough(warp *w) {
  for (u32 k = 0; k < QN_COUNT(w->tried); k++)
    if (w->tried[k] == w->worker->pc + 1) w->tried[k] = 0;
}

/* test_wait and try_wait: i->sub 1: parity; store: try_wait (waits). The predicate is written in any case. */
static void mbarrier_wait(warp *w, const insn *i, u32 m) {
  u32 done = 0;
  EACH_SET(l, m) {
    u32 address = (u32)lane_address(w, i->a, i->imm, l);
    mbarrier *b = qn__emu_mbarrier_at(w, (int)l, address, NULL);
    if (!b) {
      done |= 1u << l;
      continue;
    }
    u64 phase = i->sub ? ROW(u32, i->b)[l] : ROW(u64, i->b)[l];
    if (i->sub ? (b->phase & 1) == (phase & 1) : (u32)phase == b->phase) {
      w->waits_for = b;
      continue;
    }
    done |= 1u << l;
    qn__emu_acquire(w, b->done, b->pdone);
  }
  STORE_BITS(ROW(u32, i->d), done, m);
  if (done == m) {
    w->waits_for = NULL;
    tried_enough(w);
    return;
  }
  if (i->store && tried_before(w)) w->waiting = m & ~done;
  else w->yielded = true;
}

static void decode_mbarrier(parser *p, insn *i, const opcode *o, operand *ops, int n) {
  bool state = i->sub >= MB_ARRIVE && i->sub != MB_EXPECT, out = state && ops[0].kind != O_MEMORY;
  qn__emu_operands(p, o, n, out + 1, out + 2);
  if (out && ops[0].kind != O_SINK) i->d = qn__emu_dest(p, &ops[0], 8);
  qn__emu_address(p, &ops[out], &i->a, &i->imm);
  bool needs = i->sub == MB_INIT || i->sub == MB_EXPECT || i->sub == MB_ARRIVE_EXPECT;
  if (needs && n != out + 2) qn__emu_refuse(p, "%s.%s needs a count", o->token[0], o->token[1]);
  if (n == out + 2) i->c = qn__emu_source(p, &ops[out + 1], 4);
}
static void decode_mbarrier_wait(parser *p, insn *i, const opcode *o, operand *ops, int n) {
  qn__emu_operands(p, o, n, 3, 4);
  i->sub = qn__emu_has(o, "parity"), i->store = !strcmp(o->token[1], "try_wait");
  i->control = i->store ? C_WAIT : C_OP;
  i->d = qn__emu_predicate(p, &ops[0], NULL);
  qn__emu_address(p, &ops[1], &i->a, &i->imm);
  i->b = qn__emu_source(p, &ops[2], i->sub ? 4 : 8);
}

/* cp.async.mbarrier.arrive: an arrival that waits for the copies of the lane. They complete with it. */
static void cp_arrive(warp *w, const insn *i, u32 m) {
  qn__emu_groups_wait(&w->copies, 0, m, true);
  EACH_SET(l, m) {
    cta *c;
    mbarrier *b = qn__emu_mbarrier_at(w, (int)l, (u32)lane_address(w, i->a, i->imm, l), &c);
    if (b && !i->sub) b->pending++;
    if (b) arrive(w, (int)l, c, b, 1, 0);
  }
}
static void decode_cp_arrive(parser *p, insn *i, const opcode *o, operand *ops, int n) {
  qn__emu_operands(p, o, n, 1, 1);
  i->sub = qn__emu_has(o, "noinc");
  qn__emu_address(p, &ops[0], &i->a, &i->imm);
}

/* ---- Completion -------------------------------------------------------------------------------------------------- */

static bool somebody_waits(const cluster *c, const mbarrier *b) {
  for (u32 r = 0; r < c->nctas; r++)
    for (u32 k = 0; k < c->ctas[r].nwarps; k++)
      if (c->ctas[r].warps[k].waits_for == b) return true;
  return false;
}

bool qn__emu_complete_one(cluster *c) {
  job **at = &c->inflight;
  int n = 0;
  if (!*at) return false;
  for (job *j = *at; j; j = j->next) n++;
  if (c->worker->run->how.mode == QN_EMU_RANDOM)
    for (u64 k = random_bits(c->worker) % (u64)n; k; k--) at = &(*at)->next;
  else
    for (job **q = at; *q; q = &(*q)->next)
      if (somebody_waits(c, (*q)->bulk.barrier)) {
        at = q;
        break;
      }
  job *j = *at;
  *at = j->next;
  qn__emu_finish(j, j->lanes);
  free(j);
  c->events++;
  return true;
}

#define A QN_EMU_K_ASYNC
#define SH "shared|shared::cta|shared::cluster?.b64"
#define SEM "release|relaxed?.cta|cluster?"
static const rule async_rows[] = {
    {"cp.async.mbarrier.arrive.noinc?." SH, "", cp_arrive, decode_cp_arrive, A, 0, 0},
    {"mbarrier.init." SH, "", mbarrier_op, decode_mbarrier, A, 0, MB_INIT},
    {"mbarrier.inval." SH, "", mbarrier_op, decode_mbarrier, A, 0, MB_INVAL},
    {"mbarrier.arrive." SEM "." SH, "", mbarrier_op, decode_mbarrier, A, 0, MB_ARRIVE},
    {"mbarrier.arrive.noComplete." SEM "." SH, "", mbarrier_op, decode_mbarrier, A, 0, MB_ARRIVE},
    {"mbarrier.arrive_drop." SEM "." SH, "", mbarrier_op, decode_mbarrier, A, 0, MB_ARRIVE_DROP},
    {"mbarrier.expect_tx.relaxed?.cta|cluster?." SH, "", mbarrier_op, decode_mbarrier, A, 0, MB_EXPECT},
    {"mbarrier.arrive.expect_tx." SEM "." SH, "", mbarrier_op, decode_mbarrier, A, 0, MB_ARRIVE_EXPECT},
    {"mbarrier.test_wait|try_wait.parity?.acquire|relaxed?.cta|cluster?." SH, "", mbarrier_wait, decode_mbarrier_wait,
     A, 0, 0},
};
const rules qn__emu_rules_async = {async_rows, QN_COUNT(async_rows)};
