/* meet.c - where threads meet: barriers of a CTA, of a cluster; threads that exit are waited for no longer.
 *
 * Source: PTX ISA, "bar", "barrier.cluster". */
#include "meet.h"
#include "checks.h"
#include "fragment.h"

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
bool qn__emu_barrier(warp *w, const insn *i, uint32_t pc, uint32_t mask) {
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

bool qn__emu_cluster_barrier(warp *w, const insn *i, uint32_t pc, uint32_t mask) {
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

void qn__emu_lanes_exit(warp *w, uint32_t mask) {
  w->live &= ~mask;
  wake(w, FR_SYNC, -1); /* those who wait for these lanes look again */
  for (int id = 0; id < BARS; id++) bar_try(w->cta, id);
  if (!w->live) w->cta->live_warps--;
  w->cta->cluster->events++;
  cluster_try(w->cta->cluster);
}
