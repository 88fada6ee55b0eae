/* suite.h - how every test program runs its suite. */
#ifndef QN_SUITE_H
#define QN_SUITE_H
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Run the suite of `program` (argv[0]), which ctest knows by its name without test_. For each failing case the command
 * that runs it again is printed. */
static inline int run_suite(Suite *s, const char *program) {
  SRunner *r = srunner_create(s);
  srunner_run_all(r, CK_ENV);
  int failed = srunner_ntests_failed(r);
  TestResult **f = srunner_failures(r);
  const char *name = strrchr(program, '/');
  for (int i = 0; i < failed && name; i++)
    printf("again: CK_RUN_CASE='%s' ctest --test-dir " QN_BUILD " -R '^%s$' --output-on-failure   # %s\n",
           tr_tcname(f[i]), name + strlen("/test_"), tr_msg(f[i]));
  free(f);
  srunner_free(r);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
#endif
