/* reach.h - a request of a warp becomes one host pointer per lane, all checks and counts done on the way.
 *
 * The common cases, a whole request inside one allocation or inside the CTA's own shared memory, are checked for all
 * lanes at once; anything suspicious goes lane by lane through the functions that know how to report it. */
#ifndef QN_EMU_REACH_H
#define QN_EMU_REACH_H
#include "shadow.h"

/* Addresses of an operand: rows of 32 bits are marked in bit 0 of the row (qn__emu_address). */
static inline void row_addresses(const warp *w, uint32_t row, int64_t offset, uint64_t ad[LANES]) {
  if (row & 1) {
    const uint32_t *a = ROW(uint32_t, row & ~1u);
    EACH_LANE(l) ad[l] = a[l] + (uint64_t)offset;
  } else {
    const uint64_t *a = ROW(uint64_t, row);
    EACH_LANE(l) ad[l] = a[l] + (uint64_t)offset;
  }
}

static inline uint32_t aligned_lanes(warp *w, const uint64_t ad[LANES], uint32_t mask, uint32_t bytes) {
  uint64_t bits = 0;
  EACH_LANE(l) bits |= mask >> l & 1 ? ad[l] : 0;
  if (!(bits & (bytes - 1))) return mask;
  EACH_SET(l, mask) {
    if (!(ad[l] & (bytes - 1))) continue;
    qn__emu_find(w, (int)l, QN_EMU_F_ALIGN, "address 0x%llx of an access of %u bytes", (unsigned long long)ad[l],
                 bytes);
    mask &= ~(1u << l);
  }
  return mask;
}

/* Pointers of the lanes into global memory; returns the lanes that may go on. */
static inline uint32_t reach_global(warp *w, const uint64_t ad[LANES], uint32_t mask, uint32_t bytes, bool store,
                                    uint8_t *p[LANES]) {
  if (!mask) return 0;
  if (checking(w, QN_EMU_COUNT)) qn__emu_count_global(w, ad, mask, bytes, store);
  block *b = w->worker->last;
  uint32_t first = (uint32_t)__builtin_ctz(mask);
  if (!block_holds(b, ad[first], bytes)) b = block_at(w->worker->run->device, ad[first]);
  bool all = b && !(store && b->readonly) && b->size >= bytes && (!b->shadow || !checking(w, QN_EMU_INIT));
  if (all) {
    uint32_t outside = 0;
    uint64_t room = b->size - bytes;
    EACH_LANE(l) outside |= (uint32_t)(ad[l] - b->base > room) << l;
    all = !(outside & mask);
  }
  if (all) {
    w->worker->last = b;
    if (w->early) EACH_SET(l, mask) qn__emu_early(w, (int)l, ad[l], bytes, store);
    EACH_LANE(l) p[l] = (uint8_t *)((uintptr_t)b->data + (ad[l] - b->base)); /* of idle lanes: never used */
    return mask;
  }
  EACH_SET(l, mask) {
    p[l] = qn__emu_global_use(w, (int)l, ad[l], bytes, store);
    if (!p[l]) mask &= ~(1u << l);
  }
  return mask;
}

/* All lanes, one behind the other from the first on. */
static inline bool contiguous(const uint32_t a[LANES], uint32_t mask, uint32_t bytes) {
  uint32_t off = 0;
  EACH_LANE(l) off |= a[l] ^ (a[0] + (uint32_t)l * bytes);
  return mask == ALL && !off;
}

/* The same for shared memory. */
static inline uint32_t reach_shared(warp *w, const uint32_t a[LANES], uint32_t mask, uint32_t bytes, touch how,
                                    uint8_t *p[LANES]) {
  cta *own = w->cta;
  if (!mask) return 0;
  if (checking(w, QN_EMU_COUNT)) qn__emu_count_shared(w, a, mask, bytes);
  uint32_t outside = 0, room = own->size - SHARED_BASE - bytes;
  EACH_LANE(l) outside |= (uint32_t)(a[l] - SHARED_BASE > room) << l;
  if (own->size - SHARED_BASE < bytes || outside & mask) {
    EACH_SET(l, mask) {
      uint32_t at;
      cta *c = qn__emu_shared_at(w, (int)l, a[l], bytes, &at);
      if (c) touch_range(w, (int)l, c, at, bytes, how), p[l] = c->data + at;
      else mask &= ~(1u << l);
    }
    return mask;
  }
  EACH_LANE(l) p[l] = (uint8_t *)((uintptr_t)own->data + a[l]);
  if (contiguous(a, mask, bytes)) touch_range(w, 0, own, a[0], bytes * LANES, how);
  else if (bytes == 16) {
    EACH_SET(l, mask) if (!plain_words(w, own, a[l], 4, how)) qn__emu_touch(w, (int)l, own, a[l], 16, how);
  } else EACH_SET(l, mask) touch_range(w, (int)l, own, a[l], bytes, how);
  return mask;
}
#endif
