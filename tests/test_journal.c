/* test_journal.c - what dead runs leave behind: a step with which they went down again and again is suspect. */
#include "journal.h"
#include "suite.h"
#include "tuner_fixture.h"
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define STEP "race t4.g32:64x64:f32-f32 0123 M=1"

static qn_store *store;

static void init(void) {
  qn_device_info info = {.name = "host", .target = "host", .arch = "x86-64", .threads = 2, .timed = 1};
  folder_init();
  ck_assert_msg(qn__store_open(folder, &info, "cc 1", "cold", &store) == QN_OK, "%s", qn__errmsg());
}

static void fini(void) {
  qn__store_close(store);
  folder_fini();
}

/* Open and close, as a run that has nothing to do. */
static size_t take_over(void) {
  qn_journal j;
  ck_assert_msg(qn__journal_open(store, &j) == QN_OK, "%s", qn__errmsg());
  qn__journal_close(&j);
  return j.others;
}

/* The path of a journal like our own, but of another host, boot or process, where they are given. */
static void path_of(const char *host, const char *boot, int pid, char out[4500]) {
  qn_journal j;
  ck_assert_int_eq(qn__journal_open(store, &j), QN_OK);
  qn__journal_close(&j);
  char *own = strrchr(j.path, '/') + 1, *its_boot = strchr(own, '.') + 1, *pids = strchr(its_boot, '.') + 1;
  own[-1] = its_boot[-1] = pids[-1] = *strchr(pids, '.') = 0;
  snprintf(out, 4500, "%.4200s/%.64s.%.64s.%.24s.%d", j.path, host ? host : own, boot ? boot : its_boot, pids, pid);
}

/* A journal with this text, of a process that is no more. Its path is static. */
static const char *leave(const char *host, const char *boot, const char *text) {
  static char path[4500];
  pid_t dead = fork();
  if (!dead) _exit(0);
  waitpid(dead, NULL, 0);
  path_of(host, boot, dead, path);
  FILE *f = fopen(path, "w");
  ck_assert(f && fputs(text, f) >= 0);
  fclose(f);
  return path;
}

static int suspicion(const char *what) {
  take_over();
  return qn__journal_suspicion(store, what);
}

/* The machine went down in it, or the run alone: what the one weighs, and what two of it do. */
static const struct {
  const char *boot;
  int weight;
} deaths[] = {{"boot-of-long-ago", 2}, {NULL, 1}};

START_TEST(deaths_make_a_suspect) {
  for (int n = 1; n <= 2; n++) {
    leave(NULL, deaths[_i].boot, "begin other\nend\nbegin " STEP "\n");
    ck_assert_int_eq(suspicion(STEP), n * deaths[_i].weight);
    ck_assert_int_eq(suspicion(STEP), n * deaths[_i].weight); /* the same death counts once */
  }
  ck_assert_int_eq(suspicion("other"), 0);
  qn__journal_trust(store, STEP);
  ck_assert_int_eq(suspicion(STEP), 0);
}
END_TEST

/* A step of many parts: a run that goes down blames the part, a machine, whose disk may not know it, the whole. */
START_TEST(parts_of_a_step) {
  leave(NULL, deaths[_i].boot, "begin all\nat one\nat two\n");
  take_over();
  ck_assert_int_eq(suspicion("all"), deaths[_i].boot ? 2 : 0);
  ck_assert_int_eq(suspicion("one"), 0);
  ck_assert_int_eq(suspicion("two"), deaths[_i].boot ? 0 : 1);
}
END_TEST

/* Cut at every length: never an error, and a step counts only once its line is whole. */
START_TEST(torn_line_is_no_step) {
  const char *whole = "begin first\nend\nbegin " STEP "\n";
  size_t full = strlen(whole);
  for (size_t n = 0; n <= full; n++) {
    char text[128];
    snprintf(text, sizeof text, "%.*s", (int)n, whole);
    leave(NULL, NULL, text);
    ck_assert_msg(suspicion(STEP) == (n == full), "cut at %zu", n);
  }
}
END_TEST

/* A store on a shared disk: what another machine left is that machine's business. */
START_TEST(another_hosts_journal_is_left_alone) {
  const char *path = leave("elsewhere", "boot-of-long-ago", "begin " STEP "\n");
  ck_assert_uint_eq(take_over(), 1);
  ck_assert_int_eq(suspicion(STEP), 0);
  ck_assert_int_eq(access(path, F_OK), 0);
}
END_TEST

static const char *const garbage[] = {"\n\n\x01\x02 begin\nend\nend\n", "", "at\nbegin\nat \n"};

START_TEST(garbage_is_passed_over) {
  char path[4500];
  leave(NULL, NULL, garbage[_i]);
  path_of(NULL, NULL, 1, path);
  ck_assert_int_eq(mkfifo(path, 0600), 0);
  path_of(NULL, NULL, 2, path);
  ck_assert_int_eq(mkdir(path, 0700), 0);
  take_over();
}
END_TEST

/* A run at work in a process of its own, in STEP. Its journal's path. */
static pid_t start_run(char path[4500]) {
  int ends[2];
  char byte;
  ck_assert_int_eq(pipe(ends), 0);
  pid_t pid = fork();
  if (!pid) {
    qn_journal j;
    if (qn__journal_open(store, &j)) _exit(1);
    qn__journal_begin(&j, STEP);
    if (write(ends[1], "x", 1) != 1) _exit(1);
    for (;;) pause();
  }
  ck_assert_int_eq(read(ends[0], &byte, 1), 1);
  close(ends[0]), close(ends[1]);
  path_of(NULL, NULL, pid, path);
  return pid;
}

static void kill_run(pid_t pid) {
  kill(pid, SIGKILL);
  waitpid(pid, NULL, 0);
}

/* Whatever its name says: in a container of the same name it may have another boot's and any process's number. */
START_TEST(living_journal_is_left_alone) {
  char path[4500], moved[4500];
  pid_t pid = start_run(path);
  ck_assert_uint_eq(take_over(), 1);
  path_of(NULL, "boot-of-long-ago", 1, moved);
  ck_assert_int_eq(rename(path, moved), 0);
  ck_assert_int_eq(suspicion(STEP), 0);
  ck_assert_int_eq(access(moved, F_OK), 0);
  kill_run(pid);
  ck_assert_int_eq(suspicion(STEP), 2); /* now it is dead, with a step open */
  ck_assert_int_ne(access(moved, F_OK), 0);
}
END_TEST

/* Killed with the machine running on: people do that, too, so it takes more of it. */
START_TEST(killed_runs_are_remembered) {
  char path[4500];
  for (int n = 1; n <= QN_SUSPECT; n++) {
    kill_run(start_run(path));
    ck_assert_int_eq(suspicion(STEP), n);
    ck_assert_int_ne(access(path, F_OK), 0);
  }
}
END_TEST

START_TEST(finished_run_leaves_nothing) {
  qn_journal j;
  ck_assert_int_eq(qn__journal_open(store, &j), QN_OK);
  qn__journal_begin(&j, STEP);
  qn__journal_end(&j);
  ck_assert_int_eq(access(j.path, F_OK), 0);
  qn__journal_close(&j);
  ck_assert_int_ne(access(j.path, F_OK), 0);
  ck_assert_int_eq(j.error, 0);
}
END_TEST

START_TEST(full_disk_is_noted) {
  qn_journal j;
  signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &(struct rlimit){8, 8});
  ck_assert_int_eq(qn__journal_open(store, &j), QN_OK);
  qn__journal_begin(&j, STEP);
  ck_assert_int_ne(j.error, 0);
  qn__journal_close(&j);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(deaths_make_a_suspect, QN_COUNT(deaths)),
      CASE(parts_of_a_step, QN_COUNT(deaths)),
      CASE(torn_line_is_no_step, 1),
      CASE(another_hosts_journal_is_left_alone, 1),
      CASE(garbage_is_passed_over, QN_COUNT(garbage)),
      CASE(living_journal_is_left_alone, 1),
      CASE(killed_runs_are_remembered, 1),
      CASE(finished_run_leaves_nothing, 1),
      CASE(full_disk_is_noted, 1),
  };
  return RUN_CASES(argv[0], cases, init, fini, 60);
}
