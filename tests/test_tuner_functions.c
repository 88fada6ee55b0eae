/* test_tuner_functions.c - functions of the user's own among the candidates: they win, are refused, are named in a
 * pack. */
#include "pack.h"
#include "tuner_runs.h"

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
  ck_assert_int_eq(qn__pack_builder_new(&b), QN_OK);
  ck_assert_int_eq(qn__pack_add_device(b, r->device.target, r->device.arch, "", 2), QN_OK);
  for (size_t i = 0; i < r->n_kernels; i++)
    ck_assert_msg(qn__pack_add_kernel(b, &r->kernel[i]) == QN_OK, "%s", qn__errmsg());
  for (size_t i = 0; i < r->n_plans; i++) ck_assert_msg(qn__pack_add_plan(b, &r->plan[i]) == QN_OK, "%s", qn__errmsg());
  ck_assert_msg(qn__pack_write(b, path) == QN_OK, "%s", qn__errmsg());
  qn__pack_builder_free(b);
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
  qn__tune_result_free(&r);
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
  qn__tune_result_free(&r);
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
  qn__tune_result_free(&r);
  o.budget = 0;
  r = run(&o);
  ck_assert_ptr_null(r.remarks);
  qn__tune_result_free(&r);
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

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(right_function_wins_and_is_served, 1),
      CASE(wrong_function_is_refused, QN_COUNT(bad_functions)),
      CASE(function_is_tried_first_or_named, 1),
      CASE(names_of_functions_have_limits, 1),
  };
  return RUN_CASES(argv[0], cases, init, fini, 120);
}
