/* shadow.h - accesses to shared memory that are plainly right, settled by a few compares.
 *
 * Most requests find bytes that may be used (all written, or none of them in the hands of an async copy) and words
 * whose last use lies in the warp's past. They are accounted for here, a word or 16 bytes at a time, so that the
 * compiler makes one vector of four words. Whatever is less plain goes to qn__emu_touch, which decides and reports. */
#ifndef QN_EMU_SHADOW_H
#define QN_EMU_SHADOW_H
#include "checks.h"

typedef enum touch { GENERIC_READ, GENERIC_WRITE, ATOMIC, ASYNC_READ, ASYNC_WRITE, COPY_WRITE } touch;

/* The CTA and the offset of a shared address of any rank; NULL (and a finding) when it or its bytes are outside. */
cta *qn__emu_shared_at(warp *w, int lane, uint32_t address, uint32_t bytes, uint32_t *offset);
/* Account for an access to c's shared memory by `agent` (a warp's or an mbarrier's): shadow bytes and races. */
void qn__emu_touch(warp *w, int lane, cta *c, uint32_t at, uint32_t bytes, touch how);
/* The write of an async operation has landed: stamp the words with the agent's time, mark the bytes written. */
void qn__emu_land(warp *w, cta *c, uint32_t at, uint32_t bytes, uint32_t agent, uint32_t stamp, bool generic);
/* Set shadow bytes. */
void qn__emu_mark(cta *c, uint32_t at, uint32_t bytes, int state);

#define ALWAYS static inline __attribute__((always_inline))

#define EIGHT(state) ((state)*UINT64_C(0x0101010101010101))

/* Of eight shadow bytes: none is B_PENDING or B_MBARRIER. */
static inline bool bytes_free(uint64_t s) { return !((s ^ s >> 1) & EIGHT(1)); }

ALWAYS bool plain_bytes(const cta *c, uint32_t at, uint32_t words, bool write) {
  uint64_t s[2] = {UINT64_MAX, UINT64_MAX};
  memcpy(s, c->shadow + at, words * 4);
  return write ? bytes_free(s[0]) && bytes_free(s[1]) : (s[0] & s[1]) == UINT64_MAX;
}

ALWAYS uint32_t latest_of(const uint32_t *stamp, uint32_t word, uint32_t words) {
  uint32_t latest = 0;
  for (uint32_t k = word; k < word + words; k++) latest = latest > stamp[k] ? latest : stamp[k];
  return latest;
}

/* Every word was last written in the past of the warp. */
ALWAYS bool written_before(const warp *w, const cta *c, uint32_t word, uint32_t words) {
  uint32_t late = 0;
  if (latest_of(c->write_stamp, word, words) <= w->safe) return true;
  for (uint32_t k = word; k < word + words; k++) late |= c->write_stamp[k] > w->vc[c->write_agent[k]];
  return !late;
}

/* Every word was last read in the past of the warp. False: perhaps not. */
ALWAYS bool read_before(const warp *w, const cta *c, uint32_t word, uint32_t words) {
  return latest_of(c->read_last, word, words) <= (c == w->cta && !c->reached ? w->near : w->safe);
}

/* A proxy fence lies between every generic write of the words and now. */
ALWAYS bool fenced(const warp *w, const cta *c, uint32_t word, uint32_t words) {
  uint32_t late = 0;
  for (uint32_t k = word; k < word + words; k++)
    late |= c->generic[k] & (c->write_stamp[k] > w->pvc[c->write_agent[k]]);
  return !late;
}

ALWAYS void note_read(const warp *w, cta *c, uint32_t word, uint32_t words) {
  uint32_t now = w->vc[w->agent], *mine = c->read_stamp[w->agent];
  for (uint32_t k = word; k < word + words; k++) {
    mine[k] = now;
    c->read_last[k] = c->read_last[k] > now ? c->read_last[k] : now;
  }
}

ALWAYS void note_write(cta *c, uint32_t word, uint32_t words, uint32_t agent, uint32_t stamp, bool generic) {
  for (uint32_t k = word; k < word + words; k++) c->write_stamp[k] = stamp;
  for (uint32_t k = word; k < word + words; k++) c->write_agent[k] = (uint16_t)agent;
  memset(c->generic + word, generic, words);
}

/* Account for an access to 1 or 4 whole words. False: not plainly right, nothing was done. */
ALWAYS bool plain_words(const warp *w, cta *c, uint32_t at, uint32_t words, touch how) {
  bool write = how == GENERIC_WRITE || how == COPY_WRITE;
  uint32_t word = at / 4;
  if (c != w->cta) c->reached = true;
  if (checking(w, QN_EMU_INIT) && !plain_bytes(c, at, words, write)) return false;
  if (checking(w, QN_EMU_RACE) && !(written_before(w, c, word, words) && (!write || read_before(w, c, word, words))))
    return false;
  if (how == ASYNC_READ && checking(w, QN_EMU_PROXY) && !fenced(w, c, word, words)) return false;
  if (!write) return note_read(w, c, word, words), true;
  memset(c->shadow + at, how == COPY_WRITE ? B_PENDING : B_WRITTEN, words * 4);
  if (how == GENERIC_WRITE) note_write(c, word, words, w->agent, w->vc[w->agent], true);
  return true;
}

/* The 16 bytes of an async copy have landed. False: not all of them were in its hands, nothing was done. */
ALWAYS bool plain_landing(const warp *w, cta *c, uint32_t at, uint32_t agent, uint32_t stamp, bool generic) {
  uint64_t s[2];
  memcpy(s, c->shadow + at, 16);
  if (checking(w, QN_EMU_INIT) && ((s[0] ^ EIGHT(B_PENDING)) | (s[1] ^ EIGHT(B_PENDING)))) return false;
  memset(c->shadow + at, B_WRITTEN, 16);
  note_write(c, at / 4, 4, agent, stamp, generic);
  return true;
}

/* Account for an access of any size. */
ALWAYS void touch_range(warp *w, int lane, cta *c, uint32_t at, uint32_t bytes, touch how) {
  uint32_t step = !((at | bytes) & 15) ? 16 : !((at | bytes) & 3) ? 4 : bytes;
  for (uint32_t end = at + bytes; at < end; at += step)
    if (!(step == 16 ? plain_words(w, c, at, 4, how) : step == 4 && plain_words(w, c, at, 1, how)))
      qn__emu_touch(w, lane, c, at, step, how);
}
#endif
