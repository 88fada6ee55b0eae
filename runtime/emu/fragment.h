/* fragment.h - lanes of a warp that stand at one pc: put in their list, taken out, woken. */
#ifndef QN_EMU_FRAGMENT_H
#define QN_EMU_FRAGMENT_H
#include "machine.h"

static inline void frag_remove(warp *w, int k) {
  memmove(&w->frags[k], &w->frags[k + 1], sizeof(frag) * (size_t)(--w->nfrags - k));
}

/* Add lanes at pc; they join lanes that stand there in the same state. Sorted by pc. */
static inline frag *frag_add(warp *w, uint32_t pc, uint32_t mask, frag_state state) {
  int k = 0;
  for (; k < w->nfrags && w->frags[k].pc <= pc; k++)
    if (w->frags[k].pc == pc && w->frags[k].state == state && (state == FR_RUN || state == FR_SYNC)) {
      w->frags[k].mask |= mask;
      return &w->frags[k];
    }
  memmove(&w->frags[k + 1], &w->frags[k], sizeof(frag) * (size_t)(w->nfrags++ - k));
  w->frags[k] = (frag){.pc = pc, .mask = mask, .state = (uint8_t)state};
  return &w->frags[k];
}

/* Release fragments of a state (and barrier id), which then join those that run at their pc. */
static inline void wake(warp *w, frag_state state, int id) {
  frag old[LANES];
  int n = w->nfrags;
  memcpy(old, w->frags, sizeof old);
  w->nfrags = 0;
  for (int k = 0; k < n; k++) {
    bool hit = old[k].state == state && (id < 0 || old[k].id == id);
    frag *f = frag_add(w, old[k].pc, old[k].mask, hit ? FR_RUN : (frag_state)old[k].state);
    if (!hit && f->mask == old[k].mask) *f = old[k];
  }
}
#endif
