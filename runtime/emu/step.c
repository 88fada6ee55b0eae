/* step.c - a warp at work: its fragments run until they meet, branch or wait.
 *
 * A warp is a list of fragments (pc, lanes). The one with the lowest pc runs until it meets, branches or waits, which
 * brings lanes together where the compiler laid the join. Lanes that must act together wait for each other by the
 * instruction's own member mask, so that convergence never depends on the layout. Source: "Independent thread
 * scheduling" of the CUDA programming guide. */
#include "step.h"
#include "checks.h"
#include "fragment.h"
#include "meet.h"
#include "watch.h"

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
      qn__emu_lanes_exit(w, same);
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
    if (i->watch && m && i->kind != QN_EMU_K_WGMMA) qn__watch_touch(w, i, m);
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
      if (m) qn__emu_lanes_exit(w, m);
      return true;
    case C_BARRIER:
      if (!m) continue;
      if (i->flags && !converge(w, i, pc, &mask, m, &stop)) return true;
      if (mask & ~m && !i->flags) frag_add(w, pc + 1, mask & ~m, FR_RUN), mask = m, stop = pc + 1;
      if (!qn__emu_barrier(w, i, pc, mask)) return true;
      continue;
    case C_CLUSTER:
      if (!m) continue;
      if (mask & ~m) frag_add(w, pc + 1, mask & ~m, FR_RUN), mask = m, stop = pc + 1;
      if (!qn__emu_cluster_barrier(w, i, pc, m)) return true;
      continue;
    case C_WAIT:
      if (!m) continue;
      w->waiting = 0;
      i->run(w, i, m);
      if (!w->waiting) continue;
      frag_add(w, pc + 1, mask, FR_MBARRIER)->seen = w->cta->cluster->events;
      return true;
    case C_POOL:
      if (!m) continue;
      if (!converge(w, i, pc, &mask, m, &stop)) return true;
      w->waiting = 0;
      i->run(w, i, mask);
      if (!w->waiting) continue;
      frag_add(w, pc + 1, mask, FR_REGISTERS)->seen = w->cta->cluster->events;
      return true;
    default: /* C_YIELD */
      if (i->run && m) i->run(w, i, m);
      frag_add(w, pc + 1, mask, FR_RUN);
      w->yielded = true;
      return true;
    }
  }
}

int64_t qn__emu_warp_run(warp *w, int64_t left) {
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
