/* test_resume.c - what is killed goes on where it was: the store gains each piece of evidence of a tuning once, and a
 * trade-off does nothing twice and ends as one that was not killed.
 *
 * The tool runs tests/lua/resume.lua, which tells what a run did and what the store gained by it, and
 * resume_tradeoff.lua. QN_SEED=N repeats the moments at which they are killed, as far as time repeats. */
#include "cli_fixture.h"
#include "journal.h"
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

/* A run of a script, "NAME ARGUMENT…", that SIGKILL ends after so many seconds, if it has not ended by itself. Its
 * workers see their pipes closed. */
static bool killed(const char *script, double after) {
  char command[512];
  snprintf(command, sizeof command, "exec " QN_BUILD "/quernel run " QN_TESTS "/lua/%s >>killed.log 2>&1", script);
  pid_t pid = fork();
  if (pid == 0) {
    if (!chdir(cli_dir)) execl("/bin/sh", "sh", "-c", command, (char *)NULL);
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

static unsigned random_seed(void) {
  unsigned seed = getenv("QN_SEED") ? (unsigned)atoi(getenv("QN_SEED")) : (unsigned)time(NULL);
  srand(seed);
  return seed;
}

/* ---- Tuning ------------------------------------------------------------------------------------------------------ */

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
  unsigned seed = random_seed();
  double start = now();
  run whole = complete("reference", seed);
  double length = now() - start;
  int kills = 0; /* fewer than those that would condemn a kernel, if they fell in one step about it */
  for (int i = 1; i < QN_SUSPECT; i++) kills += killed("resume.lua store", length * (0.05 + 0.6 * rand() / RAND_MAX));
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

/* ---- Trade-offs -------------------------------------------------------------------------------------------------- */

static void trade_off(const char *folder, unsigned seed) {
  int status = cli("quernel run '%s/lua/resume_tradeoff.lua' %s store", QN_TESTS, folder);
  ck_assert_msg(status == 0,
                "exit %d: %s\n  again: QN_SEED=%u CK_RUN_CASE=killed_trade_offs_end_like_one_that_was_not "
                "%s/tests/test_resume",
                status, cli_err, seed, QN_BUILD);
}

/* All but the times, which no two runs have in common: what was made and evaluated is the same to the last bit. */
START_TEST(killed_trade_offs_end_like_one_that_was_not) {
  unsigned seed = random_seed();
  trade_off("first", seed); /* tunes the kernels, for all that follow */
  double start = now();
  trade_off("whole", seed);
  double length = now() - start;
  int kills = 0;
  for (int i = 0; i < 200 && kills < 20; i++)
    if (killed("resume_tradeoff.lua out store", 0.3 * length * rand() / RAND_MAX)) kills++;
    else cli("rm -r out"); /* it came to its end: anew */
  ck_assert_int_eq(kills, 20);
  trade_off("out", seed);
  char *found = strdup(cli_out);
  trade_off("out", seed); /* all is known */
  ck_assert_str_eq(cli_out, found);
  free(found);
  int status = cli("grep -o '^{\"key\":\"[^\"]*\"' out/journal | sort | uniq -d | grep -v turns");
  ck_assert_msg(status == 1, "done twice: %s", cli_out);
  ck_assert_int_eq(cli("for f in whole out; do grep '^{.key.:.\\(make\\|evaluate\\|floor\\)' $f/journal | "
                       "sort >$f.made; done; test -s out.made && cmp whole.made out.made"),
                   0);
}
END_TEST

START_TEST(an_interrupted_trade_off_says_what_is_kept) {
  int status =
      cli("printf '{\"input_ids\":[%%s]}\\n' \"$(seq -s, 0 95)\" >a.jsonl; { while [ $(cat out/journal "
          "2>/dev/null | wc -l) -lt 3 ]; do sleep 0.01; done; read tool <pid; kill -INT $tool; } & sh -c 'echo "
          "$$ >pid; exec quernel tradeoff %s/models/arch/llama --text a.jsonl --ctx 16 --only int8.row --only "
          "int4.g32 -o out --store s --quiet'",
          QN_TESTS);
  ck_assert_int_eq(status, 128 + SIGINT);
  ck_assert_msg(strstr(cli_err, "quernel: interrupted; what was done is kept in out: the same command goes on"), "%s",
                cli_err);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(second_run_does_nothing, 1),
      CASE(killed_runs_are_continued, 1),
      CASE(killed_trade_offs_end_like_one_that_was_not, 1),
      CASE(an_interrupted_trade_off_says_what_is_kept, 1),
  };
  return RUN_CASES(argv[0], cases, cli_enter, cli_leave, 300);
}
