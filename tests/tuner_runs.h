/* tuner_runs.h - whole runs over two small problems: their candidates, the run, and what is asked of its result. */
#ifndef TUNER_RUNS_H
#define TUNER_RUNS_H
#include "suite.h"
#include "supervise.h"
#include "tuner_fixture.h"
#include <sys/stat.h>

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

static inline qn_candidate *add(const char *fault, const char *remark, const char *layout) {
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
static inline void problems(void) {
  int64_t size[][2] = {{64, 64}, {70, 101}};
  for (size_t i = 0; i < QN_COUNT(set.problem); i++)
    set.problem[i] = (qn_tune_problem){.problem = test_problem(size[i][0], size[i][1]),
                                       .format = test_format(),
                                       .candidate = set.candidate,
                                       .n_candidates = set.n,
                                       .generic = &set.candidate[0]};
}

static inline void good_set(void) {
  add(NULL, "good-a", "t4.rows");
  add(NULL, "good-b", "t4.rows");
  add(NULL, "good-c", "t4.other");
  problems();
}

static inline void init(void) {
  folder_init();
  set.n = 0;
}

static inline void fini(void) {
  for (size_t i = 0; i < set.n; i++) free(set.text[i]);
  folder_fini();
}

/* ---- Runs -------------------------------------------------------------------------------------------------------- */

static int notes;

static inline void count_notes(void *ud, const qn_tune_event *e) {
  (void)ud;
  notes += !strcmp(e->phase, "note");
}

static inline qn_tune_options options(void) {
  return (qn_tune_options){.device = "host:2",
                           .store = folder,
                           .worker = WORKER,
                           .m = profile,
                           .n_m = QN_COUNT(profile),
                           .threads = 2,
                           .progress = count_notes};
}

static inline qn_tune_result run(const qn_tune_options *o) {
  qn_tune_result r;
  qn_status s = qn__tune(set.problem, QN_COUNT(set.problem), o, &r);
  ck_assert_msg(s == QN_OK, "%s: %s; again: CK_FORK=no test_tuner", qn_status_name(s), qn__errmsg());
  return r;
}

static inline pid_t start_run(const qn_tune_options *o) {
  pid_t pid = fork();
  if (pid) return pid;
  qn_tune_result r;
  _exit(qn__tune(set.problem, QN_COUNT(set.problem), o, &r));
}

static inline const qn_plan *plan_of(const qn_tune_result *r, size_t problem, qn_plan_kind kind) {
  for (size_t i = 0; i < r->n_plans; i++)
    if (!strcmp(r->plan[i].problem.spelling, set.problem[problem].problem.spelling) && r->plan[i].kind == kind)
      return &r->plan[i];
  return NULL;
}

/* The plan for other shapes. */
static inline const qn_plan *generic_plan(const qn_tune_result *r, qn_plan_kind kind) {
  for (size_t i = 0; i < r->n_plans; i++)
    if (!r->plan[i].problem.n && r->plan[i].kind == kind) return &r->plan[i];
  return NULL;
}

/* Fit for a pack: each plan valid, each kernel that it names there, with an image. */
static inline void check_result(const qn_tune_result *r) {
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

static inline void check_same_plans(const qn_tune_result *a, const qn_tune_result *b) {
  ck_assert_uint_eq(a->n_plans, b->n_plans);
  for (size_t i = 0; i < a->n_plans; i++) {
    ck_assert_uint_eq(a->plan[i].n_ranges, b->plan[i].n_ranges);
    for (uint32_t j = 0; j < a->plan[i].n_ranges; j++)
      ck_assert_str_eq(a->plan[i].range[j].variant, b->plan[i].range[j].variant);
  }
}

/* The system's compiler, which does something first when it is to compile. `once` as for a worker that is a script. */
static inline void script_compiler(const char *first) {
  char path[64];
  snprintf(path, sizeof path, "%s/cc", folder);
  FILE *f = fopen(path, "w");
  fprintf(f, "#!/bin/sh\nonce() { mkdir \"%s/cc$1\" 2>/dev/null; }\n", folder);
  fprintf(f, "case \"$*\" in *-shared*) %s;; esac\nexec '%s' \"$@\"\n", first, qn__compiler_path());
  fclose(f);
  ck_assert_int_eq(chmod(path, 0755), 0);
  setenv("QUERNEL_CC", path, 1);
}

static inline qn_store *open_store(void) {
  qn_supervisor s;
  qn_store *out;
  char compiler[256];
  ck_assert_int_eq(qn__supervisor_init(&s, WORKER, "host:2"), QN_OK);
  ck_assert_int_eq(qn__compiler_version("host", compiler, sizeof compiler), QN_OK);
  ck_assert_int_eq(qn__store_open(folder, &s.info, compiler, QN_STORE_POLICY, &out), QN_OK);
  qn__supervisor_fini(&s);
  return out;
}
#endif
