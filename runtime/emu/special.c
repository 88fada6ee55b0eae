/* special.c - the special registers of a warp are rows, written when it starts. */
#include "machine.h"

const struct special qn__emu_specials[SPECIALS] = {
#define X(name, type, value) {name, type},
    SPECIAL_MAP(X)
#undef X
};

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
  for (int k = 0; k < SPECIALS; k++) {
    uint32_t row = r->module->specials[k], width = type_width(qn__emu_specials[k].type);
    if (row) memcpy(w->regs + row + lane * width, &values[k], width);
  }
}

void qn__emu_fill_specials(warp *w) {
  const run *r = w->worker->run;
  uint32_t clusters[3], in_cluster[3];
  for (int d = 0; d < 3; d++)
    clusters[d] = r->how.grid[d] / r->cluster[d], in_cluster[d] = w->cta->index[d] % r->cluster[d];
  EACH_LANE(l) fill_lane(w, (uint32_t)l, clusters, in_cluster);
}
