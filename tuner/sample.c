/* sample.c - the rule of sample.h. */
#include "sample.h"
#include "fail.h"
#include <math.h>

#define QUIET 0.88     /* of the best pace */
#define STEADY 0.97    /* likewise: the clock is up */
#define HALF_LIFE 60   /* seconds, of the best pace */
#define TOLERATED 0.02 /* of a sample's time, lost to something else */
#define WAKING 30e-6   /* seconds that threads which slept may wait for a core that is free: less than anyone's turn */
enum { steady_looks = 10, most_looks = 400, patience = 5, looks_before = 20 };

static double look(qn_sampler *s) {
  double pace = s->on.pace(s->on.ud), now = s->on.now(s->on.ud);
  s->best *= exp2((s->at - now) / HALF_LIFE);
  s->at = now;
  if (pace > s->best) s->best = pace;
  return pace;
}

static bool quiet(qn_sampler *s) {
  double pace = look(s);
  return pace >= QUIET * s->best;
}

void qn__sampler_warm(qn_sampler *s) {
  for (int i = 0, steady = 0; i < most_looks && steady < steady_looks; i++)
    steady = look(s) >= STEADY * s->best ? steady + 1 : 0;
}

qn_sampling qn__sampling_begin(qn_sampler *s, int count) {
  for (int i = 0; i < looks_before && !quiet(s); i++) {
  } /* a core that slept is slow at first */
  return (qn_sampling){.by = s, .patience = s->busy ? count : patience * count};
}

/* Take one between two looks at the machine. */
static qn_status take_one(qn_sampler *s, qn_take *take, void *ud, qn_sample *out) {
  const qn_machine *on = &s->on;
  bool calm = quiet(s);
  on->lost(on->ud);
  double start = on->now(on->ud);
  QN_TRY(take(ud, out));
  double elapsed = on->now(on->ud) - start, lost = on->lost(on->ud);
  out->disturbed = !calm || lost > TOLERATED * elapsed + WAKING || !quiet(s);
  return QN_OK;
}

qn_status qn__sample(qn_sampling *x, qn_take *take, void *ud, qn_sample *out) {
  for (;; x->patience--, x->thrown++) {
    QN_TRY(take_one(x->by, take, ud, out));
    if (!out->disturbed || x->patience <= 0) break;
  }
  x->by->busy = out->disturbed;
  x->disturbed += out->disturbed;
  return QN_OK;
}
