/* test_tuner_ends.c - runs that are killed, or find no room on the disk: what is left is whole, and the next run goes
 * on. */
#include "journal.h"
#include "tuner_runs.h"
#include "verify.h"
#include <ftw.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

/* Evidence on the disk. An entry is replaced by renaming another over it: the same inode is the same measurement. */
#define MOST_ENTRIES 256
typedef struct evidence {
  size_t n;
  struct entry {
    char path[256];
    ino_t inode;
  } entry[MOST_ENTRIES];
} evidence;

static evidence *collected;

static int collect(const char *path, const struct stat *s, int kind, struct FTW *f) {
  (void)f;
  if (kind != FTW_F || !strstr(path, "/evidence/") || strcmp(path + strlen(path) - 5, ".json")) return 0;
  ck_assert_uint_lt(collected->n, MOST_ENTRIES);
  struct entry *e = &collected->entry[collected->n++];
  snprintf(e->path, sizeof e->path, "%s", path);
  e->inode = s->st_ino;
  return 0;
}

static void look(evidence *out) {
  out->n = 0;
  collected = out;
  nftw(folder, collect, 16, FTW_PHYS);
}

static void check_kept(const evidence *before) {
  for (size_t i = 0; i < before->n; i++) {
    struct stat now;
    ck_assert_msg(!stat(before->entry[i].path, &now), "%s is gone", before->entry[i].path);
    ck_assert_msg(now.st_ino == before->entry[i].inode, "%s was measured again", before->entry[i].path);
  }
}

static void kill_run(pid_t pid) {
  kill(pid, SIGKILL);
  waitpid(pid, NULL, 0);
}

static void check_finishes(const qn_tune_options *o) {
  static evidence before;
  look(&before);
  qn_tune_result r = run(o), again = run(o);
  check_kept(&before);
  check_result(&r);
  ck_assert_uint_eq(r.counts.compiled + r.counts.compile_known, 3);
  ck_assert_uint_eq(r.counts.verified + r.counts.verify_known, 3 + ROWS);
  ck_assert_uint_eq(r.counts.rejected, 0);
  ck_assert_uint_eq(again.counts.compiled + again.counts.verified + again.counts.timed, 0);
  ck_assert_uint_ge(again.counts.timed_known, 3 * 2 * 2);
  check_same_plans(&r, &again);
  qn__tune_result_free(&r);
  qn__tune_result_free(&again);
}

/* Kill the supervisor at some moment, again and again, then finish: what has evidence is neither lost nor done
 * again. QN_SUSPECT runs that went down in one step would condemn its kernel, so there are fewer. */
START_TEST(killed_run_is_continued) {
  static evidence before;
  good_set();
  qn_tune_options o = options();
  unsigned moment = (unsigned)time(NULL) % 977;
  for (int i = 1; i < QN_SUSPECT; i++, moment = (moment * 313 + 17) % 977) {
    look(&before);
    pid_t pid = start_run(&o);
    usleep(50000 + moment * 900);
    kill_run(pid);
    check_kept(&before);
  }
  check_finishes(&o);
}
END_TEST

/* Is this step the last that the journal of this run says was begun? */
static const char *awaited;
static char journal[32];
static bool seen;

static int find_step(const char *path, const struct stat *s, int kind, struct FTW *f) {
  char text[4096] = "";
  (void)s, (void)f;
  size_t before = strlen(path) - strlen(journal);
  FILE *in = kind == FTW_F && strstr(path, "/journal/") && !strcmp(path + before, journal) ? fopen(path, "r") : NULL;
  size_t n = in ? fread(text, 1, sizeof text - 1, in) : 0;
  if (in) fclose(in);
  text[n] = 0;
  const char *at = strstr(text, awaited);
  seen = seen || (at && !strstr(at, "end\n"));
  return 0;
}

/* Once two runs that were killed in the same step condemned its kernel, though the kernel had done nothing: only the
 * supervisor was killed, and the worker is there so that a kernel cannot do that. */
START_TEST(kernel_is_not_blamed_for_a_killed_supervisor) {
  char step[64];
  add("SLOW", "slow", "t4.rows");
  add(NULL, "good-b", "t4.rows");
  add(NULL, "good-c", "t4.other");
  problems();
  qn_tune_options o = options();
  snprintf(step, sizeof step, "begin verify %s suite %d", set.hash[0], QN_VERIFY_SUITE);
  awaited = step;
  for (int i = 0; i < 3; i++) {
    pid_t pid = start_run(&o);
    snprintf(journal, sizeof journal, ".%d", (int)pid);
    for (seen = false; !seen && !waitpid(pid, NULL, WNOHANG);) nftw(folder, find_step, 16, FTW_PHYS);
    ck_assert_msg(seen, "no step was seen open");
    kill_run(pid);
  }
  check_finishes(&o);
}
END_TEST

/* Files may not grow beyond a few bytes, as on a full disk. */
START_TEST(full_disk_is_one_clear_error) {
  good_set();
  qn_tune_options o = options();
  qn_tune_result r;
  signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &(struct rlimit){64, 64});
  qn_status s = qn__tune(set.problem, 1, &o, &r);
  ck_assert_msg(s == QN_E_IO, "%s: %s", qn_status_name(s), qn__errmsg());
  ck_assert_uint_eq(r.n_plans, 0);
  static evidence left;
  look(&left);
  ck_assert_uint_eq(left.n, 0);
}
END_TEST

/* A store that takes no more of a kind, as on a full disk: a file is where its folder should be. */
static void fill_up(const char *kind) {
  char path[4200];
  qn_store *store = open_store();
  snprintf(path, sizeof path, "%s/%s", qn__store_path(store), kind);
  qn__store_close(store);
  FILE *f = fopen(path, "w");
  ck_assert_ptr_nonnull(f);
  fclose(f);
}

/* The run goes on with what it has in memory, and says that it is not kept. */
START_TEST(full_disk_costs_the_evidence_only) {
  good_set();
  fill_up("evidence");
  fill_up("plan");
  qn_tune_options o = options();
  qn_tune_result r = run(&o);
  check_result(&r);
  ck_assert_uint_eq(plan_of(&r, 1, QN_PLAN_FASTEST)->n_points, QN_COUNT(profile));
  ck_assert_msg(r.remarks && strstr(r.remarks, "is not kept"), "%s", r.remarks);
  qn__tune_result_free(&r);
}
END_TEST

START_TEST(full_disk_without_any_kernel) {
  good_set();
  fill_up("artifact");
  qn_tune_options o = options();
  qn_tune_result r;
  ck_assert_int_eq(qn__tune(set.problem, 1, &o, &r), QN_E_IO);
  ck_assert_msg(strstr(qn__errmsg(), "/artifact") != NULL, "%s", qn__errmsg());
}
END_TEST

START_TEST(unknown_device_and_worker) {
  good_set();
  qn_tune_options o = options();
  qn_tune_result r;
  o.device = "abacus";
  ck_assert_int_ne(qn__tune(set.problem, 1, &o, &r), QN_OK);
  ck_assert_msg(strstr(qn__errmsg(), "abacus") != NULL, "%s", qn__errmsg());
  o = options();
  o.worker = "/nowhere/worker";
  ck_assert_int_eq(qn__tune(set.problem, 1, &o, &r), QN_E_IO);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(killed_run_is_continued, 1),      CASE(kernel_is_not_blamed_for_a_killed_supervisor, 1),
      CASE(full_disk_is_one_clear_error, 1), CASE(full_disk_costs_the_evidence_only, 1),
      CASE(full_disk_without_any_kernel, 1), CASE(unknown_device_and_worker, 1),
  };
  return RUN_CASES(argv[0], cases, init, fini, 120);
}
