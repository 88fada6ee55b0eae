/* counters.c - sectors of global requests and passes of shared requests, as ncu counts them.
 *
 * A global request touches 32-byte sectors; bytes that several lanes ask for are needed once. A shared request is
 * served in groups of lanes (32 lanes of 4 bytes, 16 of 8, 8 of 16); a group takes as many passes as the busiest of the
 * 32 banks has different words. */
#include "checks.h"

static const char *const kind_words[] = {
#define QN_X(name, word) word,
    QN_EMU_KIND_MAP(QN_X)
#undef QN_X
};
const char *qn__emu_kind_word(qn_emu_kind k) { return k < QN_EMU_KINDS ? kind_words[k] : "?"; }

void qn__emu_count_flight(cta *c, int64_t bytes) {
  uint64_t *most = &c->worker->counters.flight_bytes;
  c->flying += (uint64_t)bytes;
  *most = c->flying > *most ? c->flying : *most;
}

void qn__emu_count_read(worker *k, uint64_t address, uint64_t asked, uint64_t distinct) {
  uint64_t g = (address - GLOBAL_BASE) >> GRANULE_BITS;
  qn_emu_traffic *t = &k->traffic[g < GRANULES ? k->run->device->granules[g] : 0];
  t->asked += asked, t->distinct += distinct;
}

/* Bytes of a request that lanes share count once. */
static uint64_t distinct_bytes(const uint64_t *address, uint32_t mask, uint32_t bytes) {
  uint64_t seen[LANES], most = 0;
  int n = 0;
  EACH_SET(l, mask) {
    int k = address[l] > most ? -1 : n - 1; /* most requests rise from lane to lane */
    while (k >= 0 && seen[k] != address[l]) k--;
    if (k < 0) seen[n++] = address[l];
    most = address[l] > most ? address[l] : most;
  }
  return (uint64_t)n * bytes;
}

void qn__emu_count_global(warp *w, const uint64_t *address, uint32_t mask, uint32_t bytes, bool store) {
  uint64_t sectors[LANES * 2];
  int n = 0;
  EACH_SET(l, mask) {
    for (uint64_t s = address[l] >> 5; s <= (address[l] + bytes - 1) >> 5; s++) {
      int k = n - 1;
      while (k >= 0 && sectors[k] != s) k--;
      if (k < 0) sectors[n++] = s;
    }
  }
  qn_emu_counters *c = &w->worker->counters;
  uint64_t total = (uint64_t)__builtin_popcount(mask) * bytes, distinct = distinct_bytes(address, mask, bytes);
  c->global_requests++, c->global_sectors += (uint64_t)n, c->global_ideal += (distinct + 31) / 32;
  if (!store) qn__emu_count_read(w->worker, address[__builtin_ctz(mask)], total, distinct);
  *(store ? &c->global_store_bytes : &c->global_load_bytes) += total;
}

static int passes(const uint32_t *address, uint32_t mask, uint32_t bytes) {
  uint32_t words[32][LANES];
  uint8_t n[32] = {0}, most = 0;
  EACH_SET(l, mask) {
    for (uint32_t word = address[l] >> 2; word <= (address[l] + bytes - 1) >> 2; word++) {
      uint32_t bank = word & 31;
      int k = n[bank] - 1;
      while (k >= 0 && words[bank][k] != word) k--;
      if (k < 0) words[bank][n[bank]++] = word;
      if (n[bank] > most) most = n[bank];
    }
  }
  return most;
}

/* No two lanes use the same bank. */
static bool apart(const uint32_t *address, uint32_t mask, uint32_t bytes) {
  if (bytes < 4) return false; /* several may share a word */
  uint32_t used = 0, twice = 0, log = (uint32_t)__builtin_ctz(bytes), slots = 128 >> log;
  EACH_SET(l, mask) {
    uint32_t slot = 1u << (address[l] >> log & (slots - 1));
    twice |= used & slot;
    used |= slot;
  }
  return !twice;
}

void qn__emu_count_shared(warp *w, const uint32_t *address, uint32_t mask, uint32_t bytes) {
  qn_emu_counters *c = &w->worker->counters;
  uint32_t lanes = bytes <= 4 ? 32 : bytes == 8 ? 16 : 8;
  c->shared_requests++;
  for (uint32_t first = 0; first < LANES; first += lanes) {
    uint32_t active = mask & (lanes == 32 ? ALL : ((1u << lanes) - 1) << first);
    if (!active) continue;
    c->shared_passes += apart(address, active, bytes) ? 1 : (uint64_t)passes(address, active, bytes);
    c->shared_ideal++;
  }
}
