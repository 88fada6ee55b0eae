/* suite.h - how every test program runs its suite. */
#ifndef QN_SUITE_H
#define QN_SUITE_H
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Run the suite of a unit. For each failing case the command that runs it again is printed. */
static inline int run_unit(Suite *s, const char *unit) {
  SRunner *r = srunner_create(s);
  setenv("QUERNEL_BUSY", "ignore", 0); /* no test asks how fast anything is: however busy the machine is, all pass */
  srunner_run_all(r, CK_ENV);
  int failed = srunner_ntests_failed(r);
  TestResult **f = srunner_failures(r);
  for (int i = 0; i < failed; i++)
    printf("again: CK_RUN_CASE='%s' ctest --test-dir " QN_BUILD " -R '^%s$' --output-on-failure   # %.*s\n",
           tr_tcname(f[i]), unit, (int)strcspn(tr_msg(f[i]), "\n"), tr_msg(f[i]));
  free(f);
  srunner_free(r);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* The unit of a program test_UNIT, argv[0]. */
static inline const char *unit_of(const char *program) {
  const char *name = strrchr(program, '/');
  return (name ? name + 1 : program) + strlen("test_");
}

static inline int run_suite(Suite *s, const char *program) { return run_unit(s, unit_of(program)); }

/* A case for each test function, named like it, which runs `loops` times, with _i from 0 on. */
typedef struct suite_case {
  const char *name;
  const TTest *const *test;
  int loops;
} suite_case;
#define CASE(test, loops)                                                                                              \
  { #test, &(test), loops }

/* What surrounds each case, in its own process; how many seconds it may take. */
typedef struct suite_frame {
  SFun enter, leave;
  double timeout;
} suite_frame;

static inline int run_cases(const char *program, const suite_case *cases, size_t n, suite_frame frame) {
  Suite *s = suite_create(unit_of(program));
  for (size_t i = 0; i < n; i++) {
    TCase *c = tcase_create(cases[i].name + (strncmp(cases[i].name, "test_", 5) ? 0 : 5));
    tcase_set_timeout(c, frame.timeout);
    if (frame.enter) tcase_add_checked_fixture(c, frame.enter, frame.leave);
    tcase_add_loop_test(c, *cases[i].test, 0, cases[i].loops);
    suite_add_tcase(s, c);
  }
  return run_suite(s, program);
}
/* Run all of them, each in the frame of the further arguments. */
#define RUN_CASES(program, cases, ...)                                                                                 \
  run_cases(program, cases, sizeof(cases) / sizeof *(cases), (suite_frame){__VA_ARGS__})
#endif
