/* test_tuner.c - whole runs over small problems: what is chosen, what is refused, what a second run still has to do,
 * and what is left when a run is killed, runs out of time or out of disk. Times themselves are never asserted. */
#include "tuner_fixture.h"
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#define MOST 12
static const int64_t profile[] = {1, 4};

/* ---- Problems ---------------------------------------------------------------------------------------------------- */

static struct set {
  qn_candidate candidate[MOST];
  char hash[MOST][33], *text[MOST];
  size_t n;
  qn_tune_problem problem[2];
} set;

static qn_candidate *add(const char *fault, const char *remark, const char *layout) {
  size_t i = set.n++;
  qn_candidate *c = &set.candidate[i];
  ck_assert_uint_lt(i, MOST);
  set.text[i] = kernel_text(fault, remark);
  char key[256];
  snprintf(key, sizeof key, "%s %s %s", fault ? fault : "", remark, layout);
  qn_hash_hex(key, strlen(key), set.hash[i]);
  *c = (qn_candidate){.name = remark,
                      .hash = set.hash[i],
                      .family = "host.test",
                      .source = set.text[i],
                      .flags = "",
                      .arch = "",
                      .params = "{}",
                      .layout = test_layout(layout),
                      .recipe = test_recipe(true),
                      .m_min = 1,
                      .cost = (int64_t)i};
  return c;
}

/* Both problems share the candidates, as the shapes of one model do. */
static void problems(void) {
  int64_t size[][2] = {{64, 64}, {70, 101}};
  for (size_t i = 0; i < QN_COUNT(set.problem); i++)
    set.problem[i] = (qn_tune_problem){.problem = test_problem(size[i][0], size[i][1]),
                                       .format = test_format(),
                                       .candidate = set.candidate,
                                       .n_candidates = set.n,
                                       .generic = &set.candidate[0]};
}

static void good_set(void) {
  add(NULL, "good-a", "t4.rows");
  add(NULL, "good-b", "t4.rows");
  add(NULL, "good-c", "t4.other");
  problems();
}

static void init(void) {
  folder_init();
  set.n = 0;
}

static void fini(void) {
  for (size_t i = 0; i < set.n; i++) free(set.text[i]);
  folder_fini();
}

/* ---- Runs -------------------------------------------------------------------------------------------------------- */

static int notes;

static void count_notes(void *ud, const qn_tune_event *e) {
  (void)ud;
  notes += !strcmp(e->phase, "note");
}

static qn_tune_options options(void) {
  return (qn_tune_options){.device = "host:2",
                           .store = folder,
                           .worker = WORKER,
                           .m = profile,
                           .n_m = QN_COUNT(profile),
                           .threads = 2,
                           .progress = count_notes};
}

static qn_tune_result run(const qn_tune_options *o) {
  qn_tune_result r;
  qn_status s = qn_tune(set.problem, QN_COUNT(set.problem), o, &r);
  ck_assert_msg(s == QN_OK, "%s: %s; again: CK_FORK=no test_tuner", qn_status_name(s), qn__errmsg());
  return r;
}

static const qn_plan *plan_of(const qn_tune_result *r, size_t problem, qn_plan_kind kind) {
  for (size_t i = 0; i < r->n_plans; i++)
    if (!strcmp(r->plan[i].problem.spelling, set.problem[problem].problem.spelling) && r->plan[i].kind == kind)
      return &r->plan[i];
  return NULL;
}

/* Fit for a pack: each plan valid, each kernel that it names there, with an image. */
static void check_result(const qn_tune_result *r) {
  for (size_t i = 0; i < QN_COUNT(set.problem); i++) ck_assert_ptr_nonnull(plan_of(r, i, QN_PLAN_FASTEST));
  for (size_t i = 0; i < r->n_plans; i++) {
    ck_assert_msg(qn__plan_check(&r->plan[i]) == QN_OK, "%s", qn__errmsg());
    for (uint32_t j = 0; j < r->plan[i].n_ranges; j++) {
      size_t k = 0;
      while (k < r->n_kernels && strcmp(r->kernel[k].hash, r->plan[i].range[j].variant)) k++;
      ck_assert_uint_lt(k, r->n_kernels);
      ck_assert(r->kernel[k].image && r->kernel[k].size);
      ck_assert_msg(qn__kernel_check(&r->kernel[k]) == QN_OK, "%s", qn__errmsg());
    }
  }
}

static void check_same_plans(const qn_tune_result *a, const qn_tune_result *b) {
  ck_assert_uint_eq(a->n_plans, b->n_plans);
  for (size_t i = 0; i < a->n_plans; i++) {
    ck_assert_uint_eq(a->plan[i].n_ranges, b->plan[i].n_ranges);
    for (uint32_t j = 0; j < a->plan[i].n_ranges; j++)
      ck_assert_str_eq(a->plan[i].range[j].variant, b->plan[i].range[j].variant);
  }
}

START_TEST(right_candidates_make_plans) {
  good_set();
  qn_tune_options o = options();
  qn_tune_result r = run(&o);
  check_result(&r);
  ck_assert_uint_eq(r.counts.compiled, 3);
  ck_assert_uint_eq(r.counts.verified, 3);
  ck_assert_uint_eq(r.counts.rejected, 0);
  ck_assert_uint_ge(r.counts.timed, 3 * 2 * 2); /* finals are counted, too */
  ck_assert_uint_eq(r.counts.timed_known, 0);
  ck_assert_ptr_nonnull(plan_of(&r, 0, QN_PLAN_DETERMINISTIC));
  ck_assert_ptr_nonnull(plan_of(&r, 0, QN_PLAN_BATCH_INVARIANT));
  ck_assert(r.plan[0].range[0].seconds > 0 && r.plan[0].range[0].error <= 1);
  qn_tune_result_free(&r);
}
END_TEST

START_TEST(second_run_does_nothing_again) {
  good_set();
  qn_tune_options o = options();
  qn_tune_result first = run(&o), second = run(&o);
  ck_assert_uint_eq(second.counts.compiled, 0);
  ck_assert_uint_eq(second.counts.compile_known, 3);
  ck_assert_uint_eq(second.counts.verified, 0);
  ck_assert_uint_eq(second.counts.verify_known, 3);
  ck_assert_uint_eq(second.counts.timed, 0);
  ck_assert_uint_eq(second.counts.timed_known, first.counts.timed);
  check_same_plans(&first, &second);
  qn_tune_result_free(&first);
  qn_tune_result_free(&second);
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
  qn_tune_result_free(&r);
  r = run(&o); /* nothing wrong is run again */
  ck_assert_uint_eq(r.counts.compiled + r.counts.verified + r.counts.timed + r.counts.restarts, 0);
  ck_assert_uint_eq(r.counts.rejected, 5);
  qn_tune_result_free(&r);
}
END_TEST

START_TEST(new_candidate_is_all_the_work_there_is) {
  good_set();
  qn_tune_options o = options();
  qn_tune_result r = run(&o);
  qn_tune_result_free(&r);
  add(NULL, "good-d", "t4.rows");
  problems();
  r = run(&o);
  ck_assert_uint_eq(r.counts.compiled, 1);
  ck_assert_uint_eq(r.counts.verified, 1);
  ck_assert_uint_ge(r.counts.timed, 1 * 2 * 2);
  ck_assert_uint_ge(r.counts.timed_known, 3 * 2 * 2);
  qn_tune_result_free(&r);
}
END_TEST

START_TEST(nothing_right_is_an_error) {
  add("TAIL", "tail", "t4.rows");
  problems();
  qn_tune_options o = options();
  qn_tune_result r;
  ck_assert_int_eq(qn_tune(set.problem, 1, &o, &r), QN_E_NO_KERNEL);
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
  qn_tune_result_free(&r);
}
END_TEST

START_TEST(spent_budget_ends_with_the_best_so_far) {
  good_set();
  qn_tune_options o = options();
  o.budget = 1e-3;
  qn_tune_result r = run(&o);
  check_result(&r);
  qn_tune_result_free(&r);
}
END_TEST

/* ---- Bad ends ---------------------------------------------------------------------------------------------------- */

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

static pid_t start_run(const qn_tune_options *o) {
  pid_t pid = fork();
  if (pid) return pid;
  qn_tune_result r;
  _exit(qn_tune(set.problem, QN_COUNT(set.problem), o, &r));
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
  ck_assert_uint_eq(r.counts.verified + r.counts.verify_known, 3);
  ck_assert_uint_eq(r.counts.rejected, 0);
  ck_assert_uint_eq(again.counts.compiled + again.counts.verified + again.counts.timed, 0);
  ck_assert_uint_ge(again.counts.timed_known, 3 * 2 * 2);
  check_same_plans(&r, &again);
  qn_tune_result_free(&r);
  qn_tune_result_free(&again);
}

/* Kill the supervisor at some moment, again and again, then finish: what has evidence is neither lost nor done again.
 */
START_TEST(killed_run_is_continued) {
  static evidence before;
  good_set();
  qn_tune_options o = options();
  unsigned moment = (unsigned)time(NULL) % 977;
  for (int i = 0; i < 6; i++, moment = (moment * 313 + 17) % 977) {
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
  FILE *in = kind == FTW_F && strstr(path, journal) ? fopen(path, "r") : NULL;
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
  snprintf(step, sizeof step, "begin verify %s", set.hash[0]);
  awaited = step;
  for (int i = 0; i < 3; i++) {
    pid_t pid = start_run(&o);
    snprintf(journal, sizeof journal, "/journal/%d", (int)pid);
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
  qn_status s = qn_tune(set.problem, 1, &o, &r);
  ck_assert_msg(s == QN_E_IO, "%s: %s", qn_status_name(s), qn__errmsg());
  ck_assert_uint_eq(r.n_plans, 0);
  static evidence left;
  look(&left);
  ck_assert_uint_eq(left.n, 0);
}
END_TEST

START_TEST(unknown_device_and_worker) {
  good_set();
  qn_tune_options o = options();
  qn_tune_result r;
  o.device = "abacus";
  ck_assert_int_ne(qn_tune(set.problem, 1, &o, &r), QN_OK);
  ck_assert_msg(strstr(qn__errmsg(), "abacus") != NULL, "%s", qn__errmsg());
  o = options();
  o.worker = "/nowhere/worker";
  ck_assert_int_eq(qn_tune(set.problem, 1, &o, &r), QN_E_IO);
}
END_TEST

int main(void) {
  Suite *s = suite_create("tuner");
  TCase *runs = tcase_create("runs"), *ends = tcase_create("ends");
  TCase *all[] = {runs, ends};
  for (size_t i = 0; i < QN_COUNT(all); i++) {
    tcase_add_checked_fixture(all[i], init, fini);
    tcase_set_timeout(all[i], 120);
    suite_add_tcase(s, all[i]);
  }
  tcase_add_test(runs, right_candidates_make_plans);
  tcase_add_test(runs, second_run_does_nothing_again);
  tcase_add_test(runs, wrong_candidates_are_refused_and_remembered);
  tcase_add_test(runs, new_candidate_is_all_the_work_there_is);
  tcase_add_test(runs, nothing_right_is_an_error);
  tcase_add_test(runs, check_only_times_nothing);
  tcase_add_test(runs, spent_budget_ends_with_the_best_so_far);
  tcase_add_test(ends, killed_run_is_continued);
  tcase_add_test(ends, kernel_is_not_blamed_for_a_killed_supervisor);
  tcase_add_test(ends, full_disk_is_one_clear_error);
  tcase_add_test(ends, unknown_device_and_worker);
  SRunner *r = srunner_create(s);
  srunner_run_all(r, CK_ENV);
  int failed = srunner_ntests_failed(r);
  srunner_free(r);
  return failed != 0;
}
