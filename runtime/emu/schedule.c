/* schedule.c - a launch: workers take clusters, warps run until they wait.
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
#include "internal.h"
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { SLICE = 20000, ROTATE = 64, RESIDENT = 256, STUCK = 4 };

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
  do take = have < 1 << 20 ? have : 1 << 20;
  while (!atomic_compare_exchange_weak(&k->run->budget, &have, have - take));
  k->budget = take;
}

/* One round over the warps; returns the instructions executed. */
static int64_t round_of_warps(cluster *c) {
  worker *k = c->worker;
  uint32_t total = c->nctas * c->ctas[0].nwarps, shift = 0;
  bool random = k->run->how.mode == QN_EMU_RANDOM;
  int64_t done = 0;
  if (random) shift = (uint32_t)(qn__emu_random(k) % total);
  for (uint32_t n = 0; n < total && !atomic_load_explicit(&k->run->stop, memory_order_relaxed); n++) {
    uint32_t at = (n + shift) % total;
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
static bool run_cluster_slice(cluster *c) {
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

/* ---- Making clusters --------------------------------------------------------------------------------------------- */

static void free_cta(cta *c, uint32_t agents) {
  free(c->data), free(c->shadow), free(c->write_stamp), free(c->read_last), free(c->write_agent), free(c->generic);
  for (uint32_t a = 0; c->read_stamp && a < agents; a++) free(c->read_stamp[a]);
  free(c->read_stamp);
  for (uint32_t k = 0; c->warps && k < c->nwarps; k++) {
    warp *w = &c->warps[k];
    qn__emu_groups_drop(&w->copies), qn__emu_groups_drop(&w->stores), qn__emu_groups_drop(&w->wgmmas);
    free(w->regs), free(w->local), free(w->vc), free(w->pvc);
  }
  free(c->warps);
  for (int k = 0; k < BARS; k++) free(c->bars[k].vc), free(c->bars[k].pvc);
  for (int k = 0; k < MBARRIERS; k++) free(c->mbarriers[k].vc);
}

static void free_cluster(cluster *c) {
  if (!c) return;
  for (job *j = c->inflight, *next; j; j = next) next = j->next, qn__emu_job_free(j);
  for (uint32_t r = 0; c->ctas && r < c->nctas; r++) free_cta(&c->ctas[r], c->nctas * c->worker->run->nwarps);
  free(c->ctas), free(c->clocks), free(c->vc), free(c->pvc), free(c);
}

static bool make_warp(worker *k, cta *c, uint32_t id) {
  const qn_emu_module *m = k->run->module;
  warp *w = &c->warps[id];
  w->cta = c, w->worker = k, w->id = id, w->agent = c->rank * c->nwarps + id;
  w->regs = aligned_alloc(64, (m->file_bytes + 63) & ~63u);
  w->local = calloc(LANES, m->local_bytes + 1);
  w->vc = calloc(c->cluster->nagents, sizeof *w->vc), w->pvc = calloc(c->cluster->nagents, sizeof *w->pvc);
  qn__emu_groups_init(&w->copies), qn__emu_groups_init(&w->stores), qn__emu_groups_init(&w->wgmmas);
  if (!w->regs || !w->local || !w->vc || !w->pvc) return false;
  memset(w->regs, 0, m->file_bytes);
  for (uint32_t n = 0; n < m->nconstants; n++) {
    const constant *x = &m->constants[n];
    uint64_t v = x->value + (x->special ? k->run->f->dynamic : 0);
    EACH_LANE(l) memcpy(w->regs + x->row + (size_t)l * x->width, &v, x->width);
  }
  return true;
}

static bool make_cta(worker *k, cluster *cl, uint32_t rank) {
  const run *r = k->run;
  cta *c = &cl->ctas[rank];
  uint32_t warps = r->nwarps, agents = r->nctas * warps, words;
  c->cluster = cl, c->worker = k, c->rank = rank, c->size = SHARED_BASE + r->shared_bytes, c->nwarps = warps;
  words = c->size / 4 + 8;
  c->data = aligned_alloc(1024, (c->size + 2047) & ~1023u);
  c->warps = calloc(warps, sizeof *c->warps);
  c->shadow = calloc(1, c->size + 32);
  c->write_stamp = calloc(words, 4), c->read_last = calloc(words, 4), c->write_agent = calloc(words, 2);
  c->generic = calloc(words, 1), c->read_stamp = calloc(agents, sizeof *c->read_stamp);
  bool ok = c->data && c->warps && c->shadow && c->write_stamp && c->read_last && c->write_agent && c->generic &&
            c->read_stamp;
  for (uint32_t a = 0; ok && a < agents; a++) ok = (c->read_stamp[a] = calloc(words, 4));
  for (int n = 0; ok && n < BARS; n++)
    ok = (c->bars[n].vc = calloc(cl->nagents, 4)) && (c->bars[n].pvc = calloc(cl->nagents, 4));
  for (uint32_t n = 0; ok && n < warps; n++) ok = make_warp(k, c, n);
  return ok;
}

static cluster *make_cluster(worker *k) {
  const run *r = k->run;
  cluster *c = calloc(1, sizeof *c);
  if (!c) return NULL;
  c->worker = k, c->nctas = r->nctas, c->nagents = r->nctas * (r->nwarps + MBARRIERS);
  c->ctas = calloc(c->nctas, sizeof *c->ctas);
  c->clocks = calloc(c->nagents, 4), c->vc = calloc(c->nagents, 4), c->pvc = calloc(c->nagents, 4);
  bool ok = c->ctas && c->clocks && c->vc && c->pvc;
  for (uint32_t n = 0; ok && n < c->nctas; n++) ok = make_cta(k, c, n);
  if (ok) return c;
  free_cluster(c);
  return NULL;
}

/* Special registers of a warp. PTX ISA, "Special Registers". The first character of a name is its width, 'p' a
 * predicate. */
const char *const qn__emu_specials[] = {"4%tid.x",
                                        "4%tid.y",
                                        "4%tid.z",
                                        "4%ntid.x",
                                        "4%ntid.y",
                                        "4%ntid.z",
                                        "4%ctaid.x",
                                        "4%ctaid.y",
                                        "4%ctaid.z",
                                        "4%nctaid.x",
                                        "4%nctaid.y",
                                        "4%nctaid.z",
                                        "4%laneid",
                                        "4%warpid",
                                        "4%nwarpid",
                                        "4%smid",
                                        "4%nsmid",
                                        "4%dynamic_smem_size",
                                        "4%total_smem_size",
                                        "4%lanemask_eq",
                                        "4%lanemask_le",
                                        "4%lanemask_lt",
                                        "4%lanemask_ge",
                                        "4%lanemask_gt",
                                        "4%clusterid.x",
                                        "4%clusterid.y",
                                        "4%clusterid.z",
                                        "4%nclusterid.x",
                                        "4%nclusterid.y",
                                        "4%nclusterid.z",
                                        "4%cluster_ctaid.x",
                                        "4%cluster_ctaid.y",
                                        "4%cluster_ctaid.z",
                                        "4%cluster_nctaid.x",
                                        "4%cluster_nctaid.y",
                                        "4%cluster_nctaid.z",
                                        "4%cluster_ctarank",
                                        "4%cluster_nctarank",
                                        "8%gridid",
                                        "4%clock",
                                        "4%clock_hi",
                                        "8%clock64",
                                        "8%globaltimer",
                                        "p%is_explicit_cluster",
                                        NULL};

static void fill_specials(warp *w) {
  const run *r = w->worker->run;
  const cta *c = w->cta;
  const uint32_t *g = r->how.grid, *b = r->how.block, *s = r->cluster, *id = c->index, *q = c->cluster->index;
  EACH_LANE(l) {
    uint32_t t = w->id * LANES + (uint32_t)l, bit = 1u << l;
    const uint64_t values[] = {t % b[0],
                               t / b[0] % b[1],
                               t / b[0] / b[1],
                               b[0],
                               b[1],
                               b[2],
                               id[0],
                               id[1],
                               id[2],
                               g[0],
                               g[1],
                               g[2],
                               (uint64_t)l,
                               w->id,
                               c->nwarps,
                               0,
                               r->device->limits.multiprocessors,
                               r->how.dynamic_shared,
                               r->shared_bytes,
                               bit,
                               bit | (bit - 1),
                               bit - 1,
                               ~(bit - 1),
                               ~(bit | (bit - 1)),
                               q[0],
                               q[1],
                               q[2],
                               g[0] / s[0],
                               g[1] / s[1],
                               g[2] / s[2],
                               id[0] % s[0],
                               id[1] % s[1],
                               id[2] % s[2],
                               s[0],
                               s[1],
                               s[2],
                               c->rank,
                               r->nctas,
                               1,
                               0,
                               0,
                               0,
                               0,
                               0};
    for (size_t k = 0; k < QN_COUNT(values); k++) {
      uint32_t row = r->module->specials[k];
      if (row)
        memcpy(w->regs + row + (size_t)l * (qn__emu_specials[k][0] == '8' ? 8 : 4), &values[k],
               qn__emu_specials[k][0] == '8' ? 8 : 4);
    }
  }
}

static void start_warp(warp *w) {
  const run *r = w->worker->run;
  uint32_t left = r->nthreads - w->id * LANES;
  w->live = left >= LANES ? ALL : (1u << left) - 1;
  w->nfrags = 0, w->turn = w->wgmma_fenced = w->wgmma_open = w->cluster_arrived = false, w->cluster_mask = 0,
  w->carry = 0;
  w->waits_for = NULL;
  memset(w->tried, 0, sizeof w->tried);
  qn__emu_groups_drop(&w->copies), qn__emu_groups_drop(&w->stores), qn__emu_groups_drop(&w->wgmmas);
  fill_specials(w);
  frag_add(w, r->f->first, w->live, FR_RUN);
}

static void start_cluster(cluster *c, uint64_t number) {
  const run *r = c->worker->run;
  uint64_t nx = r->how.grid[0] / r->cluster[0], ny = r->how.grid[1] / r->cluster[1];
  c->index[0] = (uint32_t)(number % nx), c->index[1] = (uint32_t)(number / nx % ny),
  c->index[2] = (uint32_t)(number / nx / ny);
  c->agents_used = c->nctas * r->nwarps, c->arrived = c->stuck = 0, c->slices = 0;
  qn__emu_clock_start(c);
  for (uint32_t n = 0; n < c->nctas; n++) {
    cta *t = &c->ctas[n];
    uint32_t at[3] = {n % r->cluster[0], n / r->cluster[0] % r->cluster[1], n / r->cluster[0] / r->cluster[1]};
    for (int d = 0; d < 3; d++) t->index[d] = c->index[d] * r->cluster[d] + at[d];
    memset(t->shadow, B_UNWRITTEN, t->size), memset(t->data, 0xcd, t->size);
    t->live_warps = t->nwarps, t->nmbarriers = 0;
    for (int b = 0; b < BARS; b++)
      t->bars[b].arrived = t->bars[b].need = t->bars[b].reduce_or = t->bars[b].reduce_count = 0,
      t->bars[b].reduce_and = 1;
    for (int b = 0; b < MBARRIERS; b++) t->mbarriers[b].address = 0;
    for (uint32_t k = 0; k < t->nwarps; k++) start_warp(&t->warps[k]);
  }
}

/* Async work that nobody waited for. PTX ISA, "cp.async.bulk.wait_group", "wgmma.wait_group". */
static void end_cluster(cluster *c) {
  bool stopped = atomic_load(&c->worker->run->stop);
  for (job *j = c->inflight, *next; j; j = next) {
    next = j->next;
    c->worker->pc = (uint32_t)(j->insn - c->worker->run->module->code);
    if (!stopped) qn__emu_find(j->warp, -1, QN_EMU_F_EXIT, "its CTA has ended and nothing waited for this copy");
    qn__emu_job_free(j);
  }
  c->inflight = NULL;
  for (uint32_t r = 0; r < c->nctas; r++)
    for (uint32_t k = 0; k < c->ctas[r].nwarps; k++) {
      warp *w = &c->ctas[r].warps[k];
      job *open = w->stores.newest ? w->stores.newest->jobs : w->stores.open;
      job *wg = w->wgmmas.newest ? w->wgmmas.newest->jobs : w->wgmmas.open;
      for (int n = 0; n < 2 && !stopped; n++) {
        job *j = n ? wg : open;
        if (!j) continue;
        c->worker->pc = (uint32_t)(j->insn - c->worker->run->module->code);
        qn__emu_find(w, -1, QN_EMU_F_EXIT, "the kernel ended and nothing waited for this operation");
      }
      qn__emu_groups_wait(&w->copies, 0, ALL, true);
    }
  c->worker->counters.ctas += c->nctas;
}

/* ---- Workers ----------------------------------------------------------------------------------------------------- */

static bool admit(worker *k) {
  uint64_t n = atomic_fetch_add(&k->run->next_cluster, 1);
  if (n >= k->run->nclusters) return false;
  cluster *c = k->spare;
  if (c) k->spare = c->next;
  else if (!(c = make_cluster(k))) {
    k->status = qn__fail(QN_E_NOMEM, "emulator: no memory for a CTA");
    atomic_store(&k->run->stop, true);
    return false;
  }
  c->next = k->resident, k->resident = c;
  start_cluster(c, n);
  return true;
}

static void *work(void *context) {
  worker *k = context;
  bool more = true;
  while (!atomic_load(&k->run->stop)) {
    if (!k->resident) more = more && admit(k);
    if (!k->resident) break;
    int resident = 0, slow = 0;
    for (cluster **q = &k->resident; *q;) {
      cluster *c = *q;
      resident++;
      if (!run_cluster_slice(c)) {
        slow += ++c->slices > 2;
        q = &c->next;
        continue;
      }
      end_cluster(c);
      *q = c->next;
      c->next = k->spare, k->spare = c;
    }
    if (slow && slow == resident && resident < RESIDENT) more = more && admit(k);
  }
  return NULL;
}

static void free_worker(worker *k) {
  for (cluster *c = k->resident, *next; c; c = next) next = c->next, free_cluster(c);
  for (cluster *c = k->spare, *next; c; c = next) next = c->next, free_cluster(c);
  free(k->executed);
}

/* ---- Launch ------------------------------------------------------------------------------------------------------ */

static qn_status check_launch(run *r, const qn_emu_kernel *k) {
  const qn_emu_limits *l = &r->device->limits;
  const qn_emu_launch *h = &r->how;
  uint64_t threads = (uint64_t)h->block[0] * h->block[1] * h->block[2], ctas = 1;
  for (int d = 0; d < 3; d++) {
    r->cluster[d] = h->cluster[d] ? h->cluster[d] : k->cluster[d] ? k->cluster[d] : 1;
    ctas *= r->cluster[d];
    if (!h->grid[d] || !h->block[d] || (d && h->grid[d] > 65535))
      return qn__fail(QN_E_LIMIT, "%s: grid %u or block %u of dimension %d", k->name, h->grid[d], h->block[d], d);
    if (h->grid[d] % r->cluster[d])
      return qn__fail(QN_E_LIMIT, "%s: grid %u is no multiple of cluster %u", k->name, h->grid[d], r->cluster[d]);
    if (k->block[d] && k->block[d] != h->block[d])
      return qn__fail(QN_E_LIMIT, "%s: block %u where .reqntid is %u", k->name, h->block[d], k->block[d]);
  }
  if (threads > 1024 || (k->max_threads && threads > k->max_threads))
    return qn__fail(QN_E_LIMIT, "%s: %llu threads of a CTA, the limit is %u", k->name, (unsigned long long)threads,
                    k->max_threads ? k->max_threads : 1024);
  if (ctas > 16 || (ctas > 1 && l->cluster == 1))
    return qn__fail(QN_E_LIMIT, "%s: cluster of %llu CTAs", k->name, (unsigned long long)ctas);
  uint64_t shared = (uint64_t)r->f->dynamic - SHARED_BASE + h->dynamic_shared;
  if (!h->dynamic_shared) shared = k->static_shared;
  if (shared > l->shared_block)
    return qn__fail(QN_E_LIMIT, "%s: %llu bytes of shared memory, sm_%d has %u", k->name, (unsigned long long)shared,
                    l->sm, l->shared_block);
  if (h->nparams != k->nparams)
    return qn__fail(QN_E_ARG, "%s: %d parameters given, it takes %d", k->name, h->nparams, k->nparams);
  r->nthreads = (uint32_t)threads, r->nwarps = (r->nthreads + LANES - 1) / LANES, r->nctas = (uint32_t)ctas,
  r->shared_bytes = (uint32_t)shared;
  r->nclusters = (uint64_t)h->grid[0] * h->grid[1] * h->grid[2] / ctas;
  return QN_OK;
}

static int by_position(const void *a, const void *b) {
  const qn_emu_finding *x = a, *y = b;
  return x->line != y->line ? (x->line < y->line ? -1 : 1) : (int)x->kind - (int)y->kind;
}

static void gather(run *r, worker *workers, int n) {
  qn_emu_counters *sum = &r->report->counters;
  for (int k = 0; k < n; k++) {
    for (uint32_t i = 0; i < r->module->ncode; i++) {
      sum->warp_insns += workers[k].executed[i];
      sum->by_kind[r->module->code[i].kind] += workers[k].executed[i];
    }
    uint64_t *to = &sum->global_requests;
    const uint64_t *from = &workers[k].counters.global_requests;
    size_t fields = (sizeof *sum - offsetof(qn_emu_counters, global_requests)) / sizeof *to;
    for (size_t f = 0; f < fields; f++) to[f] += from[f];
  }
  qsort(r->report->list, (size_t)r->report->count, sizeof *r->report->list, by_position);
}

static int default_threads(void) {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
}

static qn_status run_workers(run *r) {
  int n = r->how.threads > 0 ? r->how.threads : default_threads(), started = 1;
  if ((uint64_t)n > r->nclusters) n = (int)r->nclusters;
  if (n > 64) n = 64;
  worker *workers = calloc((size_t)n, sizeof *workers);
  if (!workers) return qn__fail(QN_E_NOMEM, "emulator: out of memory");
  qn_status s = QN_OK;
  for (int k = 0; k < n; k++) {
    workers[k].run = r, workers[k].random = r->how.seed * 7919 + (uint64_t)k;
    workers[k].executed = calloc(r->module->ncode + 1, sizeof(uint64_t));
    if (!workers[k].executed) s = qn__fail(QN_E_NOMEM, "emulator: out of memory");
  }
  if (!s) {
    while (started < n && !pthread_create(&workers[started].thread, NULL, work, &workers[started])) started++;
    work(&workers[0]);
    for (int k = 1; k < started; k++) pthread_join(workers[k].thread, NULL);
    for (int k = 0; k < n; k++)
      if (workers[k].status) s = qn__fail(workers[k].status, "emulator: no memory for a CTA");
    gather(r, workers, n);
  }
  for (int k = 0; k < n; k++) free_worker(&workers[k]);
  free(workers);
  return s;
}

static qn_status make_report(run *r) {
  r->report = calloc(1, sizeof *r->report);
  if (r->report) r->report->list = calloc(256, sizeof *r->report->list);
  r->params = calloc(1, PARAM_BYTES);
  return r->report && r->report->list && r->params ? QN_OK : qn__fail(QN_E_NOMEM, "emulator: out of memory");
}

static double clock_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

qn_status qn_emu_run(const qn_emu_kernel *k, const qn_emu_launch *how, qn_emu_report **out) {
  const function *f = (const function *)(const void *)((const char *)k - offsetof(function, kernel));
  run r = {.device = f->module->device, .f = f, .module = f->module, .how = *how};
  *out = NULL;
  QN_TRY(check_launch(&r, k));
  r.checks = QN_EMU_CHECKS & ~how->without;
  r.limit = how->findings_limit > 0 ? how->findings_limit : 1000;
  atomic_init(&r.budget, how->budget ? how->budget : UINT64_C(1) << 33);
  pthread_mutex_init(&r.lock, NULL);
  qn_status s = make_report(&r);
  if (!s) {
    double start = clock_now();
    for (int n = 0; n < k->nparams; n++) memcpy(r.params + k->params[n].offset, how->params[n], k->params[n].size);
    s = run_workers(&r);
    r.report->seconds = clock_now() - start;
    r.report->complete = !atomic_load(&r.stop);
  }
  pthread_mutex_destroy(&r.lock);
  free(r.params);
  if (s) qn_emu_report_free(r.report);
  else *out = r.report;
  return s;
}

void qn_emu_report_free(qn_emu_report *r) {
  if (r) free(r->list);
  free(r);
}

const char *qn_emu_finding_print(const qn_emu_finding *f, char *buffer, size_t size) {
  char where[200] = "";
  if (*f->file) snprintf(where, sizeof where, " (%s:%d)", f->file, f->file_line);
  snprintf(buffer, size, "%s: %s: %s [%s, CTA %u,%u,%u warp %d lane %d, PTX line %d%s: %s] x%llu",
           qn_emu_finding_word(f->kind), qn_emu_finding_text(f->kind), f->text, f->kernel, f->cta[0], f->cta[1],
           f->cta[2], f->warp, f->lane, f->line, where, f->insn, (unsigned long long)f->count);
  return buffer;
}
