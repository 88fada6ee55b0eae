/* shadow.c - accesses to shared memory: which are wrong, and what each leaves behind. See checks.c for the order of
 * accesses. */
#include "shadow.h"

cta *qn__emu_shared_at(warp *w, int lane, uint32_t address, uint32_t bytes, uint32_t *offset) {
  uint32_t rank = address >> 24;
  cta *c = w->cta;
  *offset = address & SHARED_OFFSET;
  if (rank > c->cluster->nctas) {
    qn__emu_find(w, lane, QN_EMU_F_BOUNDS, "shared address 0x%x is of CTA %u of a cluster of %u", address, rank - 1,
                 c->cluster->nctas);
    return NULL;
  }
  if (rank) c = &c->cluster->ctas[rank - 1];
  if (*offset >= SHARED_BASE && *offset <= c->size && bytes <= c->size - *offset) return c;
  qn__emu_find(w, lane, QN_EMU_F_BOUNDS, "%u bytes at shared offset %d of a CTA that has %u", bytes,
               (int)*offset - (int)SHARED_BASE, c->size - SHARED_BASE);
  return NULL;
}

static bool is_write(touch how) { return how != GENERIC_READ && how != ASYNC_READ; }

/* The first byte whose state does not allow the access. */
static void check_bytes(warp *w, int lane, cta *c, uint32_t at, uint32_t bytes, touch how) {
  uint8_t *s = c->shadow + at;
  uint64_t eight;
  bool write = is_write(how) && how != ATOMIC; /* an atomic reads, too */
  for (uint32_t k = 0; k < bytes; k++) {
    if (bytes - k >= 8 && (memcpy(&eight, s + k, 8), eight == UINT64_MAX || (!eight && write))) {
      k += 7;
      continue;
    }
    if (s[k] == B_WRITTEN || (s[k] == B_UNWRITTEN && write)) continue;
    static const qn_emu_finding_kind kinds[] = {QN_EMU_F_UNINIT, QN_EMU_F_WAIT, QN_EMU_F_MBARRIER};
    static const char *const what[] = {"was never written", "is the target of an async copy not waited for",
                                       "belongs to an mbarrier"};
    qn__emu_find(w, lane, kinds[s[k] % 3], "%s of shared offset %u, which %s", write ? "write" : "read",
                 at + k - SHARED_BASE, what[s[k] % 3]);
    if (s[k] == B_UNWRITTEN) memset(s, B_WRITTEN, bytes); /* say it once */
    return;
  }
}

static void check_readers(warp *w, int lane, cta *c, uint32_t word) {
  uint32_t n = c->cluster->nctas * c->nwarps;
  for (uint32_t a = 0; a < n; a++)
    if (a != w->agent && c->read_stamp[a][word] > w->vc[a]) {
      qn__emu_find(w, lane, QN_EMU_F_RACE, "write of shared offset %u while warp %u may still read it",
                   word * 4 - SHARED_BASE, a % c->nwarps);
      c->read_stamp[a][word] = 0;
    }
}

/* Who wrote the word last and not in the past `vc`; -1: nobody. To an atomic other atomics do not matter. */
static int late_writer(const cta *c, uint32_t word, const uint32_t *vc, touch how) {
  uint32_t stamp = c->write_stamp[word], agent = c->write_agent[word], warps = c->cluster->nctas * c->nwarps;
  if (stamp != BY_ATOMICS) return stamp > vc[agent] ? (int)agent : -1;
  if (c->atomic_stamp[warps][word] > vc[agent]) return (int)agent;
  for (uint32_t a = 0; how != ATOMIC && a < warps; a++)
    if (c->atomic_stamp[a][word] > vc[a]) return (int)a;
  return -1;
}

static void note_atomic(const warp *w, cta *c, uint32_t word) {
  uint32_t warps = c->cluster->nctas * c->nwarps;
  if (c->write_stamp[word] != BY_ATOMICS) c->atomic_stamp[warps][word] = c->write_stamp[word];
  c->write_stamp[word] = BY_ATOMICS, c->generic[word] = true;
  c->atomic_stamp[w->agent][word] = w->vc[w->agent];
}

static void check_word(warp *w, int lane, cta *c, uint32_t word, touch how) {
  uint32_t stamp = c->write_stamp[word], warps = c->cluster->nctas * c->nwarps;
  int late = stamp > w->safe ? late_writer(c, word, w->vc, how) : -1;
  if (late >= 0) {
    uint32_t agent = (uint32_t)late;
    qn__emu_find(w, lane, QN_EMU_F_RACE, "%s of shared offset %u, with no order after the write by %s %u",
                 is_write(how) ? "write" : "read", word * 4 - SHARED_BASE, agent < warps ? "warp" : "async agent",
                 agent < warps ? agent % c->nwarps : agent - warps);
    c->write_stamp[word] = 0;
  }
  if (is_write(how) && c->read_last[word] > w->safe) check_readers(w, lane, c, word);
}

static void check_proxy(warp *w, int lane, cta *c, uint32_t word, touch how) {
  int late = c->generic[word] ? late_writer(c, word, w->pvc, how) : -1;
  if (late < 0) return;
  qn__emu_find(w, lane, QN_EMU_F_PROXY, "async %s of shared offset %u after a generic write by warp %u",
               is_write(how) ? "write" : "read", word * 4 - SHARED_BASE, (uint32_t)late % c->nwarps);
  c->generic[word] = 0;
}

/* Every word was last written, and for a write last read by each warp, in the past of w. */
static bool in_order(const warp *w, const cta *c, uint32_t first, uint32_t last, bool write) {
  uint32_t late = 0, words = last - first + 1;
  if (!written_before(w, c, first, words)) return false;
  if (!write || read_before(w, c, first, words)) return true;
  for (uint32_t a = 0; a < c->cluster->nctas * c->nwarps; a++)
    for (uint32_t k = first; k <= last; k++) late |= c->read_stamp[a][k] > w->vc[a];
  return !late;
}

void qn__emu_touch(warp *w, int lane, cta *c, uint32_t at, uint32_t bytes, touch how) {
  unsigned checks = w->worker->run->checks;
  bool write = is_write(how), async = how == ASYNC_READ || how == ASYNC_WRITE;
  if (!bytes) return;
  if (c != w->cta) c->reached = true;
  if (checks & QN_EMU_INIT) {
    check_bytes(w, lane, c, at, bytes, how);
    if (write) qn__emu_mark(c, at, bytes, how == GENERIC_WRITE || how == ATOMIC ? B_WRITTEN : B_PENDING);
  }
  uint32_t first = at / 4, last = (at + bytes - 1) / 4;
  if (checks & QN_EMU_RACE && !in_order(w, c, first, last, write))
    for (uint32_t word = first; word <= last; word++) check_word(w, lane, c, word, how);
  if (checks & QN_EMU_PROXY && async)
    for (uint32_t word = first; word <= last; word++) check_proxy(w, lane, c, word, how);
  if (!write) note_read(w, c, first, last - first + 1);
  else if (how == GENERIC_WRITE) note_write(c, first, last - first + 1, w->agent, w->vc[w->agent], true);
  else if (how == ATOMIC)
    for (uint32_t word = first; word <= last; word++) note_atomic(w, c, word);
}

void qn__emu_mark(cta *c, uint32_t at, uint32_t bytes, int state) {
  uint64_t eight = 0, found = 0;
  for (uint32_t k = 0; k + 8 <= bytes; k += 8) memcpy(&eight, c->shadow + at + k, 8), found |= eight ^ (eight << 1);
  if (!(bytes & 7) && !(found & UINT64_C(0x0404040404040404))) { /* no byte is B_MBARRIER */
    memset(c->shadow + at, state, bytes);
    return;
  }
  for (uint32_t k = 0; k < bytes; k++) /* an mbarrier is not undone by a stray write */
    if (c->shadow[at + k] != B_MBARRIER || state == B_MBARRIER) c->shadow[at + k] = (uint8_t)state;
}

void qn__emu_land(warp *w, cta *c, uint32_t at, uint32_t bytes, uint32_t agent, uint32_t stamp, bool generic) {
  if (checking(w, QN_EMU_INIT)) qn__emu_mark(c, at, bytes, B_WRITTEN);
  if (bytes) note_write(c, at / 4, (at + bytes - 1) / 4 - at / 4 + 1, agent, stamp, generic);
}
