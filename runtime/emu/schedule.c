/* schedule.c - a cluster at work: its warps run until they wait.
 *
 * A warp is a list of fragments (pc, lanes). The one with the lowest pc runs until it meets, branches or waits, which
 * brings lanes together where the compiler laid the join. Lanes that must act together wait for each other by the
 * instruction's own member mask, so that convergence never depends on the layout.
 *
 * A cluster runs on one worker. When every fragment of it waits, one async operation completes; when there is none,
 * mbarrier waits time out (as the ISA lets try_wait do); when that changes nothing, it is a deadlock. A kernel that
 * waits for other CTAs through global memory gets them: a cluster that uses up many slices makes room for another.
 * Random mode: warps, slices and completions are drawn from the seed. Source: PTX ISA, "bar", "barrier.cluster",
 * "Independent thread scheduling" of the CUDA programming guide. */
#include "checks.h"

enum { SLICE = 20000, ROTATE = 64, STUCK = 4 };

uint64_t qn__emu_random(worker *k) {
  uint64_t z = k->random += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */
  z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
  return z ^ z >> 31;
}

/* ---- Fragments --------------------------------------------------------------------------------------------------- */

static void frag_remove(warp *w, int k) {
  memmove(&w->frags[k], &w->frags[k + 1], sizeof(frag) * (size_t)(--w->nfrags - k));
}

/* Add lanes at pc; they join lanes that stand there in the same state. Sorted by pc. */
static frag *frag_add(warp *w, uint32_t pc, uint32_t mask, frag_state state) {
  int k = 0;
  for (; k < w->nfrags && w->frags[k].pc <= pc; k++)
    if (w->frags[k].pc == pc && w->frags[k].state == state && (state == FR_RUN || state == FR_SYNC)) {
      w->frags[k].mask |= mask;
      return &w->frags[k];
    }
  memmove(&w->frags[k + 1], &w->frags[k], sizeof(frag) * (size_t)(w->nfrags++ - k));
  w->frags[k] = (frag){.pc = pc, .mask = mask, .state = (uint8_t)state};
  return &w->frags[k];
}

/* Release fragments of a state (and barrier id), which then join those that run at their pc. */
static void wake(warp *w, frag_state state, int id) {
  frag old[LANES];
  int n = w->nfrags;
  memcpy(old, w->frags, sizeof old);
  w->nfrags = 0;
  for (int k = 0; k < n; k++) {
    bool hit = old[k].state == state && (id < 0 || old[k].id == id);
    frag *f = frag_add(w, old[k].pc, old[k].mask, hit ? FR_RUN : (frag_state)old[k].state);
    if (!hit && f->mask == old[k].mask) *f = old[k];
  }
}

/* ---- Barriers ---------------------------------------------------------------------------------------------------- */

static uint32_t live_threads(const cta *c) {
  uint32_t n = 0;
  for (uint32_t k = 0; k < c->nwarps; k++) n += (uint32_t)__builtin_popcount(c->warps[k].live);
  return n;
}

/* Release barrier `id` when enough threads have arrived; exited threads need not. */
static void bar_try(cta *c, int id) {
  bar *b = &c->bars[id];
  uint32_t need = b->need ? b->need : live_threads(c);
  if (!b->arrived || b->arrived < need) return;
  for (uint32_t k = 0; k < c->nwarps; k++) {
    warp *w = &c->warps[k];
    bool waits = false;
    for (int f = 0; f < w->nfrags; f++) {
      if (w->frags[f].state != FR_BARRIER || w->frags[f].id != id) continue;
      waits = true;
      const insn *i = &c->worker->run->module->code[w->frags[f].pc - 1];
      uint32_t r = i->sub == 2 ? b->reduce_and : b->reduce_or ? 1 : 0, mask = w->frags[f].mask;
      if (i->sub == 1) EACH_SET(l, mask) ROW(uint32_t, i->d)[l] = b->reduce_count;
      if (i->sub > 1) STORE_BITS(ROW(uint32_t, i->d), r ? ALL : 0, mask);
    }
    if (waits) qn__emu_acquire(w, b->vc, b->pvc), wake(w, FR_BARRIER, id);
  }
  b->arrived = b->need = b->reduce_or = b->reduce_count = 0, b->reduce_and = 1;
  c->cluster->events++;
  c->worker->counters.barriers++;
}

/* PTX ISA, "bar, barrier". insn: a: barrier (row), b: threads (row or 0), store: arrive only, sub: red 1 popc 2 and 3
 * or, c: its predicate, e: 1 aligned. */
static bool run_barrier(warp *w, const insn *i, uint32_t pc, uint32_t mask) {
  cta *c = w->cta;
  uint32_t first = (uint32_t)__builtin_ctz(mask), id = ROW(uint32_t, i->a)[first];
  uint32_t need = i->b ? ROW(uint32_t, i->b)[first] : 0;
  if (id >= BARS || need % LANES || need > c->worker->run->nwarps * LANES) {
    qn__emu_find(w, -1, QN_EMU_F_BARRIER, "barrier %u of %u threads", id, need);
    return true;
  }
  if (i->flags && mask != w->live)
    qn__emu_find(w, -1, QN_EMU_F_DIVERGE, "lanes 0x%08x of the warp's 0x%08x execute an aligned barrier", mask,
                 w->live);
  bar *b = &c->bars[id];
  if (b->arrived && b->need != need)
    qn__emu_find(w, -1, QN_EMU_F_BARRIER, "barrier %u with %u threads, where others gave %u", id, need, b->need);
  b->need = need;
  if (i->sub) {
    uint32_t p = *ROW(uint32_t, i->c) & mask;
    b->reduce_count += (uint32_t)__builtin_popcount(p), b->reduce_or |= p != 0, b->reduce_and &= p == mask;
  }
  qn__emu_release(w, b->vc, b->pvc);
  b->arrived +=
      need ? (uint32_t)(mask == w->live ? LANES : __builtin_popcount(mask)) : (uint32_t)__builtin_popcount(mask);
  if (!i->store) frag_add(w, pc + 1, mask, FR_BARRIER)->id = (uint8_t)id;
  bar_try(c, (int)id);
  return i->store;
}

/* PTX ISA, "barrier.cluster": arrive (insn.store) and wait. */
static void cluster_try(cluster *c) {
  uint32_t live = 0;
  for (uint32_t r = 0; r < c->nctas; r++) live += live_threads(&c->ctas[r]);
  if (!c->arrived || c->arrived < live) return;
  c->arrived = 0, c->cluster_phase++, c->events++;
  for (uint32_t r = 0; r < c->nctas; r++)
    for (uint32_t k = 0; k < c->ctas[r].nwarps; k++) {
      warp *w = &c->ctas[r].warps[k];
      w->cluster_mask = 0;
      for (int f = 0; f < w->nfrags; f++)
        if (w->frags[f].state == FR_CLUSTER) {
          qn__emu_acquire(w, c->vc, c->pvc);
          break;
        }
      wake(w, FR_CLUSTER, -1);
    }
}

static bool run_cluster(warp *w, const insn *i, uint32_t pc, uint32_t mask) {
  cluster *c = w->cta->cluster;
  if (i->store) {
    if (w->cluster_mask & mask) qn__emu_find(w, -1, QN_EMU_F_BARRIER, "arrives twice at barrier.cluster");
    w->cluster_mask |= mask, w->cluster_arrived = true;
    qn__emu_release(w, c->vc, c->pvc);
    c->arrived += (uint32_t)__builtin_popcount(mask);
    cluster_try(c);
    return true;
  }
  if (!w->cluster_arrived) qn__emu_find(w, -1, QN_EMU_F_BARRIER, "barrier.cluster.wait without arrive");
  w->cluster_arrived = false;
  if (!(w->cluster_mask & mask)) { /* the phase is complete */
    qn__emu_acquire(w, c->vc, c->pvc);
    return true;
  }
  frag_add(w, pc + 1, mask, FR_CLUSTER);
  return false;
}

/* ---- One warp ---------------------------------------------------------------------------------------------------- */

static void lanes_exit(warp *w, uint32_t mask) {
  w->live &= ~mask;
  wake(w, FR_SYNC, -1); /* those who wait for these lanes look again */
  for (int id = 0; id < BARS; id++) bar_try(w->cta, id);
  if (!w->live) w->cta->live_warps--;
  w->cta->cluster->events++;
  cluster_try(w->cta->cluster);
}

static void run_call(warp *w, const insn *i, uint32_t pc, uint32_t mask) {
  const call *c = i->extra;
  uint32_t size = w->worker->run->module->local_bytes;
  EACH_SET(l, mask) {
    uint8_t *local = w->local + (size_t)size * l;
    for (uint32_t k = 0; k < c->f->nargs; k++)
      memmove(local + c->f->args[k].local, local + c->args[k], c->f->args[k].size);
    ROW(uint32_t, i->a)[l] = pc + 1;
  }
}

/* Lanes return to where they came from; results go into the caller's variables. */
static void run_return(warp *w, const insn *i, uint32_t mask) {
  const run *r = w->worker->run;
  while (mask) {
    uint32_t to = ROW(uint32_t, i->a)[__builtin_ctz(mask)], same = 0;
    EACH_SET(l, mask) same |= (uint32_t)(ROW(uint32_t, i->a)[l] == to) << l;
    const call *c = r->module->code[to - 1].extra;
    EACH_SET(k, same) {
      uint8_t *local = w->local + (size_t)r->module->local_bytes * k;
      for (uint32_t n = 0; n < c->f->nrets; n++)
        memmove(local + c->rets[n], local + c->f->rets[n].local, c->f->rets[n].size);
    }
    frag_add(w, to, same, FR_RUN);
    mask &= ~same;
  }
}

static void run_table(warp *w, const insn *i, uint32_t mask) {
  while (mask) {
    uint32_t index = ROW(uint32_t, i->a)[__builtin_ctz(mask)], same = 0;
    EACH_SET(l, mask) same |= (uint32_t)(ROW(uint32_t, i->a)[l] == index) << l;
    if (index < i->nregs) frag_add(w, i->regs[index], same, FR_RUN);
    else {
      qn__emu_find(w, -1, QN_EMU_F_VALUE, "brx.idx with index %u of %u", index, i->nregs);
      lanes_exit(w, same);
    }
    mask &= ~same;
  }
}

/* The lanes an instruction needs together: its member mask, or the warp. */
static uint32_t members(warp *w, const insn *i, uint32_t mask) {
  if (!i->member) return w->live;
  uint32_t m = ROW(uint32_t, i->member)[__builtin_ctz(mask)];
  if ((m & mask) != mask)
    qn__emu_find(w, __builtin_ctz(mask & ~m), QN_EMU_F_MASK, "lane is not in its member mask 0x%08x", m);
  return m & w->live;
}

static uint32_t next_stop(const warp *w) {
  uint32_t stop = ALL;
  for (int k = 0; k < w->nfrags; k++)
    if (w->frags[k].state == FR_RUN && w->frags[k].pc < stop) stop = w->frags[k].pc;
  return stop;
}

/* Bring the lanes that `i` needs together at pc; lanes that its guard leaves out go on. False: not all are here yet,
 * the fragment waits. True: *mask has them all. */
static bool converge(warp *w, const insn *i, uint32_t pc, uint32_t *mask, uint32_t m, uint32_t *stop) {
  uint32_t need = i->control == C_BARRIER ? w->live : members(w, i, m);
  if (m != *mask && !i->member)
    qn__emu_find(w, -1, QN_EMU_F_DIVERGE, "its guard is true for lanes 0x%08x of 0x%08x only", m, *mask);
  if (m != *mask) frag_add(w, pc + 1, *mask & ~m, FR_RUN);
  for (int f = 0; need & ~m && f < w->nfrags; f++)
    if (w->frags[f].pc == pc && w->frags[f].state == FR_SYNC) {
      m |= w->frags[f].mask;
      frag_remove(w, f--);
    }
  *mask = m;
  *stop = next_stop(w);
  if (!(need & ~m)) return true;
  frag_add(w, pc, m, FR_SYNC);
  return false;
}

static int pick(warp *w) {
  int found = -1;
  for (int k = 0; k < w->nfrags; k++)
    if (w->frags[k].state == FR_RUN) {
      found = k;
      if (!w->turn) break;
    }
  w->turn = false;
  return found;
}

/* Run one fragment until it ends; false when it used up `left`. */
static bool run_fragment(warp *w, uint32_t pc, uint32_t mask, int64_t *left) {
  worker *k = w->worker;
  const insn *code = k->run->module->code;
  uint32_t stop = next_stop(w);
  for (;; pc++) {
    if (pc == stop) return frag_add(w, pc, mask, FR_RUN), true;
    if (--*left < 0) return frag_add(w, pc, mask, FR_RUN), false;
    const insn *i = &code[pc];
    uint32_t m = mask;
    if (i->guard >= 0) m &= *ROW(uint32_t, i->guard) ^ (i->negate ? ALL : 0);
    k->executed[pc]++, k->pc = pc;
    switch (i->control) {
    case C_OP:
      if (m) i->run(w, i, m);
      continue;
    case C_SYNC:
      if (!m) continue;
      if (!converge(w, i, pc, &mask, m, &stop)) return true;
      i->run(w, i, mask);
      continue;
    case C_BRANCH:
      if (m == mask) {
        if (i->target > stop) return frag_add(w, i->target, mask, FR_RUN), true;
        pc = i->target - 1;
        continue;
      }
      if (!m) continue;
      frag_add(w, pc + 1, mask & ~m, FR_RUN);
      frag_add(w, i->target, m, FR_RUN);
      return true;
    case C_TABLE:
      if (mask & ~m) frag_add(w, pc + 1, mask & ~m, FR_RUN);
      if (m) run_table(w, i, m);
      return true;
    case C_CALL:
      if (!m) continue;
      run_call(w, i, pc, m);
      if (mask & ~m) frag_add(w, pc + 1, mask & ~m, FR_RUN);
      frag_add(w, i->target, m, FR_RUN);
      return true;
    case C_RETURN:
      if (mask & ~m) frag_add(w, pc + 1, mask & ~m, FR_RUN);
      if (m) run_return(w, i, m);
      return true;
    case C_EXIT:
      if (mask & ~m) frag_add(w, pc + 1, mask & ~m, FR_RUN);
      if (m) lanes_exit(w, m);
      return true;
    case C_BARRIER:
      if (!m) continue;
      if (i->flags && !converge(w, i, pc, &mask, m, &stop)) return true;
      if (mask & ~m && !i->flags) frag_add(w, pc + 1, mask & ~m, FR_RUN), mask = m, stop = pc + 1;
      if (!run_barrier(w, i, pc, mask)) return true;
      continue;
    case C_CLUSTER:
      if (!m) continue;
      if (mask & ~m) frag_add(w, pc + 1, mask & ~m, FR_RUN), mask = m, stop = pc + 1;
      if (!run_cluster(w, i, pc, m)) return true;
      continue;
    case C_WAIT:
      if (!m) continue;
      w->waiting = 0;
      i->run(w, i, m);
      if (!w->waiting) continue;
      frag_add(w, pc + 1, mask, FR_MBARRIER)->seen = w->cta->cluster->events;
      return true;
    default: /* C_YIELD */
      if (i->run && m) i->run(w, i, m);
      frag_add(w, pc + 1, mask, FR_RUN);
      w->yielded = true;
      return true;
    }
  }
}

/* Run a warp for at most `left` instructions; returns how many it ran. */
static int64_t run_warp(warp *w, int64_t left) {
  int64_t before = left;
  w->yielded = false;
  for (int f; left > 0 && !w->yielded && (f = pick(w)) >= 0;) {
    uint32_t pc = w->frags[f].pc, mask = w->frags[f].mask;
    frag_remove(w, f);
    if (!run_fragment(w, pc, mask, &left)) {
      w->turn = true;
      break;
    }
  }
  return before - (left < 0 ? 0 : left);
}

/* ---- One cluster ------------------------------------------------------------------------------------------------- */

/* Waits whose barrier may have moved on are tried again: they run at their wait once more. */
static void retry_waits(cluster *c, bool all) {
  for (uint32_t r = 0; r < c->nctas; r++)
    for (uint32_t k = 0; k < c->ctas[r].nwarps; k++) {
      warp *w = &c->ctas[r].warps[k];
      for (int f = 0; f < w->nfrags; f++) {
        frag old = w->frags[f];
        if (old.state != FR_MBARRIER || (!all && old.seen == c->events)) continue;
        frag_remove(w, f);
        /* back to the wait, or (a time-out) past it with the predicate it left: false */
        frag_add(w, all ? old.pc : old.pc - 1, old.mask, FR_RUN);
        f = -1;
      }
    }
}

static void report_stuck(cluster *c) {
  static const char *const what[] = {[FR_BARRIER] = "waits at a barrier",
                                     [FR_SYNC] = "waits for lanes of its warp",
                                     [FR_MBARRIER] = "waits for an mbarrier",
                                     [FR_CLUSTER] = "waits at barrier.cluster"};
  for (uint32_t r = 0; r < c->nctas; r++)
    for (uint32_t k = 0; k < c->ctas[r].nwarps; k++) {
      warp *w = &c->ctas[r].warps[k];
      for (int f = 0; f < w->nfrags; f++) {
        const frag *g = &w->frags[f];
        w->worker->pc = g->state == FR_SYNC ? g->pc : g->pc - 1;
        if (g->state == FR_SYNC)
          qn__emu_find(w, -1, QN_EMU_F_DIVERGE, "lanes 0x%08x stand here, the others of the warp's 0x%08x do not come",
                       g->mask, w->live);
        else qn__emu_find(w, -1, QN_EMU_F_DEADLOCK, "lanes 0x%08x %s forever", g->mask, what[g->state]);
      }
    }
}

static void draw_budget(worker *k) {
  uint64_t have = atomic_load(&k->run->budget), take;
  do take = have < SLICE ? have : SLICE;
  while (!atomic_compare_exchange_weak(&k->run->budget, &have, have - take));
  k->budget = take;
}

/* One round over the warps; returns the instructions executed. */
static int64_t round_of_warps(cluster *c) {
  worker *k = c->worker;
  uint32_t total = c->nctas * c->ctas[0].nwarps;
  bool random = k->run->how.mode == QN_EMU_RANDOM;
  uint64_t shift = random ? qn__emu_random(k) : 0;
  int64_t done = 0;
  for (uint32_t n = 0; n < total && !atomic_load_explicit(&k->run->stop, memory_order_relaxed); n++) {
    uint32_t at = (uint32_t)((n + shift % total) % total);
    warp *w = &c->ctas[at / c->ctas[0].nwarps].warps[at % c->ctas[0].nwarps];
    if (!w->nfrags) continue;
    int64_t slice = random ? 1 + (int64_t)(qn__emu_random(k) % 400) : SLICE;
    if (!k->budget) draw_budget(k);
    if (!k->budget) {
      qn__emu_find(w, -1, QN_EMU_F_BUDGET, "%llu warp instructions are used up",
                   (unsigned long long)(k->run->how.budget ? k->run->how.budget : UINT64_C(1) << 33));
      atomic_store(&k->run->stop, true);
      break;
    }
    if ((uint64_t)slice > k->budget) slice = (int64_t)k->budget;
    int64_t ran = run_warp(w, slice);
    k->budget -= (uint64_t)ran, done += ran;
    if (random && qn__emu_random(k) % 8 == 0) qn__emu_complete_one(c);
  }
  return done;
}

static bool any_runs(const cluster *c) {
  for (uint32_t r = 0; r < c->nctas; r++)
    for (uint32_t k = 0; k < c->ctas[r].nwarps; k++)
      for (int f = 0; f < c->ctas[r].warps[k].nfrags; f++)
        if (c->ctas[r].warps[k].frags[f].state == FR_RUN) return true;
  return false;
}

/* A slice of a cluster; true when it has ended. */
bool qn__emu_cluster_slice(cluster *c) {
  for (int rounds = 0; rounds < ROTATE; rounds++) {
    if (atomic_load_explicit(&c->worker->run->stop, memory_order_relaxed)) return true;
    uint64_t events = c->events;
    uint32_t live = 0;
    int64_t ran = round_of_warps(c);
    for (uint32_t r = 0; r < c->nctas; r++) live += c->ctas[r].live_warps;
    if (!live) return true;
    retry_waits(c, false);
    if (c->events != events) {
      c->stuck = c->idle = 0;
      continue;
    }
    if (ran && any_runs(c) && (c->stuck || ++c->idle < 2)) continue; /* it may be spinning on what is in flight */
    c->idle = 0;
    if (qn__emu_complete_one(c)) {
      retry_waits(c, false);
      continue;
    }
    if (any_runs(c)) continue;
    if (++c->stuck > STUCK) {
      report_stuck(c);
      atomic_store(&c->worker->run->stop, true);
      return true;
    }
    retry_waits(c, true);
  }
  return false;
}

void qn__emu_warp_start(warp *w, uint32_t pc) {
  w->nfrags = 0;
  frag_add(w, pc, w->live, FR_RUN);
}
