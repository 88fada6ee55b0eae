/* contest.h - the field of candidates of one problem: raced (race.c), narrowed down to a winner (finals.c), made into
 * plans (plan.c). */
#ifndef QN_CONTEST_H
#define QN_CONTEST_H
#include "range.h"
#include "run.h"

typedef struct qn_racer {
  qn_entrant *e;
  qn_point lap[QN_PLAN_POINTS]; /* what it took at M number i of the contest; 0 seconds: not timed */
  double pace[QN_PLAN_POINTS];  /* what the fastest takes today, as a share of what it took when that was measured */
} qn_racer;

typedef struct qn_contest {
  qn_tuning *r;
  const qn_tune_problem *p;
  qn_racer *racer;
  size_t n;
  int64_t m[QN_PLAN_POINTS]; /* those of the profile at which anything was timed */
  size_t n_m;
  double best[QN_PLAN_POINTS]; /* seconds, of the race */
  double end;                  /* of its share of the budget */
  qn_plan_kind kind;           /* of the plan that is being made: who may take part */
  uint32_t halfway;            /* marks of the meetings before the M that is being planned */
  const char *layout;          /* hash; likewise. NULL: any */
} qn_contest;

/* Seconds that a lap would take today: laps of different hours are compared by these. 0: not timed. */
static inline double qn__lap(const qn_racer *c, size_t i) { return c->lap[i].seconds * c->pace[i]; }

/* Verified, nothing held against it, and fit for the plan that is being made? */
bool qn__contest_stands(const qn_contest *f, const qn_racer *c);

/* Time all that stand, at every M for which there is time. */
qn_status qn__contest_race(qn_contest *f);

/* Time it at M in a worker that runs nothing else, as the step `key`: a kernel that is at fault is rejected. */
qn_status qn__contest_alone(qn_contest *f, const qn_racer *c, int64_t m, const char *key);

/* Who serves m: the M number `last` of the contest, or one between that and the M before it, number `first`. The winner
 * of the finals, else, if first = last, of the race. `incumbent` (of the last tuning) and `neighbour` (of the M before)
 * are hashes, or NULL; either goes before others that are as fast. NULL in *winner: nobody was timed, else *x says what
 * the winner took. */
qn_status qn__contest_final(qn_contest *f, size_t first, size_t last, int64_t m, const char *incumbent,
                            const char *neighbour, const qn_racer **winner, qn_point *x);

/* The fastest of each layout meet at M number i: what they took there is their lap from now on. */
qn_status qn__contest_layouts(qn_contest *f, size_t i);
#endif
