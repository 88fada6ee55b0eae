/* launch.c - a launch: workers take clusters, the report is put together.
 *
 * A worker keeps one cluster resident; when all that it has use up slice after slice (they may wait for other CTAs), it
 * takes one more. Source: CUDA driver API, cuLaunchKernel (what a launch refuses). */
#include "cluster.h"
#include "fail.h"
#include "schedule.h"
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { RESIDENT = 256 };

/* ---- Workers ----------------------------------------------------------------------------------------------------- */

static bool admit(worker *k) {
  uint64_t n = atomic_fetch_add(&k->run->next_cluster, 1);
  if (n >= k->run->nclusters) return false;
  cluster *c = k->spare;
  if (c) k->spare = c->next;
  else if (!(c = qn__emu_cluster_new(k))) {
    no_memory(k);
    return false;
  }
  c->next = k->resident, k->resident = c;
  qn__emu_cluster_start(c, n);
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
      qn__emu_cluster_end(c);
      *q = c->next;
      c->next = k->spare, k->spare = c;
    }
    if (slow && slow == resident && resident < RESIDENT) more = more && admit(k);
  }
  k->seconds = clock_now(CLOCK_THREAD_CPUTIME_ID) - start;
  return NULL;
}

/* One cluster is kept: more are resident only where CTAs wait for each other. */
static void free_worker(worker *k) {
  cluster *kept = k->spare;
  if (kept && !atomic_load(&k->run->stop)) {
    k->spare = kept->next;
    qn__emu_cluster_keep(kept);
  }
  for (cluster *c = k->resident, *next; c; c = next) next = c->next, qn__emu_cluster_free(c);
  for (cluster *c = k->spare, *next; c; c = next) next = c->next, qn__emu_cluster_free(c);
  free(k->executed), free(k->traffic);
}

/* ---- Launch ------------------------------------------------------------------------------------------------------ */

/* Most blocks of a grid and threads of a block along x, y, z. */
static const uint32_t most_blocks[3] = {INT32_MAX, 65535, 65535}, most_threads[3] = {1024, 1024, 64};

static qn_status check_launch(run *r, const qn_emu_kernel *k) {
  const qn_architecture *l = &r->device->limits;
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

/* Registers of a thread of a kernel that hands them over: what .maxnreg says, or as many as its bounds leave. The
 * assembler ignores setmaxnreg where it knows neither. PTX ISA, "setmaxnreg". */
static uint32_t registers_at_entry(const qn_emu_kernel *k) {
  uint32_t threads = k->max_threads ? k->max_threads : k->block[0] * k->block[1] * k->block[2];
  if (k->registers || !threads || !k->min_blocks) return k->registers;
  uint32_t most = QN_SM_REGISTERS / (threads * k->min_blocks) / 8 * 8;
  return most < 255 ? most : 255;
}

static int by_position(const void *a, const void *b) {
  const qn_emu_finding *x = a, *y = b;
  return x->line != y->line ? (x->line < y->line ? -1 : 1) : (int)x->kind - (int)y->kind;
}

/* What was read of each allocation, by all workers. */
static void gather_traffic(run *r, const worker *workers, int n) {
  for (uint32_t b = 1; b < r->device->nblocks; b++) {
    qn_emu_traffic sum = {0};
    for (int k = 0; k < n; k++)
      sum.asked += workers[k].traffic[b].asked, sum.distinct += workers[k].traffic[b].distinct;
    if (!sum.asked || !r->device->blocks[b]) continue;
    sum.base = r->device->blocks[b]->base, sum.size = r->device->blocks[b]->size;
    r->report->traffic[r->report->ntraffic++] = sum;
  }
}

static void gather(run *r, worker *workers, int n) {
  qn_emu_counters *sum = &r->report->counters;
  for (int k = 0; k < n; k++) {
    r->report->cpu_seconds += workers[k].seconds;
    if (workers[k].counters.flight_bytes > sum->flight_bytes) sum->flight_bytes = workers[k].counters.flight_bytes;
    for (uint32_t i = 0; i < r->module->ncode; i++) {
      sum->warp_insns += workers[k].executed[i];
      sum->by_kind[r->module->code[i].kind] += workers[k].executed[i];
    }
    uint64_t *to = &sum->global_requests;
    const uint64_t *from = &workers[k].counters.global_requests;
    size_t fields = (sizeof *sum - offsetof(qn_emu_counters, global_requests)) / sizeof *to;
    for (size_t f = 0; f < fields; f++) to[f] += from[f];
  }
  gather_traffic(r, workers, n);
  qsort(r->report->list, (size_t)r->report->count, sizeof *r->report->list, by_position);
}

static int default_threads(void) {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
}

static qn_status run_workers(run *r) {
  enum { APART = 8 }; /* of the traffic of the next worker: no cache line is shared */
  int n = r->how.threads > 0 ? r->how.threads : default_threads(), started = 1;
  if ((uint64_t)n > r->nclusters) n = (int)r->nclusters;
  if (n > 64) n = 64;
  worker *workers = calloc((size_t)n, sizeof *workers);
  if (!workers) return qn__fail(QN_E_NOMEM, "emulator: out of memory");
  qn_status s = QN_OK;
  for (int k = 0; k < n; k++) {
    workers[k].run = r, workers[k].random = r->how.seed * 7919 + (uint64_t)k;
    workers[k].spare = qn__emu_cluster_take(&workers[k]);
    workers[k].executed = calloc(r->module->ncode + 1, sizeof(uint64_t));
    workers[k].traffic = calloc(r->device->nblocks + APART, sizeof *workers[k].traffic);
    if (!workers[k].executed || !workers[k].traffic) s = qn__fail(QN_E_NOMEM, "emulator: out of memory");
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
  if (r->report) r->report->traffic = calloc(r->device->nblocks + 1, sizeof *r->report->traffic);
  r->params = calloc(1, PARAM_BYTES);
  return r->report && r->report->list && r->report->traffic && r->params
             ? QN_OK
             : qn__fail(QN_E_NOMEM, "emulator: out of memory");
}

qn_status qn__emu_run(const qn_emu_kernel *k, const qn_emu_launch *how, qn_emu_report **out) {
  const function *f = (const function *)(const void *)((const char *)k - offsetof(function, kernel));
  run r = {.device = f->module->device, .f = f, .module = f->module, .how = *how};
  *out = NULL;
  QN_TRY(check_launch(&r, k));
  r.checks = QN_EMU_CHECKS & ~how->without;
  r.registers = registers_at_entry(k);
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
  if (s) qn__emu_report_free(r.report);
  else *out = r.report;
  return s;
}

void qn__emu_report_free(qn_emu_report *r) {
  if (r) free(r->list), free(r->traffic);
  free(r);
}

const char *qn__emu_finding_print(const qn_emu_finding *f, char *buffer, size_t size) {
  char where[200] = "";
  if (*f->file) snprintf(where, sizeof where, " (%s:%d)", f->file, f->file_line);
  snprintf(buffer, size, "%s: %s: %s [%s, CTA %u,%u,%u warp %d lane %d, PTX line %d%s: %s] x%llu",
           qn__emu_finding_word(f->kind), qn__emu_finding_text(f->kind), f->text, f->kernel, f->cta[0], f->cta[1],
           f->cta[2], f->warp, f->lane, f->line, where, f->insn, (unsigned long long)f->count);
  return buffer;
}
