/* launch.c - a launch: clusters are made and started, workers take them, the report is put together.
 *
 * A worker keeps one cluster resident; when all that it has use up slice after slice (they may wait for other CTAs), it
 * takes one more. Memory of a cluster is used again by the next. Source: PTX ISA, "Special Registers"; CUDA driver API,
 * cuLaunchKernel (what a launch refuses). */
#include "internal.h"
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { RESIDENT = 256 };

/* ---- Making clusters --------------------------------------------------------------------------------------------- */

static void free_cta(cta *c, uint32_t agents) {
  free(c->data), free(c->shadow), free(c->write_stamp), free(c->read_last), free(c->write_agent), free(c->generic);
  for (uint32_t a = 0; c->read_stamp && a < agents; a++) free(c->read_stamp[a]);
  for (uint32_t a = 0; c->atomic_stamp && a <= agents; a++) free(c->atomic_stamp[a]);
  free(c->read_stamp), free(c->atomic_stamp);
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
  w->turn = w->wgmma_fenced = w->cluster_arrived = false, w->cluster_mask = 0, w->carry = 0;
  w->waits_for = NULL;
  memset(w->tried, 0, sizeof w->tried);
  qn__emu_groups_drop(&w->copies), qn__emu_groups_drop(&w->stores), qn__emu_groups_drop(&w->wgmmas);
  fill_specials(w);
  qn__emu_warp_start(w, r->f->first);
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
    qn__emu_no_memory(k);
    return false;
  }
  c->next = k->resident, k->resident = c;
  start_cluster(c, n);
  return true;
}

static double clock_now(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *work(void *context) {
  worker *k = context;
  double start = clock_now(CLOCK_THREAD_CPUTIME_ID);
  bool more = true;
  while (!atomic_load(&k->run->stop)) {
    if (!k->resident) more = more && admit(k);
    if (!k->resident) break;
    int resident = 0, slow = 0;
    for (cluster **q = &k->resident; *q;) {
      cluster *c = *q;
      resident++;
      if (!qn__emu_cluster_slice(c)) {
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
  k->seconds = clock_now(CLOCK_THREAD_CPUTIME_ID) - start;
  return NULL;
}

static void free_worker(worker *k) {
  for (cluster *c = k->resident, *next; c; c = next) next = c->next, free_cluster(c);
  for (cluster *c = k->spare, *next; c; c = next) next = c->next, free_cluster(c);
  free(k->executed);
}

/* ---- Launch ------------------------------------------------------------------------------------------------------ */

/* Most blocks of a grid and threads of a block along x, y, z. */
static const uint32_t most_blocks[3] = {INT32_MAX, 65535, 65535}, most_threads[3] = {1024, 1024, 64};

static qn_status check_launch(run *r, const qn_emu_kernel *k) {
  const qn_emu_limits *l = &r->device->limits;
  const qn_emu_launch *h = &r->how;
  uint64_t threads = (uint64_t)h->block[0] * h->block[1] * h->block[2], ctas = 1;
  for (int d = 0; d < 3; d++) {
    r->cluster[d] = h->cluster[d] ? h->cluster[d] : k->cluster[d] ? k->cluster[d] : 1;
    ctas *= r->cluster[d];
    if (!h->grid[d] || h->grid[d] > most_blocks[d] || !h->block[d] || h->block[d] > most_threads[d])
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
    r->report->cpu_seconds += workers[k].seconds;
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
      if (workers[k].status) s = qn__fail(workers[k].status, "emulator: no memory for a launch");
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
    double start = clock_now(CLOCK_MONOTONIC);
    for (int n = 0; n < k->nparams; n++) memcpy(r.params + k->params[n].offset, how->params[n], k->params[n].size);
    s = run_workers(&r);
    r.report->seconds = clock_now(CLOCK_MONOTONIC) - start;
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
