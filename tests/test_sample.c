/* test_sample.c - which samples count, on a machine that is simulated: its clock, its pace, and what disturbs it. */
#include "fail.h"
#include "sample.h"
#include "stats.h"
#include "suite.h"
#include <math.h>

#define STEP 1e-5
#define WORK 1e-3       /* seconds of a sample on a quiet machine */
#define ARITHMETIC 1e-4 /* of a look */
#define PACE 1e9
enum { count = 15 };

/* Busy from `from` to `to`, on and off if it has a period. */
typedef struct machine {
  double now, lost, from, to, period;
  bool neighbour; /* on the same core, which the system does not see; else another process in our place */
  double slow;    /* seconds that the clock takes to come up, from half its rate */
  double down;    /* from here on it runs at four fifths for good; 0: it does not */
  double waking;  /* seconds that a sample begins with, as its threads slept and wait for a core */
  int left;       /* samples until one fails; 0: none does */
} machine;

static bool busy(const machine *m) {
  bool on = !(m->period > 0) || fmod(m->now, m->period) < m->period / 2;
  return m->now >= m->from && m->now < m->to && on;
}

/* Seconds that work of so many quiet seconds takes. Half of what passes is the disturber's. */
static double spend(machine *m, double work) {
  double start = m->now;
  for (double done = 0; done < work * (1 - 1e-9);) {
    double rate = m->now < m->slow ? 0.5 + 0.5 * m->now / m->slow : 1;
    if (m->down > 0 && m->now >= m->down) rate *= 0.8;
    if (busy(m)) {
      rate /= 2;
      if (!m->neighbour) m->lost += STEP / 2;
    }
    done += STEP * rate;
    m->now += STEP;
  }
  return m->now - start;
}

static double now(void *ud) { return ((machine *)ud)->now; }
static double lost(void *ud) {
  machine *m = ud;
  double seconds = m->lost;
  m->lost = 0;
  return seconds;
}
static double pace(void *ud) { return PACE * ARITHMETIC / spend(ud, ARITHMETIC); }

static qn_status take(void *ud, qn_sample *out) {
  machine *m = ud;
  if (m->left && !--m->left) return qn__fail(QN_E_WRONG, "a fault of the kernel");
  m->now += m->waking, m->lost += m->waking;
  *out = (qn_sample){.seconds = m->waking + spend(m, WORK)};
  return QN_OK;
}

typedef struct result {
  double seconds, spread;
  int thrown, disturbed;
} result;

static qn_sampler sampler_of(machine *m) { return (qn_sampler){.on = {now, pace, lost, m}}; }

static result measure(qn_sampler *s) {
  double t[count];
  qn_sampling x = qn__sampling_begin(s, count);
  for (int i = 0; i < count; i++) {
    qn_sample one;
    ck_assert_int_eq(qn__sample(&x, take, s->on.ud, &one), QN_OK);
    t[i] = one.seconds;
  }
  return (result){qn__median(t, count), qn__spread(t, count), x.thrown, x.disturbed};
}

/* Whatever happens, a time is right within its spread, or marked. */
static void check_honest(const result *r, double work, int i) {
  double wrong = fabs(r->seconds / work - 1);
  ck_assert_msg(r->disturbed || wrong <= r->spread + 1e-3, "case %d: %.0f%% wrong, spread %.0f%%, no mark", i,
                100 * wrong, 100 * r->spread);
}

#define EVER 1e9
static const struct {
  machine on;
  bool marked, thrown;
} cases[] = {
    {{0}, false, false},                                                 /* nothing disturbs it */
    {{.slow = 5e-3}, false, false},                                      /* its clock comes up first */
    {{.to = EVER}, true, true},                                          /* another process, from before the start */
    {{.from = 5e-3, .to = EVER}, true, true},                            /* from soon after the start */
    {{.from = 5e-3, .to = EVER, .neighbour = true}, true, true},         /* a neighbour */
    {{.from = 5e-3, .to = 1.5e-2}, false, true},                         /* for a while */
    {{.from = 5e-3, .to = 1.5e-2, .neighbour = true}, false, true},      /* likewise */
    {{.to = EVER, .period = 2e-2}, false, true},                         /* half of the time */
    {{.to = EVER, .period = 2e-2, .neighbour = true}, false, true},      /* likewise */
    {{.from = 6.25e-3, .to = 6.75e-3, .neighbour = false}, false, true}, /* between two looks */
    {{.waking = 4.5e-5}, false, false},                                  /* as long as waking takes, and no turn */
    {{.waking = 1e-4}, true, true},                                      /* too long for that */
};

START_TEST(times_are_right_or_marked) {
  machine m = cases[_i].on;
  qn_sampler s = sampler_of(&m);
  qn__sampler_warm(&s);
  result r = measure(&s);
  check_honest(&r, WORK + m.waking, _i);
  ck_assert_msg((r.disturbed > 0) == cases[_i].marked && (r.thrown > 0) == cases[_i].thrown,
                "case %d: %d disturbed, %d thrown", _i, r.disturbed, r.thrown);
}
END_TEST

/* Where waiting did not help the next do not wait as long; once the machine is quiet again they count. */
START_TEST(patience_ends_and_comes_back) {
  machine m = {.to = 0.5};
  qn_sampler s = sampler_of(&m);
  qn__sampler_warm(&s);
  result first = measure(&s), second = measure(&s);
  ck_assert_int_eq(first.disturbed, count);
  ck_assert_int_eq(second.disturbed, count);
  ck_assert_int_le(second.thrown, count);
  ck_assert_int_lt(second.thrown, first.thrown);
  m.now = m.to;
  result third = measure(&s), fourth = measure(&s);
  ck_assert_int_eq(third.disturbed + third.thrown + fourth.disturbed + fourth.thrown, 0);
  check_honest(&third, WORK, 3);
}
END_TEST

/* A clock that came down to stay is the measure after some seconds. */
START_TEST(a_lower_clock_is_learned) {
  machine m = {.down = 1e-2};
  qn_sampler s = sampler_of(&m);
  qn__sampler_warm(&s);
  m.now = m.down;
  ck_assert_int_eq(measure(&s).disturbed, count);
  m.now += 20;
  ck_assert_int_eq(measure(&s).disturbed, 0);
}
END_TEST

/* A kernel that goes wrong while it is timed is not timed again. */
START_TEST(faults_end_it) {
  machine m = {.left = 1, .to = EVER};
  qn_sampler s = sampler_of(&m);
  qn_sampling x = qn__sampling_begin(&s, count);
  qn_sample one;
  ck_assert_int_eq(qn__sample(&x, take, &m, &one), QN_E_WRONG);
  ck_assert_int_eq(x.thrown + x.disturbed, 0);
}
END_TEST

/* Half of what lies between the outer tenths, over the median. */
static const struct {
  double x[10];
  size_t n;
  double spread;
} spreads[] = {
    {{0}, 0, 0},         {{1, 9}, 2, 0},         {{3, 3, 3}, 3, 0},
    {{2, 1, 3}, 3, 0.5}, {{4, 5, 6, 5}, 4, 0.2}, {{100, 10, 10, 10, 9, 9, 11, 11, 10, 1}, 10, 0.1},
};

START_TEST(spread_leaves_out_the_outer_tenths) {
  ck_assert_double_eq_tol(qn__spread(spreads[_i].x, spreads[_i].n), spreads[_i].spread, 1e-12);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case all[] = {
      CASE(times_are_right_or_marked, QN_COUNT(cases)),
      CASE(patience_ends_and_comes_back, 1),
      CASE(a_lower_clock_is_learned, 1),
      CASE(faults_end_it, 1),
      CASE(spread_leaves_out_the_outer_tenths, QN_COUNT(spreads)),
  };
  return RUN_CASES(argv[0], all, NULL, NULL, 60);
}
