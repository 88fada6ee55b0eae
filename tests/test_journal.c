/* test_journal.c - what dead runs leave behind: a step that two of them went down with, machine and all, is suspect. */
#include "journal.h"
#include "suite.h"
#include "tuner_fixture.h"
#include <sys/stat.h>
#include <sys/wait.h>

#define STEP "race t4.g32:64x64:f32-f32 0123 M=1"

static qn_store *store;

static void init(void) {
  qn_device_info info = {.name = "host", .target = "host", .arch = "x86-64", .threads = 2, .timed = 1};
  folder_init();
  ck_assert_msg(qn_store_open(folder, &info, "cc 1", "cold", &store) == QN_OK, "%s", qn__errmsg());
}

static void fini(void) {
  qn_store_close(store);
  folder_fini();
}

static void journal_path(char *out, size_t size, long pid) {
  snprintf(out, size, "%s/journal/%ld", qn_store_path(store), pid);
}

/* A journal with this text, of a process that is no more. One that names no boot is of an unknown one. */
static void leave(const char *text) {
  char path[4400];
  pid_t dead = fork();
  if (!dead) _exit(0);
  waitpid(dead, NULL, 0);
  journal_path(path, sizeof path, 0);
  *strrchr(path, '/') = 0;
  mkdir(path, 0777);
  journal_path(path, sizeof path, dead);
  FILE *f = fopen(path, "w");
  ck_assert(f && fputs(text, f) >= 0);
  fclose(f);
}

/* Open and close, as a run that has nothing to do. */
static void take_over(void) {
  qn_journal j;
  ck_assert_msg(qn__journal_open(store, &j) == QN_OK, "%s", qn__errmsg());
  qn__journal_close(&j);
}

START_TEST(two_deaths_make_a_suspect) {
  leave("boot of long ago\nbegin other\nend\nbegin " STEP "\n");
  take_over();
  ck_assert(!qn__journal_suspect(store, STEP));
  take_over(); /* the same death counts once */
  ck_assert(!qn__journal_suspect(store, STEP));
  leave("begin " STEP "\n");
  take_over();
  ck_assert(qn__journal_suspect(store, STEP));
  ck_assert(!qn__journal_suspect(store, "other"));
}
END_TEST

/* Cut at every length: never an error, and a step counts only once its line is whole. */
START_TEST(torn_line_is_no_step) {
  const char *whole = "begin first\nend\nbegin " STEP "\n";
  size_t full = strlen(whole);
  for (size_t n = 0; n <= full; n++) {
    char text[128];
    snprintf(text, sizeof text, "%.*s", (int)n, whole);
    leave(text);
    take_over();
    ck_assert_msg(!qn__journal_suspect(store, STEP), "cut at %zu; again: CK_RUN_CASE=journal test_journal", n);
  }
  leave(whole);
  take_over();
  ck_assert(qn__journal_suspect(store, STEP));
}
END_TEST

/* Killed alone, the machine running on: the step is not to blame, however often. */
START_TEST(killed_tuner_says_nothing) {
  for (int i = 0; i < 3; i++) {
    pid_t pid = fork();
    if (!pid) {
      qn_journal j;
      _exit(qn__journal_open(store, &j) || qn__journal_begin(&j, STEP));
    }
    int status;
    waitpid(pid, &status, 0);
    ck_assert_int_eq(status, 0);
    take_over();
  }
  ck_assert(!qn__journal_suspect(store, STEP));
}
END_TEST

START_TEST(garbage_is_passed_over) {
  leave("\n\n\x01\x02 begin\nend\nend\n");
  take_over();
  leave("");
  take_over();
}
END_TEST

/* Another tuner at work: its open step is nobody's business. */
START_TEST(living_journal_is_left_alone) {
  int ends[2];
  char byte, path[4400];
  ck_assert_int_eq(pipe(ends), 0);
  pid_t other = fork();
  if (!other) {
    qn_journal j;
    if (qn__journal_open(store, &j) || qn__journal_begin(&j, STEP) || write(ends[1], "x", 1) != 1) _exit(1);
    for (;;) pause();
  }
  ck_assert_int_eq(read(ends[0], &byte, 1), 1);
  journal_path(path, sizeof path, other);
  take_over();
  take_over();
  ck_assert(!qn__journal_suspect(store, STEP));
  ck_assert_int_eq(access(path, F_OK), 0);
  kill(other, SIGKILL);
  waitpid(other, NULL, 0);
  take_over(); /* now it is dead, with a step open */
  ck_assert_int_ne(access(path, F_OK), 0);
  ck_assert(!qn__journal_suspect(store, STEP));
}
END_TEST

START_TEST(finished_run_leaves_nothing) {
  qn_journal j;
  char path[4400];
  ck_assert_int_eq(qn__journal_open(store, &j), QN_OK);
  ck_assert_int_eq(qn__journal_begin(&j, STEP), QN_OK);
  ck_assert_int_eq(qn__journal_end(&j), QN_OK);
  journal_path(path, sizeof path, getpid());
  ck_assert_int_eq(access(path, F_OK), 0);
  qn__journal_close(&j);
  ck_assert_int_ne(access(path, F_OK), 0);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  Suite *s = suite_create("journal");
  TCase *c = tcase_create("journal");
  tcase_add_checked_fixture(c, init, fini);
  tcase_add_test(c, two_deaths_make_a_suspect);
  tcase_add_test(c, torn_line_is_no_step);
  tcase_add_test(c, killed_tuner_says_nothing);
  tcase_add_test(c, garbage_is_passed_over);
  tcase_add_test(c, living_journal_is_left_alone);
  tcase_add_test(c, finished_run_leaves_nothing);
  suite_add_tcase(s, c);
  return run_suite(s, argv[0]);
}
