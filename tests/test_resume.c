/* test_resume.c - a tuning run that is killed goes on where it was: the store gains each piece of evidence once.
 *
 * The tool runs tests/lua/resume.lua, which tells what a run did and what the store gained by it. QN_SEED=N repeats the
 * moments at which it is killed, as far as time repeats. */
#include "cli_fixture.h"
#include <signal.h>
#include <stdbool.h>
#include <time.h>

typedef struct run {
  unsigned compiled, known, artifacts, measured, evidence, rejected;
  char plan[2048]; /* its kernels */
} run;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* One whole run on a store. */
static run complete(const char *store, unsigned seed) {
  run r = {0};
  int status = cli("quernel run '%s/lua/resume.lua' %s", QN_TESTS, store);
  int n = sscanf(cli_out, "%u %u %u %u %u %u %2047[^\n]", &r.compiled, &r.known, &r.artifacts, &r.measured, &r.evidence,
                 &r.rejected, r.plan);
  ck_assert_msg(status == 0 && n == 7, "exit %d: %s%s\n  again: QN_SEED=%u %s/tests/test_resume", status, cli_out,
                cli_err, seed, QN_BUILD);
  ck_assert_uint_eq(r.rejected, 0);
  ck_assert_uint_eq(r.artifacts, r.compiled); /* nothing was made that was there */
  ck_assert_uint_eq(r.evidence, r.measured);
  return r;
}

/* A run that SIGKILL ends after so many seconds, if it has not ended by itself. Its workers see their pipes closed. */
static bool killed(const char *store, double after) {
  pid_t pid = fork();
  if (pid == 0) {
    if (!freopen(cli_path("killed.log"), "a", stdout)) _exit(127);
    dup2(1, 2);
    execl(QN_BUILD "/quernel", "quernel", "run", QN_TESTS "/lua/resume.lua", cli_path(store), (char *)NULL);
    _exit(127);
  }
  ck_assert_int_gt(pid, 0);
  nanosleep(&(struct timespec){(time_t)after, (long)(1e9 * (after - (double)(time_t)after))}, NULL);
  kill(pid, SIGKILL);
  int status;
  ck_assert_int_eq(waitpid(pid, &status, 0), pid);
  ck_assert_msg(!WIFEXITED(status) || WEXITSTATUS(status) == 0, "a run failed by itself: exit %d", WEXITSTATUS(status));
  return WIFSIGNALED(status);
}

START_TEST(second_run_does_nothing) {
  run first = complete("store", 0), second = complete("store", 0);
  ck_assert_uint_gt(first.compiled, 2);
  ck_assert_uint_gt(first.measured, first.compiled); /* each is verified, some are timed */
  ck_assert_uint_eq(second.compiled, 0);
  ck_assert_uint_eq(second.known, first.compiled);
  ck_assert_uint_eq(second.measured, 0);
  ck_assert_str_eq(second.plan, first.plan);
}
END_TEST

START_TEST(killed_runs_are_continued) {
  unsigned seed = getenv("QN_SEED") ? (unsigned)atoi(getenv("QN_SEED")) : (unsigned)time(NULL);
  srand(seed);
  double start = now();
  run whole = complete("reference", seed);
  double length = now() - start;
  int kills = 0;
  for (int i = 0; i < 5; i++) kills += killed("store", length * (0.05 + 0.4 * rand() / RAND_MAX));
  ck_assert_int_ge(kills, 1);
  cli("quernel store verify --store store"); /* a temporary file may be left; no entry is half written */
  ck_assert_msg(!strstr(cli_out, "whole entry") && !strstr(cli_out, "differ"), "%s", cli_out);
  run last = complete("store", seed), after = complete("store", seed);
  ck_assert_uint_eq(last.compiled + last.known, whole.compiled);
  ck_assert_uint_eq(after.known, whole.compiled);
  ck_assert_uint_eq(after.compiled + after.measured, 0);
  ck_assert_str_eq(after.plan, last.plan);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(second_run_does_nothing, 1),
      CASE(killed_runs_are_continued, 1),
  };
  return RUN_CASES(argv[0], cases, cli_enter, cli_leave, 300);
}
