/* test_gpu.c - the GPU's side, as far as it goes without one: every form of an instruction on the interpreter, the
 * assembler's view of them, vectors that are wrong, and tests/gpu/run on a pretended GPU. */
#include "cli_fixture.h"

#define CONFORMANCE QN_BUILD "/tests/conformance"
#define VECTORS QN_TESTS "/gpu/vectors"

static void succeeds(int status, const char *what) {
  ck_assert_msg(status == 0, "%s: exit %d\n%s%s\n  again: %s", what, status, cli_out, cli_err, cli_command);
}
static void says(const char *text, const char *part) {
  ck_assert_msg(strstr(text, part) != NULL, "'%s' is not in '%s'", part, text);
}

static const char *const devices[] = {"emu:sm_80", "emu:sm_90a", "emu:sm_100a", "emu:sm_120a"};
START_TEST(instructions_do_what_they_should) {
  succeeds(cli(CONFORMANCE " --device %s --check " VECTORS, devices[_i]), devices[_i]);
  says(cli_out, " 0 wrong");
}
END_TEST

static const char *const targets[] = {"sm_75", "sm_80", "sm_89", "sm_90a", "sm_100a", "sm_120a"};
START_TEST(the_assembler_takes_every_form) { succeeds(cli(CONFORMANCE " --compile %s", targets[_i]), targets[_i]); }
END_TEST

/* Vectors are reproduced, until one bit of an answer is another. */
START_TEST(a_wrong_vector_is_found) {
  succeeds(cli(CONFORMANCE " --device emu:sm_80 --only prmt.b32.rc8 --record ."), "record");
  succeeds(cli(CONFORMANCE " --device emu:sm_80 --only prmt.b32.rc8 --check ."), "check");
  says(cli_out, "1 with what a GPU answered");
  FILE *f = fopen(cli_path("sm_80.vectors"), "r+b");
  ck_assert(f && !fseek(f, -1, SEEK_END));
  int last = fgetc(f);
  ck_assert(!fseek(f, -1, SEEK_END));
  fputc(last ^ 1, f);
  fclose(f);
  ck_assert_int_eq(cli(CONFORMANCE " --device emu:sm_80 --only prmt.b32.rc8 --check ."), 1);
  says(cli_out, "FAILED prmt.b32.rc8");
  says(cli_out, "a GPU of sm_80");
}
END_TEST

/* A form that destroys its context fails; those before and behind it do not. */
START_TEST(a_lost_context_costs_one_form) {
  ck_assert_int_eq(cli(CONFORMANCE " --device emu:sm_80 --only prmt --lose rc8"), 1);
  says(cli_out, "FAILED prmt.b32.rc8: ");
  says(cli_out, "7 forms, 1 wrong");
}
END_TEST

/* The documentation tells how many forms of each family no GPU has confirmed. */
START_TEST(unconfirmed_forms_are_documented) {
  static char readme[1 << 16];
  FILE *f = fopen(QN_TESTS "/gpu/README.md", "r");
  ck_assert_ptr_nonnull(f);
  readme[fread(readme, 1, sizeof readme - 1, f)] = 0;
  fclose(f);
  succeeds(cli(CONFORMANCE " --unconfirmed " VECTORS " | grep -v '^  '"), "unconfirmed");
  int families = 0;
  for (char *line = strtok(cli_out, "\n"); line; line = strtok(NULL, "\n"), families++) says(readme, line);
  ck_assert_int_ge(families, 10);
}
END_TEST

START_TEST(kernels_of_the_ceilings_are_right) {
  succeeds(cli(QN_BUILD "/tests/ceilings --device emu:sm_90a"), "ceilings");
  says(cli_out, "results are right");
}
END_TEST

#define RUN                                                                                                            \
  "QUERNEL_BUILD=" QN_BUILD " OUT=$PWD/out QUERNEL_CACHE=$PWD/cache QUERNEL_GPU_STATE=$PWD/state " QN_TESTS "/gpu/run"

static const char *const parts[] = {"conformance", "correctness", "ceilings", "peers"};
START_TEST(a_part_runs_on_the_interpreter) {
  succeeds(cli(RUN " --device emu:sm_90a --part %s", parts[_i]), parts[_i]);
  succeeds(cli("cat out/parts.csv out/machine.csv"), "results");
  says(cli_out, parts[_i]);
  says(cli_out, ",done,");
  says(cli_out, "processor,");
  succeeds(cli(RUN " --device emu:sm_90a --list"), "list");
  says(cli_out, "done");
}
END_TEST

START_TEST(without_a_gpu_it_says_so) {
  if (!access("/dev/nvidia0", F_OK) || !access("/dev/dxg", F_OK)) return; /* there is one */
  ck_assert_int_eq(cli(RUN), 1);
  says(cli_err, "no NVIDIA GPU here");
  ck_assert_ptr_eq(strchr(cli_err, '\n'), cli_err + strlen(cli_err) - 1);
  ck_assert_int_eq(cli(RUN " --device emu:sm_90a --part nonsense"), 1);
  says(cli_err, "no part 'nonsense'");
}
END_TEST

/* Times that were made up: 8650752 bytes in 5 us are 1730 GB/s, 0.5773 of the copy's 3000. */
START_TEST(results_make_a_table) {
  static const char ceilings[] = "what,n,k,m,bytes,us,rate,unit\ncopy,0,0,0,1,1.0,3000.0,GB/s\n"
                                 "cublas,4096,4096,1,1,15.0,2.0,TFLOP/s\n";
  static const char tune[] = "problem,n,k,m,variant,bytes,us,dense_us\n"
                             "int4.g128:4096x4096:f16-f16,4096,4096,16,v,8650752,10.000,0.000\n"
                             "int4.g128:4096x4096:f16-f16,4096,4096,1,v,8650752,5.000,0.000\n";
  static const char peers[] = "peer,n,k,m,us\nint4pack,4096,4096,1,7.5\n";
  static const char want[] = "copy                       3000.0 GB/s\n"
                             "problem                       M    us  GB/s  of copy  cuBLAS  int4pack  Triton\n"
                             "int4.g128:4096x4096:f16-f16   1   5.0  1730      58%    3.00      1.50  -\n"
                             "int4.g128:4096x4096:f16-f16  16  10.0   865      29%       -         -  -\n";
  cli_write("ceilings.csv", ceilings, sizeof ceilings - 1);
  cli_write("tune.csv", tune, sizeof tune - 1);
  cli_write("peers.csv", peers, sizeof peers - 1);
  succeeds(cli("quernel run " QN_TESTS "/gpu/table.lua ."), "table");
  ck_assert_str_eq(cli_out, want);
}
END_TEST

START_TEST(the_peers_script_compiles) {
  succeeds(cli("python3 -c 'import ast, sys; ast.parse(open(sys.argv[1]).read())' " QN_TESTS "/gpu/peers.py"), "peers");
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  Suite *s = suite_create("gpu");
  TCase *t = tcase_create("gpu");
  tcase_add_checked_fixture(t, cli_enter, cli_leave);
  tcase_set_timeout(t, 300);
#define EACH(test, list) tcase_add_loop_test(t, test, 0, (int)(sizeof list / sizeof *list))
  EACH(instructions_do_what_they_should, devices);
  EACH(the_assembler_takes_every_form, targets);
  EACH(a_part_runs_on_the_interpreter, parts);
  tcase_add_test(t, a_wrong_vector_is_found);
  tcase_add_test(t, a_lost_context_costs_one_form);
  tcase_add_test(t, unconfirmed_forms_are_documented);
  tcase_add_test(t, kernels_of_the_ceilings_are_right);
  tcase_add_test(t, without_a_gpu_it_says_so);
  tcase_add_test(t, results_make_a_table);
  tcase_add_test(t, the_peers_script_compiles);
  suite_add_tcase(s, t);
  return run_suite(s, argv[0]);
}
