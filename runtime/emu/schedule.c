/* schedule.c - a cluster at work: its warps run in turns until they wait.
 *
 * A cluster runs on one worker. When every fragment of it waits, one async operation completes; when there is none,
 * mbarrier waits time out (as the ISA lets try_wait do); when that changes nothing, it is a deadlock. A kernel that
 * waits for other CTAs through global memory gets them: a cluster that uses up many slices makes room for another.
 * Random mode: warps, slices and completions are drawn from the seed. */
#include "schedule.h"
#include "async.h"
#include "checks.h"
#include "fragment.h"
#include "step.h"

enum { SLICE = 20000, ROTATE = 64, STUCK = 4 };

/* Waits whose barrier may have moved on are tried again: they run at their wait once more. */
static void retry_waits(cluster *c, bool all) {
  for (uint32_t r = 0; r < c->nctas; r++)
    for (uint32_t k = 0; k < c->ctas[r].nwarps; k++) {
      warp *w = &c->ctas[r].warps[k];
      for (int f = 0; f < w->nfrags; f++) {
        frag old = w->frags[f];
        if (old.state != FR_MBARRIER && (old.state != FR_REGISTERS || all)) continue;
        if (!all && old.seen == c->events) continue;
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
        if (g->state == FR_REGISTERS)
          qn__emu_find(w, -1, QN_EMU_F_DEADLOCK,
                       "its threads have %u registers and wait forever: %u more are wanted, "
                       "the pool of the CTA has %u",
                       w->registers, ((uint32_t)w->worker->run->module->code[g->pc - 1].imm - w->registers) * LANES,
                       c->ctas[r].pool);
        else if (g->state == FR_SYNC)
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
  uint64_t shift = random ? random_bits(k) : 0;
  int64_t done = 0;
  for (uint32_t n = 0; n < total && !atomic_load_explicit(&k->run->stop, memory_order_relaxed); n++) {
    uint32_t at = (uint32_t)((n + shift % total) % total);
    warp *w = &c->ctas[at / c->ctas[0].nwarps].warps[at % c->ctas[0].nwarps];
    if (!w->nfrags) continue;
    int64_t slice = random ? 1 + (int64_t)(random_bits(k) % 400) : SLICE;
    if (!k->budget) draw_budget(k);
    if (!k->budget) {
      qn__emu_find(w, -1, QN_EMU_F_BUDGET, "%llu warp instructions are used up",
                   (unsigned long long)(k->run->how.budget ? k->run->how.budget : UINT64_C(1) << 33));
      atomic_store(&k->run->stop, true);
      break;
    }
    if ((uint64_t)slice > k->budget) slice = (int64_t)k->budget;
    int64_t ran = qn__emu_warp_run(w, slice);
    k->budget -= (uint64_t)ran, done += ran;
    if (random && random_bits(k) % 8 == 0) qn__emu_complete_one(c);
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
