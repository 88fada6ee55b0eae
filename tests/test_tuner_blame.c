/* test_tuner_blame.c - who is blamed for what goes wrong in a run, and what is remembered of it. */
#include "journal.h"
#include "tuner_runs.h"
#include <signal.h>
#include <sys/wait.h>

/* A run of three kernels with a script for a worker, then one with a script that finds nothing wrong. */
static const struct {
  const char *answer; /* what the first worker does (tuner_fixture.h) */
  size_t rejected, set_aside, remembered;
} blames[] = {
    /* somebody kills the worker, or memory is short: nobody's fault */
    {"[ $op$name = verifyb ] && once && kill -KILL $$", 0, 0, 0},
    {"[ $op$name = verifyb ] && kill -KILL $$", 0, 1, 0},
    {"[ $op$name = verifyb ] && status=$NOMEM", 0, 1, 0},
    {"[ $op$name = timeb ] && kill -TERM $$", 0, 1, 0},
    {"[ $op$slot = time1 ] && once && kill -KILL $$", 0, 0, 0},
    {"[ $op$slot = open1 ] && status=$NOMEM", 0, 0, 0},
    {"[ $op = rows ] && kill -KILL $$", 0, 3, 0},
    /* what another kernel did before: a worker of its own finds nothing wrong */
    {"[ $op$name$used = verifybtrue ] && status=$WRONG", 0, 0, 0},
    {"[ $op$name = verifyb ] && once && kill -SEGV $$", 0, 0, 0},
    {"[ $op$name = verifyb ] && once && status=$CUDA", 0, 0, 0},
    {"[ $op$slot = time1 ] && once && status=$CUDA", 0, 0, 0},
    {"[ $op$slot = time1 ] && kill -SEGV $$", 0, 0, 0}, /* in the finals, and right when alone */
    {"[ $op$name = verifyb ] && once && echo '{\"status\":0,\"id\":0}'", 0, 0, 0},
    {"[ $op$name = verifyb ] && echo '{\"status\":0,\"id\":'$id'}'", 0, 0, 0}, /* b's second answer meets c */
    /* the kernel's own, in every phase */
    {"[ $op$name = verifyb ] && status=$WRONG", 1, 0, 1},
    {"[ $op$name = verifyb ] && status=$CUDA", 1, 0, 1},
    {"[ $op$name = verifyb ] && kill -SEGV $$", 1, 0, 1},
    {"[ $op$name = openb ] && kill -SEGV $$", 1, 0, 1},
    {"[ $op$name = checkb ] && status=$WRONG", 1, 0, 1},
    {"[ $op$name = rowsb ] && status=$WRONG", 0, 0, 0}, /* a is asked, and keeps its promise */
    {"[ $op = rows ] && status=$WRONG", 3, 0, 3},
    {"[ $op$name = checkb ] && ! once 1 && ! once 2 && status=$WRONG", 1, 0, 1}, /* right in the race, in no final */
};

static void three_kernels(void) {
  add(NULL, "a", "t4.rows");
  add(NULL, "b", "t4.rows");
  add(NULL, "c", "t4.rows");
  problems();
}

START_TEST(only_the_kernel_at_fault_is_remembered) {
  three_kernels();
  qn_tune_options o = options();
  qn_tune_result r;
  o.worker = script_worker("", blames[_i].answer);
  qn_status s = qn__tune(set.problem, 1, &o, &r);
  bool any = blames[_i].rejected + blames[_i].set_aside < 3;
  ck_assert_msg(s == (any ? QN_OK : QN_E_NO_KERNEL), "%s: %s", blames[_i].answer, qn__errmsg());
  if (any) {
    ck_assert_msg(r.counts.rejected == blames[_i].rejected && r.counts.set_aside == blames[_i].set_aside,
                  "%s: rejected %zu, set aside %zu", blames[_i].answer, r.counts.rejected, r.counts.set_aside);
    for (size_t i = 0; i < r.n_kernels; i++)
      ck_assert_msg(!blames[_i].rejected || strcmp(r.kernel[i].name, "b"), "%s: b is served", blames[_i].answer);
    qn__tune_result_free(&r);
  }
  o.worker = script_worker("", "");
  s = qn__tune(set.problem, 1, &o, &r);
  ck_assert_msg(s == (blames[_i].remembered < 3 ? QN_OK : QN_E_NO_KERNEL), "%s: %s", blames[_i].answer, qn__errmsg());
  if (s == QN_OK) ck_assert_uint_eq(r.counts.rejected, blames[_i].remembered);
  qn__tune_result_free(&r);
}
END_TEST

/* From the second on workers are killed while they start, as where memory is short: the run ends and says so. */
START_TEST(worker_that_never_started_is_the_runs_failure) {
  three_kernels();
  qn_tune_options o = options();
  qn_tune_result r;
  o.worker = script_worker("once || kill -KILL $$", "[ $op$name = verifyb ] && kill -KILL $$");
  ck_assert_int_eq(qn__tune(set.problem, 1, &o, &r), QN_E_IO);
  ck_assert_msg(strstr(qn__errmsg(), "does not start") != NULL, "%s", qn__errmsg());
  o.worker = script_worker("", "");
  r = run(&o);
  ck_assert_uint_eq(r.counts.rejected, 0);
  qn__tune_result_free(&r);
}
END_TEST

/* A kernel that takes its run along, in any phase, is tried a few times and no more. So is what takes the machine. */
static const char *const deadly[] = {"[ $op$name = verifyb ]", "[ $op$name = openb ]",
                                     "[ $slot = 0 ] || finals=true; [ $op$name$finals = timebtrue ]"};

START_TEST(kernel_that_kills_its_run_is_learnt) {
  char answer[100];
  three_kernels();
  qn_tune_options o = options();
  snprintf(answer, sizeof answer, "%s && kill -KILL $PPID && sleep 9", deadly[_i]);
  o.worker = script_worker("", answer);
  for (int i = 0; i < QN_SUSPECT; i++) {
    int status = 0;
    pid_t pid = start_run(&o);
    waitpid(pid, &status, 0);
    ck_assert_msg(WIFSIGNALED(status), "run %d of %s ended by itself", i, deadly[_i]);
  }
  qn_tune_result r = run(&o);
  check_result(&r);
  ck_assert_uint_eq(r.counts.rejected, 1);
  qn__tune_result_free(&r);
}
END_TEST

/* Compilers, too, are killed where memory is short: each is started again, then its kernel is set aside. */
static const struct {
  const char *compiler;
  size_t set_aside;
} killed_compilers[] = {{"once && kill -KILL $$", 0},
                        {"once 1 || once 2 && kill -KILL $$", 0},
                        {"grep -q '/[*] b [*]/' && kill -KILL $$", 1}};

START_TEST(killed_compiler_is_not_held_against_a_kernel) {
  three_kernels();
  script_compiler(killed_compilers[_i].compiler);
  qn_tune_options o = options();
  o.worker = script_worker("", "");
  o.threads = 1;
  qn_tune_result r = run(&o);
  check_result(&r);
  ck_assert_uint_eq(r.counts.set_aside, killed_compilers[_i].set_aside);
  ck_assert_uint_eq(r.counts.rejected, 0);
  qn__tune_result_free(&r);
  unsetenv("QUERNEL_CC");
  r = run(&o);
  ck_assert_uint_eq(r.counts.set_aside + r.counts.rejected, 0);
  qn__tune_result_free(&r);
}
END_TEST

/* Two plans have it when it falls: both are made again, of a layout whose kernels all stand. */
START_TEST(plans_of_a_kernel_that_falls_later_are_made_again) {
  add(NULL, "a", "t4.rows");
  add(NULL, "b", "t4.rows")->m_max = 2;
  add(NULL, "c", "t4.other");
  problems();
  qn_tune_options o = options();
  o.worker = script_worker("", "[ $op$name = checka ] && ! once 1 && ! once 2 && ! once 3 && status=$WRONG");
  qn_tune_result r = run(&o);
  check_result(&r);
  ck_assert_uint_eq(r.counts.rejected, 1);
  for (size_t i = 0; i < r.n_kernels; i++) ck_assert_str_ne(r.kernel[i].name, "a");
  qn__tune_result_free(&r);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(only_the_kernel_at_fault_is_remembered, QN_COUNT(blames)),
      CASE(worker_that_never_started_is_the_runs_failure, 1),
      CASE(kernel_that_kills_its_run_is_learnt, QN_COUNT(deadly)),
      CASE(killed_compiler_is_not_held_against_a_kernel, QN_COUNT(killed_compilers)),
      CASE(plans_of_a_kernel_that_falls_later_are_made_again, 1),
  };
  return RUN_CASES(argv[0], cases, init, fini, 120);
}
