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

/* Of the program test_UNIT, argv[0], run its suite. */
static inline int run_suite(Suite *s, const char *program) {
  const char *name = strrchr(program, '/');
  return run_unit(s, (name ? name + 1 : program) + strlen("test_"));
}
#endif
