/* checks.c - what the interpreter watches: findings, vector clocks, shadows of global memory.
 *
 * Order. Every warp of a cluster is an agent with a clock; an mbarrier is one too, for the async writes it announces. A
 * release publishes the past of a warp and moves its clock on; an acquire takes a published past over. A write leaves
 * (agent, time) on each 4-byte word, a read leaves the time per agent. An access is ordered after another when the
 * other's time is not later than what the warp knows of that agent. `safe` is the least of what it knows: one compare
 * settles most accesses. `near` is that of the warps of its CTA, which are all that have read where no other CTA has
 * reached. Time only moves forward in a worker, so that nothing is cleared between CTAs.
 *
 * Proxies. pvc is a second vector: how much of each agent's generic writes lies behind a proxy fence. PTX ISA, "Memory
 * Consistency Model", "Proxy-preserved base causality order". */
#include "checks.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- Findings ---------------------------------------------------------------------------------------------------- */

static const struct {
  const char *word, *text;
} finding_kinds[] = {
#define QN_X(name, word, text) {word, text},
    QN_EMU_FINDING_MAP(QN_X)
#undef QN_X
};
const char *qn__emu_finding_word(qn_emu_finding_kind k) {
  return k < QN_EMU_FINDING_KINDS ? finding_kinds[k].word : "?";
}
const char *qn__emu_finding_text(qn_emu_finding_kind k) {
  return k < QN_EMU_FINDING_KINDS ? finding_kinds[k].text : "?";
}

static qn_emu_finding *same_finding(qn_emu_report *r, qn_emu_finding_kind kind, int line) {
  for (int k = 0; k < r->count; k++)
    if (r->list[k].kind == kind && r->list[k].line == line) return &r->list[k];
  return NULL;
}

static void place_finding(const warp *w, qn_emu_finding *f, int lane) {
  const run *r = w->worker->run;
  const qn_emu_module *m = r->module;
  const insn *i = &m->code[w->worker->pc];
  snprintf(f->kernel, sizeof f->kernel, "%s", r->f->kernel.name);
  memcpy(f->cta, w->cta->index, sizeof f->cta);
  f->warp = (int)w->id, f->lane = lane;
  const char *s = i->line && i->line <= m->nlines ? m->lines[i->line - 1] : "";
  s += strspn(s, " \t");
  snprintf(f->insn, sizeof f->insn, "%.*s", (int)strcspn(s, "\r\n"), s);
  if (!i->loc) return;
  const loc *l = &m->locs[i->loc];
  f->file_line = (int)l->line;
  snprintf(f->file, sizeof f->file, "%s", l->file < m->nfiles && m->files[l->file] ? m->files[l->file] : "?");
}

void qn__emu_find(warp *w, int lane, qn_emu_finding_kind kind, const char *format, ...) {
  enum { DISTINCT = 256 };
  run *r = w->worker->run;
  int line = (int)r->module->code[w->worker->pc].line;
  pthread_mutex_lock(&r->lock);
  qn_emu_finding *f = same_finding(r->report, kind, line);
  if (!f && r->report->count < DISTINCT) {
    f = &r->report->list[r->report->count++];
    f->kind = kind, f->line = line;
    place_finding(w, f, lane);
    va_list args;
    va_start(args, format);
    vsnprintf(f->text, sizeof f->text, format, args);
    va_end(args);
  }
  if (f) f->count++;
  if (++r->report->findings >= (uint64_t)r->limit) atomic_store(&r->stop, true);
  pthread_mutex_unlock(&r->lock);
}

/* ---- Clocks ------------------------------------------------------------------------------------------------------ */

static void join(uint32_t *into, const uint32_t *from, uint32_t n) {
  for (uint32_t k = 0; k < n; k++) into[k] = into[k] > from[k] ? into[k] : from[k];
}

static void advance(warp *w) {
  cluster *c = w->cta->cluster;
  w->vc[w->agent] = c->clocks[w->agent] = ++c->now;
}

/* Of agents from `first` on, before `end`, but for the warp itself. */
static uint32_t least_known(const warp *w, uint32_t first, uint32_t end) {
  uint32_t least = UINT32_MAX;
  for (uint32_t k = first; k < end; k++) least = k != w->agent && w->vc[k] < least ? w->vc[k] : least;
  return least;
}

static void renew_safe(warp *w) {
  uint32_t first = w->agent - w->id;
  w->safe = least_known(w, 0, w->cta->cluster->agents_used);
  w->near = least_known(w, first, first + w->cta->nwarps);
}

/* What is published is the instant before the new time, not the warp's last: nothing happened in between, and `safe`
 * of those who meet at a barrier then covers all that they did before it. */
void qn__emu_release(warp *w, uint32_t *vc, uint32_t *pvc) {
  uint32_t n = w->cta->cluster->agents_used;
  advance(w);
  w->vc[w->agent]--;
  join(vc, w->vc, n);
  join(pvc, w->pvc, n);
  w->vc[w->agent]++;
}

void qn__emu_acquire(warp *w, const uint32_t *vc, const uint32_t *pvc) {
  uint32_t n = w->cta->cluster->agents_used, own = w->vc[w->agent];
  join(w->vc, vc, n);
  join(w->pvc, pvc, n);
  w->vc[w->agent] = own;
  renew_safe(w);
}

void qn__emu_proxy_fence(warp *w) {
  join(w->pvc, w->vc, w->cta->cluster->agents_used);
  advance(w);
}

/* A new cluster: all that was before is in everybody's past. */
void qn__emu_clock_start(cluster *c) {
  uint32_t base = c->now, n = c->nagents;
  for (uint32_t r = 0; r < c->nctas; r++)
    for (uint32_t k = 0; k < c->ctas[r].nwarps; k++) {
      warp *w = &c->ctas[r].warps[k];
      for (uint32_t a = 0; a < n; a++) w->vc[a] = w->pvc[a] = base;
      advance(w);
      w->safe = w->near = base;
    }
}

/* ---- Grids in a row ---------------------------------------------------------------------------------------------- */

/* PTX ISA, "griddepcontrol". A wait of one lane counts for its warp, and for all that are ordered after it. */
void qn__emu_grid_wait(warp *w) {
  uint32_t *first = &w->cta->cluster->waited[w->agent];
  w->early = false, *first = *first ? *first : w->vc[w->agent];
}

static bool behind_a_wait(const warp *w) {
  const cluster *c = w->cta->cluster;
  for (uint32_t a = 0; a < c->nctas * w->cta->nwarps; a++)
    if (c->waited[a] && c->waited[a] <= w->vc[a]) return true;
  return false;
}

void qn__emu_early(warp *w, int lane, uint64_t address, uint64_t bytes, bool write) {
  const run *r = w->worker->run;
  if (behind_a_wait(w)) {
    w->early = false;
    return;
  }
  const block *b = block_at(r->device, address);
  for (int k = 0; k < QN_EMU_CONSTANTS && !write; k++)
    if (r->how.constant[k] && block_holds(b, r->how.constant[k], 1)) return;
  if (b && b->owned && !write) return;
  qn__emu_find(w, lane, QN_EMU_F_GRID, "%s of %llu bytes at 0x%llx, which the grid in front may %s",
               write ? "write" : "read", (unsigned long long)bytes, (unsigned long long)address,
               write ? "still use" : "not have written yet");
}

/* ---- Global memory ----------------------------------------------------------------------------------------------- */

static const char *near_block(const qn_emu *e, uint64_t address, char text[96]) {
  const block *best = NULL;
  for (uint32_t k = 1; k < e->nblocks; k++) {
    const block *b = e->blocks[k];
    if (b && address >= b->base && (!best || b->base > best->base)) best = b;
  }
  if (!best || address - best->base > best->size * 2 + (1 << 20)) return "no allocation is near";
  snprintf(text, 96, "offset %llu of an allocation of %llu bytes", (unsigned long long)(address - best->base),
           (unsigned long long)best->size);
  return text;
}

uint8_t *qn__emu_global_at(warp *w, int lane, uint64_t address, uint64_t bytes, bool write) {
  worker *k = w->worker;
  block *b = k->last;
  char text[96];
  if (!block_holds(b, address, bytes)) b = k->last = block_at(k->run->device, address);
  if (!block_holds(b, address, bytes)) {
    qn__emu_find(w, lane, QN_EMU_F_BOUNDS, "%s of %llu global bytes at 0x%llx: %s", write ? "write" : "read",
                 (unsigned long long)bytes, (unsigned long long)address, near_block(k->run->device, address, text));
    return NULL;
  }
  if (write && b->readonly) {
    qn__emu_find(w, lane, QN_EMU_F_READONLY, "write to constant memory at 0x%llx", (unsigned long long)address);
    return NULL;
  }
  return b->data + (address - b->base);
}

uint8_t *qn__emu_global_use(warp *w, int lane, uint64_t address, uint64_t bytes, bool write) {
  if (w->early && lane >= 0) qn__emu_early(w, lane, address, bytes, write);
  uint8_t *p = qn__emu_global_at(w, lane, address, bytes, write);
  const block *b = w->worker->last;
  if (!p || !b->shadow || !checking(w, QN_EMU_INIT)) return p;
  uint8_t *s = b->shadow + (address - b->base);
  if (write) memset(s, B_WRITTEN, bytes);
  for (uint64_t k = 0; !write && k < bytes; k++)
    if (s[k] != B_WRITTEN) {
      qn__emu_find(w, lane, QN_EMU_F_UNINIT, "read of byte %llu of an allocation of %llu that nothing wrote",
                   (unsigned long long)(address + k - b->base), (unsigned long long)b->size);
      memset(s, B_WRITTEN, bytes);
      break;
    }
  return p;
}
