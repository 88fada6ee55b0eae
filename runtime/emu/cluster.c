/* cluster.c - clusters of CTAs: made once, their memory is used again by the next and by the next launch of the kernel;
 * started, ended, looked over for async work that nobody waited for. */
#include "cluster.h"
#include "async.h"
#include "checks.h"
#include "fragment.h"
#include "watch.h"
#include <stdlib.h>

/* ---- Making clusters --------------------------------------------------------------------------------------------- */

static void free_cta(cta *c, uint32_t ctas) {
  uint32_t agents = ctas * c->nwarps;
  free(c->data), free(c->shadow), free(c->write_stamp), free(c->read_last), free(c->write_agent), free(c->generic);
  for (uint32_t a = 0; c->read_stamp && a < agents; a++) free(c->read_stamp[a]);
  for (uint32_t a = 0; c->atomic_stamp && a <= agents; a++) free(c->atomic_stamp[a]);
  free(c->read_stamp), free(c->atomic_stamp);
  for (uint32_t k = 0; c->warps && k < c->nwarps; k++) {
    warp *w = &c->warps[k];
    qn__emu_groups_drop(&w->copies), qn__emu_groups_drop(&w->stores), qn__emu_groups_drop(&w->wgmmas);
    free(w->regs), free(w->local), free(w->watched), free(w->vc), free(w->pvc);
  }
  free(c->warps);
  for (int k = 0; k < BARS; k++) free(c->bars[k].vc), free(c->bars[k].pvc);
  for (int k = 0; k < MBARRIERS; k++) free(c->mbarriers[k].vc);
}

void qn__emu_cluster_free(cluster *c) {
  if (!c) return;
  for (job *j = c->inflight, *next; j; j = next) next = j->next, free(j);
  for (uint32_t r = 0; c->ctas && r < c->nctas; r++) free_cta(&c->ctas[r], c->nctas);
  free(c->ctas), free(c->clocks), free(c->waited), free(c->vc), free(c->pvc), free(c);
}

static bool make_warp(worker *k, cta *c, uint32_t id) {
  const qn_emu_module *m = k->run->module;
  warp *w = &c->warps[id];
  w->cta = c, w->worker = k, w->id = id, w->agent = c->rank * c->nwarps + id;
  w->regs = aligned_alloc(64, (m->file_bytes + 63) & ~63u);
  w->local = calloc(LANES, m->local_bytes + 1);
  w->watched = calloc(m->nwatched + 1, sizeof *w->watched);
  w->vc = calloc(c->cluster->nagents, sizeof *w->vc), w->pvc = calloc(c->cluster->nagents, sizeof *w->pvc);
  qn__emu_groups_init(&w->copies), qn__emu_groups_init(&w->stores), qn__emu_groups_init(&w->wgmmas);
  if (!w->regs || !w->local || !w->watched || !w->vc || !w->pvc) return false;
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
  c->generic = calloc(words, 1);
  c->read_stamp = calloc(agents, sizeof *c->read_stamp), c->atomic_stamp = calloc(agents + 1, sizeof *c->atomic_stamp);
  bool ok = c->data && c->warps && c->shadow && c->write_stamp && c->read_last && c->write_agent && c->generic &&
            c->read_stamp && c->atomic_stamp;
  for (uint32_t a = 0; ok && a < agents; a++) ok = (c->read_stamp[a] = calloc(words, 4));
  for (uint32_t a = 0; ok && a <= agents; a++) ok = (c->atomic_stamp[a] = calloc(words, 4));
  for (int n = 0; ok && n < BARS; n++)
    ok = (c->bars[n].vc = calloc(cl->nagents, 4)) && (c->bars[n].pvc = calloc(cl->nagents, 4));
  for (uint32_t n = 0; ok && n < warps; n++) ok = make_warp(k, c, n);
  return ok;
}

cluster *qn__emu_cluster_new(worker *k) {
  const run *r = k->run;
  cluster *c = calloc(1, sizeof *c);
  if (!c) return NULL;
  c->f = r->f, c->worker = k, c->nctas = r->nctas, c->nagents = r->nctas * (r->nwarps + MBARRIERS);
  c->ctas = calloc(c->nctas, sizeof *c->ctas);
  c->clocks = calloc(c->nagents, 4), c->waited = calloc(c->nagents, 4), c->vc = calloc(c->nagents, 4),
  c->pvc = calloc(c->nagents, 4);
  bool ok = c->ctas && c->clocks && c->waited && c->vc && c->pvc;
  for (uint32_t n = 0; ok && n < c->nctas; n++) ok = make_cta(k, c, n);
  if (ok) return c;
  qn__emu_cluster_free(c);
  return NULL;
}

/* ---- From launch to launch --------------------------------------------------------------------------------------- */

/* Time goes on where it was, as from cluster to cluster of a launch, so that nothing is cleared; but not to its end. */
static bool fits(const cluster *c, const run *r) {
  return c->nctas == r->nctas && c->ctas->nwarps == r->nwarps && c->ctas->size == SHARED_BASE + r->shared_bytes &&
         c->now < UINT32_MAX / 2;
}

static void move_to(cluster *c, worker *k) {
  c->worker = k;
  for (uint32_t r = 0; r < c->nctas; r++) {
    c->ctas[r].worker = k;
    for (uint32_t n = 0; n < c->ctas[r].nwarps; n++) c->ctas[r].warps[n].worker = k;
  }
}

cluster *qn__emu_cluster_take(worker *k) {
  cluster *c;
  for (cluster **q = &k->run->f->module->kept; (c = *q);) {
    if (c->f != k->run->f) {
      q = &c->next;
      continue;
    }
    *q = c->next, c->next = NULL;
    if (fits(c, k->run)) return move_to(c, k), c;
    qn__emu_cluster_free(c);
  }
  return NULL;
}

static void free_kept(qn_emu_module *m) {
  for (cluster *c = m->kept, *next; c; c = next) next = c->next, qn__emu_cluster_free(c);
}

void qn__emu_cluster_keep(cluster *c) {
  qn_emu_module *m = c->f->module;
  c->next = m->kept, m->kept = c;
  m->free_kept = free_kept;
}

/* ---- Starting and ending ----------------------------------------------------------------------------------------- */

/* Special registers are rows, written when a warp starts. */
static void fill_lane(warp *w, uint32_t lane, const uint32_t clusters[3], const uint32_t in_cluster[3]) {
  const run *r = w->worker->run;
  const cta *c = w->cta;
  const uint32_t *b = r->how.block, t = w->id * LANES + lane, bit = 1u << lane;
  const uint32_t tid[] = {t % b[0], t / b[0] % b[1], t / b[0] / b[1]};
  const uint64_t values[] = {
#define X(name, type, value) value,
      SPECIAL_MAP(X)
#undef X
  };
  static const type types[] = {
#define X(name, type, value) type,
      SPECIAL_MAP(X)
#undef X
  };
  for (int k = 0; k < SPECIALS; k++) {
    uint32_t row = r->module->specials[k], width = type_width(types[k]);
    if (row) memcpy(w->regs + row + lane * width, &values[k], width);
  }
}

static void fill_specials(warp *w) {
  const run *r = w->worker->run;
  uint32_t clusters[3], in_cluster[3];
  for (int d = 0; d < 3; d++)
    clusters[d] = r->how.grid[d] / r->cluster[d], in_cluster[d] = w->cta->index[d] % r->cluster[d];
  EACH_LANE(l) fill_lane(w, (uint32_t)l, clusters, in_cluster);
}

static void start_warp(warp *w) {
  const run *r = w->worker->run;
  uint32_t left = r->nthreads - w->id * LANES;
  w->live = left >= LANES ? ALL : (1u << left) - 1;
  w->turn = w->cluster_arrived = false, w->cluster_mask = 0, w->carry = 0;
  w->waits_for = NULL;
  w->early = r->how.programmatic, w->registers = r->registers;
  memset(w->tried, 0, sizeof w->tried);
  qn__watch_start(w);
  qn__emu_groups_drop(&w->copies), qn__emu_groups_drop(&w->stores), qn__emu_groups_drop(&w->wgmmas);
  fill_specials(w);
  w->nfrags = 0;
  frag_add(w, r->f->first, w->live, FR_RUN);
}

void qn__emu_cluster_start(cluster *c, uint64_t number) {
  const run *r = c->worker->run;
  uint64_t nx = r->how.grid[0] / r->cluster[0], ny = r->how.grid[1] / r->cluster[1];
  c->index[0] = (uint32_t)(number % nx), c->index[1] = (uint32_t)(number / nx % ny),
  c->index[2] = (uint32_t)(number / nx / ny);
  c->agents_used = c->nctas * r->nwarps, c->arrived = c->stuck = 0, c->slices = 0;
  qn__emu_clock_start(c);
  memset(c->waited, 0, c->nagents * sizeof *c->waited);
  for (uint32_t n = 0; n < c->nctas; n++) {
    cta *t = &c->ctas[n];
    uint32_t at[3] = {n % r->cluster[0], n / r->cluster[0] % r->cluster[1], n / r->cluster[0] / r->cluster[1]};
    for (int d = 0; d < 3; d++) t->index[d] = c->index[d] * r->cluster[d] + at[d];
    memset(t->shadow, B_UNWRITTEN, t->size), memset(t->data, 0xcd, t->size);
    t->reached = false;
    t->live_warps = t->nwarps, t->nmbarriers = t->pool = 0, t->flying = 0;
    for (int b = 0; b < BARS; b++)
      t->bars[b].arrived = t->bars[b].need = t->bars[b].reduce_or = t->bars[b].reduce_count = 0,
      t->bars[b].reduce_and = 1;
    for (int b = 0; b < MBARRIERS; b++) t->mbarriers[b].address = 0;
    for (uint32_t k = 0; k < t->nwarps; k++) start_warp(&t->warps[k]);
  }
}

/* Async work that nobody waited for. PTX ISA, "cp.async.bulk.wait_group", "wgmma.wait_group". */
void qn__emu_cluster_end(cluster *c) {
  bool stopped = atomic_load(&c->worker->run->stop);
  for (job *j = c->inflight, *next; j; j = next) {
    next = j->next;
    c->worker->pc = (uint32_t)(j->insn - c->worker->run->module->code);
    if (!stopped) qn__emu_find(j->warp, -1, QN_EMU_F_EXIT, "its CTA has ended and nothing waited for this copy");
    free(j);
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
