/* test_tuner.c - whole runs over small problems: what is chosen, what is refused, what a second run still has to do,
 * and what is left when a run is killed, runs out of time or out of disk. Times themselves are never asserted; where
 * one candidate must win, the other is made a thousand times slower. */
#include "hash.h"
#include "journal.h"
#include "pack.h"
#include "suite.h"
#include "supervise.h"
#include "tuner_fixture.h"
#include "verify.h"
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#define MOST 12
#define ROWS 2 /* checks beside those of candidates: of each problem's batch-invariant plan, once */
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
  qn__hash_hex(key, strlen(key), set.hash[i]);
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

static pid_t start_run(const qn_tune_options *o) {
  pid_t pid = fork();
  if (pid) return pid;
  qn_tune_result r;
  _exit(qn_tune(set.problem, QN_COUNT(set.problem), o, &r));
}

static const qn_plan *plan_of(const qn_tune_result *r, size_t problem, qn_plan_kind kind) {
  for (size_t i = 0; i < r->n_plans; i++)
    if (!strcmp(r->plan[i].problem.spelling, set.problem[problem].problem.spelling) && r->plan[i].kind == kind)
      return &r->plan[i];
  return NULL;
}

/* The plan for other shapes. */
static const qn_plan *generic_plan(const qn_tune_result *r, qn_plan_kind kind) {
  for (size_t i = 0; i < r->n_plans; i++)
    if (!r->plan[i].problem.n && r->plan[i].kind == kind) return &r->plan[i];
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
  ck_assert_uint_eq(second.counts.verify_known, 3 + ROWS);
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
  ck_assert_uint_ge(r.counts.verified, 1);
  ck_assert_uint_le(r.counts.verified, 1 + ROWS); /* if it won */
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
  for (size_t i = 0; i < r.n_plans; i++) {
    ck_assert_uint_eq(r.plan[i].n_points, 0);
    ck_assert_str_eq(r.plan[i].range[0].variant, set.hash[0]);
  }
  qn_tune_result_free(&r);
  o.budget = 0;
  r = run(&o);
  ck_assert_uint_eq(plan_of(&r, 1, QN_PLAN_FASTEST)->n_points, QN_COUNT(profile));
  o.budget = 1e-3;
  qn_tune_result again = run(&o); /* what is known costs no time */
  check_same_plans(&r, &again);
  qn_tune_result_free(&r);
  qn_tune_result_free(&again);
}
END_TEST

/* The system's compiler, which does something first when it is to compile. `once` as for a worker that is a script. */
static void script_compiler(const char *first) {
  char path[64];
  snprintf(path, sizeof path, "%s/cc", folder);
  FILE *f = fopen(path, "w");
  fprintf(f, "#!/bin/sh\nonce() { mkdir \"%s/cc$1\" 2>/dev/null; }\n", folder);
  fprintf(f, "case \"$*\" in *-shared*) %s;; esac\nexec '%s' \"$@\"\n", first, qn_compiler_path());
  fclose(f);
  ck_assert_int_eq(chmod(path, 0755), 0);
  setenv("QUERNEL_CC", path, 1);
}

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
  qn_tune_result_free(&r);
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
  qn_tune_result_free(&r);
  r = run(&o); /* nothing is remembered against it */
  ck_assert_uint_eq(r.counts.compile_failed, 0);
  qn_tune_result_free(&r);
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
  qn_tune_result_free(&r);
  waitpid(other, NULL, 0);
  FILE *f = fopen(log, "r");
  for (int c; (c = fgetc(f)) != EOF;) made += c == '\n';
  fclose(f);
  ck_assert_msg(made <= MOST + MOST / 2, "%d compilations of %d kernels", made, MOST);
}
END_TEST

/* ---- Plans: from laps that the store is made to know ------------------------------------------------------------- */

typedef struct lap {
  size_t candidate;
  double seconds;
} lap;

static cJSON *evidence_of(const lap *x) {
  cJSON *j = cJSON_CreateObject();
  cJSON_AddStringToObject(j, "hash", set.hash[x->candidate]);
  cJSON_AddNumberToObject(j, "seconds", x->seconds);
  cJSON_AddNumberToObject(j, "ratio", 0.99); /* cannot be told from the fastest */
  return j;
}

/* What a candidate took at an M in the race. */
static void know_lap(qn_store *s, int64_t m, const lap *x) {
  char key[400];
  cJSON *j = evidence_of(x);
  snprintf(key, sizeof key, "race %s %s M=%d", set.problem[1].problem.spelling, set.hash[x->candidate], (int)m);
  ck_assert_int_eq(qn_store_put(s, "evidence", key, j), QN_OK);
  cJSON_Delete(j);
}

/* What two candidates took at an M, the faster first: in the race and, if `meet`, in the finals. */
static void know(qn_store *s, int64_t m, const lap laps[2], bool meet) {
  char key[400], both[67], sum[33];
  const char *spelling = set.problem[1].problem.spelling;
  cJSON *finals = cJSON_CreateObject(), *list = cJSON_AddArrayToObject(finals, "finalists");
  for (int i = 0; i < 2; i++) {
    know_lap(s, m, &laps[i]);
    cJSON_AddItemToArray(list, evidence_of(&laps[i]));
  }
  snprintf(both, sizeof both, "%s%s", set.hash[laps[0].candidate], set.hash[laps[1].candidate]);
  qn__hash_hex(both, strlen(both), sum);
  snprintf(key, sizeof key, "finals %s M=%d rounds=7 %s", spelling, (int)m, sum);
  if (meet) ck_assert_int_eq(qn_store_put(s, "evidence", key, finals), QN_OK);
  cJSON_Delete(finals);
}

static qn_store *open_store(void) {
  qn_supervisor s;
  qn_store *out;
  char compiler[256];
  ck_assert_int_eq(qn__supervisor_init(&s, WORKER, "host:2"), QN_OK);
  ck_assert_int_eq(qn_compiler_version("host", compiler, sizeof compiler), QN_OK);
  ck_assert_int_eq(qn_store_open(folder, &s.info, compiler, "cold", &out), QN_OK);
  qn__supervisor_fini(&s);
  return out;
}

/* Of two that are as fast at M = 4 the one that won at M = 1 goes on, though it is not the cheaper: one range, with
 * what was measured at both. Where it is beaten, there are two. */
static const struct {
  lap at_4[2];
  uint32_t ranges;
} merges[] = {{{{0, 1.000}, {1, 1.005}}, 1}, {{{0, 1.0}, {1, 1.5}}, 2}};

START_TEST(neighbours_that_tie_are_merged) {
  add(NULL, "cheap", "t4.rows");
  add(NULL, "dear", "t4.rows");
  problems();
  qn_store *s = open_store();
  know(s, 1, (lap[]){{1, 1.0}, {0, 1.5}}, false);
  know(s, 4, merges[_i].at_4, merges[_i].ranges == 1);
  qn_store_close(s);
  qn_tune_options o = options();
  qn_tune_result r = run(&o);
  const qn_plan *p = plan_of(&r, 1, QN_PLAN_FASTEST);
  ck_assert_uint_eq(p->n_ranges, merges[_i].ranges);
  ck_assert_uint_eq(p->n_points, 2);
  ck_assert_str_eq(p->range[0].variant, set.hash[1]);
  ck_assert_int_eq(p->point[1].m, 4);
  ck_assert_double_eq(p->point[1].seconds, merges[_i].ranges == 1 ? 1.005 : 1.0);
  qn_tune_result_free(&r);
}
END_TEST

/* A kernel serves from where it can, whichever M were tuned. The M before it go to the kernel of the M before, else to
 * the fastest that serves them all. Seconds at each M of the profile; 0: not served. Candidates 0 and 1 serve every M,
 * 0 is the cheaper. */
static const struct {
  int64_t m[3], from[4], to[4];
  double seconds[3][4];
  int64_t begins[3]; /* the plan: where ranges begin, of which candidate */
  size_t of[3];
} begun[] = {
    {{1, 16, 64}, {1, 1, 33}, {0}, {{1, 2}, {1, 2}, {9, 9, 1}}, {1, 33}, {0, 2}},
    {{1, 16, 64}, {1, 1, 33, 1}, {0, 0, 0, 16}, {{2, 3, 0, 1}, {2, 3, 0, 1}, {9, 4, 1}}, {1, 17, 33}, {3, 1, 2}},
    {{1, 16, 64}, {1, 1, 33, 1}, {0, 0, 0, 20}, {{2, 3, 0, 1}, {2, 3, 0, 1}, {4, 9, 1}}, {1, 17, 33}, {3, 0, 2}},
    {{1, 16, 64}, {1, 1, 17, 1}, {0, 0, 0, 16}, {{2, 3, 0, 1}, {2, 3, 0, 1}, {9, 4, 1}}, {1, 17}, {3, 2}},
    {{1, 16, 64}, {1, 1, 9, 1}, {0, 0, 0, 8}, {{2, 3, 0, 1}, {2, 3, 1}, {9, 4, 1}}, {1, 9}, {3, 2}},
    {{64}, {1, 1, 33}, {0}, {{9, 4, 1}}, {1, 33}, {1, 2}},
};

START_TEST(ranges_begin_where_kernels_do) {
  static const char *const remark[] = {"cheap", "dear", "late", "early"};
  size_t n_m = 0, n = 0;
  for (; n < 4 && begun[_i].from[n]; n++) {
    qn_candidate *c = add(NULL, remark[n], "t4.rows");
    c->m_min = begun[_i].from[n], c->m_max = begun[_i].to[n];
  }
  problems();
  qn_store *s = open_store();
  for (; n_m < 3 && begun[_i].m[n_m]; n_m++)
    for (size_t i = 0; i < n; i++)
      if (begun[_i].seconds[n_m][i] > 0) know_lap(s, begun[_i].m[n_m], &(lap){i, begun[_i].seconds[n_m][i]});
  qn_store_close(s);
  qn_tune_options o = options();
  o.m = begun[_i].m, o.n_m = n_m;
  qn_tune_result r = run(&o);
  check_result(&r);
  const qn_plan *p = plan_of(&r, 1, QN_PLAN_FASTEST);
  uint32_t ranges = 0;
  for (; ranges < 3 && begun[_i].begins[ranges]; ranges++) {
    ck_assert_int_eq(p->range[ranges].m_min, begun[_i].begins[ranges]);
    ck_assert_str_eq(p->range[ranges].variant, set.hash[begun[_i].of[ranges]]);
  }
  ck_assert_uint_eq(p->n_ranges, ranges);
  ck_assert_uint_eq(p->n_points, n_m);
  qn_tune_result_free(&r);
}
END_TEST

/* Evidence without its numbers, or with such that cannot be, is no evidence: the kernel is asked again. */
START_TEST(evidence_must_tell) {
  add(NULL, "one", "t4.rows");
  add(NULL, "other", "t4.rows");
  problems();
  qn_store *s = open_store();
  cJSON *j = cJSON_CreateObject();
  if (_i) cJSON_AddNumberToObject(j, "error", -1), cJSON_AddNumberToObject(j, "seconds", _i == 1 ? 0 : -1);
  for (int i = 0; i < 2; i++)
    for (int m = 0; m <= 4; m += m ? 3 : 1) {
      char key[400];
      snprintf(key, sizeof key, "verify %s", set.hash[i]);
      if (m) snprintf(key, sizeof key, "race %s %s M=%d", set.problem[1].problem.spelling, set.hash[i], m);
      ck_assert_int_eq(qn_store_put(s, "evidence", key, j), QN_OK);
    }
  cJSON_Delete(j);
  qn_store_close(s);
  qn_tune_options o = options();
  qn_tune_result r = run(&o);
  check_result(&r);
  ck_assert_uint_eq(r.counts.verify_known, 0);
  ck_assert_uint_eq(r.counts.timed_known, 0);
  qn_tune_result_free(&r);
}
END_TEST

/* The faster one says that a row's bits do not depend on M, and lies about more tokens than small cases have. */
START_TEST(broken_promise_of_rows_costs_the_place) {
  static const int64_t many[] = {1, 64};
  add("SLOW", "slow", "t4.rows");
  add("DEPENDS_ON_BIG_M", "liar", "t4.rows");
  problems();
  qn_tune_options o = options();
  o.m = many;
  qn_tune_result r = run(&o);
  check_result(&r);
  ck_assert_str_eq(plan_of(&r, 1, QN_PLAN_BATCH_INVARIANT)->range[0].variant, set.hash[0]);
  ck_assert_str_eq(plan_of(&r, 1, QN_PLAN_FASTEST)->range[0].variant, set.hash[0]);
  ck_assert_uint_eq(r.counts.rejected, 1);
  qn_tune_result_free(&r);
}
END_TEST

/* The faster one need not repeat its bits: it serves where that is not asked for. */
START_TEST(deterministic_plan_is_kept_beside_the_fastest) {
  add("SLOW", "slow", "t4.rows");
  qn_candidate *c = add("RANDOM", "random", "t4.rows");
  c->recipe.deterministic = c->recipe.batch_invariant = 0;
  problems();
  qn_tune_options o = options();
  qn_tune_result r = run(&o);
  check_result(&r);
  ck_assert_str_eq(plan_of(&r, 1, QN_PLAN_FASTEST)->range[0].variant, set.hash[1]);
  ck_assert_str_eq(plan_of(&r, 1, QN_PLAN_DETERMINISTIC)->range[0].variant, set.hash[0]);
  ck_assert_str_eq(plan_of(&r, 1, QN_PLAN_BATCH_INVARIANT)->range[0].variant, set.hash[0]);
  qn_tune_result_free(&r);
}
END_TEST

/* For shapes that were not tuned there are plans of every kind, whose kernel keeps what the kind promises. */
START_TEST(generic_plans_are_of_every_kind) {
  qn_candidate *c = add("RANDOM", "random", "t4.rows");
  c->recipe.deterministic = c->recipe.batch_invariant = 0;
  add(NULL, "good", "t4.rows");
  problems();
  qn_tune_options o = options();
  qn_tune_result r = run(&o);
  for (qn_plan_kind kind = 0; kind < QN_PLAN_KINDS; kind++) {
    const qn_plan *p = generic_plan(&r, kind);
    ck_assert_msg(p != NULL, "kind %d has no plan", kind);
    ck_assert_str_eq(p->range[0].variant, set.hash[kind != QN_PLAN_FASTEST]);
  }
  qn_tune_result_free(&r);
}
END_TEST

/* ---- Functions of the user's own --------------------------------------------------------------------------------- */

/* A candidate that is a function in a shared library: what the compiler makes of the kernel is one. */
static qn_case *add_function(const char *fault) {
  qn_case *library = test_case(fault, 64, 64);
  qn_candidate *c = add(fault, "function", "t4.rows");
  c->library = library->image;
  c->symbol = "qn_test";
  strcpy(c->recipe.step[0].entry, "mine");
  return library;
}

static const char *served_by(const char *path, int64_t m) {
  static char name[200];
  qn_context *c;
  qn_gemm *g;
  char why[256] = "";
  ck_assert_msg(qn_open(path, NULL, &c, why, sizeof why) == QN_OK, "%s", why);
  ck_assert_msg(qn_bind(c, set.problem[1].problem.spelling, &g) == QN_OK, "%s", qn__errmsg());
  snprintf(name, sizeof name, "%s", qn_gemm_kernel(g, m));
  qn_gemm_free(g);
  qn_close(c);
  return name;
}

static void write_pack(const qn_tune_result *r, const char *path) {
  qn_pack_builder *b;
  ck_assert_int_eq(qn_pack_builder_new(&b), QN_OK);
  ck_assert_int_eq(qn_pack_add_device(b, r->device.target, r->device.arch, "", 2), QN_OK);
  for (size_t i = 0; i < r->n_kernels; i++)
    ck_assert_msg(qn_pack_add_kernel(b, &r->kernel[i]) == QN_OK, "%s", qn__errmsg());
  for (size_t i = 0; i < r->n_plans; i++) ck_assert_msg(qn_pack_add_plan(b, &r->plan[i]) == QN_OK, "%s", qn__errmsg());
  ck_assert_msg(qn_pack_write(b, path) == QN_OK, "%s", qn__errmsg());
  qn_pack_builder_free(b);
}

static void nothing(const qn_function_args *a, int64_t begin, int64_t end, int32_t thread) {
  (void)a, (void)begin, (void)end, (void)thread;
}

/* It wins; the pack names it, and serves with the runner-up in a process that has not registered it. */
START_TEST(right_function_wins_and_is_served) {
  char path[64];
  add("SLOW", "slow", "t4.rows");
  qn_case *library = add_function(NULL);
  problems();
  qn_tune_options o = options();
  qn_tune_result r = run(&o);
  const qn_plan *p = plan_of(&r, 1, QN_PLAN_FASTEST);
  ck_assert_str_eq(p->range[0].variant, set.hash[1]);
  ck_assert_str_eq(p->range[0].runner_up, set.hash[0]);
  snprintf(path, sizeof path, "%s/mine.qpack", folder);
  write_pack(&r, path);
  ck_assert_str_eq(served_by(path, 3), "slow");
  ck_assert_int_eq(qn_function_register("mine", nothing), QN_OK);
  ck_assert_str_eq(served_by(path, 3), "function");
  ck_assert_int_eq(qn_function_register("mine", NULL), QN_OK);
  ck_assert_str_eq(served_by(path, 3), "slow");
  qn_tune_result_free(&r);
  free(library);
}
END_TEST

static const char *const bad_functions[] = {"TAIL", "CRASH"};

START_TEST(wrong_function_is_refused) {
  add(NULL, "good", "t4.rows");
  qn_case *library = add_function(bad_functions[_i]);
  problems();
  qn_tune_options o = options();
  qn_tune_result r = run(&o);
  check_result(&r);
  ck_assert_uint_eq(r.counts.rejected, 1);
  for (size_t i = 0; i < r.n_kernels; i++) ck_assert_str_eq(r.kernel[i].name, "good");
  qn_tune_result_free(&r);
  free(library);
}
END_TEST

/* It is tried before all that the generator offers, though it comes last; and if there was no time the run says so. */
START_TEST(function_is_tried_first_or_named) {
  char *first = NULL;
  add(NULL, "a", "t4.rows");
  add(NULL, "b", "t4.rows");
  qn_case *library = add_function(NULL);
  problems();
  qn_tune_options o = options();
  o.worker = script_worker("", "echo $op $name >>log");
  o.budget = 1e-3;
  qn_tune_result r = run(&o);
  ck_assert_msg(r.remarks && strstr(r.remarks, "function: there was no time to try it"), "%s", r.remarks);
  qn_tune_result_free(&r);
  o.budget = 0;
  r = run(&o);
  ck_assert_ptr_null(r.remarks);
  qn_tune_result_free(&r);
  FILE *log = fopen(strcat(strcpy((char[64]){0}, folder), "/log"), "r"); /* the first run verified the plain one */
  ck_assert(log && getline(&first, &(size_t){0}, log) > 0 && !strcmp(first, "verify a\n"));
  ck_assert(getline(&first, &(size_t){0}, log) > 0 && !strcmp(first, "verify function\n"));
  fclose(log);
  free(first);
  free(library);
}
END_TEST

START_TEST(names_of_functions_have_limits) {
  char name[80] = "";
  ck_assert_int_eq(qn_function_register(NULL, nothing), QN_E_ARG);
  ck_assert_int_eq(qn_function_register("", nothing), QN_E_ARG);
  memset(name, 'x', 70);
  ck_assert_int_eq(qn_function_register(name, nothing), QN_E_ARG);
  for (int i = 0; i < 64; i++) {
    snprintf(name, sizeof name, "f%d", i);
    ck_assert_int_eq(qn_function_register(name, nothing), QN_OK);
  }
  ck_assert_int_eq(qn_function_register("f9", nothing), QN_OK); /* again */
  ck_assert_int_eq(qn_function_register("one-more", nothing), QN_E_LIMIT);
  ck_assert_int_eq(qn_function_register("f9", NULL), QN_OK);
  ck_assert_int_eq(qn_function_register("one-more", nothing), QN_OK);
}
END_TEST

/* ---- Who is blamed ----------------------------------------------------------------------------------------------- */

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
  qn_status s = qn_tune(set.problem, 1, &o, &r);
  bool any = blames[_i].rejected + blames[_i].set_aside < 3;
  ck_assert_msg(s == (any ? QN_OK : QN_E_NO_KERNEL), "%s: %s", blames[_i].answer, qn__errmsg());
  if (any) {
    ck_assert_msg(r.counts.rejected == blames[_i].rejected && r.counts.set_aside == blames[_i].set_aside,
                  "%s: rejected %zu, set aside %zu", blames[_i].answer, r.counts.rejected, r.counts.set_aside);
    for (size_t i = 0; i < r.n_kernels; i++)
      ck_assert_msg(!blames[_i].rejected || strcmp(r.kernel[i].name, "b"), "%s: b is served", blames[_i].answer);
    qn_tune_result_free(&r);
  }
  o.worker = script_worker("", "");
  s = qn_tune(set.problem, 1, &o, &r);
  ck_assert_msg(s == (blames[_i].remembered < 3 ? QN_OK : QN_E_NO_KERNEL), "%s: %s", blames[_i].answer, qn__errmsg());
  if (s == QN_OK) ck_assert_uint_eq(r.counts.rejected, blames[_i].remembered);
  qn_tune_result_free(&r);
}
END_TEST

/* From the second on workers are killed while they start, as where memory is short: the run ends and says so. */
START_TEST(worker_that_never_started_is_the_runs_failure) {
  three_kernels();
  qn_tune_options o = options();
  qn_tune_result r;
  o.worker = script_worker("once || kill -KILL $$", "[ $op$name = verifyb ] && kill -KILL $$");
  ck_assert_int_eq(qn_tune(set.problem, 1, &o, &r), QN_E_IO);
  ck_assert_msg(strstr(qn__errmsg(), "does not start") != NULL, "%s", qn__errmsg());
  o.worker = script_worker("", "");
  r = run(&o);
  ck_assert_uint_eq(r.counts.rejected, 0);
  qn_tune_result_free(&r);
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
  qn_tune_result_free(&r);
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
  qn_tune_result_free(&r);
  unsetenv("QUERNEL_CC");
  r = run(&o);
  ck_assert_uint_eq(r.counts.set_aside + r.counts.rejected, 0);
  qn_tune_result_free(&r);
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
  qn_tune_result_free(&r);
  qn_tune_result_free(&again);
}

/* Kill the supervisor at some moment, again and again, then finish: what has evidence is neither lost nor done
 * again. */
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
  qn_status s = qn_tune(set.problem, 1, &o, &r);
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
  snprintf(path, sizeof path, "%s/%s", qn_store_path(store), kind);
  qn_store_close(store);
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
  qn_tune_result_free(&r);
}
END_TEST

START_TEST(full_disk_without_any_kernel) {
  good_set();
  fill_up("artifact");
  qn_tune_options o = options();
  qn_tune_result r;
  ck_assert_int_eq(qn_tune(set.problem, 1, &o, &r), QN_E_IO);
  ck_assert_msg(strstr(qn__errmsg(), "/artifact") != NULL, "%s", qn__errmsg());
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

int main(int argc, char **argv) {
  (void)argc;
  Suite *s = suite_create("tuner");
  TCase *runs = tcase_create("runs"), *plans = tcase_create("plans"), *functions = tcase_create("functions"),
        *ends = tcase_create("ends"), *blame = tcase_create("blame");
  TCase *all[] = {runs, plans, functions, blame, ends};
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
  tcase_add_test(runs, spent_budget_ends_with_a_plain_kernel);
  tcase_add_test(runs, budget_ends_the_compiling);
  tcase_add_loop_test(runs, budget_holds_though_a_compiler_hangs, 0, (int)QN_COUNT(hangs));
  tcase_add_test(runs, runs_share_what_they_compile);
  tcase_add_loop_test(plans, neighbours_that_tie_are_merged, 0, (int)QN_COUNT(merges));
  tcase_add_loop_test(plans, ranges_begin_where_kernels_do, 0, (int)QN_COUNT(begun));
  tcase_add_loop_test(plans, evidence_must_tell, 0, 3);
  tcase_add_test(plans, broken_promise_of_rows_costs_the_place);
  tcase_add_test(plans, deterministic_plan_is_kept_beside_the_fastest);
  tcase_add_test(plans, generic_plans_are_of_every_kind);
  tcase_add_test(functions, right_function_wins_and_is_served);
  tcase_add_loop_test(functions, wrong_function_is_refused, 0, (int)QN_COUNT(bad_functions));
  tcase_add_test(functions, function_is_tried_first_or_named);
  tcase_add_test(functions, names_of_functions_have_limits);
  tcase_add_loop_test(blame, only_the_kernel_at_fault_is_remembered, 0, (int)QN_COUNT(blames));
  tcase_add_test(blame, worker_that_never_started_is_the_runs_failure);
  tcase_add_loop_test(blame, kernel_that_kills_its_run_is_learnt, 0, (int)QN_COUNT(deadly));
  tcase_add_loop_test(blame, killed_compiler_is_not_held_against_a_kernel, 0, (int)QN_COUNT(killed_compilers));
  tcase_add_test(blame, plans_of_a_kernel_that_falls_later_are_made_again);
  tcase_add_test(ends, killed_run_is_continued);
  tcase_add_test(ends, kernel_is_not_blamed_for_a_killed_supervisor);
  tcase_add_test(ends, full_disk_is_one_clear_error);
  tcase_add_test(ends, full_disk_costs_the_evidence_only);
  tcase_add_test(ends, full_disk_without_any_kernel);
  tcase_add_test(ends, unknown_device_and_worker);
  return run_suite(s, argv[0]);
}
