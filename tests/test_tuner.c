/* test_tuner.c - whole runs over small problems: what is chosen, what is refused, what a second run still has to do,
 * and what a budget leaves. Times themselves are never asserted; where one candidate must win, the other is made a
 * thousand times slower. */
#include "tuner_runs.h"
#include <sys/wait.h>

/* ---- Runs -------------------------------------------------------------------------------------------------------- */

START_TEST(right_candidates_make_plans) {
  good_set();
  qn_tune_options o = options();
  qn_tune_result r = run(&o);
  check_result(&r);
  ck_assert_uint_eq(r.counts.compiled, 3);
  ck_assert_uint_eq(r.counts.verified, 3 + ROWS);
  ck_assert_uint_eq(r.counts.rejected, 0);
  ck_assert_uint_ge(r.counts.timed, 3 * 2 * 2); /* finals are counted, too */
  ck_assert_uint_eq(r.counts.timed_known, 0);
  ck_assert_ptr_nonnull(plan_of(&r, 0, QN_PLAN_DETERMINISTIC));
  ck_assert_ptr_nonnull(plan_of(&r, 0, QN_PLAN_BATCH_INVARIANT));
  const qn_plan *fastest = plan_of(&r, 0, QN_PLAN_FASTEST);
  ck_assert_uint_eq(fastest->n_points, QN_COUNT(profile));
  for (uint32_t i = 0; i < fastest->n_points; i++) ck_assert(fastest->point[i].seconds > 0);
  for (uint32_t i = 0; i < fastest->n_ranges; i++) ck_assert(fastest->range[i].error <= 1);
  qn__tune_result_free(&r);
}
END_TEST

START_TEST(second_run_does_nothing_again) {
  good_set();
  qn_tune_options o = options();
  qn_tune_result first = run(&o), second = run(&o);
  ck_assert_uint_eq(second.counts.compiled, 0);
  ck_assert_uint_eq(second.counts.compile_known, 3);
  ck_assert_uint_eq(second.counts.verified, 0);
  ck_assert_uint_eq(second.counts.verify_known, 3 + ROWS);
  ck_assert_uint_eq(second.counts.timed, 0);
  ck_assert_uint_eq(second.counts.timed_known, first.counts.timed);
  check_same_plans(&first, &second);
  qn__tune_result_free(&first);
  qn__tune_result_free(&second);
}
END_TEST

START_TEST(wrong_candidates_are_refused_and_remembered) {
  add(NULL, "good", "t4.rows");
  add("CRASH", "crash", "t4.rows");
  add("TAIL", "tail", "t4.rows");
  add("OVERRUN_Y", "overrun", "t4.rows");
  add("LATE", "late", "t4.rows");
  qn_candidate *broken = add(NULL, "broken", "t4.rows");
  broken->source = "#error this does not compile\n";
  problems();
  qn_tune_options o = options();
  notes = 0;
  qn_tune_result r = run(&o);
  check_result(&r);
  ck_assert_uint_eq(r.counts.compile_failed, 1);
  ck_assert_uint_eq(r.counts.rejected, 5);
  ck_assert_uint_ge(r.counts.restarts, 1);
  ck_assert_int_ge(notes, 5);
  for (size_t i = 0; i < r.n_kernels; i++) ck_assert_str_eq(r.kernel[i].name, "good");
  qn__tune_result_free(&r);
  r = run(&o); /* nothing wrong is run again */
  ck_assert_uint_eq(r.counts.compiled + r.counts.verified + r.counts.timed + r.counts.restarts, 0);
  ck_assert_uint_eq(r.counts.rejected, 5);
  qn__tune_result_free(&r);
}
END_TEST

START_TEST(new_candidate_is_all_the_work_there_is) {
  good_set();
  qn_tune_options o = options();
  qn_tune_result r = run(&o);
  qn__tune_result_free(&r);
  add(NULL, "good-d", "t4.rows");
  problems();
  r = run(&o);
  ck_assert_uint_eq(r.counts.compiled, 1);
  ck_assert_uint_ge(r.counts.verified, 1);
  ck_assert_uint_le(r.counts.verified, 1 + ROWS); /* if it won */
  ck_assert_uint_ge(r.counts.timed, 1 * 2 * 2);
  ck_assert_uint_ge(r.counts.timed_known, 3 * 2 * 2);
  qn__tune_result_free(&r);
}
END_TEST

START_TEST(nothing_right_is_an_error) {
  add("TAIL", "tail", "t4.rows");
  problems();
  qn_tune_options o = options();
  qn_tune_result r;
  ck_assert_int_eq(qn__tune(set.problem, 1, &o, &r), QN_E_NO_KERNEL);
  ck_assert_ptr_nonnull(strstr(qn__errmsg(), set.problem[0].problem.spelling));
  ck_assert_uint_eq(r.n_plans, 0);
}
END_TEST

START_TEST(check_only_times_nothing) {
  good_set();
  qn_tune_options o = options();
  o.check_only = 1;
  qn_tune_result r = run(&o);
  ck_assert_uint_eq(r.counts.verified, 3);
  ck_assert_uint_eq(r.counts.timed, 0);
  qn__tune_result_free(&r);
}
END_TEST

/* ---- Evidence that is not believed ------------------------------------------------------------------------------- */

static uint32_t marks_of(const qn_tune_result *r) {
  const qn_plan *p = plan_of(r, 0, QN_PLAN_FASTEST);
  uint32_t all = 0;
  for (uint32_t i = 0; i < p->n_points; i++) all |= p->point[i].marks;
  return all;
}

/* While a file is there the worker says that the machine is busy. What is timed then is marked in the result and in the
 * store, also for who has no time or is the same run, until it is taken again, once. */
START_TEST(disturbed_times_are_marked_and_taken_again) {
  char path[64];
  good_set();
  qn_tune_options o = options();
  o.worker = script_worker("", "[ ! -e busy ] || more='\"thrown\":5,\"disturbed\":1,'");
  snprintf(path, sizeof path, "%s/busy", folder);
  fclose(fopen(path, "w"));
  o.run = "one of several calls";
  qn_tune_result first = run(&o), next = run(&o);
  ck_assert_uint_eq(next.counts.timed + next.counts.samples, 0);
  o.run = NULL;
  ck_assert_uint_eq(first.counts.disturbed, first.counts.samples);
  ck_assert_uint_eq(first.counts.thrown, 5 * first.counts.samples);
  ck_assert_uint_eq(first.counts.again, 0);
  ck_assert(marks_of(&first) & QN_DISTURBED);
  o.budget = 1e-3;
  qn_tune_result hasty = run(&o);
  ck_assert_uint_eq(hasty.counts.again + hasty.counts.samples, 0);
  ck_assert(marks_of(&hasty) & QN_DISTURBED);
  o.budget = 0;
  ck_assert_int_eq(remove(path), 0);
  qn_tune_result quiet = run(&o), last = run(&o);
  ck_assert_uint_eq(quiet.counts.timed, first.counts.timed);
  ck_assert_uint_eq(quiet.counts.again, first.counts.timed);
  ck_assert_uint_eq(quiet.counts.disturbed, 0);
  ck_assert_uint_eq(marks_of(&quiet) & QN_DISTURBED, 0);
  ck_assert_uint_eq(last.counts.timed + last.counts.samples, 0);
  qn_tune_result *all[] = {&first, &next, &hasty, &quiet, &last};
  for (size_t i = 0; i < QN_COUNT(all); i++) qn__tune_result_free(all[i]);
}
END_TEST

/* Whom a busy machine made the winner goes for one and a half per cent, as anybody; whom a quiet one did, does not. */
START_TEST(winner_of_a_busy_run_has_no_privilege) {
  char path[64];
  add(NULL, "one", "t4.rows");
  add(NULL, "other", "t4.rows");
  problems();
  qn_tune_options o = options();
  o.retime = 1;
  o.worker = script_worker("", "[ ! -e busy ] || more='\"disturbed\":1,'; [ -e quiet ] && other=985 || other=2000; "
                               "[ $name = one ] || seconds=${other}e-6");
  snprintf(path, sizeof path, "%s/busy", folder);
  if (_i) fclose(fopen(path, "w"));
  qn_tune_result first = run(&o);
  if (_i) ck_assert_int_eq(remove(path), 0);
  snprintf(path, sizeof path, "%s/quiet", folder);
  fclose(fopen(path, "w"));
  qn_tune_result second = run(&o);
  ck_assert_str_eq(plan_of(&first, 0, QN_PLAN_FASTEST)->range[0].variant, set.hash[0]);
  ck_assert_str_eq(plan_of(&second, 0, QN_PLAN_FASTEST)->range[0].variant, set.hash[_i]);
  qn__tune_result_free(&first);
  qn__tune_result_free(&second);
}
END_TEST

/* All is taken again because the user says so: once, whatever the number of plans that ask for it. */
START_TEST(retiming_takes_all_again) {
  good_set();
  qn_tune_options o = options();
  o.worker = script_worker("", "");
  qn_tune_result first = run(&o);
  o.retime = 1;
  qn_tune_result again = run(&o);
  ck_assert_uint_eq(again.counts.timed, first.counts.timed);
  ck_assert_uint_eq(again.counts.again, first.counts.timed);
  qn__tune_result_free(&first);
  qn__tune_result_free(&again);
}
END_TEST

/* ---- Budgets ----------------------------------------------------------------------------------------------------- */

/* Nothing is timed, and of three candidates only the plain one is made sure of. What a later run adds is kept. */
START_TEST(spent_budget_ends_with_a_plain_kernel) {
  good_set();
  qn_tune_options o = options();
  o.budget = 1e-3;
  qn_tune_result r = run(&o);
  check_result(&r);
  ck_assert_uint_eq(r.counts.timed + r.counts.timed_known, 0);
  ck_assert_uint_eq(r.counts.verified, 1);
  ck_assert_uint_eq(r.counts.cut, 2 + QN_COUNT(set.problem) * QN_COUNT(profile)); /* verified; timed, the plain one */
  for (size_t i = 0; i < r.n_plans; i++) {
    ck_assert_uint_eq(r.plan[i].n_points, 0);
    ck_assert_str_eq(r.plan[i].range[0].variant, set.hash[0]);
  }
  qn__tune_result_free(&r);
  o.budget = 0;
  r = run(&o);
  ck_assert_uint_eq(r.counts.cut, 0);
  ck_assert_uint_eq(plan_of(&r, 1, QN_PLAN_FASTEST)->n_points, QN_COUNT(profile));
  o.budget = 1e-3;
  qn_tune_result again = run(&o); /* what is known costs no time */
  check_same_plans(&r, &again);
  ck_assert_uint_eq(again.counts.cut, 0);
  qn__tune_result_free(&r);
  qn__tune_result_free(&again);
}
END_TEST

/* What is made sure of in spite of the budget was not left out. */
START_TEST(only_what_is_missing_was_cut) {
  good_set();
  qn_tune_options o = options();
  o.budget = 1e-3;
  o.check_only = 1;
  qn_tune_result r = run(&o);
  ck_assert_uint_eq(r.counts.verified, 1);
  ck_assert_uint_eq(r.counts.cut, 2);
  qn__tune_result_free(&r);
}
END_TEST

static void many_kernels(void) {
  static char remark[MOST][16];
  for (int i = 0; i < MOST; i++) {
    snprintf(remark[i], sizeof remark[i], "good-%d", i);
    add(NULL, remark[i], "t4.rows");
  }
  problems();
}

/* A compiler that takes a third of a second: a budget of one ends while most candidates are not made. */
START_TEST(budget_ends_the_compiling) {
  many_kernels();
  script_compiler("sleep 0.33");
  qn_tune_options o = options();
  o.budget = 1;
  qn_tune_result r = run(&o);
  check_result(&r);
  ck_assert_uint_ge(r.counts.compiled, 1);
  ck_assert_uint_lt(r.counts.compiled, MOST);
  qn__tune_result_free(&r);
}
END_TEST

/* The compiler never ends with the first kernels, which are plain: the budget ends it, and others serve. */
static const char *const hangs[] = {"once 1 && exec sleep 1000", "once 1 || once 2 && exec sleep 1000"};

START_TEST(budget_holds_though_a_compiler_hangs) {
  good_set();
  script_compiler(hangs[_i]);
  qn_tune_options o = options();
  o.worker = script_worker("", "");
  o.threads = 2 + _i; /* one more than hang */
  o.budget = 4;
  qn_tune_result r = run(&o);
  check_result(&r);
  ck_assert_uint_eq(r.counts.rejected, 0);
  qn__tune_result_free(&r);
  r = run(&o); /* nothing is remembered against it */
  ck_assert_uint_eq(r.counts.compile_failed, 0);
  qn__tune_result_free(&r);
}
END_TEST

/* Two runs on one store, the second begun while the first compiles: together they make each kernel about once. */
START_TEST(runs_share_what_they_compile) {
  int made = 0;
  many_kernels();
  script_compiler("sleep 0.2; echo >>$0.log");
  qn_tune_options o = options();
  o.worker = script_worker("", "");
  o.threads = 1;
  o.check_only = 1;
  pid_t other = start_run(&o);
  char log[64];
  snprintf(log, sizeof log, "%s/cc.log", folder);
  while (access(log, F_OK)) usleep(10000);
  qn_tune_result r = run(&o);
  qn__tune_result_free(&r);
  waitpid(other, NULL, 0);
  FILE *f = fopen(log, "r");
  for (int c; (c = fgetc(f)) != EOF;) made += c == '\n';
  fclose(f);
  ck_assert_msg(made <= MOST + MOST / 2, "%d compilations of %d kernels", made, MOST);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(right_candidates_make_plans, 1),
      CASE(second_run_does_nothing_again, 1),
      CASE(wrong_candidates_are_refused_and_remembered, 1),
      CASE(new_candidate_is_all_the_work_there_is, 1),
      CASE(nothing_right_is_an_error, 1),
      CASE(check_only_times_nothing, 1),
      CASE(disturbed_times_are_marked_and_taken_again, 1),
      CASE(winner_of_a_busy_run_has_no_privilege, 2),
      CASE(retiming_takes_all_again, 1),
      CASE(spent_budget_ends_with_a_plain_kernel, 1),
      CASE(only_what_is_missing_was_cut, 1),
      CASE(budget_ends_the_compiling, 1),
      CASE(budget_holds_though_a_compiler_hangs, QN_COUNT(hangs)),
      CASE(runs_share_what_they_compile, 1),
  };
  return RUN_CASES(argv[0], cases, init, fini, 120);
}
